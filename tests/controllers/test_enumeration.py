"""Enumeration of integer decisions: the plan's cost is the episode's, no sequence is better, bad input."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from linear_test_plants import LinearPlant, measurement, scalar
from torch import Tensor

from steersman.controllers.base import Outcome
from steersman.controllers.planning import enumeration
from steersman.controllers.planning.enumeration import Enumeration
from steersman.controllers.rollout import run_episodes
from steersman.dynamics.registry import make_model
from steersman.dynamics.truth.plant_model import PlantModel
from steersman.envs import make_plant, make_simulator, noise
from steersman.envs.actions import ActionSet
from steersman.envs.grid.tasks.two_area_full import TwoAreaBrakeFull
from steersman.envs.objective import Limit, Quadratic
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import Measurement, PlantSimulator

BRAKE = "steersman/TwoAreaBrake-v1"


def test_no_sequence_is_better() -> None:
    simulator, length = make_simulator(BRAKE, 2), 3
    scenarios = simulator.scenarios(noise.keys(4, 2))
    controller = Enumeration(length).bind(simulator.problem, make_model("hindsight", make_plant(BRAKE)))
    controller.reset(2)
    found = run_episodes(simulator, scenarios, lambda m: controller.act(m).u).cost
    lowest = torch.full((2,), math.inf, dtype=torch.float64)
    for pattern in itertools.product((0.0, 1.0), repeat=length):

        def play(m: Measurement, plan: tuple[float, ...] = pattern) -> torch.Tensor:
            k = int(m.k[0])
            return torch.full((2, 1), plan[k] if k < length else 0.0, dtype=torch.float64)

        lowest = torch.minimum(lowest, run_episodes(simulator, scenarios, play).cost)
    assert torch.allclose(found, lowest, rtol=1e-12)


def test_brake_saves_a_grid_that_is_lost_without_it() -> None:
    """A fault at bus 7 of 0.50 s: two steps of braking are the least that keeps the areas together."""
    plant = TwoAreaBrakeFull()
    p = plant.faulted(torch.tensor([0.50], dtype=torch.float64))
    scenarios = Scenarios(noise.keys(0, 1), p, plant.initial(noise.keys(0, 1), p))
    controller = Enumeration(4).bind(plant.problem, make_model("truth", plant))
    simulator = PlantSimulator(plant, 1)
    controller.reset(1)
    braked = run_episodes(simulator, scenarios, lambda m: controller.act(m).u).cost
    alone = run_episodes(simulator, scenarios, lambda m: torch.zeros(1, 1, dtype=torch.float64)).cost
    assert 4.0 < float(braked) < 5.0
    assert float(alone) > 500


def whole_numbers(failure: float = 0.0) -> LinearPlant:
    """``x+ = x + u`` over four steps with u in -1, 0, 1 and a terminal cost, lost beyond 2."""
    plant = LinearPlant(scalar(effort=0.3), horizon=4, bound=1.0)
    plant.actions = ActionSet((-1.0,), (1.0,), (True,))
    plant.objective = replace(
        plant.objective, terminal=(Quadratic(name="end", on="z", weights=(2.0,)),), failure=failure,
        limits=(Limit(name="edge", index=0, low=-2.0, high=2.0),),
    )  # fmt: skip
    return plant


@pytest.mark.parametrize("failure", [0.0, 9.0])
def test_each_row_gets_the_cheapest_of_all_sequences(failure: float) -> None:
    plant = whole_numbers(failure)
    starts = [1.4, -2.3, 0.4, 2.9]

    def cost(x: float, plan: tuple[float, ...]) -> float:
        total = 0.0
        for left, u in zip((4, 3, 2, 1), plan, strict=True):
            total, x = total + x**2 + 0.3 * u**2, x + u
            if failure and abs(x) > 2:
                return total + failure * left
        return total + 2 * x**2

    want = [min(itertools.product((-1.0, 0.0, 1.0), repeat=4), key=lambda plan, x=x: cost(x, plan)) for x in starts]
    controller = Enumeration(4).bind(plant.problem, plant.model())
    controller.reset(len(starts))
    x, played = np.array(starts)[:, None], []
    for k in range(4):
        decision = controller.act(measurement(x, np.zeros(1), np.zeros((1, 1)), k=k))
        assert (decision.outcome == Outcome.OPTIMAL).all()
        played.append(decision.u.numpy())
        x = x + played[-1]
    for row, (start, plan) in enumerate(zip(starts, want, strict=True)):
        found = tuple(float(u[row, 0]) for u in played)
        assert cost(start, found) == pytest.approx(cost(start, plan))


def test_a_budget_ends_the_search_with_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    plant = whole_numbers()
    monkeypatch.setattr(enumeration, "BATCH", 1)
    controller = Enumeration(3).bind(plant.problem, PlantModel(plant))
    controller.reset(1)
    m = measurement(np.array([1.4]), np.zeros(1), np.zeros((1, 1)))
    decision = controller.act(m, 0.0)
    assert decision.outcome.tolist() == [Outcome.NEUTRAL] and decision.u.tolist() == [[0.0]], "none was tried"
    costs, tried = controller._costs, iter([None, TimeoutError])

    def one(*arguments: Any) -> Tensor:
        if next(tried) is not None:
            raise TimeoutError
        return costs(*arguments)

    controller.reset(1)
    monkeypatch.setattr(controller, "_costs", one)
    decision = controller.act(m)
    assert decision.outcome.tolist() == [Outcome.INCUMBENT] and decision.u.tolist() == [[-1.0]], "the first sequence"
    monkeypatch.undo()
    controller.reset(1)
    assert controller.act(m).outcome.tolist() == [Outcome.OPTIMAL]


def test_bad_input() -> None:
    problem, model = make_simulator(BRAKE, 1).problem, make_model("truth", make_plant(BRAKE))
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        Enumeration(0)
    with pytest.raises(ValueError, match="needs a model"):
        Enumeration(2).bind(problem)
    with pytest.raises(ValueError, match="needs integer actions"):
        Enumeration(2).bind(make_simulator("steersman/TwoArea-v1", 1).problem, model)
    with pytest.raises(ValueError, match="1,048,576 sequences exceed"):
        Enumeration(20).bind(problem, model)
