"""The vector environment under gymnasium's own wrappers: numpy, autoreset modes, statistics, read-only arrays."""

from functools import partial
from typing import Any

import gymnasium
import gymnasium.wrappers.vector as vector_wrappers
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from steersman.envs import make_plant
from steersman.envs.gymnasium_adapters.env import PlantEnv
from steersman.envs.gymnasium_adapters.vector import PlantVectorEnv
from steersman.envs.plant import Plant

PENDULUM, CART = "steersman.envs:steersman/Pendulum-v1", "steersman.envs:steersman/CartPole-v1"
make = partial(gymnasium.make_vec, num_envs=3, numpy=True)


def short(**settings: Any) -> PlantVectorEnv:
    """Episodes of three steps."""
    plant = make_plant("steersman/Pendulum-v1")
    plant.horizon = 3
    return PlantVectorEnv(plant, 2, **settings)


def test_numpy_mode_gives_the_same_numbers_as_copies() -> None:
    ours, theirs = gymnasium.make_vec(PENDULUM, num_envs=3), make(PENDULUM)
    obs, _ = ours.reset(seed=4)
    array, info = theirs.reset(seed=4)
    np.testing.assert_array_equal(array, obs.numpy())
    assert isinstance(info["z"], np.ndarray)
    action = np.full((3, 1), 0.5, np.float32)
    expected, found = ours.step(action), theirs.step(action)
    for a, b in zip(expected[:4], found[:4], strict=True):
        assert isinstance(b, np.ndarray) and b.flags.writeable
        np.testing.assert_array_equal(b, a.numpy())
    assert found[2].dtype == found[3].dtype == np.bool_
    kept = ours.unwrapped.simulator.measure().y.clone()
    found[0][:] = 99.0
    assert torch.equal(ours.unwrapped.simulator.measure().y, kept)
    assert theirs.observation_space.contains(found[0] * 0)


@pytest.mark.parametrize(
    ("wrap", "mode"),
    [
        (vector_wrappers.RecordEpisodeStatistics, "same_step"),
        (vector_wrappers.RecordEpisodeStatistics, "next_step"),
        (vector_wrappers.RecordEpisodeStatistics, "disabled"),
        (vector_wrappers.NormalizeReward, "same_step"),
        (vector_wrappers.NormalizeReward, "next_step"),
        (vector_wrappers.NormalizeObservation, "next_step"),
        (vector_wrappers.DictInfoToList, "same_step"),
        (vector_wrappers.DictInfoToList, "next_step"),
        (vector_wrappers.ClipAction, "next_step"),
        (partial(vector_wrappers.RescaleAction, min_action=-1.0, max_action=1.0), "next_step"),
        (partial(vector_wrappers.ClipReward, min_reward=-1.0, max_reward=1.0), "same_step"),
        (partial(vector_wrappers.ReshapeObservation, shape=(3, 1)), "next_step"),
        (vector_wrappers.FlattenObservation, "next_step"),
    ],
)
def test_gymnasium_s_wrappers(wrap: Any, mode: str) -> None:
    env = wrap(short(numpy=True, autoreset_mode=mode))
    env.reset(seed=0)
    for _ in range(8):
        obs, reward, _, _, info = env.step(env.action_space.sample())
        assert obs.shape == env.observation_space.shape and reward.shape == (2,)
        assert isinstance(info, list if wrap is vector_wrappers.DictInfoToList else dict)
    env.close()


def test_numpy_to_torch() -> None:
    pytest.importorskip("array_api_compat")
    env = vector_wrappers.NumpyToTorch(short(numpy=True))
    obs, _ = env.reset(seed=0)
    obs, reward, *_ = env.step(torch.zeros(2, 1))
    assert isinstance(obs, torch.Tensor) and isinstance(reward, torch.Tensor)


def test_statistics_are_those_of_whole_episodes() -> None:
    totals = {}
    for mode in ("same_step", "next_step"):
        env = vector_wrappers.RecordEpisodeStatistics(short(numpy=True, autoreset_mode=mode))
        env.reset(seed=0)
        for _ in range(7):
            env.step(np.full((2, 1), 0.5, np.float32))
        assert list(env.length_queue)[:2] == [3, 3]
        totals[mode] = [float(x) for x in env.return_queue][:2]
    assert totals["same_step"] == totals["next_step"]


