"""What a sampling planner carries from step to step, and the colour of the noise that it draws."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from steersman.envs import noise


@dataclass
class Sampled:
    """The plans of all rows: what draws are made around, and the best one seen. A row's draws depend on its key alone.

    Attributes:
        mean: Free actions of the plan.
        std: Spread of the draws.
        key: Key of each row's draws in this episode.
    """

    mean: Float[Tensor, "n j m"]
    std: Float[Tensor, "n j m"]
    key: Int64[Tensor, "n"]

    def __post_init__(self) -> None:
        self._neutral, self._widest = self.mean, self.std
        self._drawn = torch.zeros_like(self.key)
        self.fresh = torch.ones_like(self.key, dtype=torch.bool)
        self.begin()

    def restart(self, mask: Bool[Tensor, "n"]) -> None:
        """Forget the plans of some rows."""
        rows = mask[:, None, None]
        self.mean = torch.where(rows, self._neutral, self.mean)
        self.std = torch.where(rows, self._widest, self.std)
        self.key = torch.where(mask, noise.fold(self.key, 0), self.key)
        self._drawn, self.fresh = torch.where(mask, 0, self._drawn), self.fresh | mask

    def begin(self) -> None:
        """A new decision: what was best before is not any more."""
        self.best = self.mean
        self.cost = self.mean.new_full((len(self.mean),), torch.inf)

    def keys(self, at: Int64[Tensor, "k"]) -> Int64[Tensor, "k"]:
        """Keys of the next draws of some rows."""
        self._drawn = self._drawn.index_add(0, at, torch.ones_like(at))
        return noise.fold(self.key, self._drawn)[at]

    def offer(self, at: Int64[Tensor, "k"], plan: Float[Tensor, "k j m"], cost: Float[Tensor, "k"]) -> None:
        """Keep plans that are better than the best ones so far."""
        better = cost < self.cost[at]
        self.best = self.best.index_copy(0, at, torch.where(better[:, None, None], plan, self.best[at]))
        self.cost = self.cost.index_copy(0, at, torch.minimum(cost, self.cost[at]))

    def end(self, plan: Float[Tensor, "n j m"], hold: int) -> None:
        """Move the chosen plan and the spread on by one control step; held actions move on by a part of theirs."""
        self.fresh = torch.zeros_like(self.fresh)
        self.mean = plan + (torch.cat([plan[:, 1:], plan[:, -1:]], dim=1) - plan) / hold
        std = self.std
        unsure = torch.minimum(2 * std[:, -1:], self._widest[:, -1:])
        self.std = std + (torch.cat([std[:, 1:], unsure], dim=1) - std) / hold


def coloured(count: int, exponent: float) -> Float[Tensor, "count count"]:
    """The factor L of the covariance ``L L'`` of noise with spectrum ``f^-exponent`` and entries of variance 1.

    Frequencies reach down to one period in twice the length; what is slower has the power of that.
    """
    f = torch.arange(2 * count, dtype=torch.float64)
    power = f.clamp(min=1.0) ** -exponent
    lag = torch.arange(count, dtype=torch.float64)
    correlation = torch.cos(torch.pi * lag[:, None] * f / (2 * count)) @ power / power.sum()
    covariance = correlation[(lag[:, None] - lag).abs().long()]
    factor: Tensor = torch.linalg.cholesky(covariance + 1e-9 * torch.eye(count, dtype=torch.float64))
    return factor
