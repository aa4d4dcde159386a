"""The study of sparse networks by their number of ReLUs: its claims, table and picture."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from steersman.experiments.studies.effort.sparse_ladder import AHEAD, EPISODES, HOLDS, LADDER, SEEDS, Rung, cells
from steersman.experiments.studies.study import Claim, Results, Study, Table


def about(results: Results) -> list[str]:
    """What was done."""
    return [
        f"Root-mean-square error of z after {AHEAD} control steps on {EPISODES} new episodes, in percent of the error "
        f"of persistence; mean over {len(SEEDS)} seeds, +- the largest deviation. Networks of two hidden layers of 32 "
        "on windows of two measurements, beside a linear path."
    ]


def claims(results: Results) -> list[Claim]:
    """How much of the gain over a linear model is kept."""
    rungs, found = results.of(Rung), []
    for plant in HOLDS:
        linear, full, eight = (_mean(rungs, plant, *c)[0] for c in (("linear", -1), ("sparse", 64), ("sparse", 8)))
        kept = 100 * (linear - eight) / (linear - full) if linear > full else float("nan")
        found.append(Claim(f"{plant}: 8 of 64 ReLUs keep {kept:.0f} % of what 64 of them gain over linear", (kept,)))
    return found


def tables(results: Results) -> list[Table]:
    """Errors by plant and model."""
    columns = [("linear", -1), ("dense SiLU", -1), *(("sparse", k) for k in LADDER)]
    names = ["plant", "linear", "dense, 64 SiLU", "64 ReLU (all)", *(f"{k} ReLU" for k in LADDER[1:])]
    rungs = results.of(Rung)
    rows = [
        [plant, *("{:.1f} +- {:.1f}".format(*_mean(rungs, plant, *column)) for column in columns)] for plant in HOLDS
    ]
    remark = (
        "On Pendulum-v1 the angle is no affine function of its cosine and sine, and sparse networks read z out "
        "affinely; the dense model has a network there. That, not the number of ReLUs, is the gap between them."
    )
    return [Table(names, rows, remarks=[remark])]


def figure(results: Results) -> Figure:
    """Error against the number of ReLUs, one panel per plant, with the linear and the dense model as lines."""
    drawn, panels = plt.subplots(1, len(HOLDS), figsize=(10, 3.2), layout="constrained")
    rungs, places = results.of(Rung), range(len(LADDER))
    for axes, plant in zip(panels, HOLDS, strict=True):
        for place, k in zip(places, reversed(LADDER), strict=True):
            errors = [100 * r.error for r in rungs if (r.plant, r.model, r.relus) == (plant, "sparse", k)]
            axes.plot([place] * len(errors), errors, "o", color="#4c72b0", ms=5, mec="white")
        means = [_mean(rungs, plant, "sparse", k)[0] for k in reversed(LADDER)]
        axes.plot(places, means, color="#4c72b0", label="sparse ReLU")
        for name, tint in (("linear", "0.4"), ("dense SiLU", "#dd8452")):
            axes.axhline(_mean(rungs, plant, name, -1)[0], color=tint, ls="--", lw=1, label=name)
        axes.set_xticks(places, [str(k) for k in reversed(LADDER)])
        axes.set(title=plant, xlabel="ReLUs left")
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel(f"{AHEAD}-step error, % of persistence")
    panels[0].legend()
    return drawn


def _mean(rungs: list[Rung], plant: str, model: str, relus: int) -> tuple[float, float]:
    """Mean and largest deviation from it over the seeds, in percent of persistence."""
    errors = np.array([r.error for r in rungs if (r.plant, r.model, r.relus) == (plant, model, relus)]) * 100
    return float(errors.mean()), float(np.abs(errors - errors.mean()).max())


# The cells are older than today's random numbers, so that data drawn anew differ by as much as two samples do.
STUDY = Study(
    "sparse-ladder", about, lambda: list(cells()), lambda: next(cells()), claims, tables, figure, tolerance=0.02
)
