"""What is said of several training seeds, of lost ones, and of lost baselines."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_comparisons import HARD, comparison, run, seeds, told, whole

from steersman.experiments.comparison.results import Failure, told_failures
from steersman.experiments.report.findings import glance, headline
from steersman.experiments.report.page import to_json, write_report
from steersman.experiments.stats import scores
from steersman.experiments.studies.publish import page


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
