"""Trainings of policies that are killed: by gradient they go on to the same bits, by reinforcement they say so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamics_test_plants import Oscillator

from steersman.controllers.base import Controller, Training
from steersman.controllers.neural.controller import NeuralPolicy
from steersman.controllers.policy_search import PolicySearch
from steersman.controllers.reinforcement.base import Reinforcement
from steersman.controllers.reinforcement.dqn import DQN
from steersman.controllers.reinforcement.ppo import PPO
from steersman.controllers.reinforcement.sac import SAC
from steersman.dynamics.base import Dynamics
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.truth.plant_model import PlantModel
from steersman.dynamics.windowed.neural import NeuralDynamics, NeuralSettings
from steersman.envs.simulator import PlantSimulator
from steersman.optimizers import resumable
from steersman.optimizers.checkpoint import CheckpointWarning, digest


class KilledError(Exception):
    pass


def plant() -> Oscillator:
    short = Oscillator()
    short.horizon = 18
    return short


def simulate(n: int) -> PlantSimulator:
    return PlantSimulator(plant(), n)


def linear() -> Dynamics:
    model = LinearDynamics(2).bind(plant().problem)
    return model.fit(DATA)


DATA = collect(simulate(4), HeldLevels(), episodes=4, seed=3)


def network() -> Dynamics:
    settings = NeuralSettings(context=1, hidden=(4,), members=2, rollout=2, steps=12, batch=8, patience=1)
    return NeuralDynamics(settings).bind(plant().problem).fit(DATA)


def training(seed: int, folder: Path | None = None, **more: Any) -> Training:
    return Training(simulate, seed, folder, data=DATA, **more)


POLICIES: dict[str, tuple[Callable[[], NeuralPolicy], Callable[[], Dynamics]]] = {
    "learned model": (lambda: NeuralPolicy(hidden=(4,), steps=24, batch=4, horizon=4, explore=2, refit=0), linear),
    "fitted again": (
        lambda: NeuralPolicy(hidden=(4,), steps=10, batch=4, horizon=4, explore=2, refit=2, tune=8),
        network,
    ),
    "the plant, with memory": (
        lambda: NeuralPolicy("gru", hidden=(3,), steps=20, batch=3, horizon=4, explore=2),
        lambda: PlantModel(plant()),
    ),
    "along the plant": (
        lambda: NeuralPolicy(hidden=(4,), steps=24, batch=3, horizon=6, explore=2, rollouts="plant"),
        linear,
    ),
}


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Says after how many more steps of Adam the process dies; states are saved whenever that is possible."""
    monkeypatch.setattr(resumable, "SAVE_EVERY_S", 0.0)
    left, step = [10**9], torch.optim.Adam.step

    def mortal_step(self: torch.optim.Adam, *args: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise KilledError
        return step(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.optim.Adam, "step", mortal_step)
    return lambda steps: left.__setitem__(0, steps)


def numbers(controller: Controller) -> str:
    return digest(controller.state_dict())


@pytest.mark.parametrize("name", POLICIES)
def test_a_killed_training_goes_on_to_the_same_bits(name: str, mortal: Callable[[int], None], tmp_path: Path) -> None:
    make, fit = POLICIES[name]
    model = fit()
    whole = make().bind(plant().problem, model)
    price = whole.train(training(5))
    assert numbers(whole) != numbers(make().bind(plant().problem, model))
    deaths = 0
    for lifetime in (3, 10, 8, 9, 10**9):  # the starting points are renewed in the middle
        mortal(lifetime)
        controller = make().bind(plant().problem, model)
        try:
            again = controller.train(training(5, tmp_path))
        except KilledError:
            deaths += 1
    assert deaths >= 2 and numbers(controller) == numbers(whole)
    assert again.plant_steps == price.plant_steps and again.curve == price.curve and not controller.resumed


def test_a_training_killed_while_it_reports_goes_on(mortal: Callable[[int], None], tmp_path: Path) -> None:
    make, model = POLICIES["learned model"]
    whole = make().bind(plant().problem, model())
    whole.train(training(5))

    def kill(fraction: float, text: str) -> None:
        if fraction > 0.7:
            raise KilledError

    with pytest.raises(KilledError):
        make().bind(plant().problem, model()).train(training(5, tmp_path, progress=kill))
    controller = make().bind(plant().problem, model())
    controller.train(training(5, tmp_path))
    assert numbers(controller) == numbers(whole)
    # Damage, and another seed in the same folder, are reported; both begin again.
    file = tmp_path / "train.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.warns(CheckpointWarning, match=r"train.safetensors is damaged.*beginning again"):
        controller.train(training(5, tmp_path))
    assert numbers(controller) == numbers(whole)
    with pytest.warns(CheckpointWarning, match="other data, settings or weights"):
        controller.train(training(6, tmp_path))


REINFORCED: dict[str, Callable[..., Reinforcement]] = {
    "ppo": lambda **more: PPO(**{"plant_steps": 512, "envs": 8, "hidden": (4,), "rollout": 16, **more}),
    "sac": lambda **more: SAC(**{"plant_steps": 320, "envs": 8, "hidden": (4,), "warmup": 64, "updates": 1, **more}),
}


@pytest.mark.parametrize("name", REINFORCED)
def test_reinforcement_learning_says_when_it_was_resumed(name: str, tmp_path: Path) -> None:
    def kill(fraction: float, text: str) -> None:
        if fraction > 0.6:
            raise KilledError

    def make(**more: object) -> Reinforcement:
        return REINFORCED[name](**more).bind(plant().problem)

    assert not make().resumed and not NeuralPolicy.resumed and not DQN.resumed
    with pytest.raises(KilledError):
        make().train(Training(simulate, 0, tmp_path, kill))
    controller = make()
    cost = controller.train(Training(simulate, 0, tmp_path))
    assert controller.resumed and cost.plant_steps >= controller.plant_steps
    controller.train(Training(simulate, 0))
    assert not controller.resumed, "each training speaks for itself"
    with pytest.warns(CheckpointWarning, match="another seed, other settings or another problem"):
        wider = make(hidden=(5,))
        wider.train(Training(simulate, 0, tmp_path))
    assert not wider.resumed
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.warns(CheckpointWarning, match="damaged"):
        controller.train(Training(simulate, 0, tmp_path))
    assert not controller.resumed


def test_policy_search_begins_again_when_its_files_are_damaged(tmp_path: Path) -> None:
    def trained(folder: Path | None) -> PolicySearch:
        controller = PolicySearch(hidden=(2,), plant_steps=3_000, scenarios=1, explore=2)
        controller.bind(plant().problem).train(Training(simulate, 0, folder))
        return controller

    whole = numbers(trained(tmp_path))
    assert whole == numbers(trained(None))
    ledger = tmp_path / "plant-steps.jsonl"
    ledger.write_text(ledger.read_text()[:-4])  # killed while it wrote
    search = tmp_path / "search.safetensors"
    search.write_bytes(search.read_bytes()[:-40])
    with pytest.warns(CheckpointWarning, match=r"search.safetensors is of no use"):
        assert numbers(trained(tmp_path)) == whole
    assert numbers(trained(tmp_path)) == whole
