"""Enumeration of integer decisions: the plan's cost is the episode's, no sequence is better, bad input."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from steersman.controllers.enumeration import Enumeration
from steersman.controllers.rollout import run_episodes
from steersman.dynamics.registry import make_model
from steersman.envs import make_plant, make_simulator, noise
from steersman.envs.grid.two_area_full import TwoAreaBrakeFull
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import Measurement, PlantSimulator

BRAKE = "steersman/TwoAreaBrake-v1"


def test_no_sequence_is_better() -> None:
    simulator, length = make_simulator(BRAKE, 2), 3
    scenarios = simulator.scenarios(noise.keys(4, 2))
    controller = Enumeration(length).bind(simulator.problem, make_model("truth", make_plant(BRAKE)))
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
