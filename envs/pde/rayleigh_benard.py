"""Convection between two plates, heated from below, to be calmed by ten heaters."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Limit, Linear, Objective
from steersman.envs.pde.staggered import Faces, StaggeredGrid
from steersman.envs.placement import placed
from steersman.envs.plant import Plant, Status, Trail
from steersman.envs.tree import Params, State

RAYLEIGH, PRANDTL = 1e4, 0.71
SEGMENTS = 10
LARGEST = 0.75
"""Largest deviation of a heater from the mean temperature of the hot plate."""
HOT, COLD = 0.5, -0.5
FASTEST = 1.0
"""Largest speed at which the step is trusted; free convection reaches 0.3."""

Fields = tuple[Tensor, Tensor, Tensor]
"""Velocities u and v on inner faces, temperature at centres."""


class Convection:
    """Boussinesq flow in a closed square of side 1 with no-slip walls, in free-fall units, stepped by AB2/CN.

    ``v_t + v . grad v = -grad p + sqrt(Pr / Ra) lap v + T e_y``, ``div v = 0``, ``T_t + v . grad T = lap T / sqrt(Pr
    Ra)``; side walls are adiabatic. Central differences in conservative form on the staggered grid; Adams-Bashforth
    for advection and buoyancy, Crank-Nicolson for diffusion, pressure correction (Van Kan, SIAM J. Sci. Stat.
    Comput. 7 (1986) 870): order 2 in space and time. The eigenvectors of each second difference solve exactly.

    Args:
        points: Cells along a side.
        dt: Step.
        rayleigh: Rayleigh number.
        prandtl: Prandtl number.
    """

    def __init__(self, points: int, dt: float, rayleigh: float = RAYLEIGH, prandtl: float = PRANDTL) -> None:
        """Set up grid and tables."""
        self.grid, self.dt, self.spacing = StaggeredGrid(points, points, 1 / points), dt, 1 / points
        self.viscosity = math.sqrt(prandtl / rayleigh)
        self.diffusivity = 1 / math.sqrt(prandtl * rayleigh)
        walls = {"slope": _second(points, 1.0), "value": _second(points, -1.0), "face": _second(points - 1, 0.0)}
        self._bases = {name: torch.linalg.eigh(matrix * points**2) for name, matrix in walls.items()}

    def run(
        self, fields: Fields, p: Float[Tensor, "n N N"], hot: Float[Tensor, "n N"], steps: int
    ) -> tuple[Fields, Float[Tensor, "n N N"]]:
        """Fields and pressure after ``steps`` steps under a temperature ``hot`` of the lower plate."""
        h, dt = self.spacing, self.dt
        top = torch.full_like(hot, COLD)
        plates = self.diffusivity * 2 / h**2 * _ends(hot, top, self.grid.rows)
        sides = (
            ("value", "face", self.viscosity),
            ("face", "value", self.viscosity),
            ("value", "slope", self.diffusivity),
        )
        solvers = [self._solver(rows, cols, 0.5 * dt * rate, hot) for rows, cols, rate in sides]
        before: Fields | None = None
        for _ in range(steps):
            now = self._slopes(fields, hot)
            drive = now if before is None else tuple(1.5 * a - 0.5 * b for a, b in zip(now, before, strict=True))
            before = now
            push = (-torch.diff(p, dim=2) / h, -torch.diff(p, dim=1) / h, plates)
            u, v, temperature = (
                _implicit(f, dt * (d + s), solver) for f, d, s, solver in zip(fields, drive, push, solvers, strict=True)
            )
            flow = Faces(u, v)
            phi = self.grid.solve(self.grid.divergence(flow))
            u, v = u - torch.diff(phi, dim=2) / h, v - torch.diff(phi, dim=1) / h
            p, fields = p + phi / dt, (u, v, temperature)
        return fields, p

    def _slopes(self, fields: Fields, hot: Tensor) -> Fields:
        """Advection and buoyancy, in conservative form."""
        u, v, temperature = fields
        h = self.spacing
        wide, tall = pad(u, (1, 1)), pad(v, (0, 0, 1, 1))
        at_centre_u, at_centre_v = (wide[:, :, 1:] + wide[:, :, :-1]) / 2, (tall[:, 1:] + tall[:, :-1]) / 2
        # No-slip walls: products at corners on the walls are zero, so only inner corners are formed.
        corner = (u[:, 1:] + u[:, :-1]) * (v[:, :, 1:] + v[:, :, :-1]) / 4
        du = -torch.diff(at_centre_u.square(), dim=2) - torch.diff(pad(corner, (0, 0, 1, 1)), dim=1)
        dv = -torch.diff(at_centre_v.square(), dim=1) - torch.diff(pad(corner, (1, 1)), dim=2)
        lift = (temperature[:, 1:] + temperature[:, :-1]) / 2
        flux_x = u * (temperature[:, :, 1:] + temperature[:, :, :-1]) / 2
        flux_y = v * lift
        carried = torch.diff(pad(flux_x, (1, 1)), dim=2) + torch.diff(pad(flux_y, (0, 0, 1, 1)), dim=1)
        return du / h, dv / h + lift, -carried / h

    def _solver(self, rows: str, cols: str, half: float, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (below, down), (beside, across) = (
            tuple(placed(part, like, like.dtype) for part in self._bases[name]) for name in (rows, cols)
        )
        return down, across, half * (below[:, None] + beside[None])

    def heat(self, temperature: Float[Tensor, "n N N"]) -> Float[Tensor, "n"]:
        """Nusselt number: heat that reaches the cold plate, relative to conduction."""
        return 2 * (temperature[:, -1] - COLD).mean(dim=1) / self.spacing


def _second(cells: int, ghost: float) -> Float[Tensor, "N N"]:
    """Second difference; the neighbour beyond either end is ``ghost`` times the end."""
    matrix = torch.diag(torch.full((cells,), -2.0, dtype=torch.float64))
    matrix += torch.diag(torch.ones(cells - 1, dtype=torch.float64), 1)
    matrix += torch.diag(torch.ones(cells - 1, dtype=torch.float64), -1)
    matrix[0, 0] += ghost
    matrix[-1, -1] += ghost
    return matrix


def _implicit(field: Tensor, push: Tensor, solver: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Crank-Nicolson: ``(1 - A) after = (1 + A) field + push`` in the eigenvectors of A."""
    down, across, half = solver
    spectrum = (1 + half) * (down.mT @ field @ across) + down.mT @ push @ across
    after: Tensor = down @ (spectrum / (1 - half)) @ across.mT
    return after


