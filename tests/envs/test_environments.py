"""Conformance of every registered plant and of the environments over it."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from steersman.envs import noise
from steersman.envs.gymnasium_adapters.gym_simulator import GymSimulator
from steersman.envs.gymnasium_adapters.sb3 import make_sb3
from steersman.envs.gymnasium_adapters.vector import PlantVectorEnv
from steersman.envs.plant import Status
from steersman.envs.registry import PLANTS, PlantSpec, make_plant, make_simulator
from steersman.envs.simulator import PlantSimulator

each_plant = pytest.mark.parametrize("spec", PLANTS, ids=lambda s: s.name)
CHEAP = "Pendulum-v1"
pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning")


def test_gymnasium_points_from_a_published_task_to_the_one_that_replaces_it() -> None:
    with pytest.warns(DeprecationWarning, match="upgrading to version `v2`"):
        gymnasium.make("steersman.envs:steersman/TwoArea-v1").close()


@each_plant
def test_single_equals_batched_equals_sb3(spec: PlantSpec) -> None:
    plant = make_plant(spec.id)
    n, steps = 3, 4
    single = gymnasium.make(f"steersman.envs:{spec.id}")
    vector = PlantVectorEnv(plant, n)
    unit = noise.uniform(noise.keys(5, n), steps, plant.actions.m, dtype=plant.dtype)
    actions = [plant.actions.encode(plant.actions.sample(unit[:, k])) for k in range(steps)]
    obs, _ = vector.reset(seed=11)
    first, _ = single.reset(seed=12)
    np.testing.assert_allclose(first, obs[1].numpy(), rtol=1e-6, atol=1e-6)
    sb3 = make_sb3(plant, n, seed=11) if plant.actions.bounded else None
    if sb3 is not None:
        np.testing.assert_allclose(sb3.reset(), obs.numpy(), rtol=1e-6, atol=1e-6)
    for action in actions:
        obs, reward, *_ = vector.step(action)
        y, r, *_ = single.step(action[1].numpy())
        np.testing.assert_allclose(y, obs[1].numpy(), rtol=1e-6, atol=1e-6)
        assert r == pytest.approx(float(reward[1]), rel=1e-6, abs=1e-6)
        if sb3 is not None:
            native = action.numpy()
            if not plant.actions.discrete:
                lower, upper = (b.numpy() for b in plant.actions.bounds(torch.zeros(1, dtype=plant.dtype)))
                native = 2 * (native - lower) / (upper - lower) - 1
            y3, r3, _, _ = sb3.step(native)
            np.testing.assert_allclose(y3, obs.numpy(), rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(r3, reward.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*For Box action spaces")  # physical units are kept; the SB3 adapter scales
@pytest.mark.filterwarnings("ignore:.*A Box observation space")
@pytest.mark.filterwarnings("ignore:.*A Box action space m")  # infinite bounds of the unbounded variants are meant
@each_plant
def test_gymnasium_and_sb3_checkers(spec: PlantSpec) -> None:
    env = gymnasium.make(f"steersman.envs:{spec.id}").unwrapped
    check_env(env, skip_render_check=True)
    if make_plant(spec.id).actions.bounded:
        sb3_check_env(env, warn=False)


@each_plant
def test_spec_round_trips_and_vectorises(spec: PlantSpec) -> None:
    assert gymnasium.envs.registration.EnvSpec.from_json(gymnasium.spec(spec.id).to_json()).id == spec.id
    env = gymnasium.make_vec(spec.id, num_envs=2)
    obs, _ = env.reset(seed=0)
    assert tuple(obs.shape) == (2, len(make_plant(spec.id).measured))


@each_plant
def test_render(spec: PlantSpec) -> None:
    env = gymnasium.make(spec.id, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(env.action_space.sample() if make_plant(spec.id).actions.bounded else np.zeros(env.action_space.shape))
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.std() > 5


def test_sb3_refuses_unbounded_actions_and_names_the_remedy() -> None:
    plant = make_plant("KuramotoSivashinskyUnbounded-v1")
    assert not plant.actions.bounded
    with pytest.raises(ValueError, match=r"use the bounded variant of the plant \(they are"):
        make_sb3(plant, 1)


@pytest.mark.parametrize("bank", [False, True])
def test_autoreset_and_partial_reset(bank: bool) -> None:
    plant = make_plant(CHEAP)
    sim = PlantSimulator(plant, 5)
    env = PlantVectorEnv(plant, 4, bank=sim.scenarios(noise.keys(1, 5)) if bank else None)
    obs, _ = env.reset(seed=3)
    zero = torch.zeros(4, plant.actions.m)
    env.step(zero)
    before = env.simulator.x
    mask = np.array([True, False, False, False])
    env.reset(options={"reset_mask": mask})
    assert torch.equal(env.simulator.x[1:], before[1:])
    assert not torch.equal(env.simulator.x[0], before[0])
    for _ in range(plant.horizon - 1):
        obs, _, terminated, truncated, info = env.step(zero)
    assert truncated.tolist() == [False, True, True, True] and not terminated.any()
    assert torch.equal(info["_final_obs"], truncated)
    assert not torch.equal(obs[1], info["final_obs"][1]) and torch.equal(obs[0], info["final_obs"][0])
    assert env.simulator.k.tolist() == [plant.horizon - 1, 0, 0, 0]


def test_snapshot_continues_bit_exactly() -> None:
    sim = PlantSimulator(make_plant(CHEAP), 3)
    sim.reset(sim.scenarios(noise.keys(0, 3)))
    u = torch.ones(3, 1, dtype=torch.float64)
    sim.step(u)
    saved = sim.snapshot()
    first = sim.step(u).cost
    sim.restore(saved)
    assert torch.equal(sim.step(u).cost, first)


def test_gym_simulator_runs_a_foreign_environment() -> None:
    sim = make_simulator("Pendulum-v1", 2)
    assert isinstance(sim, GymSimulator)
    sim.reset(sim.scenarios(noise.keys(0, 2)))
    reference = gymnasium.make("Pendulum-v1")
    reference.reset(seed=int(noise.keys(0, 2)[0]) & 0x7FFFFFFF)
    total = 0.0
    for _ in range(200):
        t = sim.step(torch.tensor([[0.5], [float("nan")]], dtype=torch.float64))
        total += reference.step(np.array([0.5], np.float32))[1]
        assert t.status.tolist() == [Status.OK, Status.DIVERGED]
    assert t.truncated.tolist() == [True, False]
    assert float(sim.step(torch.zeros(2, 1, dtype=torch.float64)).cost.sum()) == 0.0
    assert total < 0


def test_bad_input_names_the_remedy() -> None:
    with pytest.raises(ValueError, match="known: steersman/"):
        make_plant("Nothing-v1")
    with pytest.raises(ValueError, match="unknown environment"):
        make_simulator("Nothing-v9", 1)
    with pytest.raises(ValueError, match="n=0"):
        PlantSimulator(make_plant(CHEAP), 0)
    env = gymnasium.make(f"steersman/{CHEAP}").unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match="finite"):
        env.step(np.array([np.nan]))
    with pytest.raises(ValueError, match="shape"):
        env.step(np.zeros(3))
    sim = PlantSimulator(make_plant(CHEAP), 2)
    with pytest.raises(RuntimeError, match="reset"):
        sim.step(torch.zeros(2, 1))
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA is not available"):
            PlantVectorEnv(make_plant(CHEAP), 2, device="cuda")