@pytest.mark.parametrize("bank", [False, True])
def test_next_step_begins_anew_in_the_step_after(bank: bool) -> None:
    same = short()
    scenarios = same.simulator.scenarios(torch.arange(4)) if bank else None
    same = short(bank=scenarios)
    after = short(bank=scenarios, autoreset_mode="next_step")
    assert after.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert same.metadata["autoreset_mode"] is PlantVectorEnv.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    first, _ = same.reset(seed=1)
    assert torch.equal(first, after.reset(seed=1)[0])
    u = torch.full((2, 1), 0.3)
    for _ in range(3):
        a, b = same.step(u), after.step(u)
    assert b[3].all() and torch.equal(a[4]["final_obs"], b[0]) and "final_obs" not in b[4]
    obs, reward, terminated, truncated, _ = after.step(torch.full((2, 1), 9.0))
    assert torch.equal(obs, a[0]) and reward.tolist() == [0, 0] and not (terminated | truncated).any()
    c, d = same.step(u), after.step(u)
    assert torch.equal(c[0], d[0]) and torch.equal(c[1], d[1])


def test_disabled_waits_for_a_partial_reset() -> None:
    env = short(autoreset_mode=AutoresetMode.DISABLED)
    env.reset(seed=1)
    for _ in range(3):
        obs, *_ = env.step(torch.zeros(2, 1))
    again, reward, terminated, truncated, _ = env.step(torch.ones(2, 1))
    assert torch.equal(obs, again) and reward.tolist() == [0, 0] and not (terminated | truncated).any()
    fresh, _ = env.reset(options={"reset_mask": np.array([True, False])})
    assert not torch.equal(fresh[0], obs[0]) and torch.equal(fresh[1], obs[1])


def test_final_observations_in_gymnasium_s_form() -> None:
    env = short(numpy=True)
    env.reset(seed=0)
    env.step(np.zeros((2, 1)))
    env.reset(options={"reset_mask": np.array([True, False])})
    env.step(np.zeros((2, 1)))
    *_, info = env.step(np.zeros((2, 1)))
    assert info["_final_obs"].tolist() == [False, True]
    assert info["final_obs"][0] is None and info["final_obs"][1].shape == (3,)


def test_arrays_that_are_read_only_or_reversed_make_no_noise() -> None:
    """Warnings are errors here."""
    action = np.zeros((3, 1), np.float32)
    action.setflags(write=False)
    env = gymnasium.make_vec(PENDULUM, num_envs=3)
    env.reset(seed=3)
    env.step(action)
    env.step(np.broadcast_to(np.float32(0.0), (3, 1)))
    env.step(np.ones((6, 1), np.float32)[::-2])
    env.step([[0.0], [0.5], [1.0]])
    mask = np.array([True, False, True])
    mask.setflags(write=False)
    env.reset(options={"reset_mask": mask})
    single = PlantEnv(make_plant("steersman/Pendulum-v1"))
    single.reset(seed=0)
    single.step(action[0])
    discrete = make(CART)
    discrete.reset(seed=0)
    discrete.step(np.broadcast_to(np.int64(1), (3,)))


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="autoreset_mode must be one of NEXT_STEP, SAME_STEP, DISABLED, got 'later'"):
        short(autoreset_mode="later")
    with pytest.raises(ValueError, match="has episodes of 200 control steps"):
        make(PENDULUM, max_episode_steps=10)


def test_make_vec_of_an_environment_of_one_s_own() -> None:
    gymnasium.register(
        "VectorPendulum-v0",
        "steersman.envs.registry:make_env",
        vector_entry_point="steersman.envs.registry:make_vector_env",
        kwargs={"plant": "steersman.envs.classic.pendulum:Pendulum"},
    )
    env = make("VectorPendulum-v0")
    assert isinstance(env.unwrapped, PlantVectorEnv) and isinstance(env.unwrapped.simulator.plant, Plant)
    assert env.reset(seed=0)[0].shape == (3, 3)
