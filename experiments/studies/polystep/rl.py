"""PolyStep on control tasks against its rivals, for policies with and without a gradient.

The claim is that of the published package (Le, arXiv 2605.01928): polytope steps train policies that have no gradient,
where evolution strategies take longer. Every search has one setting for all tasks: nothing is tuned per task.
The package itself runs as its CartPole example sets it up, with ten times the budget and more. Runs of one task and
policy go in lockstep, as one cell. All cells take about three quarters of a CPU hour; ``steersman study polystep-rl
--cells 'CartPole*'`` runs those of one task.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from steersman.experiments.comparison.cell import Cell, Report
from steersman.experiments.studies.polystep.policy_runs import Row, Task, run_cell
from steersman.optimizers.base import Search
from steersman.optimizers.bases import Uniform
from steersman.optimizers.peer import PeerPolyStep
from steersman.optimizers.polystep.polystep import PolyStep
from steersman.optimizers.polystep.polytopes import Polytope
from steersman.optimizers.polystep.schedules import Schedule
from steersman.optimizers.registry import make_search
from steersman.optimizers.subspace import SubspaceSearch

CLASSIC = (
    Task("steersman/CartPole-v1", 475.0, 300_000, stop=True),
    Task("steersman/Acrobot-v1", -100.0, 800_000, offset=1.0, scenarios=8, held_out=16),
    Task("steersman/Pendulum-v1", -200.0, 1_500_000, held_out=16),
    Task("steersman/MountainCarContinuous-v1", 90.0, 600_000, offset=100.0, held_out=16, stop=True),
)
HEAVY = (
    Task("steersman/WolfSheep-v1", None, 20_000, scenarios=2, held_out=16, final=64),
    Task("steersman/KuramotoSivashinsky-v1", None, 200_000, scenarios=2, held_out=16, final=64),
    Task("steersman/TwoArea-v1", None, 40_000, scenarios=2, held_out=16, final=64),
    Task("steersman/TwoAreaBrake-v1", None, 40_000, scenarios=2, held_out=16, final=64),
)
TASKS = (*CLASSIC, *HEAVY)
HARD = ("int8", "binary", "binary-activation", "spiking")
"""Policies without a gradient."""
SEARCHES = ("frame_step", "polystep", "cma_es", "openai_es", "random")
FEWER = ("frame_step", "cma_es", "openai_es")
"""Searches of the costlier cells."""
SUBSPACE, PACKAGE = "polystep_subspace", "polystep_peer"
LONG = "polystep_long"
"""``polystep`` with several times the budget."""
POINTS = 12
"""Points that are kept of a curve."""
OWN: dict[str, Callable[[], Search[Any]]] = {
    # The package's CartPole example; its subspace is the whole space for policies as small as ours.
    PACKAGE: lambda: PeerPolyStep(
        block=8, polytope=Polytope.SIMPLEX, solver="softmax", temperature=Schedule(1.0, 0.3, 40), step_radius=0.1,
        probe_radius=0.4,
    ),
    SUBSPACE: lambda: SubspaceSearch(
        inner=PolyStep(block=4, confirmations=0), basis=Uniform(8), rotate_every=1
    ),
    LONG: PolyStep,
}  # fmt: skip
"""Searches that have settings here."""
ADVANTAGE = {"CartPole": 30}
"""Budget of the package over that of the others, 10 elsewhere: the five generations in a row that make a run solved
take it five million steps."""
LONGER = 5
"""Budget of :data:`LONG` over that of the others: a generation of 230 evaluations leaves three in the common one."""
HIDDEN = {"CartPole": (16,), "Acrobot": (16,)}
"""The published policies' width; 8 elsewhere."""


def make(name: str) -> Search[Any]:
    """A search of the study."""
    return OWN[name]() if name in OWN else make_search(name)


@dataclass(frozen=True)
class Searching(Cell):
    """Runs of one policy on one task."""

    row: ClassVar[type] = Row
    task: Task
    policy: str
    searches: tuple[str, ...]
    hidden: tuple[int, ...]

    @property
    def name(self) -> str:
        """See :class:`Cell`."""
        return f"{self.task.name}, {self.policy}: {', '.join(self.searches)}"

    def run(self, report: Report) -> list[Row]:
        """See :class:`Cell`."""
        start = time.process_time()
        rows = run_cell(self.task, self.policy, self.hidden, self.searches, range(self.task.seeds), report, make)
        share = (time.process_time() - start) / len(rows)
        return [_thin(row, share) for row in rows]


def _thin(row: Row, seconds: float) -> Row:
    pick = np.unique(np.linspace(0, len(row.curve) - 1, min(POINTS, len(row.curve))).round().astype(int))
    curve = [(row.curve[i][0], row.curve[i][1], round(row.curve[i][2], 2)) for i in pick]
    threshold, final, seconds = (round(value, 3) for value in (row.threshold, row.final, seconds))
    return replace(row, curve=curve, threshold=threshold, final=final, seconds=seconds)


def cells() -> list[Searching]:
    """All cells, those that the claims rest on first."""

    def cell(task: Task, policy: str, *searches: str) -> Searching:
        return Searching(task, policy, searches, HIDDEN.get(task.name, (8,)))

    longer = replace(CLASSIC[0], plant_steps=LONGER * CLASSIC[0].plant_steps)
    return [
        *(cell(task, "mlp", *SEARCHES) for task in CLASSIC),
        *(cell(task, "mlp", *FEWER) for task in HEAVY),
        *(cell(task, "mlp", SUBSPACE) for task in TASKS),
        *(cell(published(task), "mlp", PACKAGE) for task in TASKS),
        cell(longer, "mlp", LONG),
        *(cell(task, policy, *FEWER) for part in (CLASSIC[:2], CLASSIC[2:], HEAVY) for policy in HARD for task in part),
    ]


def published(task: Task) -> Task:
    """The terms of the package's runs: its 16 episodes of each evaluation, or fewer runs where episodes are costly."""
    budget = ADVANTAGE.get(task.name, 10) * task.plant_steps
    if task in CLASSIC:
        return replace(task, plant_steps=budget, scenarios=16)
    return replace(task, plant_steps=budget, seeds=5)
