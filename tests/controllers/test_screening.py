"""Screening against brute force, against the integrator, and its refusal of other plants."""

from functools import partial

import pytest
import torch

from steersman.controllers.base import Training
from steersman.controllers.grid.screening import PinnScreening
from steersman.envs import make_plant, make_simulator, noise
from steersman.envs.grid.tasks.redispatch import BLOCK, INSECURE, LIMIT
from steersman.envs.grid.tasks.structure_preserving import peak_swing
from steersman.envs.plant import ControlProblem
from steersman.envs.simulator import Measurement

REDISPATCH = "steersman/PreventiveRedispatch-v1"


@pytest.fixture(scope="module")
def problem() -> ControlProblem:
    return make_plant(REDISPATCH).problem


@pytest.fixture(scope="module")
def trained(problem: ControlProblem) -> PinnScreening:
    controller = PinnScreening(errors=16, disturbances=41, adam=100, lbfgs=60, polish=0).bind(problem)
    cost = controller.train(Training(partial(make_simulator, REDISPATCH), seed=0))
    assert cost.plant_steps == 41 and cost.cpu_seconds > 0
    return controller


def forecasts(*values: float) -> Measurement:
    y = torch.tensor([[value, 0.0] for value in values], dtype=torch.float64)
    n = len(values)
    return Measurement(torch.zeros(n, dtype=torch.int64), y, torch.zeros(n, 1, 1).double(), torch.zeros(n, 1).double())


def test_without_error_the_cheapest_number_of_blocks_is_chosen(problem: ControlProblem) -> None:
    controller = PinnScreening(errors=1, step=0.01, by="integrator").bind(problem)
    surplus = (0.4, 1.9, 2.15, 3.3, 5.6)
    controller.reset(len(surplus))
    chosen = controller.act(forecasts(*surplus)).u[:, 0]
    blocks = torch.arange(13, dtype=torch.float64)
    for value, found in zip(surplus, chosen.tolist(), strict=True):
        peak = peak_swing((value - BLOCK * blocks).clamp(0.0, 6.0), 0.01).clamp(max=torch.pi)
        cost = blocks + INSECURE * (peak - LIMIT).clamp(min=0) / (torch.pi - LIMIT)
        assert found == cost.argmin().item(), value
    assert chosen[0] == 0.0 and (chosen.diff() >= 0).all() and chosen[-1] >= 8.0


def test_the_operator_decides_as_the_integrator_does(problem: ControlProblem, trained: PinnScreening) -> None:
    exact = PinnScreening(errors=16, step=0.01, by="integrator").bind(problem)
    m = forecasts(*torch.linspace(0.2, 5.8, 24).tolist())
    for controller in (exact, trained):
        controller.reset(m.n)
    same = exact.act(m).u == trained.act(m).u
    assert same.double().mean() >= 22 / 24
    assert trained.track == exact.track == "solver access"


def test_uncertainty_buys_a_margin(problem: ControlProblem) -> None:
    m = forecasts(*torch.linspace(1.2, 2.2, 11).tolist())
    sure, unsure = (PinnScreening(errors=count, step=0.01, by="integrator").bind(problem) for count in (1, 32))
    for controller in (sure, unsure):
        controller.reset(m.n)
    assert unsure.act(m).u.sum() > sure.act(m).u.sum()


def test_a_short_budget_gets_the_backup(problem: ControlProblem) -> None:
    controller = PinnScreening(errors=1, by="integrator", step=0.01).bind(problem)
    controller.reset(2)
    m = forecasts(0.9, 2.2)
    controller.act(m)
    decision = controller.act(m, budget_s=1e-6)
    assert decision.u[:, 0].tolist() == [0.0, 3.0] and decision.outcome.tolist() == [3, 3]


def test_bad_input_is_named(problem: ControlProblem) -> None:
    with pytest.raises(ValueError, match="PreventiveRedispatch"):
        PinnScreening().bind(make_plant("steersman/Pendulum-v1").problem)
    with pytest.raises(ValueError, match="errors must be"):
        PinnScreening(errors=0)
    with pytest.raises(ValueError, match="step must lie"):
        PinnScreening(step=0.02)
    with pytest.raises(ValueError, match="disturbances"):
        PinnScreening(disturbances=1)
    with pytest.raises(RuntimeError, match="train"):
        PinnScreening().bind(problem).peaks(noise.uniform(noise.keys(0, 3)))
