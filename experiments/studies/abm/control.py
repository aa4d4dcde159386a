"""Boettcher et al.'s claim: neural controllers, informed by the dynamics, of agent-based models.

Four tasks: wolf-sheep-grass and a metabolic pathway (after arXiv 2403.13851; rules and numbers are ours), each with
one target to hold and with switching targets. The networks are trained through a neural surrogate, through a neural
ODE, and along the agents themselves with the surrogate's derivatives for births, matching and deaths (stochastic value
gradients).
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from steersman.experiments.comparison.results import Comparison
from steersman.experiments.report.findings import marked, short
from steersman.experiments.statistics.ranking import ranking
from steersman.experiments.statistics.scores import Score, versus
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
        ranks = ranking([score for score in found if score.plant == plant.name])
        best = next((s for s in ranks.order if s.controller in ROUTES), None)
        grid = next((s for s in ranks.order if s.controller == GRID), None)
        rival = next((s for s in ranks.order if s.controller not in ROUTES), None)
        if best is None or grid is None or rival is None:
            continue
        of = f"{best.policies}; " if best.policies else ""
        costs = [ranks.mean[score.controller] for score in (best, grid, rival)]
        saved, verdict = 1 - costs[0] / costs[1], versus(best, grid, ranks.scenario).verdict
        holds = saved >= MARGIN and verdict == "better"
        ticks = " / ".join(f"{TICKS * score.over_runs(lambda r: r.train_steps):,.0f}" for score in (best, grid))
        sentences.append(
            f"{short(plant.name)}: the best neural controller ({best.controller}) costs "
            f"{100 * abs(saved):.1f} % {'less' if saved >= 0 else 'more'} than the grid-searched constant fractions "
            f"({of}paired: {verdict}; {MARGIN:.0%} less is asked for: the bar {'holds' if holds else 'does not hold'}"
            f"), at {ticks} simulator ticks; the best of all others is {marked(rival)}, at "
            f"{costs[2] / costs[0]:.2f} times its cost (paired: {versus(rival, best, ranks.scenario).verdict})."
        )
    return sentences
