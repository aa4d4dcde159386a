"""The study of what a step costs as things grow: its tables and picture."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from steersman.experiments.studies.effort.scaling import PANELS, Memory, Point, Size, timings
from steersman.experiments.studies.study import Claim, Results, Study, Table

UNITS = {
    "wolf-sheep": ("model ticks", "tick"),
    "Kuramoto-Sivashinsky": ("control steps (0.5 time units, 5 substeps) of a row", "control step"),
    "power grids": ("simulated seconds (steps of 5 ms, a fault) of a row", "simulated second"),
}
"""What is counted, and the name of one, by the first words of a panel."""


def claims(results: Results) -> list[Claim]:
    """What a replica takes."""
    found = [(size.name, size.size / 1024) for size in results.of(Size)]
    return [Claim(f"State of one replica: {name}: {size:.3g} KiB", (size,)) for name, size in found]


def tables(results: Results) -> list[Table]:
    """Rates by size, a table for each panel."""
    found = []
    for panel, axis in PANELS.items():
        curves = _curves(results, panel)
        sizes = sorted({n for curve in curves.values() for n in curve})
        rows = [
            [name, *(f"{curve[n]:,.{0 if curve[n] >= 10 else 1}f}" if n in curve else "" for n in sizes)]
            for name, curve in curves.items()
        ]
        counted, _ = UNITS[panel.split(",")[0]]
        head = [axis, *(f"{n:,}" for n in sizes)]
        found.append(Table(head, rows, panel, f"{counted.capitalize()} per CPU-second."))
    return found


def figure(results: Results) -> Figure:
    """CPU seconds of a tick or step of one replica, against what grows."""
    drawn, panels = plt.subplots(3, 2, figsize=(9.5, 9.6), layout="constrained")
    for axes, (panel, axis) in zip(panels.flat, PANELS.items(), strict=True):
        for tint, (name, curve) in zip(("#4c72b0", "#dd8452"), _curves(results, panel).items(), strict=False):
            axes.loglog(list(curve), [1e6 / value for value in curve.values()], "o-", color=tint, ms=4, label=name)
        axes.set(title=panel, xlabel=axis)
        axes.grid(True)
        axes.legend()
    for axes, (_, one) in zip(panels[:, 0], UNITS.values(), strict=True):
        axes.set_ylabel(f"CPU time per {one} of a replica, us")
    return drawn


def _curves(results: Results, panel: str) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for point in results.of(Point):
        if point.panel == panel:
            found.setdefault(point.curve, {})[point.size] = point.rate
    return found


# Rates are those of a machine; what the tests do again is the size of the states.
STUDY = Study(
    "scaling", lambda results: ["One thread, CPU time."], lambda: [Memory(), *timings()], Memory, claims, tables,
    figure, workers=1,
)  # fmt: skip
