"""What a comparison says in words agrees with its numbers: comparisons made of given costs."""

import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from rich.console import Console

from steersman.controllers.base import Outcome
from steersman.envs.plant import Status
from steersman.experiments.findings import findings, glance, headline
from steersman.experiments.report import terminal_tables, to_json, write_parquet, write_report
from steersman.experiments.results import Comparison, Episodes, Failure, Latency, PlantSummary, RunResult, told_failures
from steersman.experiments.stats import Score, ranking, regret, regret_scenarios, scores
from steersman.experiments.studies.publish import page, plot
from steersman.experiments.texts import percent

N = 60
HARD = 10 + np.random.default_rng(7).exponential(5, size=N)
"""How hard each scenario is."""


def noise(seed: int, scale: float = 0.1) -> NDArray[np.float64]:
    """Zero in the mean."""
    values = scale * np.random.default_rng(seed).normal(size=N)
    return values - values.mean()


def run(
    controller: str, cost: Any, *, plant: str = "p", seed: int = 0, track: str = "data only", fails: int = 0,
    speed: float = 1e-3, learnt: int = 0, **more: Any,
) -> RunResult:  # fmt: skip
    cost = np.asarray(cost, dtype=float)
    n = len(cost)
    status = np.where(np.arange(n) < fails, int(Status.TERMINATED), 0)
    outcomes = np.zeros((n, len(Outcome)), dtype=int)
    outcomes[:, 0] = 5
    shown = np.zeros((1, 6, 1))
    return RunResult(
        key=f"{controller}{seed}", plant=plant, controller=controller, model="", seed=seed, track=track, preview=0,
        scenario=np.arange(n), cost=cost, violation=np.zeros(n), status=status, steps=np.full(n, 5), outcomes=outcomes,
        inadmissible=0, latency=Latency(speed, speed, speed), train_steps=learnt, train_seconds=0.0, eval_seconds=0.0,
        episodes=Episodes(shown, shown, shown[:, :5]), **more,
    )  # fmt: skip


def comparison(*results: RunResult, failures: Sequence[Failure] = (), baseline: str = "zero") -> Comparison:
    names = list(dict.fromkeys(r.plant for r in results))
    plants = tuple(
        PlantSummary(
            id="steersman/P-v1", name=name, baseline=baseline, summary="a plant", period=1.0, time_unit="s", horizon=5,
            performed=("z",), shown=(0,), actions=("u",), units=("",),
        )
        for name in names
    )  # fmt: skip
    return Comparison("made", baseline, plants, results, tuple(failures), "steersman compare made", "a machine")


def told(made: Comparison) -> tuple[str, list[str], list[Any]]:
    """Headline of the only plant, findings, glance."""
    found = scores(made)
    return headline(made.plants[0].baseline, found), findings(made, found), glance(made, found)


def whole(made: Comparison, tmp_path: Path) -> str:
    """The page; everything else is written as well."""
    write_report(made, tmp_path / "report.html")
    write_parquet(made, tmp_path / "results.parquet")
    plot(made, tmp_path / "plot.png")
    console = Console(width=100, record=True, file=io.StringIO())
    for table in terminal_tables(made):
        console.print(table)
    return (tmp_path / "report.html").read_text() + page(made) + to_json(made) + console.export_text()


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


# ------------------------------------------------------------------ training seeds


def seeds(name: str, shifts: Sequence[float], **more: Any) -> list[RunResult]:
    return [run(name, HARD + s + noise(i), seed=i, learnt=9, **more) for i, s in enumerate(shifts)]


@pytest.mark.parametrize(
    ("shifts", "about"), [([-4], "this trained policy"), ([-4, -5, -4.5], "these 3 policies"),
                          ([-4, -5, -4.5, -4, -5], "the method, 5 seeds")],
)  # fmt: skip
def test_what_a_verdict_speaks_of(shifts: list[float], about: str) -> None:
    made = comparison(run("zero", HARD), *seeds("ppo", shifts))
    score = scores(made)[1]
    assert score.about == about and score.difference is not None and score.difference.verdict == "better"
    assert f"the best of them is ppo ({about}), which saves" in told(made)[0]


def test_a_trained_baseline_is_said() -> None:
    score = scores(comparison(*seeds("zero", [0, 0.5]), *seeds("ppo", [-4, -5, -4.5, -4, -5])))[1]
    assert score.about == "the method, 5 seeds, against 2 trained of zero"


