"""Many runs of policy search in lockstep: ten seeds cost about as much time as two.

The populations of all runs are one batch. Each run has a search, a seed, scenarios and a normalisation of its own;
nothing passes between them. What is judged is the policy that would be deployed: during a run the search's confirmed
best, at its end what the run returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from steersman.controllers.neural.policy import build_policy
from steersman.controllers.policy_search.population import Population, roll_out
from steersman.controllers.rollout import run_episodes
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.linear.regression import spread
from steersman.envs import make_simulator, noise
from steersman.envs.simulator import Simulator
from steersman.optimizers.base import Search
from steersman.optimizers.policies.base import Policy
from steersman.optimizers.registry import make_search
from steersman.optimizers.vectorise import flatten

_HELD_OUT, _VALIDATE, _FINAL = 0x4E1D, 0x5A11D, 0xF17A1
"""Separate the scenarios that watch a run, that choose its policy at the end, and that judge it."""
STREAK = 5
"""Successive means of the confirmed best, each on fresh episodes, that must lie at or above the threshold."""


@dataclass(frozen=True)
class Task:
    """A plant and the terms of its runs.

    Attributes:
        plant: Id.
        threshold: Return from which a mean counts as solved; None takes half of the cost without control.
        plant_steps: Budget of each run: exploration and all generations; judging and final episodes come on top.
        offset: Constant between minus our cost and the return that others publish.
        scenarios: Episodes of each evaluation.
        held_out: Fresh episodes that judge the confirmed best before each generation, a multiple of ``scenarios``.
        final: Episodes that judge the final policy.
        seeds: Runs of each method.
        stop: Whether a run ends with its streak.
        explore: Episodes from which observations are normalised.
    """

    plant: str
    threshold: float | None
    plant_steps: int
    offset: float = 0.0
    scenarios: int = 4
    held_out: int = 64
    final: int = 256
    seeds: int = 10
    stop: bool = False
    explore: int = 8

    @property
    def name(self) -> str:
        """The id without namespace and version."""
        return self.plant.partition("/")[2].rpartition("-")[0]


@dataclass
class Row:
    """One run.

    Attributes:
        task: Name of the task.
        policy: Name of the policy.
        search: Name of the search.
        seed: Its seed.
        parameters: Of the policy.
        threshold: Return asked for.
        solved_evaluations: Evaluations up to the end of the first streak; -1 if there was none.
        solved_steps: Training control steps up to then, exploration included; likewise.
        evaluations: Evaluations of the whole run.
        plant_steps: Training control steps of the whole run.
        final: Mean return of the policy that the run returns, on fresh scenarios.
        curve: Evaluations, training control steps and mean return of the judged policy before each generation.
        judged: The judged policy: the "confirmed best", or the search's "centre" on the same episodes in every
            generation.
        seconds: CPU seconds, its share of those of the runs beside it; 0 where they were not kept.
    """

    task: str
    policy: str
    search: str
    seed: int
    parameters: int
    threshold: float = float("nan")
    solved_evaluations: int = -1
    solved_steps: int = -1
    evaluations: int = 0
    plant_steps: int = 0
    final: float = float("nan")
    curve: list[tuple[int, int, float]] = field(default_factory=list)
    judged: str = "confirmed best"
    seconds: float = 0.0

    @property
    def solved(self) -> bool:
        """Whether the policy that the run returns reaches the threshold."""
        return self.final >= self.threshold

    @property
    def held(self) -> bool:
        """Whether the judged policy held the threshold for a streak."""
        return self.solved_steps >= 0


class _Run:
    """A run in progress."""

    def __init__(
        self, task: Task, policy: str, hidden: tuple[int, ...], name: str, search: Search[Any], seed: int, start: Any
    ) -> None:
        self.task, self.seed = task, seed
        self.mean, self.std, used, problem, threshold = start
        network = build_policy(policy, problem.ny, problem.actions.m, hidden, seed)
        x0 = flatten(network)
        self.search = search.start(x0, seed=seed)
        self.row = Row(task.name, policy, name, seed, len(x0), threshold, plant_steps=used)
        self.streak, self.done = 0, False

    def ask(self) -> tuple[Tensor, Tensor]:
        """Members of the next generation, then copies of the confirmed best for its judgement; and their keys."""
        t, copies, generation = self.task, self.task.held_out // self.task.scenarios, self.search.generation
        judged = self.search.champion.x
        self.asked = self.search.ask()
        key = noise.keys(self.seed, t.scenarios, start=generation * t.scenarios)
        # Episodes that a policy has passed once must not pass it again: each generation has others.
        fresh = noise.fold(noise.keys(0, t.held_out, start=generation * t.held_out), _HELD_OUT)
        return (
            torch.cat([self.asked, judged.expand(copies, -1)]),
            torch.cat([noise.fold(key, 1).repeat(len(self.asked)), fresh]),
        )

    def tell(self, cost: Tensor, steps: Tensor) -> None:
        """Costs and control steps of what :meth:`ask` gave; the judged policy is that of the generation before."""
        size, row, t = len(self.asked), self.row, self.task
        reached = float(t.offset - cost[size:].mean())
        row.curve.append((row.evaluations, row.plant_steps, reached))
        self.streak = self.streak + 1 if reached >= row.threshold else 0
        if self.streak == STREAK and row.solved_steps < 0:
            row.solved_evaluations, row.solved_steps = row.evaluations, row.plant_steps
        if t.stop and row.solved_steps >= 0:
            # What was asked is not learnt from, so it does not count.
            self.done = True
            return
        self.search.tell(cost[:size].mean(dim=1))
        row.evaluations, row.plant_steps = self.search.evaluations, row.plant_steps + int(steps[:size].sum())
        self.done = row.plant_steps >= t.plant_steps

    def rivals(self) -> Tensor:
        """The search's centre and its confirmed best, between which deployment chooses."""
        return torch.stack([self.search.incumbent, self.search.champion.x])


