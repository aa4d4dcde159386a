"""Linear-quadratic control: optimal feedback for an affine model, with full state or behind a Kalman filter."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steersman.controllers.base import Controller, Decision, Memory, Training, TrainingCost
from steersman.dynamics.base import Dynamics
from steersman.dynamics.kalman import KalmanFilter
from steersman.dynamics.linear import AffineSystem, LinearDynamics
from steersman.dynamics.linearize import flatten_state
from steersman.dynamics.riccati import riccati
from steersman.envs.objective import Linear, Objective, Quadratic
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import at_least, positive
from steersman.envs.simulator import Measurement


@dataclass(frozen=True)
class QuadraticCost:
    """``z'Qz - 2 r'Ez + 2 q'z + u'Ru + 2 g'u + (u - u_prev)'S(u - u_prev)``, all matrices diagonal.

    Attributes:
        Q: Weights of z, those of e included.
        E: Weights of e alone, one for each reference; where all are zero, z need not be what references are for.
        q: Linear cost of z.
        R: Weights of u.
        g: Linear cost of u.
        S: Weights of the change of u.
    """

    Q: Float[Tensor, "nz"]
    E: Float[Tensor, "nr"]
    q: Float[Tensor, "nz"]
    R: Float[Tensor, "m"]
    g: Float[Tensor, "m"]
    S: Float[Tensor, "m"]


def quadratic_cost(problem: ControlProblem) -> QuadraticCost:
    """Read the stage cost of a problem; the failure cost is left out.

    Raises:
        ValueError: If a term is neither quadratic nor linear, or no term prices the actions.
    """
    nz, m = problem.nz, problem.actions.m
    Q, E, q = torch.zeros(3, nz, dtype=torch.float64)
    R, g, S = torch.zeros(3, m, dtype=torch.float64)
    for term in _terms(problem.objective):
        w = torch.tensor(term.weights, dtype=torch.float64)
        match term.on, isinstance(term, Quadratic):
            case "e", True:
                Q, E = Q + w, E + w
            case "z", True:
                Q = Q + w
            case "u", True:
                R = R + w
            case "du", True:
                S = S + w
            case (("e" | "z"), False):
                q = q + w / 2
            case "u", False:
                g = g + w / 2
            case _:
                raise ValueError(f"term {term.name!r}: a linear cost of changes adds up to nothing; drop it")
    if not bool((R + S > 0).all()):
        raise ValueError("LQR needs a quadratic cost of every action; add Quadratic(on='u') to the objective")
    return QuadraticCost(Q, E, q, R, g, S)


def regulation(problem: ControlProblem, outputs: int, effort: float) -> QuadraticCost:
    """Cost ``|y|^2 + effort |u|^2`` of bringing outputs to zero, in place of the problem's own."""
    zero_y, zero_u = torch.zeros(outputs, dtype=torch.float64), torch.zeros(problem.actions.m, dtype=torch.float64)
    none = torch.zeros(problem.nz, dtype=torch.float64)
    return QuadraticCost(zero_y + 1, none, zero_y, zero_u + effort, zero_u, zero_u)


def _terms(objective: Objective) -> list[Quadratic | Linear]:
    found: list[Quadratic | Linear] = []
    for term in objective.stage:
        if not isinstance(term, Quadratic | Linear):
            raise ValueError(
                f"LQR reads quadratic and linear terms, but {term.name!r} is {type(term).__name__}; "
                "give lqr an effort of its own, or use sampling or mixed-integer MPC for this objective"
            )
        found.append(term)
    return found


