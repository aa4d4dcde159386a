"""Every enrolled model, on a small plant."""

import pytest
from dynamics_test_plants import Oscillator
from torch import Tensor

from steersman.dynamics.base import Dynamics, Trajectories
from steersman.dynamics.checks import DynamicsCheckError, check_dynamics
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.registry import MODELS, ModelSpec, make_model, model_spec
from steersman.envs.simulator import PlantSimulator


@pytest.fixture(scope="module")
def data() -> Trajectories:
    return collect(PlantSimulator(Oscillator(), 6), HeldLevels(), episodes=12, seed=1)


def build(spec: ModelSpec) -> Dynamics:
    plant = Oscillator()
    if spec.name == "neural":
        from steersman.dynamics.windowed.neural import NeuralSettings

        return make_model(spec.name, plant, settings=NeuralSettings(hidden=(8,), members=2, steps=20))
    if spec.name == "neural-ode":
        from steersman.dynamics.continuous.neural_ode import NeuralODESettings

        return make_model(spec.name, plant, settings=NeuralODESettings(hidden=(8,), steps=20))
    if spec.name == "sparse":
        from steersman.dynamics.windowed.sparse import SparseSettings

        short = SparseSettings(relus=4, hidden=(8,), dense_steps=20, rounds=2, round_steps=10, tune_steps=20)
        return make_model(spec.name, plant, settings=short)
    if spec.name == "reactions":
        from steersman.dynamics.kinetic.reactions import Process, ReactionSettings

        processes = (Process(("q",), {"v": -1.0}), Process(("v",), {"q": 1.0}), Process(("u0",), {"v": 1.0}))
        return make_model(spec.name, plant, settings=ReactionSettings(processes=processes, steps=5))
    return make_model(spec.name, plant)


@pytest.mark.parametrize("spec", MODELS, ids=lambda s: s.name)
def test_check_dynamics(spec: ModelSpec, data: Trajectories) -> None:
    check_dynamics(lambda: build(spec), data, PlantSimulator(Oscillator(), 4))


@pytest.mark.parametrize("spec", [s for s in MODELS if s.needs_plant], ids=lambda s: s.name)
def test_models_of_a_plant_say_so(spec: ModelSpec) -> None:
    with pytest.raises(ValueError, match="needs a plant"):
        make_model(spec.name, None)
    assert build(spec).needs_state


def test_unknown_model_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="known: truth, "):
        model_spec("oracle")


def test_check_dynamics_finds_a_leak_between_rows(data: Trajectories) -> None:
    class Leaky(LinearDynamics):
        def step(self, h, u: Tensor):  # type: ignore[no-untyped-def, override]
            after = super().step(h, u)
            return {**after, "s": after["s"] + 1e-3 * after["s"].mean()}

    with pytest.raises(DynamicsCheckError, match="rest of its batch"):
        check_dynamics(Leaky, data, PlantSimulator(Oscillator(), 4))
