"""Normalisation for reinforcement learning: by means and variances, or robustly where plants run away."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from steersman.controllers.base import Training
from steersman.controllers.reinforcement.ppo import PPO
from steersman.controllers.reinforcement.scaling import (
    CLIP,
    WINDOW,
    Normalize,
    Quartiles,
    Recent,
    Scheme,
    compress,
    expand,
)
from steersman.controllers.rollout import run_episodes
from steersman.envs import make_plant, make_simulator, noise
from steersman.envs.gymnasium_adapters.sb3 import make_sb3


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
    env = Normalize(make_sb3(plant, 1), "robust", 0.9)
    env.obs_rms.update(np.linspace(-100, 300, 400)[:, None] * np.array([1.0, 2.0, 0.01]))
    for value in (-50.0, 120.0, 2000.0):
        seen = np.full((1, 3), value) * np.array([1.0, 2.0, 0.01])
        assert np.allclose(env.unnormalize_obs(env.normalize_obs(seen)), seen, rtol=1e-4)
    assert np.array_equal(env.normalize_obs(np.full((1, 3), 1e30)), np.full((1, 3), CLIP))


def test_without_normalisation_everything_passes_as_it_is() -> None:
    off = Normalize(make_sb3(make_plant("steersman/Pendulum-v1"), 1), "off", 0.9)
    assert float(off.normalize_reward(np.array([1e6]))[0]) == 1e6
    assert np.array_equal(off.normalize_obs(np.full((1, 3), 1e6)), np.full((1, 3), 1e6))


def test_robust_rewards_are_in_proportion_and_follow_the_newest_returns() -> None:
    """A logarithm of the price of a failure would make failures cheap."""
    env = Normalize(make_sb3(make_plant("steersman/Pendulum-v1"), 1), "robust", 0.9)
    assert type(env.ret_rms) is Recent
    for scale in (1000.0, 2.0):
        for _ in range(WINDOW // 32 + 40):
            env.ret_rms.update(scale * np.resize([-1.0, 1.0], (32, 1)))
    small, large = env.normalize_reward(np.array([-2.0, -16.0]))
    assert small == pytest.approx(-1, abs=1e-3) and large == pytest.approx(-8, abs=1e-2)


@pytest.mark.parametrize("scheme", ["standard", "robust", "off"])
def test_deployed_policies_see_what_they_were_trained_on(scheme: Scheme) -> None:
    simulate = partial(make_simulator, "steersman/Pendulum-v1")
    controller = PPO(plant_steps=640, envs=8, rollout=20, normalise=scheme).bind(simulate(1).problem)
    seen: list[np.ndarray] = []
    env = Normalize(make_sb3(make_plant("steersman/Pendulum-v1"), 4), scheme, 0.99)
    env.reset()
    for _ in range(30):
        env.step(np.zeros((4, 1), dtype=np.float32))
    raw = env.get_original_obs()
    controller._take(controller._algorithm(env, 0), env)
    predict = controller._policy.predict

    def spy(obs: np.ndarray, deterministic: bool = False) -> object:
        seen.append(obs)
        return predict(obs, deterministic=deterministic)

    controller._policy.predict = spy  # type: ignore[method-assign,assignment]
    controller.reset(4)
    simulator = simulate(4)
    simulator.reset(simulator.scenarios(noise.keys(0, 4)))
    controller.act(replace(simulator.measure(), y=torch.as_tensor(raw).double()))
    np.testing.assert_allclose(seen[0], env.normalize_obs(raw), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lean", [0.0, 2.0])
@pytest.mark.parametrize("plant", ["steersman/TwoAreaBrake-v2", "steersman/CarT-v1"])
def test_discrete_policies_may_begin_near_the_neutral_action(plant: str, lean: float) -> None:
    simulator = make_simulator(plant, 64)
    controller = PPO(plant_steps=640, lean=lean).bind(simulator.problem)
    env = Normalize(make_sb3(make_plant(plant), 2), "standard", 0.99)
    algorithm = controller._algorithm(env, 0)
    obs = np.random.default_rng(0).standard_normal((256, simulator.problem.ny))
    drawn = torch.as_tensor(algorithm.policy.predict(obs, deterministic=False)[0])
    neutral = simulator.actions.encode(simulator.actions.neutral(1, torch.zeros(1).double()))
    share = (drawn.reshape(256, -1) == neutral.reshape(1, -1)).double().mean(dim=0)
    expected = [np.exp(lean) / (np.exp(lean) + level - 1) for level in simulator.actions.levels]
    assert share.tolist() == pytest.approx(expected, abs=0.1)


@pytest.mark.slow
def test_a_grid_is_learnt_by_means_and_variances() -> None:
    """Quartiles are those of the quiet steps there; rewards that were compressed as well left the mean cost at 162."""
    simulate = partial(make_simulator, "steersman/TwoArea-v1")
    controller = PPO(plant_steps=60_000, rate=1e-3).bind(simulate(1).problem)
    controller.train(Training(simulate, 0))
    controller.reset(64)
    simulator = simulate(64)
    cost = run_episodes(simulator, simulator.scenarios(noise.keys(2026, 64)), lambda m: controller.act(m).u).cost
    assert float(cost.mean()) < 100


@pytest.mark.slow
def test_a_plant_that_runs_away_is_learnt() -> None:
    """Costs of transport without control grow to a million; means and variances leave them at 1.7e6."""
    simulate = partial(make_simulator, "steersman/TransportBoundary-v2")
    controller = PPO(plant_steps=200_000, rate=1e-3, normalise="robust").bind(simulate(1).problem)
    controller.train(Training(simulate, 0))
    controller.reset(32)
    simulator = simulate(32)
    cost = run_episodes(simulator, simulator.scenarios(noise.keys(2026, 32)), lambda m: controller.act(m).u).cost
    assert float(cost.mean()) < 1e4
