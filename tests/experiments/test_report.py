"""What a comparison says in words agrees with its numbers, in everything that is written."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_comparisons import HARD, N, comparison, run, seeds, told, whole

from steersman.experiments.report.page import to_json, write_parquet, write_report
from steersman.experiments.stats import ranking, scores


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
