"""Mixed-integer model-predictive control, with a chain of fallbacks under a time limit."""

from __future__ import annotations

import time
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from steersman.controllers.base import Controller, Decision, Memory, Outcome
from steersman.controllers.lqr import LQR
from steersman.controllers.mip.bounds import interval_bounds, linear_bounds
from steersman.controllers.mip.encode import Arrays, Encoder
from steersman.controllers.mip.model import relu_system, start_state
from steersman.controllers.mip.program import Matrix, Program, Vector, unroll
from steersman.controllers.mip.solve import Result, solve
from steersman.controllers.pid import PID
from steersman.controllers.sampling import CEM
from steersman.dynamics.base import Dynamics
from steersman.dynamics.linear import LinearDynamics
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import at_least, one_of, positive
from steersman.envs.simulator import Measurement

LARGEST = 1e9
"""A state beyond this is no measurement; HiGHS would take its costs for infinite."""


class MixedIntegerMPC(Controller):
    """Globally optimal plans for a piecewise-linear model: ReLU networks, linear models, integer actions.

    Each row is a mixed-integer linear program of its own, from the measured window: ReLUs whose sign the bounds
    leave open get a binary and big-M rows, quadratic costs are refined by tangents. A plan of the cross-entropy
    method on the same model is the first incumbent. When the time is over the action is the incumbent's; without
    one it is the shifted last plan's; without that, the backup law's; at last the neutral action. Every step down
    is reported as the :class:`~steersman.controllers.base.Outcome` of the row.
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
            time_limit: Wall seconds for each row, if ``act`` is given no budget.
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
            ValueError: If the model is not piecewise linear, an action is unbounded, or a cost term has no
                mixed-integer form.
        """
        if model is None:
            raise ValueError("mip-mpc plans with a model; give it one: 'linear' or 'sparse'")
        super().bind(problem, model)
        self._system = relu_system(model)
        self._objective = problem.objective.softened(self.margin)
        rest, m = np.zeros(self._system.Cz.shape[1]), problem.actions.m
        self._encode(rest, np.zeros((self.horizon, problem.nz)), np.zeros(m))
        self._shooting = self._bind_shooting(model)
        self._backup = self._bind_backup(model)
        return self

    def _bind_shooting(self, model: Dynamics) -> CEM | None:
        if not self.samples:
            return None
        elites = max(2, self.samples // 8)
        return CEM(self.horizon, self.samples, iterations=3, elites=elites).bind(self.problem, model)

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
            assert self.model is not None  # noqa: S101 - bind has seen to it
            self._memory = Memory(self.model.context)
            self._plans: dict[int, Vector] = {}
        else:
            self._memory.clear(mask)
            for row in torch.nonzero(mask).flatten().tolist():
                self._plans.pop(row, None)

    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        """Solve row by row; a budget is shared equally by the rows that are left."""
        begun = time.perf_counter()
        assert self.model is not None  # noqa: S101 - bind has seen to it
        states = start_state(self.model, self._memory.push(m)).detach().double().cpu().numpy()
        references = m.references(self.horizon).detach().double().cpu().numpy()
        u_prev = m.u_prev.detach().double().cpu().numpy()
        starts = self._starts(m, budget_s)
        spare = None if self._backup is None else self._backup.act(m).u.cpu().numpy()
        u, outcome = np.zeros((m.n, self.problem.actions.m)), np.zeros(m.n, dtype=np.uint8)
        for row in range(m.n):
            limit = self.time_limit
            if budget_s is not None:
                limit = max(0.0, (budget_s - (time.perf_counter() - begun)) / (m.n - row))
            first = None if starts is None else starts[row]
            plan, code = self._plan(row, states[row], references[row], u_prev[row], first, limit)
            if plan is not None:
                u[row] = plan[: u.shape[1]]
            elif spare is not None:
                u[row], code = spare[row], Outcome.BACKUP
            outcome[row] = code
        return Decision(torch.as_tensor(u).to(m.y), torch.as_tensor(outcome).to(m.y.device))

    def _starts(self, m: Measurement, budget_s: float | None) -> Matrix | None:
        """Plans of the cross-entropy method, ``[n, H m]``."""
        if self._shooting is None:
            return None
        self._shooting.act(m, None if budget_s is None else budget_s / 4)
        return self._shooting.plan.detach().double().cpu().numpy().reshape(m.n, -1)

    def _plan(
        self, row: int, s0: Vector, reference: Matrix, u_prev: Vector, first: Vector | None, limit: float
    ) -> tuple[Vector | None, Outcome]:
        begun = time.perf_counter()
        old = self._plans.pop(row, None)
        if limit > 0 and np.abs(s0).max(initial=0.0) < LARGEST:
            program, arrays = self._encode(s0, reference, u_prev)
            start = None if first is None else program.evaluate(first)
            left = limit - (time.perf_counter() - begun)
            if left > 0:
                found = solve(arrays, time_limit=left, start=start, gap=self.gap)
                if found.result != Result.NONE:
                    self._plans[row] = found.x[: len(program.lower)]
                    code = Outcome.OPTIMAL if found.result == Result.OPTIMAL else Outcome.INCUMBENT
                    return self._plans[row], code
        if first is not None:
            self._plans[row] = first
            return first, Outcome.INCUMBENT
        if old is not None:
            width = self.problem.actions.m
            self._plans[row] = np.concatenate([old[width:], old[-width:]])
            return self._plans[row], Outcome.SHIFTED
        return None, Outcome.NEUTRAL

    def _encode(self, s0: Vector, reference: Matrix, u_prev: Vector) -> tuple[Program, Arrays]:
        program = unroll(self._system, s0, self.problem.actions, self.horizon)
        found = linear_bounds(program) if self.bounds == "linear" else interval_bounds(program)
        encoder = Encoder(program, found)
        encoder.network(found)
        encoder.actions(self.problem.actions)
        encoder.objective(self._objective, reference, u_prev)
        return program, encoder.arrays()
