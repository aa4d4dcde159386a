"""Chaos of the Kuramoto-Sivashinsky equation, to be calmed by eight actuators and seen by eight sensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Complex, Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.integrators import ETDRK4
from steersman.envs.objective import Objective, Quadratic, within
from steersman.envs.plant import Plant, Status, Trail
from steersman.envs.tree import Params, State, tree_leaves

LENGTH = 22.0
"""Circumference of the ring."""
POINTS = 64
"""Grid points ``x_j = j LENGTH / POINTS``."""
SITES = 8
"""Actuators and sensors, both at ``x_i = i LENGTH / SITES``."""
WIDTH = 0.4
"""Standard deviation of the Gaussian forcing of an actuator."""
TRANSIENT = 200.0
"""Time from small noise to the attractor."""
LIMIT = 15.0
"""Largest modulus of u: waves moving at that speed are 2 % wrong after 0.5 time units; at twice it the scheme fails."""
_SPACING = LENGTH / POINTS
_STEP = 0.05


@dataclass(frozen=True)
class _Spectral:
    """The equation on the Fourier coefficients of ``torch.fft.rfft``, on one device."""

    scheme: ETDRK4
    advection: Complex[Tensor, "modes"]
    """Maps the transform of ``u^2`` to that of ``-u u_x``, without the upper third of the modes."""
    forcing: Complex[Tensor, "sites modes"]
    """Transforms of the actuators' shapes."""

    def run(self, x: Float[Tensor, "n points"], u: Float[Tensor, "n sites"], steps: int) -> Float[Tensor, "n points"]:
        """Grid values after ``steps`` integrator steps under held actions."""
        force = u.to(self.forcing.dtype) @ self.forcing
        v = self.scheme.run(
            torch.fft.rfft(x),
            lambda v: torch.addcmul(force, self.advection, torch.fft.rfft(torch.fft.irfft(v, n=POINTS).square())),
            steps,
        )
        grid: Tensor = torch.fft.irfft(v, n=POINTS)
        return grid


@cache
def _spectral(device: torch.device) -> _Spectral:
    """Built once per device: plants of all variants share it."""
    mode = torch.arange(POINTS // 2 + 1, dtype=torch.float64)
    q = 2 * math.pi / LENGTH * mode
    linear = (q**2 - q**4).to(torch.complex128)
    kept = mode <= POINTS // 3
    advection = torch.complex(torch.zeros_like(q), -0.5 * q * kept)
    places = LENGTH / SITES * torch.arange(SITES, dtype=torch.float64)
    # The transform of a Gaussian is known, so its integral over the ring is 1 exactly.
    forcing = torch.polar((torch.exp(-0.5 * (WIDTH * q) ** 2) / _SPACING).expand(SITES, -1), -places[:, None] * q)
    return _Spectral(ETDRK4(linear, _STEP).to(device), advection.to(device), forcing.to(device))


class KuramotoSivashinsky(Plant):
    """Kuramoto-Sivashinsky chaos on a ring; the target is the flat state, which is an unstable equilibrium.

    ``u_t = -u_xx - u_xxxx - u u_x + sum_i a_i g_i(x)`` with period L = 22, where the free equation is chaotic
    (Cvitanovic, Davidchack, Siminos, SIAM J. Appl. Dyn. Syst. 9 (2010) 1). The eight ``g_i`` are periodic Gaussians
    of standard deviation 0.4 and unit integral at ``x_i = i L / 8``. Around u = 0 the wavenumbers 1 to 3 are
    unstable and the mean is neutral, 7 modes in all: eight equal sites control and see each of them, four do not
    (a sine of wavenumber 2 vanishes at all four).

    State ``[n, 64]``: u at ``x_j = j L / 64``. Measured: u at the eight ``x_i``, where the actuators are.
    Performance: the grid values times ``sqrt(L / 64)``, whose sum of squares is the squared L2 norm
    ``||u||^2 = integral u^2 dx`` (equal to the integral of the interpolant, up to its highest mode), followed by the
    norm itself, which the objective leaves alone: the stage cost ``0.25 (||u||^2 + 0.1 |a|^2)`` is convex in z and z
    is linear in x where it matters. All quantities are dimensionless.

    On the attractor ``|u|`` stays below about 4. Forces that push the mean one way for long raise it without limit;
    above 15 the row ends as VIOLATED, because the integrator is not accurate there.

    Integration: pseudo-spectral with the upper third of the modes removed from the product (2/3 rule), ETDRK4 at
    0.05 time units, actions held for 0.25. A scenario is normal noise of standard deviation 0.1 on the grid, left
    to itself for 200 time units; with frequent restarts, a bank of scenarios saves that time. Gradients are exact.

    Args:
        bound: Largest modulus of an action; None for unbounded actions.

    Raises:
        ValueError: If ``bound`` is not a positive finite number.
    """

    def __init__(self, bound: float | None = 1.0) -> None:
        """Set up the plant."""
        if bound is not None and not (math.isfinite(bound) and bound > 0):
            raise ValueError(f"bound must be a positive finite number, or None for no bound, got {bound}")
        limit = math.inf if bound is None else float(bound)
        self.dt, self.hold, self.horizon = _STEP, 5, 400
        self.gradient = "exact"
        self.time_unit = "time units"
        places = [f"{i * LENGTH / SITES:g}" for i in range(SITES)]
        grid = tuple(f"scaled u {j}" for j in range(POINTS))
        self.actions = ActionSet((-limit,) * SITES, (limit,) * SITES, names=tuple(f"force at x={x}" for x in places))
        self.objective = Objective(
            (
                Quadratic(name="energy", on="z", weights=(0.25,) * POINTS + (0.0,)),
                Quadratic(name="effort", on="u", weights=(0.025,) * SITES),
            ),
            # What the largest admissible state costs, so that leaving early never pays.
            failure=0.25 * LENGTH * LIMIT**2,
            limits=within((math.sqrt(_SPACING) * LIMIT,) * POINTS, grid),
        )
        self.measured = tuple(f"u at x={x}" for x in places)
        self.performed = (*grid, "norm")

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """No parameters."""
        return {}

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """Small noise after 200 time units without control: points of the attractor."""
        x = 0.1 * noise.normal(noise.fold(key, 0), POINTS, dtype=self.dtype)
        idle = torch.zeros(len(x), SITES, dtype=x.dtype, device=x.device)
        return _spectral(x.device).run(x, idle, round(TRANSIENT / self.dt))

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        grid = _grid(x)
        return _spectral(grid.device).run(grid, u, self.hold)

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n ny"]:
        """Values of u at the eight sites."""
        return _grid(x)[:, :: POINTS // SITES]

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n nz"]:
        """Scaled grid values and the L2 norm, whose gradient at u = 0 is taken as zero."""
        scaled = math.sqrt(_SPACING) * _grid(x)
        return torch.cat([scaled, torch.linalg.vector_norm(scaled, dim=1, keepdim=True)], dim=1)

    def status(self, k: Int64[Tensor, "n"], x: State, p: Params) -> UInt8[Tensor, "n"]:
        """VIOLATED where u leaves the range in which the integrator is accurate."""
        return (_grid(x).abs().amax(dim=1) > LIMIT).to(torch.uint8) * int(Status.VIOLATED)

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """Space-time picture so far, the present profile with its forces, the actions and the norm over time."""
        from steersman.envs.pde.kuramoto_sivashinsky_picture import draw

        return draw(trail, self.period, self.horizon, LENGTH, self.actions)


def _grid(x: State) -> Float[Tensor, "n points"]:
    (grid,) = tree_leaves(x)
    return grid
