"""The study of cost over plant steps: its points, its claims and its picture, from made results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steersman.experiments.comparison.results import Comparison, Episodes, Latency, PlantSummary, RunResult
from steersman.experiments.statistics.scores import scores
from steersman.experiments.studies.effort.sample_efficiency import claims, curves, points

PLANT = "steersman/TwoArea-v1"


def made(label: str, seed: int, cost: float, steps: int) -> RunResult:
    """A run in which every scenario costs the same."""
    n, empty = 8, Episodes(np.zeros((1, 2, 1)), np.zeros((1, 2, 1)), np.zeros((1, 1, 1)))
    return RunResult(
        key="", plant=PLANT, controller=label, model="", seed=seed, track="data only", preview=0,
        scenario=np.arange(n), cost=np.full(n, cost), violation=np.zeros(n), status=np.zeros(n, dtype=int),
        steps=np.full(n, 10), outcomes=np.tile([10, 0, 0, 0, 0], (n, 1)), inadmissible=0,
        latency=Latency(1e-3, 1e-3, 1e-3), train_steps=steps, train_seconds=1.0, eval_seconds=1.0, episodes=empty,
    )  # fmt: skip


@pytest.fixture
def comparison() -> Comparison:
    """A neural policy with two budgets, PPO with three, and no control."""
    rows = [
        ("zero", 100.0, 0), ("neural, few steps", 70.0, 10_000), ("neural, default", 60.0, 28_000),
        ("ppo, 15,000", 90.0, 15_000), ("ppo, 30,000", 80.0, 30_000), ("ppo, 60,000", 59.5, 60_000),
    ]  # fmt: skip
    results = [made(label, seed, cost + seed - 1, steps) for label, cost, steps in rows for seed in range(3)]
    plant = PlantSummary(PLANT, PLANT, "zero", "", 0.1, "s", 10, ("z",), (0,), ("u",), ("",))
    return Comparison("sample-efficiency", "zero", (plant,), tuple(results), (), "steersman study", "machine")


def test_points_lie_in_the_order_of_their_steps(comparison: Comparison) -> None:
    found = points(scores(comparison), PLANT)
    assert [p.label for p in found[1:3]] == ["neural, few steps", "ppo, 15,000"]
    assert found[1].costs == (69.0, 70.0, 71.0)
    assert found[1].family == "neural"


def test_claims_name_aim_and_what_the_rival_needs(comparison: Comparison) -> None:
    (told,) = claims(comparison, list(scores(comparison)))
    assert told.startswith("TwoArea-v1: neural, default costs 60.00 (59.00 / 60.00 / 61.00 by seed) at 28,000 steps")
    assert "within the aim of 65" in told
    assert told.endswith("it needs 2.1 times the steps.")


def test_the_picture_shows_every_family(comparison: Comparison, tmp_path: Path) -> None:
    file = tmp_path / "curves.png"
    curves(comparison, file)
    assert file.stat().st_size > 10_000
