"""Planners on the truth do not see events before they begin; the model named hindsight does."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steersman.controllers.registry import make_controller
from steersman.dynamics.base import Window
from steersman.dynamics.registry import make_model
from steersman.dynamics.truth.operating_point import linearized
from steersman.envs import noise
from steersman.envs.grid.tasks.two_area import TwoArea
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import Measurement, PlantSimulator

PLANT = TwoArea(dt=0.05, version=2)
F64 = torch.float64


def standing_at(k: int, bus: int, start: float, duration: float) -> Measurement:
    """What is measured at step k of an episode with this fault and no action."""
    column = torch.ones(1, dtype=F64)
    p = PLANT.faulted(torch.tensor([bus]), start * column, duration * column, 0.97 * column)
    simulator, key = PlantSimulator(PLANT, 1), noise.keys(0, 1)
    simulator.reset(Scenarios(key, p, PLANT.initial(key, p)))
    for _ in range(k):
        simulator.step(torch.zeros(1, 2, dtype=F64))
    return simulator.measure()


def predicted(name: str, m: Measurement) -> Tensor:
    model = make_model(name, PLANT)
    window = Window(m.y[:, None], m.y.new_zeros(1, 0, 2), m)
    U = noise.normal(noise.keys(1, 1), 15, 2)
    return model.rollout(model.init(window), U)[1]


def planned(name: str, m: Measurement) -> Tensor:
    controller = make_controller("adjoint", horizon=8, iterations=3).bind(PLANT.problem, make_model(name, PLANT))
    controller.reset(1)
    return controller.act(m).u


faults = st.tuples(st.sampled_from([5, 6, 7, 8]), st.floats(0.501, 1.2), st.floats(0.05, 0.6))


@settings(max_examples=6, deadline=None)
@given(faults, faults)
def test_plans_on_the_truth_are_the_same_whatever_the_fault_will_be(
    one: tuple[int, float, float], other: tuple[int, float, float]
) -> None:
    a, b, calm = (standing_at(5, *fault) for fault in (one, other, (5, torch.inf, 0.0)))
    for m in (a, b):
        assert torch.equal(predicted("truth", m), predicted("truth", calm))
    assert torch.equal(planned("truth", a), planned("truth", b))
    assert not torch.equal(predicted("hindsight", a), predicted("truth", a))
    if one != other:
        assert not torch.equal(predicted("hindsight", a), predicted("hindsight", b))


def test_hindsight_acts_before_a_fault_and_the_truth_once_it_has_begun() -> None:
    before, after, calm = (standing_at(k, 6, start, 0.4) for k, start in ((5, 0.61), (7, 0.61), (5, torch.inf)))
    assert torch.equal(planned("truth", before), planned("truth", calm))
    assert float((planned("hindsight", before) - planned("truth", before)).abs().max()) > 0.1
    assert torch.equal(predicted("truth", after), predicted("hindsight", after))


def test_data_alone_hold_no_future() -> None:
    m = standing_at(3, 6, 0.9, 0.4)
    assert m.hindsight is not None and m.blind().hindsight is None
    assert m.rows(torch.tensor([0])).hindsight is not None


def test_linearisation_is_of_the_grid_without_a_fault() -> None:
    # Some seed draws a fault in the step that is expanded.
    early = next(s for s in range(400) if float(PLANT.params(noise.keys(s, 1))["start"]) < 0.05)
    p = PLANT.params(noise.keys(early, 1))
    p |= {"start": p["start"] * 0 + torch.inf, "clear": p["clear"] * 0 + torch.inf}
    still = PLANT.initial(noise.keys(0, 1), p)
    k, u = torch.zeros(1, dtype=torch.int64), torch.tensor([[0.01, 0.0]], dtype=F64)
    want = PLANT.step(k, still, u, k, p)
    system = linearized(PLANT, seed=early).state_space()
    assert float((system.A @ still[0] + system.B @ u[0] + system.c - want[0]).abs().max()) < 1e-6  # type: ignore[operator]
