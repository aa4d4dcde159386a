"""Paired evidence: levels, intervals, degenerate input."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from steersman.experiments.benchmarks.statistics import SHAPES, UNEQUAL, alike, false_wins, p_values, trained, unequal
from steersman.experiments.stats import MINIMUM, Interval, bca, difference, evidence, holm

INDEX = np.arange(200)


def against(cost: NDArray[np.float64], base: NDArray[np.float64] | float = 0.0):  # type: ignore[no-untyped-def]
    """Difference of the same scenarios."""
    n = np.asarray(cost).shape[-1]
    return difference(cost, INDEX[:n], np.broadcast_to(base, n), INDEX[:n])


# ------------------------------------------------------------------ levels and power


@pytest.mark.parametrize("n", [50, 100])
@pytest.mark.parametrize("name", SHAPES)
def test_no_false_winners_where_both_cost_the_same_in_law(name: str, n: int) -> None:
    """400 comparisons: at a level of 5 %, 8 % are exceeded by chance once in 300 times; the seeds are fixed."""
    assert false_wins(alike(name, n, 400)) <= 8.0


@pytest.mark.parametrize("name", UNEQUAL)
def test_no_false_winners_where_only_the_means_are_equal(name: str) -> None:
    assert false_wins(unequal(name, 50, 400)) <= 8.0


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_no_false_winners_among_methods_that_gain_by_scenario(seeds: int, spread: float) -> None:
    found = trained("normal", 100, seeds, spread=spread, rival=False, repetitions=400)
    assert false_wins(found.each, found.sides) <= 8.0
    assert false_wins(found.each) > 15.0, "without the seeds' variance the same samples name false winners"


def test_true_differences_are_found() -> None:
    """A shift of 4 standard errors: a t test finds 98 %."""
    each = alike("normal", 60, 400)
    assert false_wins(each - 4 * each.std() / np.sqrt(60)) > 93.0
    found = trained("normal", 60, 10, spread=0.1, rival=False, repetitions=400)
    error = found.each.mean(axis=1).std()
    assert false_wins(found.each - 4 * error, [side - 4 * error for side in found.sides]) > 85.0


def test_pairing_finds_a_small_gain_behind_large_differences_between_scenarios() -> None:
    rng = np.random.default_rng(2)
    hard = rng.lognormal(sigma=1.0, size=60)
    ours = 0.9 * hard * rng.normal(1.0, 0.05, size=60)
    found = against(ours, hard)
    assert found.verdict == "better" and found.beats and found.gain == pytest.approx(0.1, abs=0.03)
    alone, base = bca(ours), bca(hard)
    assert alone is not None and base is not None
    assert alone.high > base.low, "without pairing the two overlap"


def test_a_better_majority_with_rare_disasters_is_no_winner() -> None:
    """Saves 1 in 57 scenarios, loses 15 in 3: the mean is lower by 0.2, and nothing of it is shown."""
    found = against(np.r_[np.full(57, -1.0), np.full(3, 15.0)])
    assert found.mean == pytest.approx(-0.2) and found.wins == 0.95
    assert found.verdict == "no difference shown"


# ------------------------------------------------------------------ what the tests are


def test_sign_flips_agree_with_their_enumeration() -> None:
    """Ten differences that are not zero among sixty: all 1024 sign patterns of them are counted."""
    values = np.array([3.0, -1.0, 2.5, 4.0, -0.5, 1.5, 2.0, -2.0, 5.0, 0.25])
    signs = 1 - 2 * ((np.arange(1024)[:, None] >> np.arange(10)) & 1)
    exact = np.mean(np.abs(signs @ values) >= abs(values.sum()) - 1e-12)
    found = evidence(np.r_[values, np.zeros(50)])
    above = (1 + (found.subsets <= 0).sum()) / (len(found.subsets) + 1)
    assert 2 * above == pytest.approx(exact, abs=0.008)


def test_the_skewness_correction_is_halls() -> None:
    """At the corrected value of a symmetric sample it is Student's t; of a skewed one, n^-1/2 terms are removed."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=80)
    x = np.r_[x, -x] + 0.1
    below, above = evidence(x)._skewed()
    t = scipy_stats.ttest_1samp(x, 0.0)
    assert 2 * min(below, above) == pytest.approx(t.pvalue, rel=1e-9)
    y = rng.exponential(size=60) - 0.8
    n, g, w = 60, scipy_stats.skew(y), y.mean() / y.std()
    hall = np.sqrt(n - 1) * (w + g * w**2 / 3 + g**2 * w**3 / 27 + g / (6 * n))
    assert evidence(y)._skewed()[0] == pytest.approx(scipy_stats.t.cdf(hall, n - 1))


