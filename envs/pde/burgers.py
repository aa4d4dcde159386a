"""Burgers' equation: bring it to a profile at the end, or follow a moving one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective, Quadratic, within
from steersman.envs.pde._space_time import draw
from steersman.envs.pde.finite_volume import Burgers, Scheme
from steersman.envs.pde.spectral import SpectralPlant
from steersman.envs.placement import placed
from steersman.envs.plant import Plant, Status, Trail
from steersman.envs.tree import Params, State, tree_leaves

POINTS = 128
VISCOSITY = 0.01
FRAME = 0.1
"""Time for which a force is held."""
FORCE = 12.0
"""Bound of the force at a point; eight Gaussians of 1.5 on top of each other."""
SAFE = 0.8
"""Bound of ``|u|`` in the safe variant."""
LIMIT = 20.0
"""Largest modulus of u."""
Coverage = Literal["FC", "FO-PC", "PO-PC"]
_START, _FORCES, _PROCESS, _SENSORS = 0, 1, 2, 3


def starts(x: Float[Tensor, "N"], key: Int64[Tensor, "n"]) -> Float[Tensor, "n N"]:
    """A Gaussian of height 0..2 at 0.2..0.4 and one of -2..0 at 0.6..0.8, each 0.05..0.15 wide."""
    unit = noise.uniform(noise.fold(key, _START), 2, 3)
    total = torch.zeros(len(key), len(x), dtype=torch.float64, device=key.device)
    for i, (low, sign) in enumerate(((0.2, 1.0), (0.6, -1.0))):
        place, height, width = (unit[:, i, j, None] for j in range(3))
        total = total + sign * 2 * height * torch.exp(-0.5 * ((x - low - 0.2 * place) / (0.05 + 0.1 * width)).square())
    return total


def forces(x: Float[Tensor, "N"], key: Int64[Tensor, "n"], frames: int) -> Float[Tensor, "n frames N"]:
    """Eight Gaussians in space and time, heights -1.5..1.5, widths 0.05..0.2 of the interval and of the time."""
    unit = noise.uniform(noise.fold(key, _FORCES), 8, 5)
    time = (torch.arange(frames, dtype=torch.float64, device=key.device) + 0.5) / frames
    total = torch.zeros(len(key), frames, len(x), dtype=torch.float64, device=key.device)
    for i in range(8):
        height, place, moment, width, length = (unit[:, i, j] for j in range(5))
        across = torch.exp(-0.5 * ((x - place[:, None]) / (0.05 + 0.15 * width[:, None])).square())
        along = torch.exp(-0.5 * ((time - moment[:, None]) / (0.05 + 0.15 * length[:, None])).square())
        total = total + (3 * height - 1.5)[:, None, None] * along[:, :, None] * across[:, None, :]
    return total


class _Burgers(Plant):
    """What both tasks share; subclasses set the objective and the references."""

    gradient = "exact"
    time_unit = "time units"

    def _equation(self, scheme: Scheme, substeps: int, forced: Bool[Tensor, "N"], bound: float | None) -> None:
        if substeps < 1:
            raise ValueError(f"substeps must be at least 1, got {substeps}")
        self.dt, self.hold = FRAME / substeps, substeps
        self.equation = Burgers(POINTS, VISCOSITY, self.dt, scheme)
        self._forced = torch.nonzero(forced)[:, 0]
        limit, m = float("inf") if bound is None else float(bound), len(self._forced)
        if not limit > 0:
            raise ValueError(f"bound must be positive, or None for no bound, got {bound}")
        places = self.grid[self._forced].tolist()
        self.actions = ActionSet((-limit,) * m, (limit,) * m, names=tuple(f"force at {x:.3f}" for x in places))

    @property
    def grid(self) -> Float[Tensor, "N"]:
        """Positions of the points."""
        return self.equation.grid

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        (profile,) = tree_leaves(x)
        force = torch.zeros_like(profile).index_copy(1, placed(self._forced, profile), u.to(profile))
        return self.equation.run(profile, force, self.hold)

    def _desired(self, x0: Tensor, key: Tensor) -> Float[Tensor, "n T1 N"]:
        """Profiles along the way that random forces lead where forces act, at control steps 0..horizon."""
        found, profile = [x0], x0
        acts = torch.zeros(POINTS, dtype=x0.dtype, device=x0.device)
        acts[self._forced.to(x0.device)] = 1.0
        for force in forces(self.grid.to(key.device), key, self.horizon).unbind(dim=1):
            profile = self.equation.run(profile, acts * force, self.hold)
            found.append(profile)
        return torch.stack(found, dim=1)

    def status(self, k: Int64[Tensor, "n"], x: State, p: Params) -> UInt8[Tensor, "n"]:
        """VIOLATED where u is out of bounds."""
        return (tree_leaves(x)[0].abs().amax(dim=1) > LIMIT).to(torch.uint8) * int(Status.VIOLATED)

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """Space and time, the present profile with the target, the force."""
        fields = np.stack([tree_leaves(x)[0][0].cpu().numpy() for x in trail.x])
        actions: NDArray[Any] = np.asarray(trail.u).reshape(-1, self.actions.m)
        time = np.asarray(trail.k) * self.period
        target = self._shown(trail)
        return draw(self.grid.numpy(), fields, time, actions, self.horizon * self.period, target)

    def _shown(self, trail: Trail) -> NDArray[Any]:
        shown: NDArray[Any] = trail.p["target"][0].cpu().numpy()
        return shown


class BurgersOpenLoop(_Burgers):
    """Burgers' equation on (0, 1), nu = 0.01, zero at the ends: reach a profile at T = 1 by ten held force fields.

    The task of DiffPhyCon and its successors: 128 interior points, explicit central differences with dt = 1e-4,
    starts of two Gaussians (:func:`starts`); the target is where random forces (:func:`forces`; our widths), acting
    where actions do, lead from the same start. J is the mean over points of ``(u(T) - target)^2``; nothing else is
    charged. ``coverage``: FC forces everywhere; FO-PC forces in the outer quarters; PO-PC also sees, and is judged,
    only there. Soft constraint: ``|u| <= 0.8`` at every control step, as in SafeDiffCon. Most starts break it, and most
    ways to a target; the safe variant scales starts and targets that do down to 0.8, and leaves the way to be found.

    State ``[n, 128]``. Measured: u where it is seen, then the target there (exogenous). Performance: u / sqrt(points
    judged). ``substeps`` per force field sets the step; 40 make a coarse model that gradients pass quickly.
    """

    def __init__(
        self,
        coverage: Coverage = "FC",
        scheme: Scheme = "central",
        substeps: int = 1000,
        bound: float | None = FORCE,
        safe: bool = False,
    ) -> None:
        """Set up the task.

        Args:
            coverage: Where forces act and u is seen.
            scheme: See :class:`~steersman.envs.pde.finite_volume.Burgers`.
            substeps: Integrator steps of a force field.
            bound: Largest modulus of the force at a point; None for no bound.
            safe: Whether starts and targets keep the constraint.

        Raises:
            ValueError: If the coverage is unknown, the step is not stable, or a number is out of range.
        """
        if coverage not in ("FC", "FO-PC", "PO-PC"):
            raise ValueError(f"coverage must be FC, FO-PC or PO-PC, got {coverage!r}")
        self.horizon, self.coverage, self.safe = 10, coverage, safe
        place = (torch.arange(POINTS) + 0.5) / POINTS
        outer = (place < 0.25) | (place > 0.75)
        everywhere = torch.ones_like(outer)
        self._equation(scheme, substeps, everywhere if coverage == "FC" else outer, bound)
        self._seen = torch.nonzero(outer if coverage == "PO-PC" else everywhere)[:, 0]
        seen = len(self._seen)
        miss = Quadratic(name="miss", on="e", weights=(1.0,) * seen)
        names = [f"{float(x):.3f}" for x in self.grid[self._seen]]
        self.measured = (*(f"u({x})" for x in names), *(f"target({x})" for x in names))
        self.performed = tuple(f"scaled u({x})" for x in names)
        limits = within((LIMIT / math.sqrt(seen),) * seen, self.performed)
        self.objective = Objective((), (miss,), failure=LIMIT**2, limits=limits)
        self.exogenous = tuple(range(seen, 2 * seen))
        self.constrained = ("unsafe",)

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """The target ``[n, 128]``."""
        target = self._desired(starts(self.grid.to(key.device), key), key)[:, -1]
        return {"target": _within(target) if self.safe else target}

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """Two Gaussians."""
        start = starts(self.grid.to(key.device), key)
        return _within(start) if self.safe else start

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n ny"]:
        """Profile and target where they are seen."""
        at = placed(self._seen, k)
        return torch.cat([tree_leaves(x)[0][:, at], p["target"][:, at]], dim=1)

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n nz"]:
        """Scaled profile where it is judged."""
        return tree_leaves(x)[0][:, placed(self._seen, k)] / math.sqrt(len(self._seen))

    def reference(self, k: Int64[Tensor, "n"], p: Params) -> Float[Tensor, "n nz"]:
        """Scaled target."""
        return p["target"][:, placed(self._seen, k)] / math.sqrt(len(self._seen))

    def constraints(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], p: Params) -> Float[Tensor, "n 1"]:
        """How far ``max |u|`` is above 0.8."""
        return tree_leaves(x)[0].abs().amax(dim=1, keepdim=True) - SAFE


def _within(profile: Float[Tensor, "n N"]) -> Float[Tensor, "n N"]:
    """Profiles scaled down to the safe bound where they exceed it."""
    return profile * (SAFE / profile.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)


class BurgersTracking(_Burgers):
    """The same equation and starts over T = 8: follow a moving profile in 80 steps of 0.1 (after CL-DiffPhyCon).

    The target is the way that random forces lead from the same start. Cost: the mean over steps and points of the
    squared error after each step, so the best possible cost is 0. Forces act everywhere. With ``noisy`` white noise of
    standard deviation 0.02 is added to u after each step, for feedback to matter. Measured: u and the target of the
    next step at 16 places.

    Profiles on the way to a target differ from those of the equation by 1 % in the mean with ``central``, whose steps
    are the first version's, and by 0.5 % with ``heun``, of which the steps make less than 0.01 % and the grid the rest.
    """

    def __init__(
        self,
        scheme: Scheme = "central",
        substeps: int | None = None,
        bound: float | None = FORCE,
        noisy: bool = False,
    ) -> None:
        """Set up the task.

        Args:
            scheme: See :class:`~steersman.envs.pde.finite_volume.Burgers`.
            substeps: Integrator steps of a control step; None for 40, or 80 if ``limited``.
            bound: Largest modulus of the force at a point; None for no bound.
            noisy: Whether there is process noise.

        Raises:
            ValueError: If the step is not stable or a number is out of range.
        """
        if substeps is None:
            substeps = 80 if scheme == "limited" else 40
        self.horizon, self.noisy = 80, noisy
        self._equation(scheme, substeps, torch.ones(POINTS, dtype=torch.bool), bound)
        self._seen = torch.arange(3, POINTS, POINTS // 16)
        weights = (1 / (POINTS * self.horizon),) * POINTS
        term = Quadratic(name="miss", on="e", weights=weights)
        names = [f"{float(x):.3f}" for x in self.grid[self._seen]]
        self.measured = (*(f"u({x})" for x in names), *(f"next target({x})" for x in names))
        self.performed = tuple(f"u {j}" for j in range(POINTS))
        limits = within((LIMIT,) * POINTS, self.performed)
        self.objective = Objective((term,), (term,), failure=LIMIT**2 / self.horizon, limits=limits)
        self.exogenous = tuple(range(len(names), 2 * len(names)))

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """Targets ``[n, 81, 128]`` of all control steps."""
        return {"target": self._desired(starts(self.grid.to(key.device), key), key)}

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """Two Gaussians."""
        return starts(self.grid.to(key.device), key)

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        (after,) = tree_leaves(super().step(k, x, u, w, p))
        return after + w.to(after) if self.noisy else after

    def disturbance(self, key: Int64[Tensor, "n"], k: Int64[Tensor, "n"]) -> Tensor:
        """White noise ``[n, 128]`` of the noisy variant."""
        if not self.noisy:
            return super().disturbance(key, k)
        return 0.02 * noise.normal(noise.fold(noise.fold(key, k), _PROCESS), POINTS)

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n 32"]:
        """Profile and next target at 16 places."""
        at = placed(self._seen, k)
        return torch.cat([tree_leaves(x)[0][:, at], self.reference(k + 1, p)[:, at]], dim=1)

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n 128"]:
        """The profile."""
        return tree_leaves(x)[0]

    def reference(self, k: Int64[Tensor, "n"], p: Params) -> Float[Tensor, "n 128"]:
        """Target of control step k; the last one afterwards."""
        rows = torch.arange(len(k), device=k.device)
        return p["target"][rows, k.clamp(max=self.horizon)]

    def _shown(self, trail: Trail) -> NDArray[Any]:
        shown: NDArray[Any] = trail.p["target"][0, min(trail.k[-1], self.horizon)].cpu().numpy()
        return shown


class BurgersNotebookCompat(Plant):
    """The Burgers task of controlgym's notebook: a ring, eight boxes, ten noisy sensors, the target 0.1 cos(2 pi x).

    ``u_t = 0.001 u_xx - u u_x + sum_i a_i g_i``, period 1, 64 points, ETDRK4 at 0.001, hold 0.05, 100 steps; starts
    ``A sech((x - 1/2) / s)`` with A in 0.9..1.1 and s in 0.04..0.06; process noise of variance 1e-5 on the grid after
    each step, sensor noise of variance 0.05; cost ``|u - target|^2 + |a|^2`` (sums over grid points). As there, what is
    measured after a step is the state before it. Published returns of PPO: -416.6 untrained, -172.1.

    State: ``u`` and ``seen`` (the profile one step before) ``[n, 64]``. Bounded variant: ``bound=2``.
    """

    def __init__(self, bound: float | None = None) -> None:
        """Set up the task; no bound on the actions by default, as in the notebook."""
        x = torch.arange(64, dtype=torch.float64) / 64
        shapes = torch.zeros(8, 64, dtype=torch.float64)
        for i in range(8):
            shapes[i, int(8 * i + 4 - 3.2) : int(8 * i + 4 + 3.2)] = 1.0
        self._ring = SpectralPlant(
            length=1.0, points=64, symbol=lambda q: -0.001 * q**2, flux=lambda u: u.square() / 2, start=_sech,
            actuators=shapes, sensors=tuple(6 * i for i in range(10)), dt=0.001, hold=50, horizon=100, bound=bound,
            target=0.1 * torch.cos(2 * math.pi * x), process_noise=1e-5**0.5, sensor_noise=0.05**0.5,
            objective=Objective((
                Quadratic(name="miss", on="e", weights=(64.0,) * 64),
                Quadratic(name="effort", on="u", weights=(1.0,) * 8),
            ), failure=1e4),
        )  # fmt: skip
        ring = self._ring
        self.dt, self.hold, self.horizon, self.gradient, self.time_unit = ring.dt, 50, 100, "exact", "time units"
        self.actions, self.objective = ring.actions, ring.objective
        self.measured, self.performed = ring.measured, ring.performed

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """The key of the measurement noise."""
        return self._ring.params(key)

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """A random ridge."""
        (profile,) = tree_leaves(self._ring.initial(key, p))
        return {"u": profile, "seen": profile.clone()}

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        (after,) = tree_leaves(self._ring.step(k, x["u"], u, w, p))  # type: ignore[index]
        return {"u": after, "seen": x["u"]}  # type: ignore[index]

    def disturbance(self, key: Int64[Tensor, "n"], k: Int64[Tensor, "n"]) -> Tensor:
        """White noise ``[n, 64]``."""
        return self._ring.disturbance(key, k)

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n 10"]:
        """Noisy values of the profile one step before."""
        return self._ring.measure(k, x["seen"], p)  # type: ignore[index]

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n 64"]:
        """Scaled profile."""
        return self._ring.perform(k, x["u"], p)  # type: ignore[index]

    def reference(self, k: Int64[Tensor, "n"], p: Params) -> Float[Tensor, "n 64"]:
        """Scaled target."""
        return self._ring.reference(k, p)

    def status(self, k: Int64[Tensor, "n"], x: State, p: Params) -> UInt8[Tensor, "n"]:
        """VIOLATED where the profile is out of bounds."""
        return self._ring.status(k, x["u"], p)  # type: ignore[index]

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """Space and time, the present profile with the target, the actions."""
        return self._ring.render(replace(trail, x=[x["u"] for x in trail.x]))  # type: ignore[index]


def _sech(x: Tensor, key: Tensor) -> Tensor:
    unit = noise.uniform(key, 2)
    return (0.9 + 0.2 * unit[:, :1]) / torch.cosh((x - 0.5) / (0.04 + 0.02 * unit[:, 1:]))
