"""Foreign environments as simulators: ends, what is no number, outputs, references, isolation, workers, planners."""

import re
from typing import Any

import numpy as np
import odd_lab
import pytest
import torch
from gymnasium import spaces

from steersman.controllers.registry import make_controller
from steersman.controllers.rollout import run_episodes
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.registry import make_model
from steersman.envs import make_simulator, noise
from steersman.envs.gymnasium_adapters.agreement import agreement, in_words
from steersman.envs.gymnasium_adapters.gym_simulator import GymSimulator
from steersman.envs.gymnasium_adapters.outputs import Output, Reading, Reference, Termination
from steersman.envs.gymnasium_adapters.vector import PlantVectorEnv
from steersman.envs.objective import Limit, Linear, Objective, PiecewiseLinear, Quadratic
from steersman.envs.plant import Status, failed
from steersman.envs.simulator import Simulator, Transition


def started(id: Any, n: int = 2, steps: int = 5, **settings: Any) -> Simulator:
    simulator = make_simulator(id, n, max_episode_steps=steps, **settings)
    simulator.reset(simulator.scenarios(noise.keys(0, n)))
    return simulator


def push(simulator: Simulator, value: float) -> Transition:
    return simulator.step(torch.full((simulator.n, simulator.actions.m), value, dtype=torch.float64))


# ------------------------------------------------------------------ ends


@pytest.mark.parametrize(
    ("termination", "status", "failure"),
    [("end", Status.ENDED, False), ("failure", Status.TERMINATED, True), ("goal", Status.REACHED, False)],
)
def test_what_terminated_means(termination: Termination, status: Status, failure: bool) -> None:
    price = 7.0
    simulator = started(odd_lab.Goal, reading=Reading(termination=termination), price=price)
    push(simulator, 0.0)
    t = push(simulator, 1.0)
    assert t.status.tolist() == [status, status] and bool(t.ended.all()) and not bool(t.truncated.any())
    assert bool(failed(t.status).all()) == failure
    assert t.cost.tolist() == [-10 + price * 4 * failure] * 2, "three steps are left, and the one that failed counts"
    env = PlantVectorEnv(started(odd_lab.Goal, reading=Reading(termination=termination), price=price))
    env.reset(seed=0)
    _, _, terminated, truncated, _ = env.step(torch.ones(2, 1))
    assert bool(terminated.all()) and not bool(truncated.any())


def test_the_last_step_may_be_an_end_of_both_kinds() -> None:
    simulator = started(odd_lab.Goal, steps=1)
    t = push(simulator, 1.0)
    assert t.status.tolist() == [Status.ENDED] * 2 and not bool(t.truncated.any())
    simulator = started(odd_lab.Goal, steps=1)
    t = push(simulator, 0.0)
    assert bool(t.truncated.all()) and t.status.tolist() == [Status.OK] * 2


# ------------------------------------------------------------------ what is no number


@pytest.mark.parametrize(
    ("settings", "steps", "note"),
    [
        ({"reward": float("nan")}, 2, "the reward was nan"),
        ({"reward": float("-inf")}, 2, "the reward was -inf"),
        ({"observation": float("nan")}, 2, "observation 'y1' was nan"),
        ({"observation": float("inf")}, 2, "observation 'y1' was inf"),
        ({"observation": float("nan"), "at": 0}, 1, "observation 'y1' was nan"),
    ],
)
def test_what_is_no_number_diverges_with_a_price_and_a_note(settings: dict[str, Any], steps: int, note: str) -> None:
    simulator = started(odd_lab.Broken, price=3.0, **settings)
    total = torch.zeros(2, dtype=torch.float64)
    for k in range(5):
        assert bool(torch.isfinite(simulator.measure().y).all())
        t = push(simulator, 0.0)
        total += t.cost
        if k == steps - 1:
            assert t.status.tolist() == [Status.DIVERGED] * 2 and bool(t.ended.all())
    earned = (steps - 1) * 1.0 + (1.0 if "observation" in settings and steps == 2 else 0.0)
    assert total.tolist() == pytest.approx([3.0 * (5 - steps + 1) - earned] * 2)
    assert simulator.notes == (f"2 rows ended as diverged because {note}",)
    assert bool(torch.isfinite(simulator.perform()).all())


