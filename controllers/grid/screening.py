"""Preventive control by screening: every action against many what-ifs of a forecast, each a transient simulation."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steersman.controllers.base import Controller, Decision, Outcome, Training, TrainingCost
from steersman.dynamics.base import Dynamics
from steersman.dynamics.pinn.data import COLLOCATION, collocation, dense
from steersman.dynamics.pinn.fast import FastSwing
from steersman.dynamics.pinn.operator import SwingOperator, SwingSettings
from steersman.envs.grid.tasks.redispatch import BLOCK, FORECAST_ERROR, left_over
from steersman.envs.grid.tasks.structure_preserving import SWING, peak_swing
from steersman.envs.plant import ControlProblem
from steersman.envs.simulator import Measurement

BLOCK_ROWS = 4096
"""What-ifs that are evaluated together."""
LOOKS = 201
"""Times at which a swing of the network is looked at for its peak."""
SAFE = 1.0
"""Surplus in pu that the backup leaves: half a block below what is secure for certain."""

By = Literal["network", "integrator"]


class PinnScreening(Controller):
    """For each number of blocks, the mean cost over quantiles of the forecast's error; the cheapest is chosen.

    A what-if is a swing after the contingency, from a solution operator that is trained once
    (:mod:`steersman.dynamics.pinn.operator`) or from the batched integrator, which decides without a surrogate's
    error. Reads measured outputs only, but knows the equations of the contingency and the distribution of the error,
    which is what "solver access" means. Where the last screening took longer than the budget now allows, the blocks
    that leave at most :data:`SAFE` of the forecast are the backup.

    Args:
        errors: What-ifs per action: quantiles of the normal distribution of the forecast's error.
        by: Where the peak of a swing comes from.
        step: Step of the integrator, s.
        disturbances: Trajectories that the operator learns from, at Chebyshev points.
        adam: Steps of Adam.
        lbfgs: Iterations of L-BFGS on the states.
        polish: Iterations of L-BFGS with derivatives and the residual of the equations in the loss.
        rank: Functions of time.
        width: Units of the hidden layers.

    Raises:
        ValueError: If a number is out of range.
    """

    name = "pinn-screening"
    uses_state = True

    def __init__(
        self, errors: int = 256, by: By = "network", step: float = 0.005, disturbances: int = 121, adam: int = 300,
        lbfgs: int = 300, polish: int = 60, rank: int = 32, width: int = 64,
    ) -> None:  # fmt: skip
        """Store the settings."""
        for name, value, least in (("errors", errors, 1), ("disturbances", disturbances, 2)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not 0 < step <= 0.01:
            raise ValueError(f"step must lie in (0, 0.01] s since loads relax within 4 ms, got {step}")
        self.errors, self.by, self.step, self.disturbances = errors, by, step, disturbances
        self.settings = SwingSettings(rank=rank, width=width, adam=adam, lbfgs=lbfgs, polish=polish)
        self._operator: SwingOperator | None = None
        self._per_row = 0.0

    def bind(self, problem: ControlProblem, model: Dynamics | None = None) -> PinnScreening:
        """Attach the problem.

        Raises:
            ValueError: If it is not preventive redispatch, whose contingency is the only one known here.
        """
        if problem.measured != ("forecast", "swing") or not problem.actions.discrete or problem.actions.m != 1:
            raise ValueError(
                f"{self.name} screens the contingency of steersman/PreventiveRedispatch-v1 only, and this problem "
                f"measures {', '.join(problem.measured[:4])}; use mppi or cem with a model here"
            )
        super().bind(problem, model)
        return self

    @torch.no_grad()
    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        """See :class:`~steersman.controllers.base.Controller`."""
        began = time.perf_counter()
        low, high = self.problem.actions.lower[0], self.problem.actions.upper[0]
        if budget_s is not None and self._per_row * m.n > budget_s:
            enough = torch.ceil((m.y[:, :1] - SAFE) / BLOCK).clamp(low, high)
            return Decision(enough, torch.full((m.n,), int(Outcome.BACKUP), dtype=torch.uint8, device=m.y.device))
        blocks = torch.arange(low, high + 1, dtype=torch.float64, device=m.y.device)
        error = FORECAST_ERROR * torch.special.ndtri(
            (torch.arange(self.errors, device=m.y.device).double() + 0.5) / self.errors
        )
        left = left_over((m.y[:, :1].double() + error)[:, None], blocks[:, None])
        # The plant cuts the swing off where synchronism is lost, and its cost ends there.
        z = self.peaks(left.flatten()).reshape(left.shape).clamp(max=torch.pi)[..., None]
        u = blocks[:, None].expand(left.shape)[..., None]
        cost = self.problem.objective.stage_cost(z, u, u, torch.zeros_like(z))
        self._per_row = (time.perf_counter() - began) / m.n
        return self.optimal(blocks[cost.mean(dim=2).argmin(dim=1)][:, None].to(m.y))

    def train(self, training: Training) -> TrainingCost:
        """Integrate trajectories, each counted as one plant step, and fit the operator to them, if there is one."""
        if self.by == "integrator":
            return TrainingCost()
        began = time.process_time()
        operator = SwingOperator(SwingSettings(**{**vars(self.settings), "seed": training.seed}))
        operator.progress, operator.checkpoint = training.progress, training.folder
        operator.fit(dense(self.disturbances), collocation(*COLLOCATION))
        self._use(operator)
        if training.folder is not None:
            Path(training.folder).mkdir(parents=True, exist_ok=True)
            operator.save(Path(training.folder) / "swing.safetensors")
        return TrainingCost(self.disturbances, time.process_time() - began + operator.earlier_seconds)

    def _use(self, operator: SwingOperator) -> None:
        self._operator, self._fast = operator, FastSwing(operator, np.linspace(0.0, SWING, LOOKS))

    def peaks(self, dP: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Largest angle between the areas after the contingency, rad, at each disturbance in pu.

        Raises:
            RuntimeError: Before :meth:`train`, if the operator is asked.
        """
        if self.by == "integrator":
            return peak_swing(dP, self.step)
        if self._operator is None:
            raise RuntimeError("pinn-screening has no operator yet; call train(training) or load_state_dict first")
        parts = -(-len(dP) // BLOCK_ROWS)
        found = [self._fast.peak(part) for part in np.array_split(dP.cpu().numpy(), parts)]
        return torch.from_numpy(np.concatenate(found)).to(dP)

    def state_dict(self) -> dict[str, Tensor]:
        """The operator's weights."""
        return {} if self._operator is None else dict(self._operator.network.state_dict())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See :class:`~steersman.controllers.base.Controller`."""
        operator = SwingOperator(self.settings)
        operator.network.load_state_dict(state)
        self._use(operator)
