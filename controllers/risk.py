"""Measures of risk: one cost of a decision from those of many episodes, or of the particles of a plan."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Tensor

Risk = Callable[[Float[Tensor, "n draws"]], Float[Tensor, "n"]]
"""One cost of each row from its draws; never falls when one of them rises."""
RiskName = Literal["mean", "cvar", "worst"]


def risk_measure(name: RiskName, tail: float) -> Risk:
    """The measure of that name.

    ``cvar`` is the mean of the worst share ``tail`` of the draws, at least one (conditional value at risk, Rockafellar
    & Uryasev 2000).

    Raises:
        ValueError: If there is no such measure or ``tail`` is outside (0, 1].
    """
    if name not in ("mean", "cvar", "worst"):
        raise ValueError(f"risk must be 'mean', 'cvar' or 'worst', got {name!r}")
    if not 0 < tail <= 1:
        raise ValueError(f"tail must lie in (0, 1], got {tail}")
    return partial(_mean_of_worst, share={"mean": 1.0, "cvar": tail, "worst": 0.0}[name])


def _mean_of_worst(cost: Float[Tensor, "n draws"], share: float) -> Float[Tensor, "n"]:
    count = max(1, math.ceil(share * cost.shape[1] - 1e-9))
    return cost.topk(count, dim=1).values.mean(dim=1) if count < cost.shape[1] else cost.mean(dim=1)


MEAN: Risk = partial(_mean_of_worst, share=1.0)