def test_the_error_of_a_method_is_that_of_scenarios_and_seeds() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(size=(6, 70)), rng.normal(size=(4, 70))
    each = ours.mean(axis=0) - theirs.mean(axis=0)
    found = evidence(each, [ours.mean(axis=1), theirs.mean(axis=1)])
    parts = [each.var(ddof=1) / 70, ours.mean(axis=1).var(ddof=1) / 6, theirs.mean(axis=1).var(ddof=1) / 4]
    assert found.error == pytest.approx(sum(parts))
    assert found.freedom == pytest.approx(sum(parts) / (parts[0] / 69 + parts[1] / 5 + parts[2] / 3))
    satterthwaite = sum(parts) ** 2 / (parts[0] ** 2 / 69 + parts[1] ** 2 / 5 + parts[2] ** 2 / 3)
    assert found.freedom < satterthwaite


def test_few_seeds_speak_of_their_policies_and_many_of_the_method() -> None:
    """Two of three policies save 20, one costs 30 more: these three save 3 in the mean, the method may not."""
    rng = np.random.default_rng(3)
    base = rng.normal(100, 5, size=60)
    shifts = np.array([-20.0, -20.0, 30.0, -20.0, 20.0, -18.0])[:, None]
    ours = base + shifts + rng.normal(size=(6, 60))
    three, six = against(ours[:3], base), against(ours, base)
    assert three.verdict == "better" and three.open
    assert six.verdict == "no difference shown" and not six.open
    steady = against(base - 20 + rng.normal(size=(3, 60)), base)
    assert steady.verdict == "better" and not steady.open


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from([0, 3, 5]), st.sampled_from([0.2, 0.05, 0.01, 0.005]), st.floats(-0.6, 0.6)
)
def test_interval_and_p_value_never_disagree(seed: int, seeds: int, level: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    draw = list(SHAPES.values())[seed % len(SHAPES)]
    each = draw(rng, (60,)) - draw(rng, (60,)) + shift
    found = evidence(each, [rng.normal(size=seeds)] if seeds else [])
    low, high = found.ends(level)
    assert low <= found.mean <= high
    assert Interval(float(low), float(high)).excludes(0.0) == (found.p <= level)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm(p: list[float]) -> None:
    """Rejected exactly if the adjusted p-value, the running maximum of (m - rank) p, is at most the level."""
    adjusted, worst = [0.0] * len(p), 0.0
    for rank, i in enumerate(np.argsort(p, kind="stable")):
        worst = max(worst, (len(p) - rank) * p[i])
        adjusted[i] = worst
    for mine, level, value in zip(p, holm(p, 0.05), adjusted, strict=True):
        if abs(value - 0.05) > 1e-12:  # levels divide where the textbook multiplies: equality may round either way
            assert (mine <= level) == (value <= 0.05)


def test_a_large_sample_is_tested_in_little_memory() -> None:
    each = np.random.default_rng(0).normal(0.2, 1.0, size=(1, 5_000))
    assert p_values(each)[0] == pytest.approx(2 / 10_000)


def test_too_little_for_a_test_is_refused() -> None:
    with pytest.raises(ValueError, match="two values or more, got 1 differences"):
        evidence(np.ones(1))
    with pytest.raises(ValueError, match=r"\[1\] seeds"):
        evidence(np.ones(9), [np.ones(1)])


# ------------------------------------------------------------------ degenerate input


def test_an_interval_with_nan_ends_excludes_nothing() -> None:
    assert not Interval(np.nan, np.nan).excludes(0.0)
    assert not Interval(np.nan, 1.0).excludes(0.5) and not Interval(0.0, np.nan).excludes(0.5)


def test_rounding_is_no_difference() -> None:
    for noise in (np.tile([1e-13, -1e-13], 32), np.full(64, 1e-13), np.linspace(0, 2e-13, 64)):
        found = against(1e3 + noise, 1e3)
        assert found.verdict == "no difference shown" and found.mean == 0 and found.wins == 0.5


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1.0, 1e9, 1e300])
def test_verdicts_do_not_depend_on_the_unit(scale: float) -> None:
    each = np.random.default_rng(0).normal(-1.0, 2.0, size=60)
    one, other = against(each), against(each * scale)
    assert one.p == other.p and other.verdict == "better" and other.interval is not None and one.interval is not None
    assert other.interval.low == pytest.approx(one.interval.low * scale)


