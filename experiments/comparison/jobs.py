"""Jobs of a store: taking one, doing it, and saying how it ended. One job, one process."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import traceback
from dataclasses import asdict
from pathlib import Path

import pydantic
import torch

from steersman.experiments.comparison import runner
from steersman.experiments.comparison.cells import ROWS, CellSpec
from steersman.experiments.comparison.evaluate import Progress
from steersman.experiments.comparison.store import LEASE_S, Job, Store, StoreError, disk_full
from steersman.experiments.spec.plan import BankSpec, FitSpec, JobSpec, RunSpec, made_of

ERROR_LENGTH = 500
"""Longer messages are cut in the report; the whole traceback lies beside the result."""
KINDS: dict[str, type[JobSpec | CellSpec]] = {"bank": BankSpec, "fit": FitSpec, "run": RunSpec, "cell": CellSpec}


def job_of(spec: JobSpec | CellSpec) -> Job:
    """The job of a piece of work."""
    kind = next(name for name, made in KINDS.items() if type(spec) is made)
    return Job(spec.key, kind, json.dumps(asdict(spec)), spec.identity)


def spec_of(job: Job) -> JobSpec | CellSpec:
    """The piece of work of a job.

    Raises:
        pydantic.ValidationError: If another version of Steersman wrote it.
    """
    return pydantic.TypeAdapter(KINDS[job.kind]).validate_json(job.spec)


def work(folder: Path, key: str) -> None:
    """Take the lease of a job, do it and mark it done or failed; returns at once if the lease is taken.

    An error of the job is a fact about its run: it is stored with it, and the other jobs go on. So is ``sys.exit``.
    """
    torch.set_num_threads(1)
    store = Store(folder)
    if not store.claim(key):
        return
    try:
        with _Heartbeat(store, key):
            spec, report = spec_of(store.get(key)), _reporter(store, key)
            if isinstance(spec, CellSpec):
                spec.work(store.file(key, ROWS), report)
            else:
                _require_same(spec)
                _require_done(store, spec)
                runner.work(spec, lambda of, suffix: store.file(of.key, suffix), report)
    except Exception as error:  # the boundary of a job: whatever it is, the comparison goes on and reports it
        _fail(store, key, error, f"{type(error).__name__}: {error}")
    except SystemExit as error:
        _fail(store, key, error, f"the job called sys.exit({error.code!r})")
    except BaseException:
        store.release(key)
        raise
    else:
        store.finish(key)


def _fail(store: Store, key: str, error: BaseException, text: str) -> None:
    if disk_full(error):
        text = f"the disk is full ({error}); free some space and run again, or choose another folder with --out"
    try:
        store.file(key, ".error.txt").write_text(traceback.format_exc(), encoding="utf-8")
    except OSError:  # the disk is full: the line below is all that can be said
        text += " (no room for the traceback)"
    store.finish(key, text[:ERROR_LENGTH])


def _require_same(spec: JobSpec) -> None:
    """Raises: RuntimeError if code or files were edited since the comparison began, so that its key is not theirs."""
    if made_of(spec.environment, getattr(spec, "model", None), getattr(spec, "controller", None)) != spec.made:
        raise RuntimeError("code or files that it depends on were edited while the comparison ran; run it again")


def _require_done(store: Store, spec: JobSpec) -> None:
    """Raises: RuntimeError, naming what failed, if something that the work needs has not been done."""
    needed = {"its environment": getattr(spec, "prepared", None), "its model": getattr(spec, "fit", None)}
    for name, part in needed.items():
        if part is not None and (job := store.get(part.key)).state != "done":
            raise RuntimeError(f"{name} could not be used: {job.error or job.state}")


def _reporter(store: Store, key: str) -> Progress:
    last = 0.0

    def report(fraction: float, message: str) -> None:
        nonlocal last
        if time.monotonic() - last > 0.3:
            last = time.monotonic()
            store.report(key, fraction, message)

    return report


class _Heartbeat:
    """Renews the lease of a job in the background while it is silent."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def _beat(self) -> None:
        pause = LEASE_S / 4
        while not self._stop.wait(pause):
            try:
                self._store.renew(self._key)
                pause = LEASE_S / 4
            except (sqlite3.Error, StoreError):  # a busy or full disk may be well again before the lease ends
                pause = LEASE_S / 20

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
