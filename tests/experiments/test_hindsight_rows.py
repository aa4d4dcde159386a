"""What knows the future is a bound: it is shown, measures regret, and never competes."""

import numpy as np
import pytest

from steersman.controllers.base import Outcome
from steersman.controllers.planning.adjoint import Adjoint
from steersman.dynamics.registry import make_model
from steersman.envs import make_plant
from steersman.experiments.comparison.results import Comparison, Episodes, Latency, PlantSummary, RunResult
from steersman.experiments.report.findings import findings, glance, headline
from steersman.experiments.report.lines import table_lines
from steersman.experiments.stats import ranking, regret, scores

N = 60
HARD = 10 + np.random.default_rng(7).exponential(5, size=N)


def run(controller: str, share: float, track: str) -> RunResult:
    outcomes, shown = np.zeros((N, len(Outcome)), dtype=int), np.zeros((1, 6, 1))
    outcomes[:, 0] = 5
    return RunResult(
        key=controller, plant="p", controller=controller, model="", seed=0, track=track, preview=0,
        scenario=np.arange(N), cost=share * HARD, violation=np.zeros(N), status=np.zeros(N, dtype=int), steps=np.full(N, 5),
        outcomes=outcomes, inadmissible=0, latency=Latency(1e-3, 1e-3, 1e-3), train_steps=0, train_seconds=0.0,
        eval_seconds=0.0, episodes=Episodes(shown, shown, shown[:, :5]),
    )  # fmt: skip


def comparison(*results: RunResult) -> Comparison:
    plant = PlantSummary(
        id="steersman/P-v1", name="p", baseline="zero", summary="a plant", period=1.0, time_unit="s", horizon=5,
        performed=("z",), shown=(0,), actions=("u",), units=("",),
    )  # fmt: skip
    return Comparison("made", "zero", (plant,), results, (), "steersman compare made", "a machine")


RUNS = (
    run("zero", 1.0, "data only"), run("pid", 0.5, "data only"), run("mppi", 0.4, "solver access"),
    run("adjoint", 0.2, "hindsight"), run("worse adjoint", 0.3, "hindsight"), run("oracle", 0.1, "solver access"),
)  # fmt: skip


def test_a_bound_is_shown_and_never_best() -> None:
    made = comparison(*RUNS[:5])
    found = scores(made)
    said = [headline("zero", found), *findings(made, found), *(row.controller for row in glance(made, found))]
    assert "2 of 2 controllers tested" in said[0] and not any("adjoint" in sentence for sentence in said)
    assert [score.controller for score in ranking(found).order] == ["mppi", "pid", "zero"]
    lines = {line.controller: line for line in table_lines(found, "zero")}
    assert len(lines) == 5 and lines["adjoint"].verdict.startswith("a bound") and not lines["adjoint"].beats
    assert lines["adjoint"].track == "hindsight" and lines["adjoint"].gain == "80.0"


def test_regret_is_against_the_best_with_hindsight() -> None:
    found = scores(comparison(*RUNS))
    assert [regret(row, found, "zero") for row in found[:4]] == pytest.approx([1.0, 0.375, 0.25, 0.0])
    without = scores(comparison(*RUNS[:3], RUNS[5]))
    assert regret(without[1], without, "zero") == pytest.approx(4 / 9), "else against what is labelled the oracle"


def test_bounds_cost_the_tests_of_rivals_nothing() -> None:
    with_them, without = scores(comparison(*RUNS[:5])), scores(comparison(*RUNS[:3]))
    for one, other in zip(with_them, without, strict=False):
        assert one.difference is None or one.difference.interval == other.difference.interval  # type: ignore[union-attr]


@pytest.mark.parametrize(("model", "track"), [("truth", "solver access"), ("hindsight", "hindsight")])
def test_what_plans_with_the_future_runs_in_a_track_of_its_own(model: str, track: str) -> None:
    plant = make_plant("steersman/TwoArea-v2")
    assert Adjoint(2).bind(plant.problem, make_model(model, plant)).track == track
