"""Kundur's two areas as a structure-preserving system: four machines, two loads, a short circuit and a lost tie line.

Six nodes of fixed voltage, joined by lossless lines. With ``b_ij = V_i V_j B_ij`` and angles relative to the
inertia-weighted mean of the machines,

    machines:  delta_i' = omega_i - mean(omega),  2 H_i / (2 pi 60) omega_i' = P_i - sum_j b_ij sin(delta_i - delta_j)
    loads:     D_i delta_i' = P_i - sum_j b_ij sin(delta_i - delta_j)

A disturbance dP is injected at node 5 and settles for 5 s; node 6 is short-circuited for 50 ms; then one of the tie's
three circuits is out. Equations, numbers and sequence are those of Stiasny, Misyris and Chatzivasileiadis (arXiv
2106.13638, repository ``PINNs_transient_stability_analysis``), with its undocumented governor gain at zero. As there,
a load's frequency counts relative to the machines' mean, so the mean speed drifts by dP over the total inertia.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import IntEnum
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import fsolve
from torch import Tensor

from steersman.envs.integrators import rk4
from steersman.envs.placement import placed

FREQUENCY = 2 * math.pi * 60
"""Nominal speed, rad/s."""
INERTIA = (58.5, 58.5, 55.575, 55.575)
"""H of the machines in s, on 100 MVA."""
DAMPING = (0.2, 0.4)
"""D of the loads at nodes 5 and 6, pu s/rad."""
VOLTAGE = (1.03, 1.01, 1.03, 1.01, 0.961, 0.9714)
POWER = (7.0, 7.0, 6.34, 7.0, -9.67, -17.67)
"""Injections at the nodes, pu of 100 MVA."""
LINES = ((0, 1, 7.8461), (2, 3, 7.8461), (0, 4, 12.9499), (1, 4, 32.5581), (2, 5, 12.9499), (3, 5, 32.5581),
         (4, 5, 9.0982))  # fmt: skip
"""Nodes from 0 and susceptance in pu; the last is the tie."""
LARGEST = 6.0
"""Disturbances are 0 .. this, pu."""
SETTLING, SHORT, SWING = 5.0, 0.05, 2.0
"""Seconds of the disturbance alone, of the short circuit, and of the swing after it."""
STATES = ("angle 1", "angle 2", "angle 3", "angle 4", "speed 1", "speed 2", "speed 3", "speed 4", "angle 5", "angle 6")
"""Angles in rad, speeds as deviations from nominal in rad/s."""
ANGLES = (0, 1, 2, 3, 8, 9)
"""Places of the angles of nodes 1..6 in the state."""
NODES = 40
"""Chebyshev nodes of the state after the fault over dP: its interpolation error is below that of the integration."""
FINE = 0.0025
"""Step of reference trajectories in s; their angles are right to 4e-5 rad."""


class Stage(IntEnum):
    """What the network looks like."""

    SOUND = 0
    SHORT = 1
    TRIPPED = 2


def couplings(stage: Stage) -> Float[np.ndarray, "7"]:
    """``b_ij`` of the lines, pu."""
    voltage, lines = np.array(VOLTAGE), np.array([line[2] for line in LINES])
    if stage == Stage.SHORT:
        voltage[5] = 0.0
    if stage == Stage.TRIPPED:
        lines[-1] *= 2 / 3
    ends = np.array([line[:2] for line in LINES])
    coupled: Float[np.ndarray, "7"] = voltage[ends[:, 0]] * voltage[ends[:, 1]] * lines
    return coupled


def matrices(stage: Stage) -> tuple[Float[np.ndarray, "10 10"], Float[np.ndarray, "10 7"], Float[np.ndarray, "7 10"],
                                    Float[np.ndarray, "10"], Float[np.ndarray, "10"]]:  # fmt: skip
    """The system as ``x' = x A + sin(x C) G + c + dP e``: A, C, G, c, e."""
    H = np.array(INERTIA)
    incidence = np.zeros((len(LINES), 6))
    for row, (i, j, _) in enumerate(LINES):
        incidence[row, [i, j]] = 1.0, -1.0
    A, C, to_rate = np.zeros((10, 10)), np.zeros((10, len(LINES))), np.zeros((6, 10))
    A[4:8, :4] = np.eye(4) - H[:, None] / H.sum()
    C[list(ANGLES)] = incidence.T
    to_rate[range(4), range(4, 8)] = FREQUENCY / (2 * H)
    to_rate[[4, 5], [8, 9]] = 1 / np.array(DAMPING)
    return A, C, -couplings(stage)[:, None] * incidence @ to_rate, np.array(POWER) @ to_rate, to_rate[4]


@cache
def _tensors(stage: Stage, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(part, dtype=dtype, device=device) for part in matrices(stage))


def rate(x: Float[Tensor, "*b 10"], dP: Float[Tensor, "*b"], stage: Stage) -> Float[Tensor, "*b 10"]:
    """Time derivative of the states, in rad/s and rad/s^2, under the disturbance ``dP`` in pu."""
    A, C, G, c, e = _tensors(stage, x.dtype, x.device)
    return x @ A + torch.sin(x @ C) @ G + c + dP[..., None] * e


