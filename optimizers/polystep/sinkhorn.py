"""Weights by entropic optimal transport with both marginals uniform."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.optimizers.polystep.schedules import Schedule, check_positive, value_at
from steersman.optimizers.polystep.weighting import Divisor, Softmax, Weighting, check_divisor, excess

_CHECK_EVERY = 10
_SMALLEST = -200.0
"""Least logarithm of an entry for which plain factors are exact: no product of two leaves the range of float64."""


@final
@dataclass(frozen=True)
class Sinkhorn(Weighting):
    """Row-normalised plan of entropic transport between particles and vertices, both with equal masses.

    Cuturi, "Sinkhorn Distances" (2013); where temperatures are low against costs, iterated on logarithms (Peyré &
    Cuturi, "Computational Optimal Transport", 2019, section 4.4). The column marginal makes particles share vertices
    out among themselves: a vertex number that is cheap for all is taken by those who gain most. With one particle it
    would force equal weights whatever the costs, so one row falls back to
    :class:`~steersman.optimizers.polystep.weighting.Softmax`.

    Attributes:
        temperature: Regularisation, as in ``Softmax``.
        divisor: Divisor of the costs, as in ``Softmax``.
        tolerance: Relative error of the column masses at which iterations end.
        iterations: Most iterations; rows sum to one at any number.
    """

    temperature: float | Schedule = 0.5
    divisor: Divisor = "mean"
    tolerance: float = 1e-5
    iterations: int = 2000

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)
        check_positive("tolerance", self.tolerance)
        check_divisor(self.divisor)
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}")

    def __call__(self, cost: Float[Tensor, "P V"], generation: int) -> Float[Tensor, "P V"]:
        """See :class:`Weighting`."""
        if len(cost) == 1:
            return Softmax(self.temperature, self.divisor)(cost, generation)
        kernel = excess(cost, self.divisor).div_(-value_at(self.temperature, generation))
        kernel -= kernel.amax(dim=1, keepdim=True)  # a constant of a row does not change its weights
        share = len(cost) / cost.shape[1]
        if float(kernel.amin()) > _SMALLEST:
            return self._by_factors(kernel.exp_(), share)
        return self._by_logarithms(kernel, math.log(share))

    def _by_factors(self, kernel: Tensor, share: float) -> Tensor:
        columns = kernel.new_ones(kernel.shape[1])
        for i in range(self.iterations):
            mass = (kernel @ columns).reciprocal_() @ kernel
            if i % _CHECK_EVERY == 0 and float((mass * columns / share - 1).abs().amax()) < self.tolerance:
                break
            columns = share / mass
        plan = kernel * columns
        return plan / plan.sum(dim=1, keepdim=True)

    def _by_logarithms(self, kernel: Tensor, share: float) -> Tensor:
        columns = kernel.new_zeros(kernel.shape[1])
        for i in range(self.iterations):
            rows = -torch.logsumexp(kernel + columns, dim=1, keepdim=True)
            mass = torch.logsumexp(kernel + rows, dim=0)
            if i % _CHECK_EVERY == 0 and float((mass + columns - share).abs().amax()) < self.tolerance:
                break
            columns = share - mass
        return torch.softmax(kernel + columns, dim=1)
