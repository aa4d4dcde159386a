"""Figures of a report, as inline SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from steersman.experiments.comparison.results import PlantSummary, RunResult
from steersman.experiments.statistics.paired import Difference
from steersman.experiments.statistics.scores import Score

COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#64b5cd", "#b0a342", "#3b8686")
GREY = "#8c8c8c"
POINTS = 200
"""Scatter plots show at most so many scenarios."""


def colours(labels: Sequence[str], baseline: str) -> dict[str, str]:
    """One colour per controller, the same in every figure; the baseline is grey."""
    others = [label for label in labels if label != baseline]
    return {baseline: GREY} | {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(others)}


def differences(scores: Sequence[Score], colour: dict[str, str], baseline: str, shares: bool) -> str:
    """Paired differences to the baseline, best on top: points, mean and the interval of the verdict.

    Args:
        scores: Scores of one plant.
        colour: Colour of each controller.
        baseline: Label of the baseline.
        shares: In percent of the baseline's mean cost on the common scenarios; in units of the cost otherwise.
    """
    rows = [(s.controller, s.difference) for s in scores if s.difference is not None]
    unit = {name: 100 / d.base if shares else 1.0 for name, d in rows}
    rows.sort(key=lambda row: -_finite(row[1].mean * unit[row[0]]))
    figure = Figure(figsize=(8.6, 0.9 + 0.42 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for height, (name, d) in enumerate(rows):
        each, tint = d.each[:POINTS] * unit[name], colour[name]
        wobble = height + 0.28 * np.sin(np.arange(len(each)) * 2.4)
        axes.plot(np.where(np.isfinite(each), each, np.nan), wobble, ".", color=tint, alpha=0.25, ms=4, mew=0)
        ends = _ends(d, shares)
        if np.isfinite(ends).all():
            axes.plot(ends, [height] * len(ends), "-", color=tint, lw=3, solid_capstyle="butt")
        if np.isfinite(d.mean):
            axes.plot(d.mean * unit[name], height, "o", color=tint, mec="white", ms=8)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_xlabel(f"difference to {baseline}{', % of its mean cost' if shares else ''} (left is better)")
    _limit(axes, np.concatenate([d.each * unit[name] for name, d in rows]))
    _quiet(axes)
    return _svg(figure)


def trajectories(plant: PlantSummary, runs: Sequence[RunResult], colour: dict[str, str]) -> str:
    """The first scenario under every controller: performance outputs with their reference, and the actions."""
    m = len(plant.actions)
    few = m <= 3
    rows = len(plant.shown) + (m if few else 1)
    figure = Figure(figsize=(8.6, 1.5 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    time = np.arange(plant.horizon + 1) * plant.period
    for axis, index in zip(axes, plant.shown, strict=False):
        for run in runs:
            axis.plot(time, run.episodes.z[0, :, index], color=colour[run.controller], lw=1.2, label=run.controller)
        reference = runs[0].episodes.r[0, :, index]
        if np.nanmax(np.abs(reference)) > 0:
            axis.plot(time, _longest([run.episodes.r[0, :, index] for run in runs]), "k--", lw=0.9, label="reference")
        axis.set_ylabel(plant.performed[index])
        _limit(axis, np.concatenate([run.episodes.z[0, :, index] for run in runs]))
    for axis, index in zip(axes[len(plant.shown) :], range(m if few else 1), strict=True):
        for run in runs:
            u = run.episodes.u[0]
            series = u[:, index] if few else np.sqrt(np.mean(u**2, axis=1))
            axis.step(time[:-1], series, where="post", color=colour[run.controller], lw=1.0, alpha=0.8)
        unit = f"\n({plant.units[index]})" if plant.units[index] else ""
        axis.set_ylabel(f"{plant.actions[index]}{unit}" if few else "actions, RMS")
    axes[-1].set_xlabel(f"time ({plant.time_unit})")
    for axis in axes:
        _quiet(axis)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(5, len(labels)), frameon=False, fontsize=8)
    return _svg(figure)


def _longest(series: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return max(series, key=lambda s: int(np.isfinite(s).sum()))


def _ends(d: Difference, shares: bool) -> list[float]:
    """Ends of the verdict's interval in the unit of the figure, none where nothing is tested."""
    found = d.gain_interval if shares else d.interval
    if found is None:
        return []
    return [-100 * found.high, -100 * found.low] if shares else [found.low, found.high]


def _finite(value: float) -> float:
    return float(value) if np.isfinite(value) else float("inf")


def _limit(axes: Axes, values: Sequence[float] | NDArray[np.float64]) -> None:
    """Leave out the outermost percent where outliers would hide the rest."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return
    low, high = np.quantile(finite, [0.01, 0.99])
    span = max(high - low, 1e-9)
    vertical = axes.get_ylabel() != ""
    if finite.max() - finite.min() > 3 * span:
        limits = (low - 0.5 * span, high + 0.5 * span)
        axes.set_ylim(*limits) if vertical else axes.set_xlim(*limits)


def _quiet(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#e6e6e6", lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    salt = f"steersman-{id(figure)}"
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": salt, "path.simplify_threshold": 0.5}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    # Ids are per file; several files in one page would otherwise refer to each other's clip paths.
    mark = re.sub(r"\D", "", salt)[-6:]
    text = re.sub(r'(id="|url\(#|href="#)', lambda match: f"{match[1]}f{mark}-", text)
    return text[text.index("<svg") :]
