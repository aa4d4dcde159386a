"""Any Mesa model as a simulator: clock, seeds, memory, snapshots, workers, environments, errors."""

import gc
import random
import weakref
from dataclasses import replace
from pathlib import Path

import gymnasium
import mesa
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch import Tensor

from steersman.controllers.base import Training
from steersman.controllers.reinforcement.ppo import PPO
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.estimation.base import Windows
from steersman.dynamics.linear.models import LinearDynamics
from steersman.envs import make_simulator, noise
from steersman.envs.abm import mesa_examples
from steersman.envs.abm.mesa_simulator import MesaSimulator
from steersman.envs.abm.mesa_task import MesaTask
from steersman.envs.actions import ActionSet
from steersman.envs.gymnasium_adapters.env import PlantEnv
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.plant import Status

EXAMPLES = ("wolf_sheep", "virus", "civil_violence", "sugarscape")


class Walker(mesa.Agent):
    def step(self) -> None:
        self.model.total += self.model.push + self.random.gauss(0, 0.1) + random.gauss(0, 0.1) + np.random.normal() / 10


class Walk(mesa.Model):
    """Agents push a number about, with noise of the model's and of both global generators."""

    def __init__(self, seed: int, agents: int = 3) -> None:
        super().__init__(seed=seed)
        self.total, self.push = 0.0, 0.0
        Walker.create_agents(self, agents)

    def step(self) -> None:
        self.agents.shuffle_do("step")
        if self.total > 1e6:
            self.total = float("nan")


def push(model: Walk, u: np.ndarray) -> None:  # type: ignore[type-arg]
    model.push = float(u[0])


def total(model: Walk) -> tuple[float]:
    return (model.total,)


def far(model: Walk) -> bool:
    return abs(model.total) > 50


WALK = MesaTask(
    model=Walk,
    control=push,
    measure=total,
    actions=ActionSet((-5.0,), (1e9,)),
    objective=Objective((Quadratic(name="total", on="e", weights=(1.0,)),), failure=100.0),
    measured=("total",),
    target=(2.0,),
    horizon=10,
    hold=2,
    failed=far,
)


def run(simulator: MesaSimulator, steps: int = 6, push: float = 0.5) -> Tensor:
    simulator.reset(simulator.scenarios(noise.keys(3, simulator.n)))
    taken = []
    for _ in range(steps):
        simulator.step(torch.full((simulator.n, simulator.actions.m), push, dtype=torch.float64))
        taken.append(simulator.perform().clone())
    return torch.stack(taken)


@pytest.mark.parametrize("name", EXAMPLES)
def test_models_that_ship_with_mesa_react_and_are_reproducible(name: str) -> None:
    task = getattr(mesa_examples, name)
    simulator = MesaSimulator(task, 2)
    calm, busy = run(simulator, 5, 0.0), run(simulator, 5, 1.0)
    assert torch.equal(calm, run(MesaSimulator(task, 2), 5, 0.0))
    assert not torch.equal(calm, busy)
    assert not torch.equal(calm[:, 0], calm[:, 1]), "scenarios must differ"
    simulator.close()


def test_the_schedulers_clock_runs() -> None:
    """With ``model.step`` alone the grass of Mesa's wolf-sheep model would never grow again."""
    simulator = MesaSimulator(mesa_examples.wolf_sheep, 1)
    run(simulator, 20, 0.0)
    (model,) = simulator.models
    assert model.simulator.time == 40 and model.steps == 40
    assert float(simulator.perform()[0, 2]) > 100, "grass has grown after the first was eaten"


def test_snapshots_go_on_as_the_model_would() -> None:
    simulator = MesaSimulator(mesa_examples.wolf_sheep, 2)
    run(simulator, 3, 0.02)
    kept = simulator.snapshot()
    u = torch.full((2, 2), 0.05, dtype=torch.float64)
    first = torch.stack([simulator.step(u).cost for _ in range(4)])
    for _ in range(2):
        simulator.restore(kept)
        assert torch.equal(first, torch.stack([simulator.step(u).cost for _ in range(4)]))
    simulator.close()


def test_no_model_survives_its_reset() -> None:
    simulator = MesaSimulator(replace(mesa_examples.wolf_sheep, model=small_herd), 1)
    seen: list[weakref.ref[mesa.Model]] = []
    for i in range(25):
        simulator.reset(simulator.scenarios(noise.keys(i, 1)))
        seen.append(weakref.ref(simulator.models[0]))
    simulator.close()
    gc.collect()
    assert sum(ref() is not None for ref in seen) == 0


def small_herd(seed: int) -> mesa.Model:
    from mesa.examples.advanced.wolf_sheep.model import WolfSheep
    from mesa.experimental.devs import ABMSimulator

    return WolfSheep(width=6, height=6, initial_sheep=10, initial_wolves=3, seed=seed, simulator=ABMSimulator())


def test_workers_compute_the_same() -> None:
    near = MesaSimulator(mesa_examples.civil_violence, 3)
    spread = MesaSimulator(mesa_examples.civil_violence, 3, workers=2)
    try:
        assert torch.equal(run(near, 3, 1.0), run(spread, 3, 1.0))
        kept = spread.snapshot()
        u = torch.zeros(3, 1, dtype=torch.float64)
        first = spread.step(u).cost
        spread.restore(kept)
        assert torch.equal(first, spread.step(u).cost)
        with pytest.raises(RuntimeError, match="workers=0"):
            _ = spread.models
    finally:
        spread.close()


