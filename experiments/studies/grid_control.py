"""Damping, frequency and a dynamic brake on a grid of full order: closed-loop damping ratios, and exact optima."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from steersman.envs import noise
from steersman.envs.grid.modes import ringdown
from steersman.envs.grid.two_area_full import TwoAreaBrakeFull
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import PlantSimulator
from steersman.experiments.results import Comparison, RunResult
from steersman.experiments.studies.publish import publish
from steersman.optimizers.registry import make_search

CASES = ((0.50, 10), (0.51, 12))
"""Fault duration in s, and decisions that are enumerated."""
STEP = 0.002
SEARCHES = ("frame_step", "polystep", "cma_es", "openai_es", "random")
SEEDS = 10
DAMPING = "steersman/TwoAreaDamping-v1"
QUIET = 0.6
"""Time from which the swing is free of events, s."""


@dataclass(frozen=True)
class Optimum:
    """Result of trying every pattern of the brake.

    Attributes:
        duration: Duration of the fault, s.
        patterns: Number of patterns.
        stable: How many of them keep synchronism.
        cost: Least cost.
        pattern: The pattern that has it.
        without: Cost without the brake.
        evaluations: For each search and seed, patterns tried until the optimum; -1 if it was not found within
            ``patterns`` evaluations.
    """

    duration: float
    patterns: int
    stable: int
    cost: float
    pattern: str
    without: float
    evaluations: dict[str, list[int]]


def run(console: Console, out: Path | None) -> Path:
    """Run the comparison, enumerate the brake's patterns, and write the page."""
    optima = [brake(duration, bits, console) for duration, bits in CASES]
    folder = publish("grid-control", out, console, lambda c, found: [*damping_claims(c), *brake_claims(optima)])
    (folder / "brake.json").write_text(json.dumps([asdict(o) for o in optima], indent=1) + "\n")
    return folder


# ------------------------------------------------------------------ damping


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


# ------------------------------------------------------------------ the brake


def brake(duration: float, bits: int, console: Console) -> Optimum:
    """Every pattern of the first ``bits`` decisions, and how soon searches find the best one."""
    patterns = torch.tensor(list(itertools.product((0, 1), repeat=bits)))
    with console.status(f"{len(patterns)} brake patterns after a fault of {duration} s"):
        cost, stable = outcomes(duration, patterns)
    best = int(cost.argmin())
    searched = {name: [_sought(name, bits, cost, seed) for seed in range(SEEDS)] for name in SEARCHES}
    text = "".join(map(str, patterns[best].tolist()))
    return Optimum(duration, len(patterns), int(stable.sum()), float(cost[best]), text, float(cost[0]), searched)


@torch.no_grad()
def outcomes(duration: float, patterns: Tensor) -> tuple[Tensor, Tensor]:
    """Cost of each pattern ``[s, bits]``, and whether it keeps synchronism."""
    plant = TwoAreaBrakeFull(STEP)
    p = plant.faulted(torch.tensor([duration], dtype=torch.float64))
    one = Scenarios(noise.keys(0, 1), p, plant.initial(noise.keys(0, 1), p))
    costs, kept = [], []
    for part in torch.split(patterns.double(), 1024):
        simulator = PlantSimulator(plant, len(part))
        simulator.reset(one.repeat(len(part)))
        total = torch.zeros(len(part), dtype=torch.float64)
        for k in range(plant.horizon):
            u = part[:, k : k + 1] if k < part.shape[1] else torch.zeros(len(part), 1, dtype=torch.float64)
            transition = simulator.step(u)
            total = total + transition.cost
        costs.append(total)
        kept.append(transition.status == 0)
    return torch.cat(costs), torch.cat(kept)


def _sought(name: str, bits: int, cost: Tensor, seed: int) -> int:
    """Patterns that a search tries until it tries the best one; positive entries of its vectors are braking."""
    search = make_search(name, confirmations=0).start(torch.zeros(bits, dtype=torch.float64), seed=seed)
    place = 2 ** torch.arange(bits - 1, -1, -1)
    lowest = float(cost.min())
    while search.evaluations < len(cost):
        tried = cost[((search.ask() > 0) * place).sum(dim=1)]
        if bool((tried == lowest).any()):
            return search.evaluations + int((tried == lowest).nonzero()[0, 0]) + 1
        search.tell(tried)
    return -1


def brake_claims(optima: list[Optimum]) -> list[str]:
    """What enumeration and searches found."""
    return [
        f"Brake after a fault of {o.duration:.2f} s, all {o.patterns} patterns at {1000 * STEP:g} ms: {o.stable} are "
        f"stable, the best is {o.pattern} at {o.cost:.3f} (without the brake {o.without:.0f}). Patterns tried until "
        f"the optimum (median of the successes, successes of {SEEDS} seeds): "
        + ", ".join(f"{name} {_tries(tries)}" for name, tries in o.evaluations.items())
        + "."
        for o in optima
    ]


def _tries(tries: list[int]) -> str:
    good = [t for t in tries if t > 0]
    return f"{np.median(good):.0f} ({len(good)})" if good else "- (0)"
