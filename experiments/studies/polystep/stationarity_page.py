"""The study of stationarity against steps: its claims, tables and picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from steersman.experiments.studies.polystep.stationarity import HEAT, METHODS, POINTS, Run, dimension, solves
from steersman.experiments.studies.study import Claim, Results, Study, Table

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

Rows = Sequence[Run]


def rows_of(rows: Rows, loss: str, method: str) -> Rows:
    """Runs of a method on a loss."""
    return [row for row in rows if (row.loss, row.method) == (loss, method)]


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
    found = np.array([fitted(row.steps, _series(row, measure)) for row in rows])
    mean, count = float(found.mean()), len(found)
    if count < 2:
        return mean, -np.inf, np.inf
    reach = float(stats.t.ppf(0.975, count - 1)) * float(found.std(ddof=1)) / np.sqrt(count)
    return mean, mean - reach, mean + reach


def _series(row: Run, measure: tuple[str, str]) -> list[float]:
    return averaged(row.steps, getattr(row, measure[0]), measure[1])


def about(results: Results) -> list[str]:
    """What was run, what the columns mean, and what is claimed."""
    runs = results.of(Run)
    steps, seeds = runs[0].steps[-1], ", ".join(map(str, sorted({run.seed for run in runs})))
    return [
        f"ReLU networks of {dimension()} parameters, mean residuals on {POINTS} points of another "
        f"such network, without noise; {steps:,} steps; seeds {seeds} of data, start and search. paper: the published "
        "step on orthoplexes of blocks of two with softmax weights, first temperature "
        f"{HEAT:g}, radii one and two of it, all falling as 1/sqrt(t) or constant; frame_step with its "
        "defaults. Weighted means over the steps up to T have the weights 1/sqrt(t), the lengths of the falling steps. "
        "Goldstein: squared norm of the shortest "
        "convex combination of gradients sampled within the radius of the falling search, the same for all methods; "
        "at a minimum on a kink it vanishes, the gradient does not. Slopes: least squares of the logarithm over log T "
        f"from T = {FROM} on, mean over seeds with an interval of 95 % over them.",
        "Claimed (arXiv 2605.01928): O(log T / sqrt(T)) to conservative-stationary points on piecewise-smooth losses; "
        "copies of the abstract that lost the root sign say O(log T / T). Both are upper bounds: a steeper slope "
        f"agrees with them. Fitted to the same T, {_references(runs[0].steps)}. A weighted mean holds its first term "
        "at a weight that falls as 1/sqrt(T), a plain one as 1/T: whatever a search does, they fall no faster, so each "
        "rate is tested by the mean that could meet it.",
    ]


def _references(times: Sequence[int]) -> str:
    return " and ".join(f"{name} has the slope {_reference(name, times):.2f}" for name in RATES)


def _reference(name: str, times: Sequence[int]) -> float:
    return fitted(times, [RATES[name](max(t, 2)) for t in times])


def tables(results: Results) -> list[Table]:
    """Means at three times, and slopes, by loss, method and measure."""
    runs = results.of(Run)
    times = runs[0].steps
    shown = [min(times, key=lambda t: abs(t - want)) for want in (50, 500, times[-1])]
    head = ["method", "measure", *(f"T = {t:,}" for t in shown), "slope", "loss, of the first"]
    found = []
    for loss in dict.fromkeys(run.loss for run in runs):
        lines = []
        for method in METHODS:
            rows = rows_of(runs, loss, method)
            left = f"{float(np.median([row.final for row in rows])):.2g}"
            for measure, text in MEASURES.items():
                middle = [float(np.median([_series(r, measure)[times.index(t)] for r in rows])) for t in shown]
                cells = [f"{v:.2g}" for v in middle]
                lines.append([method, text, *cells, _interval(slope(rows, measure)), left])
        remark = "Medians over seeds, slopes as means; loss: at the end, over that of the start."
        found.append(Table(head, lines, f"{loss.capitalize()} residuals", remarks=[remark]))
    return found


def _interval(found: tuple[float, float, float]) -> str:
    return f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})"


def claims(results: Results) -> list[Claim]:
    """How the falling radii stand to the claimed rates, by the measure that suits each loss, and the others' ends."""
    runs, found = results.of(Run), []
    falling, *_ = METHODS
    for loss, base in SUITED.items():
        rows = rows_of(runs, loss, falling)
        said, slopes = [], []
        for mean, rate in TESTS.items():
            fit, reference = slope(rows, (base, mean)), _reference(rate, runs[0].steps)
            said.append(f"the {mean} mean has the slope {_interval(fit)} and {_stand(fit, reference)} {rate}")
            slopes.append(fit[0])
        text = f"{loss.capitalize()} residuals, radii as 1/sqrt(t): {'; '.join(said)}"
        found.append(Claim(text, tuple(slopes)))
        ends = {m: float(np.median([row.goldstein[-1] for row in rows_of(runs, loss, m)])) for m in METHODS}
        told = ", ".join(f"{m} {end:.2g}" for m, end in ends.items())
        text = f"{loss.capitalize()} residuals, Goldstein at the last point, median: {told}"
        found.append(Claim(text, tuple(ends.values())))
    return found


def _stand(found: tuple[float, float, float], reference: float) -> str:
    if found[2] <= reference:
        return "falls faster than"
    return "falls more slowly than" if found[1] > reference else "cannot be told from"


def figure(results: Results) -> Figure:
    """Means against T, a column for each loss: median over seeds, all seeds thin, and the rate that each could meet."""
    drawn, panels = plt.subplots(2, 2, figsize=(11, 7.6), sharex=True, layout="constrained")
    for column, (loss, base) in zip(panels.T, SUITED.items(), strict=True):
        for axes, mean in zip(column, TESTS, strict=True):
            for method, tint in zip(METHODS, TINTS, strict=True):
                rows = rows_of(results.of(Run), loss, method)
                series = [_series(row, (base, mean)) for row in rows]
                for values in series:
                    axes.loglog(rows[0].steps, values, color=tint, lw=0.5, alpha=0.3)
                axes.loglog(rows[0].steps, np.median(series, axis=0), color=tint, lw=2, label=method)
            _rate(axes, rows_of(results.of(Run), loss, next(iter(METHODS))), (base, mean))
            axes.set_title(f"{loss} residuals: {MEASURES[base, mean]}")
            axes.grid(True)
            axes.legend(loc="lower left")
        column[1].set_xlabel("steps T")
    return drawn


def _rate(axes: Axes, rows: Rows, measure: tuple[str, str]) -> None:
    times = [t for t in rows[0].steps if t >= FROM]
    place, name = rows[0].steps.index(times[0]), TESTS[measure[1]]
    level = float(np.median([_series(row, measure)[place] for row in rows]))
    falling = [level * RATES[name](t) / RATES[name](times[0]) for t in times]
    axes.loglog(times, falling, color="0.2", ls="--", lw=1, label=name)


STUDY = Study("polystep-stationarity", about, solves, lambda: solves()[0], claims, tables, figure)
