"""Sampling model-predictive control: MPPI and CEM over any model, batched over episodes, warm-started."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from steersman.controllers.base import Controller, Decision, Outcome
from steersman.controllers.plan import BUDGET, PlanCost, check_terms
from steersman.controllers.planning.sampled import Sampled, coloured, growing, led
from steersman.controllers.risk import RiskName, risk_measure
from steersman.dynamics.base import Dynamics, Hidden
from steersman.envs import noise
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import Count, NotNegative, Positive, Whole
from steersman.envs.simulator import Measurement
from steersman.envs.tree import tree_index

BLOCK = 2048
"""Rollouts that are predicted together on a CPU."""
FIRST = 15
"""Each stage of the search for a new plan has so many times the rounds of a plan that is only moved on."""
SHORTEST = 3
"""Most free actions of the first plans that grow."""
WIDE = 0.25
"""Share of the samples that are drawn with the largest spread whatever the plan's is: another valley may be deeper."""
NARROWEST = 1e-2
"""Smallest spread of draws, relative to the largest: what is left to find out that the best plan has moved."""

Planner = TypeVar("Planner", bound="SamplingMPC")


@dataclass(eq=False, repr=False)
class SamplingMPC(Controller, ABC):
    """Plans by drawing action sequences around the last plan, rolling them out and re-weighting.

    A plan has ``knots`` free actions, each held for ``horizon / knots`` steps. All samples of all rows are rolled
    out as one batch. Each sample is projected on the action set *before* it is rolled out, so integer and one-hot
    actions are planned as they will be applied. Draws are correlated along the plan (``colour``). Between control
    steps the plan and the spread of its draws move on by one step; the spread is that of the good samples about the
    plan they were drawn around, so it narrows where the plan is right and widens where the best plan has moved away.

    A new plan is searched for twice: at its whole length, which sees far, and from a few steps on in stages of twice
    the length, which does not drown in what long draws do to an unstable plant. The cheaper one is followed. This
    takes about three times the predictions of the whole length alone.

    Attributes:
        horizon: Control steps that a plan looks ahead.
        samples: Sequences drawn for each row and iteration.
        iterations: Rounds of drawing per control step.
        knots: Free actions of a plan; 0 means one per step. Must divide the horizon.
        spread: Largest standard deviation, relative to half the range of each action (1 where unbounded).
        doubt: Cost of leaving the model's data: times the model's doubt above 1, each step.
        penalty: Price of a unit of soft-constraint violation in a plan, at each step.
        particles: Draws of a model's noise for each sample, the same for all samples of a row; with 1, each sample
            meets disturbances of its own where the model draws them, and what is expected where it takes them.
        colour: Exponent of the draws' spectrum ``f^-colour`` along the plan (Pinneri et al. 2020): 0 is white.
        risk: What the costs of a sample's particles come to: their mean, that of the worst ones, or the worst.
        tail: Share of the particles that are the worst ones.

    Subclasses say which samples are good.
    """

    horizon: Count = 16
    samples: Count = 64
    iterations: Count = 2
    knots: Whole = 0
    spread: Positive = 0.5
    doubt: NotNegative = 0.0
    penalty: NotNegative = 0.0
    particles: Count = 1
    colour: NotNegative = 0.5
    risk: RiskName = field(default="mean", kw_only=True)
    tail: float = field(default=0.25, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        risk_measure(self.risk, self.tail)
        if self.horizon % self._free:
            raise ValueError(f"knots must divide the horizon {self.horizon}, got {self.knots}")
        self.preview = self.horizon

    @property
    def _free(self) -> int:
        """Free actions of a plan."""
        return self.knots or self.horizon

    def bind(self: Planner, problem: ControlProblem, model: Dynamics | None = None) -> Planner:
        """Attach problem and model.

        Raises:
            ValueError: Without a model, with an objective that has no terms to predict, or with one that only has
                terms at the end of the episode, which plans of this horizon do not reach.
        """
        if model is None:
            raise ValueError(f"{self.name} plans with a model; give it one, for example 'neural' or 'truth'")
        check_terms(self.name, problem, self.horizon)
        super().bind(problem, model)
        self._cost = PlanCost(problem, self.doubt, self.penalty, self.particles, self.risk, self.tail)
        lower, upper = (torch.tensor(b, dtype=torch.float64) for b in (problem.actions.lower, problem.actions.upper))
        half = (upper - lower) / 2
        self._widest = self.spread * torch.where(torch.isfinite(half), half, 1.0)
        self._shape = coloured(self._free, self.colour)
        stages = growing(self._free, SHORTEST)
        stages = [self._free, *stages] if len(stages) > 1 else stages
        self._lengths = [length for length in stages for _ in range(FIRST * self.iterations)]
        return self

    def reset(self, n: int, mask: Bool[Tensor, "n"] | None = None, *, gen: torch.Generator | None = None) -> None:
        """Forget plans and windows, of the masked rows if a mask is given."""
        super().reset(n, mask, gen=gen)
        if mask is None:
            self._state: Sampled | None = None
        elif self._state is not None:
            self._state.restart(mask)

    @torch.no_grad()
    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        """Refine the plans for ``iterations`` rounds, new ones for more, or until the time is over (then: incumbent).

        A row in which every prediction fails keeps its shifted plan.
        """
        until = None if budget_s is None else time.perf_counter() + BUDGET * budget_s
        h = self.believe(m).hidden
        if self._state is None or len(self._state.mean) != m.n:
            self._state = self._start(m)
        state = self._state
        state.begin()
        untried = torch.where(state.fresh, int(Outcome.NEUTRAL), int(Outcome.SHIFTED))
        outcome = self._search(state, h, m, until)
        state.settle()
        plan = self._choose(state.mean, state.best)
        code = torch.where(torch.isfinite(state.cost), int(outcome), untried).to(torch.uint8)
        self._plan = plan
        state.end(plan, self._hold)
        return Decision(plan[:, 0], code)

    @property
    def plan(self) -> Float[Tensor, "n horizon m"]:
        """The last plan of each row, one action per control step.

        Raises:
            RuntimeError: Before the first decision of an episode.
        """
        if self._state is None:
            raise RuntimeError("there is no plan yet; call act first")
        return self._plan.repeat_interleave(self._hold, dim=1)

    # ------------------------------------------------------------------ what subclasses decide

    @abstractmethod
    def _weights(self, cost: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Shares of the samples in the next plan, by their costs (``inf`` for failed predictions).

        They add up to 1 in each row, or to 0 where no prediction is finite.
        """

    @abstractmethod
    def _choose(self, mean: Float[Tensor, "n j m"], best: Float[Tensor, "n j m"]) -> Float[Tensor, "n j m"]:
        """The plan to follow: the mean, or the best sample seen."""

    # ------------------------------------------------------------------ the shared part

    @property
    def _planner(self) -> Dynamics:
        assert self.model is not None  # noqa: S101 - bind has seen to it
        return self.model

    @property
    def _hold(self) -> int:
        return self.horizon // self._free

    def _start(self, m: Measurement) -> Sampled:
        """The neutral plan in each row, with the widest spread."""
        mean = self.problem.actions.neutral(m.n, m.y)[:, None].expand(-1, self._free, -1)
        seed = int(torch.randint(2**62, (1,), generator=self._gen))
        return Sampled(mean, self._widest.to(mean).expand_as(mean), noise.keys(seed, m.n, device=mean.device))

    def _search(self, state: Sampled, h: Hidden, m: Measurement, until: float | None) -> Outcome:
        """All rounds of a decision, those for new plans in stages of different length."""
        rounds = torch.where(state.fresh, len(self._lengths), self.iterations)
        slowest = 0.0
        for i, length in enumerate(self._lengths[: int(rounds.max())]):
            began = time.perf_counter()
            if until is not None and i and began + slowest > until:
                return Outcome.INCUMBENT
            at = (rounds > i).nonzero().flatten()
            if length != state.length:
                state.search_on(at, length)
            try:
                self._round(state, at, h, m, until)
            except TimeoutError:
                return Outcome.INCUMBENT
            slowest = max(slowest, time.perf_counter() - began)
        return Outcome.OPTIMAL

    def _round(self, state: Sampled, at: Int64[Tensor, "k"], h: Hidden, m: Measurement, until: float | None) -> None:
        """Draw, predict and re-weight once in the rows ``at``."""
        mean, std = state.mean[at, : state.length], state.std[at, : state.length]
        knots = self._draw(mean, std, state.keys(at))
        cost = self._costs(tree_index(h, at), knots, m.rows(at), until)
        weight = self._weights(cost)
        # The spread is that about the old mean (as in CMA-ES): it grows where good samples lie to one side of it.
        square = torch.einsum("nk,nkjm->njm", weight, (knots - mean[:, None]).square())
        widest = self._widest.to(std)
        narrowed = torch.minimum(square.sqrt(), widest).clamp(min=NARROWEST * widest)
        found = (weight.sum(dim=1) > 0)[:, None, None]
        state.mean = led(state.mean, at, torch.where(found, torch.einsum("nk,nkjm->njm", weight, knots), mean))
        state.std = led(state.std, at, torch.where(found, narrowed, std))
        lowest, index = cost.min(dim=1)
        state.offer(at, knots[torch.arange(len(at), device=at.device), index], lowest)

    def _draw(self, mean: Tensor, std: Tensor, key: Int64[Tensor, "n"]) -> Float[Tensor, "n k j m"]:
        """Samples, projected; the first of them is the mean itself."""
        _, j, width = mean.shape
        unit = noise.normal(key, self.samples, j, width, dtype=mean.dtype)
        unit[:, 0] = 0.0
        spread = std[:, None].expand(unit.shape).clone()
        wide = round(WIDE * self.samples)
        spread[:, self.samples - wide :] = self._widest.to(std)
        drawn = mean[:, None] + spread * torch.einsum("ij,nkjm->nkim", self._shape[:j, :j].to(mean), unit)
        return self.problem.actions.project(drawn.reshape(-1, width)).reshape(drawn.shape)

    def _costs(self, h: Hidden, knots: Tensor, m: Measurement, until: float | None = None) -> Float[Tensor, "n k"]:
        """Costs of all samples; on a CPU in blocks of rows, whose rollouts stay in the cache."""
        rows = m.n if knots.device.type != "cpu" else max(1, BLOCK // (self.samples * self.particles))
        if rows >= m.n:
            return self._predicted(h, knots, m, until)
        blocks = torch.arange(m.n).split(rows)  # type: ignore[no-untyped-call]
        return torch.cat([self._predicted(tree_index(h, at), knots[at], m.rows(at), until) for at in blocks])

    def _predicted(self, h: Hidden, knots: Tensor, m: Measurement, until: float | None) -> Float[Tensor, "n k"]:
        n, k = knots.shape[:2]
        U = knots.repeat_interleave(self._hold, dim=2).flatten(0, 1)
        rows = torch.arange(n, device=U.device).repeat_interleave(k)
        # One draw of the noise for a sample, or the same few for all samples of a row: chance must not choose plans.
        h = self._planner.branch(h, k) if self.particles == 1 else tree_index(h, rows)
        cost = self._cost.through(self._planner, h, U, m.blind().rows(rows), until)
        return torch.where(torch.isfinite(cost), cost, torch.inf).reshape(n, k)


@dataclass(eq=False, repr=False)
class MPPI(SamplingMPC):
    """Model-predictive path integral control (Williams et al. 2017): a softmax-weighted mean of the samples.

    The temperature is relative to what the best sample of a row is ahead of the best eighth, so it needs no retuning
    per plant, and failures with a high price among the others do not blunt it.

    Attributes:
        temperature: Of the softmax, relative to the lead of the best sample over the best eighth.
    """

    name = "mppi"

    temperature: Positive = 0.1

    def _weights(self, cost: Tensor) -> Tensor:
        finite = torch.isfinite(cost)
        low = cost.amin(dim=1, keepdim=True)
        excess = torch.where(finite, cost - low, 0.0)
        ahead = torch.where(finite, cost - low, torch.inf).kthvalue(1 + (self.samples - 1) // 8, dim=1, keepdim=True)
        scale = torch.where(torch.isfinite(ahead.values), ahead.values, excess.amax(dim=1, keepdim=True))
        weight = torch.where(finite, torch.exp(-excess / (self.temperature * scale + 1e-12)), 0.0)
        return weight / weight.sum(dim=1, keepdim=True).clamp(min=1e-12)

    def _choose(self, mean: Tensor, best: Tensor) -> Tensor:
        return mean


@dataclass(eq=False, repr=False)
class CEM(SamplingMPC):
    """Cross-entropy method (Rubinstein 1999; as a planner, Pinneri et al. 2020): refit to the elites, keep the best.

    Elites weigh by their rank, ``ln(elites + 1/2) - ln(rank)``, as in CMA-ES (Hansen, Ostermeier 2001).

    Attributes:
        elites: Samples that the mean and the spread are refitted to; an eighth of them by default.
    """

    name = "cem"

    iterations: Count = 3
    elites: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.elites is not None and self.elites > self.samples:
            raise ValueError(f"elites must lie in 1 .. samples ({self.samples}), got {self.elites}")

    def _weights(self, cost: Tensor) -> Tensor:
        count = self.elites or max(1, self.samples // 8)
        chosen = cost.topk(count, dim=1, largest=False)
        rank = torch.arange(1, count + 1, device=cost.device).to(cost)
        share = torch.where(torch.isfinite(chosen.values), math.log(count + 0.5) - rank.log(), 0.0)
        share = share / share.sum(dim=1, keepdim=True).clamp(min=1e-12)
        return torch.zeros_like(cost).scatter(1, chosen.indices, share)

    def _choose(self, mean: Tensor, best: Tensor) -> Tensor:
        return best
