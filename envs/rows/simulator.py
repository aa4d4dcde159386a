"""What simulators of foreign rows share: rows here or in worker processes, snapshots by repetition, one step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from steersman.envs.plant import ControlProblem, going
from steersman.envs.rows.base import History, Report, Rows, Source, lengthened
from steersman.envs.rows.workers import Parts
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import Measurement, Simulator, Transition


@dataclass(frozen=True)
class RowSnapshot:
    """State of a :class:`RowSimulator`: how each row got there."""

    histories: tuple[History | None, ...]
    u_prev: Tensor
    status: Tensor


class RowSimulator(Simulator, ABC):
    """``n`` rows that are stepped one by one, on the CPU in double precision.

    A scenario is a seed. It also seeds the global random generators of its row (``random``, ``numpy.random``,
    torch's on the CPU), which every row has for itself: models that draw from those are reproducible too, in
    whatever batch and process they run.
    """

    batched = False

    def __init__(
        self,
        source: Source,
        problem: ControlProblem,
        n: int,
        *,
        workers: int,
        price: float | None,
        what: str,
        rows: type[Rows] = Rows,
    ) -> None:
        """Reserve rows.

        Args:
            source: What rows are made of.
            problem: What a controller may know.
            n: Rows.
            workers: Processes that share the rows; 0 runs them here, and so does a single row.
            price: Price of a failure for what states none, by default found when a row fails
                (:mod:`steersman.envs.failure`).
            what: Name of the simulator, for errors.
            rows: What holds the rows of a process.

        Raises:
            ValueError: If there is no row, a negative number of workers, or workers for what cannot be pickled.
        """
        if n < 1 or workers < 0:
            raise ValueError(f"need n >= 1 rows and workers >= 0, got n={n}, workers={workers}")
        self.n, self.problem, self.workers = n, problem, workers
        self._charge(price)
        self.device, self.dtype = torch.device("cpu"), torch.float64
        count = min(workers, n) if n > 1 else 0
        self._split = [list(map(int, part)) for part in np.array_split(np.arange(n), max(1, count))]
        makers = [partial(rows, source, len(part)) for part in self._split]
        self._rows = Parts(makers, processes=count > 0, what=what)
        self._u_prev = self.actions.neutral(n, torch.zeros(1, dtype=self.dtype))
        self._status = torch.zeros(n, dtype=torch.uint8)
        self._report: Report | None = None
        self._seen: Counter[str] = Counter()

    @property
    def notes(self) -> tuple[str, ...]:
        """Why rows diverged, with how many of them."""
        return tuple(
            f"{count} {'row' if count == 1 else 'rows'} ended as diverged because {why}"
            for why, count in self._seen.items()
        )

    @abstractmethod
    def _terms(self, before: Report, after: Report, u: Tensor, du: Tensor) -> dict[str, Tensor]:
        """Stage cost by name of the step between two reports."""

    def scenarios(self, key: Int64[Tensor, "n"], mask: Bool[Tensor, "n"] | None = None) -> Scenarios:
        """The keys alone: they seed the rows."""
        return Scenarios(key)

    def reset(self, scenarios: Scenarios, mask: Bool[Tensor, "n"] | None = None) -> None:
        """See :class:`~steersman.envs.simulator.Simulator`."""
        if len(scenarios) != self.n:
            raise ValueError(f"reset needs {self.n} scenarios, one per row, got {len(scenarios)}")
        if mask is not None and not bool(mask.any()):
            return
        chosen = torch.ones(self.n, dtype=torch.bool) if mask is None else mask.cpu()
        seeds = (scenarios.key.cpu() & 0x7FFFFFFF).tolist()
        picks = [[i for i, row in enumerate(part) if chosen[row]] for part in self._split]
        given = [[seeds[row] for row in part if chosen[row]] for part in self._split]
        report = self._call("reset", list(zip(given, picks, strict=True)))
        self._u_prev = torch.where(chosen[:, None], self._neutral(), self._u_prev)
        # A row that its cost ended stays ended, although its model could go on.
        self._status = torch.where(chosen, torch.from_numpy(report.status), self._status)

    def step(self, u: Float[Tensor, "n m"]) -> Transition:
        """See :class:`~steersman.envs.simulator.Simulator`."""
        before = self._now
        if tuple(u.shape) != (self.n, self.actions.m):
            raise ValueError(f"u must have shape ({self.n}, {self.actions.m}), got {tuple(u.shape)}")
        u = self.actions.project(u.detach().cpu().to(self.dtype))
        alive = going(self._status) & (self._k < self.problem.horizon)
        actions, moving = u.numpy(), alive.numpy()
        after = self._call("step", [(actions[part], moving[part]) for part in self._split])
        self._seen.update(note for row, note in after.notes if after.k[row] != before.k[row])
        terms = self._terms(before, after, u, u - self._u_prev)
        self._u_prev = torch.where(alive[:, None] & torch.isfinite(u), u, self._u_prev)
        status = torch.where(alive, torch.from_numpy(after.status), self._status)
        t = self._settle(terms, alive, self._k, status, lambda: (self.perform(), self._references(0)[:, 0]))
        self._status = t.status
        return t

    def measure(self, preview: int = 0) -> Measurement:
        """See :class:`~steersman.envs.simulator.Simulator`."""
        return Measurement(self._k, torch.from_numpy(self._now.y), self._references(preview), self._u_prev)

    def perform(self) -> Float[Tensor, "n nz"]:
        """Performance outputs."""
        return torch.from_numpy(self._now.z)

    def snapshot(self) -> RowSnapshot:
        """See :class:`~steersman.envs.simulator.Simulator`; it holds seeds and actions, not models."""
        found = [history for part in self._rows.call("histories", [()] * len(self._split)) for history in part]
        return RowSnapshot(tuple(found), self._u_prev, self._status)

    def restore(self, snapshot: RowSnapshot) -> None:
        """See :class:`~steersman.envs.simulator.Simulator`; rows begin anew and their actions are repeated.

        Models cannot be copied in general (open handles, graphs that are too deep); repeating is exact for every
        model that is reproducible from its seed.
        """
        self._call("replay", [([snapshot.histories[row] for row in part],) for part in self._split])
        self._u_prev, self._status = snapshot.u_prev, snapshot.status

    def close(self) -> None:
        """Free all rows and end the workers; also done when the simulator is dropped."""
        self._rows.close()

    def _references(self, preview: int) -> Float[Tensor, "n h1 nz"]:
        if self._now.r is None:
            return torch.zeros(self.n, preview + 1, self.problem.nz, dtype=self.dtype)
        return torch.from_numpy(lengthened(self._now.r, preview + 1))

    def _call(self, name: str, args: list[tuple[Any, ...]]) -> Report:
        self._report = Report.joined(self._rows.call(name, args))
        return self._report

    def _neutral(self) -> Tensor:
        return self.actions.neutral(self.n, torch.zeros(1, dtype=self.dtype))

    @property
    def _local(self) -> Rows:
        """The rows of this process.

        Raises:
            RuntimeError: If they run in worker processes.
        """
        if self._rows.local is None:
            raise RuntimeError("the rows run in worker processes; build the simulator with workers=0")
        found: Rows = self._rows.local
        return found

    @property
    def _k(self) -> Int64[Tensor, "n"]:
        return torch.from_numpy(self._now.k)

    @property
    def _now(self) -> Report:
        if self._report is None:
            raise RuntimeError("the simulator has no scenario yet; call reset(scenarios) first")
        return self._report
