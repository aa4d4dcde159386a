"""What each plant step buys: the cost of deployed policies over the plant steps that their training took.

Each point is a training of its own with that budget, judged on the scenarios that all share, so that no curve
shows a policy that nobody would deploy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from rich.console import Console

from steersman.experiments.comparison.results import Comparison
from steersman.experiments.report.figures import COLOURS, GREY
from steersman.experiments.report.findings import short
from steersman.experiments.report.texts import number
from steersman.experiments.statistics.scores import Score, per_seed, scores
from steersman.experiments.studies.publish import publish

NEURAL, RIVAL = "neural", "ppo"
AIMS = {
    "steersman/TwoArea-v1": 65.0,
    "steersman/Metabolic-v1": 33.5,
    "steersman/TwoAreaDamping-v1": 9.0,
}
"""Mean costs over the training seeds that the neural policies are asked for."""


@dataclass(frozen=True)
class Point:
    """One controller with one budget.

    Attributes:
        family: What its label says before the comma.
        label: Its label.
        steps: Mean plant steps of its trainings, data and verdict included.
        costs: Mean cost of each training seed on the common scenarios.
    """

    family: str
    label: str
    steps: float
    costs: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.costs))


def run(console: Console, out: Path | None) -> Path:
    """Run the comparison and write its page."""
    return publish("sample-efficiency", out, console, claims, curves)


def points(found: Sequence[Score], plant: str) -> list[Point]:
    """Points of one plant by their steps; constants and what does not learn have 0 or few."""
    mine = [score for score in found if score.plant == plant]
    told = [
        Point(
            s.controller.partition(",")[0], s.controller, s.over_runs(lambda r: r.train_steps),
            tuple(one.mean for one in per_seed(s, None)),
        )
        for s in mine
    ]  # fmt: skip
    return sorted(told, key=lambda point: point.steps)


def claims(comparison: Comparison, found: list[Score]) -> list[str]:
    """Whether the neural policies reach their aims, and what rivals cost at equal or more plant steps."""
    sentences = []
    for plant in comparison.plants:
        rows = points(found, plant.name)
        ours = [p for p in rows if p.family == NEURAL]
        if not ours:
            continue
        best = min(ours, key=lambda p: p.mean)
        each = " / ".join(map(number, best.costs))
        text = f"{short(plant.name)}: {best.label} costs {number(best.mean)} ({each} by seed) "
        text += f"at {best.steps:,.0f} steps"
        if (aim := AIMS.get(plant.id)) is not None:
            text += f", {'within' if best.mean <= aim else 'above'} the aim of {aim:g}"
        rivals = [p for p in rows if p.family == RIVAL]
        enough = next((p for p in rivals if p.mean <= best.mean), None)
        told = "; ".join(f"{number(p.mean)} at {p.steps:,.0f}" for p in rivals)
        text += f". PPO: {told}; " if rivals else ". "
        if rivals:
            text += f"it needs {enough.steps / best.steps:.1f} times the steps" if enough else "it never gets there"
        sentences.append(text + ".")
    return sentences


def curves(comparison: Comparison, path: Path) -> None:
    """Cost over plant steps, one panel per plant: every seed a dot, lines through the means."""
    found = scores(comparison)
    width = min(2, len(comparison.plants))
    height = -(-len(comparison.plants) // width)
    figure, panels = plt.subplots(height, width, figsize=(1 + 4.25 * width, 3.2 * height), squeeze=False)
    for axes in panels.flat[len(comparison.plants) :]:
        axes.axis("off")
    named = [score.controller.partition(",") for score in found]
    learns = dict(zip(dict.fromkeys(family for family, budget, _ in named if budget), COLOURS, strict=False))
    for axes, plant in zip(panels.flat, comparison.plants, strict=False):
        rows = points(found, plant.name)
        for family, tint in learns.items():
            mine = [p for p in rows if p.family == family]
            axes.plot([p.steps for p in mine], [p.mean for p in mine], "-o", color=tint, ms=6, label=family)
            for p in mine:
                axes.plot([p.steps] * len(p.costs), p.costs, ".", color=tint, alpha=0.5, ms=5)
        for p, style in zip((p for p in rows if "," not in p.label), ("--", ":"), strict=False):
            axes.axhline(p.mean, color=GREY, ls=style, lw=1.2, label=p.label)
        axes.set(xscale="log", yscale="log", xlabel="plant steps of the training, thousands", ylabel="mean cost")
        _plain(axes.xaxis, 1000.0)
        _plain(axes.yaxis, 1.0)
        axes.set_title(short(plant.name), fontsize=11)
        axes.legend(fontsize=8, frameon=False)
        axes.grid(True, which="both", color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plain(axis: Axis, unit: float) -> None:
    """Ticks at 1, 2 and 5 of each decade, as plain numbers of a unit."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / unit:g}"))
    axis.set_minor_formatter(NullFormatter())
