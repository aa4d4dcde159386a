"""Sampling model-predictive control: MPPI and CEM over any model, batched over episodes, warm-started."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steersman.controllers.base import Controller, Decision, Memory, Outcome
from steersman.dynamics.base import Dynamics, Hidden
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import at_least, positive
from steersman.envs.simulator import Measurement
from steersman.envs.tree import tree_index, tree_map

BLOCK = 2048
"""Rollouts that are predicted together on a CPU."""

Planner = TypeVar("Planner", bound="SamplingMPC")


class SamplingMPC(Controller, ABC):
    """Plans by drawing action sequences around the last plan, rolling them out and re-weighting.

    A plan has ``knots`` free actions, each held for ``horizon / knots`` steps. All samples of all rows are rolled
    out as one batch. Each sample is projected on the action set *before* it is rolled out, so integer and one-hot
    actions are planned as they will be applied. Between control steps the plan moves on by one step.

    Subclasses say how the mean and the spread of the draws follow from the costs.
    """

    def __init__(
        self,
        horizon: int = 16,
        samples: int = 64,
        iterations: int = 2,
        knots: int = 0,
        spread: float = 0.5,
        doubt: float = 0.0,
    ) -> None:
        """Store the settings.

        Args:
            horizon: Control steps that a plan looks ahead.
            samples: Sequences drawn for each row and iteration.
            iterations: Rounds of drawing per control step.
            knots: Free actions of a plan; 0 means one per step. Must divide the horizon.
            spread: Initial standard deviation, relative to half the range of each action (1 where unbounded).
            doubt: Cost of leaving the model's data: times the model's doubt above 1, each step.

        Raises:
            ValueError: If a number is out of range, or ``knots`` does not divide the horizon.
        """
        at_least(1, horizon=horizon, samples=samples, iterations=iterations)
        at_least(0, doubt=doubt)
        positive(spread=spread)
        if knots < 0 or horizon % (knots or 1):
            raise ValueError(f"knots must divide the horizon {horizon}, got {knots}")
        self.horizon, self.samples, self.iterations = horizon, samples, iterations
        self.knots, self.spread, self.doubt = knots or horizon, spread, doubt
        self.preview = horizon

    def bind(self: Planner, problem: ControlProblem, model: Dynamics | None = None) -> Planner:
        """Attach problem and model.

        Raises:
            ValueError: Without a model, or with an objective that has no terms to predict.
        """
        if model is None:
            raise ValueError(f"{self.name} plans with a model; give it one, for example 'neural' or 'truth'")
        if not problem.objective.stage:
            raise ValueError(
                f"{self.name} needs an objective written in the outputs, but this environment only returns rewards; "
                "state an objective in the comparison file"
            )
        super().bind(problem, model)
        lower, upper = (torch.tensor(b, dtype=torch.float64) for b in (problem.actions.lower, problem.actions.upper))
        half = (upper - lower) / 2
        self._half = torch.where(torch.isfinite(half), half, 1.0)
        return self

    def reset(self, n: int, mask: Bool[Tensor, "n"] | None = None, *, gen: torch.Generator | None = None) -> None:
        """Forget plans and windows."""
        super().reset(n, mask, gen=gen)
        if mask is None:
            self._memory = Memory(self._planner.context)
            self._plan: Tensor | None = None
        else:
            self._memory.clear(mask)
            if self._plan is not None:
                neutral = self.problem.actions.neutral(n, self._plan)
                self._plan = torch.where(mask[:, None, None], neutral[:, None], self._plan)

    @torch.no_grad()
    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        """Refine the plan for ``iterations`` rounds, or until the time is over (then it is an incumbent).

        A row in which every prediction fails keeps its shifted plan.
        """
        start = time.perf_counter()
        h = self._planner.init(self._memory.push(m))
        mean = self._shifted(m)
        std = (self.spread * self._half.to(mean)).expand(m.n, self.knots, -1)
        best, best_cost = mean, torch.full((m.n,), torch.inf, dtype=mean.dtype, device=mean.device)
        outcome, slowest = Outcome.OPTIMAL, 0.0
        for i in range(self.iterations):
            began = time.perf_counter()
            if budget_s is not None and i and began - start + slowest > budget_s:
                outcome = Outcome.INCUMBENT
                break
            knots = self._draw(mean, std)
            cost = self._costs(h, knots, m)
            mean, std = self._refine(knots, cost, mean, std)
            lowest, index = cost.min(dim=1)
            chosen = knots[torch.arange(m.n, device=index.device), index]
            better = lowest < best_cost
            best, best_cost = torch.where(better[:, None, None], chosen, best), torch.minimum(lowest, best_cost)
            slowest = max(slowest, time.perf_counter() - began)
        self._plan = self._choose(mean, best)
        found = torch.isfinite(best_cost)
        code = torch.where(found, int(outcome), int(Outcome.SHIFTED)).to(torch.uint8)
        return Decision(self._plan[:, 0], code)

    @property
    def plan(self) -> Float[Tensor, "n horizon m"]:
        """The last plan of each row, one action per control step.

        Raises:
            RuntimeError: Before the first decision of an episode.
        """
        if self._plan is None:
            raise RuntimeError("there is no plan yet; call act first")
        return self._plan.repeat_interleave(self._hold, dim=1)

    # ------------------------------------------------------------------ what subclasses decide

    @abstractmethod
    def _refine(
        self,
        knots: Float[Tensor, "n k j m"],
        cost: Float[Tensor, "n k"],
        mean: Float[Tensor, "n j m"],
        std: Float[Tensor, "n j m"],
    ) -> tuple[Float[Tensor, "n j m"], Float[Tensor, "n j m"]]:
        """New mean and standard deviation from the samples and their costs (``inf`` for failed predictions)."""

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
        return self.horizon // self.knots

    def _shifted(self, m: Measurement) -> Tensor:
        """The last plan one control step later: knots interpolate, so that held actions move on smoothly."""
        if self._plan is None or self._plan.shape[0] != m.n:
            return self.problem.actions.neutral(m.n, m.y)[:, None].expand(-1, self.knots, -1)
        ahead = torch.cat([self._plan[:, 1:], self._plan[:, -1:]], dim=1)
        return self._plan + (ahead - self._plan) / self._hold

    def _draw(self, mean: Tensor, std: Tensor) -> Float[Tensor, "n k j m"]:
        """Samples, projected; the first of them is the mean itself."""
        n, j, width = mean.shape
        unit = torch.randn(n, self.samples, j, width, generator=self._gen, dtype=torch.float64).to(mean)
        unit[:, 0] = 0.0
        drawn = mean[:, None] + std[:, None] * unit
        return self.problem.actions.project(drawn.reshape(-1, width)).reshape(drawn.shape)

    def _costs(self, h: Hidden, knots: Tensor, m: Measurement) -> Float[Tensor, "n k"]:
        """Costs of all samples; on a CPU in blocks of rows, whose rollouts stay in the cache."""
        rows = m.n if knots.device.type != "cpu" else max(1, BLOCK // self.samples)
        if rows >= m.n:
            return self._cost(h, knots, m)
        blocks = torch.arange(m.n).split(rows)  # type: ignore[no-untyped-call]
        return torch.cat([self._cost(tree_index(h, at), knots[at], m.rows(at)) for at in blocks])

    def _cost(self, h: Hidden, knots: Tensor, m: Measurement) -> Float[Tensor, "n k"]:
        n, k, _, width = knots.shape
        U = knots.repeat_interleave(self._hold, dim=2).reshape(n * k, self.horizon, width)
        h = tree_map(lambda leaf: leaf.repeat_interleave(k, dim=0), h)
        Z, extra = [], torch.zeros(n * k, dtype=U.dtype, device=U.device)
        objective, model = self.problem.objective, self._planner
        for j in range(self.horizon):
            if self.doubt and (far := model.doubt(h, U[:, j])) is not None:
                extra = extra + self.doubt * torch.relu(far - 1)
            h = model.step(h, U[:, j])
            Z.append(model.output(h)[1])
            if objective.failure and (lost := model.failing(h)) is not None:
                extra = extra + objective.failure * lost
        r = m.references(self.horizon).repeat_interleave(k, dim=0)
        cost = objective.plan_cost(torch.stack(Z, dim=1), U, m.u_prev.repeat_interleave(k, dim=0), r) + extra
        return torch.where(torch.isfinite(cost), cost, torch.inf).reshape(n, k)


class MPPI(SamplingMPC):
    """Model-predictive path integral control (Williams et al. 2017): a softmax-weighted mean of the samples.

    The temperature is relative to the standard deviation of each row's costs, so it needs no retuning per plant.
    """

    name = "mppi"

    def __init__(
        self,
        horizon: int = 16,
        samples: int = 64,
        iterations: int = 2,
        knots: int = 0,
        spread: float = 0.5,
        doubt: float = 0.0,
        temperature: float = 0.2,
        decay: float = 0.5,
    ) -> None:
        """Store the settings; see :class:`SamplingMPC`.

        Args:
            horizon: Control steps that a plan looks ahead.
            samples: Sequences per row and iteration.
            iterations: Rounds of drawing per control step.
            knots: Free actions of a plan; 0 means one per step.
            spread: Initial standard deviation relative to half the range.
            doubt: Cost of leaving the model's data.
            temperature: Of the softmax, in standard deviations of the cost.
            decay: Factor on the standard deviation after each iteration, in (0, 1].

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(horizon, samples, iterations, knots, spread, doubt)
        positive(temperature=temperature)
        if not 0 < decay <= 1:
            raise ValueError(f"decay must lie in (0, 1], got {decay}")
        self.temperature, self.decay = temperature, decay

    def _refine(self, knots: Tensor, cost: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        finite = torch.isfinite(cost)
        low = cost.amin(dim=1, keepdim=True)
        excess = torch.where(finite, cost - low, 0.0)
        scale = excess.square().sum(1, keepdim=True).div(finite.sum(1, keepdim=True).clamp(min=1)).sqrt()
        weight = torch.where(finite, torch.exp(-excess / (self.temperature * scale + 1e-12)), 0.0)
        total = weight.sum(dim=1)
        weighted = torch.einsum("nk,nkjm->njm", weight, knots) / total.clamp(min=1e-12)[:, None, None]
        return torch.where((total > 0)[:, None, None], weighted, mean), std * self.decay

    def _choose(self, mean: Tensor, best: Tensor) -> Tensor:
        return mean


class CEM(SamplingMPC):
    """Cross-entropy method (Rubinstein 1999; as a planner, Pinneri et al. 2020): refit to the elites, keep the best."""

    name = "cem"

    def __init__(
        self,
        horizon: int = 16,
        samples: int = 64,
        iterations: int = 3,
        knots: int = 0,
        spread: float = 0.5,
        doubt: float = 0.0,
        elites: int = 8,
        inertia: float = 0.1,
    ) -> None:
        """Store the settings; see :class:`SamplingMPC`.

        Args:
            horizon: Control steps that a plan looks ahead.
            samples: Sequences per row and iteration.
            iterations: Rounds of drawing per control step.
            knots: Free actions of a plan; 0 means one per step.
            spread: Initial standard deviation relative to half the range.
            doubt: Cost of leaving the model's data.
            elites: Samples that the mean and the spread are refitted to.
            inertia: Share of the old mean and spread in the new ones, in [0, 1).

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(horizon, samples, iterations, knots, spread, doubt)
        if not 1 <= elites <= samples:
            raise ValueError(f"elites must lie in 1 .. samples ({samples}), got {elites}")
        if not 0 <= inertia < 1:
            raise ValueError(f"inertia must lie in [0, 1), got {inertia}")
        self.elites, self.inertia = elites, inertia

    def _refine(self, knots: Tensor, cost: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        rows = torch.arange(len(cost), device=cost.device)[:, None]
        chosen = knots[rows, cost.topk(self.elites, dim=1, largest=False).indices]
        keep = self.inertia
        return (
            keep * mean + (1 - keep) * chosen.mean(dim=1),
            keep * std + (1 - keep) * chosen.std(dim=1, correction=0),
        )

    def _choose(self, mean: Tensor, best: Tensor) -> Tensor:
        return best
