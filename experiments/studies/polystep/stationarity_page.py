"""Page and plot of the study of stationarity, from its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from scipy import stats

FROM = 50
"""Steps from which slopes are fitted: before, runs fall from their starts at rates of their own."""
MEASURES = {
    ("gradient", "weighted"): "squared gradient, weighted mean", ("gradient", "plain"): "squared gradient, plain mean",
    ("goldstein", "weighted"): "Goldstein, weighted mean", ("goldstein", "plain"): "Goldstein, plain mean",
    ("goldstein", "last"): "Goldstein, last point",
}  # fmt: skip
SUITED = {"squared": "gradient", "absolute": "goldstein"}
"""What is small where each loss is stationary."""
TESTS = {"weighted": "log T / sqrt(T)", "plain": "log T / T"}
"""The mean that could meet each rate: its first term alone makes it fall no faster than the rate without log T."""
RATES: dict[str, Callable[[float], float]] = {
    "log T / sqrt(T)": lambda t: math.log(t) / math.sqrt(t), "log T / T": lambda t: math.log(t) / t
}  # fmt: skip
TINTS = ("#c44e52", "#dd8452", "#4c72b0")

Rows = Sequence[dict[str, Any]]


def rows_of(whole: dict[str, Any], loss: str, method: str) -> Rows:
    """Runs of a method on a loss."""
    return [row for row in whole["runs"] if (row["loss"], row["method"]) == (loss, method)]


def fitted(times: Sequence[int], values: Sequence[float]) -> float:
    """Slope of log values over log times by least squares, from :data:`FROM` on."""
    t, v = np.array(times, dtype=float), np.maximum(np.array(values, dtype=float), 1e-300)
    late = t >= FROM
    return float(np.polyfit(np.log(t[late]), np.log(v[late]), 1)[0])


def averaged(times: Sequence[int], values: Sequence[float], mean: str) -> list[float]:
    """Means over the steps up to each time; a value stands for the steps since the last one.

    Args:
        times: Steps at which there are values.
        values: What is averaged.
        mean: "weighted" by ``1 / sqrt(t)``, which proofs with such steps bound; "plain"; or "last", no mean at all.
    """
    if mean == "last":
        return list(values)
    steps = np.arange(1, times[-1] + 1, dtype=float)
    ends = np.cumsum(1 / np.sqrt(steps) if mean == "weighted" else np.ones_like(steps))[np.array(times) - 1]
    return [float(v) for v in np.cumsum(np.diff(ends, prepend=0.0) * np.array(values)) / ends]


def slope(rows: Rows, measure: tuple[str, str]) -> tuple[float, float, float]:
    """Mean slope over seeds and its interval of 95 % (Student's t)."""
    found = np.array([fitted(row["steps"], _series(row, measure)) for row in rows])
    mean, count = float(found.mean()), len(found)
    if count < 2:
        return mean, -np.inf, np.inf
    reach = float(stats.t.ppf(0.975, count - 1)) * float(found.std(ddof=1)) / np.sqrt(count)
    return mean, mean - reach, mean + reach


def _series(row: dict[str, Any], measure: tuple[str, str]) -> list[float]:
    return averaged(row["steps"], row[measure[0]], measure[1])


def page(whole: dict[str, Any]) -> str:
    """The study's text, computed from its numbers."""
    losses = list(dict.fromkeys(row["loss"] for row in whole["runs"]))
    methods = list(dict.fromkeys(row["method"] for row in whole["runs"]))
    times = whole["runs"][0]["steps"]
    seconds = sum(row["seconds"] for row in whole["runs"])
    lines = [
        "# polystep-stationarity", "", f"`{whole['command']}`", "",
        f"{whole['machine']}; {seconds / 60:.1f} CPU minutes on one thread.", "",
        _terms(whole), "",
        "Claimed (arXiv 2605.01928): O(log T / sqrt(T)) to conservative-stationary points on piecewise-smooth losses; "
        "copies of the abstract that lost the root sign say O(log T / T). Both are upper bounds: a steeper slope "
        f"agrees with them. Fitted to the same T, {_references(times)}. A weighted mean holds its first term at a "
        "weight that falls as 1/sqrt(T), a plain one as 1/T: whatever a search does, they fall no faster, so each "
        "rate is tested by the mean that could meet it.", "",
        *(f"- {claim}" for claim in claims(whole)), "",
    ]  # fmt: skip
    for loss in losses:
        lines += [f"## {loss.capitalize()} residuals", "", *_table(whole, loss, methods), ""]
    return "\n".join(lines).rstrip() + "\n"


def _terms(whole: dict[str, Any]) -> str:
    """What was run and what the columns mean."""
    steps, seeds = whole["runs"][0]["steps"][-1], ", ".join(map(str, whole["seeds"]))
    return (
        f"ReLU networks of {whole['parameters']} parameters, mean residuals on {whole['points']} points of another "
        f"such network, without noise; {steps:,} steps; seeds {seeds} of data, start and search. paper: the published "
        "step on orthoplexes of blocks of two with softmax weights, first temperature "
        f"{whole['temperature']:g}, radii one and two of it, all falling as 1/sqrt(t) or constant; frame_step with its "
        "defaults. Weighted means over the steps up to T have the weights 1/sqrt(t), the lengths of the falling steps. "
        "Goldstein: squared norm of the shortest "
        "convex combination of gradients sampled within the radius of the falling search, the same for all methods; "
        "at a minimum on a kink it vanishes, the gradient does not. Slopes: least squares of the logarithm over log T "
        f"from T = {FROM} on, mean over seeds with an interval of 95 % over them."
    )


def _references(times: Sequence[int]) -> str:
    return " and ".join(f"{name} has the slope {_reference(name, times):.2f}" for name in RATES)


def _reference(name: str, times: Sequence[int]) -> float:
    return fitted(times, [RATES[name](max(t, 2)) for t in times])


def _table(whole: dict[str, Any], loss: str, methods: Sequence[str]) -> list[str]:
    times = whole["runs"][0]["steps"]
    shown = [min(times, key=lambda t: abs(t - want)) for want in (50, 500, times[-1])]
    head = [f"T = {t:,}" for t in shown]
    lines = [f"| method | measure | {' | '.join(head)} | slope | loss, of the first |", "|---" * (len(head) + 4) + "|"]
    for method in methods:
        rows = rows_of(whole, loss, method)
        left = f"{float(np.median([row['final'] for row in rows])):.2g}"
        for measure, text in MEASURES.items():
            middle = [float(np.median([_series(r, measure)[times.index(t)] for r in rows])) for t in shown]
            cells = " | ".join(f"{v:.2g}" for v in middle)
            lines.append(f"| {method} | {text} | {cells} | {_interval(slope(rows, measure))} | {left} |")
    return [*lines, "", "Medians over seeds, slopes as means; loss: at the end, over that of the start."]


def _interval(found: tuple[float, float, float]) -> str:
    return f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})"


