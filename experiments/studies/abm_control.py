"""Boettcher et al.'s claim: neural controllers, informed by the dynamics, of agent-based models.

Four tasks: wolf-sheep-grass and a metabolic pathway (after arXiv 2403.13851; rules and numbers are ours), each with
one target to hold and with switching targets. The networks are trained through a neural surrogate, through a neural
ODE, and along the agents themselves with the surrogate's derivatives for births, matching and deaths (stochastic value
gradients).
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from steersman.experiments.findings import short
from steersman.experiments.results import Comparison
from steersman.experiments.stats import Score
from steersman.experiments.studies.publish import publish

GRID = "grid search"
ROUTES = ("neural, surrogate", "neural, neural ODE", "neural, along the agents")
MARGIN = 0.05
"""How much cheaper than the grid-searched policy the best neural controller is asked to be."""
TICKS = 10
"""Ticks of a control step, in all four tasks."""


def run(console: Console, out: Path | None) -> Path:
    """Run the comparison and write its page."""
    return publish("abm-control", out, console, claims)


def claims(comparison: Comparison, found: list[Score]) -> list[str]:
    """What the numbers say about the claim, task by task."""
    sentences = []
    for plant in comparison.plants:
        rows = {score.controller: score for score in found if score.plant == plant.name}
        routes = [rows[name] for name in ROUTES if name in rows]
        if GRID not in rows or not routes:
            continue
        best, grid = min(routes, key=lambda score: score.mean), rows[GRID]
        saved = 1 - best.mean / grid.mean
        verdict = "the bar holds" if saved >= MARGIN else "the bar does not hold"
        ticks = " / ".join(f"{TICKS * score.over_runs(lambda r: r.train_steps):,.0f}" for score in (best, grid))
        rival = min((s for s in rows.values() if s not in routes), key=lambda score: score.mean)
        sentences.append(
            f"{short(plant.name)}: the best neural controller ({best.controller}) costs {100 * abs(saved):.1f} % "
            f"{'less' if saved >= 0 else 'more'} than the grid-searched constant fractions ({MARGIN:.0%} less is asked "
            f"for: {verdict}), at {ticks} simulator ticks; the best of all others is {rival.controller}, at "
            f"{rival.mean / best.mean:.2f} times its cost."
        )
    return sentences
