"""Ranks that treat equal costs equally."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def centred_ranks(cost: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Ranks scaled to ``[-0.5, 0.5]``, lowest cost lowest; equal costs share the mean of their ranks.

    Without the sharing, ties would be broken by position, and a plateau would look like a slope. The result has
    mean zero, does not change under increasing transformations of the cost, and is zero when all costs are equal.
    """
    n = cost.shape[0]
    if n < 2:
        return torch.zeros_like(cost)
    _, group, count = torch.unique(cost, sorted=True, return_inverse=True, return_counts=True)
    last = count.cumsum(0)
    middle = last.to(cost.dtype) - (count.to(cost.dtype) + 1) / 2
    ranks: Tensor = middle[group] / (n - 1) - 0.5
    return ranks
