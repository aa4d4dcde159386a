"""What a step costs as replicas and models grow: wolf-sheep, Kuramoto-Sivashinsky and power grids, one thread.

Results lie in ``results/scaling`` beside this file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from rich.console import Console

from steersman.envs import noise
from steersman.envs.abm import _compiled, _slots
from steersman.envs.abm._flock import Rules
from steersman.envs.grid.system import GridSystem
from steersman.envs.grid.tasks import ieee39, kundur_full
from steersman.experiments.benchmarks import abm, grid, pde
from steersman.experiments.benchmarks.base import rate
from steersman.experiments.comparison.machine import describe_machine
from steersman.experiments.report.progress import bar

RESULTS = Path(__file__).parents[1] / "results" / "scaling"
REPLICAS = (1, 4, 16, 64, 256, 1024)
SIDES = (32, 64, 128, 256, 512, 1024)
POINTS = (64, 128, 256, 512, 1024)
WORK = 2.0**17
"""Model ticks of the largest measurement, so that a point takes about a second."""


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


PANELS = {
    "wolf-sheep, replicas": "replicas of 51 x 51 cells",
    "wolf-sheep, grid": "cells along a side (compiled, one replica)",
    "Kuramoto-Sivashinsky, rows": "rows",
    "Kuramoto-Sivashinsky, grid": "grid points",
    "power grids, rows": "rows",
    "power grids, buses": "buses (classical machines, New England tiled)",
}
"""Panels and what their horizontal axes show."""
UNITS = {
    "wolf-sheep": ("model ticks", "tick"),
    "Kuramoto-Sivashinsky": ("control steps (0.5 time units, 5 substeps) of a row", "control step"),
    "power grids": ("simulated seconds (steps of 5 ms, a fault) of a row", "simulated second"),
}
"""What is counted, and the name of one, by the first words of a panel."""


def run(console: Console, out: Path | None) -> Path:
    """Run the study; it keeps nothing in ``out``."""
    torch.set_num_threads(1)
    points: list[Point] = []
    work = list(_work())
    with bar(console, "scaling") as report:
        for i, (panel, curve, size, make) in enumerate(work):
            report(i / len(work), f"{panel}: {curve}, {size:,}")
            points.append(Point(panel, curve, size, rate(make(), turns=3)))
    RESULTS.mkdir(parents=True, exist_ok=True)
    whole = {
        "command": "steersman study scaling", "machine": describe_machine(), "memory": memory(),
        "points": [asdict(point) for point in points],
    }  # fmt: skip
    (RESULTS / "scaling.json").write_text(json.dumps(whole, indent=1) + "\n")
    (RESULTS / "scaling.md").write_text(page(points))
    plot(points, RESULTS / "scaling.png")
    return RESULTS


def _work() -> Iterator[tuple[str, str, int, Callable[[], Callable[[], int]]]]:
    """Panel, curve, size, and what builds the work of each measurement."""
    replicas, cells, rows, points, scenarios, buses = PANELS
    for label, advance, most in (("compiled", _compiled.advance, 1024), ("torch", _slots.advance, 256)):
        for n in REPLICAS:
            if n <= most:
                ticks = int(min(1000, max(20, WORK / (1 if label == "compiled" else 16) / n)))
                yield replicas, label, n, partial(abm.sized, Rules(), n, ticks, advance)
    for side in SIDES:
        rules = Rules(side=side, start=(side * side * 60 // 1000 + 1, side * side * 30 // 1000 + 1))
        yield cells, "60 / 30 animals per 1,000 cells", side, partial(abm.sized, rules, 1, max(5, 2**21 // side**2))
    for n_points in (64, 256):
        for n in REPLICAS:
            yield rows, f"{n_points} points", n, partial(_kuramoto, n_points, n)
    for n in (1, 64):
        for n_points in POINTS:
            yield points, f"{n} row{'s' * (n > 1)}", n_points, partial(_kuramoto, n_points, n)
    for label, system in (("2 areas, 12 states a machine", kundur_full.full()), ("New England", ieee39.classical())):
        for n in REPLICAS:
            yield scenarios, label, n, partial(grid.faults, system, n)
    for n in (1, 20):
        for copies in grid.SIZES:
            tiled = partial(ieee39.tiled, copies)
            yield buses, f"{n} row{'s' * (n > 1)}", 39 * copies, partial(_tiled, tiled, n)


def _kuramoto(points: int, rows: int) -> Callable[[], int]:
    return pde.steps(pde.kuramoto(5, points), rows)


def _tiled(make: Callable[[], GridSystem], rows: int) -> Callable[[], int]:
    # Whole seconds are counted.
    return grid.faults(make(), rows, seconds=1.0 if rows == 1 else 0.1, spread=0.0)


def memory() -> dict[str, int]:
    """Bytes of the state of one replica, by wolf-sheep's start and the plant's own capacity."""
    found = {}
    for label, rules, capacity in (
        ("wolf-sheep, 51 x 51", Rules(), abm.CAPACITY),
        ("wolf-sheep, 1000 x 1000, 6000 / 4000", Rules(side=1000, start=(6000, 4000)), (48000, 16000)),
    ):
        x = _slots.setup(noise.keys(0, 1), rules, capacity)
        found[label] = sum(leaf.element_size() * leaf.numel() for leaf in x.values())
    found["Kuramoto-Sivashinsky, 256 points"] = 8 * 256
    return found


def page(points: list[Point]) -> str:
    """The study's text, computed from its numbers."""
    lines = ["# scaling", "", "`steersman study scaling`", "", describe_machine(), "", "One thread, CPU time.", ""]
    lines += [f"- State of one replica: {name}: {size / 1024:.3g} KiB." for name, size in memory().items()]
    for panel, axis in PANELS.items():
        curves = _curves(points, panel)
        sizes = sorted({p.size for p in points if p.panel == panel})
        counted, _ = UNITS[panel.split(",")[0]]
        lines += ["", f"## {panel}", "", f"{counted.capitalize()} per CPU-second.", ""]
        lines += [f"| {axis} | {' | '.join(f'{n:,}' for n in sizes)} |", "|---" * (len(sizes) + 1) + "|"]
        for name, curve in curves.items():
            cells = [f"{curve[n]:,.{0 if curve[n] >= 10 else 1}f}" if n in curve else "" for n in sizes]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _curves(points: list[Point], panel: str) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for point in points:
        if point.panel == panel:
            found.setdefault(point.curve, {})[point.size] = point.rate
    return found


def plot(points: list[Point], path: Path) -> None:
    """CPU seconds of a tick or step of one replica, against what grows."""
    figure, panels = plt.subplots(3, 2, figsize=(9.5, 9.6))
    for axes, (panel, axis) in zip(panels.flat, PANELS.items(), strict=True):
        _panel(axes, _curves(points, panel))
        axes.set_title(panel, fontsize=11)
        axes.set_xlabel(axis)
    for axes, (_, one) in zip(panels[:, 0], UNITS.values(), strict=True):
        axes.set_ylabel(f"CPU time per {one} of a replica, us")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axes: Axes, curves: dict[str, dict[int, float]]) -> None:
    for tint, (name, curve) in zip(("#4c72b0", "#dd8452"), curves.items(), strict=False):
        axes.loglog(list(curve), [1e6 / value for value in curve.values()], "o-", color=tint, ms=4, label=name)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