def test_without_a_stated_price_breaking_costs_what_the_worst_step_costs() -> None:
    """Constant actions of Goal cost 1 a step at most, so a row that breaks at once pays that for all five."""
    simulator = started(odd_lab.Goal, n=2)
    t = simulator.step(torch.tensor([[torch.nan], [0.0]], dtype=torch.float64))
    assert t.status.tolist() == [Status.DIVERGED, Status.OK]
    assert t.cost.tolist() == [5.0, 1.0]


def test_the_price_meets_the_last_member_of_a_group_too() -> None:
    class Lever(odd_lab.Base):
        action_space = spaces.Discrete(3)

        def reward(self, action: Any) -> Any:
            return -float(action)

    assert started(Lever).price() == 2.0


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (odd_lab.Seedless, "reset takes no seed"),
        (odd_lab.Old, "reset must return an observation and a dictionary"),
        (odd_lab.Four, "step must return observation, reward, terminated, truncated"),
    ],
)
def test_the_interface_of_the_old_package_is_refused(kind: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        push(started(kind), 0.0)


def test_rewards_that_are_one_number_in_some_form() -> None:
    class Forms(odd_lab.Base):
        def reward(self, action: Any) -> Any:
            return [np.float32(1), np.array([1.0]), np.array(1), True, 1][self.t - 1]

    simulator = started(Forms)
    assert [float(push(simulator, 0.0).cost[0]) for _ in range(5)] == [-1.0] * 5

    class Two(odd_lab.Base):
        def reward(self, action: Any) -> Any:
            return np.zeros(2)

    with pytest.raises(ValueError, match=r"^the reward must be a finite real number, got array\(.*\) at step 0$"):
        push(started(Two), 0.0)


@pytest.mark.parametrize("bad", [None, "1.5", 1j, [None], [], {}, np.array([None])])
def test_rewards_that_are_no_number(bad: Any) -> None:
    """numpy makes NaN of None, and a number of a text: they are no outcome of an episode but a slip in its code."""

    class Slip(odd_lab.Base):
        def reward(self, action: Any) -> Any:
            return bad if self.t == 3 else 1.0

    simulator = started(Slip)
    push(simulator, 0.0)
    push(simulator, 0.0)
    with pytest.raises(
        ValueError, match=f"^the reward must be a finite real number, got {re.escape(repr(bad))} at step 2$"
    ):
        push(simulator, 0.0)
    with pytest.raises(ValueError, match=r"^the reward must be a finite real number"):
        started(Slip).price()


def test_an_observation_that_is_changed_in_place_stays_as_it_was_seen() -> None:
    class Reuses(odd_lab.Base):
        observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)

        def __init__(self) -> None:
            self.buffer = np.zeros(1)

        def observe(self) -> Any:
            self.buffer[0] = self.t
            return self.buffer

    simulator = started(Reuses)
    seen = [simulator.measure().y]
    for _ in range(3):
        push(simulator, 0.0)
        seen.append(simulator.measure().y)
    assert [float(y[0, 0]) for y in seen] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4, start=-2),
        spaces.MultiDiscrete([3, 3], start=[1, 5]),
        spaces.MultiBinary((2, 2)),
        spaces.Box(-0.1, 0.1, (), np.float32),
        spaces.Box(0, 9, (2, 2), np.int32),
        spaces.Dict({"a": spaces.Tuple((spaces.Discrete(2), spaces.Box(-1, 1, (2,)))), "b": spaces.MultiBinary(2)}),
    ],
)
def test_environments_are_handed_actions_of_their_space(space: spaces.Space[Any]) -> None:
    simulator = started(odd_lab.Any_, action_space=space, observation_space=space)
    for k in range(5):  # the environment asserts that its space contains the action
        unit = noise.uniform(noise.keys(k, 2), simulator.actions.m)
        t = simulator.step(simulator.actions.sample(unit))
    assert bool(t.truncated.all())


