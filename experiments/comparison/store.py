"""The store of a comparison: jobs with leases in SQLite, results in files beside it. Nothing finished is lost.

A finished job leaves a small file, ``KEY.done.json``, with its specification and the SHA-256 of its other files. The
database can be made again from those files, and a damaged result is known as such.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

LEASE_S = 60.0
"""A job whose worker has not been heard of for so long is free again."""
VERSION = 2
"""Of the layout below, in ``PRAGMA user_version``."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, spec TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'waiting',
    owner TEXT, lease REAL NOT NULL DEFAULT 0, fraction REAL NOT NULL DEFAULT 0,
    message TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT ''
)"""
_COLUMNS = {"identity": "TEXT NOT NULL DEFAULT ''", "changed": "REAL NOT NULL DEFAULT 0"}
"""Columns that later versions added."""


class StoreError(RuntimeError):
    """The store cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Job:
    """One unit of work.

    Attributes:
        key: Hash of the specification, the code and the files that the work depends on.
        kind: ``bank``, ``fit``, ``run`` or ``cell``.
        spec: The specification as JSON.
        identity: Hash of the specification alone: equal for results of older and newer code.
        state: ``waiting``, ``running``, ``done`` or ``failed``.
        fraction: How far it is, 0..1.
        message: What it is doing.
        error: Why it failed.
        changed: When its state last changed, in seconds since 1970.
    """

    key: str
    kind: str
    spec: str
    identity: str = ""
    state: str = "waiting"
    fraction: float = 0.0
    message: str = ""
    error: str = ""
    changed: float = 0.0


_FIELDS = ", ".join(field.name for field in fields(Job))


