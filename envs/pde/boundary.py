"""Linear equations on the unit interval, unstable by themselves, that are controlled from the end x = 1."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Linear, Objective, Opaque, Quadratic, within
from steersman.envs.pde._space_time import draw
from steersman.envs.placement import placed
from steersman.envs.plant import Plant, Status, Trail
from steersman.envs.tree import Params, State, tree_leaves

LARGEST = 20.0
"""Bound of the boundary value."""
START = (1.0, 10.0)
"""Range of the constant profile at the start."""


def recirculation(x: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """``beta(x) = 5 cos(7.35 arccos x)``, a Chebyshev function (Bhan et al., L4DC 2024)."""
    return 5 * torch.cos(7.35 * torch.arccos(x.clamp(0, 1)))


def reaction(x: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """``lambda(x) = 50 cos(8 arccos x)`` (Bhan et al., L4DC 2024)."""
    return 50 * torch.cos(8 * torch.arccos(x.clamp(0, 1)))


class _Boundary(Plant, ABC):
    """What the plants below share: a profile on a grid, one action, and a linear map of each substep.

    ``u+ = M u + b U``; over a control step the map is raised to a power once, so a step is one product of matrices.
    Subclasses set ``points``, ``dt``, ``hold``, ``horizon`` and ``actions``.
    """

    points: int
    gradient = "exact"
    time_unit = "time units"

    @abstractmethod
    def _substep(self) -> tuple[Float[Tensor, "N N"], Float[Tensor, "N"]]:
        """M and b of one integrator step."""

    @property
    def grid(self) -> Float[Tensor, "N"]:
        """Positions of the grid points."""
        return torch.linspace(0, 1, self.points, dtype=torch.float64)

    @cached_property
    def _held(self) -> tuple[Tensor, Tensor]:
        return self._map(self.hold)

    def _map(self, substeps: int) -> tuple[Tensor, Tensor]:
        """Matrix ``[N, N]`` and column ``[N]`` of so many substeps under one action."""
        M, b = self._substep()
        whole = torch.zeros(self.points + 1, self.points + 1, dtype=torch.float64)
        whole[:-1, :-1], whole[:-1, -1], whole[-1, -1] = M, b, 1.0
        power = torch.linalg.matrix_power(whole, substeps)
        return power[:-1, :-1], power[:-1, -1]

    def _advance(self, profile: Tensor, u: Tensor, held: tuple[Tensor, Tensor]) -> Tensor:
        M, b = (placed(t, profile, profile.dtype) for t in held)
        return profile @ M.T + u.to(profile) * b

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """No parameters."""
        return {}

    def _start(self, key: Int64[Tensor, "n"]) -> Float[Tensor, "n N"]:
        level = START[0] + (START[1] - START[0]) * noise.uniform(noise.fold(key, 0), dtype=self.dtype)
        return level[:, None].expand(-1, self.points).clone()

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """The profile over space and time, now, and the boundary value."""
        fields = np.stack([_profile(x)[0].cpu().numpy() for x in trail.x])
        actions: NDArray[Any] = np.asarray(trail.u).reshape(-1, 1)
        return draw(self.grid.numpy(), fields, np.asarray(trail.k) * self.period, actions, self.horizon * self.period)


class _Quadratic(_Boundary, ABC):
    """The tasks of our own: eleven sensors and the integral of ``||u||^2 + weight U^2``.

    Measured: u at 0, 0.1, .. 1. Performance: ``sqrt(w_i) u_i`` with the weights of the trapezoidal rule, whose sum of
    squares is the squared L2 norm. A row ends as VIOLATED when ``max |u|`` exceeds :attr:`limit`.
    """

    limit: float

    def _task(self, weight: float) -> None:
        self.actions = ActionSet((-LARGEST,), (LARGEST,), names=("u(1)",))
        self.measured = tuple(f"u({i / 10:g})" for i in range(11))
        self.performed = tuple(f"scaled u {i}" for i in range(self.points))
        bounds = (self.limit * self._scale(self.grid)).tolist()
        self.objective = Objective((
            Quadratic(name="energy", on="z", weights=(self.period,) * self.points),
            Quadratic(name="effort", on="u", weights=(self.period * weight,)),
        ), failure=self.period * self.limit**2, limits=within(bounds, self.performed))  # fmt: skip

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """A constant profile, uniform in 1..10."""
        return self._start(key)

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        return self._advance(_profile(x), u, self._held)

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n 11"]:
        """Values at eleven sensors."""
        return _profile(x)[:, :: (self.points - 1) // 10]

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n N"]:
        """Scaled grid values."""
        profile = _profile(x)
        return profile * self._scale(profile)

    def _scale(self, like: Tensor) -> Float[Tensor, "N"]:
        """Square roots of the weights of the trapezoidal rule."""
        weight = torch.full((self.points,), 1 / (self.points - 1), dtype=like.dtype, device=like.device)
        weight[0] = weight[-1] = weight[0] / 2
        return weight.sqrt()

    def status(self, k: Int64[Tensor, "n"], x: State, p: Params) -> UInt8[Tensor, "n"]:
        """VIOLATED where the profile has grown out of bounds."""
        return (_profile(x).abs().amax(dim=1) > self.limit).to(torch.uint8) * int(Status.VIOLATED)


class TransportBoundary(_Quadratic):
    """``u_t = u_x + beta(x) u(0, t)``, ``u(1, t) = U``, ``|U| <= 20``: recirculation makes it unstable.

    beta is :func:`recirculation`. Along characteristics at Courant number 1 the transport is exact; the source is
    integrated by the trapezoidal rule, second order where profiles are smooth. They are not: a held action jumps, and
    the jump travels from grid point to grid point. Version 1, the published one, gives that point the value before the
    jump, which makes it first order (1.6 % in the mean at t = 2 under random actions). In version 2 it carries the mean
    of both sides, and where a jump reaches x = 0, as a control step ends, the source has on either side the value
    extrapolated from there: second order (0.4 %), but for the energy of jumps in the cost, each of which lacks a
    quarter of ``dx`` times its square.

    101 points, dt = dx = 0.01, the action is held for 0.05, 100 steps: held for 0.1, as elsewhere, sampled backstepping
    is unstable (spectral radius 1.004), which only the numerical diffusion of upwind differences hides. Cost: the
    integral of ``||u||^2 + 0.01 U^2``.

    Args:
        version: See above.

    Raises:
        ValueError: If there is no such version.
    """

    def __init__(self, version: int = 1) -> None:
        """Set up the task."""
        if version not in (1, 2):
            raise ValueError(f"version must be 1 (published, first order) or 2 (second order), got {version}")
        self.points, self.dt, self.hold, self.horizon, self.limit = 101, 0.01, 5, 100, 1e4
        self.version = version
        self._task(0.01)

    @cached_property
    def _held(self) -> tuple[Tensor, Tensor]:
        if self.version == 1:
            return super()._held
        n, half = self.points, self.dt / 2 * recirculation(self.grid)[:, None]
        # Rows: node values as linear functions of the profile before the control step and of the action.
        nodes = torch.eye(n, n + 1, dtype=torch.float64)
        action = torch.eye(n + 1, dtype=torch.float64)[-1:]
        nodes[-1] = (nodes[-1] + action[0]) / 2
        left = [3 * nodes[1] - 3 * nodes[2] + nodes[3]]
        for j in range(self.hold):
            moved = nodes[1:] + half[1:] * left[-1]
            ends = j == self.hold - 1
            left.append(3 * left[-1] - 3 * left[-2] + left[-3] if ends else moved[0] / (1 - half[0]))
            nodes = torch.cat([moved + half[:-1] * left[-1], action])
        return nodes[:, :-1], nodes[:, -1]

    def _substep(self) -> tuple[Tensor, Tensor]:
        n, beta = self.points, recirculation(self.grid)
        eye = torch.eye(n, dtype=torch.float64)
        # u_new[i] = u[i+1] + dt/2 (beta[i+1] u[0] + beta[i] u_new[0]), with u_new[0] solved first.
        explicit = torch.roll(eye, -1, dims=0)
        explicit[-1] = 0.0
        explicit[:-1, 0] += self.dt / 2 * beta[1:]
        first = explicit[0] / (1 - self.dt / 2 * beta[0])
        explicit[:-1] += self.dt / 2 * beta[:-1, None] * first
        column = torch.zeros(n, dtype=torch.float64)
        column[-1] = 1.0
        return explicit, column


class ReactionDiffusion(_Quadratic):
    """``u_t = u_xx + lambda(x) u``, ``u(0, t) = 0``, ``u(1, t) = U``, ``|U| <= 20``; lambda is :func:`reaction`.

    Second-order differences on 101 points, Crank-Nicolson steps of 1e-4, the action held for 0.01, 100 steps. Cost: the
    integral of ``||u||^2 + 0.01 U^2``. The start does not satisfy the boundary conditions; the first steps are implicit
    Euler's of half the size (Rannacher), folded into the start, so that no oscillation remains of that.
    """

    def __init__(self) -> None:
        """Set up the task."""
        self.points, self.dt, self.hold, self.horizon, self.limit = 101, 1e-4, 100, 100, 100.0
        self._task(0.01)

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """A constant profile, uniform in 1..10, after four implicit half steps with both ends at zero."""
        profile = self._start(key)
        profile[:, 0] = profile[:, -1] = 0.0
        inverse = torch.linalg.inv(torch.eye(self.points, dtype=torch.float64) - self.dt / 2 * self._operator())
        smoothed: Tensor = profile @ torch.linalg.matrix_power(inverse, 4).T.to(profile)
        return smoothed

    def _operator(self) -> Tensor:
        """Diffusion and reaction in the interior; zero rows at the ends."""
        n = self.points
        off = torch.ones(n - 1, dtype=torch.float64) * (n - 1) ** 2
        inner = torch.diag(off, 1) + torch.diag(off, -1) + torch.diag(reaction(self.grid) - 2 * (n - 1) ** 2)
        inner[0], inner[-1] = 0.0, 0.0
        return inner

    def _substep(self) -> tuple[Tensor, Tensor]:
        A, eye = self._operator(), torch.eye(self.points, dtype=torch.float64)
        left, right = eye - self.dt / 2 * A, eye + self.dt / 2 * A
        # The end takes its new value at once; the interior sees it at both ends of the step.
        right[-1], right[0] = 0.0, 0.0
        right[:, -1] = 0.0
        column = self.dt / 2 * A[:, -1]
        column[-1] = 1.0
        inverse = torch.linalg.inv(left)
        return inverse @ right, inverse @ column


class _Compat(_Boundary, ABC):
    """PDEControlGym's tasks with their rewards: cost is minus the return, the whole state is measured.

    Reward of a step: the norm 100 substeps before its end minus the norm at its end (Euclidean norms of the grid
    values, not scaled). At the end, if the norm is below 20: ``300 - norm - sum |u(1)| / 1000`` over all substeps.
    The last step has one substep less than the others. The norms and the sum are carried as augmented states.

    State: ``u`` ``[n, N]``, and ``before`` and ``spent`` ``[n]``.
    """

    def _task(self) -> None:
        self.actions = ActionSet((-LARGEST,), (LARGEST,), names=("u(1)",))
        self.measured = tuple(f"u {i}" for i in range(self.points))
        self.performed = ("decrease", "norm", "spent")
        self.objective = Objective(
            (Linear(name="decrease", on="z", weights=(-1.0, 0.0, 0.0)),),
            (Opaque(name="end", on="z", function=_bonus),),
        )

    @cached_property
    def _parts(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Maps to 100 substeps before the end of a step, of 100 substeps, and of 99."""
        return self._map(self.hold - 100), self._map(100), self._map(99)

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """A constant profile, uniform in 1..10."""
        profile = self._start(key)
        zero = torch.zeros_like(profile[:, 0])
        return {"u": profile, "before": torch.linalg.vector_norm(profile, dim=1), "spent": zero + profile[:, -1].abs()}

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        assert isinstance(x, dict)  # noqa: S101 - narrows the type
        first, whole, short = self._parts
        middle = self._advance(x["u"], u, first)
        last = (k == self.horizon - 1)[:, None]
        after = torch.where(last, self._advance(middle, u, short), self._advance(middle, u, whole))
        # 100 substeps before the end of the shortened last step lies one substep before the middle.
        spent = x["spent"] + (self.hold - last[:, 0].to(u.dtype)) * u[:, 0].abs()
        return {"u": after, "before": torch.linalg.vector_norm(middle, dim=1), "spent": spent}

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n N"]:
        """The profile."""
        return _profile(x)

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n 3"]:
        """Decrease of the norm over the last 100 substeps, the norm, and the sum of boundary values."""
        assert isinstance(x, dict)  # noqa: S101 - narrows the type
        norm = torch.linalg.vector_norm(x["u"], dim=1)
        decrease = torch.where(k == 0, torch.zeros_like(norm), x["before"] - norm)
        return torch.stack([decrease, norm, x["spent"]], dim=1)


