"""Bounds on the coordinates of a search, by reflection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.optimizers.wrapper import Wrapper


@dataclass
class BoundsMemory:
    """Bounds of each coordinate."""

    lower: Tensor
    upper: Tensor


@final
@dataclass(eq=False, kw_only=True)
class BoundedSearch(Wrapper[BoundsMemory]):
    """Any search between bounds: its points are reflected at them as often as it takes.

    The inner search sees an even continuation of the cost, which is as smooth as the cost up to a kink, so its steps
    and radii keep their meaning; clipping would put many points on the same corner.

    Attributes:
        lower: Least values, one for all coordinates or one for each; may be infinite.
        upper: Greatest values, likewise.
    """

    name: ClassVar[str] = "bounded"
    Memory: ClassVar[type[BoundsMemory]] = BoundsMemory

    lower: float | tuple[float, ...] = -1.0
    upper: float | tuple[float, ...] = 1.0

    def _begin(self, x0: Tensor) -> BoundsMemory:
        lower, upper = (self._bound(name, x0) for name in ("lower", "upper"))
        if not bool((lower < upper).all()):
            raise ValueError(f"lower must be below upper in every coordinate, got {self.lower} and {self.upper}")
        if not bool(((lower <= x0) & (x0 <= upper)).all()):
            raise ValueError("x0 must lie between lower and upper; move it inside or widen the bounds")
        self.inner.start(x0, gen=self.gen)
        return BoundsMemory(lower, upper)

    def _bound(self, name: str, x0: Tensor) -> Tensor:
        value = getattr(self, name)
        if isinstance(value, tuple) and len(value) != len(x0):
            raise ValueError(f"{name} has {len(value)} entries, x0 has {len(x0)}; give one for each or one for all")
        return x0.new_tensor(value).expand(len(x0)).clone()

    def _ask(self, out: Tensor) -> None:
        out.copy_(reflect(self.inner.ask(), self.memory.lower, self.memory.upper))

    @property
    def incumbent(self) -> Tensor:
        """The inner search's centre, reflected."""
        return reflect(self.inner.incumbent, self.memory.lower, self.memory.upper)


def reflect(
    x: Float[Tensor, "*n dim"], lower: Float[Tensor, "dim"], upper: Float[Tensor, "dim"]
) -> Float[Tensor, "*n dim"]:
    """Points mirrored at the bounds until they lie within; the identity between them."""
    width = upper - lower
    folded = lower + width - ((x - lower).remainder(2 * width) - width).abs()
    # Rounding can leave the last bit outside.
    both = folded.clamp(lower, upper)
    one = torch.where(torch.isfinite(lower), lower + (x - lower).abs(), upper - (upper - x).abs())
    inside = (lower <= x) & (x <= upper)
    return torch.where(inside, x, torch.where(torch.isfinite(width), both, one))
