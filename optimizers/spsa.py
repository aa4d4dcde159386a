"""Simultaneous perturbation stochastic approximation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from steersman.optimizers.base import Search
from steersman.optimizers.polystep.schedules import check_positive


@dataclass
class SPSAMemory:
    """Present point, the gain that the first estimate fixed (0 before), and steps taken."""

    x: Tensor
    gain: float = 0.0
    steps: int = 0


@final
@dataclass(eq=False, kw_only=True)
class SPSA(Search[SPSAMemory]):
    """Gradient estimates from mirrored random signs, with gains that fall by Spall's powers.

    Spall, "Multivariate Stochastic Approximation Using a Simultaneous Perturbation Gradient Approximation" (1992);
    exponents, stability constant and the choice of the first gain by the size of the first step are those of his
    "Implementation of the Simultaneous Perturbation Algorithm for Stochastic Optimization" (1998).

    Attributes:
        pairs: Sign vectors averaged in a generation, of two points each.
        radius: Perturbation c of each coordinate in the first generation; it falls with the power 0.101.
        step: Mean change of the coordinates in the first step; gains fall with the power 0.602.
        stability: A in ``a / (k + 1 + A)^0.602``, generations before gains fall noticeably.
    """

    name: ClassVar[str] = "spsa"
    Memory: ClassVar[type[SPSAMemory]] = SPSAMemory

    pairs: int = 4
    radius: float = 0.2
    step: float = 0.1
    stability: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pairs < 1:
            raise ValueError(f"pairs must be at least 1, got {self.pairs}")
        for name in ("radius", "step"):
            check_positive(name, getattr(self, name))
        if not 0 <= self.stability < math.inf:
            raise ValueError(f"stability must be finite and not negative, got {self.stability}")

    def _begin(self, x0: Tensor) -> SPSAMemory:
        return SPSAMemory(x0)

    def _size(self) -> int:
        return 2 * self.pairs

    def _ask(self, out: Tensor) -> None:
        m, n = self.memory, self.pairs
        signs = torch.randint(0, 2, (n, len(m.x)), generator=self.gen, device=m.x.device)
        self._signs = signs.to(m.x.dtype).mul_(2).sub_(1)
        self._c = self.radius / (m.steps + 1) ** 0.101
        torch.add(m.x, self._signs, alpha=self._c, out=out[:n])
        torch.sub(m.x, self._signs, alpha=self._c, out=out[n:])

    def _tell(self, cost: Tensor) -> None:
        m, n = self.memory, self.pairs
        slope = ((cost[:n] - cost[n:]) / (2 * self._c)).to(m.x.dtype) @ self._signs / n
        (size,) = self._read(slope.abs().mean()[None])
        if m.gain == 0 and size > 0:
            m.gain = self.step / size * (m.steps + 1 + self.stability) ** 0.602
        # One outlier must not throw the point away: no step is longer than the first one.
        rate = min(m.gain / (m.steps + 1 + self.stability) ** 0.602, self.step / size if size > 0 else 0.0)
        m.x, m.steps = m.x - rate * slope, m.steps + 1

    @property
    def incumbent(self) -> Tensor:
        """The present point."""
        return self.memory.x.clone()
