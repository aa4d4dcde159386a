"""Paired statistics of a comparison, in one place to import from; see :mod:`steersman.experiments.statistics`."""

from steersman.experiments.statistics.descriptive import bca
from steersman.experiments.statistics.evidence import Interval, evidence, holm
from steersman.experiments.statistics.paired import GAIN, LEVEL, METHOD, MINIMUM, Difference, Failures, difference
from steersman.experiments.statistics.ranking import ORACLE, Ranking, ranking, regret, regret_scenarios
from steersman.experiments.statistics.scores import Score, per_seed, scores, versus

__all__ = [
    "GAIN", "LEVEL", "METHOD", "MINIMUM", "ORACLE", "Difference", "Failures", "Interval", "Ranking", "Score", "bca",
    "difference", "evidence", "holm", "per_seed", "ranking", "regret", "regret_scenarios", "scores", "versus",
]  # fmt: skip
