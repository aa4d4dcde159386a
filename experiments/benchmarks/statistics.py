"""How often verdicts name a false winner, and how often they find a true one, in 1,000 simulated comparisons each.

Two controllers cost the same in the mean, so every "better" or "worse" is false; at most 8 % are asked for. Scenarios
cost what the shape says: the same law for both sides, or laws of other shapes with equal means. What no test can see
is not among them: failures at a rate of 2 % against a constant cost do not happen at all on 50 scenarios in 36 % of
the comparisons.

The old ways run on the same samples and stand beside: BCa bootstrap intervals of the mean difference, and, with
training seeds, the same after averaging over the seeds, and Welch's test on per-seed means.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import stats

from steersman.experiments.benchmarks.base import Progress, Row
from steersman.experiments.statistics.evidence import evidence, holm
from steersman.experiments.statistics.paired import LEVEL, METHOD

REPETITIONS = 1000
SIZES = (50, 100, 200)
SEEDS = (3, 5, 10)
ALLOWED = 8.0
"""Percent of false wins that are allowed."""
PEER_REPETITIONS, PEER_RESAMPLES = 300, 999
"""Of the bootstrap, which is slower."""
FOUND = 0.75
"""Power that is asked for, as a share of the t test's, whose level skewness breaks."""
FOUND_BY_SEEDS = 0.4
"""Likewise with training seeds, as a share of what a test finds that is told the variances."""
SHIFT = 3.0
"""A true difference, in standard errors of the mean difference."""
_CHUNK = 250

Sample = Float[NDArray[np.float64], "..."]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Sample]


def _lognormal(rng: np.random.Generator, size: tuple[int, ...]) -> Sample:
    return np.exp(rng.normal(size=size))


def _failing(rate: float) -> Draw:
    """Costs near 1, and 100 in episodes that fail."""
    return lambda rng, size: np.where(rng.random(size) < rate, 100.0, 1 + 0.1 * rng.normal(size=size))


def _tied(rng: np.random.Generator, size: tuple[int, ...]) -> Sample:
    """Costs in whole steps; nine of ten scenarios cost the same under both."""
    return np.where(rng.random(size) < 0.1, rng.integers(1, 4, size=size), 0).astype(np.float64)


def _bimodal(rng: np.random.Generator, size: tuple[int, ...]) -> Sample:
    return rng.choice([0.0, 10.0], size=size) + rng.normal(size=size)


def _heavy(rng: np.random.Generator, size: tuple[int, ...]) -> Sample:
    return rng.standard_t(1.5, size=size)


SHAPES: dict[str, Draw] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "log-normal": _lognormal,
    "rare failures": _failing(0.02),
    "ties": _tied,
    "heavy tails": _heavy,
    "two modes": _bimodal,
}
"""Costs of a scenario under either controller."""

UNEQUAL: dict[str, tuple[Draw, float]] = {
    "log-normal against its mean": (_lognormal, float(np.exp(0.5))),
    "exponential against its mean": (lambda rng, size: rng.exponential(size=size), 1.0),
    "failures against their mean": (_failing(0.1), 10.9),
}
"""Costs under one controller, and the mean that the other one costs with a little noise."""


@dataclass(frozen=True)
class Trained:
    """Differences of a method with training seeds to a rival of equal mean.

    Attributes:
        each: ``[repetitions, n]``, averaged over seeds.
        sides: Per-seed means of each side with seeds, ``[repetitions, S]``.
        luck: What the policies at hand save or cost more than their methods would, ``[repetitions]``.
    """

    each: Sample
    sides: tuple[Sample, ...]
    luck: Sample


def rows(progress: Progress) -> Iterator[Row]:
    """All rows: levels and power on single policies, on seeds, on many controllers."""
    work = [*_levels(), *_powers(), *_seeded(), *_families()]
    for done, (case, run) in enumerate(work):
        progress(done / len(work), case)
        yield run()


def false_wins(each: Sample, sides: Sequence[Sample] = ()) -> float:
    """Percent of the samples ``[repetitions, n]`` with a mean of zero that get a verdict other than no difference."""
    return 100 * float(np.mean(p_values(each, sides) <= LEVEL))


