"""Any Mesa model as a simulator: replicas side by side, in this process or in workers."""

from __future__ import annotations

import multiprocessing as mp
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs.abm import _mesa
from steersman.envs.abm.mesa_task import History, MesaTask, Replica
from steersman.envs.plant import Status, going
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import Measurement, Simulator, Transition

Array = NDArray[Any]
Report = tuple[Array, Array, Array, Array]
"""y ``[r, ny]``, z ``[r, nz]``, control step ``[r]`` and status ``[r]`` of some rows."""


class Rows:
    """Some replicas of one process."""

    def __init__(self, task: MesaTask, n: int) -> None:
        """Reserve ``n`` rows; their models are built by :meth:`reset`."""
        self._task = task
        self._replicas: list[Replica | None] = [None] * n

    def reset(self, seeds: Sequence[int], chosen: Sequence[int]) -> Report:
        """Build the chosen rows anew, and free their old models."""
        self._drop(chosen)
        for row, seed in zip(chosen, seeds, strict=True):
            self._replicas[row] = Replica(self._task, seed)
        return self._report()

    def step(self, u: Array, moving: Array) -> Report:
        """Step the moving rows; a row whose action is not finite diverges."""
        for row in np.flatnonzero(moving):
            replica = self._replicas[row]
            assert replica is not None  # noqa: S101 - only started rows move
            if np.isfinite(u[row]).all():
                replica.step(u[row])
            else:
                replica.status = Status.DIVERGED
        return self._report()

    def histories(self) -> list[History | None]:
        """Seeds and actions of all rows."""
        return [None if r is None else r.history for r in self._replicas]

    def replay(self, histories: Sequence[History | None]) -> Report:
        """Build all rows anew and repeat their actions."""
        self._drop(range(len(self._replicas)))
        self._replicas = [None if h is None else Replica.replayed(self._task, h) for h in histories]
        return self._report()

    def close(self) -> None:
        """Free all models."""
        self._drop(range(len(self._replicas)))

    def _drop(self, chosen: Sequence[int]) -> None:
        gone = [r.model for row in chosen if (r := self._replicas[row]) is not None]
        for row in chosen:
            self._replicas[row] = None
        if gone:
            _mesa.forget(gone)
            gone.clear()
            _mesa.collect_garbage()

    def _report(self) -> Report:
        task = self._task
        nz = len(task.performed or task.measured)
        y, z = np.zeros((len(self._replicas), len(task.measured))), np.zeros((len(self._replicas), nz))
        k, status = np.zeros(len(y), np.int64), np.zeros(len(y), np.uint8)
        for i, r in enumerate(self._replicas):
            if r is not None:
                y[i], z[i], k[i], status[i] = r.y, r.z, r.k, r.status
        return y, z, k, status


def _serve(task: MesaTask, n: int, pipe: Connection) -> None:
    """Loop of a worker: answer calls of methods of :class:`Rows`."""
    rows = Rows(task, n)
    while True:
        try:
            name, args = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, getattr(rows, name)(*args)))
        except OSError:  # the caller is gone
            return
        except Exception as error:  # the boundary of the process: the caller raises it
            pipe.send((False, f"{type(error).__name__}: {error}"))
        if name == "close":
            return


class _Worker:
    """Rows in another process."""

    def __init__(self, task: MesaTask, n: int) -> None:
        context = mp.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(task, n, other), daemon=True)
        self._process.start()
        other.close()

    def call(self, name: str, *args: Any) -> None:
        self._pipe.send((name, args))

    def result(self) -> Any:
        try:
            good, answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError("a worker process of the Mesa simulator died; run with workers=0 to see why") from None
        if not good:
            raise RuntimeError(f"in a worker process of the Mesa simulator: {answer}")
        return answer

    def stop(self) -> None:
        if self._process.is_alive():
            self.call("close")
            self._process.join(5)
        self._pipe.close()


@dataclass(frozen=True)
class MesaSnapshot:
    """State of a :class:`MesaSimulator`: how each row got there."""

    histories: tuple[History | None, ...]
    u_prev: Tensor
    status: Tensor


