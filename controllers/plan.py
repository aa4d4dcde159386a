"""The one costing of a plan: what planners minimise, what policies are trained on, what mixed-integer programs encode.

With perfect predictions over a whole episode it is what the simulator charges, less the cost of the outputs before the
first action, which no plan changes (:func:`~steersman.envs.transition.settle` has the rule of an episode).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from steersman.controllers.base import Outcome
from steersman.controllers.risk import MEAN, Risk, RiskName, risk_measure
from steersman.dynamics.base import Dynamics, Hidden, Prediction
from steersman.envs.objective import Term
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import at_least
from steersman.envs.simulator import Measurement

BUDGET = 0.9
"""Share of a time limit that planning may use; the rest is for what surrounds it."""
MARGIN = 0.05
"""Share of the half width of a limit, inside it, from which on planners that need slopes pay."""


def plan_cost(
    problem: ControlProblem,
    prediction: Prediction,
    U: Float[Tensor, "n h m"],
    now: Measurement,
    *,
    doubt: float = 0.0,
    penalty: float = 0.0,
    risk: Risk = MEAN,
) -> Float[Tensor, "n"]:
    """Cost of each row's plan, the mean over its particles or another measure of their risk.

    Each row stands at a control step of its own. Outputs within the episode cost their stage cost; the last one of a
    plan that ends before the episode stands for all that comes after. Where the episode ends, by its horizon or at
    its goal, the terminal terms apply instead. From a failure on (the model's own, or outputs beyond the objective's
    limits), each step that is left costs the price of a failure and nothing else, where that has a price. Actions
    beyond the end cost nothing.

    Args:
        problem: Objective, and control steps of an episode.
        prediction: What the model says of the plan.
        U: Planned actions ``u_k .. u_{k+h-1}``.
        now: The measurement that the plan starts from: control steps, references ``r_k ..``, the action before.
        doubt: Price of the model's doubt above 1, at each step.
        penalty: Price of a unit of soft-constraint violation, at each step.
        risk: What the costs of a row's particles come to.
    """
    objective, h = problem.objective, U.shape[1]
    left = (problem.horizon - now.k)[:, None, None] - torch.arange(h, device=U.device)
    lost, over = _ends(problem, prediction)
    before = torch.cat([torch.zeros_like(over[..., :1]), over[..., :-1]], dim=-1)
    live, followed = _lasts(left)
    acts = live & ~before
    stays = acts & ~over & followed
    dU = U - torch.cat([now.u_prev[:, None].to(U), U[:, :-1]], dim=1)
    # Outputs that cost nothing may be anything: they must not reach the sums, nor their gradients.
    z = torch.where((acts & ~lost)[..., None], prediction.z, 0.0)
    r = now.references(h)[:, None].to(z).expand_as(z)
    cost = torch.where(stays, objective.output_cost(z, r), 0.0)
    cost = cost + torch.where(acts, objective.action_cost(U, dU)[:, None], 0.0)
    if objective.terminal:
        cost = cost + torch.where(acts & ~stays & ~lost, objective.terminal_cost(z, r), 0.0)
    if objective.failure:
        cost = cost + torch.where(acts & lost, objective.failure * left.to(cost), 0.0)
    if doubt and prediction.doubt is not None:
        cost = cost + torch.where(acts, doubt * torch.relu(prediction.doubt - 1), 0.0)
    if penalty and prediction.violation is not None:
        cost = cost + torch.where(acts, penalty * prediction.violation, 0.0)
    return risk(cost.sum(dim=-1))


def charged_terms(problem: ControlProblem, k: int, h: int) -> tuple[tuple[Term, ...], ...]:
    """Terms that :func:`plan_cost` adds up in each step of a plan which neither a failure nor a goal ends.

    Terms in actions are of the step's action, terms in outputs (terminal ones among them) of what follows it. Steps
    beyond the end of the episode have no entry.

    Args:
        problem: Objective, and control steps of an episode.
        k: Control step that the plan is made at.
        h: Control steps that the plan looks ahead.
    """
    objective = problem.objective
    actions = tuple(term for term in objective.stage if term.on in ("u", "du"))
    outputs = tuple(term for term in objective.stage if term.on in ("z", "e"))
    live, followed = _lasts(problem.horizon - k - torch.arange(h))
    charged = ((outputs if on else objective.terminal) + actions for on in followed[live].tolist())
    return tuple(charged)


def _lasts(left: Int64[Tensor, "*b"]) -> tuple[Bool[Tensor, "*b"], Bool[Tensor, "*b"]]:
    """Whether an episode with so many control steps left takes another one, and whether it goes on after that."""
    return left > 0, left > 1


def _ends(problem: ControlProblem, prediction: Prediction) -> tuple[Bool[Tensor, "n p h"], Bool[Tensor, "n p h"]]:
    """Where plans have failed, and where their episode has ended; once ended they stay so."""
    nowhere = torch.zeros(prediction.z.shape[:-1], dtype=torch.bool, device=prediction.z.device)
    # What has no price is no end either: a plan that failed would be rid of all that comes after.
    priced = problem.objective.failure > 0
    beyond = problem.objective.lost(prediction.z) if priced else None
    lost = nowhere if beyond is None else beyond
    if priced and prediction.lost is not None:
        lost = lost | prediction.lost
    over = lost if prediction.reached is None else lost | prediction.reached
    return lost, over.cumsum(dim=-1) > 0


@dataclass(frozen=True)
class PlanCost:
    """How a controller costs plans: :func:`plan_cost` with its settings.

    Attributes:
        problem: Objective, and control steps of an episode.
        doubt: Price of the model's doubt above 1, at each step.
        penalty: Price of a unit of soft-constraint violation, at each step.
        particles: Draws of a model's noise for each plan.
        risk: What the costs of a plan's particles come to: their mean, that of the worst ones, or the worst.
        tail: Share of the particles that are the worst ones.
    """

    problem: ControlProblem
    doubt: float = 0.0
    penalty: float = 0.0
    particles: int = 1
    risk: RiskName = "mean"
    tail: float = 0.25

    def __post_init__(self) -> None:
        risk_measure(self.risk, self.tail)
        if self.risk != "mean" and self.particles == 1:
            raise ValueError(f"risk={self.risk!r} compares draws of a model's noise; give it particles, 16 say")
        at_least(0, doubt=self.doubt, penalty=self.penalty)
        at_least(1, particles=self.particles)

    @property
    def asks(self) -> dict[str, bool]:
        """What a model has to be asked for."""
        return {"violation": self.penalty > 0, "doubt": self.doubt > 0}

    def __call__(self, prediction: Prediction, U: Float[Tensor, "n h m"], now: Measurement) -> Float[Tensor, "n"]:
        """See :func:`plan_cost`."""
        risk = risk_measure(self.risk, self.tail)
        return plan_cost(self.problem, prediction, U, now, doubt=self.doubt, penalty=self.penalty, risk=risk)

    def through(
        self, model: Dynamics, h: Hidden, U: Float[Tensor, "n h m"], now: Measurement, until: float | None = None
    ) -> Float[Tensor, "n"]:
        """Cost of actions by the model's prediction from hidden state ``h``.

        Raises:
            TimeoutError: If the prediction is not ready at ``until`` (of ``time.perf_counter``).
        """
        asks = self.asks
        found = model.predict(h, U, self.particles, violation=asks["violation"], doubt=asks["doubt"], until=until)
        return self(found, U, now)


def with_slopes(problem: ControlProblem, margin: float = MARGIN) -> ControlProblem:
    """The problem as planners see it that follow slopes: limits as convex costs instead of failures.

    A failure is a step of the cost and shows no gradient. Where the objective states limits they say the same with
    one (smooth :meth:`~steersman.envs.objective.Objective.softened`); where it states none, failures keep their price.
    """
    objective = problem.objective
    return replace(problem, objective=objective.softened(margin, smooth=True)) if objective.limits else problem


def check_terms(name: str, problem: ControlProblem, horizon: int) -> None:
    """Refuse to plan for an objective that plans of so many steps never see.

    Raises:
        ValueError: If it has no terms, or terminal ones only and plans end before the episode.
    """
    objective = problem.objective
    if not objective.stage and not objective.terminal:
        raise ValueError(
            f"{name} needs an objective written in the outputs, but this environment only returns rewards; "
            "state an objective in the comparison file"
        )
    if not objective.stage and horizon < problem.horizon:
        raise ValueError(
            f"this objective has a terminal cost only, which plans of {horizon} of {problem.horizon} control steps "
            f"never see; give {name} horizon={problem.horizon}"
        )


@dataclass
class Plans:
    """The plans of all rows and how far each has been played.

    A row without a plan plays the neutral action; a plan that is used up repeats its last one.

    Attributes:
        u: Actions still to come, each row's next one first.
        left: How many of them are planned.
        age: Steps since they were planned.
        old: Rows that have had a plan in this episode.
        outcome: How each came about.
    """

    u: Float[Tensor, "n h m"]
    left: Int64[Tensor, "n"]
    age: Int64[Tensor, "n"]
    old: Bool[Tensor, "n"]
    outcome: UInt8[Tensor, "n"]

    def __post_init__(self) -> None:
        self._neutral = self.u

    @classmethod
    def none(cls, neutral: Float[Tensor, "n m"], horizon: int) -> Plans:
        """No plan in any row."""
        zero = torch.zeros(len(neutral), dtype=torch.int64, device=neutral.device)
        u = neutral[:, None].expand(-1, horizon, -1)
        return cls(u, zero, zero, zero.bool(), torch.full_like(zero, int(Outcome.NEUTRAL), dtype=torch.uint8))

    def drop(self, rows: Bool[Tensor, "n"]) -> None:
        """Forget the plans of some rows."""
        self.u = torch.where(rows[:, None, None], self._neutral, self.u)
        self.left, self.old = torch.where(rows, 0, self.left), self.old & ~rows

    def due(self, m: Measurement, replan: int | None = None) -> Bool[Tensor, "n"]:
        """Rows to plan for now: their plan is used up or ``replan`` steps old, and all their outputs were measured.

        A plan from outputs that nobody saw would be played long after they are seen; such rows wait.
        """
        due = self.left <= 0
        if replan is not None:
            due = due | (self.age >= replan)
        return due if m.seen is None else due & m.seen.all(dim=1)

    def put(
        self,
        rows: Bool[Tensor, "n"],
        plan: Float[Tensor, "k h m"],
        left: Int64[Tensor, "k"],
        outcome: UInt8[Tensor, "k"],
        found: Bool[Tensor, "k"],
    ) -> None:
        """New plans of some rows; of those that were not ``found`` one action is played, and they are due again."""
        self.u, self.left, self.age = self.u.clone(), self.left.clone(), self.age.clone()
        self.old, self.outcome = self.old.clone(), self.outcome.clone()
        self.u[rows, : plan.shape[1]] = plan.to(self.u)
        self.left[rows], self.age[rows] = torch.where(found, left, 1), 0
        self.old[rows], self.outcome[rows] = self.old[rows] | found, outcome

    def next(self) -> tuple[Float[Tensor, "n m"], UInt8[Tensor, "n"]]:
        """The next action of each row and how it came about."""
        spent = torch.where(self.old, int(Outcome.SHIFTED), int(Outcome.NEUTRAL)).to(torch.uint8)
        u, outcome = self.u[:, 0].clone(), torch.where(self.left > 0, self.outcome, spent)
        self.u = torch.cat([self.u[:, 1:], self.u[:, -1:]], dim=1)
        self.left, self.age = self.left - 1, self.age + 1
        return u, outcome
