"""Linear-quadratic control: optimal feedback for an affine model, with full state or behind a Kalman filter."""

from __future__ import annotations

import time
from abc import ABC
from dataclasses import replace

import torch
from torch import Tensor

from steersman.controllers.base import Controller, Decision, Training, TrainingCost
from steersman.controllers.classical.linear_quadratic import AffineFeedback
from steersman.controllers.classical.quadratic_cost import quadratic_cost, regulation
from steersman.dynamics.base import Dynamics
from steersman.dynamics.estimation.kalman import KalmanEstimator, KalmanFilter
from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.truth.expansion import flatten_state
from steersman.envs.episodes import episodes
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import at_least, positive
from steersman.envs.simulator import Measurement


class _LinearQuadratic(Controller, ABC):
    """What LQR and LQG share: the feedback of a linear model."""

    def __init__(self, horizon: int | None = None, effort: float | None = None) -> None:
        """Store the settings.

        Args:
            horizon: Steps of the receding horizon, over which the reference is previewed. Near the end of the episode
                it is the steps that are left, and the objective's terminal terms are its end. None is infinite, with
                the present reference held and no terminal terms.
            effort: Brings the measured outputs to zero at the price ``|y|^2 + effort |u|^2``, for plants whose own
                objective is not quadratic; None takes the plant's objective.

        Raises:
            ValueError: If the horizon is below 1 or the effort not positive.
        """
        at_least(1, horizon=horizon)
        positive(effort=effort)
        self.horizon, self.effort = horizon, effort
        self.preview = horizon or 0

    def bind(self, problem: ControlProblem, model: Dynamics | None = None) -> _LinearQuadratic:
        """Solve for the feedback.

        Raises:
            ValueError: If the model is not linear, the objective not quadratic and no effort is given, or the infinite
                horizon has no optimum.
        """
        if not isinstance(model, LinearDynamics):
            raise ValueError(
                f"{self.name} needs a linear model, got {type(model).__name__}; use 'linear' or 'linearized'"
            )
        super().bind(problem, model)
        self._system = model.state_space()
        system = self._system
        if self.effort is None:
            cost = quadratic_cost(problem, terminal=self.horizon is not None)
        else:
            system = replace(system, Cz=system.C, dz=system.d)
            cost = regulation(problem, len(system.C), self.effort)
        self._feedback = AffineFeedback(system, cost, self.horizon, problem.horizon)
        return self

    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        """See :class:`~steersman.controllers.base.Controller`."""
        hidden = self.believe(m).hidden
        assert isinstance(hidden, dict)  # noqa: S101 - that of a linear model
        return self.optimal(self._feedback(hidden["s"], m))


class LQR(_LinearQuadratic):
    """Linear-quadratic regulator on the state that the model starts from: the true one, or a window of outputs."""

    name = "lqr"


class LQG(_LinearQuadratic):
    """The regulator behind a Kalman filter that sees the measured outputs only.

    The process noise is the model's own residual covariance plus ``process_noise`` on every state. A linearised plant
    can be calibrated: episodes under the regulator with the true state give the mean and covariance of the start, and
    the covariance of what the linear model misses.
    """

    name = "lqg"

    def __init__(
        self,
        horizon: int | None = None,
        process_noise: float = 1e-2,
        measurement_noise: float = 1e-2,
        calibrate: int = 0,
        start_noise: float | None = None,
        effort: float | None = None,
    ) -> None:
        """Store the settings; noises are standard deviations in the units of state and outputs.

        Args:
            horizon: As for :class:`LQR`.
            process_noise: Of every state, beside what is fitted.
            measurement_noise: Of every output.
            calibrate: Episodes of calibration, for a linearised plant; 0 does without.
            start_noise: Of every state at the start, beside what is calibrated; a wide one lets the first
                measurements decide. None begins in the filter's limit, or as calibrated.
            effort: As for :class:`LQR`.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(horizon, effort)
        positive(process_noise=process_noise, measurement_noise=measurement_noise, start_noise=start_noise)
        at_least(0, calibrate=calibrate)
        self.process_noise, self.measurement_noise, self.calibrate = process_noise, measurement_noise, calibrate
        self.start_noise = start_noise
        self._found: dict[str, Tensor] = {}

    def bind(self, problem: ControlProblem, model: Dynamics | None = None) -> LQG:
        """Solve for the feedback and the filter.

        Raises:
            ValueError: As for :class:`LQR`, and for calibration with a learned model.
        """
        super().bind(problem, model)
        if self.calibrate and not self.model.needs_state:  # type: ignore[union-attr]
            raise ValueError("calibrate compares with the true state; it needs model = 'linearized'")
        self._kept = [i for i in range(problem.ny) if i not in problem.exogenous]
        self._build()
        return self

    def train(self, training: Training) -> TrainingCost:
        """Calibrate, if asked to."""
        if not self.calibrate:
            return TrainingCost()
        began = time.process_time()
        simulator = training.simulate(self.calibrate)
        sys, missed, used = self._system, list[Tensor](), 0
        starts: list[Tensor] = []

        def act(m: Measurement) -> Tensor:
            starts.append(self._true(m))
            return self.problem.actions.project(self._feedback(starts[-1], m))

        scenarios = simulator.scenarios(training.keys(self.calibrate))
        for step in episodes(simulator, scenarios, act, ahead=self.preview):
            s, goes_on = starts[-1], step.running & ~step.result.ended
            used += int(step.running.sum())
            missed.append((self._true(step.after) - s @ sys.A.T - step.u.to(s) @ sys.B.T - sys.c)[goes_on])
        gaps = torch.cat(missed)
        self._found = {"mean": starts[0].mean(dim=0), "spread": starts[0].T.cov(), "missed": gaps.T @ gaps / len(gaps)}
        self._build()
        return TrainingCost(used, time.process_time() - began)

    def _true(self, m: Measurement) -> Tensor:
        assert m.x is not None  # noqa: S101 - calibration runs on a plant
        return flatten_state(m.x).double()

    def _build(self) -> None:
        sys, found = self._system, self._found
        eye = torch.eye(len(sys.A), dtype=sys.A.dtype)
        W = sys.W + self.process_noise**2 * eye + found.get("missed", 0.0 * eye)
        V = self.measurement_noise**2 * torch.eye(len(sys.C), dtype=sys.A.dtype)
        spread = found.get("spread", 0.0 * eye) + (self.start_noise or self.process_noise) ** 2 * eye
        known = bool(found) or self.start_noise is not None
        kalman = KalmanFilter(sys, W, V, (found.get("mean"), spread) if known else None)
        self.estimator = KalmanEstimator(kalman, self._kept)

    def state_dict(self) -> dict[str, Tensor]:
        """What the calibration found."""
        return dict(self._found)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See :class:`~steersman.controllers.base.Controller`."""
        self._found = dict(state)
        self._build()
