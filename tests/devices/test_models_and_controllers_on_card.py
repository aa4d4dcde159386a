"""Every model and controller where no GPU is: moved with one call, and the same there as on the CPU."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from dynamics_test_plants import Oscillator
from pretended_card import Card, OnCard
from torch import Tensor

from steersman.controllers.base import Controller, Training
from steersman.controllers.registry import CONTROLLERS, ControllerSpec, make_controller
from steersman.dynamics.base import Dynamics, Trajectories
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.continuous.neural_ode import NeuralODESettings
from steersman.dynamics.estimation.base import Windows
from steersman.dynamics.kinetic.reactions import Process, ReactionSettings
from steersman.dynamics.registry import MODELS, ModelSpec, make_model
from steersman.dynamics.windowed.neural import NeuralSettings
from steersman.dynamics.windowed.sparse import SparseSettings
from steersman.envs import make_plant, make_simulator, noise
from steersman.envs.simulator import PlantSimulator, Simulator

TINY: dict[str, Any] = {"context": 2, "hidden": (4,), "rollout": 2, "batch": 8}
_PROCESSES = (Process(("q",), {"v": -1.0}), Process(("v",), {"q": 1.0}), Process(("u0",), {"v": 1.0}))
MODEL: dict[str, dict[str, Any]] = {
    "linear": {"context": 2, "choose": False},
    "neural": {"settings": NeuralSettings(members=2, steps=2, **TINY)},
    "neural-ode": {"settings": NeuralODESettings(steps=2, **TINY)},
    "sparse": {
        "settings": SparseSettings(relus=2, dense_steps=2, rounds=1, round_steps=2, tune_steps=2, **TINY)
    },
    "reactions": {"settings": ReactionSettings(processes=_PROCESSES, steps=2, rollout=2, batch=8)},
}  # fmt: skip


class Brief(Oscillator):
    """Episodes of four control steps."""

    def __init__(self) -> None:
        super().__init__()
        self.horizon = 4


def simulate(n: int, device: str) -> Simulator:
    return PlantSimulator(Brief(), n, device=device, price=1.0)


def data(device: str) -> Trajectories:
    return collect(simulate(6, device), HeldLevels(), episodes=6, seed=1)


def predicted(model: Dynamics, device: str) -> list[Tensor]:
    """Outputs, and their slopes in the actions."""
    sim, windows = simulate(3, device), Windows(model.context)
    sim.reset(sim.scenarios(noise.keys(0, 3, device=device)))
    for _ in range(model.context):
        window = windows.push(sim.measure())
        sim.step(sim.actions.neutral(3, sim.perform()))
    U = torch.zeros(3, 2, 1, dtype=sim.dtype, device=device, requires_grad=True)
    h = model.init(window)
    found, after = model.predict(h, U), model.step(h, U[:, 0])
    (slope,) = torch.autograd.grad(found.z.sum() + model.output(after)[1].sum(), U)
    return [found.y.detach(), found.z.detach(), slope]


def close(there: list[Tensor], here: list[Tensor], tolerance: float = 1e-9) -> None:
    for a, b in zip(there, here, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def fetched(tensors: list[Tensor]) -> list[Tensor]:
    assert all(isinstance(t, OnCard) for t in tensors)
    return [t.cpu() for t in tensors]


@pytest.mark.parametrize("spec", MODELS, ids=lambda s: s.name)
def test_model(spec: ModelSpec) -> None:
    """Fitted here and moved, and fitted there."""

    def fitted(device: str) -> Dynamics:
        model = make_model(spec.name, Brief(), **MODEL.get(spec.name, {})).bind(simulate(1, device).problem)
        return model.fit(data(device))

    model = fitted("cpu")
    here = predicted(model, "cpu")
    with Card():
        moved = fetched(predicted(model.to("cuda"), "cuda"))
        there = fetched(predicted(fitted("cuda"), "cuda"))
    close(moved, here)
    close(there, here)


DISCRETE, BOUNDARY, REDISPATCH = (
    f"steersman/{name}" for name in ("CartPole-v1", "TransportBoundary-v1", "PreventiveRedispatch-v1")
)
CONTROLLER: dict[str, dict[str, Any]] = {
    "constant": {"candidates": 2, "scenarios": 1},
    "lqr": {"effort": 10.0},
    "lqg": {"effort": 10.0},
    "pid": {"error": ((0.0, 1.0, 0.0),), "ki": 0.1, "kd": 0.1},
    "mppi": {"samples": 8, "horizon": 2},
    "cem": {"samples": 8, "horizon": 2, "elites": 2},
    "adjoint": {"horizon": 2, "iterations": 2},
    "enumeration": {"length": 2},
    "mip-mpc": {"samples": 8, "horizon": 2},
    "neural": {"hidden": (4,)},
    "imitation": {"options": {"samples": 8, "horizon": 2}, "hidden": (4,)},
    "policy-search": {"hidden": (3,), "policy": "gru"},
    "ppo": {"hidden": (8,)},
    "sac": {"hidden": (8,)},
    "dqn": {"hidden": (8,)},
    "pinn-screening": {"by": "integrator", "errors": 2},
}
ELSEWHERE = {"enumeration": DISCRETE, "dqn": DISCRETE, "backstepping": BOUNDARY, "pinn-screening": REDISPATCH}
"""Plants of the controllers that do not serve an oscillator."""


def place(spec: ControllerSpec, n: int, device: str) -> Simulator:
    id = ELSEWHERE.get(spec.name)
    return PlantSimulator(Oscillator(), n, device=device, price=1.0) if id is None else make_simulator(
        id, n, device, price=1.0
    )  # fmt: skip


def acted(controller: Controller, sim: Simulator) -> list[Tensor]:
    """Three decisions; a row is restarted on the way, another one is not seen."""
    sim.reset(sim.scenarios(noise.keys(5, sim.n)))
    controller.reset(sim.n, gen=torch.Generator().manual_seed(1))
    taken = []
    for k in range(3):
        m = sim.measure(controller.preview)
        decision = controller.act(m)
        taken += [decision.u, decision.outcome]
        sim.step(decision.u)
        if k == 1:
            controller.reset(sim.n, torch.arange(sim.n, device=sim.device) == 0)
    assert not [note for note in controller.notes if "failed to decide" in note], controller.notes
    return taken


@pytest.mark.parametrize("spec", CONTROLLERS, ids=lambda s: s.name)
def test_controller(spec: ControllerSpec) -> None:
    id = ELSEWHERE.get(spec.name)
    model = None
    if spec.needs_model and id is None:
        model = make_model("linear", None, **MODEL["linear"]).bind(simulate(1, "cpu").problem).fit(data("cpu"))
    elif spec.needs_model:
        model = make_model("truth", make_plant(str(id)))
    problem = place(spec, 1, "cpu").problem
    controller = make_controller(spec.name, **CONTROLLER.get(spec.name, {})).bind(problem, model)
    if spec.name == "constant":  # which knows no action before
        controller.train(Training(lambda n: place(spec, n, "cpu"), seed=0))
    here = acted(copy.deepcopy(controller), place(spec, 2, "cpu"))
    with Card():
        assert controller.to("cuda") is controller
        there = fetched(acted(controller, place(spec, 2, "cuda")))
        back = acted(controller.to("cpu"), place(spec, 2, "cpu"))
    close(there, here, 1e-6)
    close(back, here, 1e-6)


LEARNERS: dict[str, dict[str, Any]] = {
    "constant": {"candidates": 3, "scenarios": 2},
    "pid": {"error": ((0.0, 1.0, 0.0),), "ki": 0.1, "tune": 3, "scenarios": 2},
    "neural": {"hidden": (4,), "steps": 2, "batch": 2, "horizon": 2, "explore": 2, "renewals": 1},
    "imitation": {
        "options": {"samples": 4, "horizon": 2}, "hidden": (4,), "rounds": 2, "episodes": 2, "steps": 2,
    },
    "policy-search": {
        "hidden": (3,), "plant_steps": 200, "scenarios": 1, "explore": 2, "search": "frame_step",
        "options": {"directions": 2},
    },
    "ppo": {"plant_steps": 16, "envs": 4, "hidden": (4,), "rollout": 4, "batch": 8, "epochs": 1},
    "sac": {"plant_steps": 16, "envs": 4, "hidden": (4,), "warmup": 4, "batch": 4, "updates": 1},
}  # fmt: skip


LONG = ("imitation", "neural", "sac")
"""Their training takes long; those of the others show the same."""
REPLACED = (
    "stable-baselines3 makes PPO's optimiser before it moves the policy: a real card fills the parameters that the "
    "optimiser holds, and the pretended one replaces them"
)


def _marks(name: str) -> list[pytest.MarkDecorator]:
    slow = [pytest.mark.slow] if name in LONG else []
    return [*slow, pytest.mark.skip(reason=REPLACED)] if name == "ppo" else slow


@pytest.mark.filterwarnings("ignore:You are trying to run EvenPPO on the GPU")
@pytest.mark.parametrize("name", [pytest.param(name, marks=_marks(name)) for name in LEARNERS])
def test_training(name: str) -> None:
    """On the card, from the same random numbers, to the same law; stable-baselines3 draws some of SAC's elsewhere."""

    def trained(device: str) -> list[Tensor]:
        model = make_model("linear", None, **MODEL["linear"]).bind(simulate(1, "cpu").problem).fit(data("cpu"))
        controller = make_controller(name, **LEARNERS[name]).bind(simulate(1, device).problem, model).to(device)
        controller.train(Training(partial(simulate, device=device), seed=0, device=device))
        return list(controller.to(device).state_dict().values())

    here = trained("cpu")
    assert here
    with Card():
        there = fetched(trained("cuda"))
    close(there, here, 1e-6 if name != "sac" else 0.1)
