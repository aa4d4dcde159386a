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

    A new plan is searched for twice, at its whole length and from a short one that grows, and the cheaper one stays.

    Attributes:
        mean: Free actions of the plan.
        std: Spread of the draws.
        key: Key of each row's draws in this episode.
        length: Free actions that are drawn and costed now; the others keep still.
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
        self.length = self.mean.shape[1]
        self.best = self.mean
        self.cost = self.mean.new_full((len(self.mean),), torch.inf)
        self._aside: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def search_on(self, at: Int64[Tensor, "k"], length: int) -> None:
        """Set the plans of some rows aside and start anew with ``length`` free actions; from then on, grow to them.

        What is added is neutral, and spread no wider than what precedes it: an unstable plant makes so much of wide
        draws that they would drown what has been found.
        """
        if self._aside is None:
            self._aside = self.mean, self.std, self.best, self.cost
            self.mean = self.mean.index_copy(0, at, self._neutral[at])
            self.std = self.std.index_copy(0, at, self._widest[at])
        else:
            std = self.std[at]
            std[:, self.length :] = std[:, self.length - 1 : self.length]
            self.std = self.std.index_copy(0, at, std)
        self.length = length
        self.best = self.best.index_copy(0, at, self.mean[at])
        self.cost = self.cost.index_fill(0, at, torch.inf)

    def settle(self) -> None:
        """Keep the cheaper plan of those found and those set aside; plans that have not grown up do not count."""
        if self._aside is None:
            return
        mean, std, best, cost = self._aside
        back = (cost <= self.cost) | (self.length < self.mean.shape[1])
        rows = back[:, None, None]
        self.mean, self.std = torch.where(rows, mean, self.mean), torch.where(rows, std, self.std)
        self.best, self.cost = torch.where(rows, best, self.best), torch.where(back, cost, self.cost)

    def keys(self, at: Int64[Tensor, "k"]) -> Int64[Tensor, "k"]:
        """Keys of the next draws of some rows."""
        self._drawn = self._drawn.index_add(0, at, torch.ones_like(at))
        return noise.fold(self.key, self._drawn)[at]

    def offer(self, at: Int64[Tensor, "k"], plan: Float[Tensor, "k j m"], cost: Float[Tensor, "k"]) -> None:
        """Keep plans that are better than the best ones so far."""
        better = cost < self.cost[at]
        lead = torch.where(better[:, None, None], plan, self.best[at, : plan.shape[1]])
        self.best = led(self.best, at, lead)
        self.cost = self.cost.index_copy(0, at, torch.minimum(cost, self.cost[at]))

    def end(self, plan: Float[Tensor, "n j m"], hold: int) -> None:
        """Move the chosen plan and the spread on by one control step; held actions move on by a part of theirs."""
        self.fresh = self.fresh & ~torch.isfinite(self.cost)  # where no plan was found, the next one is new
        self.mean = plan + (torch.cat([plan[:, 1:], plan[:, -1:]], dim=1) - plan) / hold
        std = self.std
        unsure = torch.minimum(2 * std[:, -1:], self._widest[:, -1:])
        self.std = std + (torch.cat([std[:, 1:], unsure], dim=1) - std) / hold


def led(whole: Float[Tensor, "n j m"], at: Int64[Tensor, "k"], lead: Float[Tensor, "k i m"]) -> Float[Tensor, "n j m"]:
    """The same with other first entries in some rows."""
    return whole.index_copy(0, at, torch.cat([lead, whole[at, lead.shape[1] :]], dim=1))


def growing(count: int, shortest: int) -> list[int]:
    """Lengths of a search that doubles them up to ``count`` and starts with at most ``shortest``; at least one."""
    lengths = [count]
    while lengths[0] > shortest:
        lengths.insert(0, -(-lengths[0] // 2))
    return lengths


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
