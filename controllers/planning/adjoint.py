"""Optimal control by gradients: a sequence of actions found by L-BFGS through a differentiable model."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steersman.controllers.base import Controller, Decision, Outcome
from steersman.controllers.classical.backstepping import Backstepping
from steersman.controllers.classical.lqr import LQR
from steersman.controllers.plan import BUDGET, PlanCost, Plans, check_terms, with_slopes
from steersman.controllers.risk import RiskName, risk_measure
from steersman.dynamics.base import Dynamics
from steersman.dynamics.estimation.base import Belief
from steersman.dynamics.truth.operating_point import linearized
from steersman.dynamics.truth.plant_model import PlantModel
from steersman.envs import noise
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import Count, NotNegative
from steersman.envs.simulator import Measurement
from steersman.optimizers.lbfgs import RowLBFGS

EFFORT = 0.1
"""Price of actions in the LQR that warms a plan up."""
SLOPE = 4.0
"""Time of a prediction with its gradient, relative to one without."""


@dataclass(eq=False, repr=False)
class Adjoint(Controller):
    """Minimises the planned cost over whole sequences of actions with gradients by reverse mode, then plays them.

    With the plant itself ("truth") of a deterministic task it is the oracle that others are measured against; with a
    learned model, or with ``replan=1``, it is gradient-based MPC. Bounded actions are ``sine``-shaped functions of
    free variables, so that every iterate is admissible. Each row has a plan, a time to make it and an optimiser of its
    own; where a plan could not be made, one is tried for again at the next step. Limits are seen by their slope
    (:func:`~steersman.controllers.plan.with_slopes`).
    A long plan of an unstable plant should start warm: from the neutral action, gradients grow with the state.

    Attributes:
        horizon: Control steps of a plan; by default to the end of the episode.
        iterations: L-BFGS iterations of a plan; a quarter more gradients are evaluated.
        replan: Control steps after which a new plan is made, from the old one; by default when it is used up.
        warm: What a new plan starts from: backstepping, or the LQR of the plant linearised at zero that brings its
            outputs there; the neutral action by default.
        penalty: Price of a unit of constraint violation in a plan, at each control step.
        shared: One plan for all rows, the best that an open-loop schedule can do for them on average.
        doubt: Cost of leaving the model's data: times the model's doubt above 1, each step.
        particles: Draws of a model's noise for each plan.
        risk: What the costs of a plan's particles come to: their mean, that of the worst ones, or the worst.
        tail: Share of the particles that are the worst ones.
    """

    name = "adjoint"

    horizon: Count | None = None
    iterations: Count = 100
    replan: Count | None = None
    warm: Literal["backstepping", "lqr"] | None = None
    penalty: NotNegative = 0.0
    shared: bool = False
    doubt: NotNegative = 0.0
    particles: Count = 1
    risk: RiskName = field(default="mean", kw_only=True)
    tail: float = field(default=0.25, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        risk_measure(self.risk, self.tail)
        if self.warm not in (None, "backstepping", "lqr"):
            raise ValueError(f"warm must be 'backstepping', 'lqr' or None, got {self.warm!r}")

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
        self.preview = min(self.horizon or problem.horizon, problem.horizon)
        check_terms(self.name, problem, self.preview)
        self._cost = PlanCost(with_slopes(problem), self.doubt, self.penalty, self.particles, self.risk, self.tail)
        self._start = self._starter(model) if self.warm else None
        return self

    def _starter(self, model: Dynamics) -> Controller:
        if not isinstance(model, PlantModel):
            raise ValueError(f"warm={self.warm!r} starts from the plant's equations; it needs model = 'truth'")
        if self.warm == "backstepping":
            return Backstepping().bind(self.problem, model)
        return LQR(effort=EFFORT).bind(self.problem, linearized(model.plant, at="zero"))

    def reset(self, n: int, mask: Bool[Tensor, "n"] | None = None, *, gen: torch.Generator | None = None) -> None:
        """Drop the plans, or those of the masked rows."""
        super().reset(n, mask, gen=gen)
        if mask is None:
            self._plans: Plans | None = None
        elif self._plans is not None:
            self._plans.drop(mask)

    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        """See :class:`~steersman.controllers.base.Controller`."""
        until = None if budget_s is None else time.perf_counter() + BUDGET * budget_s
        belief = self.believe(m)
        if self._plans is None or len(self._plans.u) != m.n:
            self._plans = Plans.none(self.problem.actions.neutral(m.n, m.y), self.preview)
        plans = self._plans
        due = plans.due(m, self.replan)
        if bool(due.any()):
            self._renew(plans, belief.rows(due.nonzero().flatten()), due, until)
        return Decision(*plans.next())

    @property
    def _planner(self) -> Dynamics:
        return cast(Dynamics, self.model)

    def _renew(self, plans: Plans, belief: Belief, due: Bool[Tensor, "n"], until: float | None) -> None:
        """New plans of the rows that are due, each from its old one or from the warm start."""
        m = belief.now
        left = (self.problem.horizon - m.k).clamp(1, self.preview)
        guess, known = plans.u[due][:, : int(left.max())], plans.old[due]
        if self._start is not None and not bool(known.all()):
            guess = torch.where(known[:, None, None], guess, self._warm(self._start, m, guess, until))
        plan, cost, found = self._optimise(belief, guess, until)
        new = Outcome.NEUTRAL if self._start is None else Outcome.BACKUP
        untried, priced = torch.where(known, int(Outcome.SHIFTED), int(new)), torch.isfinite(cost)
        plans.put(due, plan, left, torch.where(priced, int(found), untried).to(torch.uint8), priced)

    def _warm(self, law: Controller, m: Measurement, guess: Tensor, until: float | None) -> Float[Tensor, "n h m"]:
        """What the starting law does to the plant, as far as there is time."""
        law.reset(m.n)
        plant, key = cast(PlantModel, self.model).plant, noise.keys(0, m.n, device=m.y.device)
        guess = guess.clone()
        for j in range(guess.shape[1]):
            if until is not None and time.perf_counter() > until:
                break
            assert m.x is not None and m.p is not None  # noqa: S101 - the truth is the model
            guess[:, j] = u = law.act(m).u
            m = replace(m, x=plant.step(m.k, m.x, u, plant.disturbance(key, m.k), m.p), k=m.k + 1, u_prev=u)
        return guess

    def _optimise(
        self, belief: Belief, guess: Float[Tensor, "n h m"], until: float | None
    ) -> tuple[Float[Tensor, "n h m"], Float[Tensor, "n"], Outcome]:
        """The best plan of each row, its cost (infinite where none was predicted), and whether there was time."""
        m, model, best = belief.now, self._planner, guess
        lowest = torch.full((m.n,), torch.inf, dtype=m.y.dtype, device=m.y.device)
        free = self._free(guess[:1] if self.shared else guess)
        search = RowLBFGS(free.flatten(1))
        code, slowest = Outcome.OPTIMAL, 0.0
        try:
            with torch.no_grad():
                lowest = self._through(model, belief, guess, until).nan_to_num(torch.inf, torch.inf)
            for _ in range(math.ceil(1.25 * self.iterations)):
                began = time.perf_counter()
                if until is not None and began + slowest > until:
                    raise TimeoutError
                with torch.enable_grad():
                    asked = search.ask().detach().reshape(free.shape).requires_grad_()
                    u = self._bounded(asked).expand(m.n, -1, -1)
                    cost = self._through(model, belief, u, None if until is None else began + (until - began) / SLOPE)
                    (slope,) = torch.autograd.grad(torch.where(torch.isfinite(cost), cost, 0.0).sum(), asked)
                cost = cost.detach()
                better = cost < lowest
                best = torch.where(better[:, None, None], u.detach(), best)
                lowest = torch.where(better, cost, lowest)
                search.tell(cost[:1] if self.shared else cost, slope.flatten(1))
                slowest = max(slowest, time.perf_counter() - began)
                if bool(search.done.all()):
                    break
        except TimeoutError:
            code = Outcome.INCUMBENT
        return best, lowest, code

    def _through(self, model: Dynamics, belief: Belief, u: Tensor, until: float | None) -> Float[Tensor, "n"]:
        """Costs of plans; of a shared one, the mean in each row."""
        cost = self._cost.through(model, belief.hidden, u, belief.now, until)
        return cost.mean().expand(len(cost)) if self.shared else cost

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
