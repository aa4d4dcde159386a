"""From the costs of a polytope's vertices to the weights of its barycentre."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.optimizers.polystep.schedules import Schedule, check_positive, value_at
from steersman.optimizers.ranks import centred_ranks

Divisor = Literal["mean", "max"] | float
"""Mean or maximum of all costs above their minimum, which make steps invariant to affine changes of the cost; or a
number in units of the cost."""


class Weighting(ABC):
    """A rule for weights; every row sums to one, and costs that all tie give equal weights."""

    @abstractmethod
    def __call__(self, cost: Float[Tensor, "P V"], generation: int) -> Float[Tensor, "P V"]:
        """Weights of V vertices for each of P particles, from finite float64 costs."""


@final
@dataclass(frozen=True)
class Softmax(Weighting):
    """``softmax(-cost / (temperature * s))`` in each row: entropic transport with one marginal free.

    Attributes:
        temperature: Regularisation. Where the spread of costs is well below it, an orthoplex step is a
            central-difference gradient step; well above it, a jump to the best vertex.
        divisor: s, see :func:`excess`.
    """

    temperature: float | Schedule = 0.5
    divisor: Divisor = "mean"

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)
        check_divisor(self.divisor)

    def __call__(self, cost: Float[Tensor, "P V"], generation: int) -> Float[Tensor, "P V"]:
        """See :class:`Weighting`."""
        scaled = excess(cost, self.divisor).div_(-value_at(self.temperature, generation))
        return torch.softmax(scaled, dim=1)


@final
@dataclass(frozen=True)
class Greedy(Weighting):
    """All weight on the cheapest vertex of each row; vertices that tie for it share the weight."""

    def __call__(self, cost: Float[Tensor, "P V"], generation: int) -> Float[Tensor, "P V"]:
        """See :class:`Weighting`."""
        best = (cost == cost.amin(dim=1, keepdim=True)).to(cost.dtype)
        return best / best.sum(dim=1, keepdim=True)


@final
@dataclass(frozen=True)
class SampleSize(Weighting):
    """Softmax at the one temperature, common to all rows, that gives a wanted mean effective sample size.

    The effective sample size of a row is ``1 / sum(w^2)``. Invariant to affine changes of the cost; unlike
    :class:`Softmax` it cannot freeze into a uniform row or a single winner as costs shrink.

    Attributes:
        fraction: Wanted mean effective sample size over V, between 1/V and 1. Rows whose costs tie count fully,
            so the target is missed from above where most rows tie.
    """

    fraction: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction must lie strictly between 0 and 1, got {self.fraction}")

    def __call__(self, cost: Float[Tensor, "P V"], generation: int) -> Float[Tensor, "P V"]:
        """See :class:`Weighting`."""
        excess = cost - cost.amin(dim=1, keepdim=True)
        spread = excess.amax()
        unit = excess / torch.where(spread > 0, spread, 1.0)
        low, high = math.log(1e-9), math.log(1e3)
        bounds = torch.stack([unit.new_full((), end) for end in (low, high)])
        for _ in range(24):
            middle = bounds.mean()
            weight = torch.softmax(-unit / middle.exp(), dim=1)
            share = (1 / weight.square().sum(dim=1)).mean() / cost.shape[1]
            bounds = torch.where(
                share < self.fraction, torch.stack([middle, bounds[1]]), torch.stack([bounds[0], middle])
            )
        return torch.softmax(-unit / bounds.mean().exp(), dim=1)


@final
@dataclass(frozen=True)
class ExponentialRanks(Weighting):
    """``softmax(-rank / temperature)`` of tie-averaged ranks in [-0.5, 0.5] over all candidates.

    Attributes:
        temperature: As in :class:`Softmax`, in units of the whole range of ranks.
    """

    temperature: float | Schedule = 0.2

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)

    def __call__(self, cost: Float[Tensor, "P V"], generation: int) -> Float[Tensor, "P V"]:
        """See :class:`Weighting`."""
        rank = centred_ranks(cost.flatten()).reshape(cost.shape)
        return torch.softmax(-rank / value_at(self.temperature, generation), dim=1)


def excess(cost: Float[Tensor, "P V"], divisor: Divisor) -> Float[Tensor, "P V"]:
    """Costs above their minimum over a divisor; a fresh tensor."""
    above = cost - cost.amin()
    if isinstance(divisor, str):
        size = above.mean() if divisor == "mean" else above.amax()
        return above.div_(torch.where(size > 0, size, 1.0))
    return above if divisor == 1.0 else above.div_(divisor)


def check_divisor(divisor: Divisor) -> None:
    """Refuse divisors that are neither known names nor positive and finite."""
    if isinstance(divisor, str):
        if divisor not in ("mean", "max"):
            raise ValueError(f"divisor must be 'mean', 'max' or a positive number, got {divisor!r}")
    else:
        check_positive("divisor", divisor)
