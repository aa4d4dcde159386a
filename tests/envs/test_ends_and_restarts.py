"""How episodes end and begin again: failure, goal and horizon, in every environment; and whose scenario comes next."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.gymnasium_adapters.env import PlantEnv
from steersman.envs.gymnasium_adapters.sb3 import make_sb3
from steersman.envs.gymnasium_adapters.vector import PlantVectorEnv
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.plant import Plant, Status
from steersman.envs.simulator import PlantSimulator

HORIZON = 5
FAIL, GOAL = 10.0, -10.0


class Counter(Plant):
    """A sum of actions from a random start in (0, 1): violated from 8 on, diverged at NaN, at the goal from -8 on."""

    gradient = "exact"

    def __init__(self, failure: float = 0.0) -> None:
        self.dt, self.hold, self.horizon = 1.0, 1, HORIZON
        self.actions = ActionSet((-20.0,), (20.0,))
        self.objective = Objective(
            (Quadratic(name="u", on="u", weights=(1.0,)), Quadratic(name="du", on="du", weights=(0.5,))),
            terminal=(Quadratic(name="end", on="z", weights=(2.0,)),),
            failure=failure,
        )
        self.measured = self.performed = ("x",)
        self.constrained = ("above three",)

    def params(self, key: Tensor) -> dict[str, Tensor]:
        return {"start": noise.uniform(key)}

    def initial(self, key: Tensor, p: dict[str, Tensor]) -> Tensor:
        return p["start"][:, None].clone()

    def step(self, k: Tensor, x: Tensor, u: Tensor, w: Tensor, p: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return x + torch.where(u == 20, torch.inf, u)

    def measure(self, k: Tensor, x: Tensor, p: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return x

    def constraints(self, k: Tensor, x: Tensor, u: Tensor, p: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return x - 3

    def status(self, k: Tensor, x: Tensor, p: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        high, low = x[:, 0] >= 8, x[:, 0] <= -8
        status = torch.where(high, int(Status.VIOLATED), int(Status.OK))
        return torch.where(low, int(Status.REACHED), status).to(torch.uint8)


# Actions of an episode, then whether it terminates (else it is truncated), its length and its last status.
ENDS = {
    "horizon": ([0.0] * HORIZON, False, HORIZON, Status.OK),
    "failure": ([0.0, FAIL], True, 2, Status.VIOLATED),
    "goal": ([0.0, 0.0, GOAL], True, 3, Status.REACHED),
    "divergence": ([20.0], True, 1, Status.DIVERGED),
    "failure in the last step": ([0.0] * (HORIZON - 1) + [FAIL], True, HORIZON, Status.VIOLATED),
    "goal in the last step": ([0.0] * (HORIZON - 1) + [GOAL], True, HORIZON, Status.REACHED),
}


@pytest.mark.parametrize("case", ENDS)
def test_termination_is_told_from_truncation_everywhere(case: str) -> None:
    actions, terminates, length, status = ENDS[case]
    single = PlantEnv(Counter())
    vector = PlantVectorEnv(Counter(), 2)
    sb3 = make_sb3(Counter(), 2, seed=7)
    single.reset(seed=7)
    vector.reset(seed=7)
    sb3.reset()
    for k, action in enumerate(actions):
        pair = np.array([[action], [0.1]])
        y, _, terminated, truncated, info = single.step(np.array([action]))
        _, _, many_terminated, many_truncated, many = vector.step(pair)
        obs, _, done, infos = sb3.step(pair / 20)
        over = k + 1 == length
        assert (terminated, truncated) == (over and terminates, over and not terminates)
        assert many_terminated.tolist() == [terminated, False]
        assert many_truncated.tolist() == [truncated, k + 1 == HORIZON]
        assert done.tolist() == [over, k + 1 == HORIZON]
        if over:
            assert info["status"] == status == int(many["status"][0])
            assert infos[0]["TimeLimit.truncated"] is (not terminates)
            assert infos[0]["terminal_observation"] == pytest.approx(y)
            assert many["final_obs"][0].numpy() == pytest.approx(y)
            assert obs[0] != pytest.approx(y), "the observation is that of the next episode"
        else:
            assert infos[0] == {}
        assert ("TimeLimit.truncated" in infos[1]) == (k + 1 == HORIZON)
    assert over, "the script runs to the end"


def test_what_a_step_costs_by_hand() -> None:
    """``u^2 + du^2 / 2`` before the step; the terminal cost ``2 z^2`` at the end, but not of a failure."""
    plant = Counter(failure=100.0)
    sim = PlantSimulator(plant, 4)
    scenarios = sim.scenarios(noise.keys(0, 4))
    sim.reset(replace(scenarios, x0=torch.tensor([[0.0], [4.0], [0.0], [0.0]], dtype=torch.float64)))

    def step(*u: float):  # type: ignore[no-untyped-def]
        return sim.step(torch.tensor(u, dtype=torch.float64)[:, None])

    t = step(1.0, 2.0, -9.0, torch.nan)
    # The second is at 6 and goes on, the third has reached its goal, the fourth has diverged.
    assert t.cost.tolist() == [1 + 0.5, 4 + 2, 81 + 40.5 + 2 * 81, 5 * 100.0]
    assert t.violation.tolist() == [0.0, 1.0, 0.0, 0.0]
    assert t.ended.tolist() == [False, False, True, True] and not t.truncated.any()
    t = step(1.0, 2.0, 5.0, 5.0)
    assert t.cost.tolist() == [1.0, 4 + 4 * 100.0, 0.0, 0.0], "du = 0; the second fails with four steps left"
    assert t.terms["failure"].tolist() == [0.0, 400.0, 0.0, 0.0] and t.violation.tolist() == [0.0, 3.0, 0.0, 0.0]
    assert t.ended.tolist() == [False, True, False, False], "a row ends once"
    for _ in range(2):
        step(0.0, 1.0, 1.0, 1.0)
    t = step(3.0, 1.0, 1.0, 1.0)
    assert t.cost.tolist() == [9 + 4.5 + 2 * 25, 0.0, 0.0, 0.0] and t.truncated.tolist() == [True, False, False, False]
    assert t.terms["terminal"].tolist() == [50.0, 0.0, 0.0, 0.0]
    assert step(3.0, 1.0, 1.0, 1.0).cost.sum() == 0 and sim.k.tolist() == [5, 2, 1, 1]


def expected(seed: int, row: int, episode: int) -> float:
    """Start of a row's e-th episode, from its own key alone."""
    key = noise.keys(seed + row, 1)
    return float(noise.uniform(noise.fold(key, episode) if episode else key))