def p_values(each: Sample, sides: Sequence[Sample] = ()) -> Sample:
    """The p-value of each sample, in chunks that fit in memory."""
    parts = range(0, len(each), _CHUNK)
    found = [evidence(each[i : i + _CHUNK], [side[i : i + _CHUNK] for side in sides]).p for i in parts]
    return np.concatenate(found)


def alike(name: str, n: int, repetitions: int = REPETITIONS) -> Sample:
    """Differences of two controllers whose costs follow the same law."""
    rng = np.random.default_rng([sum(name.encode()), n])
    one, other = (SHAPES[name](rng, (repetitions, n)) for _ in range(2))
    return one - other


def unequal(name: str, n: int, repetitions: int = REPETITIONS) -> Sample:
    """Differences of two controllers whose costs have equal means and other shapes."""
    rng = np.random.default_rng([sum(name.encode()), n])
    draw, mean = UNEQUAL[name]
    return draw(rng, (repetitions, n)) - mean + 0.01 * rng.normal(size=(repetitions, n))


def trained(name: str, n: int, seeds: int, *, spread: float, rival: bool, repetitions: int = REPETITIONS) -> Trained:
    """A method whose policies differ by ``spread``, and gain or lose by scenario, each policy in its own way.

    Args:
        name: Shape of the method's gain by scenario, in units of its interquartile range.
        n: Scenarios.
        seeds: Training seeds.
        spread: Standard deviation of the policies' means, in the same unit.
        rival: Whether the rival is trained too; deterministic otherwise.
        repetitions: Number of comparisons.
    """
    rng = np.random.default_rng([sum(name.encode()), n, seeds, round(100 * spread), rival])
    gain = alike(name, n, repetitions)
    unit = float(np.subtract(*np.quantile(gain, [0.75, 0.25]))) or float(np.std(gain))

    def policies() -> tuple[Sample, Sample]:
        """Of each policy what is its own: everywhere, and in each scenario."""
        own = unit * spread * rng.normal(size=(repetitions, seeds, 1))
        return own, own + unit * rng.normal(size=(repetitions, seeds, n))

    own, method = policies()
    theirs, other = policies() if rival else (np.zeros((repetitions, 1, 1)), np.zeros((repetitions, 1, n)))
    sides = tuple(side.mean(axis=2) for side in (method + gain[:, None], other) if side.shape[1] > 1)
    luck = own.mean(axis=(1, 2)) - theirs.mean(axis=(1, 2))
    return Trained(gain + method.mean(axis=1) - other.mean(axis=1), sides, luck)


# ------------------------------------------------------------------ rows


Work = tuple[str, Callable[[], Row]]


def _levels() -> Iterator[Work]:
    for draw, names in ((alike, SHAPES), (unequal, UNEQUAL)):
        for name in names:
            for n in SIZES:
                yield f"{name}, n = {n}", partial(_level, draw, name, n)


def _powers() -> Iterator[Work]:
    for n in SIZES:
        for name in SHAPES:
            if name != "heavy tails":  # whose standard error does not exist
                yield f"{name}, n = {n}", partial(_power, name, n)
        for seeds in SEEDS:
            yield f"{seeds} seeds, n = {n}", partial(_power_of_seeds, n, seeds)


def _seeded() -> Iterator[Work]:
    for seeds in SEEDS:
        for n in SIZES:
            for name in SHAPES:
                if seeds < METHOD:
                    yield f"{name}, {seeds} seeds", partial(_these_policies, name, n, seeds)
                yield f"{name}, {seeds} seeds", partial(_with_seeds, name, n, seeds, 0.3, False)
            for rival in (False, True):
                yield f"normal, {seeds} seeds", partial(_with_seeds, "normal", n, seeds, 1.0, rival)


def _families() -> Iterator[Work]:
    for n in SIZES:
        yield "ten controllers", partial(_ten_controllers, n)
        yield "best against second best", partial(_two_best, n)


def _level(draw: Callable[[str, int], Sample], name: str, n: int) -> Row:
    each = draw(name, n)
    return _no_false_win(f"{name}, n = {n}", false_wins(each), f"BCa {_bca(each):.1f} %")


def _with_seeds(name: str, n: int, seeds: int, spread: float, rival: bool) -> Row:
    found = trained(name, n, seeds, spread=spread, rival=rival)
    against = f"{seeds} seeds" if rival else "one deterministic rival"
    case = f"{name}, {seeds} seeds of spread {spread:g} against {against}, n = {n}"
    welch = 100 * float(np.mean(_welch(found.sides) <= LEVEL))
    old = f"BCa of the seeds' mean {_bca(found.each):.1f} %, Welch on seeds {welch:.1f} %"
    return _no_false_win(case, false_wins(found.each, found.sides), old)


