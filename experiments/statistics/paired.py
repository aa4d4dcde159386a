"""One controller against another on the scenarios that both ran."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Integer
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from steersman.experiments.statistics.evidence import Evidence, Interval, evidence
from steersman.experiments.statistics.shares import Paired

MINIMUM = 50
"""Nothing is tested on fewer scenarios: random signs can say little then, and rare failures are not among them."""
GAIN = 0.05
"""A controller beats the baseline if it is shown to be better, by at least this share of the baseline's cost."""
METHOD = 5
"""From so many training seeds on, a verdict speaks of the method; below, of the policies that were trained."""
LEVEL = 0.05
"""False verdicts that are accepted, among all controllers of a plant together."""
SAME = 1e-10
"""Two costs are equal if they differ by no more than this share of the larger: sums of equal episodes in batches of
other sizes round differently."""

Costs = Float[NDArray[np.float64], "..."]
Array = Float[NDArray[np.float64], "n"]


@dataclass(frozen=True)
class Failures:
    """Episodes that ended by a failure on the common scenarios, over all training seeds, of both sides."""

    count: int = 0
    episodes: int = 0
    other: int = 0
    other_episodes: int = 0

    @property
    def more(self) -> bool:
        """Whether a larger share of episodes failed than on the other side."""
        return self.count * max(self.other_episodes, 1) > self.other * max(self.episodes, 1)

    @property
    def shown(self) -> bool:
        """Whether that is shown, by Fisher's exact test at :data:`LEVEL`: then no cost makes up for it."""
        table = [[f, n - f] for f, n in ((self.count, self.episodes), (self.other, self.other_episodes))]
        return self.more and bool(fisher_exact(table, alternative="greater").pvalue <= LEVEL)


@dataclass(frozen=True, eq=False)
class Difference:
    """A controller against another, mostly the baseline, on the scenarios that both ran.

    Attributes:
        pairs: Number of common scenarios.
        mean: Mean of cost minus the other's cost; negative is better.
        base: Mean cost of the other side.
        shares: Whether a share of the other's cost means something: no cost is negative, and its mean is not zero.
        wins: Share of scenarios that cost less; ties count half.
        each: The differences, in the order of the scenarios, averaged over training seeds.
        failures: Episodes that failed on both sides.
        untested: Why nothing is tested; empty where something is.
        level: Level of the verdict; of a row among several, the one that Holm's procedure gives it.
        p: Two-sided p-value, unadjusted; NaN where nothing is tested.
        interval: All mean differences that the tests do not exclude at :attr:`level`; None where nothing is tested.
            With fewer than :data:`METHOD` training seeds on a side, it is about the policies of that side.
    """

    pairs: int
    mean: float
    base: float
    shares: bool
    wins: float
    each: Array
    failures: Failures
    untested: str
    level: float
    p: float
    interval: Interval | None
    _found: Evidence | None = field(default=None, repr=False)
    _method: Evidence | None = field(default=None, repr=False)
    _scale: float = field(default=1.0, repr=False)
    _paired: Paired | None = field(default=None, repr=False)

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``no difference shown``, or ``not tested`` with the reason."""
        if self.interval is None:
            return f"not tested, {self.untested}"
        if not self.interval.excludes(0.0):
            return "no difference shown"
        return "better" if self.mean < 0 else "worse"

    @property
    def open(self) -> bool:
        """Whether the verdict holds for the few policies that were trained, and their spread hides it of the method."""
        shown = self.verdict in ("better", "worse")
        return shown and self._method is not None and float(self._method.p) > self.level

    @property
    def gain(self) -> float:
        """Share of the other's mean cost that is saved; NaN where shares mean nothing."""
        return -self.mean / self.base if self.shares else float("nan")

    @cached_property
    def gain_interval(self) -> Interval | None:
        """All gains that the tests do not exclude at :attr:`level`; none where nothing is tested or there is no gain.

        It excludes zero exactly where :attr:`interval` does (:mod:`steersman.experiments.statistics.shares`).
        """
        return None if self._paired is None else self._paired.interval(self.level)

    @property
    def beats(self) -> bool:
        """Shown to be better, by at least :data:`GAIN` of the other's cost, and not shown to fail more often."""
        return self.verdict == "better" and -self.mean >= GAIN * abs(self.base) and not self.failures.shown

    def at(self, level: float) -> Difference:
        """The same difference with verdict and interval at another level."""
        return replace(self, level=level, interval=_interval(self._found, self._scale, level))


