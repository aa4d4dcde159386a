"""PDE plants under every family, beside the returns that others have published for three of the tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from steersman.experiments.comparison.results import Comparison
from steersman.experiments.report.findings import marked, short
from steersman.experiments.statistics.ranking import ranking
from steersman.experiments.statistics.scores import Score
from steersman.experiments.studies.publish import publish


@dataclass(frozen=True)
class Published:
    """Returns of others on a task whose conventions we keep.

    Attributes:
        returns: Return by controller.
        learned: Those of the controllers that learn from data.
        source: Where the figures are from, and what is not known about them.
    """

    returns: dict[str, float]
    learned: tuple[str, ...]
    source: str


PUBLISHED = {
    "steersman/TransportBoundaryCompat-v1": Published(
        {"backstepping": 243.06, "PPO": 189.98, "SAC": 179.90}, ("PPO", "SAC"),
        "PDEControlGym (arXiv 2405.11401), 50 episodes; spread over training seeds not given",
    ),
    "steersman/ReactionDiffusionCompat-v1": Published(
        {"backstepping": 298.98, "PPO": 293.19, "SAC": 233.11}, ("PPO", "SAC"),
        "PDEControlGym (arXiv 2405.11401), 50 episodes; its backstepping was not bounded; spread over seeds not given",
    ),
    "steersman/BurgersNotebookBoundedCompat-v1": Published(
        {"PPO": -172.1}, ("PPO",),
        "controlgym's notebook, one run; actions are unbounded there and bounded by 2 here",
    ),
}  # fmt: skip


def run(console: Console, out: Path | None) -> Path:
    """Run the comparison and write its page."""
    return publish("pde-control", out, console, claims)


def run_published(console: Console, out: Path | None) -> Path:
    """Run the classical controllers on the tasks that others have published returns of, and write their page."""
    return publish("pde-published", out, console, claims)


def claims(comparison: Comparison, found: list[Score]) -> list[str]:
    """Ours beside the published returns, task by task."""
    sentences = []
    for plant, published in PUBLISHED.items():
        ranks = ranking([score for score in found if score.plant == plant])
        best = next((s for s in ranks.order if s.track == "data only" and s.controller != "zero"), None)
        if best is None:
            continue
        reached = -ranks.mean[best.controller]
        bar = max(published.returns[name] for name in published.learned)
        verdict = "above" if reached > bar else "not above"
        figures = ", ".join(f"{name} {value:g}" for name, value in published.returns.items())
        steps = best.over_runs(lambda r: r.train_steps)
        sentences.append(
            f"{short(plant)}: the best controller that sees only data is {marked(best)} with a return of "
            f"{reached:.1f} after {steps:,.0f} plant steps, {verdict} the published learned ones ({figures}; "
            f"{published.source})."
        )
    return sentences
