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
    # By two searches, not by unique values: a GPU would be waited for to learn how many those are.
    cost = cost.contiguous()
    ordered = cost.sort().values
    first, last = (torch.searchsorted(ordered, cost, right=right).to(cost.dtype) for right in (False, True))
    ranks: Tensor = (last - (last - first + 1) / 2) / (n - 1) - 0.5
    return ranks
