import numpy as np
import pytest

from steersman.experiments.stats import Interval, Score, bca, difference, regret


def test_no_interval_below_fifty_or_with_numbers_missing() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert bca(values[:49]) is None
    assert bca(values) is not None
    assert bca(np.append(values, np.nan)) is None


def test_interval_of_a_constant_is_a_point() -> None:
    assert bca(np.full(60, 2.5)) == Interval(2.5, 2.5)


def test_interval_covers_at_its_level() -> None:
    """200 samples of a skewed distribution: 95 % intervals should cover in 190 +- 3 sd (9) cases or a little less."""
    rng = np.random.default_rng(1)
    samples = rng.exponential(size=(200, 60))
    hits = sum(not found.excludes(1.0) for row in samples if (found := bca(row)) is not None)
    assert 178 <= hits <= 199


def test_pairing_finds_a_small_gain_behind_large_differences_between_scenarios() -> None:
    rng = np.random.default_rng(2)
    hard = rng.lognormal(sigma=1.0, size=60)
    ours = 0.9 * hard * rng.normal(1.0, 0.05, size=60)
    index = np.arange(60)
    found = difference(ours, index, hard, index)
    assert found.verdict == "better" and found.beats and found.gain == pytest.approx(0.1, abs=0.03)
    alone, base = bca(ours), bca(hard)
    assert alone is not None and base is not None
    assert alone.high > base.low, "without pairing the two overlap"


def test_only_common_scenarios_are_paired() -> None:
    base = np.arange(100.0)
    found = difference(np.array([4.0, 6.0]), np.array([5, 7]), base, np.arange(100))
    assert (found.pairs, found.mean, found.wins) == (2, -1.0, 1.0)
    assert found.verdict == "too few scenarios" and not found.beats
    assert found.gain == pytest.approx(1 / 6)
    with pytest.raises(ValueError, match="share no scenario"):
        difference(base[:2], np.array([200, 201]), base, np.arange(100))


def test_a_tie_is_no_difference() -> None:
    base = np.random.default_rng(3).normal(5, 1, 60)
    found = difference(base, np.arange(60), base, np.arange(60))
    assert found.verdict == "no difference shown" and found.wins == 0.5 and found.gain == 0.0


def test_a_significant_but_tiny_gain_does_not_count() -> None:
    base = np.full(60, 100.0)
    better = base - 1 - 0.1 * np.random.default_rng(4).random(60)
    found = difference(better, np.arange(60), base, np.arange(60))
    assert found.verdict == "better" and not found.beats


def test_regret_is_zero_for_the_oracle_and_one_for_the_baseline() -> None:
    rows = [
        Score("p", name, (), np.arange(len(cost)), np.asarray(cost), float(np.mean(cost)), 0.0, None, None)
        for name, cost in (("zero", [10.0, 20.0, 99.0]), ("oracle", [2.0, 4.0]), ("pid", [6.0, 12.0, 1.0]))
    ]
    assert [regret(row, rows, "zero") for row in rows] == [1.0, 0.0, 0.5]
    assert regret(rows[0], rows[:1], "zero") is None
    assert regret(rows[2], [rows[0], rows[2]], "zero") is None