def _slope(dP: Float[Tensor, "n"], stage: Stage, like: Tensor) -> Callable[[Tensor], Tensor]:
    """:func:`rate` with everything that does not change in a run computed once."""
    A, C, G, c, e = _tensors(stage, like.dtype, like.device)
    held = c + dP[:, None] * e
    return lambda x: torch.addmm(torch.addmm(held, x, A), torch.sin(x @ C), G)


def integrate(x: Float[Tensor, "n 10"], dP: Float[Tensor, "n"], stage: Stage, h: float, steps: int) -> Tensor:
    """States ``[n, steps + 1, 10]`` by :func:`~steersman.envs.integrators.rk4`.

    The loads relax at up to 264 1/s, so steps above 10 ms are unstable.

    Raises:
        ValueError: If ``h`` is not in (0, 0.01].
    """
    if not 0 < h <= 0.01:
        raise ValueError(f"step h must lie in (0, 0.01] s since loads relax within 4 ms, got {h}")
    slope, found = _slope(dP, stage, x), [x]
    for _ in range(steps):
        found.append(rk4(slope, found[-1], h))
    return torch.stack(found, dim=1)


@cache
def equilibrium() -> tuple[float, ...]:
    """The undisturbed state: all powers balance, speeds are nominal."""
    incidence = matrices(Stage.SOUND)[1][list(ANGLES)]

    def surplus(others: Float[np.ndarray, "5"]) -> Float[np.ndarray, "5"]:
        angle = np.concatenate([[0.0], others])
        found: Float[np.ndarray, "5"] = (
            np.array(POWER) - incidence @ (couplings(Stage.SOUND) * np.sin(angle @ incidence))
        )[1:]
        return found

    angle = np.concatenate([[0.0], fsolve(surplus, np.zeros(5), xtol=1e-14)])
    angle -= np.dot(INERTIA, angle[:4]) / sum(INERTIA)
    return (*angle[:4].tolist(), 0.0, 0.0, 0.0, 0.0, *angle[4:].tolist())


def simulate_start(dP: Float[Tensor, "n"], h: float = FINE) -> Float[Tensor, "n 10"]:
    """State when the short circuit is cleared, by integration from the equilibrium in steps of ``h``."""
    x = dP.new_tensor(equilibrium()).expand(len(dP), -1)
    x = integrate(x, dP, Stage.SOUND, h, round(SETTLING / h))[:, -1]
    return integrate(x, dP, Stage.SHORT, h, round(SHORT / h))[:, -1]


@cache
def start_series() -> Float[np.ndarray, "k 10"]:
    """Chebyshev coefficients of the state at clearing over dP in 0 .. :data:`LARGEST`."""
    angle = np.pi * (np.arange(NODES) + 0.5) / NODES
    nodes = torch.tensor(LARGEST / 2 * (1 + np.cos(angle)))
    cosines = np.cos(np.arange(NODES)[:, None] * angle)
    series: Float[np.ndarray, "k 10"] = 2 / NODES * cosines @ simulate_start(nodes).numpy()
    series[0] /= 2
    return series


@cache
def _start_series() -> Float[Tensor, "k 10"]:
    return torch.as_tensor(start_series())


def start(dP: Float[Tensor, "n"]) -> Float[Tensor, "n 10"]:
    """State when the short circuit is cleared, from :func:`start_series`; differentiable in dP.

    Raises:
        ValueError: If a disturbance lies outside 0 .. :data:`LARGEST`.
    """
    # Written so that a NaN passes: a spoiled row stays its own affair.
    if bool(((dP < 0) | (dP > LARGEST)).any()):
        raise ValueError(
            f"dP must lie in 0 .. {LARGEST} pu, got {dP.min().item():.4g} .. {dP.max().item():.4g}; clip it"
        )
    series = placed(_start_series(), dP, dP.dtype)
    v = (2 / LARGEST * dP - 1)[:, None]
    # Clenshaw's recurrence, which unlike cos(k arccos v) has derivatives at the ends.
    ahead, beyond = torch.zeros_like(v), torch.zeros_like(v)
    for coefficients in series[1:].flip(0):
        ahead, beyond = coefficients + 2 * v * ahead - beyond, ahead
    return series[0] + v * ahead - beyond


def swing_trajectories(dP: Float[Tensor, "n"], h: float = FINE, every: int = 1) -> Float[Tensor, "n t 10"]:
    """The states over :data:`SWING` seconds after clearing, each ``every`` steps of ``h``."""
    return integrate(start(dP), dP, Stage.TRIPPED, h, round(SWING / h))[:, ::every]


def area_angle(x: Float[Tensor, "*b 10"]) -> Float[Tensor, "*b"]:
    """Mean angle of machines 1 and 2 minus that of machines 3 and 4, rad."""
    return (x[..., 0] + x[..., 1] - x[..., 2] - x[..., 3]) / 2


def peak_swing(dP: Float[Tensor, "n"], h: float = 0.005) -> Float[Tensor, "n"]:
    """Largest :func:`area_angle` over :data:`SWING` seconds after clearing, rad, among steps of ``h``."""
    x = start(dP)
    slope = _slope(dP, Stage.TRIPPED, x)
    peak = area_angle(x)
    for _ in range(round(SWING / h)):
        x = rk4(slope, x, h)
        peak = torch.maximum(peak, area_angle(x))
    return peak
