"""From the costs of a polytope's vertices to the weights of its barycentre."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.optimizers.polystep.schedules import Schedule, check_positive, value_at
from steersman.optimizers.ranks import centred_ranks


class Weighting(ABC):
    """A rule for weights; every row sums to one, equal costs get equal weights."""

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
        scaled: Whether s is the mean of all costs above their minimum, which makes steps invariant to units of the
            cost; otherwise s = 1 and the temperature is in units of the cost.
    """

    temperature: float | Schedule = 0.5
    scaled: bool = True

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)

    def __call__(self, cost: Float[Tensor, "P V"], generation: int) -> Float[Tensor, "P V"]:
        """See :class:`Weighting`."""
        excess = cost - cost.amin()
        if self.scaled:
            mean = excess.mean()
            excess = excess / torch.where(mean > 0, mean, 1.0)
        return torch.softmax(-excess / value_at(self.temperature, generation), dim=1)


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
        bounds = unit.new_tensor([low, high])
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
