"""Who is said to win, to tie and to fail, whatever the sign of the costs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_comparisons import HARD, N, comparison, noise, run, told, whole

from steersman.envs.plant import Status
from steersman.experiments.report.page import to_json
from steersman.experiments.report.texts import percent
from steersman.experiments.stats import ranking, scores

# ------------------------------------------------------------------ winners and ties


def test_winners_are_named_with_what_the_verdict_speaks_of() -> None:
    rows = [run("zero", HARD), run("pid", 0.8 * HARD), run("ppo", 0.7 * HARD + noise(1), learnt=9)]
    text, lines, _ = told(comparison(*rows))
    start = "2 of 2 controllers tested beat zero by 5 % or more; with data only the best of them is ppo (this trained "
    assert text.startswith(start)
    assert "Best against second best, ppo (this trained policy) against pid: saves 1" in text
    assert "shown to cost less" in text
    assert lines[0] == "Lowest cost: ppo on p."


def test_a_tie_is_near_the_best_and_not_shown_to_cost_more() -> None:
    """Costs of 1, 1.02 and 1.41 against a baseline of 1000: only the second is as good as the best."""
    base = run("zero", 1000 + noise(0))
    rows = [
        run("slow", 1 + noise(1), speed=1e-1),
        run("fast", 1.02 + noise(2), speed=1e-4),
        run("pid", 1.41 + noise(3), speed=1e-6),
    ]
    text, _, (choice,) = told(comparison(base, *rows))
    assert choice.controller == "fast" and "faster than slow, and not shown to cost more" in choice.remark
    assert "slow against fast" in text and "no difference shown" in text
    rows[1] = run("fast", 1.02 + rows[0].cost - 1, speed=1e-4)
    assert told(comparison(base, *rows))[2][0].controller == "slow", "2 % more in every scenario is shown"


def test_the_best_not_shown_to_beat_the_second_is_said() -> None:
    made = comparison(run("zero", HARD), run("a", 0.5 * HARD + noise(1, 2)), run("b", 0.5 * HARD + noise(2, 2)))
    (first, second), lines = ranking(scores(made)).order[:2], told(made)[1]
    assert lines[0] == f"Lowest cost: {first.controller} on p (not shown to beat {second.controller})."


def test_few_scenarios_are_not_tested() -> None:
    made = comparison(run("zero", HARD[:12]), run("pid", 0.1 * HARD[:12]))
    text, lines, (choice,) = told(made)
    assert text.startswith("Not tested, n = 12: verdicts need finite costs on 50 scenarios or more.")
    assert "beat" not in text and "not tested, n = 12" in choice.remark
    assert lines == ["Lowest cost: pid on p (not tested against zero)."]
    assert scores(made)[1].difference.verdict == "not tested, n = 12"  # type: ignore[union-attr]


def test_nothing_shown_is_said() -> None:
    text = told(comparison(run("zero", HARD), run("pid", HARD + noise(1, 5))))[0]
    assert text.startswith("No controller of 1 tested is shown to beat zero by 5 % or more.")


@pytest.mark.parametrize("share", [0.02, 0.04, 0.3])
def test_a_row_that_is_better_by_less_is_no_winner_and_is_named(share: float) -> None:
    """Every row with the verdict "better" is told of in the headline, and counted exactly if it saves 5 % or more."""
    rows = [run("zero", HARD), run("pid", 0.5 * HARD), run("lqr", (1 - share) * HARD), run("mpc", 1.1 * HARD)]
    made = comparison(*rows)
    text = told(made)[0]
    verdicts = {s.controller: s.difference and s.difference.verdict for s in scores(made)}
    assert verdicts == {"zero": None, "pid": "better", "lqr": "better", "mpc": "worse"}
    count = "2 of 3 controllers tested beat" if share > 0.05 else "1 of 3 controllers tested beats"
    assert text.startswith(f"{count} zero by 5 % or more; with data only the best of them is pid")
    lesser = f"Better than zero by less: lqr saves {100 * share:.1f} % (interval {100 * share:.1f} to"
    assert (lesser in text) == (share < 0.05) and "mpc" not in text
    alone = told(comparison(rows[0], rows[2]))[0]
    assert (f"No controller of 1 tested is shown to beat zero by 5 % or more. {lesser}" in alone) == (share < 0.05)


def test_nothing_is_said_to_save_all_of_what_it_does_not(tmp_path: Path) -> None:
    """Costs of about 0.04 % of the baseline's, in every place that tells shares; and one that costs nothing."""
    left = np.where(np.arange(N) % 2, 5e-4, 3e-4) * HARD
    made = comparison(run("zero", HARD), run("pid", left, track="solver access"), run("all", 0 * HARD))
    text = told(made)[0]
    assert "is pid, which saves 99.96 % (interval 99.9" in text
    assert "is all, which saves 100 % (interval 100 to 100 %)" in text
    row = json.loads(to_json(made))["scores"][1]
    assert row["gain_interval"][0] < row["gain"] < row["gain_interval"][1] < 1
    assert "<td>99.96</td>" in whole(made, tmp_path)


@pytest.mark.parametrize(
    ("share", "told", "decimal"),
    [(0.999, "99.9", "99.9"), (0.994, "99", "99.4"), (0.996, "99.6", "99.6"), (0.99996, "99.996", "99.996"),
     (1 - 1e-15, "99.999999999", "99.999999999"), (1.0, "100", "100.0"), (-1.0, "-100", "-100.0"), (0.0004, "0.0", "0.0"),
     (0.5, "50", "50.0"), (0.0123, "1.2", "1.2"), (np.nan, "\N{EN DASH}", "\N{EN DASH}")],
)  # fmt: skip
def test_shares_in_percent(share: float, told: str, decimal: str) -> None:
    assert (percent(share), percent(share, 1)) == (told, decimal)


