"""The exact optimum of a few integer decisions: every sequence of them is rolled out through the model."""

from __future__ import annotations

import time
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steersman.controllers.base import Controller, Decision, Memory, Outcome
from steersman.dynamics.base import Dynamics, Hidden
from steersman.envs.plant import ControlProblem
from steersman.envs.simulator import Measurement
from steersman.envs.tree import tree_index, tree_map

BATCH = 4096
"""Rollouts that are stepped at once."""


class Enumeration(Controller):
    """Rolls out every sequence of the first decisions, followed by the neutral action, and plays the best one.

    With the plant itself ("truth") of a deterministic task with integer actions it is the oracle that others are
    measured against. One plan is made when an episode begins; where the time limit of a decision ends the search, the
    best sequence so far is played and called an incumbent.
    """

    name = "enumeration"

    def __init__(self, length: int = 10, sequences: int = 1 << 14) -> None:
        """Store the settings.

        Args:
            length: Decisions that are enumerated.
            sequences: Largest number of sequences.

        Raises:
            ValueError: If a number is below 1.
        """
        for setting, value in (("length", length), ("sequences", sequences)):
            if value < 1:
                raise ValueError(f"{setting} must be at least 1, got {value}")
        self.length, self.sequences = length, sequences

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
        levels = problem.actions.levels
        grid = torch.cartesian_prod(*(torch.arange(count) for count in levels)).reshape(-1, len(levels))
        self._choices = problem.actions.decode(grid)
        count = len(self._choices) ** min(self.length, problem.horizon)
        if count > self.sequences:
            raise ValueError(f"{count:,} sequences exceed the limit of {self.sequences:,}; lower length={self.length}")
        return self

    def reset(self, n: int, mask: Bool[Tensor, "n"] | None = None, *, gen: torch.Generator | None = None) -> None:
        """Drop the plan."""
        super().reset(n, mask, gen=gen)
        self._memory = Memory(cast(Dynamics, self.model).context)
        self._plan: Tensor | None = None
        self._outcome: Tensor | None = None
        self._age = 0

    @torch.no_grad()
    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        """See :class:`~steersman.controllers.base.Controller`."""
        window = self._memory.push(m)
        if self._plan is None or len(self._plan) != m.n:
            left = max(1, self.problem.horizon - int(m.k.max()))
            self._plan, self._outcome = self._best(cast(Dynamics, self.model).init(window), m, left, budget_s)
            self._age = 0
        u = self.problem.actions.neutral(m.n, m.y)
        if self._age < self._plan.shape[1]:
            u = self._plan[:, self._age].to(m.y)
        self._age += 1
        assert self._outcome is not None  # noqa: S101 - made with the plan
        return Decision(u, self._outcome)

    def _best(
        self, h: Hidden, m: Measurement, left: int, budget_s: float | None
    ) -> tuple[Float[Tensor, "n h m"], Tensor]:
        """The best sequence of each row, and whether all were tried."""
        start, length, choices = time.perf_counter(), min(self.length, left), len(self._choices)
        count, late = choices**length, False
        best = self.problem.actions.neutral(m.n, m.y)[:, None].expand(-1, length, -1).clone()
        lowest = torch.full((m.n,), torch.inf, dtype=m.y.dtype, device=m.y.device)
        share = max(1, BATCH // m.n)
        for first in range(0, count, share):
            if first and budget_s is not None and time.perf_counter() - start > 0.4 * budget_s:
                late = True
                break
            number = torch.arange(first, min(first + share, count), device=m.y.device)
            digits = number[:, None] // choices ** torch.arange(length - 1, -1, -1, device=m.y.device) % choices
            U = self._choices.to(m.y)[digits]
            cost = self._cost(h, m, U, left)
            value, which = cost.min(dim=1)
            better = value < lowest
            best = torch.where(better[:, None, None], U[which], best)
            lowest = torch.where(better, value, lowest)
        outcome = Outcome.INCUMBENT if late else Outcome.OPTIMAL
        return best, torch.full((m.n,), int(outcome), dtype=torch.uint8, device=m.y.device)

    def _cost(self, h: Hidden, m: Measurement, U: Float[Tensor, "s h m"], left: int) -> Float[Tensor, "n s"]:
        """Cost of each sequence in each row, to the end of the episode."""
        model, objective, s = cast(Dynamics, self.model), self.problem.objective, len(U)
        rows = torch.arange(m.n, device=m.y.device).repeat_interleave(s)
        state = tree_index(h, rows) if isinstance(h, Tensor) else tree_map(lambda leaf: leaf[rows], h)
        plan = torch.cat([U, self.problem.actions.neutral(s, U)[:, None].expand(-1, left - U.shape[1], -1)], dim=1)
        plan = plan.repeat(m.n, 1, 1)
        last, references = int(m.k.max()) + left >= self.problem.horizon, m.references(left)[rows]
        total, u_prev, r = torch.zeros(len(rows), dtype=m.y.dtype, device=m.y.device), m.u_prev[rows], m.r[rows, 0]
        lost = torch.zeros_like(total, dtype=torch.bool)
        # As the simulator counts, not as receding horizons do: the cost of a step is that of the state before it.
        for j in range(left):
            stage = objective.stage_cost(model.output(state)[1], plan[:, j], plan[:, j] - u_prev, r)
            state = model.step(state, plan[:, j])
            failing = model.failing(state)
            now = lost if failing is None else failing
            total = total + torch.where(lost, 0.0, stage) + now * objective.failure
            lost, u_prev, r = now, plan[:, j], references[:, j]
        end = objective.terminal_cost(model.output(state)[1], r) if last else 0.0
        return (total + torch.where(lost, 0.0, end)).nan_to_num(torch.inf).reshape(m.n, s)
