"""CPU time of a swing: a fitted operator, scipy's methods at several tolerances, and the batched integrator."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import odeint, solve_ivp
from scipy.interpolate import BarycentricInterpolator

from steersman.dynamics.pinn.data import SwingGrid, dense
from steersman.dynamics.pinn.fast import FastSwing, compiled
from steersman.dynamics.pinn.operator import SwingOperator
from steersman.envs.grid.tasks import structure_preserving as grid

TIMES = np.linspace(0.0, grid.SWING, 201)
ASKED = (0.5, 1.65, 2.4, 4.0, 6.0)
"""Disturbances of the queries: both sides of the loss of synchronism, and the ends of what makes it hard."""
TOLERANCES = {
    "odeint": (1e-3, 3e-4, 1e-4),
    "LSODA": (1e-3, 3e-4, 1e-4),
    "RK45": (1e-3, 3e-4),
    "DOP853": (1e-4, 1e-5),
    "Radau": (1e-3,),
    "BDF": (3e-4,),
}
ALLOWED = 0.02
"""Largest error of an angle that counts, rad."""


@dataclass(frozen=True)
class Speed:
    """CPU time of one way to the answer.

    Attributes:
        name: The way.
        query: ``point`` (the states 2 s after clearing) or ``trajectory`` (201 times).
        seconds: CPU seconds of one query, mean over the disturbances; per scenario in a batch.
        error: Largest error of an angle over the disturbances and times, rad.
    """

    name: str
    query: str
    seconds: float
    error: float


def surrogate(operator: SwingOperator) -> list[Speed]:
    """One point, a trajectory at fixed times, one at times not known before, and a batch of 2048 trajectories."""
    fast = FastSwing(operator, TIMES)
    reference = _reference()
    points = np.array([[fast.point(float(t), dP) for t in TIMES] for dP in ASKED])
    ready = np.array([fast.trajectory(dP) for dP in ASKED])
    free = np.array([fast.along(fast.times, dP) for dP in ASKED])
    many, times = torch.linspace(0, grid.LARGEST, 2048, dtype=torch.float64), torch.tensor(TIMES)
    ways: list[tuple[str, str, Callable[[], object], int, NDArray[np.float64]]] = [
        ("network", "point", lambda: [fast.point(2.0, dP) for dP in ASKED], 200, points),
        ("network, fixed times", "trajectory", lambda: [fast.trajectory(dP) for dP in ASKED], 20, ready),
        ("network, any times", "trajectory", lambda: [fast.along(fast.times, dP) for dP in ASKED], 20, free),
    ]
    found = [
        Speed(name, query, _best(work, repeats) / len(ASKED), _error(states, reference))
        for name, query, work, repeats, states in ways
    ]
    whole = operator.predict(times, torch.tensor(ASKED, dtype=torch.float64)).numpy()
    seconds = _best(lambda: operator.predict(times, many), 1) / len(many)
    return [*found, Speed("network in torch, batch of 2048", "trajectory", seconds, _error(whole, reference))]


def solvers() -> list[Speed]:
    """Methods of scipy with a right-hand side in numpy, and the same compiled."""
    reference, found = _reference(), []
    for method, tolerances in TOLERANCES.items():
        for tolerance in tolerances:
            for label, make in (("", _slope), (", compiled", _compiled_slope)):
                for query, asked in (("point", None), ("trajectory", TIMES)):
                    name = f"scipy {method}{label}, {tolerance:g}"
                    seconds, states = _solve(method, tolerance, make, reference[:, 0], asked)
                    at = reference[:, -1:] if asked is None else reference
                    found.append(Speed(name, query, seconds, _error(states, at)))
    return found


def batched() -> list[Speed]:
    """Our Runge-Kutta method of order 4 in steps of 8 ms, per scenario."""
    found = []
    fine = torch.linspace(0.0, grid.LARGEST, 65, dtype=torch.float64)
    coarse = grid.integrate(grid.start(fine), fine, grid.Stage.TRIPPED, 0.008, 250)[:, ::5]
    error = (coarse - grid.swing_trajectories(fine, every=16))[..., list(grid.ANGLES)].abs().max().item()
    for batch in (1, 256, 2048):
        dP = torch.linspace(0.0, grid.LARGEST, batch, dtype=torch.float64)
        x0 = grid.start(dP)
        seconds = _best(lambda x0=x0, dP=dP: grid.integrate(x0, dP, grid.Stage.TRIPPED, 0.008, 250), 1) / batch  # type: ignore[misc]
        found.append(Speed(f"own integrator, batch of {batch}", "trajectory", seconds, error))
    return found


def interpolated(test: SwingGrid) -> float:
    """Largest error of an angle, rad, of a table: the same 121 trajectories, interpolated by a polynomial in dP."""
    nodes = dense().dP
    known = grid.swing_trajectories(nodes, every=4).numpy()
    found = BarycentricInterpolator(nodes.numpy(), known)(test.dP.numpy())
    return _error(found, test.x.numpy())


def fastest(speeds: list[Speed], query: str, prefix: str, without: str = "?") -> Speed:
    """The quickest way whose name starts so and lacks ``without``, of those right to :data:`ALLOWED`."""
    return min(
        (
            s
            for s in speeds
            if s.query == query and s.name.startswith(prefix) and without not in s.name and s.error <= ALLOWED
        ),
        key=lambda s: s.seconds,
    )


def _error(states: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    return float(np.abs(states - reference)[..., list(grid.ANGLES)].max())


def _reference() -> NDArray[np.float64]:
    states: NDArray[np.float64] = grid.swing_trajectories(torch.tensor(ASKED, dtype=torch.float64), every=4).numpy()
    return states


def _slope(dP: float) -> Callable[[float, NDArray[np.float64]], NDArray[np.float64]]:
    A, C, G, c, e = grid.matrices(grid.Stage.TRIPPED)
    held = c + dP * e
    return lambda t, x: x @ A + np.sin(x @ C) @ G + held


def _compiled_slope(dP: float) -> Callable[[float, NDArray[np.float64]], NDArray[np.float64]]:
    A, C, G, c, e = (np.ascontiguousarray(part) for part in grid.matrices(grid.Stage.TRIPPED))
    held = c + dP * e
    return lambda t, x: _right_hand_side(x, A, C, G, held)


@compiled()
def _right_hand_side(
    x: NDArray[np.float64], A: NDArray[np.float64], C: NDArray[np.float64], G: NDArray[np.float64],
    held: NDArray[np.float64],
) -> NDArray[np.float64]:  # fmt: skip
    out = held.copy()
    for j in range(7):
        difference = 0.0
        for i in range(10):
            difference += x[i] * C[i, j]
        flow = np.sin(difference)
        for s in range(10):
            out[s] += flow * G[j, s]
    for i in range(4, 8):
        for s in range(4):
            out[s] += x[i] * A[i, s]
    return out


def _solve(
    method: str,
    tolerance: float,
    make: Callable[[float], Callable[[float, NDArray[np.float64]], NDArray[np.float64]]],
    starts: NDArray[np.float64],
    asked: NDArray[np.float64] | None,
) -> tuple[float, NDArray[np.float64]]:
    at = np.array([grid.SWING]) if asked is None else asked
    slopes = [make(dP) for dP in ASKED]

    def whole() -> NDArray[np.float64]:
        if method == "odeint":
            # The same LSODA without the overhead of solve_ivp: one call into compiled code.
            when = np.concatenate([[0.0], at[at > 0]])
            runs = [
                odeint(f, x, when, rtol=tolerance, atol=tolerance, tfirst=True)
                for f, x in zip(slopes, starts, strict=True)
            ]
            return np.array(runs)[:, -len(at) :]
        return np.array([
            solve_ivp(f, (0.0, grid.SWING), x, method, t_eval=at, rtol=tolerance, atol=tolerance).y.T
            for f, x in zip(slopes, starts, strict=True)
        ])  # fmt: skip

    states = whole()
    return _best(whole, 1) / len(ASKED), states


def _best(work: Callable[[], object], repeats: int, turns: int = 8) -> float:
    """CPU seconds of a call, the best of some turns: the one that was disturbed least."""
    best = float("inf")
    for _ in range(turns):
        began = time.process_time()
        for _ in range(repeats):
            work()
        best = min(best, (time.process_time() - began) / repeats)
    return best
