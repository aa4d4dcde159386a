"""Mixed-integer model-predictive control, with a chain of fallbacks under a time limit."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from steersman.controllers.base import Controller, Decision, Outcome
from steersman.controllers.classical.lqr import LQR
from steersman.controllers.classical.pid import PID
from steersman.controllers.mip.bounds import interval_bounds, linear_bounds
from steersman.controllers.mip.encode import ENCODING, Arrays, Encoder
from steersman.controllers.mip.model import relu_system, start_state
from steersman.controllers.mip.program import Matrix, Program, Vector, unroll
from steersman.controllers.mip.solve import Result, solve
from steersman.controllers.plan import charged_terms, check_terms
from steersman.controllers.planning.sampling import CEM
from steersman.dynamics.base import Dynamics
from steersman.dynamics.linear.models import LinearDynamics
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import at_least, one_of, positive
from steersman.envs.simulator import Measurement

LARGEST = 1e9
"""A state or a reference beyond this is none; HiGHS would take its costs for infinite."""
SHOOTING = 0.25
"""Share of a time limit that the cross-entropy method may use."""
BOUNDING = 0.5
"""Share of what is left then in which bounds are tightened."""


class MixedIntegerMPC(Controller):
    """Globally optimal plans for a piecewise-linear model: ReLU networks, linear models, integer actions.

    Each row is a mixed-integer linear program of its own, from the measured window: ReLUs whose sign the bounds
    leave open get a binary and big-M rows, quadratic costs are refined by tangents. Costs are those of
    :func:`~steersman.controllers.plan.plan_cost`, with limits softened.

    The better one of a plan of the cross-entropy method on the same model and the shifted last plan is the first
    incumbent. When the time is over the action is the incumbent's; where there was no time for a program, that of the
    cross-entropy method; without one, the shifted last plan's; without that, the backup law's; at last the neutral
    action. Every step down is reported as the :class:`~steersman.controllers.base.Outcome` of the row.

    A time limit is kept to within 0.1 s or a fifth, whichever is more, on a core that is not shared: programs too large
    for it are not encoded (:data:`~steersman.controllers.mip.encode.ENCODING`) or not solved
    (:data:`~steersman.controllers.mip.solve.SETUP`).
    """

    name = "mip-mpc"

    def __init__(
        self,
        horizon: int = 5,
        bounds: Literal["linear", "interval"] = "linear",
        time_limit: float = 1.0,
        gap: float = 1e-3,
        samples: int = 64,
        backup: Literal["lqr", "pid", "none"] = "none",
        margin: float = 0.05,
    ) -> None:
        """Store the settings.

        Args:
            horizon: Control steps that a plan looks ahead.
            bounds: How the big-M constants are found.
            time_limit: Wall seconds for each row, if ``act`` is given no budget; first incumbents included.
            gap: Relative optimality gap that counts as optimal.
            samples: Sequences per iteration of the cross-entropy method that finds the first incumbent; 0 for none.
            backup: Law that acts when there is neither an incumbent nor an old plan: LQR on the same model (which
                must be linear), or PID with its default gains.
            margin: Limits of the objective cost something from this share of their half width inside them, and a
                failure at them: see :meth:`~steersman.envs.objective.Objective.softened`.

        Raises:
            ValueError: If a number is out of range or a word unknown.
        """
        at_least(1, horizon=horizon)
        at_least(0, samples=samples)
        positive(time_limit=time_limit, gap=gap)
        one_of("linear", "interval", bounds=bounds)
        one_of("lqr", "pid", "none", backup=backup)
        if not 0 < margin < 1:
            raise ValueError(f"margin must lie strictly between 0 and 1, got {margin}")
        self.horizon, self.bounds, self.time_limit, self.gap = horizon, bounds, time_limit, gap
        self.samples, self.backup, self.margin = samples, backup, margin
        self.preview = horizon

    def bind(self, problem: ControlProblem, model: Dynamics | None = None) -> MixedIntegerMPC:
        """Read the model's equations and try the objective.

        Raises:
            ValueError: If the model is not piecewise linear, an action is unbounded, a cost term has no mixed-integer
                form, or the objective has no terms that plans of this horizon see.
        """
        if model is None:
            raise ValueError("mip-mpc plans with a model; give it one: 'linear' or 'sparse'")
        self._planned = replace(problem, objective=problem.objective.softened(self.margin))
        check_terms(self.name, self._planned, self.horizon)
        super().bind(problem, model)
        self._system = relu_system(model)
        rest, m = np.zeros(self._system.Cz.shape[1]), problem.actions.m
        for k in (0, problem.horizon - 1):  # the last step brings the terminal terms
            self._encode(self._unroll(rest, k), k, np.zeros((self.horizon, problem.nz)), np.zeros(m), None)
        self._shooting = self._bind_shooting(model)
        self._backup = self._bind_backup(model)
        return self

    def _bind_shooting(self, model: Dynamics) -> CEM | None:
        return CEM(self.horizon, self.samples).bind(self._planned, model) if self.samples else None

    def _bind_backup(self, model: Dynamics) -> Controller | None:
        if self.backup == "none":
            return None
        if self.backup == "lqr" and not isinstance(model, LinearDynamics):
            raise ValueError("backup='lqr' needs a linear model; use backup='pid' with a network")
        law: Controller = LQR() if self.backup == "lqr" else PID()
        return law.bind(self.problem, model)

    def reset(self, n: int, mask: Bool[Tensor, "n"] | None = None, *, gen: torch.Generator | None = None) -> None:
        """Forget windows and plans."""
        super().reset(n, mask, gen=gen)
        for part in (self._shooting, self._backup):
            if part is not None:
                part.reset(n, mask, gen=self._gen)
        if mask is None:
            self._plans: dict[int, Vector] = {}
        else:
            for row in torch.nonzero(mask).flatten().tolist():
                self._plans.pop(row, None)

    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        """Solve row by row; a budget is shared equally by the rows that are left."""
        begun = time.perf_counter()
        assert self.model is not None  # noqa: S101 - bind has seen to it
        seconds = m.n * self.time_limit if budget_s is None else budget_s
        states = start_state(self.believe(m).hidden).detach().double().cpu().numpy()
        references = m.references(self.horizon).detach().double().cpu().numpy()
        u_prev = m.u_prev.detach().double().cpu().numpy()
        drawn = self._drawn(m, SHOOTING * seconds)
        spare = None if self._backup is None else self._backup.act(m)
        u, outcome = np.zeros((m.n, self.problem.actions.m)), np.zeros(m.n, dtype=np.uint8)
        for row, k in enumerate(m.k.tolist()):
            limit = (seconds - (time.perf_counter() - begun)) / (m.n - row)
            limit = limit if budget_s is not None else min(limit, self.time_limit)
            plan, code = self._plan(row, k, states[row], references[row], u_prev[row], drawn[row], limit)
            if plan is not None:
                u[row] = plan[: u.shape[1]]
            elif spare is not None:
                u[row], code = spare.u[row].cpu().numpy(), max(Outcome.BACKUP, Outcome(int(spare.outcome[row])))
            outcome[row] = code
        return Decision(torch.as_tensor(u).to(m.y), torch.as_tensor(outcome).to(m.y.device))

    def _drawn(self, m: Measurement, seconds: float) -> list[Vector | None]:
        """Plans of the cross-entropy method, ``[H m]``; None where it found none."""
        if self._shooting is None:
            return [None] * m.n
        found = self._shooting.act(m, seconds).outcome <= Outcome.INCUMBENT
        plans = self._shooting.plan.detach().double().cpu().numpy().reshape(m.n, -1)
        return [plan if good else None for plan, good in zip(plans, found.tolist(), strict=True)]

    def _plan(
        self, row: int, k: int, s0: Vector, reference: Matrix, u_prev: Vector, drawn: Vector | None, limit: float
    ) -> tuple[Vector | None, Outcome]:
        """A plan for what is left of the episode up to the horizon, and how it came about."""
        until, steps = time.perf_counter() + limit, self._steps(k)
        old = self._plans.pop(row, None)
        if steps < 1:
            return None, Outcome.NEUTRAL
        size = steps * self.problem.actions.m
        starts = [plan[:size] for plan in (drawn, self._shifted(old, steps)) if plan is not None]
        plan, code = None, Outcome.NEUTRAL
        if limit > 0 and all((np.abs(part) < LARGEST).all() for part in (s0, reference, u_prev)):
            plan, code = self._solve(k, s0, reference, u_prev, starts, until)
        if plan is None and starts:
            plan, code = starts[0], Outcome.SHIFTED if drawn is None else Outcome.INCUMBENT
        if plan is not None:
            self._plans[row] = plan
        return plan, code

    def _steps(self, k: int) -> int:
        """Steps of a plan: those beyond the end of the episode cost nothing."""
        return min(self.horizon, self.problem.horizon - k)

    def _shifted(self, old: Vector | None, steps: int) -> Vector | None:
        """The old plan without its first action, the last one repeated."""
        if old is None:
            return None
        actions = old.reshape(-1, self.problem.actions.m)
        left: Vector = actions[np.minimum(np.arange(1, steps + 1), len(actions) - 1)].ravel()
        return left

    def _solve(
        self, k: int, s0: Vector, reference: Matrix, u_prev: Vector, starts: list[Vector], until: float
    ) -> tuple[Vector | None, Outcome]:
        """The best plan found until then, if the program is not too large to be written down by then."""
        program = self._unroll(s0, k)
        left = until - time.perf_counter()
        if left <= ENCODING * program.coefficients:
            return None, Outcome.NEUTRAL
        arrays = self._encode(program, k, reference, u_prev, until - (1 - BOUNDING) * left)
        left = until - time.perf_counter()
        if not arrays.usable:
            return None, Outcome.NEUTRAL
        found = solve(arrays, time_limit=left, starts=[program.evaluate(plan) for plan in starts], gap=self.gap)
        if found.result == Result.NONE:
            return None, Outcome.NEUTRAL
        code = Outcome.OPTIMAL if found.result == Result.OPTIMAL else Outcome.INCUMBENT
        return found.x[: len(program.lower)], code

    def _unroll(self, s0: Vector, k: int) -> Program:
        with np.errstate(over="ignore", invalid="ignore"):  # see Arrays.usable
            return unroll(self._system, s0, self.problem.actions, self._steps(k))

    def _encode(self, program: Program, k: int, reference: Matrix, u_prev: Vector, until: float | None) -> Arrays:
        with np.errstate(over="ignore", invalid="ignore"):
            bounds = linear_bounds(program, until) if self.bounds == "linear" else interval_bounds(program)
            encoder = Encoder(program, bounds)
            encoder.network(bounds)
            encoder.actions(self.problem.actions)
            encoder.objective(charged_terms(self._planned, k, self.horizon), reference, u_prev)
            return encoder.arrays()
