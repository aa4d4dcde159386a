"""Normalisation by quartiles, for plants that run away under a poor policy."""

from functools import partial

import numpy as np
import pytest

from steersman.controllers.base import Training
from steersman.controllers.rl import PPO
from steersman.controllers.rollout import run_episodes
from steersman.controllers.scaling import CLIP, WINDOW, Quartiles, RobustNormalize, compress, expand
from steersman.envs import make_plant, make_simulator, noise
from steersman.envs.sb3 import make_sb3


def test_values_are_in_proportion_near_zero_and_logarithmic_far_out() -> None:
    x = np.array([-3.0, -0.1, 0.0, 2.9, 3.0])
    assert np.array_equal(compress(x), x)
    far = np.array([3.0 + 1e-6, 30.0, 3e6])
    assert np.allclose(compress(far), [3.0 + 1e-6, 3 + 3 * np.log(10), 3 + 3 * np.log(1e6)], rtol=1e-12)
    assert np.allclose(expand(compress(-far)), -far, rtol=1e-9)


def test_a_tenth_of_run_aways_moves_the_scale_little() -> None:
    gen = np.random.default_rng(0)
    rows = 5 + 2 * gen.standard_normal((4000, 2))
    rows[::10, 0] = 1e6
    found = Quartiles(2)
    for part in np.split(rows, 125):
        found.update(part)
    assert np.allclose(found.mean, 5, atol=0.4) and np.allclose(np.sqrt(found.var), 2, atol=0.4)


def test_a_flag_that_is_rarely_set_has_mean_and_variance() -> None:
    flags = (np.arange(800) % 10 == 0).astype(float)[:, None]
    found = Quartiles(1)
    found.update(flags)
    assert np.allclose(found.mean, 0.1) and np.allclose(found.var, 0.09)


def test_old_rows_are_forgotten_and_restored_statistics_stay_for_as_long_as_they_took() -> None:
    gen = np.random.default_rng(1)
    found = Quartiles(1)
    for scale in (100.0, 1.0):
        for _ in range(WINDOW // 32 + 40):
            found.update(scale * gen.standard_normal((32, 1)))
    assert 0.9 < float(np.sqrt(found.var[0])) < 1.1
    resumed = Quartiles(1)
    resumed.restore(np.array([7.0]), np.array([9.0]), 64)
    resumed.update(gen.standard_normal((63, 1)))
    assert resumed.mean[0] == 7.0 and resumed.var[0] == 9.0
    resumed.update(gen.standard_normal((1, 1)))
    assert abs(resumed.mean[0]) < 1


def test_observations_of_a_replay_buffer_come_back() -> None:
    """It keeps what was seen before normalisation, which for final observations is undone."""
    plant = make_plant("steersman/Pendulum-v1")
    env = RobustNormalize(make_sb3(plant, 1), on=True, gamma=0.9)
    env.obs_rms.update(np.linspace(-100, 300, 400)[:, None] * np.array([1.0, 2.0, 0.01]))
    for value in (-50.0, 120.0, 2000.0):
        seen = np.full((1, 3), value) * np.array([1.0, 2.0, 0.01])
        assert np.allclose(env.unnormalize_obs(env.normalize_obs(seen)), seen, rtol=1e-4)
    assert np.array_equal(env.normalize_obs(np.full((1, 3), 1e30)), np.full((1, 3), CLIP))
    off = RobustNormalize(make_sb3(plant, 1), on=False, gamma=0.9)
    assert float(off.normalize_reward(np.array([1e6]))[0]) == 1e6
    assert np.array_equal(off.normalize_obs(np.full((1, 3), 1e6)), np.full((1, 3), 1e6))


@pytest.mark.slow
def test_a_plant_that_runs_away_is_learnt() -> None:
    """Costs of transport without control grow to a million; means and variances left them at 2.8e6 of 3.3e6 (median)."""
    simulate = partial(make_simulator, "steersman/TransportBoundary-v1")
    controller = PPO(plant_steps=60_000, rate=1e-3).bind(simulate(1).problem)
    controller.train(Training(simulate, 0))
    controller.reset(32)
    simulator = simulate(32)
    cost = run_episodes(simulator, simulator.scenarios(noise.keys(2026, 32)), lambda m: controller.act(m).u).cost
    assert float(cost.mean()) < 1e6
