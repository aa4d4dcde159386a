"""The grid study's own numbers: damping ratios from recorded episodes, searches over patterns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from steersman.envs import make_simulator, noise
from steersman.experiments.comparison.results import Episodes, Latency, RunResult
from steersman.experiments.studies.grid.brake import SEARCHES, Optimum, Plans, _sought, brake_claims, plan_claims
from steersman.experiments.studies.grid.control import DAMPING, cleared, damping_ratios


def result(ratio: float) -> RunResult:
    """A recorded swing of 0.65 Hz with a damping ratio, beside a local mode; the second episode ended early.

    The third has no fault, and the fault of the fourth comes too late to see a swing after it.
    """
    time, omega = np.arange(201) * 0.05, 2 * np.pi * 0.65
    swing = np.exp(-ratio * omega * time) * np.cos(omega * time) + 0.1 * np.exp(-0.6 * time) * np.cos(7 * time)
    z = np.zeros((4, 201, 5))
    z[:, :, :2], z[:, :, 2:4] = swing[:, None], -swing[:, None]
    z[1, 30:] = np.nan
    # What lies before the clearing is another swing, of no damping at all.
    z[0, :40, :2], z[0, :40, 2:4] = np.cos(omega * time[:40, None]), -np.cos(omega * time[:40, None])
    none = np.zeros(4)
    return RunResult(
        key="", plant=DAMPING, controller="zero", model="", seed=0, track="data only", preview=0, scenario=np.arange(4),
        cost=none, violation=none, status=np.zeros(4, dtype=int), steps=np.full(4, 200),
        outcomes=np.zeros((4, 5), dtype=int), inadmissible=0, latency=Latency(0.0, 0.0, 0.0), train_steps=0,
        train_seconds=0.0, eval_seconds=0.0, episodes=Episodes(z, z, np.zeros((4, 200, 4))),
    )  # fmt: skip


@pytest.mark.parametrize("ratio", [0.034, 0.15])
def test_damping_ratio_of_a_known_swing(ratio: float) -> None:
    clear = [2.0, 0.5, float("inf"), 8.0]
    assert damping_ratios(result(ratio), clear) == pytest.approx([ratio], abs=3e-3)


def test_faults_clear_when_the_plant_says() -> None:
    key = noise.keys(2026, 200)
    times = np.array(cleared(key))
    edges = make_simulator(DAMPING, 200).scenarios(key).p["edges"].numpy()
    ends, comes = np.where(np.isfinite(edges), edges, -np.inf).max(axis=1), np.isfinite(times)
    assert 0.2 < 1 - comes.mean() < 0.4
    np.testing.assert_allclose(times[comes], ends[comes], atol=1e-9)
    assert (ends[~comes] < 0).all()


def test_searches_count_the_patterns_they_try() -> None:
    cost = torch.arange(64, 0, -1, dtype=torch.float64)  # all on is best
    found = {name: _sought(name, 6, cost, 0) for name in SEARCHES}
    assert all(tries == -1 or 1 <= tries <= 64 + 64 for tries in found.values())
    assert found["frame_step"] > 0
    optimum = Optimum(0.5, 64, 64, 1.0, "111111", 64.0, {"random": [3, -1]})
    assert "the best is 111111 at 1.000" in brake_claims([optimum])[0]
    assert "random 3 (1)" in brake_claims([optimum])[0]


def test_programs_are_judged_where_a_pattern_survives() -> None:
    plans = Plans("sparse", 0.06, (0.5, 0.51, 0.53), (4.5, 8.5, 1100.0), (4.6, 1080.0, 1100.0), ("1", "0", "0"))
    (told,) = plan_claims([plans])
    assert "2 of which some pattern of 4096 survives, it keeps synchronism in 1;" in told
    assert "(gap at most 0.10, median 0.10)" in told
