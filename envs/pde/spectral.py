"""Your own equation in thirty lines: linear symbol, flux, actuators, sensors, and how it starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.integrators import ETDRK4
from steersman.envs.objective import Objective, Quadratic, within
from steersman.envs.pde._space_time import draw
from steersman.envs.placement import constant, placed
from steersman.envs.plant import Plant, Status, Trail
from steersman.envs.tree import Params, State, tree_leaves

_START, _PROCESS, _SENSORS = 0, 1, 2


class SpectralPlant(Plant):
    """``u_t = L u - f(u)_x + s(u) + sum_i a_i g_i(x)`` on a ring, by Fourier modes and ETDRK4.

    The linear part is exact, so without flux and source a control step may be a single integrator step. Flux and source
    are taken on a grid of 3/2 as many points, so quadratic ones are free of aliasing. Gradients are exact.

    State ``[n, points]``: u at ``x_j = j length / points``. Measured: u at the sensors. Performance:
    ``sqrt(length / points) u``, whose sum of squares is the squared L2 norm; reference: the target, scaled likewise.
    Stage cost: ``period (||u - target||^2 + effort |a|^2)``, unless an objective is given. A row ends as VIOLATED where
    ``max |u|`` exceeds ``limit``.
    """

    def __init__(
        self,
        *,
        length: float,
        points: int,
        symbol: Callable[[Tensor], Tensor],
        start: Callable[[Tensor, Tensor], Tensor],
        actuators: Float[Tensor, "m points"],
        sensors: tuple[int, ...],
        dt: float,
        hold: int,
        horizon: int,
        flux: Callable[[Tensor], Tensor] | None = None,
        source: Callable[[Tensor], Tensor] | None = None,
        bound: float | None = 1.0,
        target: Float[Tensor, "points"] | None = None,
        effort: float = 0.1,
        process_noise: float = 0.0,
        sensor_noise: float = 0.0,
        limit: float = 1e3,
        objective: Objective | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """Set the equation up.

        Args:
            length: Circumference of the ring.
            points: Grid points, even.
            symbol: Maps wavenumbers q to the symbol of L, such as ``lambda q: -nu * q**2``; it may be complex.
            start: Initial profiles ``[n, points]`` from the positions and noise keys ``[n]``.
            actuators: Shapes g_i on the grid.
            sensors: Grid indices that are measured.
            dt: Integrator step.
            hold: Integrator steps per control step.
            horizon: Control steps in an episode.
            flux: f(u), such as ``lambda u: u**2 / 2``.
            source: s(u).
            bound: Largest modulus of an action; None for no bound.
            target: Profile that is aimed at; zero by default.
            effort: Weight of the actions.
            process_noise: Standard deviation of white noise that is added to u after each control step.
            sensor_noise: Standard deviation of the measurement noise.
            limit: Largest modulus of u.
            objective: Cost of your own; unless it states limits, those of u are added.
            dtype: Of states and outputs, float64 or float32; coefficients are computed in float64 either way.

        Raises:
            ValueError: If a number is out of range, or shapes do not fit the grid.
        """
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
        self.dtype = dtype
        if points < 4 or points % 2:
            raise ValueError(f"points must be an even number of at least 4, got {points}")
        for name, value in (("length", length), ("dt", dt), ("limit", limit)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive finite number, got {value}")
        if hold < 1 or horizon < 1:
            raise ValueError(f"hold and horizon must be at least 1, got {hold} and {horizon}")
        if bound is not None and not bound > 0:
            raise ValueError(f"bound must be positive, or None for no bound, got {bound}")
        if actuators.dim() != 2 or actuators.shape[1] != points:
            raise ValueError(f"actuators must have shape [m, {points}], got {tuple(actuators.shape)}")
        if not all(0 <= i < points for i in sensors):
            raise ValueError(f"sensors must be grid indices in 0..{points - 1}, got {sensors}")
        self.length, self.points, self.sensors, self.limit = length, points, tuple(sensors), limit
        self.dt, self.hold, self.horizon, self.gradient, self.time_unit = dt, hold, horizon, "exact", "time units"
        self.symbol, self.flux, self.source, self.start = symbol, flux, source, start
        self.process_noise, self.sensor_noise = process_noise, sensor_noise
        self.actuators = actuators.to(torch.float64)
        self.target = torch.zeros(points, dtype=dtype) if target is None else target.to(dtype)
        m, limits = len(actuators), math.inf if bound is None else float(bound)
        self.actions = ActionSet((-limits,) * m, (limits,) * m, names=tuple(f"force {i}" for i in range(m)))
        self.measured = tuple(f"u({i * length / points:g})" for i in sensors)
        self.performed = tuple(f"scaled u {j}" for j in range(points))
        own = objective or Objective((
            Quadratic(name="energy", on="e", weights=(self.period,) * points),
            Quadratic(name="effort", on="u", weights=(self.period * effort,) * m),
        ), failure=self.period * length * limit**2)  # fmt: skip
        bounds = (math.sqrt(length / points) * limit,) * points
        self.objective = replace(own, limits=own.limits or within(bounds, self.performed))
        self._built: dict[torch.device, tuple[ETDRK4, Tensor, Tensor]] = {}

    @property
    def grid(self) -> Float[Tensor, "points"]:
        """Positions of the grid points."""
        return torch.arange(self.points, dtype=torch.float64) * (self.length / self.points)

    def _scheme(self, device: torch.device) -> tuple[ETDRK4, Tensor, Tensor]:
        """Integrator, ``-i q`` and the transforms of the actuators; built once per device."""
        if device not in self._built:
            mode = torch.arange(self.points // 2 + 1, dtype=torch.float64)
            q = 2 * math.pi / self.length * mode
            wide = torch.complex128 if self.dtype == torch.float64 else torch.complex64
            linear = self.symbol(q).to(wide)
            slope = torch.complex(torch.zeros_like(q), -q * (mode < self.points // 2)).to(wide)
            shapes = torch.fft.rfft(self.actuators).to(wide)
            self._built[device] = (ETDRK4(linear, self.dt).to(device), slope.to(device), shapes.to(device))
        return self._built[device]

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """The key of the measurement noise, where there is any."""
        return {"sensor_key": noise.fold(key, _SENSORS)} if self.sensor_noise else {}

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """What ``start`` gives."""
        return self.start(placed(self.grid, key), noise.fold(key, _START)).to(self.dtype)

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        (profile,) = tree_leaves(x)
        scheme, slope, shapes = self._scheme(profile.device)
        # Coefficients are kept as the transform of the fine grid has them, so that no product needs a factor of 3/2.
        force = (1.5 * u).to(shapes.dtype) @ shapes
        fine, modes = 3 * self.points // 2, self.points // 2 + 1

        def nonlinear(v: Tensor) -> Tensor:
            if self.flux is None and self.source is None:
                return force
            values, total = torch.fft.irfft(v, n=fine), force
            if self.flux is not None:
                total = torch.addcmul(total, slope, torch.fft.rfft(self.flux(values))[:, :modes])
            if self.source is not None:
                total = total + torch.fft.rfft(self.source(values))[:, :modes]
            return total

        end = scheme.run(1.5 * torch.fft.rfft(profile), nonlinear, self.hold)
        after: Tensor = torch.fft.irfft(end / 1.5, n=self.points)
        return after + w.to(after) if self.process_noise else after

    def disturbance(self, key: Int64[Tensor, "n"], k: Int64[Tensor, "n"]) -> Tensor:
        """White noise ``[n, points]`` that is added after the control step, where there is any."""
        if not self.process_noise:
            return super().disturbance(key, k)
        drawn = noise.normal(noise.fold(noise.fold(key, k), _PROCESS), self.points, dtype=self.dtype)
        return self.process_noise * drawn

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n ny"]:
        """Values at the sensors, with noise where there is any."""
        (profile,) = tree_leaves(x)
        seen = profile[:, constant(tuple(self.sensors), profile, torch.int64)]
        if self.sensor_noise and "sensor_key" in p:
            drawn = noise.normal(noise.fold(p["sensor_key"], k), len(self.sensors), dtype=self.dtype)
            seen = seen + self.sensor_noise * drawn
        return seen

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n points"]:
        """Scaled grid values."""
        return math.sqrt(self.length / self.points) * tree_leaves(x)[0]

    def reference(self, k: Int64[Tensor, "n"], p: Params) -> Float[Tensor, "n points"]:
        """Scaled target."""
        return (math.sqrt(self.length / self.points) * placed(self.target, k)).expand(len(k), -1)

    def status(self, k: Int64[Tensor, "n"], x: State, p: Params) -> UInt8[Tensor, "n"]:
        """VIOLATED where the profile is out of bounds."""
        return (tree_leaves(x)[0].abs().amax(dim=1) > self.limit).to(torch.uint8) * int(Status.VIOLATED)

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """Space and time, the present profile with the target, the actions."""
        fields = np.stack([tree_leaves(x)[0][0].cpu().numpy() for x in trail.x])
        actions: NDArray[Any] = np.asarray(trail.u).reshape(-1, self.actions.m)
        time = np.asarray(trail.k) * self.period
        return draw(self.grid.numpy(), fields, time, actions, self.horizon * self.period, self.target.numpy())


def boxes(length: float, points: int, centres: tuple[float, ...], width: float) -> Float[Tensor, "m points"]:
    """Actuators that are 1 over ``width`` around their centres, and 0 elsewhere; the share of a cut cell counts."""
    h = length / points
    x = h * torch.arange(points, dtype=torch.float64)
    gap = (x - torch.tensor(centres, dtype=torch.float64)[:, None] + length / 2) % length - length / 2
    return ((width / 2 + h / 2 - gap.abs()) / h).clamp(0, 1)
