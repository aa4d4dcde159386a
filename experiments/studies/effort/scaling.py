"""What a step costs as replicas and models grow: wolf-sheep, Kuramoto-Sivashinsky and power grids, one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from steersman.envs import noise
from steersman.envs.abm import _compiled, _slots
from steersman.envs.abm._flock import Rules
from steersman.envs.grid.tasks import ieee39, kundur_full
from steersman.experiments.benchmarks import abm, grid, pde
from steersman.experiments.benchmarks.base import rate
from steersman.experiments.comparison.cell import Cell, Report

REPLICAS = (1, 4, 16, 64, 256, 1024)
SIDES = (32, 64, 128, 256, 512, 1024)
POINTS = (64, 128, 256, 512, 1024)
WORK = 2.0**17
"""Model ticks of the largest measurement, so that a point takes about a second."""
PANELS = {
    "wolf-sheep, replicas": "replicas of 51 x 51 cells",
    "wolf-sheep, grid": "cells along a side (compiled, one replica)",
    "Kuramoto-Sivashinsky, rows": "rows",
    "Kuramoto-Sivashinsky, grid": "grid points",
    "power grids, rows": "rows",
    "power grids, buses": "buses (classical machines, New England tiled)",
}
"""Panels and what their horizontal axes show."""
ANIMALS, AREAS, ENGLAND = "60 / 30 animals per 1,000 cells", "2 areas, 12 states a machine", "New England"


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        panel: What grows.
        curve: Implementation or size that stays.
        size: Replicas, cells along a side, grid points, or buses.
        rate: Model ticks, control steps of a row, or simulated seconds of a row, per CPU-second.
    """

    panel: str
    curve: str
    size: int
    rate: float


@dataclass(frozen=True)
class Timing(Cell):
    """A measurement to make; its fields are those of :class:`Point`."""

    row: ClassVar[type] = Point
    title: ClassVar[str] = "{panel}: {curve}, {size:,}"
    panel: str
    curve: str
    size: int

    def run(self, report: Report) -> list[Point]:
        """See :class:`Cell`."""
        return [Point(self.panel, self.curve, self.size, rate(self._work(), turns=3))]

    def _work(self) -> Callable[[], int]:
        replicas, cells, rows, points, scenarios, _ = PANELS
        if self.panel == replicas:
            ticks = int(min(1000, max(20, WORK / (1 if self.curve == "compiled" else 16) / self.size)))
            return abm.sized(Rules(), self.size, ticks, {"compiled": _compiled.advance}.get(self.curve, _slots.advance))
        if self.panel == cells:
            cells_of = self.size**2
            rules = Rules(side=self.size, start=(cells_of * 60 // 1000 + 1, cells_of * 30 // 1000 + 1))
            return abm.sized(rules, 1, max(5, 2**21 // cells_of))
        if self.panel == scenarios:
            return grid.faults(kundur_full.full() if self.curve == AREAS else ieee39.classical(), self.size)
        stays = int(self.curve.split()[0])
        if self.panel == rows:
            return pde.steps(pde.kuramoto(5, stays), self.size)
        if self.panel == points:
            return pde.steps(pde.kuramoto(5, self.size), stays)
        # Whole seconds are counted.
        return grid.faults(ieee39.tiled(self.size // 39), stays, seconds=1.0 if stays == 1 else 0.1, spread=0.0)


@dataclass(frozen=True)
class Size:
    """Bytes of the state of one replica.

    Attributes:
        name: The model.
        size: Bytes.
    """

    name: str
    size: int


@dataclass(frozen=True)
class Memory(Cell):
    """What one replica takes, by wolf-sheep's start and the plant's own capacity."""

    row: ClassVar[type] = Size
    title: ClassVar[str] = "memory"

    def run(self, report: Report) -> list[Size]:
        """See :class:`Cell`."""
        found = []
        for label, rules, capacity in (
            ("wolf-sheep, 51 x 51", Rules(), abm.CAPACITY),
            ("wolf-sheep, 1000 x 1000, 6000 / 4000", Rules(side=1000, start=(6000, 4000)), (48000, 16000)),
        ):
            x = _slots.setup(noise.keys(0, 1), rules, capacity)
            found.append(Size(label, sum(leaf.element_size() * leaf.numel() for leaf in x.values())))
        return [*found, Size("Kuramoto-Sivashinsky, 256 points", 8 * 256)]


def timings() -> Iterator[Timing]:
    """All measurements."""
    replicas, cells, rows, points, scenarios, buses = PANELS
    yield from (Timing(replicas, "compiled", n) for n in REPLICAS)
    yield from (Timing(replicas, "torch", n) for n in REPLICAS if n <= 256)
    yield from (Timing(cells, ANIMALS, side) for side in SIDES)
    yield from (Timing(rows, f"{stays} points", n) for stays in (64, 256) for n in REPLICAS)
    yield from (Timing(points, curve, n) for curve in ("1 row", "64 rows") for n in POINTS)
    yield from (Timing(scenarios, curve, n) for curve in (AREAS, ENGLAND) for n in REPLICAS)
    yield from (Timing(buses, curve, 39 * copies) for curve in ("1 row", "20 rows") for copies in grid.SIZES)