class MesaSimulator(Simulator):
    """``n`` replicas of a Mesa model.

    A scenario is a seed: it is handed to ``task.model`` and also seeds the global generators while the model is
    built and stepped, so that models which draw from those are reproducible too. Every reset frees the old model;
    Mesa alone would keep each one alive. The reference is the task's target.
    """

    def __init__(self, task: MesaTask, n: int, *, workers: int = 0, price: float | None = None) -> None:
        """Reserve rows.

        Args:
            task: The model as a control problem.
            n: Rows.
            workers: Processes that share the rows; 0 runs them here.
            price: Price of a failure for a task that states none, by default found when a row fails
                (:mod:`steersman.envs.failure`).

        Raises:
            ValueError: If there is no row, or a negative number of workers.
        """
        if n < 1 or workers < 0:
            raise ValueError(f"need n >= 1 rows and workers >= 0, got n={n}, workers={workers}")
        self.task, self.n = task, n
        self.problem = task.problem
        self._charge(price)
        self.device, self.dtype = torch.device("cpu"), torch.float64
        count = min(workers, n)
        self._parts = [list(map(int, part)) for part in np.array_split(np.arange(n), max(1, count))]
        self._local = Rows(task, n) if not count else None
        self._workers = [_Worker(task, len(part)) for part in self._parts] if count else []
        self._release = weakref.finalize(self, _release, self._local, self._workers)
        self._u_prev = self.actions.neutral(n, torch.zeros(1, dtype=self.dtype))
        self._target = torch.tensor(task.target or (0.0,) * self.problem.nz, dtype=self.dtype)
        self._status = torch.zeros(n, dtype=torch.uint8)
        self._started = False

    def scenarios(self, key: Int64[Tensor, "n"], mask: Bool[Tensor, "n"] | None = None) -> Scenarios:
        """The keys alone: they seed the models."""
        return Scenarios(key)

    def reset(self, scenarios: Scenarios, mask: Bool[Tensor, "n"] | None = None) -> None:
        """See :class:`~steersman.envs.simulator.Simulator`."""
        if len(scenarios) != self.n:
            raise ValueError(f"reset needs {self.n} scenarios, one per row, got {len(scenarios)}")
        if mask is not None and not bool(mask.any()):
            return
        chosen = torch.ones(self.n, dtype=torch.bool) if mask is None else mask.cpu()
        seeds = (scenarios.key.cpu() & 0x7FFFFFFF).tolist()
        picks = [[i for i, row in enumerate(part) if chosen[row]] for part in self._parts]
        given = [[seeds[row] for row in part if chosen[row]] for part in self._parts]
        self._take(self._all("reset", list(zip(given, picks, strict=True))))
        neutral = self.actions.neutral(self.n, self._y)
        self._u_prev = torch.where(chosen[:, None], neutral, self._u_prev)
        self._started = True

    def step(self, u: Float[Tensor, "n m"]) -> Transition:
        """See :class:`~steersman.envs.simulator.Simulator`."""
        if not self._started:
            raise RuntimeError("the simulator has no scenario yet; call reset(scenarios) first")
        if tuple(u.shape) != (self.n, self.actions.m):
            raise ValueError(f"u must have shape ({self.n}, {self.actions.m}), got {tuple(u.shape)}")
        u = self.actions.project(u.detach().cpu().to(self.dtype))
        alive = going(self._status) & (self._k < self.task.horizon)
        terms = self.problem.objective.stage_terms(self._z, u, u - self._u_prev, self._r())
        actions, moving, before = u.numpy(), alive.numpy(), self._status
        self._take(self._all("step", [(actions[part], moving[part]) for part in self._parts]))
        self._u_prev = torch.where(alive[:, None] & torch.isfinite(u), u, self._u_prev)
        # A row that its cost ended stays ended, although its model could go on.
        self._status = torch.where(alive, self._status, before)
        t = self._settle(terms, alive, self._k, self._status, lambda: (self._z, self._r()))
        self._status = t.status
        return t

    def unpriced(self, n: int) -> MesaSimulator:
        """See :class:`~steersman.envs.simulator.Simulator`."""
        return MesaSimulator(self.task, n, workers=len(self._workers), price=0.0)

    def measure(self, preview: int = 0) -> Measurement:
        """See :class:`~steersman.envs.simulator.Simulator`."""
        r = self._target.expand(self.n, preview + 1, -1)
        return Measurement(self._k, self._y, r, self._u_prev)

    def perform(self) -> Float[Tensor, "n nz"]:
        """Performance outputs."""
        return self._z

    def snapshot(self) -> MesaSnapshot:
        """See :class:`~steersman.envs.simulator.Simulator`; it holds seeds and actions, not models."""
        found = [history for part in self._all("histories", [()] * len(self._parts)) for history in part]
        return MesaSnapshot(tuple(found), self._u_prev, self._status)

    def restore(self, snapshot: MesaSnapshot) -> None:
        """See :class:`~steersman.envs.simulator.Simulator`; models are built anew and their actions repeated.

        Models cannot be copied in general (their graphs of cells are too deep); repeating is exact for every model
        that is reproducible from its seed.
        """
        self._take(self._all("replay", [([snapshot.histories[row] for row in part],) for part in self._parts]))
        self._u_prev, self._status = snapshot.u_prev, snapshot.status

    def close(self) -> None:
        """Free all models and stop the workers; also done when the simulator is dropped."""
        self._release()

    @property
    def models(self) -> list[Any]:
        """The running models, for pictures.

        Raises:
            RuntimeError: If they run in worker processes.
        """
        if self._local is None:
            raise RuntimeError("the models run in worker processes; build the simulator with workers=0")
        return [None if r is None else r.model for r in self._local._replicas]

    def _r(self) -> Tensor:
        return self._target.expand_as(self._z)

    def _all(self, name: str, args: list[tuple[Any, ...]]) -> list[Any]:
        if self._local is not None:
            return [getattr(self._local, name)(*args[0])]
        for worker, given in zip(self._workers, args, strict=True):
            worker.call(name, *given)
        return [worker.result() for worker in self._workers]

    def _take(self, reports: list[Report]) -> None:
        y, z, k, status = (np.concatenate(parts) for parts in zip(*reports, strict=True))
        self._y, self._z = torch.from_numpy(y), torch.from_numpy(z)
        self._k, self._status = torch.from_numpy(k), torch.from_numpy(status)


def _release(rows: Rows | None, workers: list[_Worker]) -> None:
    if rows is not None:
        rows.close()
    for worker in workers:
        worker.stop()