class Store:
    """A folder with ``store.sqlite`` (WAL) and the files of finished jobs. Many processes may share it."""

    def __init__(self, folder: Path) -> None:
        """Open or create the store, or make a damaged or lost database again from the files of finished jobs.

        Raises:
            StoreError: If the folder cannot be written, its disk is full, or a newer Steersman made the store.
        """
        self.folder = folder
        with _said(folder):
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".probe-{os.getpid()}"
            probe.write_bytes(b"?")
            probe.unlink()
        try:
            new = self._open()
        except sqlite3.DatabaseError as error:
            if _full(error):
                raise StoreError(_FULL.format(folder)) from error
            if isinstance(error, sqlite3.OperationalError):  # locked, or no access: the data may be sound
                raise StoreError(
                    f"{self._path} cannot be opened ({error}); run again, or choose another --out"
                ) from error
            self._set_aside()
            new = self._open()
        if new:
            self._rebuild()

    def add(self, jobs: Iterable[Job]) -> None:
        """Enrol jobs; those that exist keep their state, failed ones wait again, as specified now."""
        with self._connect() as db:
            for job in jobs:
                db.execute(
                    "INSERT OR IGNORE INTO jobs (key, kind, spec, identity) VALUES (?, ?, ?, ?)",
                    (job.key, job.kind, job.spec, job.identity),
                )
                db.execute(
                    "UPDATE jobs SET state='waiting', error='', spec=? WHERE key=? AND state='failed'",
                    (job.spec, job.key),
                )

    def get(self, key: str) -> Job:
        """A job by its key.

        Raises:
            KeyError: If there is none.
        """
        return self.jobs([key])[0]

    def jobs(self, keys: Sequence[str] | None = None) -> list[Job]:
        """Jobs by their keys, read at once; all of them by default.

        Raises:
            KeyError: If one of them does not exist.
        """
        with self._connect() as db:
            found = {row[0]: Job(*row) for row in db.execute(f"SELECT {_FIELDS} FROM jobs ORDER BY changed")}  # noqa: S608
        missing = [key for key in keys or () if key not in found]
        if missing:
            raise KeyError(f"no job {missing[0]} in {self._path}")
        return [found[key] for key in (found if keys is None else keys)]

    def older(self, jobs: Iterable[Job]) -> list[Job]:
        """Those of the given jobs whose question older code, or older files, have answered already."""
        done = [job for job in self.jobs() if job.state == "done"]
        keys, answered = {job.key for job in done}, {job.identity for job in done}
        return [job for job in jobs if job.key not in keys and job.identity in answered]

    def claim(self, key: str) -> bool:
        """Take the lease of a job that waits, or whose worker died or has not been heard of for a minute."""
        with self._connect() as db:
            db.execute("BEGIN IMMEDIATE")
            found = db.execute("SELECT state, owner, lease FROM jobs WHERE key=?", (key,)).fetchone()
            state, owner, lease = found or ("gone", None, 0.0)
            free = state == "waiting" or (state == "running" and (lease < time.time() or self._abandoned(key, owner)))
            if free:
                db.execute(
                    "UPDATE jobs SET state='running', owner=?, lease=?, fraction=0, message='', changed=? WHERE key=?",
                    (_me(), time.time() + LEASE_S, time.time(), key),
                )
                _HELD.add(self._held(key))
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
        """Mark a job of this process as done, with the SHA-256 of its files, or as failed with the error."""
        if not error:
            self._seal(key)
        self._end(key, "failed" if error else "done", error, owner=_me())

    def fail(self, key: str, error: str) -> None:
        """Mark a job as failed, whoever held it: for those who saw its worker die."""
        self._end(key, "failed", error)

    def release(self, key: str) -> None:
        """Let a job of this process, or of a worker that died, wait again."""
        _HELD.discard(self._held(key))
        with self._connect() as db:
            db.execute("UPDATE jobs SET state='waiting' WHERE key=? AND state='running'", (key,))

    def sound(self, key: str) -> bool:
        """Whether a job is done and its files are those that it left; a job that lost them waits again."""
        if self.get(key).state != "done":
            return False
        try:
            sums = json.loads(self.file(key, _DONE).read_text(encoding="utf-8"))["sha256"]
            good = bool(sums) and all(_sum(self.folder / name) == wanted for name, wanted in sums.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            good = False
        if not good:
            with self._connect() as db:
                db.execute("UPDATE jobs SET state='waiting' WHERE key=?", (key,))
        return good

    def delete(self, keys: Iterable[str]) -> None:
        """Remove jobs with all their files.

        Raises:
            StoreError: If one of them is running.
        """
        jobs = self.jobs(list(keys))
        busy = [job.key for job in jobs if job.state == "running" and not self.claim(job.key)]
        if busy:
            raise StoreError(f"{busy[0]} is running; stop its comparison first")
        for job in jobs:
            for path in sorted(self.folder.glob(f"{job.key}.*"), reverse=True):
                _remove(path)
        with self._connect() as db:
            db.executemany("DELETE FROM jobs WHERE key=?", [(job.key,) for job in jobs])

    def file(self, key: str, suffix: str) -> Path:
        """Where a file of a job lies."""
        return self.folder / f"{key}{suffix}"

    def _held(self, key: str) -> str:
        return f"{self._path.resolve()}:{key}"

    @property
    def _path(self) -> Path:
        return self.folder / "store.sqlite"

    def _open(self) -> bool:
        """Whether the table had to be made; a database may have been lost, or emptied by a crash."""
        with self._connect() as db:
            db.execute("PRAGMA journal_mode=WAL")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise StoreError(
                    f"{self._path} has layout {version} and this Steersman knows {VERSION}; update it, or choose "
                    "another --out"
                )
            (state,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if state != "ok":
                raise sqlite3.DatabaseError(state)
            db.execute("BEGIN IMMEDIATE")  # two processes that open it at once must not both add a column
            new = not db.execute("PRAGMA table_info(jobs)").fetchall()
            db.execute(_SCHEMA)
            have = {row[1] for row in db.execute("PRAGMA table_info(jobs)")}
            for name, kind in _COLUMNS.items():
                if name not in have:
                    db.execute(f"ALTER TABLE jobs ADD COLUMN {name} {kind}")
            db.execute(f"PRAGMA user_version={VERSION}")
            db.execute(f"SELECT {_FIELDS} FROM jobs LIMIT 1")  # noqa: S608
        return new

    def _set_aside(self) -> None:
        """A damaged database is kept under another name."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        for suffix in ("", "-wal", "-shm"):
            path = self._path.with_name(self._path.name + suffix)
            if path.exists():
                path.replace(path.with_name(f"{path.name}.damaged-{stamp}"))

    def _rebuild(self) -> None:
        """Enrol the jobs whose files lie here."""
        jobs = []
        for path in self.folder.glob(f"*{_DONE}"):
            try:
                left = json.loads(path.read_text(encoding="utf-8"))
                jobs.append(Job(left["key"], left["kind"], left["spec"], left["identity"], changed=left["changed"]))
            except (OSError, ValueError, KeyError, TypeError):  # its work will be done again
                continue
        self.add(jobs)
        with self._connect() as db:
            db.executemany(
                "UPDATE jobs SET state='done', fraction=1, changed=? WHERE key=?",
                [(job.changed, job.key) for job in jobs],
            )

    def _seal(self, key: str) -> None:
        job = self.get(key)
        left = [path for path in self.folder.glob(f"{key}.*") if path.is_file() and not path.name.endswith(_OTHERS)]
        content = {
            "key": key, "kind": job.kind, "identity": job.identity, "spec": job.spec, "changed": time.time(),
            "sha256": {path.name: _sum(path) for path in sorted(left)},
        }  # fmt: skip
        draft = self.file(key, ".done.draft")
        draft.write_text(json.dumps(content), encoding="utf-8")
        draft.replace(self.file(key, _DONE))

    def _end(self, key: str, state: str, error: str, owner: str | None = None) -> None:
        _HELD.discard(self._held(key))
        with self._connect() as db:
            db.execute(
                "UPDATE jobs SET state=?, error=?, fraction=1, message='', changed=? "
                "WHERE key=? AND (? IS NULL OR owner=?)",
                (state, error, time.time(), key, owner, owner),
            )

    def _abandoned(self, key: str, owner: str | None) -> bool:
        """Whether the owner was a process of this machine that is gone, or this one, which is not at it any more."""
        if owner == _me():
            return self._held(key) not in _HELD
        return _dead(owner)

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            db = sqlite3.connect(self._path, timeout=30.0, isolation_level=None)
            try:
                with db:
                    yield db
            finally:
                db.close()
        except sqlite3.OperationalError as error:
            if _full(error):
                raise StoreError(_FULL.format(self.folder)) from error
            raise


_DONE = ".done.json"
_OTHERS = (_DONE, ".error.txt", ".done.draft")
"""Files of a job that are no part of its result."""
_FULL = "the disk of {} is full; free some space and run again, or choose another folder with --out"
_HELD: set[str] = set()
"""Jobs that this process is at."""


def disk_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full."""
    return (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or _full(error)


def _full(error: BaseException) -> bool:
    return isinstance(error, sqlite3.Error) and "disk is full" in str(error)


@contextmanager
def _said(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if disk_full(error):
            raise StoreError(_FULL.format(folder)) from error
        raise StoreError(f"cannot write to {folder}: {error.strerror}; choose another folder with --out") from error


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir():
        for part in path.iterdir():
            _remove(part)
        path.rmdir()
    else:
        path.unlink()


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
