"""Cart and pole, acrobot and mountain car against the environments whose physics they claim to have."""

from collections.abc import Callable

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from steersman.envs import noise
from steersman.envs.classic.acrobot import Acrobot
from steersman.envs.classic.cart_pole import CartPole
from steersman.envs.classic.mountain_car import MountainCarContinuous
from steersman.envs.plant import Plant, Status
from steersman.envs.simulator import PlantSimulator

Policy = Callable[[np.ndarray, int], int | np.ndarray]


def upright(state: np.ndarray, k: int) -> int:
    return int(state[2] + 0.3 * state[3] + 0.05 * state[0] + 0.1 * state[1] > 0)


def pump(state: np.ndarray, k: int) -> int:
    """Pushes along the elbow's motion; the first steps drive it hard enough to wrap the angles."""
    return int(np.sign(state[3]) + 1)


def rest(state: np.ndarray, k: int) -> int:
    return 1


def swing(state: np.ndarray, k: int) -> np.ndarray:
    return np.array([np.copysign(0.9, state[1])])


def idle(state: np.ndarray, k: int) -> np.ndarray:
    return np.array([0.2 * np.sin(0.3 * k)])


def brake(state: np.ndarray, k: int) -> int:
    return 0


CASES = [
    (CartPole, "CartPole-v1", upright, 0.0, False),
    (CartPole, "CartPole-v1", brake, 0.0, True),
    (Acrobot, "Acrobot-v1", pump, 1.0, True),
    (Acrobot, "Acrobot-v1", rest, 1.0, False),
    (MountainCarContinuous, "MountainCarContinuous-v0", swing, 100.0, True),
    (MountainCarContinuous, "MountainCarContinuous-v0", idle, 100.0, False),
]


@pytest.mark.parametrize(("kind", "id", "policy", "offset", "early"), CASES, ids=lambda v: getattr(v, "__name__", None))
def test_parity_with_gymnasium(kind: type[Plant], id: str, policy: Policy, offset: float, early: bool) -> None:
    """Every step starts from our state, because rounding errors of these systems grow exponentially."""
    plant, theirs = kind(), gymnasium.make(id).unwrapped
    assert gymnasium.spec(id).max_episode_steps == plant.horizon
    plant.horizon = min(plant.horizon, 150)  # long enough for every rule of an episode, the end included
    sim = PlantSimulator(plant, 1)
    sim.reset(sim.scenarios(noise.keys(3, 1)))
    theirs.reset(seed=0)
    gained, cost, k, ended = 0.0, 0.0, 0, False
    while not ended:
        theirs.state = sim.x[0].numpy().copy()
        action = policy(theirs.state, k)
        u = plant.actions.decode(torch.as_tensor(action))
        obs, reward, terminated, *_ = theirs.step(action)
        t = sim.step(u)
        ended, k, gained, cost = bool(t.ended), k + 1, gained + float(reward), cost + float(t.cost)
        if isinstance(plant, MountainCarContinuous):
            # gymnasium rounds this state to single precision in every step, and so does the comparison.
            np.testing.assert_array_equal(sim.x[0].numpy().astype(np.float32), theirs.state)
        else:
            np.testing.assert_allclose(sim.x[0].numpy(), theirs.state, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(sim.measure().y[0].numpy(), obs, atol=1e-5)
        assert terminated == (int(t.status) in (Status.TERMINATED, Status.REACHED))
    assert early == (k < plant.horizon)
    assert offset - cost == pytest.approx(gained, abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        (CartPole, [-0.05] * 4, [0.05] * 4),
        (Acrobot, [-0.1] * 4, [0.1] * 4),
        (MountainCarContinuous, [-0.6, 0.0], [-0.4, 0.0]),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_initial_distribution(kind: type[Plant], low: list[float], high: list[float]) -> None:
    x = kind().initial(noise.keys(0, 4000), {})
    edges = x.new_tensor([low, high])
    assert bool((x >= edges[0]).all()) and bool((x <= edges[1]).all())
    assert torch.allclose(torch.stack([x.amin(dim=0), x.amax(dim=0)]), edges, atol=1e-3)
    assert torch.allclose(x.mean(dim=0), edges.mean(dim=0), atol=0.004)


def test_angles_wrap_as_gymnasium_wraps_them() -> None:
    plant, theirs = Acrobot(), gymnasium.make("Acrobot-v1").unwrapped
    theirs.reset(seed=0)
    start = np.array([[3.1, -3.1, 9.0, -20.0], [-3.1, 3.1, -12.5, 28.0], [3.0, 3.0, 4.0, 9.0]])
    x = torch.from_numpy(start)
    k = torch.zeros(3, dtype=torch.int64)
    after = plant.step(k, x, torch.ones(3, 1).double(), k, {})
    for row in range(3):
        theirs.state = start[row]
        theirs.step(2)
        np.testing.assert_allclose(after[row].numpy(), theirs.state, rtol=1e-9, atol=1e-9)
    assert bool((after[:, :2].abs() <= np.pi).all()) and not torch.allclose(after[:, 0], x[:, 0])


@pytest.mark.parametrize("kind", [CartPole, Acrobot, MountainCarContinuous], ids=lambda v: v.__name__)
def test_gradient(kind: type[Plant]) -> None:
    plant, k = kind(), torch.zeros(2, dtype=torch.int64)
    x = plant.initial(noise.keys(1, 2), {}).requires_grad_()
    u = torch.full((2, plant.actions.m), 0.3, dtype=torch.float64, requires_grad=True)

    def step(x: Tensor, u: Tensor) -> Tensor:
        return plant.step(k, x, u, k, {})

    assert torch.autograd.gradcheck(step, (x, u))


def test_planners_see_where_an_episode_would_end() -> None:
    z = torch.tensor([[0.0, 0.0], [2.5, 0.0], [0.0, -0.3]], dtype=torch.float64)
    u = torch.zeros(3, 2, dtype=torch.float64)
    assert CartPole().objective.stage_cost(z, u, u, z).tolist() == [-1.0, 0.0, 0.0]
    assert Acrobot().objective.stage_cost(z[:, :1], u[:, :1], u[:, :1], z[:, :1]).tolist() == [1.0, 0.0, 1.0]
    assert MountainCarContinuous().objective.terminal_cost(z, z).tolist() == [100.0, 0.0, 100.0]