def test_costs_failures_and_divergence() -> None:
    simulator = MesaSimulator(WALK, 3)
    simulator.reset(simulator.scenarios(noise.keys(0, 3)))
    t = simulator.step(torch.tensor([[0.0], [20.0], [torch.nan]], dtype=torch.float64))
    assert t.status.tolist() == [Status.OK, Status.TERMINATED, Status.DIVERGED]
    assert t.ended.tolist() == [False, True, True]
    assert float(t.cost[0]) == pytest.approx(4.0)
    assert float(t.cost[1]) == pytest.approx(4.0 + 100 * 10)
    after = simulator.step(torch.zeros(3, 1, dtype=torch.float64))
    assert float(after.cost[1]) == 0 == float(after.cost[2])
    simulator.reset(simulator.scenarios(noise.keys(0, 3)), torch.tensor([False, True, False]))
    assert float(simulator.perform()[1]) == 0 and float(simulator.perform()[0]) != 0
    simulator.reset(simulator.scenarios(noise.keys(0, 3)))
    blown = simulator.step(torch.full((3, 1), 1e9, dtype=torch.float64))
    assert blown.status.tolist() == [Status.DIVERGED] * 3 and bool(torch.isfinite(simulator.perform()).all())


def test_a_whole_episode_is_cut_at_the_horizon() -> None:
    simulator = MesaSimulator(WALK, 1)
    simulator.reset(simulator.scenarios(noise.keys(0, 1)))
    for k in range(10):
        t = simulator.step(torch.zeros(1, 1, dtype=torch.float64))
        assert bool(t.ended) == bool(t.truncated) == (k == 9)


@pytest.mark.filterwarnings("ignore:.*Box observation space:UserWarning")
def test_gymnasium_and_reinforcement_learning() -> None:
    check_env(PlantEnv(MesaSimulator(replace(WALK, actions=ActionSet((-1.0,), (1.0,))), 1)), skip_render_check=True)
    gymnasium.register(
        "TestWalk-v0", "steersman.envs.registry:make_env", kwargs={"plant": f"{mesa_examples.__name__}:virus"}
    )
    env = gymnasium.make("TestWalk-v0")
    observation, _ = env.reset(seed=0)
    assert observation.shape == (3,)
    env.close()
    task = replace(WALK, actions=ActionSet((-1.0,), (1.0,)))
    price = (
        PPO(plant_steps=64, envs=4, rollout=16).bind(task.problem).train(Training(lambda n: MesaSimulator(task, n), 0))
    )
    assert price.curve[0][0] == 64


def test_a_model_is_fitted_to_mesa_data() -> None:
    task = replace(WALK, actions=ActionSet((-1.0,), (1.0,)))
    simulator = MesaSimulator(task, 4)
    model = LinearDynamics(context=1).bind(simulator.problem).fit(collect(simulator, HeldLevels(), episodes=8, seed=0))
    simulator.reset(simulator.scenarios(noise.keys(0, 4)))
    h = model.init(Windows(1).push(simulator.measure()))
    ends = [model.output(model.step(h, torch.full((4, 1), u, dtype=torch.float64)))[1] for u in (0.0, 1.0)]
    assert float((ends[1] - ends[0])[0]) == pytest.approx(6.0, rel=0.2), "three agents push twice"


def test_a_task_beside_you_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_twin.py").write_text(
        "from steersman.envs.abm.mesa_examples import civil_violence as twin\nother = 1\n"
    )
    monkeypatch.chdir(tmp_path)
    assert make_simulator("my_twin:twin", 1).problem.measured == ("active", "arrested", "quiet")
    with pytest.raises(ValueError, match="run steersman in the folder"):
        make_simulator("no_such_twin:twin", 1)
    with pytest.raises(ValueError, match="unknown environment"):
        make_simulator("my_twin:other", 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hold": 0}, "hold must be at least 1"),
        ({"perform": total}, "belong together"),
        ({"target": (1.0, 2.0)}, "target has 2"),
    ],
)
def test_bad_tasks(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(WALK, **changes)  # type: ignore[arg-type]


def test_bad_models_are_named() -> None:
    simulator = MesaSimulator(replace(WALK, measured=("a", "b"), target=()), 1)
    with pytest.raises(ValueError, match=r"measure must return 2 numbers \(a, b\)"):
        simulator.reset(simulator.scenarios(noise.keys(0, 1)))
    simulator = MesaSimulator(replace(WALK, model=lambda seed: object()), 1)
    with pytest.raises(TypeError, match=r"must return a mesa.Model, got object"):
        simulator.reset(simulator.scenarios(noise.keys(0, 1)))
    with pytest.raises(RuntimeError, match="call reset"):
        MesaSimulator(WALK, 1).step(torch.zeros(1, 1, dtype=torch.float64))
    with pytest.raises(ValueError, match="n >= 1"):
        MesaSimulator(WALK, 0)