class TransportBoundaryCompat(_Compat):
    """Transport as PDEControlGym steps it: upwind differences, dx = 0.01, dt = 1e-4, hold 0.1, 50 steps.

    The boundary value enters after the profile has moved. Published returns over 50 episodes: backstepping 243.06,
    PPO 189.98, SAC 179.90.
    """

    def __init__(self) -> None:
        """Set up the task."""
        self.points, self.dt, self.hold, self.horizon = 101, 1e-4, 1000, 50
        self._task()

    def _substep(self) -> tuple[Tensor, Tensor]:
        n, rate = self.points, self.dt * (self.points - 1)
        M = torch.eye(n, dtype=torch.float64) * (1 - rate) + torch.diag(torch.full((n - 1,), rate).double(), 1)
        M[:, 0] += self.dt * recirculation(self.grid)
        M[-1] = 0.0
        column = torch.zeros(n, dtype=torch.float64)
        column[-1] = 1.0
        return M, column


class ReactionDiffusionCompat(_Compat):
    """Reaction and diffusion as PDEControlGym steps them: Euler, dx = 0.005, dt = 1e-5, hold 0.001, 1000 steps.

    Published returns over 50 episodes: backstepping 298.98, PPO 293.19, SAC 233.11. Their backstepping was not
    bounded; pass ``bound=None`` for that.
    """

    def __init__(self, bound: float | None = LARGEST) -> None:
        """Set up the task with ``|U| <= bound``, or no bound."""
        if bound is not None and not (math.isfinite(bound) and bound > 0):
            raise ValueError(f"bound must be a positive finite number, or None for no bound, got {bound}")
        self.points, self.dt, self.hold, self.horizon = 201, 1e-5, 100, 1000
        self._task()
        limit = math.inf if bound is None else float(bound)
        self.actions = ActionSet((-limit,), (limit,), names=("u(1)",))

    def _substep(self) -> tuple[Tensor, Tensor]:
        n, rate = self.points, self.dt * (self.points - 1) ** 2
        off = torch.full((n - 1,), rate, dtype=torch.float64)
        M = torch.diag(1 - 2 * rate + self.dt * reaction(self.grid)) + torch.diag(off, 1) + torch.diag(off, -1)
        M[0], M[-1] = 0.0, 0.0
        column = torch.zeros(n, dtype=torch.float64)
        column[-1] = 1.0
        return M, column


def _bonus(z: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b"]:
    """Cost of the end: the bonus, or the ordinary reward where the norm has not come down."""
    decrease, norm, spent = z.unbind(dim=-1)
    return torch.where(norm < 20, norm + spent / 1000 - 300, -decrease)


def _profile(x: State) -> Tensor:
    return x["u"] if isinstance(x, dict) else tree_leaves(x)[0]