def test_seeds_that_differ_show_nothing_of_the_method() -> None:
    made = comparison(run("zero", HARD), *seeds("ppo", [-6, 5, -5, 4, -3]))
    assert told(made)[0].startswith("No controller of 1 tested")
    rows = json.loads(to_json(made))["scores"][1]
    assert rows["verdict"] == "no difference shown"
    assert [row["verdict"] for row in rows["per_seed"]] == ["better", "worse", "better", "worse", "better"]


def test_three_seeds_that_differ_speak_of_themselves_only(tmp_path: Path) -> None:
    """Each of three policies is worse, by 1 to 12: so are the three; what a fourth would be is open."""
    made = comparison(run("zero", HARD), *seeds("ppo", [1, 12, 2]), *seeds("sac", [-2, -9, -1]))
    rows = json.loads(to_json(made))["scores"]
    assert [(r["verdict"], r["about"]) for r in rows[1:]] == [
        ("worse", "these 3 policies, not shown of the method"), ("better", "these 3 policies, not shown of the method"),
    ]  # fmt: skip
    assert {row["verdict"] for row in rows[1]["per_seed"]} == {"worse"}
    assert "sac (these 3 policies, not shown of the method), which saves" in told(made)[0]
    assert "better: these 3 policies, not shown of the method" in whole(made, tmp_path)


def test_a_lost_seed_is_marked_everywhere(tmp_path: Path) -> None:
    lost = [Failure("k", "p", "ppo", seed, "FloatingPointError: NaN") for seed in (0, 2)]
    made = comparison(run("zero", HARD), run("ppo", 0.5 * HARD, seed=1, learnt=9), failures=lost)
    text, lines, (choice,) = told(made)
    assert "ppo (1 of 3 seeds)" in text and "ppo on p (1 of 3 seeds)" in lines[0] and "1 of 3 seeds" in choice.remark
    data = json.loads(to_json(made))
    assert data["scores"][1]["seeds_finished"] == "1 of 3" and data["scores"][1]["seeds"] == 1
    assert data["scores"][1]["about"] == "the 1 of 3 policies that were trained"
    assert [f["seed"] for f in data["failures"]] == [0, 2]
    write_report(made, tmp_path / "report.html")
    assert "60 x 1 of 3 seeds" in (tmp_path / "report.html").read_text() and "1 of 3 seeds" in page(made)


def test_where_nothing_ran_a_sentence_says_so_and_equal_errors_are_told_once(tmp_path: Path) -> None:
    lost = [Failure(f"k{name}{seed}", plant, name, seed, error) for plant, name, seed, error in (
        ("q", "zero", 0, "ValueError: [no] level"), ("q", "ppo", 0, "ValueError: [no] level"),
        ("q", "ppo", 2, "ValueError: [no] level"), ("q", "mpc", 0, "another"), ("p", "ppo", 1, "ValueError: [no] level"),
    )]  # fmt: skip
    made = comparison(run("zero", HARD), *seeds("ppo", [-4.0]), run("zero", HARD, plant="q"), failures=lost)
    made = replace(made, results=made.results[:2])
    rows = ["q, zero (seed 0), ppo (seeds 0, 2); p, ppo (seed 1): ValueError: [no] level", "q, mpc (seed 0): another"]
    assert [": ".join(pair) for pair in told_failures(made)] == rows
    said = whole(made, tmp_path)
    assert "q: No run on this plant has finished." in said and "q: a plant" not in said and "p: a plant" in said
    assert f"- Failed: {rows[0]}" in said and "<b>q, mpc (seed 0)</b>: another" in said
    assert len(json.loads(to_json(made))["failures"]) == 5, "programs read every one"
    alone = replace(made, results=(), failures=tuple(lost[:2][i] for i in (0, 1)))
    assert told_failures(alone) == [("q, zero, ppo", "ValueError: [no] level")]


