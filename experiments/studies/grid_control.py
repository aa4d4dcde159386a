"""Damping and frequency on a grid of full order: closed-loop damping ratios."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from steersman.envs.grid.modes import ringdown
from steersman.experiments.results import Comparison, RunResult
from steersman.experiments.studies.publish import publish

DAMPING = "steersman/TwoAreaDamping-v1"
QUIET = 0.6
"""Time from which the swing is free of events, s."""


def run(console: Console, out: Path | None) -> Path:
    """Run the comparison and write its page."""
    return publish("grid-control", out, console, lambda comparison, found: damping_claims(comparison))


def damping_claims(comparison: Comparison) -> list[str]:
    """Closed-loop damping ratio of the swing between the areas, by controller."""
    ratios: dict[str, list[float]] = {}
    for result in comparison.results:
        if result.plant == DAMPING:
            ratios.setdefault(result.controller, []).extend(damping_ratios(result))
    rows = sorted(((float(np.median(r)), name, len(r)) for name, r in ratios.items() if r), reverse=True)
    told = ", ".join(f"{name} {100 * ratio:.1f} % ({count})" for ratio, name, count in rows)
    above = [name for ratio, name, _ in rows if ratio >= 0.10]
    verdict = f"at least 10 % is reached by {', '.join(above)}" if above else "none reaches 10 %"
    return [
        "Damping ratio of the swing between the areas, by a matrix pencil on the recorded episodes after the events "
        f"(median, number of episodes): {told}. The aim of {verdict}."
    ]


def damping_ratios(result: RunResult) -> list[float]:
    """Damping ratios of the strongest oscillation between 0.3 and 1 Hz in each recorded episode."""
    period, found = 0.05, []
    for z in result.episodes.z:
        apart: NDArray[Any] = z[:, :2].mean(axis=1) - z[:, 2:4].mean(axis=1)
        free = apart[round(QUIET / period) : round((QUIET + 4.0) / period)]
        if not np.isfinite(free).all():
            continue
        modes = ringdown(free, period, order=10)
        hertz = modes.imag / (2 * np.pi)
        swing = modes[(hertz > 0.3) & (hertz < 1.0)]
        if len(swing):
            found.append(float(-swing[0].real / np.abs(swing[0])))
    return found