def _these_policies(name: str, n: int, seeds: int) -> Row:
    """The policies at hand cost the same as their rival in the mean; what their method does is not asked."""
    found = trained(name, n, seeds, spread=0.3, rival=False)
    each = found.each - found.luck[:, None]
    return _no_false_win(f"{name}, these {seeds} policies, n = {n}", false_wins(each), f"BCa {_bca(each):.1f} %")


def _no_false_win(case: str, wins: float, old: str) -> Row:
    asked = f"at most {ALLOWED:g} % false wins; ours {wins:.1f} %, {old}"
    return Row(case, "comparisons without a false win, %", 100 - wins, 100 - ALLOWED, asked, 1.0)


def _power(name: str, n: int) -> Row:
    each = alike(name, n)
    shifted = each - SHIFT * float(np.std(each)) / np.sqrt(n)
    ours = false_wins(shifted)
    student = 100 * float(np.mean(stats.ttest_1samp(shifted, 0.0, axis=1).pvalue <= LEVEL))
    case = f"{name}, n = {n}"
    return Row(case, f"true differences of {SHIFT:g} standard errors found, %", ours, student, "t test", FOUND)


def _power_of_seeds(n: int, seeds: int) -> Row:
    found = trained("normal", n, seeds, spread=0.3, rival=False)
    error = float(np.std(found.each.mean(axis=1)))
    ours = false_wins(found.each - SHIFT * error, [side - SHIFT * error for side in found.sides])
    known = 100 * float(stats.norm.sf(stats.norm.isf(LEVEL / 2) - SHIFT))
    case = f"normal, {seeds} seeds of spread 0.3 against one deterministic rival, n = {n}"
    metric = f"true differences of {SHIFT:g} standard errors found, %"
    return Row(case, metric, ours, known, "test of known variances", FOUND_BY_SEEDS)


def _ten_controllers(n: int) -> Row:
    """Ten controllers as good as the baseline: a false win of any of them counts."""
    rng = np.random.default_rng([10, n])
    base = _lognormal(rng, (REPETITIONS, n))
    p = np.stack([p_values(_lognormal(rng, (REPETITIONS, n)) - base) for _ in range(10)], axis=1)
    any_of = [any(value <= level for value, level in zip(row, holm(row.tolist(), LEVEL), strict=True)) for row in p]
    single = 100 * float(np.mean((p <= LEVEL).any(axis=1)))
    return _no_false_win(f"ten controllers against a baseline, n = {n}", 100 * float(np.mean(any_of)),
                         f"each at 5 % of its own {single:.1f} %")  # fmt: skip


def _two_best(n: int) -> Row:
    """Five equal controllers: the lowest mean against the second lowest."""
    rng = np.random.default_rng([5, n])
    costs = _lognormal(rng, (REPETITIONS, 5, n))
    order = np.argsort(costs.mean(axis=2), axis=1)[:, :2, None]
    best = np.take_along_axis(costs, order, axis=1)
    last = np.take_along_axis(costs, np.argsort(costs.mean(axis=2), axis=1)[:, -1:, None], axis=1)[:, 0]
    worst = false_wins(best[:, 0] - last)
    return _no_false_win(f"best against second best of five, n = {n}", false_wins(best[:, 0] - best[:, 1]),
                         f"best against worst {worst:.1f} %")  # fmt: skip


def _bca(each: Sample) -> float:
    """Percent of samples whose BCa interval excludes zero, or has a NaN end as the old code counted it."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = stats.bootstrap(
            (each[:PEER_REPETITIONS],), np.mean, axis=1, n_resamples=PEER_RESAMPLES, batch=100, method="BCa",
            vectorized=True, rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
    return 100 * float(np.mean(~((found.low <= 0) & (found.high >= 0))))


def _welch(sides: Sequence[Sample]) -> Sample:
    if len(sides) == 1:
        return np.asarray(stats.ttest_1samp(sides[0], 0.0, axis=1).pvalue)
    return np.asarray(stats.ttest_ind(*sides, axis=1, equal_var=False).pvalue)
