"""Where jobs run: in this process, or in processes of this machine. Other machines plug in at the same seam."""

from __future__ import annotations

import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from pathlib import Path

from steersman.experiments.runner import work


class Executor(ABC):
    """Runs jobs of a store. Jobs report through the store, so an executor only has to start them."""

    @abstractmethod
    def start(self, folder: Path, keys: Sequence[str]) -> None:
        """Start the jobs; may return before they end."""

    @abstractmethod
    def wait(self, seconds: float) -> bool:
        """Wait for at most so long; True when all started jobs have ended."""

    def close(self) -> None:  # noqa: B027 - optional hook
        """Drop jobs that have not begun."""


class InProcess(Executor):
    """One job after the other, here: for tests and debuggers."""

    def start(self, folder: Path, keys: Sequence[str]) -> None:
        """See :class:`Executor`."""
        for key in keys:
            work(folder, key)

    def wait(self, seconds: float) -> bool:
        """See :class:`Executor`."""
        return True


class Processes(Executor):
    """Spawned processes on this machine, one torch thread each."""

    def __init__(self, workers: int | None = None) -> None:
        """Prepare ``workers`` processes, by default one per CPU that this process may use.

        Raises:
            ValueError: If ``workers`` is below 1.
        """
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.workers = workers or len(os.sched_getaffinity(0))
        self._pool = ProcessPoolExecutor(self.workers, multiprocessing.get_context("spawn"))
        self._running: list[Future[None]] = []

    def start(self, folder: Path, keys: Sequence[str]) -> None:
        """See :class:`Executor`."""
        self._running = [self._pool.submit(work, folder, key) for key in keys]

    def wait(self, seconds: float) -> bool:
        """See :class:`Executor`.

        Raises:
            BrokenProcessPool: If a worker was killed; its job is free again and the next run takes it up.
        """
        done, pending = wait(self._running, timeout=seconds)
        for future in done:
            future.result()
        return not pending

    def close(self) -> None:
        """See :class:`Executor`."""
        self._pool.shutdown(wait=True, cancel_futures=True)