def claims(whole: dict[str, Any]) -> list[str]:
    """How the falling radii stand to the claimed rates, by the measure that suits each loss, and the others' ends."""
    methods, times = list(dict.fromkeys(row["method"] for row in whole["runs"])), whole["runs"][0]["steps"]
    lines = []
    for loss, base in SUITED.items():
        said = []
        for mean, rate in TESTS.items():
            found, reference = slope(rows_of(whole, loss, methods[0]), (base, mean)), _reference(rate, times)
            said.append(f"the {mean} mean has the slope {_interval(found)} and {_stand(found, reference)} {rate}")
        lines.append(f"{loss.capitalize()} residuals, radii as 1/sqrt(t): {'; '.join(said)}.")
        ends = [f"{m} {_end(rows_of(whole, loss, m)):.2g}" for m in methods]
        lines.append(f"{loss.capitalize()} residuals, Goldstein at the last point, median: {', '.join(ends)}.")
    return lines


def _end(rows: Rows) -> float:
    return float(np.median([row["goldstein"][-1] for row in rows]))


def _stand(found: tuple[float, float, float], reference: float) -> str:
    if found[2] <= reference:
        return "falls faster than"
    return "falls more slowly than" if found[1] > reference else "cannot be told from"


def plot(whole: dict[str, Any], path: Path) -> None:
    """Means against T, a column for each loss: median over seeds, all seeds thin, and the rate that each could meet."""
    methods = list(dict.fromkeys(row["method"] for row in whole["runs"]))
    figure, panels = plt.subplots(2, 2, figsize=(11, 7.6), sharex=True)
    for column, (loss, base) in zip(panels.T, SUITED.items(), strict=True):
        for axes, mean in zip(column, TESTS, strict=True):
            for method, tint in zip(methods, TINTS, strict=False):
                rows = rows_of(whole, loss, method)
                series = [_series(row, (base, mean)) for row in rows]
                for values in series:
                    axes.loglog(rows[0]["steps"], values, color=tint, lw=0.5, alpha=0.3)
                axes.loglog(rows[0]["steps"], np.median(series, axis=0), color=tint, lw=2, label=method)
            _rate(axes, rows_of(whole, loss, methods[0]), (base, mean))
            axes.set_title(f"{loss} residuals: {MEASURES[base, mean]}", fontsize=11)
            axes.grid(True, color="0.92")
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=8, loc="lower left")
        column[1].set_xlabel("steps T")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _rate(axes: Axes, rows: Rows, measure: tuple[str, str]) -> None:
    times = [t for t in rows[0]["steps"] if t >= FROM]
    place, name = rows[0]["steps"].index(times[0]), TESTS[measure[1]]
    level = float(np.median([_series(row, measure)[place] for row in rows]))
    falling = [level * RATES[name](t) / RATES[name](times[0]) for t in times]
    axes.loglog(times, falling, color="0.2", ls="--", lw=1, label=name)
