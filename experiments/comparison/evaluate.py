"""Evaluation of a controller on scenarios of a bank: one batch, no autoreset, and a look at its decision time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steersman.controllers.base import Controller, Outcome
from steersman.envs.plant import Trail
from steersman.envs.simulator import PlantSimulator, Simulator
from steersman.experiments.comparison.results import Episodes, Latency

Progress = Callable[[float, str], None]
"""Called with a fraction in 0..1 and a short text."""


@dataclass(frozen=True)
class Evaluation:
    """Per scenario: cost, violation, status, steps, decisions by outcome; what was recorded, and what is to be said."""

    cost: Tensor
    violation: Tensor
    status: Tensor
    steps: Tensor
    outcomes: Tensor
    inadmissible: int
    episodes: Episodes
    seconds: float
    bank: str
    trail: Trail | None
    notes: tuple[str, ...] = ()


def evaluate(
    controller: Controller, simulator: Simulator, key: Tensor, *, recorded: int, preview: bool, progress: Progress
) -> Evaluation:
    """Run the scenarios of ``key`` as one batch; rows that have ended cost nothing and stay put.

    Args:
        controller: Bound and trained.
        simulator: With one row per key.
        key: Keys of the scenarios.
        recorded: The first so many rows are recorded in full.
        preview: Whether the controller sees the references ahead that it asks for.
        progress: Called once a control step.
    """
    start = time.process_time()
    scenarios = simulator.scenarios(key)
    simulator.reset(scenarios)
    n, horizon = simulator.n, simulator.problem.horizon
    controller.reset(n, gen=torch.Generator().manual_seed(0))
    ahead = controller.preview if preview else 0
    alive = torch.ones(n, dtype=torch.bool, device=simulator.device)
    cost = torch.zeros(n, dtype=simulator.dtype, device=simulator.device)
    violation = torch.zeros_like(cost)
    outcomes = torch.zeros(n, len(Outcome), dtype=torch.int64, device=simulator.device)
    steps = torch.zeros(n, dtype=torch.int64, device=simulator.device)
    inadmissible = 0
    tape = _Tape(min(recorded, n))
    trail = simulator.record() if isinstance(simulator, PlantSimulator) else None
    for k in range(horizon):
        m = simulator.measure(ahead)
        decision = controller.act(m)
        bad = alive & ~simulator.actions.admissible(decision.u.to(simulator.dtype))
        inadmissible += int(bad.sum())
        tape.before(simulator.perform(), m.r[:, 0], decision.u, alive)
        t = simulator.step(decision.u)
        if isinstance(simulator, PlantSimulator) and bool(alive[0]):
            simulator.record(trail, decision.u)
        cost, violation = cost + t.cost, violation + t.violation
        steps = steps + alive
        outcomes[alive, decision.outcome[alive].long()] += 1
        alive = alive & ~t.ended
        progress((k + 1) / horizon, f"step {k + 1} of {horizon}")
        if not bool(alive.any()):
            break
    status = t.status
    tape.last(simulator.perform(), simulator.measure().r[:, 0])
    return Evaluation(
        cost, violation, status, steps, outcomes, inadmissible, tape.episodes(horizon),
        time.process_time() - start, scenarios.digest(), trail, simulator.notes,
    )  # fmt: skip


def latency(
    controller: Controller, simulator: Simulator, key: Tensor, *, preview: bool, seconds: float = 2.0
) -> Latency:
    """Wall time of single decisions, n = 1, over the first steps of one scenario; the very first one warms up.

    Raises:
        ValueError: If the simulator has more than one row.
    """
    if simulator.n != 1:
        raise ValueError(f"latency is timed at n = 1, got a simulator of {simulator.n} rows")
    simulator.reset(simulator.scenarios(key[:1]))
    controller.reset(1, gen=torch.Generator().manual_seed(0))
    taken: list[float] = []
    for k in range(min(simulator.problem.horizon, 100)):
        decision = controller.act(simulator.measure(controller.preview if preview else 0))
        if k:
            taken.append(decision.seconds)
        if bool(simulator.step(decision.u).ended) or (len(taken) > 4 and sum(taken) > seconds):
            break
    values = np.asarray(taken or [decision.seconds])
    return Latency(float(np.median(values)), float(np.quantile(values, 0.95)), float(values.max()))


class _Tape:
    """Recorder of the first rows; after the end of a row it records NaN."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.z: list[Tensor] = []
        self.r: list[Tensor] = []
        self.u: list[Tensor] = []
        self.alive = torch.ones(rows, dtype=torch.bool)

    def before(self, z: Tensor, r: Tensor, u: Tensor, alive: Tensor) -> None:
        self.alive = alive[: self.rows].cpu()
        for series, value in ((self.z, z), (self.r, r), (self.u, u)):
            series.append(self._masked(value))

    def last(self, z: Tensor, r: Tensor) -> None:
        for series, value in ((self.z, z), (self.r, r)):
            series.append(self._masked(value))

    def _masked(self, value: Tensor) -> Tensor:
        row = value[: self.rows].detach().double().cpu()
        return torch.where(self.alive[:, None], row, torch.nan)

    def episodes(self, horizon: int) -> Episodes:
        def whole(series: list[Tensor], length: int) -> NDArray[Any]:
            found = torch.stack(series, dim=1).numpy()
            return np.pad(found, ((0, 0), (0, length - found.shape[1]), (0, 0)), constant_values=np.nan)

        return Episodes(whole(self.z, horizon + 1), whole(self.r, horizon + 1), whole(self.u, horizon))
