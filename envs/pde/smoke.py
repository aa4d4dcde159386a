"""Smoke in a maze, steered through one of seven exits by fans that stand outside."""

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
from steersman.envs.objective import Limit, Linear, Objective, Quadratic
from steersman.envs.pde.maze import EXITS, RING, SIDE, TARGET, maze
from steersman.envs.pde.staggered import Faces
from steersman.envs.placement import placed
from steersman.envs.plant import Plant, Status, Trail
from steersman.envs.tree import Params, State

FAN = 2.0
"""Largest speed that a fan asks for."""
RESPONSE = 4.0
"""Time in which the air in front of a fan follows it."""
FASTEST = 8.0


class Smoke(Plant):
    """Smoke in a closed maze of incompressible air; fans outside have to draw it through the exit at the top.

    After the indirect smoke control of Holl et al. (ICLR 2020) and DiffPhyCon (NeurIPS 2024): ``v_t + v . grad v =
    -grad p + forcing in the outer ring``, no viscosity but the grid's, smoke carried along, 256 steps, J = 1 - share
    through the target. The maze is our own, so published values of J do not apply. A box of 64 x 64 with closed
    walls; a container with walls 2 thick between 8 and 56, seven exits 6 wide, six bars. In the ring the air follows
    the commanded velocity with a time constant of 4. Smoke that has left the container is taken off and counted for
    the exit that is nearest.

    State: ``u`` and ``v`` on faces, ``smoke [n, N, N]`` in shares of the whole per cell, ``through [n, 7]`` the
    shares counted. Smoke inside and counted sums to 1: bilinear sampling does not conserve it, so it is rescaled
    after each step. Measured: smoke in the 6 x 6 blocks of 8 inside, velocities at their centres, the shares.
    Performance: ``1 - share through the target``, the share still inside, and the largest component of a velocity,
    above 8 of which a row is VIOLATED. Cost: ``1 - share`` at the end and ``1e-4 / m |a|^2`` a step.

    Actions: velocities ``(x, y)`` of the fans, patches of the ring of side ``patch``, within +-2. Steps of 1 held 8
    times, 32 control steps; midpoint semi-Lagrangian advection, exact projection. A scenario is the place of a
    Gaussian puff of smoke near the bottom and of a draught that carries it up. Gradients are exact.

    Args:
        points: Cells along a side, 64 or a multiple.
        patch: Side of a fan, a divisor of 8: 8 gives 28 fans, 1 the 1,792 cells of DiffPhyCon's ring.

    Raises:
        ValueError: If ``points`` is no multiple of 64 or ``patch`` no divisor of 8.
    """

    def __init__(self, points: int = SIDE, patch: int = RING) -> None:
        """Set up the task."""
        if points < SIDE or points % SIDE:
            raise ValueError(f"points must be a multiple of {SIDE}, so that walls lie on faces, got {points}")
        if patch < 1 or RING % patch:
            raise ValueError(f"patch must divide {RING}, got {patch}")
        self.points, self.patch = points, patch
        self.grid, self.ring, self.nearest = maze(points)
        self.dt, self.hold, self.horizon, self.gradient, self.time_unit = 1.0, 8, 32, "exact", "time units"
        fans = [(x, y) for y in range(0, SIDE, patch) for x in range(0, SIDE, patch) if self._outside(x, y)]
        self.fans = tuple((x + patch / 2, y + patch / 2) for x, y in fans)
        m = 2 * len(fans)
        names = tuple(f"fan {x:g},{y:g} {axis}" for axis in "xy" for x, y in self.fans)
        self.actions = ActionSet((-FAN,) * m, (FAN,) * m, names=names)
        missed = Linear(name="missed", on="z", weights=(1.0, 0.0, 0.0))
        fastest = Limit(name="fastest", index=2, low=-FASTEST, high=FASTEST)
        effort = Quadratic(name="fans", on="u", weights=(1e-4 / m,) * m)
        self.objective = Objective((effort,), (missed,), failure=1.0, limits=(fastest,))
        blocks = [(x, y) for y in range(RING, SIDE - RING, 8) for x in range(RING, SIDE - RING, 8)]
        self.measured = (
            *(f"smoke {x},{y}" for x, y in blocks),
            *(f"{axis} {x + 4},{y + 4}" for axis in "uv" for x, y in blocks),
            *(f"through {name}" for name, _, _ in EXITS),
        )
        self.performed = ("missed", "inside", "fastest")

    def _outside(self, x: int, y: int) -> bool:
        last = SIDE - RING
        return not (RING <= x < last and RING <= y < last)

    @cached_property
    def reach(self) -> Int64[Tensor, "N N"]:
        """Fan that moves each cell of the ring, the number of fans elsewhere."""
        place = ((torch.arange(self.points) + 0.5) * SIDE / self.points / self.patch).floor().long()
        lookup = torch.full((SIDE // self.patch,) * 2, len(self.fans), dtype=torch.int64)
        for i, (x, y) in enumerate(self.fans):
            lookup[int(y // self.patch), int(x // self.patch)] = i
        return lookup[place[:, None], place[None]]

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """No parameters."""
        return {}

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """A puff near the bottom and a draught through it."""
        n = len(key)
        draw = noise.uniform(noise.fold(key, 0), 4, dtype=self.dtype)
        centre = (torch.arange(self.points, dtype=draw.dtype, device=draw.device) + 0.5) * SIDE / self.points
        x0, y0 = (20 + 24 * draw[:, 0])[:, None, None], (15 + 4 * draw[:, 1])[:, None, None]
        fluid = ~self.grid.solid.to(draw.device)
        gap = (centre[None, None] - x0).square() + (centre[None, :, None] - y0).square()
        smoke = torch.exp(-gap / (2 * 2.5**2)) * fluid * ~self.ring.to(draw.device)
        up = (2.4 + 0.8 * draw[:, 2])[:, None, None] * torch.exp(-gap / (2 * 7.0**2))
        lean = (draw[:, 3] - 0.5)[:, None, None]
        flow = self.grid.project(self.grid.faces(torch.stack([lean * up, up], dim=1)))
        through = torch.zeros(n, len(EXITS), dtype=draw.dtype, device=draw.device)
        return {"u": flow.u, "v": flow.v, "smoke": smoke / smoke.sum(dim=(1, 2), keepdim=True), "through": through}

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        assert isinstance(x, dict)  # noqa: S101 - narrows the type
        flow, smoke, through = Faces(x["u"], x["v"]), x["smoke"], x["through"]
        wish = torch.nn.functional.pad(u.to(smoke).reshape(len(u), 2, -1), (0, 1))[:, :, placed(self.reach, u)]
        ring, grip = placed(self.ring, smoke, smoke.dtype), 1 - math.exp(-self.dt / RESPONSE)
        open_cell = (~placed(self.ring, smoke) & ~placed(self.grid.solid, smoke)).to(smoke)
        exits = torch.nn.functional.one_hot(placed(self.nearest, smoke).flatten(), len(EXITS)).to(smoke)
        pull = self.grid.faces((grip * ring).expand(1, 2, -1, -1))
        for _ in range(self.hold):
            flow, carried = self.grid.advect(flow, smoke[:, None], self.dt)
            target = self.grid.faces(wish)
            flow = Faces(flow.u + pull.u * (target.u - flow.u), flow.v + pull.v * (target.v - flow.v))
            flow = self.grid.project(flow)
            moved = carried[:, 0] * (open_cell + ring)
            moved = moved * ((1 - through.sum(dim=1)) / moved.sum(dim=(1, 2)).clamp(min=1e-300))[:, None, None]
            through = through + (moved * ring).flatten(1) @ exits
            smoke = moved * open_cell
        return {"u": flow.u, "v": flow.v, "smoke": smoke, "through": through}

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n ny"]:
        """Smoke in blocks inside, velocities at their centres, shares through the exits."""
        assert isinstance(x, dict)  # noqa: S101 - narrows the type
        size = 8 * self.points // SIDE
        inside = slice(size, -size)
        fields = torch.cat([x["smoke"][:, None], self.grid.centred(Faces(x["u"], x["v"]))], dim=1)
        blocks = torch.nn.functional.avg_pool2d(fields[:, :1, inside, inside], size) * size**2
        middle = slice(size + size // 2, -size, size)
        return torch.cat([blocks.flatten(1), fields[:, 1:, middle, middle].flatten(1), x["through"]], dim=1)

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n 3"]:
        """Share that has not gone through the target, share that is still inside, largest component of a velocity."""
        assert isinstance(x, dict)  # noqa: S101 - narrows the type
        return torch.stack([1 - x["through"][:, TARGET], x["smoke"].sum(dim=(1, 2)), _fastest(x)], dim=1)

    def status(self, k: Int64[Tensor, "n"], x: State, p: Params) -> UInt8[Tensor, "n"]:
        """VIOLATED where the air crosses a whole block of sensors in a step: traces are not accurate any more."""
        assert isinstance(x, dict)  # noqa: S101 - narrows the type
        return (_fastest(x) > FASTEST).to(torch.uint8) * int(Status.VIOLATED)

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """Smoke, walls, air and fans now, and the shares over time."""
        from steersman.envs.pde.smoke_picture import draw

        return draw(self, trail)


def _fastest(x: dict[str, Tensor]) -> Float[Tensor, "n"]:
    """Largest component of a velocity."""
    return torch.maximum(x["u"].abs().amax(dim=(1, 2)), x["v"].abs().amax(dim=(1, 2)))
