"""Objects of the same kind in this process or in worker processes, whose methods are called all at once."""

from __future__ import annotations

import multiprocessing as mp
import pickle
import signal
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch

from steersman.envs.processes import die_with_parent


class Parts:
    """One object in this process, or one in each of several processes."""

    def __init__(self, makers: Sequence[Callable[[], Any]], *, processes: bool, what: str) -> None:
        """Make the objects.

        Args:
            makers: Make an object each; they must be picklable where they go to processes.
            processes: Whether every object gets a process of its own; otherwise there is one maker.
            what: Name of the owner, for errors.

        Raises:
            ValueError: If a maker cannot be pickled.
        """
        self.local = None if processes else makers[0]()
        self._workers = [_Worker(make, what) for make in makers] if processes else []
        self._release = weakref.finalize(self, _close, self.local, self._workers)

    def call(self, name: str, args: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Result of the method of that name, object by object, each with arguments of its own.

        Raises:
            RuntimeError: If a worker process has died, or the method has raised there.
        """
        if self.local is not None:
            return [getattr(self.local, name)(*args[0])]
        for worker, given in zip(self._workers, args, strict=True):
            worker.send(name, given)
        # All of them answer before the first error is raised: a later call must not find an old answer.
        answers = [worker.answer() for worker in self._workers]
        for worker, (good, answer) in zip(self._workers, answers, strict=True):
            if not good:
                raise RuntimeError(f"{worker.what}: {answer}")
        return [answer for _, answer in answers]

    def close(self) -> None:
        """Close the objects and end their processes; also done when this object is dropped."""
        self._release()


def _close(local: Any, workers: list[_Worker]) -> None:
    if local is not None:
        local.close()
    for worker in workers:
        worker.stop()


class _Worker:
    """An object in another process."""

    def __init__(self, make: Callable[[], Any], what: str) -> None:
        self.what = f"in a worker process of {what}"
        try:
            message = pickle.dumps(make)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"worker processes of {what} need something that can be pickled: {error}; name it module:name, with "
                "functions of a module, or set workers=0"
            ) from error
        self._message = message
        self._pipe: Connection | None = None

    def send(self, name: str, args: tuple[Any, ...]) -> None:
        try:
            self._open().send((name, args))
        except OSError:  # it has died, which its answer will tell
            return

    def _open(self) -> Connection:
        """The pipe to the process, which starts at its first call: many simulators are only asked what they are."""
        if self._pipe is None:
            context = mp.get_context("spawn")
            self._pipe, other = context.Pipe()
            self._process = context.Process(target=_serve, args=(other,), daemon=True)
            self._process.start()
            other.close()
            self._pipe.send_bytes(self._message)
        return self._pipe

    def answer(self) -> tuple[bool, Any]:
        try:
            found: tuple[bool, Any] = self._open().recv()
        except (EOFError, OSError):
            self._process.join(5)
            return False, f"it died{_manner(self._process.exitcode)}; run with workers=0 to see why"
        return found

    def stop(self) -> None:
        if self._pipe is None:
            return
        if self._process.is_alive():
            self.send("close", ())
            self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
        self._pipe.close()


def _manner(code: int | None) -> str:
    if code is None:
        return ""
    if code < 0:
        return f" by signal {-code} ({signal.Signals(-code).name})"
    return f" with exit code {code}"


def _serve(pipe: Connection) -> None:
    """Loop of a worker: make the object, then answer calls of its methods."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the caller's business
    torch.set_num_threads(1)
    made, problem = None, ""
    try:
        made = pickle.loads(pipe.recv_bytes())()  # noqa: S301 - from the process that started this one
    except Exception as error:  # the boundary of the process: the caller raises it
        problem = _told(error)
    while True:
        try:
            name, args = pipe.recv()
        except EOFError:  # the caller is gone
            return
        try:
            answer = (False, problem) if problem else (True, getattr(made, name)(*args))
        except Exception as error:
            answer = False, _told(error)
        try:
            pipe.send(answer)
        except OSError:
            return
        if name == "close":
            return


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
