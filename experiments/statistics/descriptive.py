"""Intervals that describe a sample and decide nothing."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import stats

from steersman.experiments.statistics.evidence import Interval
from steersman.experiments.statistics.paired import MINIMUM

RESAMPLES = 9999


def bca(values: Float[NDArray[np.float64], "n"], seed: int = 0) -> Interval | None:
    """95 % BCa bootstrap interval of the mean (Efron 1987), for the spread of one controller's costs.

    It is no test: as one, it names false winners in up to a quarter of the cases where costs have rare failures, ties
    or heavy tails. None below :data:`MINIMUM` values, and where values or ends are not finite.
    """
    if len(values) < MINIMUM or not np.isfinite(values).all():
        return None
    if np.ptp(values) == 0:
        return Interval(float(values[0]), float(values[0]))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of degenerate samples, whose ends are NaN
        found = stats.bootstrap(
            (values,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=np.random.default_rng(seed)
        ).confidence_interval
    ends = Interval(float(found.low), float(found.high))
    return ends if np.isfinite([ends.low, ends.high]).all() else None
