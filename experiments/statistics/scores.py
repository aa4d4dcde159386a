"""Scores of the controllers of a comparison over their training seeds, against the baseline of their plant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from numpy.typing import NDArray
from scipy import stats

from steersman.envs.plant import failed
from steersman.experiments.comparison.results import Comparison, RunResult
from steersman.experiments.statistics.descriptive import bca
from steersman.experiments.statistics.evidence import Interval, holm
from steersman.experiments.statistics.paired import LEVEL, METHOD, Costs, Difference, difference

HINDSIGHT = "hindsight"
"""Track of controllers that know what is still to come."""
Array = Float[NDArray[np.float64], "n"]
Indices = Integer[NDArray[np.int64], "n"]


@dataclass(frozen=True, eq=False)
class Score:
    """One controller on one plant, over its training seeds.

    Attributes:
        plant: Name of the plant in the comparison.
        controller: Label.
        runs: Its results, one per training seed.
        scenario: Indices of the scenarios that all of them met, ascending.
        cost: Cost of each scenario, averaged over training seeds.
        mean: Mean of them.
        iqm: Interquartile mean of them.
        interval: BCa interval of the mean, which describes and decides nothing.
        difference: Against the baseline; None for the baseline itself or where it is missing.
        asked: Training seeds that were to be run.
        rival: What the baseline is where it was trained with too few seeds to speak of a method; else empty.
    """

    plant: str
    controller: str
    runs: tuple[RunResult, ...]
    scenario: Indices
    cost: Array
    mean: float
    iqm: float
    interval: Interval | None
    difference: Difference | None
    asked: int = 1
    rival: str = ""

    @property
    def relative(self) -> float:
        """Mean cost as a share of the baseline's on common scenarios, NaN where shares mean nothing; 1 for itself."""
        return 1.0 if self.difference is None else 1.0 - self.difference.gain

    @property
    def track(self) -> str:
        """``data only``, ``solver access`` or ``hindsight``."""
        return self.runs[0].track if self.runs else ""

    @property
    def rivals(self) -> bool:
        """Whether it competes; what knows the future is a bound on those that do."""
        return self.track != HINDSIGHT

    @property
    def incomplete(self) -> str:
        """``2 of 3 seeds`` where training seeds failed, else empty."""
        return f"{len(self.runs)} of {self.asked} seeds" if len(self.runs) < self.asked else ""

    @property
    def policies(self) -> str:
        """What was trained: one policy, some policies, or seeds enough to speak of the method; empty if nothing was."""
        if not self.trained:
            return ""
        if self.incomplete:
            return f"the {len(self.runs)} of {self.asked} policies that were trained"
        if len(self.runs) >= METHOD:
            return f"the method, {len(self.runs)} seeds"
        return f"these {len(self.runs)} policies" if len(self.runs) > 1 else "this trained policy"

    @property
    def about(self) -> str:
        """What the verdict against the baseline speaks of; empty where nothing was trained."""
        left = "not shown of the method" if self.difference is not None and self.difference.open else ""
        return ", ".join(part for part in (self.policies, self.rival, left) if part)

    @property
    def trained(self) -> bool:
        """Whether its policies come out of training, so that another seed would give others."""
        return bool(self.incomplete) or any(run.train_steps > 0 for run in self.runs)

    def over_runs(self, value: Callable[[RunResult], float]) -> float:
        """Mean of a quantity over the training seeds."""
        return float(np.mean([value(run) for run in self.runs]))

    def costs(self, scenario: Indices) -> Costs:
        """Costs by training seed and scenario."""
        rows = [run.cost[np.searchsorted(run.scenario, scenario)] for run in self.runs]
        return np.array(rows or [self.cost[np.searchsorted(self.scenario, scenario)]], dtype=np.float64)

    def failed(self, scenario: Indices) -> Bool[NDArray[np.bool_], "S n"]:
        """Which of the episodes ended by a failure."""
        rows = [_failed(run)[np.searchsorted(run.scenario, scenario)] for run in self.runs]
        return np.array(rows or [np.zeros(len(scenario), dtype=bool)])


def scores(comparison: Comparison) -> list[Score]:
    """Scores of all controllers, plant by plant, in the order of the comparison.

    The verdicts against a plant's baseline hold :data:`LEVEL` together, by Holm's procedure.
    """
    found: list[Score] = []
    for plant in comparison.plants:
        results = [result for result in comparison.results if result.plant == plant.name]
        labels = dict.fromkeys(result.controller for result in results)
        lost = [f.controller for f in comparison.failures if f.plant == plant.name]
        rows = [_score([r for r in results if r.controller == label], lost.count(label)) for label in labels]
        base = next((row for row in rows if row.controller == plant.baseline), None)
        if base is not None:
            few = base.trained and (len(base.runs) < METHOD or base.incomplete)
            rival = f"against {len(base.runs)} trained of {base.controller}" if few else ""
            rows = [row if row is base else replace(row, difference=versus(row, base), rival=rival) for row in rows]
        found += _together(rows)
    return found


def versus(score: Score, other: Score, scenario: Indices | None = None) -> Difference:
    """Paired difference of two controllers' costs on their common scenarios, or on some of them.

    Raises:
        ValueError: If there are no common scenarios.
    """
    common = np.intersect1d(score.scenario, other.scenario)
    if scenario is not None:
        common = np.intersect1d(common, scenario)
    return difference(
        score.costs(common), common, other.costs(common), common,
        failed=score.failed(common), base_failed=other.failed(common),
    )  # fmt: skip


def per_seed(score: Score, base: Score | None) -> list[Score]:
    """Each trained policy of a controller for itself, against the baseline."""
    alone = [_score([run], 0) for run in score.runs]
    if base is None or base is score:
        return alone
    return [replace(row, difference=versus(row, base)) for row in alone]


def _score(runs: Sequence[RunResult], lost: int) -> Score:
    common = runs[0].scenario
    for run in runs[1:]:
        common = np.intersect1d(common, run.scenario)
    common = np.asarray(common, dtype=np.int64)
    cost = np.mean([run.cost[np.searchsorted(run.scenario, common)] for run in runs], axis=0)
    return Score(
        runs[0].plant, runs[0].controller, tuple(runs), common, cost, float(np.mean(cost)),
        float(stats.trim_mean(cost, 0.25)), bca(cost), None, len(runs) + lost,
    )  # fmt: skip


def _together(rows: Sequence[Score]) -> list[Score]:
    """The scores with verdicts at the levels of Holm's procedure; those that do not compete take no part in it."""
    tested = [row for row in rows if row.rivals and row.difference is not None and row.difference.interval is not None]
    levels = dict(
        zip(map(id, tested), holm([row.difference.p for row in tested if row.difference], LEVEL), strict=True)
    )
    return [
        replace(row, difference=row.difference.at(levels[id(row)])) if id(row) in levels and row.difference else row
        for row in rows
    ]


def _failed(run: RunResult) -> Bool[NDArray[np.bool_], "n"]:
    return np.asarray(failed(torch.as_tensor(run.status, dtype=torch.uint8)).numpy())