class AffineFeedback:
    """``u = -K (s, u_prev) - k(r)``, optimal for an affine model, over a receding or an infinite horizon.

    With ``V_j(x) = x'P_j x + 2 p_j'x`` for j steps to go, ``k = (R + B'PB)^-1 (B'(Pc + p) + g)`` and
    ``p_{j+1} = q + (A - BK)'(P_j c + p_j) - K'g`` (completing the square; Bertsekas, Dynamic Programming I, 3.1).
    The infinite horizon holds the present reference for ever and takes the p that repeats itself.
    """

    def __init__(self, system: AffineSystem, cost: QuadraticCost, horizon: int | None) -> None:
        """Solve the Riccati equation; ``horizon=None`` is the infinite one."""
        self.horizon = horizon
        self._augment(system, cost)
        if horizon is None:
            P = riccati(self.A - self.B @ self._cross, self.B, self.Qs - self.N @ self._cross, self.R)
            self._P, self._K = [P], [self._gain(P)]
            self._fixed_point()
            return
        self._P, self._K = [self.Qs], []
        for _ in range(horizon):
            P = self._P[-1]
            K = self._gain(P)
            self._K.append(K)
            self._P.append(self.Qs + self.A.T @ P @ self.A - K.T @ (self.R + self.B.T @ P @ self.B) @ K)

    def _gain(self, P: Tensor) -> Tensor:
        solved: Tensor = torch.linalg.solve(self.R + self.B.T @ P @ self.B, self.B.T @ P @ self.A + self.N.T)
        return solved

    def _augment(self, sys: AffineSystem, cost: QuadraticCost) -> None:
        """State ``(s, u_prev)``: the change of u becomes a cross term ``2 x'N u``."""
        ns, m = sys.B.shape
        eye, pad = torch.eye(m, dtype=torch.float64), torch.zeros(m, ns, dtype=torch.float64)
        A, B, S = sys.A.double(), sys.B.double(), torch.diag(cost.S)
        self.A = _block(A, 0 * S)
        self.B = torch.cat([B, eye])
        self.c = torch.cat([sys.c.double(), pad[:, 0]])
        Cz = sys.Cz.double()
        self.Qs = _block(Cz.T @ (cost.Q[:, None] * Cz), S)
        self.R, self.N, self.g = torch.diag(cost.R) + S, torch.cat([pad.T, -S]), cost.g
        self._cross = torch.linalg.solve(self.R, self.N.T)
        self._q0 = torch.cat([Cz.T @ (cost.Q * sys.dz.double() + cost.q), pad[:, 0]])
        aim = Cz.T * -cost.E if bool(cost.E.any()) else Cz.new_zeros(ns, len(cost.E))
        self._qr = torch.cat([aim, torch.zeros(m, len(cost.E), dtype=torch.float64)])

    def _fixed_point(self) -> None:
        P, K = self._P[0], self._K[0]
        closed = (self.A - self.B @ K).T
        right = (self._q0 + closed @ P @ self.c - K.T @ self.g)[:, None]
        eye = torch.eye(len(closed), dtype=torch.float64)
        solution = torch.linalg.lstsq(eye - closed, torch.cat([right, self._qr], dim=1), driver="gelsd").solution
        self._p0, self._pr = solution[:, 0], solution[:, 1:]

    def __call__(self, s: Float[Tensor, "n ns"], m: Measurement) -> Float[Tensor, "n m"]:
        """Optimal actions for model states ``s``."""
        x = torch.cat([s, m.u_prev], dim=1).double()
        if self.horizon is None:
            p, P, K = self._p0 + m.r[:, 0].double() @ self._pr.T, self._P[0], self._K[0]
        else:
            p, P, K = self._backward(m.references(self.horizon).double())
        k = torch.linalg.solve(self.R + self.B.T @ P @ self.B, ((P @ self.c + p) @ self.B + self.g).T).T
        u: Tensor = -x @ K.T - k
        return u.to(s)

    def _backward(self, r: Float[Tensor, "n h nz"]) -> tuple[Tensor, Tensor, Tensor]:
        """Linear part of the cost-to-go one step ahead, with its P, and the first gain."""
        p = self._q0 + r[:, -1] @ self._qr.T
        last = r.shape[1] - 1
        for j in range(last):
            P, K = self._P[j], self._K[j]
            after = (P @ self.c + p) @ (self.A - self.B @ K)
            p = self._q0 + r[:, last - j - 1] @ self._qr.T + after - self.g @ K
        return p, self._P[last], self._K[last]


