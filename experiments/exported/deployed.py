"""A controller in a loop of one's own: observations in, actions out, in numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steersman.controllers.base import Controller, Outcome
from steersman.envs.plant import ControlProblem
from steersman.envs.simulator import Measurement
from steersman.envs.tree import Params, State

Vector = NDArray[np.float64]


class DeployedController:
    """``controller(observation) -> action``, once a control period.

    Attributes:
        problem: Outputs and actions with their names and bounds, the period and the horizon.
        limit_s: Seconds that a decision may take.
        outcome: How the last action came about; worse than ``OPTIMAL`` says that the controller fell back.
        seconds: How long the last decision took.
    """

    def __init__(
        self,
        controller: Controller,
        *,
        reference: Sequence[float] | Vector | None = None,
        limit_s: float | None = None,
        episode: bool = False,
    ) -> None:
        """Take a controller that is bound and, where it learns, trained.

        Args:
            controller: The controller.
            reference: References of the performance outputs where a call gives none.
            limit_s: Seconds that a decision may take; no limit by default.
            episode: Whether steps count, as in a comparison: a planner then knows that the episode ends, and a call
                after its last step is refused. By default every step is the first one of an episode: the horizon
                recedes.
        """
        self._controller, self.limit_s, self._episode = controller, limit_s, episode
        self.problem: ControlProblem = controller.problem
        self._constant = None if reference is None else _reference(reference, self.problem.nz)
        self.outcome, self.seconds = Outcome.NEUTRAL, 0.0
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Begin an episode."""
        self._controller.reset(1, gen=torch.Generator().manual_seed(seed))
        self._before = self.problem.actions.neutral(1, torch.zeros(1, dtype=torch.float64))
        self._k = 0

    def __call__(
        self,
        observation: Sequence[float] | Vector,
        reference: Sequence[float] | Vector | None = None,
        *,
        state: State | None = None,
        parameters: Params | None = None,
    ) -> Vector:
        """The action for the measured outputs ``[ny]``. Where one of them is NaN, it is the neutral action.

        Args:
            observation: Outputs in the order of ``problem.measured``; NaN was not measured.
            reference: References of the performance outputs ``[nz]``, or ``[h + 1, nz]`` with those of the steps ahead;
                by default those that the comparison had, where they were constant.
            state: True state ``[1, ..]``, for controllers that need it.
            parameters: True parameters ``[1, ..]``, likewise.

        Raises:
            ValueError: If a shape is wrong, or a reference is needed and none is known.
            RuntimeError: If the episode is over.
        """
        if self._episode and self._k >= self.problem.horizon:
            raise RuntimeError(f"the episode of {self.problem.horizon} steps is over; call reset, or leave out episode")
        y = _tensor("observation", observation, (self.problem.ny,))[None]
        r = self._followed() if reference is None else _reference(reference, self.problem.nz)
        k = torch.full((1,), self._k if self._episode else 0)
        m = Measurement(k, y, r[None], self._before, state, parameters)
        decision = self._controller.act(m, self.limit_s)
        self.outcome, self.seconds = Outcome(int(decision.outcome[0])), decision.seconds
        self._before, self._k = decision.u.double(), self._k + 1
        return decision.u[0].double().numpy()

    def _followed(self) -> Tensor:
        """References where a call gives none."""
        if self._constant is not None:
            return self._constant
        objective = self.problem.objective
        if any(term.on == "e" for term in (*objective.stage, *objective.terminal)):
            names = ", ".join(self.problem.performed)
            raise ValueError(
                f"the objective follows references, and none is known; give reference, one for each of {names}"
            )
        return torch.zeros(1, self.problem.nz, dtype=torch.float64)


def _reference(value: Sequence[float] | Vector, nz: int) -> Tensor:
    found = np.atleast_2d(np.asarray(value, dtype=np.float64))
    return _tensor("reference", found, (len(found), nz))


def _tensor(name: str, value: Sequence[float] | Vector, shape: tuple[int, ...]) -> Tensor:
    found = np.asarray(value, dtype=np.float64)
    if found.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {found.shape}")
    return torch.from_numpy(found.copy())
