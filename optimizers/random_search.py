"""Random search: the yardstick that every other search must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

from torch import Tensor

from steersman.optimizers.base import Search
from steersman.optimizers.polystep.schedules import check_positive


@dataclass
class RandomMemory:
    """Centre, fixed."""

    x0: Tensor


@final
@dataclass(eq=False, kw_only=True)
class RandomSearch(Search[RandomMemory]):
    """Independent draws around the start; nothing is learnt but the best.

    Attributes:
        size: Draws per generation.
        spread: Standard deviation ("gaussian") or half-width of the box ("uniform") around ``x0``.
        law: Distribution of the draws.
    """

    name: ClassVar[str] = "random"
    Memory: ClassVar[type[RandomMemory]] = RandomMemory

    size: int = 32
    spread: float = 1.0
    law: Literal["gaussian", "uniform"] = "gaussian"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")
        check_positive("spread", self.spread)
        if self.law not in ("gaussian", "uniform"):
            raise ValueError(f"law must be 'gaussian' or 'uniform', got {self.law!r}")

    def _begin(self, x0: Tensor) -> RandomMemory:
        return RandomMemory(x0)

    def _size(self) -> int:
        return self.size

    def _ask(self, out: Tensor) -> None:
        if self.law == "gaussian":
            out.normal_(generator=self.gen)
        else:
            out.uniform_(-1.0, 1.0, generator=self.gen)
        out.mul_(self.spread).add_(self.memory.x0)

    def _tell(self, cost: Tensor) -> None:
        pass

    @property
    def incumbent(self) -> Tensor:
        """The best point: random search has no other idea of where to be."""
        return self.champion.x.clone()