@given(data=st.data(), n=st.integers(1, 6))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_a_row_that_starts_again_goes_on_with_its_own_scenarios(data: st.DataObject, n: int) -> None:
    """Whatever rows end or are restarted beside it, a row's episodes are those of its key, in their order."""
    env = PlantVectorEnv(Counter(), n)
    obs, _ = env.reset(seed=3)
    episode = [0] * n
    for _ in range(6):
        hit = data.draw(st.lists(st.sampled_from(["go", "fail", "mask"]), min_size=n, max_size=n))
        obs, *_ = env.step(torch.tensor([[FAIL if what == "fail" else 0.0] for what in hit]))
        ended = [what == "fail" or int(env.simulator.k[i]) == 0 for i, what in enumerate(hit)]
        episode = [e + over for e, over in zip(episode, ended, strict=True)]
        if "mask" in hit:
            obs, _ = env.reset(options={"reset_mask": np.array([what == "mask" for what in hit])})
            episode = [e + (what == "mask") for e, what in zip(episode, hit, strict=True)]
        fresh = [i for i in range(n) if int(env.simulator.k[i]) == 0]
        for i in fresh:
            assert float(obs[i]) == pytest.approx(expected(3, i, episode[i]), abs=1e-12)
            assert float(env.simulator.p["start"][i]) == pytest.approx(expected(3, i, episode[i]), abs=1e-12)


