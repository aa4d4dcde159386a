"""Policies that imitate planners: the planner's own law where that is known, wherever the policy goes."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from linear_test_plants import LinearPlant, measurement, scalar
from torch import Tensor

from steersman.controllers.base import Training
from steersman.controllers.classical.lqr import LQR
from steersman.controllers.neural.imitation import Imitation, unlike
from steersman.envs.actions import ActionSet
from steersman.envs.simulator import PlantSimulator
from steersman.optimizers.checkpoint import digest

GRID = np.linspace(-1.2, 1.2, 9)


def plant() -> LinearPlant:
    return LinearPlant(scalar(a=1.1), horizon=20, bound=5.0)


def law(controller: Imitation | LQR, horizon: int) -> Tensor:
    controller.reset(len(GRID))
    return controller.act(measurement(GRID[:, None], np.zeros(1), np.zeros((horizon + 1, 1)))).u.flatten()


@pytest.mark.parametrize(
    ("teacher", "options", "tolerance"),
    [
        ("lqr", {"horizon": 4}, 0.05),
        ("mppi", {"horizon": 4, "samples": 64, "iterations": 2, "spread": 0.2}, 0.12),
    ],
)
def test_the_law_of_model_predictive_control_is_recovered(
    teacher: str, options: dict[str, object], tolerance: float
) -> None:
    exact = law(LQR(4).bind(plant().problem, plant().model()), 4)
    policy = Imitation(teacher, options, hidden=(16,), rounds=2, episodes=16, steps=800)  # type: ignore[arg-type]
    policy.bind(plant().problem, plant().model())
    price = policy.train(Training(partial(PlantSimulator, plant()), 0))
    assert float(exact.abs().max()) > 0.8
    torch.testing.assert_close(law(policy, 4), exact, atol=tolerance, rtol=0.0)
    assert price.plant_steps == (2 * 16 + 6 * 8) * 20 and [steps for steps, _ in price.curve] == [320, 640]
    assert policy.notes == ()


def test_equal_seeds_and_interrupted_fits_end_in_equal_policies(tmp_path: Path) -> None:
    def trained(seed: int, folder: Path | None = None) -> str:
        policy = Imitation("lqr", {"horizon": 4}, hidden=(4,), rounds=2, episodes=4, steps=20)
        policy.bind(plant().problem, plant().model()).train(Training(partial(PlantSimulator, plant()), seed, folder))
        return digest(policy.state_dict())

    assert trained(0) == trained(0) != trained(1)
    assert trained(0, tmp_path) == trained(0)
    (tmp_path / "round-1.safetensors").unlink()
    assert trained(0, tmp_path) == trained(0)


def test_likeness_is_that_of_actions_and_of_choices() -> None:
    actions = ActionSet((0.0, 0.0, 0.0), (4.0, 1.0, 1.0), one_hot=((1, 2),))
    raw = torch.tensor([[-30.0, 0.0, 0.0]], dtype=torch.float64)
    wanted = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)
    assert float(unlike(actions, raw, wanted)) == pytest.approx(0.25 + np.log(2))


def test_what_cannot_be_imitated_is_refused() -> None:
    with pytest.raises(TypeError, match="sample"):
        Imitation("mppi", {"sample": 3})
    with pytest.raises(ValueError, match="model that its teacher 'mppi' plans with"):
        Imitation().bind(replace(plant().problem))
