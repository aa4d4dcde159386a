"""Template polytopes: vertices on the unit sphere, centred, with isotropic second moment."""

from __future__ import annotations

import itertools
import math
from enum import StrEnum
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

_LARGEST_CUBE = 12


class Polytope(StrEnum):
    """Shapes that exist in every dimension d; their vertices sum to zero and ``sum v v^T = (V / d) I``."""

    ORTHOPLEX = "orthoplex"
    """``+-e_i``: mirrored pairs, 2d vertices."""
    SIMPLEX = "simplex"
    """d + 1 vertices, the fewest that span all directions."""
    CUBE = "cube"
    """``(+-1, .., +-1) / sqrt(d)``: 2^d vertices, for small d."""

    def size(self, d: int) -> int:
        """Number of vertices in dimension ``d``.

        Raises:
            ValueError: If ``d`` is below 1, or the cube is asked for in more than 12 dimensions.
        """
        if d < 1:
            raise ValueError(f"d must be at least 1, got {d}")
        if self is Polytope.CUBE and d > _LARGEST_CUBE:
            raise ValueError(f"d is {d}; a cube has 2^d vertices, take at most {_LARGEST_CUBE} or another polytope")
        sizes: dict[Polytope, int] = {Polytope.ORTHOPLEX: 2 * d, Polytope.SIMPLEX: d + 1, Polytope.CUBE: 1 << d}
        return sizes[self]

    def vertices(self, d: int) -> Float[Tensor, "V d"]:
        """Vertices in dimension ``d``, float64. Raises as :meth:`size`."""
        self.size(d)
        if self is Polytope.ORTHOPLEX:
            eye = torch.eye(d, dtype=torch.float64)
            return torch.cat([eye, -eye])
        if self is Polytope.SIMPLEX:
            return _simplex(d)
        signs = list(itertools.product((1.0, -1.0), repeat=d))
        return torch.tensor(signs, dtype=torch.float64) / math.sqrt(d)

    def turned(self, frames: Float[Tensor, "*batch d D"]) -> Float[Tensor, "*batch V D"]:
        """Vertices in frames whose rows are orthonormal directions; the product with :meth:`vertices`."""
        if self is Polytope.ORTHOPLEX:
            return torch.cat([frames, -frames], dim=-2)
        return _template(self, frames.shape[-2], frames.dtype, frames.device) @ frames


@lru_cache(maxsize=64)
def _template(polytope: Polytope, d: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return polytope.vertices(d).to(device, dtype)


def _simplex(d: int) -> Tensor:
    """Unit vectors with mutual products -1/d, column by column as in a Cholesky factorisation."""
    points = torch.zeros(d + 1, d, dtype=torch.float64)
    for i in range(d):
        points[i, i] = (1 - points[i, :i].square().sum()).sqrt()
        points[i + 1 :, i] = (-1 / d - points[i, :i] @ points[i, :i]) / points[i, i]
    return points