# ------------------------------------------------------------------ outputs and references


READING = Reading(
    names={"level[0]": "level"},
    outputs=(Output(name="gap", of={"level": 1.0, "target[0]": -1.0}),),
    references={
        "level": Reference(observation=("target[0]", "target[1]")),
        "gap": Reference(value=0.5),
        "reward": Reference(info="plan", column=1),
    },
)


def test_names_outputs_and_references() -> None:
    simulator = started(odd_lab.Tank, reading=READING)
    p = simulator.problem
    assert p.measured == ("level", "target[0]", "target[1]")
    assert p.performed == ("level", "target[0]", "target[1]", "gap", "reward")
    assert p.exogenous == (1, 2), "entries that hold references"
    push(simulator, 0.5)
    push(simulator, 1.0)
    assert simulator.perform()[0].tolist() == pytest.approx([1.5, 2.0, 3.0, -0.5, -0.25])
    m = simulator.measure(3)
    assert m.r.shape == (2, 4, 5)
    assert m.r[0, :, 0].tolist() == [2, 3, 3, 3], "the last one that is known goes on"
    assert m.r[0, :, 3].tolist() == [0.5] * 4
    assert m.r[0, :, 4].tolist() == [-2, -3, -4, -4]
    assert simulator.measure().r[0, 0].tolist() == [2, 0, 0, 0.5, -2]


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        (Reading(names=("a",)), r"names: the observation has 3 entries"),
        (Reading(names={"nothing": "a"}), r"names: no output 'nothing'; known: level\[0\]"),
        (Reading(names=("a", "b", "a")), "names: they must differ"),
        (Reading(outputs=(Output(name="gap", of={"x": 1.0}),)), r"outputs.0.of: no output 'x'"),
        (Reading(outputs=(Output(name="level[0]", of={}),)), r"outputs: names must differ"),
        (Reading(outputs=(Output(name="g", of={"level[0]": float("inf")}),)), r"outputs.0.of: weights must be finite"),
        (Reading(references={"x": Reference(value=0.0)}), r"references: no output 'x'"),
        (Reading(references={"reward": Reference(observation=("x",))}), r"references.reward: no output 'x'"),
        (Reading(references={"reward": Reference(info="x")}), r"references.reward: info has no 'x'.*it has plan"),
        (Reading(references={"reward": Reference(info="plan")}), r"references.reward: info\['plan'\] must be a number"),
        (Reading(exogenous=("x",)), r"exogenous: no output 'x'"),
    ],
)
def test_readings_that_do_not_fit(reading: Reading, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        started(odd_lab.Tank, reading=reading)


def test_an_entry_called_reward_keeps_its_name() -> None:
    space = spaces.Dict({"reward": spaces.Box(-1, 1, ())})
    simulator = started(odd_lab.Any_, observation_space=space)
    assert simulator.problem.performed == ("reward", "reward_")


def test_objectives() -> None:
    short = Objective(
        (Quadratic(name="a", on="z", weights=(1.0, 2.0)),), limits=(Limit(name="l", index=0, low=0.0, high=1.0),)
    )
    found = started(odd_lab.Base, objective=short).problem.objective
    assert found.stage == (Quadratic(name="a", on="z", weights=(1.0, 2.0, 0.0)),) and found.limits == short.limits
    priced = started(odd_lab.Base, objective=Objective((), failure=4.0))
    assert priced.problem.objective.failure == 4.0 and priced.price() == 4.0
    assert priced.problem.objective.stage == (Linear(name="reward", on="z", weights=(0.0, 0.0, -1.0)),)
    named = started(
        odd_lab.Base, objective=lambda z, u: Objective((Linear(name=z[-1], on="u", weights=(1.0,) * len(u)),))
    )
    assert named.problem.objective.stage == (Linear(name="reward", on="u", weights=(1.0,)),)
    for wrong, message in (
        (Quadratic(name="a", on="z", weights=(1.0,)), "has 1 weights but signal 'z' has 3"),
        (PiecewiseLinear(name="a", on="u", index=1, points=((0.0, 0.0), (1.0, 1.0))), "reads entry 1, but 'u' has 1"),
    ):
        with pytest.raises(ValueError, match=message):
            started(odd_lab.Base, objective=Objective((wrong,)))


def test_a_stated_objective_does_not_change_what_is_charged() -> None:
    stated = Objective(
        (Quadratic(name="a", on="z", weights=(9.0, 9.0)),), (Quadratic(name="b", on="z", weights=(9.0, 9.0)),)
    )
    simulator = started(odd_lab.Base, objective=stated)
    assert sum(float(push(simulator, 0.3).cost[0]) for _ in range(5)) == -5.0


def test_the_default_objective_charges_exactly_minus_the_reward() -> None:
    """As the simulators of plants count: stage costs before every step, and the terminal cost of the last outputs."""
    simulator = started(odd_lab.Tank)
    objective, zero = simulator.problem.objective, torch.zeros(2, 1, dtype=torch.float64)
    charged, counted = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for k in range(5):
        z = simulator.perform()
        counted += objective.stage_cost(z, zero, zero, torch.zeros_like(z))
        charged += push(simulator, 0.7 - 0.3 * k).cost
    z = simulator.perform()
    counted += objective.terminal_cost(z, torch.zeros_like(z))
    torch.testing.assert_close(counted, charged)
    assert float(charged.min()) > 0


def test_agreement_of_an_objective_with_the_reward() -> None:
    error = Objective((Quadratic(name="e", on="e", weights=(1.0, 0.0, 0.0, 0.0, 0.0)),))
    assert agreement(make_simulator(odd_lab.Tank, 4, max_episode_steps=5, reading=READING, objective=error)) == (
        pytest.approx(1.0)
    )
    against = Objective((Linear(name="reward", on="z", weights=(0.0, 0.0, 0.0, 0.0, 1.0)),))
    found = agreement(make_simulator(odd_lab.Tank, 4, max_episode_steps=5, reading=READING, objective=against))
    assert found == pytest.approx(-1.0) and "against the reward" in in_words(found)
    assert agreement(make_simulator(odd_lab.Base, 2, max_episode_steps=5)) is None


# ------------------------------------------------------------------ planners on learned models


@pytest.mark.parametrize("name", ["mppi", "cem"])
def test_planners_on_learned_models_earn_rewards_unconfigured(name: str) -> None:
    """Pushing to the right ends the episode with 10; a model that is blind to that step would never push."""
    simulator = make_simulator(odd_lab.Goal, 8, max_episode_steps=6)
    data = collect(simulator, HeldLevels(), episodes=16, seed=0)
    assert data.z.shape[-1] == data.y.shape[-1] + 1
    model = make_model("linear", None, context=2).bind(simulator.problem).fit(data)
    law = make_controller(name, horizon=2, samples=16).bind(simulator.problem, model)
    law.reset(8)
    episode = run_episodes(simulator, simulator.scenarios(noise.keys(5, 8)), lambda m: law.act(m).u)
    assert float(episode.cost.max()) <= -8.0, "never pushing costs 6"


def test_before_a_reset_there_is_nothing_to_see() -> None:
    simulator = make_simulator(odd_lab.factory, 1)
    for ask in (simulator.measure, simulator.perform, lambda: push(simulator, 0.0)):
        with pytest.raises(RuntimeError, match="call reset"):
            ask()
    assert isinstance(simulator, GymSimulator)
    with pytest.raises(ValueError, match="draws no picture"):
        simulator.render()
