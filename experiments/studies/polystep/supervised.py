"""PolyStep on networks that have no gradient: digits with five hard decisions, and a hard oblique tree.

A cell is a network under a method: the method's setting is tried on the validation of seeds that no row has, unless a
preset takes it over, and then every seed is run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from steersman.experiments.comparison.cell import Cell, Report
from steersman.experiments.studies.polystep import supervised_tree as trees
from steersman.experiments.studies.polystep.supervised_methods import FULL, LONG, METHODS, Trained, run_method
from steersman.experiments.studies.polystep.supervised_tasks import Preset, preset_of

R = TypeVar("R")
TUNED_ON = (90, 91)
"""Seeds of tuning, which no reported run has."""


@dataclass(frozen=True)
class Training(Cell):
    """A network under a method, see :class:`Preset`.

    Attributes:
        scale: The method's setting; None where it is tuned.
        tuned_on: Seeds of tuning.
        device: Where networks are evaluated.
    """

    row: ClassVar[type] = Trained
    title: ClassVar[str] = "{preset}: {task}, {method}"
    preset: str
    task: str
    method: str
    scale: float | None
    budget: int
    tuning: int
    batch: int
    gradient_steps: int
    coordinates: int
    seeds: tuple[int, ...]
    tuned_on: tuple[int, ...]
    device: str = "cpu"

    def run(self, report: Report) -> list[Trained]:
        """See :class:`Cell`.

        Raises:
            ValueError: If the preset's settings are those of another, which has not been run.
            ModuleNotFoundError: Without the extras ``studies`` and ``peers``.
        """
        preset = preset_of(self.preset)
        if self.scale is None and preset.settings and self.method != FULL:
            raise ValueError(f"preset {self.preset} takes the settings of {preset.settings}; run that preset first")
        preset = replace(
            preset, budget=self.budget, batch=self.batch, gradient_steps=self.gradient_steps,
            coordinates=self.coordinates,
        )  # fmt: skip
        task = next(task for task in preset.tasks if task.name == self.task)
        method = next(method for method in LONG if method.name == self.method)
        data = preset.load()
        data = replace(data, x=data.x.to(self.device), y=data.y.to(self.device))

        def one(scale: float, seed: int, budget: int) -> Trained:
            return run_method(method, preset, task, data, scale, seed, budget)

        def reached(scale: float) -> float:
            report(0.3, f"trying {scale:g}")
            return sum(one(scale, seed, self.tuning).validate for seed in self.tuned_on)

        scale = max(method.scales, key=reached) if self.scale is None else self.scale
        return _each(self.seeds, report, lambda seed: one(scale, seed, self.budget))


@dataclass(frozen=True)
class Growing(Cell):
    """The oblique tree under a method; its setting is tried on the training errors."""

    row: ClassVar[type] = trees.TreeRun
    title: ClassVar[str] = "tree: {method}"
    method: str
    budget: int = trees.BUDGET
    tuning: int = trees.TUNING
    seeds: tuple[int, ...] = trees.SEEDS
    tuned_on: tuple[int, ...] = trees.TUNED_ON

    def run(self, report: Report) -> list[trees.TreeRun]:
        """See :class:`Cell`."""
        data = trees.board()
        method = next(method for method in trees.METHODS if method.name == self.method)

        def reached(scale: float) -> float:
            report(0.3, f"trying {scale:g}")
            return sum(trees.run_tree(method, data, scale, seed, self.tuning).train for seed in self.tuned_on)

        scale = max(method.scales, key=reached)
        return _each(self.seeds, report, lambda seed: trees.run_tree(method, data, scale, seed, self.budget))


def _each(seeds: tuple[int, ...], report: Report, run: Callable[[int], R]) -> list[R]:
    found = []
    for i, seed in enumerate(seeds):
        report(0.3 + 0.7 * i / len(seeds), f"seed {seed}")
        found.append(run(seed))
    return found


def trainings(preset: Preset, settled: dict[tuple[str, str], float]) -> list[Training]:
    """Cells of a preset.

    Args:
        preset: The preset.
        settled: Settings by network and method, which a preset may take over.
    """
    methods, seeds = (LONG, TUNED_ON[:1]) if preset.settings else (METHODS, TUNED_ON)
    return [
        Training(
            preset.name, task.name, method.name, settled.get((task.name, method.name)) if preset.settings else None,
            preset.budget, preset.tuning, preset.batch, preset.gradient_steps, preset.coordinates, preset.seeds, seeds,
            preset.device,
        )
        for task in preset.tasks
        for method in methods
    ]  # fmt: skip
