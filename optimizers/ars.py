"""Augmented random search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from steersman.optimizers.base import Search
from steersman.optimizers.polystep.schedules import check_positive


@dataclass
class ARSMemory:
    """Present point."""

    x: Tensor


@final
@dataclass(eq=False, kw_only=True)
class ARS(Search[ARSMemory]):
    """Mirrored Gaussian directions; the best of them, weighted by cost differences over their standard deviation.

    Mania, Guy & Recht, "Simple Random Search Provides a Competitive Approach to Reinforcement Learning" (2018),
    algorithm V1-t; V2 adds the normalisation of observations, which belongs to whoever evaluates.

    Attributes:
        directions: N, each used with both signs.
        top: b, directions that are kept, by the lower cost of the two signs.
        noise: Standard deviation nu of the perturbation.
        rate: Step size alpha.
    """

    name: ClassVar[str] = "ars"
    Memory: ClassVar[type[ARSMemory]] = ARSMemory

    directions: int = 8
    top: int = 4
    noise: float = 0.2
    rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.directions < 1:
            raise ValueError(f"directions must be at least 1, got {self.directions}")
        if not 1 <= self.top <= self.directions:
            raise ValueError(f"top must lie between 1 and directions={self.directions}, got {self.top}")
        for name in ("noise", "rate"):
            check_positive(name, getattr(self, name))

    def _begin(self, x0: Tensor) -> ARSMemory:
        return ARSMemory(x0)

    def _size(self) -> int:
        return 2 * self.directions

    def _ask(self, out: Tensor) -> None:
        x, n = self.memory.x, self.directions
        self._deltas = torch.randn(n, len(x), generator=self.gen, dtype=x.dtype, device=x.device)
        torch.add(x, self._deltas, alpha=self.noise, out=out[:n])
        torch.sub(x, self._deltas, alpha=self.noise, out=out[n:])

    def _tell(self, cost: Tensor) -> None:
        m, pairs = self.memory, cost.view(2, -1)
        kept = pairs.amin(dim=0).argsort(stable=True)[: self.top]
        pairs = pairs[:, kept]
        spread = pairs.std(correction=0)
        weight = (pairs[0] - pairs[1]) * (self.rate / (self.top * spread))
        m.x = torch.where(spread > 0, m.x - weight.to(m.x.dtype) @ self._deltas[kept], m.x)

    @property
    def incumbent(self) -> Tensor:
        """The present point."""
        return self.memory.x.clone()
