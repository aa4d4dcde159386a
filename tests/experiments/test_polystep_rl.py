"""The study of policy search: runs in lockstep do not see each other, and its page follows from its rows."""

import json
from pathlib import Path

import pytest

from steersman.experiments.studies import polystep_rl
from steersman.experiments.studies.policy_runs import STREAK, Row, Task, run_cell
from steersman.experiments.studies.polystep_rl_page import claims, publish_rows

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
def test_a_run_is_solved_by_a_streak_only() -> None:
    task = Task("steersman/Pendulum-v1", -1e9, 90_000, scenarios=1, held_out=2, final=2, explore=1, stop=True)
    (easy,) = run_cell(task, "mlp", (2,), ("random",), [0])
    assert easy.evaluations == easy.solved_evaluations == (STREAK - 1) * 34 and len(easy.curve) == STREAK


def test_the_page_follows_from_the_rows(tmp_path: Path) -> None:
    task = polystep_rl.CLASSIC[0]
    rows = [row("frame_step", s, 130_000 + s, 500.0) for s in range(3)] + [
        row("cma_es", s, -1, 200.0) for s in range(3)
    ]
    folder = publish_rows(rows, [task], ["KS"], 60.0, tmp_path / "made")
    text = (folder / "polystep-rl.md").read_text()
    assert "| tanh | frame_step | 114 | 3/3 | 180 | 130,001 | 500 (500 to 500) |" in text
    assert "| tanh | cma_es | 114 | 0/3 |  |  | 200 (200 to 200) |" in text
    assert "Not run yet (1 cells" in text and "the bar holds" in text
    assert len(json.loads((folder / "polystep-rl.json").read_text())["rows"]) == 6
    assert (folder / "polystep-rl.png").stat().st_size > 10_000
    worse = [row("frame_step", 0, 151_000, 100.0), row("cma_es", 0, 90_000, 500.0)]
    said = " ".join(claims(worse, [task]))
    assert (
        "the bar does not hold" in said
        and "behind" in said
        and "cma_es 90,000 (1/1 solved), frame_step 151,000" in said
    )


@pytest.mark.slow
def test_finished_cells_stay_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    cell = polystep_rl.Cell(TINY, "mlp", ("random", "frame_step"))
    monkeypatch.setattr(polystep_rl, "cells", lambda: iter([cell]))
    monkeypatch.setattr(polystep_rl, "RESULTS", tmp_path / "published")
    monkeypatch.setattr(polystep_rl, "CLASSIC", (TINY,))
    monkeypatch.setattr(polystep_rl, "HEAVY", ())
    folder = polystep_rl.run(Console(quiet=True), tmp_path / "rows")
    (stored,) = (tmp_path / "rows").glob(f"*/{cell.key}.jsonl")
    before, page = stored.stat().st_mtime_ns, (folder / "polystep-rl.md").read_text()
    polystep_rl.run(Console(quiet=True), tmp_path / "rows")
    assert stored.stat().st_mtime_ns == before and (folder / "polystep-rl.md").read_text() == page
