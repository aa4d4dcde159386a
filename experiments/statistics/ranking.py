"""Order of a plant's controllers by mean cost on the scenarios that they share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steersman.experiments.statistics.paired import GAIN, MINIMUM, SAME, Difference
from steersman.experiments.statistics.scores import Indices, Score, versus

ORACLE = "oracle"
"""Label of the controller that regret is measured against where none has hindsight."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """Controllers of one plant in the order of their mean cost.

    Attributes:
        scenario: The scenarios that all ranked controllers met; every mean below is over these.
        order: The ranked controllers, lowest mean first; means that are not finite come last. What has hindsight is not
            among them.
        mean: Their mean costs, by label.
        left_out: Controllers that ran too few scenarios to be ranked with the others.
        duel: The best against the second best; None where fewer than two are ranked.
    """

    scenario: Indices
    order: tuple[Score, ...]
    mean: dict[str, float]
    left_out: tuple[Score, ...]
    duel: Difference | None

    def best(self, track: str | None = None) -> Score | None:
        """The lowest mean cost, of one track or of all."""
        return next((score for score in self.order if track in (None, score.track)), None)

    def sound(self, track: str | None = None) -> Score | None:
        """The lowest mean cost among those not shown to fail more often than the baseline; of all if these all are."""
        mine = [score for score in self.order if track in (None, score.track)]
        rest = (score for score in mine if score.difference is None or not score.difference.failures.shown)
        return next(rest, mine[0] if mine else None)

    def tied(self, best: Score) -> list[Score]:
        """The best and those of its track that cost at most 5 % more and are not shown to cost more."""
        most = self.mean[best.controller] + GAIN * abs(self.mean[best.controller])
        near = [s for s in self.order if s is not best and s.track == best.track and self.mean[s.controller] <= most]
        return [best, *(s for s in near if versus(s, best, self.scenario).verdict == "no difference shown")]


def ranking(found: Sequence[Score]) -> Ranking:
    """Rank the scores of one plant.

    Slow controllers that ran on fewer than :data:`MINIMUM` scenarios are left out where others ran on more: their means
    are over other scenarios.
    """
    enough = min(MINIMUM, max((len(score.scenario) for score in found), default=0))
    found = [score for score in found if score.rivals]
    ranked = [score for score in found if len(score.scenario) >= enough]
    common = ranked[0].scenario if ranked else np.zeros(0, dtype=np.int64)
    for score in ranked[1:]:
        common = np.intersect1d(common, score.scenario)
    mean = {s.controller: float(np.mean(s.costs(common))) if len(common) else math.nan for s in ranked}
    order = sorted(ranked, key=lambda s: mean[s.controller] if math.isfinite(mean[s.controller]) else math.inf)
    left_out = tuple(score for score in found if len(score.scenario) < enough)
    duel = versus(order[0], order[1], common) if len(order) > 1 and len(common) else None
    return Ranking(common, tuple(order), mean, left_out, duel)


def regret(score: Score, found: Sequence[Score], baseline: str) -> float | None:
    """``(J - J_bound) / (J_baseline - J_bound)`` on the scenarios that all three have met.

    0 is as good as the bound (:func:`bound`), 1 as bad as the baseline. None without a bound or a baseline, without
    common scenarios, or where the bound saves nothing on them that is more than rounding.
    """
    three, common = _three(score, found, baseline)
    if not len(common):
        return None
    cost, best, base = (float(np.mean(other.costs(common))) for other in three)
    saved = base - best
    return (cost - best) / saved if math.isfinite(saved) and saved > SAME * max(abs(base), abs(best)) else None


def regret_scenarios(score: Score, found: Sequence[Score], baseline: str) -> int:
    """How many scenarios :func:`regret` is over."""
    return len(_three(score, found, baseline)[1])


def bound(found: Sequence[Score]) -> Score | None:
    """What regret is measured against: the best controller with hindsight, else the one labelled :data:`ORACLE`."""
    knowing = [score for score in found if not score.rivals]
    lowest = min(knowing, key=lambda score: score.mean if math.isfinite(score.mean) else math.inf, default=None)
    return lowest or next((score for score in found if score.controller == ORACLE), None)


def _three(score: Score, found: Sequence[Score], baseline: str) -> tuple[tuple[Score, ...], Indices]:
    mine = [other for other in found if other.plant == score.plant]
    base = next((other for other in mine if other.controller == baseline), None)
    three = tuple(other for other in (score, bound(mine), base) if other is not None)
    if len(three) < 3:
        return three, np.zeros(0, dtype=np.int64)
    return three, np.intersect1d(np.intersect1d(three[0].scenario, three[1].scenario), three[2].scenario)
