"""What is said of rows on some of the scenarios, and of regret."""

from pathlib import Path

import numpy as np
import pytest
from made_comparisons import HARD, N, comparison, run, told, whole

from steersman.experiments.report.findings import glance
from steersman.experiments.stats import Score, ranking, regret, regret_scenarios, scores


def test_means_over_other_scenarios_are_marked_and_not_ranked(tmp_path: Path) -> None:
    """The first ten scenarios are easy: the slow controller's mean is the lowest, and says nothing."""
    easy = np.r_[np.full(10, 1.0), np.full(50, 20.0)]
    made = comparison(run("zero", easy), run("pid", 0.9 * easy), run("slow", 1.5 * easy[:10]))
    text, lines, _ = told(made)
    assert scores(made)[2].mean < scores(made)[1].mean
    assert "pid" in lines[0] and "slow" not in lines[0]
    assert "Not tested: slow (n = 10)." in text
    said = whole(made, tmp_path)
    assert "<td>1.500*</td>" in said and "* Mean over fewer than 60 scenarios" in said and "| 1.500* |" in said


def test_rows_of_fifty_and_sixty_are_ranked_on_fifty() -> None:
    tail = np.r_[np.full(50, 10.0), np.full(10, 1000.0)]
    rank = ranking(scores(comparison(run("zero", tail), run("pid", 0.5 * tail), run("slow", 0.6 * tail[:50]))))
    assert [s.controller for s in rank.order] == ["pid", "slow", "zero"]
    assert rank.mean == {"zero": 10.0, "pid": 5.0, "slow": 6.0} and len(rank.scenario) == 50


def test_gains_on_other_scenarios_are_not_mixed() -> None:
    """All save half of ten easy scenarios; on the other fifty one saves a tenth, and the other did not run them."""
    cost = np.r_[np.full(10, 100.0), np.full(50, 10.0)]
    rows = [run("zero", cost), run("pid", np.r_[np.full(10, 50.0), np.full(50, 9.0)]),
            run("mpc", 0.5 * cost[:50], track="solver access")]  # fmt: skip
    text, _, glanced = told(comparison(*rows))
    assert "is pid, which saves 37 % (" in text and "is mpc, which saves 50 % (" in text
    assert text.count(" on its n = 50") == 1 and text.index("is mpc") < text.index(" on its n = 50")
    kept = {c.controller: (c.cost, c.gain) for c in glanced}
    assert kept["pid"] == (pytest.approx((500 + 360) / 50), pytest.approx(1 - 860 / 1400))
    assert kept["mpc"] == (pytest.approx(14.0), pytest.approx(0.5))


def test_nothing_is_saved_of_a_baseline_that_is_not_ranked() -> None:
    """It ran ten scenarios only, so that its mean is over others than those of the ranking."""
    made = comparison(run("zero", HARD[:10]), run("pid", 0.5 * HARD), run("lqr", 0.25 * HARD, track="solver access"))
    found = scores(made)
    assert [s.difference and s.difference.gain for s in found] == [None, pytest.approx(0.5), pytest.approx(0.75)]
    assert [s.controller for s in ranking(found).left_out] == ["zero"]
    choices = {c.controller: c for c in glance(made, found)}
    assert set(choices) == {"pid", "lqr"} and all(np.isnan(c.gain) for c in choices.values())
    assert choices["pid"].cost == pytest.approx(0.5 * HARD.mean())


def test_an_oracle_that_saves_rounding_measures_no_regret() -> None:
    made = comparison(run("zero", HARD), run("oracle", HARD * (1 - 1e-15)), run("pid", 1.1 * HARD))
    found = scores(made)
    assert found[1].mean < found[0].mean and [regret(row, found, "zero") for row in found] == [None] * 3


def test_a_mean_beside_one_that_is_infinite_is_told() -> None:
    made = comparison(run("zero", HARD * np.inf), run("pid", np.full(N, 7.0)))
    text, lines, _ = told(made)
    assert "pid against zero: mean costs 7.000 and \N{EN DASH}; not tested" in text
    assert lines[0] == "Lowest cost: pid on p (not tested against zero)."
    assert told(comparison(run("zero", HARD * np.inf), run("pid", HARD * np.inf)))[1] == []


def test_regret_is_over_the_scenarios_of_all_three() -> None:
    rows = [
        Score("p", name, (), np.asarray(index), np.asarray(cost), float(np.mean(cost)), 0.0, None, None)
        for name, index, cost in (
            ("zero", [0, 1, 2], [10.0, 20.0, 99.0]), ("oracle", [0, 1], [2.0, 4.0]), ("pid", [0, 1, 2], [6.0, 12.0, 1.0]),
            ("late", [1, 2], [20.0, 0.0]),
        )
    ]  # fmt: skip
    assert [regret(row, rows, "zero") for row in rows] == [1.0, 0.0, 0.5, 1.0]
    assert [regret_scenarios(row, rows, "zero") for row in rows] == [2, 2, 2, 1]
    assert regret(rows[0], rows[:1], "zero") is None
    assert regret(rows[2], [rows[0], rows[2]], "zero") is None
