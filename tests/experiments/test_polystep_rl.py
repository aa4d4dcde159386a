"""The study of policy search: runs in lockstep do not see each other, and its page follows from its rows."""

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch

from steersman.envs import make_simulator
from steersman.experiments.comparison.cells import codes_of
from steersman.experiments.studies.polystep import policy_runs
from steersman.experiments.studies.polystep import rl as polystep_rl
from steersman.experiments.studies.polystep.policy_runs import STREAK, Row, Task, run_cell
from steersman.experiments.studies.polystep.rl_page import STUDY, claims, figure
from steersman.experiments.studies.study import Finished, Made, Results
from steersman.experiments.studies.writing import page
from steersman.optimizers.registry import make_search

TINY = Task("steersman/Pendulum-v1", None, 20_000, scenarios=2, held_out=4, final=4, seeds=2, explore=2)


def test_runs_in_lockstep_do_not_see_each_other() -> None:
    together = run_cell(TINY, "mlp", (2,), ("random",), range(2))
    (alone,) = run_cell(TINY, "mlp", (2,), ("random",), [1])
    twin = together[1]
    assert (twin.search, twin.seed, twin.plant_steps, twin.evaluations) == (
        "random",
        1,
        alone.plant_steps,
        alone.evaluations,
    )
    assert twin.final == pytest.approx(alone.final, rel=1e-9)
    assert [p[2] for p in twin.curve] == pytest.approx([p[2] for p in alone.curve], rel=1e-9)
    # three kinds of episodes count: exploration, whole generations of 34 members, and the choice at the end
    assert twin.evaluations == 2 * 34 and twin.plant_steps == 200 * (2 + 2 * 34 * 2 + 2 * 8)


def row(search: str, seed: int, solved: int, final: float, task: str = "CartPole") -> Row:
    curve = [(0, 100, 20.0), (180, 90_000, final)]
    return Row(task, "mlp", search, seed, 114, 475.0, 180 if solved >= 0 else -1, solved, 198, 150_000, final, curve)


@pytest.mark.slow
def test_a_threshold_is_held_by_a_streak_only() -> None:
    task = Task("steersman/Pendulum-v1", -1e9, 90_000, scenarios=1, held_out=2, final=2, explore=1, stop=True)
    (easy,) = run_cell(task, "mlp", (2,), ("random",), [0])
    assert easy.evaluations == easy.solved_evaluations == (STREAK - 1) * 34 and len(easy.curve) == STREAK
    assert easy.held and easy.solved


def test_the_confirmed_best_is_judged_on_episodes_of_its_own() -> None:
    """While the champion stands, what is evaluated beside the members is it and not the centre, on new episodes."""
    simulator = make_simulator("steersman/Pendulum-v1", 1)
    begin = (torch.zeros(3), torch.ones(3), 0, simulator.problem, 0.0)
    one = policy_runs._Run(TINY, "mlp", (2,), "frame_step", make_search("frame_step"), 0, begin)
    seen = []
    for _ in range(4):
        champion = one.search.champion.x.clone()
        vectors, keys = one.ask()
        copies = TINY.held_out // TINY.scenarios
        assert all(torch.equal(row, champion) for row in vectors[-copies:])
        assert (len(vectors) - copies) * TINY.scenarios + TINY.held_out == len(keys)
        seen += keys[-TINY.held_out :].tolist()
        # Only the centre's own step is cheap, so that the champion of the start stands while the centre moves away.
        cost = torch.full((len(vectors), TINY.scenarios), 5.0, dtype=torch.float64)
        cost[: len(vectors) - copies] += torch.arange(len(vectors) - copies)[:, None]
        one.tell(cost, torch.ones(len(vectors), dtype=torch.int64))
        assert one.row.curve[-1][2] == -5.0
    assert len(set(seen)) == len(seen)
    assert not torch.equal(one.search.incumbent, champion)
    assert torch.equal(one.rivals()[1], one.search.champion.x)


def test_a_run_is_solved_by_the_policy_that_it_returns() -> None:
    """A good policy at the end counts without a streak, and a streak does not save a bad one."""
    assert row("polystep", 0, -1, 482.0).solved and not row("polystep", 0, -1, 482.0).held
    assert row("polystep", 0, 90_000, 470.0).held and not row("polystep", 0, 90_000, 470.0).solved


def results(rows: list[Row]) -> Results:
    return Results([Finished(polystep_rl.cells()[0], tuple(rows), 60.0, Made("", "", ""))])


def test_the_page_follows_from_the_rows() -> None:
    rows = [row("frame_step", s, 130_000 + s, 500.0) for s in range(3)] + [
        row("cma_es", s, -1, 200.0) for s in range(3)
    ]
    rows[0].judged = "centre"
    text = page(STUDY, results(rows))
    assert "| tanh | frame_step | 114 | 3/3 | 3/3 | 180 | 130,001 | 500 (500 to 500) |" in text
    assert "| tanh | cma_es | 114 | 0/3 | 0/3 |  |  | 200 (200 to 200) |" in text
    assert "- In 1 runs Held speaks of the search's centre" in text and "every generation: CartPole tanh." in text
    assert "Not run: Acrobot, mlp: frame_step, " in text
    assert "(asked for at most 150,000 steps, held by all of ten: the bar holds)" in text
    assert len(figure(results(rows)).axes) == 4
    plt.close("all")
    worse = [row("frame_step", 0, 151_000, 100.0), row("cma_es", 0, 90_000, 500.0)]
    said = " ".join(map(str, claims(results(worse))))
    assert (
        "the bar does not hold" in said and "behind" in said and "cma_es 90,000 (1/1 held), frame_step 151,000" in said
    )


def test_curves_are_thinned_and_keep_their_ends() -> None:
    long = replace(row("random", 0, -1, 1.23456), curve=[(i, 10 * i, i / 7) for i in range(100)])
    thin = polystep_rl._thin(long, 1.23456)
    assert len(thin.curve) == polystep_rl.POINTS and thin.curve[0] == (0, 0, 0.0) and thin.curve[-1] == (99, 990, 14.14)
    assert thin.final == 1.235 and thin.seconds == 1.235


def test_every_cell_has_a_name_of_its_own_and_its_plant_in_its_code() -> None:
    cells = polystep_rl.cells()
    assert len({cell.name for cell in cells}) == len(cells)
    codes = dict(zip((cell.name for cell in cells), codes_of(cells), strict=True))
    assert codes["Acrobot, mlp: polystep_subspace"] != codes["Pendulum, mlp: polystep_subspace"]
