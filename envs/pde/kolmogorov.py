"""Turbulence of Kolmogorov's flow, to be calmed by stirring at sixteen places."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Limit, Objective, Quadratic
from steersman.envs.pde.vorticity import VorticityFlow, spectrum
from steersman.envs.placement import placed
from steersman.envs.plant import Plant, Status, Trail
from steersman.envs.tree import Params, State, tree_leaves

REYNOLDS = 200.0
WAVES = 4
"""Waves of the force along y."""
SITES = 4
"""Actuators along a side."""
SENSORS = 8
"""Sensors along a side."""
WIDTH = 0.5
"""Standard deviation of the Gaussian torque of an actuator."""
FASTEST = 7.0
"""Largest speed at which the integrator is trusted."""
TRANSIENT = 10.0
"""Time from a random field to developed turbulence."""


class KolmogorovFlow(Plant):
    """Two-dimensional turbulence under ``sin(4 y)`` along x at Reynolds number 200, to be calmed.

    ``omega_t + u . grad omega = lap omega / 200 - 4 cos(4 y) + sum_i a_i g_i`` on a torus of side 2 pi (force and
    Reynolds number as in HydroGym's Kolmogorov flow; the grid is periodic here, without a doubled end point). The
    ``g_i`` are 4 x 4 periodic Gaussians of standard deviation 0.5 and unit maximum, less their mean: torques, since a
    torus takes no net one.

    State ``[n, 64, 64]``: vorticity, rows along y. Measured: vorticity at 8 x 8 points. Performance: root mean squares
    of vorticity and speed. Stage cost: the kinetic energy per unit of mass, ``0.5 rms(speed)^2``, and ``0.004
    |a|^2``. Left alone the flow gathers its energy in large eddies; torques against the local vorticity break them
    up. A speed above 7 is VIOLATED: the step is too long there. All quantities are dimensionless.

    Integration: RK4 with an integrating factor at 0.0125, actions held for 0.2, 100 steps. A scenario is a random
    field of wavenumbers up to 6 and rms vorticity 4, left to itself for 10 time units. Gradients are exact.

    Args:
        points: Grid points along a side; a multiple of 8.

    Raises:
        ValueError: If ``points`` is no multiple of 8 or does not resolve the flow.
    """

    def __init__(self, points: int = 64) -> None:
        """Set up the plant."""
        if points % SENSORS:
            raise ValueError(f"points must be a multiple of {SENSORS}, so that sensors are grid points, got {points}")
        self.points = points
        self.flow = VorticityFlow(points, 1 / REYNOLDS, 0.0125, FASTEST, scheme="rk4if")
        self.dt, self.hold, self.horizon = self.flow.dt, 16, 100
        self.gradient, self.time_unit = "exact", "time units"
        places = [(i, j) for j in range(SITES) for i in range(SITES)]
        self.actions = ActionSet(
            (-4.0,) * len(places), (4.0,) * len(places), names=tuple(f"torque {i},{j}" for i, j in places)
        )
        self.objective = Objective(
            (
                Quadratic(name="energy", on="z", weights=(0.0, 0.5, 0.0)),
                Quadratic(name="effort", on="u", weights=(0.004,) * len(places)),
            ),
            failure=0.5 * FASTEST**2,
            limits=(Limit(name="fastest", index=2, low=-FASTEST, high=FASTEST),),
        )
        self.measured = tuple(f"vorticity {i},{j}" for j in range(SENSORS) for i in range(SENSORS))
        self.performed = ("rms vorticity", "rms speed", "fastest")

    @cached_property
    def torques(self) -> Float[Tensor, "m N N"]:
        """Shapes of the actuators."""
        axis = self.flow.axis
        centres = 2 * math.pi * (torch.arange(SITES, dtype=torch.float64) + 0.5) / SITES
        gap = torch.remainder(axis[None] - centres[:, None] + math.pi, 2 * math.pi) - math.pi
        bell = torch.exp(-0.5 * (gap / WIDTH) ** 2)
        shapes = torch.einsum("jy,ix->jiyx", bell, bell).reshape(-1, self.points, self.points)
        return shapes - shapes.mean(dim=(1, 2), keepdim=True)

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """No parameters."""
        return {}

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """A random field after 10 time units without control."""
        draw = noise.normal(noise.fold(key, 0), self.points**2, dtype=self.dtype)
        modes = spectrum(draw.reshape(-1, self.points, self.points))
        ky = torch.fft.fftfreq(self.points, 1 / self.points, dtype=draw.dtype, device=draw.device)[:, None]
        kx = torch.fft.rfftfreq(self.points, 1 / self.points, dtype=draw.dtype, device=draw.device)
        square = kx**2 + ky**2
        omega = torch.fft.irfft2(modes * ((square > 0) & (square <= 36)), s=(self.points, self.points))
        omega = 4 * omega / omega.square().mean(dim=(1, 2), keepdim=True).sqrt()
        idle = torch.zeros(len(omega), self.actions.m, dtype=omega.dtype, device=omega.device)
        return self.flow.run(omega, self._source(idle), round(TRANSIENT / self.dt))

    def _source(self, u: Float[Tensor, "n m"]) -> Float[Tensor, "n N N"]:
        axis = placed(self.flow.axis, u, u.dtype)
        force = -WAVES * torch.cos(WAVES * axis)[:, None].expand(self.points, self.points)
        return force + torch.einsum("nm,myx->nyx", u, placed(self.torques, u, u.dtype))

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        omega = _field(x)
        return self.flow.run(omega, self._source(u.to(omega.dtype)), self.hold)

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n ny"]:
        """Vorticity at the sensors."""
        apart = self.points // SENSORS
        return _field(x)[:, ::apart, ::apart].flatten(1)

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n nz"]:
        """Root mean squares of vorticity and speed, and the largest speed."""
        omega = _field(x)
        square = self.flow.velocity(omega).square()
        speed, fastest = 2 * square.mean(dim=(1, 2, 3)), square.sum(dim=1).amax(dim=(1, 2))
        return torch.stack([omega.square().mean(dim=(1, 2)), speed, fastest], dim=1).clamp(min=1e-12).sqrt()

    def status(self, k: Int64[Tensor, "n"], x: State, p: Params) -> UInt8[Tensor, "n"]:
        """VIOLATED where the flow is faster than the integrator is accurate for."""
        fastest = self.flow.velocity(_field(x)).square().sum(dim=1).amax(dim=(1, 2))
        return (fastest > FASTEST**2).to(torch.uint8) * int(Status.VIOLATED)

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """Vorticity with sensors and torques, and rms vorticity and actions over time."""
        from steersman.envs.pde.kolmogorov_picture import draw

        return draw(trail, self.period, self.horizon, SENSORS, SITES)


def _field(x: State) -> Float[Tensor, "n N N"]:
    (omega,) = tree_leaves(x)
    return omega
