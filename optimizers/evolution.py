"""Evolution strategy of OpenAI: a smoothed gradient from mirrored noise and ranks, followed by Adam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from steersman.optimizers.base import Search
from steersman.optimizers.polystep.schedules import check_positive
from steersman.optimizers.ranks import centred_ranks


@dataclass
class EvolutionMemory:
    """Mean, and Adam's moments and step count."""

    mean: Tensor
    first: Tensor
    second: Tensor
    steps: int = 0


@final
@dataclass(eq=False, kw_only=True)
class OpenAIES(Search[EvolutionMemory]):
    """Mirrored Gaussian noise, tie-averaged centred ranks, Adam.

    Salimans et al., "Evolution Strategies as a Scalable Alternative to Reinforcement Learning" (2017). The estimate
    is ``sum_i rank_i eps_i / (pairs * sigma)`` over mirrored pairs; when all costs tie it is zero and Adam's
    momentum alone moves the mean.

    Attributes:
        size: Points per generation, even: each noise vector is used with both signs.
        sigma: Standard deviation of the noise.
        rate: Adam's step size.
        decay: Weight decay per step, as a fraction of the mean.
        beta1: Adam's decay of the mean gradient.
        beta2: Adam's decay of the mean squared gradient.
    """

    name: ClassVar[str] = "openai_es"
    Memory: ClassVar[type[EvolutionMemory]] = EvolutionMemory

    size: int = 32
    sigma: float = 0.1
    rate: float = 0.05
    decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 2 or self.size % 2:
            raise ValueError(f"size must be even and at least 2, got {self.size}: noise comes in mirrored pairs")
        for name in ("sigma", "rate"):
            check_positive(name, getattr(self, name))
        for name in ("decay", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")

    def _begin(self, x0: Tensor) -> EvolutionMemory:
        return EvolutionMemory(x0, torch.zeros_like(x0), torch.zeros_like(x0))

    def _size(self) -> int:
        return self.size

    def _ask(self, out: Tensor) -> None:
        mean, pairs = self.memory.mean, self.size // 2
        self._noise = torch.randn(pairs, len(mean), generator=self.gen, dtype=mean.dtype, device=mean.device)
        torch.add(mean, self._noise, alpha=self.sigma, out=out[:pairs])
        torch.sub(mean, self._noise, alpha=self.sigma, out=out[pairs:])

    def _tell(self, cost: Tensor) -> None:
        m, pairs = self.memory, self.size // 2
        rank = centred_ranks(cost).to(m.mean.dtype)
        slope = (rank[:pairs] - rank[pairs:]) @ self._noise / (self.size * self.sigma)
        m.steps += 1
        m.first = self.beta1 * m.first + (1 - self.beta1) * slope
        m.second = self.beta2 * m.second + (1 - self.beta2) * slope.square()
        first, second = m.first / (1 - self.beta1**m.steps), m.second / (1 - self.beta2**m.steps)
        m.mean = (1 - self.decay) * m.mean - self.rate * first / (second.sqrt() + 1e-8)

    def recentre(self) -> None:
        """Go on at zero in fresh coordinates, with Adam's moments forgotten."""
        self.memory = self._begin(torch.zeros_like(self.memory.mean))

    @property
    def incumbent(self) -> Tensor:
        """Mean of the distribution."""
        return self.memory.mean.clone()
