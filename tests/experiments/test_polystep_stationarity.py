"""The study of stationarity: its measures against known values, its slopes against known powers."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy import stats

from steersman.experiments.comparison.executor import InProcess
from steersman.experiments.studies.polystep import stationarity as study
from steersman.experiments.studies.polystep.stationarity import Loss, Run, goldstein, least_norm, network
from steersman.experiments.studies.polystep.stationarity_page import FROM, RATES, STUDY, averaged, claims, fitted, slope
from steersman.experiments.studies.running import published, run_cells
from steersman.experiments.studies.study import Results


def rows(*points: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(points, dtype=torch.float64)


def test_least_norm_is_the_distance_of_a_hull_from_zero() -> None:
    assert least_norm(rows((1.0, 1.0), (1.0, -1.0))) == pytest.approx(1.0, rel=1e-5)
    assert least_norm(rows((2.0, 0.0), (-1.0, 0.0))) == pytest.approx(0.0, abs=1e-9)
    assert least_norm(rows((3.0, 4.0))) == pytest.approx(25.0)
    assert least_norm(rows((2e-6, 0.0), (0.0, 2e-6))) == pytest.approx(2e-12, rel=1e-5)
    many = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    weights = np.random.default_rng(0).dirichlet(0.3 * np.ones(5), 200_000)
    assert least_norm(many) <= float(np.square(weights @ many.numpy()).sum(axis=1).min()) + 1e-9
    assert least_norm(many) == pytest.approx(float(np.square(weights @ many.numpy()).sum(axis=1).min()), rel=0.02)


def test_the_network_is_the_formula_and_its_gradient_that_of_differences() -> None:
    for name in ("squared", "absolute"):
        loss, x = study.problem(name, 1)
        w, b = x[:8].reshape(4, 2), x[8:12]
        alone = [float(x[12:16] @ torch.relu(w @ p + b) + x[16]) for p in loss.x]
        torch.testing.assert_close(network(x[None], loss.x)[0], torch.tensor(alone, dtype=torch.float64))
        residual = torch.tensor(alone, dtype=torch.float64) - loss.y
        value = residual.square().mean() if name == "squared" else residual.abs().mean()
        assert float(loss(x[None])) == pytest.approx(float(value))
        step = 1e-7 * torch.eye(len(x), dtype=torch.float64)
        differences = (loss(x + step) - loss(x - step)) / 2e-7
        torch.testing.assert_close(loss.gradients(x[None])[0], differences, atol=1e-5, rtol=1e-4)


def test_a_minimum_on_a_kink_is_stationary_though_no_gradient_is_small() -> None:
    """At the other network's own parameters every absolute residual is zero; beside them gradients are of order one."""
    gen = torch.Generator().manual_seed(0)
    teacher = torch.randn(study.dimension(), generator=gen, dtype=torch.float64)
    x = torch.randn(40, 2, generator=gen, dtype=torch.float64)
    loss = Loss("absolute", x, network(teacher[None], x)[0])
    beside = teacher + 1e-4
    assert float(loss.gradients(beside[None]).square().sum()) > 0.1
    assert goldstein(loss, teacher, 1e-3, gen) < 0.02
    assert goldstein(loss, teacher + 3, 1e-3, gen) > 0.1


def test_means_weigh_steps_by_the_root_or_alike() -> None:
    times = list(range(1, 30))
    values = [1 / t for t in times]
    for mean, power in (("weighted", 0.5), ("plain", 0.0)):
        found = averaged(times, values, mean)
        for t in (1, 7, 29):
            weights = [i**-power for i in range(1, t + 1)]
            wanted = sum(w * v for w, v in zip(weights, values, strict=False)) / sum(weights)
            assert found[t - 1] == pytest.approx(wanted)
        assert averaged([1, 10, 1000], [3.0, 3.0, 3.0], mean) == pytest.approx([3.0, 3.0, 3.0])
    assert averaged(times, values, "last") == values


def test_points_are_looked_at_closely_in_the_beginning() -> None:
    assert study.grid(2000)[:20] == list(range(1, 21)) and study.grid(2000)[-1] == 2000
    assert study.grid(5) == [1, 2, 3, 4, 5]


def test_radii_fall_as_one_over_the_root() -> None:
    schedule = study.falling(study.HEAT, 400)
    assert [schedule(t) for t in (0, 3, 99, 400)] == pytest.approx(
        [study.HEAT / math.sqrt(1 + t) for t in (0, 3, 99, 400)]
    )


def test_slopes_are_those_of_powers_and_intervals_those_of_students_t() -> None:
    times = study.grid(5000)
    assert fitted(times, [7 * t**-0.75 if t >= FROM else 1.0 for t in times]) == pytest.approx(-0.75)
    powers = (-0.4, -0.5, -0.75)
    runs = [Run("", "", 0, tuple(times), tuple(t**p for t in times), (), 0.0, 0, 0.0) for p in powers]
    low, high = stats.t.interval(0.95, 2, np.mean(powers), stats.sem(powers))
    assert slope(runs, ("gradient", "last")) == pytest.approx((np.mean(powers), low, high))
    # log T / sqrt(T) is flatter than its power: its logarithm still grows.
    assert -0.5 < fitted(times, [RATES["log T / sqrt(T)"](t) for t in times]) < -0.3


def test_study_end_to_end_and_its_verdicts(tmp_path: Path) -> None:
    small = replace(STUDY, cells=lambda: study.solves(120, (0, 1)))
    run_cells(small, Console(quiet=True), tmp_path / "out", executor=InProcess(), results=tmp_path)
    done = published(small, tmp_path)
    assert len(done) == 2 * 2 * len(study.METHODS)
    text = (tmp_path / "polystep-stationarity.md").read_text()
    assert "## Absolute residuals" in text and "frame_step, adaptive" in text
    assert (tmp_path / "polystep-stationarity.png").stat().st_size > 10_000

    def known(run: Run) -> Run:
        values = tuple(1.0 / t if run.loss == "squared" else t**-0.2 for t in run.steps)
        return replace(run, gradient=values, goldstein=values)

    found = Results(replace(one, rows=tuple(map(known, one.rows))) for one in done.values())
    squared, _, absolute, end = map(str, claims(found))
    # Plain means of 1/t are (log T + 0.58..) / T, whose slope is a little steeper; weighted ones fall as 1 / sqrt(T).
    assert "falls faster than log T / sqrt(T)" in squared and "falls faster than log T / T" in squared
    assert "falls more slowly than log T / sqrt(T)" in absolute and "falls more slowly than log T / T" in absolute
    assert f"frame_step, adaptive {120**-0.2:.2g}." in end