def test_one_scenario_decides_nothing() -> None:
    for value in (1.0, -1.0, 1e300):
        found = against(np.r_[np.zeros(63), value])
        assert found.verdict == "no difference shown"


def test_equal_differences_are_shown() -> None:
    found = against(np.full(60, 95.0), 100.0)
    assert found.verdict == "better" and found.interval == Interval(-5.0, -5.0) and found.beats
    assert found.gain == pytest.approx(0.05) and found.gain_interval is not None
    assert (found.gain_interval.low, found.gain_interval.high) == pytest.approx((0.05, 0.05))


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_cost_that_is_not_finite_is_said(bad: float) -> None:
    for one, other in ((np.r_[np.zeros(63), bad], np.ones(64)), (np.ones(64), np.r_[np.zeros(63), bad])):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = against(one, other)
        assert found.verdict == "not tested, the costs of 1 of 64 scenarios are not finite"
        assert not found.beats and found.interval is None and found.gain_interval is None and np.isnan(found.gain)
        assert not np.isfinite(found.mean)


def test_only_common_scenarios_are_paired() -> None:
    base = np.arange(100.0)
    found = difference(np.array([4.0, 6.0]), np.array([5, 7]), base, np.arange(100))
    assert (found.pairs, found.mean, found.wins) == (2, -1.0, 1.0)
    assert found.verdict == "not tested, n = 2" and not found.beats
    assert found.gain == pytest.approx(1 / 6)
    with pytest.raises(ValueError, match="share no scenario"):
        difference(base[:2], np.array([200, 201]), base, np.arange(100))


def test_a_tie_is_no_difference() -> None:
    base = np.random.default_rng(3).normal(5, 1, 60)
    found = against(base, base)
    assert found.verdict == "no difference shown" and found.wins == 0.5 and found.mean == 0.0


def test_a_significant_but_tiny_gain_does_not_count() -> None:
    found = against(99 - 0.1 * np.random.default_rng(4).random(60), 100.0)
    assert found.verdict == "better" and not found.beats


@pytest.mark.parametrize(("ours", "base"), [(-5.0, 0.0), (-10.0, -5.0), (-1.0, 5.0)])
def test_where_costs_are_not_positive_there_are_no_shares_but_verdicts(ours: float, base: float) -> None:
    rng = np.random.default_rng(0)
    found = against(ours + 0.01 * rng.normal(size=60), np.full(60, base))
    assert found.verdict == "better" and found.beats
    assert np.isnan(found.gain) and found.gain_interval is None


def test_a_cost_of_zero_saves_everything() -> None:
    found = against(np.zeros(60), np.random.default_rng(0).random(60))
    assert found.gain == 1.0 and found.beats and found.gain_interval is not None
    assert (found.gain_interval.low, found.gain_interval.high) == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize(("count", "shown"), [(1, False), (4, False), (5, True), (60, True)])
def test_who_is_shown_to_fail_more_often_does_not_beat(count: int, shown: bool) -> None:
    """Fisher's exact test of 60 and 60 episodes: P(all of k failures on one side) is 0.057 for 4 and 0.029 for 5."""
    failed = np.zeros((1, 60), dtype=bool)
    failed[0, :count] = True
    found = difference(
        np.ones(60), INDEX[:60], np.full(60, 20.0), INDEX[:60], failed=failed, base_failed=~failed & False
    )
    assert found.verdict == "better" and found.failures.more and found.failures.shown == shown == (not found.beats)
    assert (found.failures.count, found.failures.episodes, found.failures.other) == (count, 60, 0)
    assert difference(np.ones(60), INDEX[:60], np.full(60, 20.0), INDEX[:60], failed=failed, base_failed=failed).beats


# ------------------------------------------------------------------ shares of the other's cost


COSTS = {
    "log-normal": lambda rng, size: rng.lognormal(size=size),
    "rare failures": lambda rng, size: np.where(rng.random(size) < 0.1, 20.0, rng.exponential(0.2, size=size)),
    "one scale": lambda rng, size: 5 + rng.exponential(size=size),
}
"""Costs of a scenario that are never negative."""


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("share", [0.0, 0.98])
def test_the_interval_of_a_share_covers_it_and_promises_no_more_than_everything(name: str, share: float) -> None:
    """100 comparisons of 60 scenarios: at 95 %, fewer than 88 hits are luck once in 200 times; the seeds are fixed.

    Divided by one fixed mean of the baseline, the difference's interval promises more than 100 %.
    """
    rng = np.random.default_rng([len(name), round(100 * share)])
    hits, beyond = 0, 0
    for _ in range(100):
        base = COSTS[name](rng, 60)
        found = against((1 - share) * COSTS[name](rng, 60), base)
        ends, fixed = found.gain_interval, found.interval
        assert ends is not None and fixed is not None
        assert ends.low <= found.gain <= ends.high <= 1.0
        hits += not ends.excludes(share)
        beyond += -fixed.low / found.base > 1
    assert hits >= 88
    if share == 0.98:
        assert beyond > 70, "the old interval"