def _ends(hot: Tensor, cold: Tensor, rows: int) -> Tensor:
    """Temperatures of the plates in the first and last row, zero between."""
    between = hot.new_zeros(len(hot), rows - 2, hot.shape[1])
    return torch.cat([hot[:, None], between, cold[:, None]], dim=1)


class RayleighBenard(Plant):
    """Convection at Ra 10^4, Pr 0.71 in a square cell: let less heat through by ten heaters in the hot plate.

    As in Beintema et al. (J. Turbul. 21 (2020) 585) and beacon's ``rayleigh``: a closed square, adiabatic no-slip
    sides, plates at +-0.5, ten segments of the lower plate changed by at most 0.75 each; the mean of the changes is
    taken off and the rest scaled back to 0.75 if need be, so that only the shape of the heating acts. Equations and
    scheme: :class:`Convection`; free-fall units, 50 x 50 cells, actions held for 2.0, 100 control steps. Left alone
    one roll fills the square and Nu is 2.158 (Ouertatani et al., C. R. Mecanique 336 (2008) 464); conduction has 1.

    State: ``u``, ``v`` on inner faces, ``T`` and ``p`` at centres. Measured: T, u and v averaged over 5 x 5 blocks.
    Performance: Nu at the cold plate, which is the stage cost, and the largest component of a velocity, above 1 of
    which a row is VIOLATED. A scenario is the sense of the roll and smooth random temperatures of rms 0.05 on top.
    Gradients are exact.

    Args:
        points: Cells along a side, a multiple of 10.
        dt: Step, which must divide the hold of 2.0.

    Raises:
        ValueError: If ``points`` is no multiple of 10, or ``dt`` does not divide 2.0 or violates the CFL condition.
    """

    def __init__(self, points: int = 50, dt: float = 0.02) -> None:
        """Set up the plant."""
        if points < SEGMENTS or points % SEGMENTS:
            raise ValueError(f"points must be a multiple of {SEGMENTS}, so that heaters end at faces, got {points}")
        hold = round(2.0 / dt) if dt > 0 else 0
        if hold < 1 or not math.isclose(hold * dt, 2.0):
            raise ValueError(f"dt must divide the hold of 2.0, got {dt}")
        if dt * FASTEST * points > 1:
            raise ValueError(f"dt={dt} exceeds the CFL limit at {points} points: choose dt <= {1 / FASTEST / points}")
        self.points, self.flow = points, Convection(points, dt)
        self.dt, self.hold, self.horizon, self.gradient, self.time_unit = dt, hold, 100, "exact", "free-fall times"
        self.actions = ActionSet(
            (-LARGEST,) * SEGMENTS, (LARGEST,) * SEGMENTS, names=tuple(f"heater {i}" for i in range(SEGMENTS))
        )
        fastest = Limit(name="fastest", index=1, low=-FASTEST, high=FASTEST)
        self.objective = Objective((Linear(name="heat", on="z", weights=(1.0, 0.0)),), failure=10.0, limits=(fastest,))
        self.measured = tuple(f"{name} {x},{y}" for name in ("T", "u", "v") for y in range(5) for x in range(5))
        self.performed = ("Nu", "fastest")

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """No parameters."""
        return {}

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """The steady roll, in either sense, and a random temperature."""
        draw = noise.normal(noise.fold(key, 0), 17, dtype=self.dtype)
        base = {name: part.to(draw) for name, part in roll(self.points).items()}
        left = (draw[:, 16] > 0)[:, None, None]
        x = {
            name: torch.where(left, part, (-1 if name == "u" else 1) * part.flip(2)) for name, part in base.items()
        }  # fmt: skip
        place = (torch.arange(self.points, dtype=draw.dtype, device=draw.device) + 0.5) / self.points
        mode = torch.arange(1, 5, dtype=draw.dtype, device=draw.device)
        across, up = torch.cos(math.pi * mode[:, None] * place), torch.sin(math.pi * mode[:, None] * place)
        smooth = torch.einsum("nij,iy,jx->nyx", draw[:, :16].reshape(-1, 4, 4), up, across)
        return {**x, "T": x["T"] + 0.05 * smooth / smooth.square().mean(dim=(1, 2), keepdim=True).sqrt()}

    def plate(self, u: Float[Tensor, "n m"]) -> Float[Tensor, "n N"]:
        """Temperature of the lower plate under an action."""
        shape = u - u.mean(dim=1, keepdim=True)
        shape = shape / (shape.abs().amax(dim=1, keepdim=True) / LARGEST).clamp(min=1.0)
        return HOT + shape.repeat_interleave(self.points // SEGMENTS, dim=1)

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        assert isinstance(x, dict)  # noqa: S101 - narrows the type
        hot = self.plate(u.to(x["T"]))
        (a, b, temperature), pressure = self.flow.run((x["u"], x["v"], x["T"]), x["p"], hot, self.hold)
        return {"u": a, "v": b, "T": temperature, "p": pressure}

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n 75"]:
        """Temperature and velocities, averaged over blocks."""
        assert isinstance(x, dict)  # noqa: S101 - narrows the type
        fields = torch.cat([x["T"][:, None], self.flow.grid.centred(Faces(x["u"], x["v"]))], dim=1)
        return avg_pool2d(fields, self.points // 5).flatten(1)

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n 2"]:
        """Nusselt number at the cold plate, largest component of a velocity."""
        assert isinstance(x, dict)  # noqa: S101 - narrows the type
        return torch.stack([self.flow.heat(x["T"]), _fastest(x)], dim=1)

    def status(self, k: Int64[Tensor, "n"], x: State, p: Params) -> UInt8[Tensor, "n"]:
        """VIOLATED where the flow is faster than the step is accurate for."""
        assert isinstance(x, dict)  # noqa: S101 - narrows the type
        return (_fastest(x) > FASTEST).to(torch.uint8) * int(Status.VIOLATED)

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """Temperature and flow now, Nu and the heaters over time."""
        from steersman.envs.pde.rayleigh_benard_picture import draw

        return draw(self, trail)


def _fastest(x: dict[str, Tensor]) -> Float[Tensor, "n"]:
    """Largest component of a velocity."""
    return torch.maximum(x["u"].abs().amax(dim=(1, 2)), x["v"].abs().amax(dim=(1, 2)))


@cache
def roll(points: int) -> dict[str, Tensor]:
    """The steady state from conduction with a weak roll, after 120 free-fall times.

    A pressure correction leaves no trace of the step in a steady state, so the step is the longest stable one.
    """
    dt = min(0.1, 2.5 / points)
    flow = Convection(points, dt)
    place = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    temperature = HOT - place[:, None] + 0.1 * torch.sin(math.pi * place)[:, None] * torch.cos(math.pi * place)
    fields: Fields = (
        torch.zeros(1, points, points - 1, dtype=torch.float64),
        torch.zeros(1, points - 1, points, dtype=torch.float64),
        temperature[None],
    )
    hot = torch.full((1, points), HOT, dtype=torch.float64)
    with torch.no_grad():
        (u, v, temperature), p = flow.run(fields, torch.zeros_like(temperature)[None], hot, round(120 / dt))
    return {"u": u, "v": v, "T": temperature, "p": p}