def difference(
    cost: Costs,
    scenario: Integer[NDArray[np.integer], "n"],
    base: Costs,
    base_scenario: Integer[NDArray[np.integer], "k"],
    *,
    failed: Bool[NDArray[np.bool_], "..."] | None = None,
    base_failed: Bool[NDArray[np.bool_], "..."] | None = None,
) -> Difference:
    """Paired difference on the common scenarios.

    Args:
        cost: Costs by scenario, or by training seed and scenario.
        scenario: Indices of the scenarios.
        base: Costs of the other side, likewise.
        base_scenario: Indices of its scenarios.
        failed: Which episodes failed, like the costs.
        base_failed: Likewise of the other side.

    Raises:
        ValueError: If there are no common scenarios.
    """
    common, mine, theirs = np.intersect1d(scenario, base_scenario, return_indices=True)
    if not len(common):
        raise ValueError("the two runs share no scenario; they cannot be compared")
    rows, others = np.atleast_2d(cost)[:, mine], np.atleast_2d(base)[:, theirs]
    with np.errstate(invalid="ignore"):  # infinities of both sides
        a, b = np.mean(rows, axis=0), np.mean(others, axis=0)
        each = a - b
        each[np.isfinite(each) & (np.abs(each) <= SAME * np.maximum(np.abs(a), np.abs(b)))] = 0.0
        mean, reference = float(np.mean(each)), float(np.mean(b))
    shares = bool((rows >= 0).all() and (others >= 0).all() and reference > 0 and np.isfinite([mean, reference]).all())
    untested = _untested(rows, others)
    found, method, paired, scale = None, None, None, 1.0
    if not untested:
        sides = [_per_seed(side) for side in (rows, others)]
        seeds = [side for side in sides if len(side) > 1]
        scale = max(float(np.max(np.abs(values))) for values in (each, *seeds)) or 1.0
        seeds = [side / scale for side in seeds]
        many = [side for side in seeds if len(side) >= METHOD]
        found = evidence(each / scale, many)
        method = evidence(each / scale, seeds) if len(many) < len(seeds) else None
        if shares:
            paired = Paired(each, b, *(side if len(side) >= METHOD else None for side in sides))
    return Difference(
        pairs=len(common),
        mean=mean,
        base=reference,
        shares=shares,
        wins=float(np.mean(each < 0) + np.mean(each == 0) / 2),
        each=each,
        failures=Failures(*_count(failed, mine, len(rows)), *_count(base_failed, theirs, len(others))),
        untested=untested,
        level=LEVEL,
        p=float("nan") if found is None else float(found.p),
        interval=_interval(found, scale, LEVEL),
        _found=found,
        _method=method,
        _scale=scale,
        _paired=paired,
    )


def _per_seed(side: Costs) -> Costs:
    """Per-seed means of costs by seed and scenario, about their mean."""
    means: Costs = np.mean(side - np.mean(side, axis=0), axis=1)
    return means


def _untested(rows: Costs, others: Costs) -> str:
    bad = int((~np.isfinite(rows).all(axis=0) | ~np.isfinite(others).all(axis=0)).sum())
    n = rows.shape[1]
    if bad:
        return f"the costs of {bad} of {n} scenarios are not finite"
    return f"n = {n}" if n < MINIMUM else ""


def _interval(found: Evidence | None, scale: float, level: float) -> Interval | None:
    if found is None:
        return None
    low, high = found.ends(level)
    return Interval(float(low) * scale, float(high) * scale)


def _count(failed: Bool[NDArray[np.bool_], "..."] | None, chosen: NDArray[np.intp], seeds: int) -> tuple[int, int]:
    return 0 if failed is None else int(np.atleast_2d(failed)[:, chosen].sum()), seeds * len(chosen)