def _block(a: Tensor, b: Tensor) -> Tensor:
    """Block-diagonal matrix of two square ones."""
    whole = a.new_zeros(len(a) + len(b), len(a) + len(b))
    whole[: len(a), : len(a)], whole[len(a) :, len(a) :] = a, b
    return whole


class _LinearQuadratic(Controller, ABC):
    """What LQR and LQG share: the feedback of a linear model."""

    def __init__(self, horizon: int | None = None, effort: float | None = None) -> None:
        """Store the settings.

        Args:
            horizon: Steps of the receding horizon, over which the reference is previewed; None is infinite, with
                the present reference held.
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
            ValueError: If the model is not linear, or the objective not quadratic and no effort is given.
        """
        if not isinstance(model, LinearDynamics):
            raise ValueError(
                f"{self.name} needs a linear model, got {type(model).__name__}; use 'linear' or 'linearized'"
            )
        super().bind(problem, model)
        self._system = model.state_space()
        system = self._system
        if self.effort is None:
            cost = quadratic_cost(problem)
        else:
            system = replace(system, Cz=system.C, dz=system.d)
            cost = regulation(problem, len(system.C), self.effort)
        self._feedback = AffineFeedback(system, cost, self.horizon)
        return self

    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        """See :class:`~steersman.controllers.base.Controller`."""
        return self._optimal(self._feedback(self._state(m), m))

    @abstractmethod
    def _state(self, m: Measurement) -> Float[Tensor, "n ns"]:
        """State of the model."""


class LQR(_LinearQuadratic):
    """Linear-quadratic regulator on the state that the model starts from: the true one, or a window of outputs."""

    name = "lqr"

    def reset(self, n: int, mask: Bool[Tensor, "n"] | None = None, *, gen: torch.Generator | None = None) -> None:
        """Clear the window."""
        super().reset(n, mask, gen=gen)
        if mask is None:
            assert self.model is not None  # noqa: S101 - narrows the type
            self._memory = Memory(self.model.context)
        else:
            self._memory.clear(mask)

    def _state(self, m: Measurement) -> Tensor:
        assert isinstance(self.model, LinearDynamics)  # noqa: S101 - narrows the type
        hidden = self.model.init(self._memory.push(m))
        assert isinstance(hidden, dict)  # noqa: S101 - narrows the type
        return hidden["s"]


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
        simulator.reset(simulator.scenarios(training.keys(self.calibrate)))
        sys, missed, used = self._system, [], 0
        m = simulator.measure(self.preview)
        first = self._true(m)
        alive = torch.ones(simulator.n, dtype=torch.bool)
        for _ in range(simulator.problem.horizon):
            s = self._true(m)
            u = self.problem.actions.project(self._feedback(s, m))
            used += int(alive.sum())
            alive = alive & ~simulator.step(u).ended
            m = simulator.measure(self.preview)
            missed.append((self._true(m) - s @ sys.A.T - u.to(s) @ sys.B.T - sys.c)[alive])
        gaps = torch.cat(missed)
        self._found = {"mean": first.mean(dim=0), "spread": first.T.cov(), "missed": gaps.T @ gaps / len(gaps)}
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
        self._filter = KalmanFilter(sys, W, V, (found.get("mean"), spread) if known else None)

    def state_dict(self) -> dict[str, Tensor]:
        """What the calibration found."""
        return dict(self._found)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See :class:`~steersman.controllers.base.Controller`."""
        self._found = dict(state)
        self._build()

    def reset(self, n: int, mask: Bool[Tensor, "n"] | None = None, *, gen: torch.Generator | None = None) -> None:
        """Start the filter again."""
        super().reset(n, mask, gen=gen)
        self._filter.clear(mask)

    def _state(self, m: Measurement) -> Tensor:
        seen = None if m.seen is None else m.seen[:, self._kept]
        return self._filter.update(m.y[:, self._kept], m.u_prev, seen)
