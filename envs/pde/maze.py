"""A maze of walls with seven exits, inside a box of air: the geometry of the smoke task."""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from steersman.envs.pde.staggered import StaggeredGrid

SIDE = 64
"""Side of the box, the unit of length being a cell of the coarse grid."""
RING = 8
"""Width of the ring outside the container, where the fans are."""
WALL = 2
EXITS = (
    ("left low", 8, 22), ("left high", 8, 42), ("top left", 18, 55), ("top", 32, 55), ("top right", 46, 55),
    ("right high", 55, 42), ("right low", 55, 22),
)  # fmt: skip
"""Names and centres (x, y) of the exits, 6 wide."""
TARGET = 3
BARS = ((16, 28, 24, 26), (36, 48, 24, 26), (24, 40, 36, 38), (31, 33, 44, 48), (16, 18, 34, 44), (46, 48, 34, 44))
"""Solid bars of the maze, ``x0, x1, y0, y1``."""


def layout(points: int) -> tuple[Bool[Tensor, "N N"], Bool[Tensor, "N N"], Int64[Tensor, "N N"]]:
    """Solid cells, cells of the ring, and the exit nearest to each cell."""
    centre = (torch.arange(points, dtype=torch.float64) + 0.5) * SIDE / points
    y, x = torch.meshgrid(centre, centre, indexing="ij")

    def box(x0: int, x1: int, y0: int, y1: int) -> Bool[Tensor, "N N"]:
        return (x > x0) & (x < x1) & (y > y0) & (y < y1)

    container = box(RING, SIDE - RING, RING, SIDE - RING)
    inner = RING + WALL
    solid = container & ~box(inner, SIDE - inner, inner, SIDE - inner)
    for _, x0, y0 in EXITS:
        solid &= ~box(x0 - 3, x0 + 3, y0 - 3, y0 + 3)
    for bar in BARS:
        solid |= box(*bar)
    apart = torch.stack([(x - x0).square() + (y - y0).square() for _, x0, y0 in EXITS])
    return solid, ~container, apart.argmin(dim=0)


@cache
def maze(points: int) -> tuple[StaggeredGrid, Bool[Tensor, "N N"], Int64[Tensor, "N N"]]:
    """Grid, ring and nearest exits; built once, since the tables of an exact projection take seconds at 128."""
    solid, ring, nearest = layout(points)
    return StaggeredGrid(points, points, SIDE / points, solid), ring, nearest
