"""Paired statistics of a comparison: intervals only where they mean something, differences only on common scenarios."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import stats

from steersman.experiments.results import Comparison, RunResult

MINIMUM = 50
"""An interval is computed from so many scenarios on; below, bootstrap intervals are too short to be trusted."""
GAIN = 0.05
"""A controller beats the baseline if the interval excludes zero and it saves at least this share of its cost."""
RESAMPLES = 9999

Array = Float[NDArray[np.float64], "_"]


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether the value lies outside."""
        return not self.low <= value <= self.high


@dataclass(frozen=True)
class Difference:
    """A controller against the baseline, on the scenarios that both ran.

    Attributes:
        pairs: Number of common scenarios.
        mean: Mean of cost minus baseline cost; negative is better.
        interval: BCa interval of that mean, from :data:`MINIMUM` pairs on.
        gain: Share of the baseline's mean cost that is saved.
        gain_interval: BCa interval of that share, both means resampled together.
        wins: Share of scenarios that cost less than under the baseline; ties count half.
        each: The differences, in the order of the scenarios.
    """

    pairs: int
    mean: float
    interval: Interval | None
    gain: float
    gain_interval: Interval | None
    wins: float
    each: Array

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``no difference shown`` or ``too few scenarios``."""
        if self.interval is None:
            return "too few scenarios"
        if not self.interval.excludes(0.0):
            return "no difference shown"
        return "better" if self.mean < 0 else "worse"

    @property
    def beats(self) -> bool:
        """Better with an interval that excludes zero, by at least :data:`GAIN` of the baseline's cost."""
        return self.verdict == "better" and self.gain >= GAIN


@dataclass(frozen=True)
class Score:
    """One controller on one plant, over its training seeds.

    Attributes:
        plant: Id of the environment.
        controller: Label.
        runs: Its results, one per training seed.
        scenario: Indices of its scenarios.
        cost: Cost of each scenario, averaged over training seeds.
        mean: Mean of them.
        iqm: Interquartile mean of them.
        interval: BCa interval of the mean, from :data:`MINIMUM` scenarios on.
        difference: Against the baseline; None for the baseline itself or where it is missing.
    """

    plant: str
    controller: str
    runs: tuple[RunResult, ...]
    scenario: NDArray[np.int64]
    cost: Array
    mean: float
    iqm: float
    interval: Interval | None
    difference: Difference | None

    @property
    def relative(self) -> float:
        """Mean cost as a share of the baseline's on common scenarios; 1 for the baseline itself."""
        return 1.0 if self.difference is None else 1.0 - self.difference.gain

    def over_runs(self, value: Callable[[RunResult], float]) -> float:
        """Mean of a quantity over the training seeds."""
        return float(np.mean([value(run) for run in self.runs]))


def bca(values: Array, seed: int = 0) -> Interval | None:
    """BCa bootstrap interval of the mean (Efron 1987); None below :data:`MINIMUM` values or where one is not finite."""
    if len(values) < MINIMUM or not np.isfinite(values).all():
        return None
    if np.ptp(values) == 0:
        return Interval(float(values[0]), float(values[0]))
    return _bootstrap((values,), np.mean, seed)


def gain_interval(cost: Array, base: Array, seed: int = 0) -> Interval | None:
    """BCa interval of ``(mean base - mean cost) / |mean base|``, resampled in pairs; None as in :func:`bca`."""
    if bca(cost - base) is None or not np.isfinite(base).all():
        return None
    if np.ptp(cost - base) <= 1e-12 * np.abs(base).max():
        share = float(np.mean(base - cost)) / abs(float(np.mean(base)) or np.nan)
        return Interval(share, share) if np.isfinite(share) else None

    def saved(c: NDArray[Any], b: NDArray[Any], axis: int) -> NDArray[Any]:
        mean = np.mean(b, axis=axis)
        return np.asarray((mean - np.mean(c, axis=axis)) / np.abs(mean))

    return _bootstrap((cost, base), saved, seed, paired=True)


def _bootstrap(data: tuple[Array, ...], statistic: Callable[..., Any], seed: int, *, paired: bool = False) -> Interval:
    found = stats.bootstrap(
        data, statistic, n_resamples=RESAMPLES, method="BCa", paired=paired, rng=np.random.default_rng(seed)
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def difference(cost: Array, scenario: NDArray[np.int64], base: Array, base_scenario: NDArray[np.int64]) -> Difference:
    """Paired difference on the common scenarios.

    Raises:
        ValueError: If there are none.
    """
    common, mine, theirs = np.intersect1d(scenario, base_scenario, return_indices=True)
    if not len(common):
        raise ValueError("the two runs share no scenario; they cannot be compared")
    each = cost[mine] - base[theirs]
    reference = float(np.mean(base[theirs]))
    mean = float(np.mean(each))
    wins = float(np.mean(each < 0) + np.mean(each == 0) / 2)
    gain = -mean / abs(reference) if reference else float("nan")
    share = gain_interval(cost[mine], base[theirs])
    return Difference(len(common), mean, bca(each), gain, share, wins, each)


def scores(comparison: Comparison) -> list[Score]:
    """Scores of all controllers, plant by plant, in the order of the comparison."""
    found: list[Score] = []
    for plant in comparison.plants:
        results = [result for result in comparison.results if result.plant == plant.name]
        labels = list(dict.fromkeys(result.controller for result in results))
        averaged = {label: _average([r for r in results if r.controller == label]) for label in labels}
        base = averaged.get(plant.baseline)
        for label, (scenario, cost) in averaged.items():
            against = None
            if base is not None and label != plant.baseline:
                against = difference(cost, scenario, base[1], base[0])
            runs = tuple(r for r in results if r.controller == label)
            found.append(
                Score(
                    plant.name, label, runs, scenario, cost, float(np.mean(cost)), float(stats.trim_mean(cost, 0.25)),
                    bca(cost), against,
                )
            )  # fmt: skip
    return found


def _average(results: Sequence[RunResult]) -> tuple[NDArray[np.int64], Array]:
    """Scenarios that all training seeds ran, and their cost averaged over the seeds."""
    common = results[0].scenario
    for result in results[1:]:
        common = np.intersect1d(common, result.scenario)
    rows = [result.cost[np.searchsorted(result.scenario, common)] for result in results]
    return np.asarray(common, dtype=np.int64), np.mean(rows, axis=0)


ORACLE = "oracle"
"""Label of the controller that regret is measured against."""


def regret(score: Score, found: Sequence[Score], baseline: str) -> float | None:
    """``(J - J_oracle) / (J_baseline - J_oracle)`` on the scenarios that all three have met.

    0 is as good as the controller labelled :data:`ORACLE`, 1 as bad as the baseline. None without an oracle, or where
    it saves nothing.
    """
    mine = {other.controller: other for other in found if other.plant == score.plant}
    if ORACLE not in mine or baseline not in mine:
        return None
    three = (score, mine[ORACLE], mine[baseline])
    n = min(len(other.scenario) for other in three)
    cost, best, base = (float(np.mean(other.cost[:n])) for other in three)
    return (cost - best) / (base - best) if base > best else None