def test_a_mask_restarts_its_rows_and_nothing_else() -> None:
    sim = PlantSimulator(Counter(), 4)
    sim.reset(sim.scenarios(noise.keys(0, 4)))
    first = sim.scenarios(noise.keys(0, 4))
    sim.step(torch.tensor([[1.0], [FAIL], [2.0], [3.0]], dtype=torch.float64))
    mask = torch.tensor([False, True, False, True])
    keys = noise.keys(9, 4)
    sim.reset(sim.scenarios(keys, mask), mask)
    want = sim.scenarios(keys)
    assert torch.equal(sim.x[mask], want.x0[mask])  # type: ignore[index]
    assert torch.equal(sim.p["start"], torch.where(mask, want.p["start"], first.p["start"]))
    m = sim.measure()
    assert m.k.tolist() == [1, 0, 1, 0] and m.u_prev[:, 0].tolist() == [1.0, 0.0, 2.0, 0.0]
    t = sim.step(torch.ones(4, 1, dtype=torch.float64))
    assert t.status.tolist() == [0, 0, 0, 0], "a failed row that is restarted runs again"
    assert float(sim.x[0]) == pytest.approx(float(first.x0[0]) + 2)  # type: ignore[index]


def test_a_bank_is_drawn_from_by_each_rows_own_stream() -> None:
    sim = PlantSimulator(Counter(), 3)
    bank = sim.scenarios(noise.keys(1, 3))
    env = PlantVectorEnv(Counter(), 64, bank=bank)
    obs, _ = env.reset(seed=0)
    starts = bank.p["start"].tolist()
    counts = [int((obs[:, 0] == start).sum()) for start in starts]
    assert sum(counts) == 64 and min(counts) > 8
    again, *_ = env.step(torch.full((64, 1), FAIL))
    assert 0.15 < float((again == obs).double().mean()) < 0.55, "a third of the rows draw the same again"


def test_seeds_start_streams_and_without_one_they_go_on() -> None:
    env = PlantVectorEnv(Counter(), 2)
    a, _ = env.reset(seed=5)
    b, _ = env.reset()
    assert b[:, 0].tolist() == pytest.approx([expected(5, 0, 1), expected(5, 1, 1)])
    c, _ = env.reset(seed=[5, 9])
    assert float(c[0]) == float(a[0]) and float(c[1]) == pytest.approx(expected(9, 0, 0))
    mixed, _ = env.reset(seed=40, options={"reset_mask": np.array([False, True])})
    assert float(mixed[0]) == float(c[0]) and float(mixed[1]) == pytest.approx(expected(40, 1, 0))
    with pytest.raises(ValueError, match="one integer or 2 of them, got 3"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match=r"reset_mask must have shape \(2,\)"):
        env.reset(options={"reset_mask": np.ones(3, dtype=bool)})
    with pytest.raises(ValueError, match=r"actions must have shape \(2, 1\)"):
        env.step(np.zeros((3, 1)))
    single = PlantEnv(Counter())
    first, _ = single.reset(seed=5)
    assert float(first[0]) == pytest.approx(float(a[0]))
    second, third = single.reset()[0], single.reset()[0]
    assert float(second[0]) != float(third[0]) != float(first[0])
    single.reset(seed=5)
    assert float(single.reset()[0][0]) == float(second[0])


def test_observations_are_of_the_state_and_rewards_of_the_cost() -> None:
    env = gymnasium.wrappers.TimeLimit(PlantEnv(Counter()), 3)
    y, info = env.reset(seed=2)
    assert info["z"] == pytest.approx(y)
    y2, reward, _, truncated, info = env.step(np.array([2.0]))
    assert y2 == pytest.approx(y + 2) and reward == -(4 + 2) and info["terms"]["u"] == 4.0 and not truncated
    assert info["violation"] == 0.0 and info["status"] is Status.OK


def test_actions_of_the_adapter_span_the_bounds() -> None:
    sb3 = make_sb3(Counter(failure=10.0), 3, seed=1)
    start = sb3.reset()
    obs, reward, *_ = sb3.step(np.array([[0.5], [-0.25], [-7.0]]))
    assert 0 < obs[0, 0] < 1, "beyond 8 it fails and starts again"
    assert obs[1, 0] == pytest.approx(start[1, 0] - 5)
    assert reward.tolist() == pytest.approx([-150.0 - 5 * 10, -37.5, -(400 + 200 + 2 * (start[2, 0] - 20) ** 2)])
    assert sb3.seed(4) == [4, 5, 6] and sb3.seed() == [None] * 3
