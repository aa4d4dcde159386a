"""Linear equations on a ring: convection-diffusion-reaction, heat, and waves; each is stabilisable and detectable.

Six boxes act at places whose spacing is broken, so that no mode hides between them: identical actuators at equal
distances of 1/8, the custom elsewhere, cannot move the sine of wavenumber 4.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.pde._space_time import draw
from steersman.envs.pde.spectral import SpectralPlant, boxes
from steersman.envs.placement import constant, placed
from steersman.envs.plant import Plant, Trail
from steersman.envs.tree import Params, State, tree_leaves

CENTRES = (0.03, 0.21, 0.35, 0.57, 0.69, 0.88)
"""Middles of the actuators, each 0.1 wide."""
SENSORS = (0.0, 0.11, 0.25, 0.32, 0.49, 0.57, 0.74, 0.83)
"""Places of the sensors."""
_POINTS = 100


def _bump(x: Tensor, key: Tensor) -> Tensor:
    """A ridge of random height 0.3..0.7, width 0.04..0.06 and place."""
    height, width, place = noise.uniform(key, 3).unbind(1)
    gap = (x - place[:, None] + 0.5) % 1 - 0.5
    return (0.3 + 0.4 * height[:, None]) / torch.cosh(gap / (0.04 + 0.02 * width[:, None]))


def _indices() -> tuple[int, ...]:
    return tuple(round(s * _POINTS) for s in SENSORS)


def convection_diffusion_reaction() -> SpectralPlant:
    """``u_t = -0.1 u_x + 0.002 u_xx + 0.1 u`` with period 1: the mean and wavenumber 1 grow; controlgym's constants.

    100 points, hold 0.1, 100 steps, ``|a| <= 5``, cost of effort 0.1. Exact in time.
    """
    return SpectralPlant(
        length=1.0, points=_POINTS, symbol=lambda q: torch.complex(0.1 - 0.002 * q**2, -0.1 * q), start=_bump,
        actuators=boxes(1.0, _POINTS, CENTRES, 0.1), sensors=_indices(), dt=0.1, hold=1, horizon=100, bound=5.0,
    )  # fmt: skip


def heat() -> SpectralPlant:
    """``u_t = 0.01 u_xx``, to be brought to ``0.5 cos(2 pi x)``: all but the mean decays.

    100 points, hold 0.1, 100 steps, ``|a| <= 5``, cost of effort 0.1. Exact in time.
    """
    x = torch.arange(_POINTS, dtype=torch.float64) / _POINTS
    return SpectralPlant(
        length=1.0, points=_POINTS, symbol=lambda q: -0.01 * q**2, start=_bump, target=0.5 * torch.cos(2 * math.pi * x),
        actuators=boxes(1.0, _POINTS, CENTRES, 0.1), sensors=_indices(), dt=0.1, hold=1, horizon=100, bound=5.0,
    )  # fmt: skip


class Wave(Plant):
    """``u_tt = 0.01 u_xx + 0.0002 u_txx + sum_i a_i g_i``, period 1: long waves ring on, and the mean drifts.

    The light damping (Kelvin and Voigt's) grows with the wavenumber: undamped, the modes that a box of width 0.1 cannot
    move (every tenth) would stay for ever. State ``[n, 200]``: displacement and speed on 100 points. The map of a
    control step (0.1) is a matrix exponential, exact in time. Measured: displacement and speed at the sensors.
    Cost: the integral of ``||u||^2 + ||u_t||^2 + 0.1 |a|^2``. 200 steps, ``|a| <= 5``.
    """

    def __init__(self) -> None:
        """Set up the task."""
        self.dt, self.hold, self.horizon, self.gradient, self.time_unit = 0.1, 1, 200, "exact", "time units"
        m = len(CENTRES)
        self.actions = ActionSet((-5.0,) * m, (5.0,) * m, names=tuple(f"force at {x:g}" for x in CENTRES))
        self.objective = Objective((
            Quadratic(name="energy", on="z", weights=(self.period,) * 2 * _POINTS),
            Quadratic(name="effort", on="u", weights=(0.1 * self.period,) * m),
        ))  # fmt: skip
        self.measured = tuple(f"{name}({s:g})" for name in ("u", "u_t") for s in SENSORS)
        self.performed = tuple(f"scaled {name} {j}" for name in ("u", "u_t") for j in range(_POINTS))
        eye = torch.eye(_POINTS, dtype=torch.float64)
        mode = torch.arange(_POINTS // 2 + 1, dtype=torch.float64)
        laplacian = torch.fft.irfft(-((2 * math.pi * mode) ** 2) * torch.fft.rfft(eye), n=_POINTS)
        rate = torch.zeros(2 * _POINTS + m, 2 * _POINTS + m, dtype=torch.float64)
        rate[:_POINTS, _POINTS : 2 * _POINTS] = eye
        rate[_POINTS : 2 * _POINTS, :_POINTS] = 0.01 * laplacian
        rate[_POINTS : 2 * _POINTS, _POINTS : 2 * _POINTS] = 2e-4 * laplacian
        rate[_POINTS : 2 * _POINTS, 2 * _POINTS :] = boxes(1.0, _POINTS, CENTRES, 0.1).T
        self._map = torch.matrix_exp(self.dt * rate)[: 2 * _POINTS]

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """No parameters."""
        return {}

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """A ridge at rest, without its mean."""
        x = torch.arange(_POINTS, dtype=torch.float64, device=key.device) / _POINTS
        profile = _bump(x, noise.fold(key, 0))
        profile = profile - profile.mean(dim=1, keepdim=True)
        return torch.cat([profile, torch.zeros_like(profile)], dim=1)

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        (state,) = tree_leaves(x)
        return torch.cat([state, u.to(state)], dim=1) @ placed(self._map, state, state.dtype).T

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n ny"]:
        """Displacement and speed at the sensors."""
        at, (state,) = _indices(), tree_leaves(x)
        return state[:, constant((*at, *(_POINTS + i for i in at)), state, torch.int64)]

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n nz"]:
        """Scaled displacement and speed."""
        return tree_leaves(x)[0] / math.sqrt(_POINTS)

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """Displacement over space and time, now, and the actions."""
        fields = np.stack([tree_leaves(x)[0][0, :_POINTS].cpu().numpy() for x in trail.x])
        actions: NDArray[Any] = np.asarray(trail.u).reshape(-1, self.actions.m)
        time = np.asarray(trail.k) * self.period
        return draw(np.arange(_POINTS) / _POINTS, fields, time, actions, self.horizon * self.period)