def test_a_baseline_of_another_plant_and_a_lost_baseline() -> None:
    """Every plant has a baseline of its own; where it is lost nothing is compared."""
    rows = [run("zero", HARD), run("pid", 0.5 * HARD), run("base", HARD, plant="q"), run("pid", 2 * HARD, plant="q"),
            run("pid", HARD, plant="r")]  # fmt: skip
    made = comparison(*rows)
    plants = (made.plants[0], replace(made.plants[1], baseline="base"), made.plants[2])
    made = replace(made, plants=plants, failures=(Failure("k", "r", "zero", 0, "lost"),))
    found = scores(made)
    verdicts = {(s.plant, s.controller): s.difference and s.difference.verdict for s in found}
    assert verdicts == {
        ("p", "zero"): None, ("p", "pid"): "better", ("q", "base"): None, ("q", "pid"): "worse", ("r", "pid"): None,
    }  # fmt: skip
    assert headline("zero", found[4:]) == "zero has no result here, so no controller is compared with it."
    assert np.isnan(next(c.gain for c in glance(made, found) if c.plant == "r")), "nothing is saved of no baseline"
    assert len({c.plant for c in glance(made, found)}) == 3


# ------------------------------------------------------------------ subsets of scenarios


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


# ------------------------------------------------------------------ what is written


def test_data_is_complete_and_compact(tmp_path: Path) -> None:
    made = comparison(run("zero", HARD, price=2.5), *seeds("ppo", [-4, -5, -4.5], price=2.5, notes=("resumed",)))
    text = to_json(made)
    row = json.loads(text)["scores"][1]
    assert np.allclose(row["costs"], [r.cost for r in made.results[1:]], rtol=1e-8) and len(row["costs"]) == 3
    assert row["scenario"] == list(range(N)) and row["failed"] == [[], [], []]
    assert len(text.splitlines()) < 400, "lists of numbers are on one line"
    (duel,) = json.loads(text)["best_against_second"]
    assert (duel["best"], duel["second"], duel["verdict"]) == ("ppo", "zero", "better")
    write_parquet(made, tmp_path / "r.parquet")
    assert set(pq.read_table(tmp_path / "r.parquet")["seed"].to_pylist()) == {0, 1, 2}
    write_report(made, tmp_path / "r.html")
    html = (tmp_path / "r.html").read_text()
    assert "ppo, seed 1: resumed." in html and "is charged 2.500." in html
    assert html.count("<td>ppo, seed ") == 3 and "Each training seed for itself" in html


def test_markup_in_names_is_text(tmp_path: Path) -> None:
    odd = "[/red] [bold]x"
    made = comparison(run("zero", HARD), run(odd, 0.5 * HARD))
    made = replace(made, plants=(replace(made.plants[0], summary="a [/plant] <b>"),))
    said = whole(made, tmp_path)
    assert odd in said and "a [/plant] &lt;b&gt;" in said and "<b>x" not in said


@pytest.mark.parametrize("seed", range(5))
def test_words_and_numbers_agree_on_random_comparisons(seed: int, tmp_path: Path) -> None:
    """Random costs, signs, failures, lost seeds and subsets: all outputs are written, and no sentence names a loser."""
    rng = np.random.default_rng(seed)
    rows = [run("zero", rng.normal(3, 1) * HARD, fails=int(rng.integers(0, 5)))]
    for i in range(int(rng.integers(1, 5))):
        n = int(rng.choice([60, 60, 55, 12]))
        for s in range(int(rng.choice([1, 3, 5]))):
            cost = rng.choice([-1.0, 0.0, 0.5, 1.0]) * HARD[:n] + rng.normal(size=n)
            rows.append(run(f"c{i}", cost, seed=s, fails=int(rng.integers(0, 5)), learnt=int(rng.integers(0, 2)),
                            track=("data only", "solver access")[i % 2], speed=float(rng.exponential(1e-3))))  # fmt: skip
    made = comparison(*rows)
    found = scores(made)
    text, _, choices = told(made)
    whole(made, tmp_path)
    for score in found[1:]:
        d = score.difference
        assert d is not None
        if f"the best of them is {score.controller}" in text:
            assert d.beats and d.mean < 0 and not d.failures.shown
        if d.beats and d.failures.more:
            assert f"fails {d.failures.count} of {d.failures.episodes} episodes" in text
    order = ranking(found)
    for a, b in itertools.pairwise(order.order):
        assert order.mean[a.controller] <= order.mean[b.controller]
    for choice in choices:
        best = order.best(choice.track)
        assert best is not None
        if choice.controller != best.controller:
            assert choice.remark, "a choice that is not the cheapest says why"
