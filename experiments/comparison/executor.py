"""Where jobs run: in this process, or in processes of this machine. Other machines plug in at the same seam."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from steersman.envs.processes import die_with_parent
from steersman.experiments.comparison.jobs import work
from steersman.experiments.comparison.store import Store

ATTEMPTS = 2
"""A job whose worker dies is tried so often before it counts as failed."""


class Executor(ABC):
    """Runs jobs of a store. Jobs report through the store, so an executor only has to start them.

    Attributes:
        ends_jobs: Whether it can end a job that takes too long.
    """

    ends_jobs: bool = True

    @abstractmethod
    def start(self, folder: Path, keys: Sequence[str], limit_s: float | None = None) -> None:
        """Start the jobs; may return before they end.

        Args:
            folder: Folder of the store.
            keys: The jobs.
            limit_s: Seconds that a job may take; None for any, and where the executor cannot end jobs.
        """

    @abstractmethod
    def wait(self, seconds: float) -> bool:
        """Wait for at most so long; True when all started jobs have ended."""

    def close(self) -> None:  # noqa: B027 - optional hook
        """End what still runs."""


class InProcess(Executor):
    """One job after the other, here: for tests and debuggers. It cannot end a job that takes too long."""

    ends_jobs = False

    def __init__(self) -> None:
        """Begin without any job."""
        self._waiting: deque[tuple[Path, str]] = deque()

    def start(self, folder: Path, keys: Sequence[str], limit_s: float | None = None) -> None:
        """See :class:`Executor`; the work is done by :meth:`wait`."""
        self._waiting.extend((folder, key) for key in keys)

    def wait(self, seconds: float) -> bool:
        """Do one job, however long it takes, so that the caller can tell of progress in between."""
        if self._waiting:
            work(*self._waiting.popleft())
        return not self._waiting

    def close(self) -> None:
        """See :class:`Executor`."""
        self._waiting.clear()


class Processes(Executor):
    """Spawned processes on this machine, one torch thread each; they end with this one, however it ends.

    A worker that dies (a segmentation fault, the kernel's out-of-memory killer, a time limit) takes its job with it
    and nothing else: another worker takes its place, and after :data:`ATTEMPTS` deaths the job has failed.
    """

    def __init__(self, workers: int | None = None) -> None:
        """Prepare ``workers`` processes, by default one per CPU that this process may use.

        Raises:
            ValueError: If ``workers`` is below 1.
        """
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.workers = workers or len(os.sched_getaffinity(0))
        self._crew: list[_Worker] = []
        self._waiting: deque[str] = deque()
        self._deaths: Counter[str] = Counter()
        self._folder = Path()
        self._limit_s: float | None = None

    def start(self, folder: Path, keys: Sequence[str], limit_s: float | None = None) -> None:
        """See :class:`Executor`."""
        self._folder, self._limit_s = folder, limit_s
        self._waiting.extend(keys)
        self._deal()

    def wait(self, seconds: float) -> bool:
        """See :class:`Executor`."""
        end = time.monotonic() + seconds
        while self._busy and (left := end - time.monotonic()) > 0:
            wait([part for worker in self._busy for part in (worker.pipe, worker.process.sentinel)], timeout=left)
            self._look()
            self._deal()
        return not self._busy

    def close(self) -> None:
        """See :class:`Executor`; jobs that were begun are free again."""
        self._waiting.clear()
        for worker in self._crew:
            key = worker.key
            worker.end()
            if key is not None:
                Store(self._folder).release(key)
        self._crew.clear()

    @property
    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._crew if worker.key is not None]

    def _deal(self) -> None:
        while self._waiting and len(self._busy) < self.workers:
            idle = [worker for worker in self._crew if worker.key is None]
            if not idle:
                idle = [_Worker.begun()]
                self._crew += idle
            idle[0].take(self._folder, self._waiting.popleft())

    def _look(self) -> None:
        for worker in self._busy:
            if worker.has_answered():
                worker.key = None
            elif self._limit_s is not None and worker.seconds > self._limit_s:
                worker.end()
                self._bury(worker, f"took longer than limit_s = {self._limit_s:g} seconds")
            elif not worker.process.is_alive():
                self._bury(worker, f"worker {_death(worker.process)}")

    def _bury(self, worker: _Worker, how: str) -> None:
        key = worker.key
        assert key is not None  # noqa: S101 - only busy workers are looked at
        self._crew.remove(worker)
        self._deaths[key] += 1
        store = Store(self._folder)
        if self._deaths[key] < ATTEMPTS:
            store.release(key)
            self._waiting.append(key)
        else:
            store.fail(key, f"{how}, {ATTEMPTS} times")


@dataclass
class _Worker:
    """A process and the job that it is at."""

    process: BaseProcess
    pipe: Connection
    key: str | None = None
    since: float = 0.0
    started: bool = False

    @classmethod
    def begun(cls) -> _Worker:
        context = multiprocessing.get_context("spawn")
        pipe, other = context.Pipe()
        process = context.Process(target=_serve, args=(other,))
        process.start()
        other.close()
        return cls(process, pipe)

    @property
    def seconds(self) -> float:
        """Seconds that the job has taken; starting Python and importing Steersman is not its fault."""
        return time.monotonic() - self.since if self.started else 0.0

    def take(self, folder: Path, key: str) -> None:
        self.key, self.since = key, time.monotonic()
        try:
            self.pipe.send((folder, key))
        except OSError:  # it is dead, as its sentinel will say
            return

    def has_answered(self) -> bool:
        try:
            if not self.pipe.poll():
                return False
            answer = self.pipe.recv()
            if answer is None:  # the time of its first job begins
                self.since, self.started = time.monotonic(), True
            return bool(answer == self.key)
        except (EOFError, OSError):
            self.process.join()
            return False

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection) -> None:
    """Loop of a worker."""
    die_with_parent()
    # Ctrl-C reaches every process of a terminal; the one that was started by hand decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe.send(None)
    while True:
        try:
            folder, key = pipe.recv()
        except EOFError:
            return
        work(folder, key)
        pipe.send(key)


def _death(process: BaseProcess) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        return f"died by signal {-code} ({signal.Signals(-code).name})"
    return f"ended by itself with status {code}"
