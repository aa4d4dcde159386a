"""The pendulum against the environment whose physics it claims to have."""

import gymnasium
import numpy as np
import pytest
import torch

from steersman.envs import noise
from steersman.envs.checks import check_plant
from steersman.envs.classic.pendulum import Pendulum
from steersman.envs.gymnasium_adapters.env import PlantEnv


def test_contract() -> None:
    check_plant(Pendulum())


@pytest.mark.parametrize("seed", range(3))
def test_parity_with_gymnasium(seed: int) -> None:
    plant, theirs = Pendulum(), gymnasium.make("Pendulum-v1")
    ours = PlantEnv(plant)
    first, _ = ours.reset(seed=seed)
    theirs.reset(seed=seed)
    theirs.unwrapped.state = plant.initial(noise.keys(seed, 1), {})[0].numpy()
    assert np.arctan2(first[1], first[0]) == pytest.approx(theirs.unwrapped.state[0], abs=1e-12)
    rng = np.random.default_rng(seed)
    clipped = 0
    for k in range(200):
        # Pumping energy half of the time reaches the speed limit, so that the clipping is compared as well.
        speed = theirs.unwrapped.state[1]
        u = np.array([np.copysign(2.0, speed) if k < 100 else rng.uniform(-2, 2)])
        y, reward, terminated, truncated, _ = ours.step(u)
        y_ref, reward_ref, _, truncated_ref, _ = theirs.step(u)
        assert reward == pytest.approx(reward_ref, rel=1e-9, abs=1e-9)
        np.testing.assert_allclose(ours._simulator.x[0].numpy(), theirs.unwrapped.state, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(y, y_ref, atol=1e-6)
        assert truncated == truncated_ref == (k == 199) and not terminated
        clipped += abs(y[2]) == 8.0
    assert clipped > 0


def test_initial_distribution() -> None:
    key = noise.keys(0, 4000)
    x = Pendulum().initial(key, {})
    assert x[:, 0].abs().max() <= np.pi and x[:, 0].abs().max() > 0.99 * np.pi
    assert x[:, 1].abs().max() <= 1 and x[:, 1].abs().max() > 0.99
    assert x.mean(dim=0).abs().max() < 0.1


def test_gradient() -> None:
    plant, k = Pendulum(), torch.zeros(2, dtype=torch.int64)
    x = torch.tensor([[0.3, -0.5], [2.5, 1.0]], dtype=torch.float64, requires_grad=True)
    u = torch.tensor([[0.7], [-1.2]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, u: plant.perform(k, plant.step(k, x, u, k, {}), {}), (x, u))