def run_cell(
    task: Task,
    policy: str,
    hidden: tuple[int, ...],
    searches: Sequence[str],
    seeds: Sequence[int],
    report: Callable[[float, str], None] = lambda fraction, text: None,
    make: Callable[[str], Search[Any]] = make_search,
) -> list[Row]:
    """All runs of one policy on one task, to their ends.

    Args:
        task: The task.
        policy: Name of the policy.
        hidden: Its widths.
        searches: Names of searches.
        seeds: Seeds of each.
        report: Called after every generation with a fraction in 0..1 and a short text.
        make: Makes a search from its name.
    """
    probe = make_simulator(task.plant, 1).problem
    network = build_policy(policy, probe.ny, probe.actions.m, hidden, 0)
    threshold = _half_of_nothing(task) if task.threshold is None else task.threshold
    starts = {seed: (*_explored(task, seed), probe, threshold) for seed in seeds}
    runs = [
        _Run(task, policy, hidden, search, make(search), seed, starts[seed]) for search in searches for seed in seeds
    ]
    while going := [run for run in runs if not run.done]:
        _generation(task, network, going)
        spent = sum(min(r.row.plant_steps / task.plant_steps, 1.0) if not r.done else 1.0 for r in runs)
        report(spent / len(runs), f"{task.name}, {policy}: {len(going)} runs")
    _finish(task, network, runs)
    return [run.row for run in runs]


def _explored(task: Task, seed: int) -> tuple[Tensor, Tensor, int]:
    data = collect(make_simulator(task.plant, task.explore), HeldLevels(), episodes=task.explore, seed=seed + 1)
    mean, std = spread(data.y[:, :-1][data.valid].double())
    return mean, std, data.steps


def _half_of_nothing(task: Task) -> float:
    simulator = make_simulator(task.plant, task.held_out)
    idle = simulator.actions.neutral(simulator.n, torch.zeros(1, dtype=simulator.dtype))
    bank = simulator.scenarios(noise.fold(noise.keys(0, task.held_out), _HELD_OUT))
    return float(task.offset - 0.5 * run_episodes(simulator, bank, lambda m: idle).cost.mean())


def _generation(task: Task, network: Policy, runs: list[_Run]) -> None:
    asked = [run.ask() for run in runs]
    sizes = [len(vectors) for vectors, _ in asked]
    cost, steps = _roll(task, network, runs, asked, sizes, task.scenarios)
    for run, c, s in zip(runs, torch.split(cost, sizes), torch.split(steps, sizes), strict=True):
        run.tell(c, s)


def _finish(task: Task, network: Policy, runs: list[_Run]) -> None:
    """The better of centre and confirmed best on fresh scenarios, which count, and its return on others."""
    count = 4 * task.scenarios
    asked = [(run.rivals(), noise.fold(noise.keys(run.seed, count), _VALIDATE).repeat(2)) for run in runs]
    cost, steps = _roll(task, network, runs, asked, [2] * len(runs), count)
    chosen = [
        vectors[int(c.mean(dim=1).argmin())][None] for (vectors, _), c in zip(asked, torch.split(cost, 2), strict=True)
    ]
    for run, s in zip(runs, torch.split(steps, 2), strict=True):
        run.row.plant_steps += int(s.sum())
    key = noise.fold(noise.keys(1, task.final), _FINAL)
    cost, _ = _roll(task, network, runs, [(x, key) for x in chosen], [1] * len(runs), task.final)
    for run, c in zip(runs, cost, strict=True):
        run.row.final = float(task.offset - c.mean())


def _roll(
    task: Task, network: Policy, runs: list[_Run], asked: list[tuple[Tensor, Tensor]], sizes: list[int], count: int
) -> tuple[Tensor, Tensor]:
    keys = torch.cat([key for _, key in asked])
    many = torch.tensor(sizes)
    mean, std = (
        torch.stack([getattr(run, name) for run in runs]).repeat_interleave(many, 0) for name in ("mean", "std")
    )
    simulator: Simulator = make_simulator(task.plant, len(keys))
    members = Population(network, torch.cat([v for v, _ in asked]), mean, std, simulator.actions)
    # Starts can be costly and members share them: each is drawn once.
    unique, place = torch.unique(keys, return_inverse=True)
    bank = make_simulator(task.plant, len(unique)).scenarios(unique).index(place)
    found = roll_out(members, simulator, bank)
    return found.cost.reshape(len(mean), count), found.plant_steps
