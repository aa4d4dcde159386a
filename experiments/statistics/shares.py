"""The share of another's mean cost that is saved, and all shares that the tests of a difference do not exclude.

A controller that costs ``a`` saves the share ``g`` of what costs ``b`` exactly if ``a - (1 - g) b`` has a mean of zero.
So the tests of :mod:`steersman.experiments.statistics.evidence` are inverted on those values, as Fieller (1954, "Some
problems in interval estimation", J. R. Stat. Soc. B 16) did with Student's: the mean of ``b`` is as uncertain here as
that of ``a``. To divide an interval of the difference by one fixed mean of ``b`` takes that for known, and promises
savings of more than everything. At ``g = 0`` the test is that of the difference, so that both intervals exclude zero
together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from steersman.experiments.statistics.evidence import Interval, evidence, subset_means

Array = Float[NDArray[np.float64], "n"]
Means = Float[NDArray[np.float64], "_"]

_FINE, _DOUBLINGS, _HALVINGS = 1e-12, 80, 30
"""An end is looked for in steps that grow twofold from the share's standard error, which is then cut in half."""


@dataclass(frozen=True, eq=False)
class Paired:
    """Costs of both sides on common scenarios, none of them negative.

    Attributes:
        each: ``a - b`` by scenario, averaged over training seeds.
        base: ``b``, likewise; its mean is not zero.
        mine: Per-seed means of ``a``, where its method is meant; None otherwise.
        theirs: Per-seed means of ``b``, likewise.
    """

    each: Array
    base: Array
    mine: Means | None = None
    theirs: Means | None = None

    @property
    def saved(self) -> float:
        """The share of the mean cost that is saved, at most 1."""
        return float(-np.mean(self.each) / np.mean(self.base))

    def interval(self, level: float) -> Interval:
        """Shares about :attr:`saved` that no test excludes at ``level``; none saves more than everything.

        The lower end is minus infinity where the tests do not tell the mean of ``b`` from zero.
        """
        kept, step = self._keeping(level), max(_FINE, self._error)
        return Interval(_end(kept, self.saved, -np.inf, step), _end(kept, self.saved, 1.0, step))

    @property
    def _error(self) -> float:
        """Standard error of the share, to first order and without that of training seeds."""
        unit = float(np.mean(self.base))
        rest = self.each / unit + self.saved * (self.base / unit)
        return float(np.std(rest) / np.sqrt(len(rest)))

    def _keeping(self, level: float) -> Callable[[float], bool]:
        sides = [side for side in (self.mine, self.theirs) if side is not None]
        scale = max(float(np.max(np.abs(values))) for values in (self.each, self.base, *sides))
        each, base = self.each / scale, self.base / scale
        of_each, of_base = subset_means(each), subset_means(base)

        def kept(g: float) -> bool:
            seeds = [] if self.mine is None else [self.mine / scale]
            seeds += [] if self.theirs is None else [(1 - g) * self.theirs / scale]
            # Divided by the larger part, so that squares neither overflow nor vanish.
            size = max(1.0, abs(g))
            found = evidence((each + g * base) / size, [side / size for side in seeds], (of_each + g * of_base) / size)
            return float(found.p) > level

        return kept


def _end(kept: Callable[[float], bool], start: float, limit: float, step: float) -> float:
    """The last share that is kept on the way from ``start`` to ``limit``, which never passes a zero that is not."""
    down = limit < start
    if start >= limit and not down:
        return limit
    if (limit < 0 < start) if down else (start < 0 < limit):
        start, limit = (0.0, limit) if kept(0.0) else (start, 0.0)
    inside = start
    for _ in range(_DOUBLINGS):
        outside = max(start - step, limit) if down else min(start + step, limit)
        if not kept(outside):
            return _cut(kept, inside, outside)
        if outside == limit:
            return limit
        inside, step = outside, 2 * step
    return limit


def _cut(kept: Callable[[float], bool], inside: float, outside: float) -> float:
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if kept(middle) else (inside, middle)
    return inside
