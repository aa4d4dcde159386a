"""The store of a comparison: jobs with leases in SQLite, results in files beside it. Nothing finished is lost."""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LEASE_S = 60.0
"""A job whose worker has not been heard of for so long is free again."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, spec TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'waiting',
    owner TEXT, lease REAL NOT NULL DEFAULT 0, fraction REAL NOT NULL DEFAULT 0,
    message TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT ''
)"""


class StoreError(RuntimeError):
    """The store cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Job:
    """One unit of work.

    Attributes:
        key: Hash of the specification.
        kind: ``fit`` or ``run``.
        spec: The specification as JSON.
        state: ``waiting``, ``running``, ``done`` or ``failed``.
        fraction: How far it is, 0..1.
        message: What it is doing.
        error: Why it failed.
    """

    key: str
    kind: str
    spec: str
    state: str = "waiting"
    fraction: float = 0.0
    message: str = ""
    error: str = ""


class Store:
    """A folder with ``store.sqlite`` (WAL) and one result file per finished job. Many processes may share it."""

    def __init__(self, folder: Path) -> None:
        """Open or create the store.

        Raises:
            StoreError: If the folder cannot be written, or the database is not one of ours.
        """
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StoreError(f"cannot write to {folder}: {error.strerror}; choose another folder with --out") from error
        try:
            with self._connect() as db:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute(_SCHEMA)
                db.execute("SELECT key, kind, spec, state, owner, lease, fraction, message, error FROM jobs LIMIT 1")
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{self._path} is not a readable store ({error}); move it away and run again, or choose another --out"
            ) from error

    def add(self, jobs: Iterable[Job]) -> None:
        """Enrol jobs; those that exist keep their state, failed ones wait again."""
        with self._connect() as db:
            for job in jobs:
                db.execute(
                    "INSERT OR IGNORE INTO jobs (key, kind, spec) VALUES (?, ?, ?)", (job.key, job.kind, job.spec)
                )
                db.execute("UPDATE jobs SET state='waiting', error='' WHERE key=? AND state='failed'", (job.key,))

    def get(self, key: str) -> Job:
        """A job by its key.

        Raises:
            KeyError: If there is none.
        """
        with self._connect() as db:
            row = db.execute("SELECT key, kind, spec, state, fraction, message, error FROM jobs WHERE key=?", (key,))
            found = row.fetchone()
        if found is None:
            raise KeyError(f"no job {key} in {self._path}")
        return Job(*found)

    def jobs(self, keys: Sequence[str]) -> list[Job]:
        """Jobs by their keys, read at once.

        Raises:
            KeyError: If one of them does not exist.
        """
        with self._connect() as db:
            rows = db.execute("SELECT key, kind, spec, state, fraction, message, error FROM jobs").fetchall()
        found = {row[0]: Job(*row) for row in rows}
        return [found[key] for key in keys]

    def claim(self, key: str) -> bool:
        """Take the lease of a job that waits, or whose worker died or has not been heard of for a minute."""
        with self._connect() as db:
            db.execute("BEGIN IMMEDIATE")
            state, owner, lease = db.execute("SELECT state, owner, lease FROM jobs WHERE key=?", (key,)).fetchone()
            free = state == "waiting" or (state == "running" and (lease < time.time() or _dead(owner)))
            if free:
                db.execute(
                    "UPDATE jobs SET state='running', owner=?, lease=?, fraction=0, message='' WHERE key=?",
                    (_me(), time.time() + LEASE_S, key),
                )
        return bool(free)

    def report(self, key: str, fraction: float, message: str) -> None:
        """Say how far a job is, and renew its lease."""
        with self._connect() as db:
            db.execute(
                "UPDATE jobs SET fraction=?, message=?, lease=? WHERE key=? AND owner=?",
                (fraction, message, time.time() + LEASE_S, key, _me()),
            )

    def renew(self, key: str) -> None:
        """Renew the lease of a job without news."""
        with self._connect() as db:
            db.execute("UPDATE jobs SET lease=? WHERE key=? AND owner=?", (time.time() + LEASE_S, key, _me()))

    def finish(self, key: str, error: str = "") -> None:
        """Mark a job as done, or as failed with the error."""
        with self._connect() as db:
            db.execute(
                "UPDATE jobs SET state=?, error=?, fraction=1, message='' WHERE key=? AND owner=?",
                ("failed" if error else "done", error, key, _me()),
            )

    def reopen(self, key: str) -> None:
        """Let a job wait again, for example when its result file has been lost."""
        with self._connect() as db:
            db.execute("UPDATE jobs SET state='waiting' WHERE key=?", (key,))

    def file(self, key: str, suffix: str) -> Path:
        """Where the result of a job lies."""
        return self.folder / f"{key}{suffix}"

    @property
    def _path(self) -> Path:
        return self.folder / "store.sqlite"

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self._path, timeout=30.0, isolation_level=None)
        try:
            with db:
                yield db
        finally:
            db.close()


def _me() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _dead(owner: str | None) -> bool:
    """Whether the owner was a process of this machine that is gone."""
    host, _, pid = (owner or ":").rpartition(":")
    if host != socket.gethostname() or not pid.isdigit() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
