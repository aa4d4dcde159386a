"""The dynamic brake: exact optima of its patterns, how soon searches find them, and how near programs come."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from steersman.controllers.mip.controller import MixedIntegerMPC
from steersman.controllers.rollout import run_episodes
from steersman.dynamics.base import Dynamics
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.windowed.sparse import SparseNeuralDynamics, SparseSettings
from steersman.envs import noise
from steersman.envs.grid.tasks.two_area_full import TwoAreaBrakeFull
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import Measurement, PlantSimulator
from steersman.experiments.studies.publish import publish
from steersman.optimizers.registry import make_search

CASES = ((0.50, 10), (0.51, 12))
"""Fault duration in s, and decisions that are enumerated."""
STEP = 0.002
SEARCHES = ("frame_step", "polystep", "cma_es", "openai_es", "random")
SEEDS = 10
DURATIONS = (0.48, 0.49, 0.50, 0.505, 0.51, 0.515, 0.52)
"""Fault durations in s that programs are tried on, at the plant's own step and enumerated over 12 decisions."""
TIME_LIMIT = 0.5
"""Wall seconds of a decision by a program."""
LOST = 200.0
"""Costs above this are a loss of synchronism: braking all the time costs 120."""


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


@dataclass(frozen=True)
class Plans:
    """Brakes that mixed-integer MPC decides on in closed loop, beside the best patterns.

    Attributes:
        model: Its model.
        margin: Its margin from the limits.
        durations: Durations of the faults, s.
        best: Least cost of any pattern.
        cost: Cost in closed loop.
        pattern: What it did in the first twelve steps.
    """

    model: str
    margin: float
    durations: tuple[float, ...]
    best: tuple[float, ...]
    cost: tuple[float, ...]
    pattern: tuple[str, ...]


def run(console: Console, out: Path | None) -> Path:
    """Enumerate the patterns, plan them by programs, run the comparison, and write the page."""
    optima, plans = [optimum(duration, bits, console) for duration, bits in CASES], planned(console)
    told = [*brake_claims(optima), *plan_claims(plans)]
    folder = publish("grid-brake", out, console, lambda comparison, found: told)
    (folder / "optima.json").write_text(json.dumps([*map(asdict, optima), *map(asdict, plans)], indent=1) + "\n")
    return folder


def optimum(duration: float, bits: int, console: Console) -> Optimum:
    """Every pattern of the first ``bits`` decisions, and how soon searches find the best one."""
    patterns = torch.tensor(list(itertools.product((0, 1), repeat=bits)))
    with console.status(f"{len(patterns)} brake patterns after a fault of {duration} s"):
        cost, stable = outcomes(duration, patterns)
    best = int(cost.argmin())
    searched = {name: [_sought(name, bits, cost, seed) for seed in range(SEEDS)] for name in SEARCHES}
    text = "".join(map(str, patterns[best].tolist()))
    return Optimum(duration, len(patterns), int(stable.sum()), float(cost[best]), text, float(cost[0]), searched)


@torch.no_grad()
def outcomes(duration: float, patterns: Tensor, dt: float = STEP) -> tuple[Tensor, Tensor]:
    """Cost of each pattern ``[s, bits]``, and whether it keeps synchronism."""
    plant = TwoAreaBrakeFull(dt)
    one, costs, kept = faults(plant, (duration,)), [], []
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


def faults(plant: TwoAreaBrakeFull, durations: tuple[float, ...]) -> Scenarios:
    """Scenarios of these durations."""
    p, key = plant.faulted(torch.tensor(durations, dtype=torch.float64)), noise.keys(0, len(durations))
    return Scenarios(key, p, plant.initial(key, p))


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


# ------------------------------------------------------------------ by programs


def planned(console: Console) -> list[Plans]:
    """Mixed-integer MPC on a linear and on a sparse model, both fitted to the same data."""
    plant, patterns = TwoAreaBrakeFull(), torch.tensor(list(itertools.product((0, 1), repeat=12)))
    with console.status(f"best of {len(patterns)} patterns after {len(DURATIONS)} faults"):
        best = tuple(float(outcomes(d, patterns, plant.dt)[0].min()) for d in DURATIONS)
    simulator = PlantSimulator(plant, 64)
    data = collect(simulator, HeldLevels(1, 4), episodes=128, seed=0)
    settings = SparseSettings(relus=6, context=1, hidden=(32,), rollout=12, dense_steps=800, tune_steps=1000)
    found = []
    for name, model, margin in (
        ("linear", LinearDynamics(context=1), 0.08), ("sparse", SparseNeuralDynamics(settings), 0.06),
    ):  # fmt: skip
        with console.status(f"mip-mpc ({name}) after {len(DURATIONS)} faults"):
            cost, done = _closed_loop(plant, model.bind(simulator.problem).fit(data), margin)
        found.append(Plans(name, margin, DURATIONS, best, cost, done))
    return found


@torch.no_grad()
def _closed_loop(plant: TwoAreaBrakeFull, model: Dynamics, margin: float) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Costs and the first twelve decisions of the controller, from what is measured."""
    simulator = PlantSimulator(plant, len(DURATIONS))
    settings = MixedIntegerMPC(horizon=10, time_limit=TIME_LIMIT, margin=margin)
    controller = settings.bind(simulator.problem, model)
    controller.reset(len(DURATIONS))
    actions: list[Tensor] = []

    def act(m: Measurement) -> Tensor:
        actions.append(controller.act(m.blind()).u)
        return actions[-1]

    cost = run_episodes(simulator, faults(plant, DURATIONS), act).cost
    done = ["".join(str(int(u)) for u in row) for row in torch.cat(actions[:12], dim=1)]
    return tuple(cost.tolist()), tuple(done)


# ------------------------------------------------------------------ what is said


def plan_claims(plans: list[Plans]) -> list[str]:
    """Where programs keep synchronism, and their gap."""
    sentences = []
    for p in plans:
        best, cost = np.array(p.best), np.array(p.cost)
        saved = best < LOST
        kept, gap = saved & (cost < LOST), cost - best
        sentences.append(
            f"mip-mpc ({p.model}), margin {p.margin:g}: after {len(best)} faults of {p.durations[0]:.2f} to "
            f"{p.durations[-1]:.2f} s, {saved.sum()} of which some pattern of 4096 survives, it keeps synchronism in "
            f"{kept.sum()}; its cost there is {cost[kept].mean():.2f} on average, that of the best pattern "
            f"{best[kept].mean():.2f} (gap at most {gap[kept].max():.2f}, median {np.median(gap[kept]):.2f})."
        )
    return sentences


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
