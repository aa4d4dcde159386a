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

from steersman.controllers.base import Controller, Decision, Outcome
from steersman.envs.episodes import episodes
from steersman.envs.placement import synchronise
from steersman.envs.plant import Trail
from steersman.envs.simulator import Measurement, PlantSimulator, Simulator
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

    Raises:
        RuntimeError: If the law raised at every step: what was run is doing nothing, under another name.
    """
    start = time.process_time()
    scenarios = simulator.scenarios(key)
    n, horizon, device = simulator.n, simulator.problem.horizon, simulator.device
    controller.reset(n, gen=torch.Generator().manual_seed(0))
    cost = torch.zeros(n, dtype=simulator.dtype, device=device)
    violation, steps = torch.zeros_like(cost), torch.zeros(n, dtype=torch.int64, device=device)
    outcomes = torch.zeros(n, len(Outcome), dtype=torch.int64, device=device)
    inadmissible, tape, trail = 0, _Tape(min(recorded, n)), None
    decisions: list[Decision] = []
    failed = controller.failed_decisions

    def act(m: Measurement) -> Tensor:
        nonlocal trail
        if not decisions:
            tape.see(simulator.perform(), m)
            trail = simulator.record() if isinstance(simulator, PlantSimulator) else None
        decisions[:] = [controller.act(m)]
        return decisions[0].u

    for step in episodes(simulator, scenarios, act, ahead=controller.preview if preview else 0):
        running = step.running
        inadmissible += int((running & ~simulator.actions.admissible(step.u.to(simulator.dtype))).sum())
        if isinstance(simulator, PlantSimulator) and bool(running[0]):
            simulator.record(trail, step.u)
        tape.act(step.u, running)
        tape.see(step.z, step.after)
        cost, violation, steps = cost + step.result.cost, violation + step.result.violation, steps + running
        outcomes[running, decisions[0].outcome[running].long()] += 1
        progress((step.k + 1) / horizon, f"step {step.k + 1} of {horizon}")
    if controller.failed_decisions - failed > step.k:
        raise RuntimeError(f"it never decided, in {step.k + 1} steps: {'; '.join(controller.notes)}")
    return Evaluation(
        cost, violation, step.result.status, steps, outcomes, inadmissible, tape.episodes(horizon),
        time.process_time() - start, scenarios.digest(), trail, simulator.notes,
    )  # fmt: skip


def latency(
    controller: Controller, simulator: Simulator, key: Tensor, *, preview: bool, seconds: float = 2.0
) -> Latency:
    """Wall time of single decisions, n = 1, over the first steps of one scenario; the very first one warms up.

    A GPU is waited for before the clock starts and before it stops: until then nothing says that the action is known.

    Raises:
        ValueError: If the simulator has more than one row.
    """
    if simulator.n != 1:
        raise ValueError(f"latency is timed at n = 1, got a simulator of {simulator.n} rows")
    controller.reset(1, gen=torch.Generator().manual_seed(0))
    taken: list[float] = []

    def act(m: Measurement) -> Tensor:
        synchronise(simulator.device)
        begun = time.perf_counter()
        decision = controller.act(m)
        synchronise(simulator.device)
        taken.append(time.perf_counter() - begun)
        return decision.u

    ahead = controller.preview if preview else 0
    for _ in episodes(
        simulator, simulator.scenarios(key[:1]), act, ahead=ahead, steps=min(100, simulator.problem.horizon)
    ):
        if len(taken) > 5 and sum(taken[1:]) > seconds:
            break
    taken = taken[1:] or taken
    values = np.asarray(taken)
    return Latency(float(np.median(values)), float(np.quantile(values, 0.95)), float(values.max()))


class _Tape:
    """Recorder of the first rows; after the end of a row it records NaN."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.z: list[Tensor] = []
        self.r: list[Tensor] = []
        self.u: list[Tensor] = []
        self.alive = torch.ones(rows, dtype=torch.bool)

    def see(self, z: Tensor, m: Measurement) -> None:
        """What is there now; it is recorded when the next step comes, or the end."""
        self._now = z, m.r[:, 0]

    def act(self, u: Tensor, alive: Tensor) -> None:
        """What was done about it, in rows that ran."""
        self.alive = alive[: self.rows].cpu()
        self._record()
        self.u.append(self._masked(u))

    def _record(self) -> None:
        for series, value in zip((self.z, self.r), self._now, strict=True):
            series.append(self._masked(value))

    def _masked(self, value: Tensor) -> Tensor:
        row = value[: self.rows].detach().double().cpu()
        return torch.where(self.alive[:, None], row, torch.nan)

    def episodes(self, horizon: int) -> Episodes:
        self._record()

        def whole(series: list[Tensor], length: int) -> NDArray[Any]:
            found = torch.stack(series, dim=1).numpy()
            return np.pad(found, ((0, 0), (0, length - found.shape[1]), (0, 0)), constant_values=np.nan)

        return Episodes(whole(self.z, horizon + 1), whole(self.r, horizon + 1), whole(self.u, horizon))
