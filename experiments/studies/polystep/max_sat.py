"""MAX-SAT near the threshold of satisfiability: PolyStep and rivals on relaxed variables, rounded by their signs.

Random instances of three literals a clause at 4.27 clauses a variable, where they are hardest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from steersman.experiments.comparison.cell import Cell, Report
from steersman.optimizers.base import Search
from steersman.optimizers.registry import make_search
from steersman.optimizers.search import minimise

RATIO = 4.27
BUDGETS = {100: 50_000, 1000: 100_000, 5000: 200_000}
"""Evaluations of each run, by the number of variables."""
SEEDS = (0, 1, 2)
"""Instances of each size."""
_BYTES = 1 << 25
"""Truth values held at once."""

METHODS: dict[str, tuple[str, dict[str, Any], int]] = {
    "PolyStep, whole vector": ("frame_step", {"directions": 32}, 1 << 40),
    "PolyStep, block-wise": ("polystep", {}, 5000),
    "CMA-ES": ("cma_es", {"size": 64, "covariance": "diagonal"}, 10_000),
    "OpenAI-ES": ("openai_es", {"size": 64, "sigma": 0.3, "rate": 0.02}, 1 << 40),
    "ARS": ("ars", {"directions": 32, "top": 16}, 1 << 40),
    "SPSA": ("spsa", {"pairs": 32}, 1 << 40),
    "random": ("random", {"size": 64}, 1 << 40),
}
"""Search, settings, and the most variables it is run with. Both PolySteps keep their defaults but for the population,
which is about 64 for all that have one; the rivals' settings are the best of a few on another instance of 1,000
variables, CMA-ES adapts a diagonal because a full covariance of 5,000 variables takes minutes a generation."""


@dataclass(frozen=True)
class Run:
    """One search on one instance.

    Attributes:
        method: Key of ``METHODS``.
        variables: Number of variables.
        seed: Seed of instance, start and search.
        satisfied: Clauses that the best point satisfies, %.
        evaluations: Points evaluated.
        seconds: CPU time of the run.
        curve: Evaluations and clauses satisfied by the best point up to then, %, some fifty of them.
    """

    method: str
    variables: int
    seed: int
    satisfied: float
    evaluations: int
    seconds: float
    curve: tuple[tuple[int, float], ...]


class Formula:
    """A random formula and the share of its clauses that rounded points leave unsatisfied."""

    def __init__(self, variables: int, seed: int, device: str = "cpu") -> None:
        """Draw ``round(4.27 variables)`` clauses of three different variables, each negated with probability 1/2.

        Raises:
            ValueError: If there are fewer than three variables.
        """
        if variables < 3:
            raise ValueError(f"variables must be at least 3, got {variables}: a clause has three different ones")
        gen = torch.Generator().manual_seed(seed)
        self.variables, self.clauses = variables, round(RATIO * variables)
        found = torch.randint(variables, (3, self.clauses), generator=gen)
        while bool((twice := _repeats(found)).any()):
            found[:, twice] = torch.randint(variables, (3, int(twice.sum())), generator=gen)
        negated = torch.randint(2, (3, self.clauses), generator=gen)
        self.literals: Int64[Tensor, "3 clauses"] = (found + variables * negated).to(device)

    def unsatisfied(self, x: Float[Tensor, "pop variables"]) -> Float[Tensor, "pop"]:
        """Share of unsatisfied clauses of each row, positive entries being true.

        A clause's three literals are gathered for many rows at once: rows lie innermost, so that a gather copies
        whole lines of memory.
        """
        rows = max(1, min(512, _BYTES // (2 * self.variables + self.clauses)))
        return torch.cat([self._count(part) for part in torch.split(x, rows)]).double() / self.clauses

    def _count(self, x: Tensor) -> Tensor:
        true = (x > 0).T.to(torch.uint8)
        truth = torch.cat([true, 1 - true])
        satisfied = truth[self.literals[0]]
        satisfied |= truth[self.literals[1]]
        satisfied |= truth[self.literals[2]]
        left: Tensor = self.clauses - satisfied.sum(dim=0, dtype=torch.int64)
        return left


def _repeats(clauses: Tensor) -> Tensor:
    a, b, c = clauses
    twice: Tensor = (a == b) | (b == c) | (a == c)
    return twice


@dataclass(frozen=True)
class Solve(Cell):
    """One run from a start in ``[-0.5, 0.5]^n`` that all methods share.

    The cost has no noise, so single costs are trusted and no evaluations are spent on confirming them.

    Attributes:
        method: Key of ``METHODS``.
        variables: Number of variables.
        budget: Evaluations.
        seed: Seed of instance, start and search.
        device: Where clauses are evaluated.
    """

    row: ClassVar[type] = Run
    title: ClassVar[str] = "{method}, {variables:,} variables, seed {seed}"
    method: str
    variables: int
    budget: int
    seed: int
    device: str = "cpu"

    def run(self, report: Report) -> list[Run]:
        """See :class:`Cell`."""
        formula = Formula(self.variables, self.seed, self.device)
        kind, options, _ = METHODS[self.method]
        start = time.process_time()
        gen = torch.Generator().manual_seed(self.seed)
        x0 = (torch.rand(formula.variables, generator=gen) - 0.5).to(formula.literals.device)
        search: Search[Any] = make_search(kind, confirmations=0, **options).start(x0, seed=self.seed)
        found = minimise(search, lambda x, generation: formula.unsatisfied(x), budget_evaluations=self.budget)
        every = max(1, len(found.history) // 50)
        kept = (*found.history[:-1:every], found.history[-1])
        curve = tuple((line.evaluations, 100 * (1 - line.best)) for line in kept)
        seconds = time.process_time() - start
        return [Run(self.method, self.variables, self.seed, curve[-1][1], found.evaluations, seconds, curve)]


SCALABLE = ("PolyStep, whole vector", "OpenAI-ES", "ARS")
LARGE = {
    100_000: "a GPU, not measured; one thread of a CPU takes 6 to 9 ms an evaluation, 35 hours for all",
    1_000_000: "a GPU, not measured; one thread of a CPU takes 0.2 s an evaluation, two weeks for all",
}
"""Sizes for a GPU, with a tenth of the published evaluations or less, and what they take."""


def solves(budgets: Mapping[int, int] = BUDGETS, seeds: Sequence[int] = SEEDS) -> list[Solve]:
    """All runs of some sizes, each with its budget."""
    return [
        Solve(method, size, budget, seed)
        for size, budget in budgets.items()
        for seed in seeds
        for method, (_, _, most) in METHODS.items()
        if size <= most
    ]


def large() -> list[Solve]:
    """Runs for a GPU."""
    return [
        Solve(method, size, 2_000_000, seed, "cuda")
        for size in LARGE
        for seed in (SEEDS if size == 100_000 else SEEDS[:1])
        for method in SCALABLE
    ]
