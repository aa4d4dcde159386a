"""Optimal control by gradients: a sequence of actions found by L-BFGS through a differentiable model."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steersman.controllers.backstepping import Backstepping
from steersman.controllers.base import Controller, Decision, Memory, Outcome
from steersman.controllers.lqr import LQR
from steersman.dynamics.base import Dynamics, Window
from steersman.dynamics.linearized import linearized
from steersman.dynamics.plant_model import PlantModel
from steersman.envs import noise
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import at_least
from steersman.envs.simulator import Measurement

EFFORT = 0.1
"""Price of actions in the LQR that warms a plan up."""


class Adjoint(Controller):
    """Minimises the planned cost over whole sequences of actions with gradients by reverse mode, then plays them.

    With the plant itself ("truth") of a deterministic task it is the oracle that others are measured against; with a
    learned model, or with ``replan=1``, it is gradient-based MPC. Bounded actions are ``sine``-shaped functions of
    free variables, so that every iterate is admissible. Rows are optimised jointly; each keeps its own best plan.
    A long plan of an unstable plant should start warm: from the neutral action, gradients grow with the state.
    """

    name = "adjoint"

    def __init__(
        self,
        horizon: int | None = None,
        iterations: int = 100,
        replan: int | None = None,
        warm: Literal["backstepping", "lqr"] | None = None,
        penalty: float = 0.0,
        shared: bool = False,
    ) -> None:
        """Store the settings.

        Args:
            horizon: Control steps of a plan; by default to the end of the episode.
            iterations: L-BFGS iterations of a plan.
            replan: Control steps after which a new plan is made, from the old one; by default when it is used up.
            warm: What a new plan starts from: backstepping, or the LQR of the plant linearised at zero that brings
                its outputs there; the neutral action by default.
            penalty: Price of a unit of constraint violation in a plan, at each control step.
            shared: One plan for all rows, the best that an open-loop schedule can do for them on average.

        Raises:
            ValueError: If a number is out of range, or nothing is known by the name ``warm``.
        """
        at_least(1, horizon=horizon, iterations=iterations, replan=replan)
        at_least(0, penalty=penalty)
        if warm not in (None, "backstepping", "lqr"):
            raise ValueError(f"warm must be 'backstepping', 'lqr' or None, got {warm!r}")
        self.horizon, self.iterations, self.replan, self.warm = horizon, iterations, replan, warm
        self.penalty, self.shared = penalty, shared

    def bind(self, problem: ControlProblem, model: Dynamics | None = None) -> Adjoint:
        """Attach the model.

        Raises:
            ValueError: Without a model, for integer actions, where there is no gradient, or for a warm start with a
                model that is not the plant.
        """
        if model is None:
            raise ValueError("adjoint plans with a model; give it one, for example 'truth' or 'neural'")
        if not problem.actions.continuous:
            raise ValueError("adjoint needs continuous actions; use mip-mpc or a sampling controller")
        if model.needs_state and problem.gradient == "none":
            raise ValueError("this plant has no gradient; plan with a learned model such as 'neural', or use mppi")
        super().bind(problem, model)
        self.preview = self.horizon or problem.horizon
        self._start = self._starter(model) if self.warm else None
        return self

    def _starter(self, model: Dynamics) -> Controller:
        if not isinstance(model, PlantModel):
            raise ValueError(f"warm={self.warm!r} starts from the plant's equations; it needs model = 'truth'")
        if self.warm == "backstepping":
            return Backstepping().bind(self.problem, model)
        return LQR(effort=EFFORT).bind(self.problem, linearized(model.plant, at="zero"))

    def reset(self, n: int, mask: Bool[Tensor, "n"] | None = None, *, gen: torch.Generator | None = None) -> None:
        """Drop the plan."""
        super().reset(n, mask, gen=gen)
        self._memory = Memory(cast(Dynamics, self.model).context)
        self._plan: Tensor | None = None
        self._age = 0
        self._outcome = Outcome.OPTIMAL

    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        """See :class:`~steersman.controllers.base.Controller`."""
        window = self._memory.push(m)
        plan = self._plan
        stale = plan is None or plan.shape[0] != m.n or self._age >= plan.shape[1]
        if stale or (self.replan is not None and self._age >= self.replan):
            left = max(1, self.problem.horizon - int(m.k.max()))
            length = min(self.horizon or left, left)
            guess = self._first(m, length) if stale or plan is None else plan[:, self._age :]
            plan, self._outcome = self._optimise(window, length, guess, budget_s)
            self._plan, self._age = plan, 0
        assert plan is not None  # noqa: S101 - it has just been made
        u = plan[:, self._age]
        self._age += 1
        return Decision(u, torch.full((m.n,), int(self._outcome), dtype=torch.uint8, device=u.device))

    def _first(self, m: Measurement, length: int) -> Float[Tensor, "n h m"] | None:
        """What a new plan starts from, if not from the neutral action."""
        if self._start is None:
            return None
        self._start.reset(m.n)
        plant, plan, key = cast(PlantModel, self.model).plant, [], noise.keys(0, m.n, device=m.y.device)
        for _ in range(length):
            assert m.x is not None and m.p is not None  # noqa: S101 - the truth is the model
            u = self._start.act(m).u
            plan.append(u)
            m = replace(m, x=plant.step(m.k, m.x, u, plant.disturbance(key, m.k), m.p), k=m.k + 1, u_prev=u)
        return torch.stack(plan, dim=1)

    def _optimise(
        self, window: Window, length: int, guess: Tensor | None, budget_s: float | None
    ) -> tuple[Float[Tensor, "n h m"], Outcome]:
        """The best plan found, and whether the time ended the search."""
        start = time.perf_counter()
        m, actions = window.now, self.problem.actions
        u0 = actions.neutral(m.n, m.y)[:, None].expand(-1, length, -1).clone()
        if guess is not None:
            keep = min(length, guess.shape[1])
            u0[:, :keep] = guess[:, :keep]
        free = self._free(u0[:1] if self.shared else u0).requires_grad_()
        best, lowest = u0, torch.full((m.n,), torch.inf, dtype=m.y.dtype, device=m.y.device)
        if guess is not None:
            with torch.no_grad():
                lowest = self._cost(window, u0).nan_to_num(torch.inf)
        late = False
        search = torch.optim.LBFGS([free], max_iter=self.iterations, history_size=20, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            nonlocal best, lowest, late
            if late or (budget_s is not None and time.perf_counter() - start > 0.5 * budget_s):
                late = True
                raise _OutOfTimeError
            search.zero_grad()
            u = self._bounded(free).expand(m.n, -1, -1)
            cost = self._cost(window, u)
            better = (cost.mean() < lowest.mean()).expand(m.n) if self.shared else cost < lowest
            better = torch.isfinite(cost) & better
            best = torch.where(better[:, None, None], u, best).detach()
            lowest = torch.where(better, cost, lowest).detach()
            total = torch.where(torch.isfinite(cost), cost, 0.0).mean()
            total.backward()  # type: ignore[no-untyped-call]
            if free.grad is not None:
                free.grad.nan_to_num_(0.0, 0.0, 0.0)
            return total

        try:
            with torch.enable_grad():
                search.step(closure)  # type: ignore[no-untyped-call]
        except _OutOfTimeError:
            return best, Outcome.INCUMBENT
        return best, Outcome.OPTIMAL

    def _cost(self, window: Window, u: Float[Tensor, "n h m"]) -> Float[Tensor, "n"]:
        model, m, objective = cast(Dynamics, self.model), window.now, self.problem.objective
        h, Z = model.init(window), []
        extra = torch.zeros(m.n, dtype=m.y.dtype, device=m.y.device)
        for j in range(u.shape[1]):
            if self.penalty and (broken := model.violation(h, u[:, j])) is not None:
                extra = extra + self.penalty * broken
            h = model.step(h, u[:, j])
            Z.append(model.output(h)[1])
            if objective.failure and (lost := model.failing(h)) is not None:
                extra = extra + objective.failure * lost
        last = int(m.k.max()) + u.shape[1] >= self.problem.horizon
        return extra + objective.plan_cost(torch.stack(Z, 1), u, m.u_prev, m.references(u.shape[1]), last=last)

    def _bounded(self, free: Tensor) -> Tensor:
        lower, upper = self.problem.actions.bounds(free)
        middle, half = (lower + upper) / 2, (upper - lower) / 2
        inside = torch.isfinite(half)
        safe_middle, safe_half = torch.where(inside, middle, 0.0), torch.where(inside, half, 1.0)
        shaped = safe_middle + safe_half * torch.sin(free)
        one_sided = torch.minimum(torch.maximum(free, lower), upper)
        return torch.where(inside, shaped, one_sided)

    def _free(self, u: Tensor) -> Tensor:
        """Free variables of actions; just inside the bounds, where the sine has a slope."""
        lower, upper = self.problem.actions.bounds(u)
        middle, half = (lower + upper) / 2, (upper - lower) / 2
        inside = torch.isfinite(half) & (half > 0)
        ratio = torch.where(inside, (u - middle) / torch.where(inside, half, 1.0), 0.0).clamp(-0.99, 0.99)
        return torch.where(inside, torch.asin(ratio), u).detach().clone()


class _OutOfTimeError(Exception):
    """The time limit of a decision has passed."""
