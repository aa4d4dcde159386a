"""Baselines: what the others have to beat."""

import pytest
import torch

from steersman.controllers.registry import make_controller
from steersman.envs import make_simulator, noise


def test_a_constant_of_two_actions_keeps_them_apart_in_every_row() -> None:
    simulator = make_simulator("steersman/WolfSheep-v1", 3)
    simulator.reset(simulator.scenarios(noise.keys(0, 3)))
    law = make_controller("constant").bind(simulator.problem)
    u = simulator.actions.project(torch.tensor([[0.025, 0.05]], dtype=torch.float64))
    assert u[0, 0] != u[0, 1]
    law.load_state_dict({"u": u[0]})
    law.reset(3)
    assert torch.equal(law.act(simulator.measure()).u, u.expand(3, -1))


@pytest.mark.parametrize("name", ["mppi", "cem"])
def test_doubt_has_no_negative_price(name: str) -> None:
    with pytest.raises(ValueError, match="doubt must be at least 0, got -1"):
        make_controller(name, doubt=-1.0)