def test_verdicts_of_a_plant_hold_together() -> None:
    """A difference at a p-value of about 0.03 is shown alone, and not among ten of its kind."""
    each = noise(11, 1.0)
    each = each - 2.2 * each.std() / np.sqrt(N)
    alone = scores(comparison(run("zero", HARD), run("c0", HARD + each)))[1].difference
    many = scores(comparison(run("zero", HARD), *(run(f"c{i}", HARD + each) for i in range(10))))
    assert alone is not None and alone.verdict == "better" and 0.01 < alone.p < 0.05
    for score in many[1:]:
        d = score.difference
        assert d is not None and d.verdict == "no difference shown" and d.level == pytest.approx(0.005)
        assert d.interval is not None and not d.interval.excludes(0.0)


# ------------------------------------------------------------------ costs that are not positive


@pytest.mark.parametrize(("base", "best"), [(0.0, -5.0), (-5.0, -10.0), (100.0, 0.0), (5.0, -1.0), (0.0, 0.0)])
def test_any_sign_of_costs_is_ranked_by_difference(base: float, best: float, tmp_path: Path) -> None:
    """Whatever the signs, the lower cost wins, and every output is written."""
    other = (base + best) / 2
    made = comparison(
        run("zero", np.full(N, base)), run("best", np.full(N, best)),
        run("quick", np.full(N, other), speed=1e-6, track="solver access"), run("worse", np.full(N, base + 1)),
    )  # fmt: skip
    text, lines, _ = told(made)
    whole(made, tmp_path)
    order = [score.controller for score in ranking(scores(made)).order]
    assert order[-1] == "worse"
    if base > best:
        assert order[0] == "best" and lines[0].startswith("Lowest cost: best on p")
        assert text.startswith("2 of 3 controllers tested beat zero")
        assert [s.difference.verdict for s in scores(made)[1:]] == ["better", "better", "worse"]  # type: ignore[union-attr]
    else:
        assert text.startswith("No controller of 3 tested is shown")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("who", ["zero", "pid"])
def test_costs_that_are_not_finite_are_said_and_never_win(bad: float, who: str, tmp_path: Path) -> None:
    costs = {"zero": HARD.copy(), "pid": 0.5 * HARD}
    costs[who][3] = bad
    made = comparison(*(run(name, cost) for name, cost in costs.items()))
    text, lines, _ = told(made)
    assert "the costs of 1 of 60 scenarios are not finite" in text and "beat" not in text
    assert "Infinity" not in whole(made, tmp_path) and not scores(made)[1].difference.beats  # type: ignore[union-attr]
    assert lines[0].startswith(f"Lowest cost: {'pid' if who == 'zero' else 'zero'} on p")
    beside = told(comparison(*made.results, run("lqr", 0.7 * HARD)))[0]
    assert who == "zero" or "Not tested: pid (the costs of 1 of 60 scenarios are not finite)." in beside


# ------------------------------------------------------------------ failures


def test_who_fails_more_is_not_called_better() -> None:
    rows = [run("zero", HARD, fails=2), run("killer", 0.05 * HARD, fails=60), run("pid", 0.5 * HARD, fails=2)]
    text, lines, (choice,) = told(comparison(*rows))
    assert text.startswith(
        "1 of 2 controllers tested beats zero by 5 % or more; with data only the best of them is pid"
    )
    why = "fails 60 of 60 episodes (zero: 2 of 60)"
    assert f"Not counted as better: killer costs less in the mean, but {why}." in text
    assert lines[0] == f"Lowest cost: killer on p (but {why})."
    assert choice.controller == "pid" and f"killer costs less, but {why}" in choice.remark
    assert not scores(comparison(*rows))[1].difference.beats  # type: ignore[union-attr]


def test_who_fails_more_is_not_the_best_that_others_are_measured_by() -> None:
    rows = [
        run("zero", HARD), run("killer", 0.01 * HARD, fails=60, speed=1.0), run("pid", 0.5 * HARD, speed=1e-4),
        run("mpc", 0.25 * HARD, track="solver access", speed=1e-2),
    ]  # fmt: skip
    lines = told(comparison(*rows))[1]
    assert lines[1].endswith("relative to the best with solver access: 2.00 times on p.")
    assert lines[2] == "Decision time: on p pid decides 100 times as fast as the best and costs 2.00 times as much."


def test_failures_are_counted_on_common_scenarios() -> None:
    """The baseline fails in scenarios 0 to 9, the controller in 0 to 4 of the 52 that it ran."""
    rows = [run("zero", HARD, fails=10), run("pid", 0.5 * HARD[:52], fails=5)]
    d = scores(comparison(*rows))[1].difference
    assert d is not None and (d.failures.count, d.failures.episodes) == (5, 52)
    assert (d.failures.other, d.failures.other_episodes) == (10, 52) and d.beats


def test_an_end_that_is_no_failure_is_none() -> None:
    goal = replace(run("goal", 0.5 * HARD), status=np.full(N, int(Status.REACHED)))
    assert scores(comparison(run("zero", HARD), goal))[1].difference.beats  # type: ignore[union-attr]