def test_a_known_baseline_makes_the_share_as_certain_as_the_cost() -> None:
    """Nothing is uncertain about a constant: then, and only then, the difference may be divided by it."""
    found = against(np.random.default_rng(0).exponential(size=80), 4.0)
    assert found.interval is not None and found.gain_interval is not None
    fixed = (-found.interval.high / 4, -found.interval.low / 4)
    assert (found.gain_interval.low, found.gain_interval.high) == pytest.approx(fixed, rel=1e-8)


def test_a_share_of_every_scenario_is_certain_however_hard_they_are() -> None:
    hard = np.random.default_rng(1).lognormal(sigma=1.5, size=60)
    found = against(0.02 * hard, hard)
    assert found.gain_interval is not None and found.gain == pytest.approx(0.98)
    assert (found.gain_interval.low, found.gain_interval.high) == pytest.approx((0.98, 0.98), abs=1e-6)


def test_the_share_of_a_cost_that_rarely_happens_has_no_lower_end() -> None:
    """Two scenarios of 60 cost anything: random signs cannot tell their mean from zero."""
    found = against(np.full(60, 1.0), np.r_[np.full(2, 90.0), np.zeros(58)])
    assert found.gain == pytest.approx(2 / 3) and found.verdict == "no difference shown"
    assert found.gain_interval is not None and found.gain_interval.low == -np.inf and found.gain_interval.high < 1


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from(sorted(COSTS)), st.sampled_from([1, 3, 6]),
    st.sampled_from([0.2, 0.05, 0.005]), st.floats(0.2, 1.6),
)  # fmt: skip
def test_share_and_difference_exclude_zero_together(
    seed: int, name: str, seeds: int, level: float, ratio: float
) -> None:
    rng = np.random.default_rng(seed)
    base = COSTS[name](rng, (1 + seed % 6, 60))
    ours = ratio * base.mean(axis=0) * rng.lognormal(sigma=0.5, size=(seeds, 1)) * rng.lognormal(size=(seeds, 60))
    found = against(ours, base.mean(axis=0)) if seed % 2 else difference(ours, INDEX[:60], base, INDEX[:60])
    found = found.at(level)
    assert found.interval is not None and found.gain_interval is not None
    assert found.gain_interval.excludes(0.0) == found.interval.excludes(0.0) == (found.p <= level)
    assert found.gain_interval.low <= found.gain <= found.gain_interval.high <= 1


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1e9, 1e300])
def test_shares_do_not_depend_on_the_unit(scale: float) -> None:
    base = np.random.default_rng(0).exponential(size=60)
    one, other = against(0.3 * base[::-1], base), against(0.3 * base[::-1] * scale, base * scale)
    assert one.gain_interval is not None and other.gain_interval is not None
    assert other.gain_interval.low == pytest.approx(one.gain_interval.low)
    assert other.gain_interval.high == pytest.approx(one.gain_interval.high)


# ------------------------------------------------------------------ intervals that describe


def test_no_description_below_fifty_or_with_numbers_missing() -> None:
    values = np.random.default_rng(0).normal(size=MINIMUM)
    assert bca(values[:-1]) is None
    assert bca(values) is not None
    assert bca(np.append(values, np.nan)) is None
    assert bca(np.full(60, 2.5)) == Interval(2.5, 2.5)
    for degenerate in (np.r_[np.zeros(63), 1e300], 1e9 + 1e-7 * np.tile([0, 1], 32), np.r_[np.zeros(63), 1.0]):
        found = bca(degenerate)
        assert found is None or np.isfinite([found.low, found.high]).all()


def test_description_covers_at_its_level() -> None:
    """200 samples of a skewed distribution: 95 % intervals should cover in 190 +- 3 sd (9) cases or a little less."""
    rng = np.random.default_rng(1)
    samples = rng.exponential(size=(200, 60))
    hits = sum(not found.excludes(1.0) for row in samples if (found := bca(row)) is not None)
    assert 178 <= hits <= 199
