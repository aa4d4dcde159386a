"""Damping and frequency on a grid of full order: closed-loop damping ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from steersman.envs import noise
from steersman.envs.grid.events import Fault
from steersman.envs.grid.modes import ringdown
from steersman.envs.grid.tasks.two_area_full import TwoAreaDamping
from steersman.experiments.comparison.results import Comparison, RunResult
from steersman.experiments.spec.comparison import read_spec
from steersman.experiments.studies.publish import publish

DAMPING = "steersman/TwoAreaDamping-v2"
QUIET, WINDOW = 0.1, 4.0
"""A swing is looked at so long after its last event, for so long, s."""


def run(console: Console, out: Path | None) -> Path:
    """Run the comparison and write its page."""
    spec = read_spec("grid-control")
    keys = noise.keys(spec.bank, spec.recorded)
    return publish("grid-control", out, console, lambda comparison, found: damping_claims(comparison, cleared(keys)))


def cleared(key: Int64[Tensor, "n"]) -> list[float]:
    """Times in s at which the faults of the damping plant's scenarios have cleared; infinite where none comes."""
    _, (fault, _) = TwoAreaDamping(version=2).draw(key)
    assert isinstance(fault, Fault)  # noqa: S101 - narrows the type
    times: list[float] = (torch.as_tensor(fault.start) + torch.as_tensor(fault.duration)).tolist()
    return times


def damping_claims(comparison: Comparison, clear: Sequence[float]) -> list[str]:
    """Closed-loop damping ratio of the swing between the areas, by controller.

    Args:
        comparison: The comparison.
        clear: When the fault of each recorded scenario has cleared, s.
    """
    ratios: dict[str, list[float]] = {}
    for result in comparison.results:
        if result.plant == DAMPING:
            ratios.setdefault(result.controller, []).extend(damping_ratios(result, clear))
    rows = sorted(((float(np.median(r)), name, len(r)) for name, r in ratios.items() if r), reverse=True)
    told = ", ".join(f"{name} {100 * ratio:.1f} % ({count})" for ratio, name, count in rows)
    above = [name for ratio, name, _ in rows if ratio >= 0.10]
    verdict = f"at least 10 % is reached by {', '.join(above)}" if above else "at least 10 % is reached by none"
    return [
        "Damping ratio of the swing between the areas, by a matrix pencil on the recorded episodes, over "
        f"{WINDOW:g} s after the fault has cleared (median, number of episodes): {told}. The aim of {verdict}."
    ]


def damping_ratios(result: RunResult, clear: Sequence[float]) -> list[float]:
    """Damping ratios of the strongest oscillation between 0.3 and 1 Hz in each recorded episode, after its fault.

    Args:
        result: The run.
        clear: When the fault of each recorded scenario has cleared, s; episodes without one, or with too little time
            after it, have none.
    """
    period, found = 0.05, []
    for z, time in zip(result.episodes.z, clear, strict=False):
        if (time + QUIET + WINDOW) / period > len(z) - 1:
            continue
        apart: NDArray[Any] = z[:, :2].mean(axis=1) - z[:, 2:4].mean(axis=1)
        begin = math.ceil((time + QUIET) / period)
        free = apart[begin : begin + round(WINDOW / period)]
        if not np.isfinite(free).all():
            continue
        modes = ringdown(free, period, order=10)
        hertz = modes.imag / (2 * np.pi)
        swing = modes[(hertz > 0.3) & (hertz < 1.0)]
        if len(swing):
            found.append(float(-swing[0].real / np.abs(swing[0])))
    return found
