"""The exact optimum of a few integer decisions: every sequence of them is rolled out through the model."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steersman.controllers.base import Controller, Decision, Outcome
from steersman.controllers.plan import BUDGET, PlanCost, Plans
from steersman.dynamics.base import Dynamics, Hidden
from steersman.dynamics.estimation.base import Belief
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import Count
from steersman.envs.simulator import Measurement
from steersman.envs.tree import tree_index

BATCH = 4096
"""Rollouts that are stepped at once."""


@dataclass(eq=False, repr=False)
class Enumeration(Controller):
    """Rolls out every sequence of the first decisions, followed by the neutral action, and plays the best one.

    With the plant itself ("truth") of a deterministic task with integer actions it is the oracle that others are
    measured against. One plan is made when an episode begins; where the time limit of a decision ends the search, the
    best sequence so far is played and called an incumbent. Where none was tried by then, the next step tries again.

    Attributes:
        length: Decisions that are enumerated.
        sequences: Largest number of sequences.
    """

    name = "enumeration"

    length: Count = 10
    sequences: Count = 1 << 14

    def bind(self, problem: ControlProblem, model: Dynamics | None = None) -> Enumeration:
        """Attach the model.

        Raises:
            ValueError: Without a model, for continuous actions, or for more sequences than the limit.
        """
        if model is None:
            raise ValueError("enumeration needs a model; give it one, for example 'truth'")
        if not problem.actions.discrete:
            raise ValueError("enumeration needs integer actions; use adjoint or a sampling controller")
        super().bind(problem, model)
        self.preview, self._cost = problem.horizon, PlanCost(problem)
        levels = problem.actions.levels
        grid = torch.cartesian_prod(*(torch.arange(count) for count in levels)).reshape(-1, len(levels))
        self._choices = problem.actions.decode(grid)
        count = len(self._choices) ** min(self.length, problem.horizon)
        if count > self.sequences:
            raise ValueError(f"{count:,} sequences exceed the limit of {self.sequences:,}; lower length={self.length}")
        return self

    def reset(self, n: int, mask: Bool[Tensor, "n"] | None = None, *, gen: torch.Generator | None = None) -> None:
        """Drop the plans, or those of the masked rows."""
        super().reset(n, mask, gen=gen)
        if mask is None:
            self._plans: Plans | None = None
        elif self._plans is not None:
            self._plans.drop(mask)

    @torch.no_grad()
    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        """See :class:`~steersman.controllers.base.Controller`."""
        until = None if budget_s is None else time.perf_counter() + BUDGET * budget_s
        belief = self.believe(m)
        if self._plans is None or len(self._plans.u) != m.n:
            self._plans = Plans.none(self.problem.actions.neutral(m.n, m.y), self.problem.horizon)
        due = self._plans.due(m)
        ahead = (self.problem.horizon - m.k).clamp(min=1)
        for left in sorted(set(ahead[due].tolist())):
            rows = due & (ahead == left)
            plan, lowest, code = self._best(belief.rows(rows.nonzero().flatten()), left, until)
            priced = torch.isfinite(lowest)
            outcome = torch.where(priced, int(code), int(Outcome.NEUTRAL)).to(torch.uint8)
            self._plans.put(rows, plan, torch.full_like(outcome, left, dtype=torch.int64), outcome, priced)
        return Decision(*self._plans.next())

    @property
    def _planner(self) -> Dynamics:
        return cast(Dynamics, self.model)

    def _best(
        self, belief: Belief, left: int, until: float | None
    ) -> tuple[Float[Tensor, "n h m"], Float[Tensor, "n"], Outcome]:
        """The best sequence of each row, with the neutral action to the end, its cost, and whether all were tried."""
        m, length, choices = belief.now, min(self.length, left), len(self._choices)
        h, count, code = belief.hidden, choices**length, Outcome.OPTIMAL
        rest = self.problem.actions.neutral(m.n, m.y)[:, None].expand(-1, left, -1)
        best, share = rest.clone(), max(1, BATCH // m.n)
        lowest = torch.full((m.n,), torch.inf, dtype=m.y.dtype, device=m.y.device)
        for first in range(0, count, share):
            number = torch.arange(first, min(first + share, count), device=m.y.device)
            digits = number[:, None] // choices ** torch.arange(length - 1, -1, -1, device=m.y.device) % choices
            U = torch.cat([self._choices.to(m.y)[digits], rest[:1, length:].expand(len(digits), -1, -1)], dim=1)
            try:
                cost = self._costs(h, m, U, until)
            except TimeoutError:
                code = Outcome.INCUMBENT
                break
            value, which = cost.min(dim=1)
            better = value < lowest
            best = torch.where(better[:, None, None], U[which], best)
            lowest = torch.where(better, value, lowest)
        return best, lowest, code

    def _costs(self, h: Hidden, m: Measurement, U: Float[Tensor, "s h m"], until: float | None) -> Float[Tensor, "n s"]:
        """Cost of each sequence in each row, to the end of the episode."""
        rows = torch.arange(m.n, device=m.y.device).repeat_interleave(len(U))
        cost = self._cost.through(self._planner, tree_index(h, rows), U.repeat(m.n, 1, 1), m.blind().rows(rows), until)
        return cost.nan_to_num(torch.inf).reshape(m.n, len(U))
