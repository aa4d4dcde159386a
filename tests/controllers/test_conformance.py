"""Every enrolled controller, on a small plant."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steersman.controllers.base import Controller, Decision, Outcome, Training
from steersman.controllers.checks import ControllerCheckError, check_controller, check_fuzzed, check_time_limit
from steersman.controllers.classical.lqr import LQR
from steersman.controllers.registry import CONTROLLERS, ControllerSpec, controller_spec, make_controller
from steersman.dynamics.base import Dynamics
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.registry import make_model
from steersman.envs import make_plant, make_simulator, noise
from steersman.envs.simulator import Measurement

PLANT = "steersman/Pendulum-v1"
DISCRETE = "steersman/TwoAreaBrake-v1"
BOUNDARY = "steersman/TransportBoundary-v1"
REDISPATCH = "steersman/PreventiveRedispatch-v1"
SETTINGS: dict[str, dict[str, object]] = {
    "constant": {"candidates": 3, "scenarios": 2},
    "lqr": {"effort": 10.0},  # actions inside their bounds show what a law remembers
    "lqg": {"effort": 10.0},
    "pid": {"error": ((0.0, 1.0, 0.0),), "ki": 0.1, "kd": 0.1, "tune": 3, "scenarios": 2},
    "mppi": {"samples": 8, "horizon": 4},
    "mip-mpc": {"samples": 8, "horizon": 3},
    "neural": {"hidden": (4,), "steps": 2, "batch": 4, "horizon": 3, "explore": 2},
    "imitation": {
        "options": {"samples": 8, "horizon": 4},
        "hidden": (4,),
        "rounds": 2,
        "episodes": 2,
        "steps": 3,
    },
    "policy-search": {"hidden": (3,), "plant_steps": 20_000, "scenarios": 1, "explore": 2, "options": {"size": 6}},
    "ppo": {"plant_steps": 64, "envs": 4, "hidden": (8,), "rollout": 16},
    "sac": {"plant_steps": 64, "envs": 4, "hidden": (8,), "warmup": 16},
    "dqn": {"plant_steps": 64, "envs": 4, "hidden": (8,), "warmup": 16},
    "pinn-screening": {"errors": 4, "disturbances": 9, "adam": 2, "lbfgs": 2, "polish": 0, "rank": 4, "width": 8},
    "adjoint": {"horizon": 4, "iterations": 5},
    "enumeration": {"length": 2},
    "cem": {"samples": 8, "horizon": 4, "elites": 2},
}


@pytest.fixture(scope="module")
def models() -> list[Dynamics]:
    plant, sim = make_plant(PLANT), make_simulator(PLANT, 4)
    data = collect(sim, HeldLevels(), episodes=4, seed=0, steps=40)
    return [
        make_model("linear", None, context=2).bind(sim.problem).fit(data),
        make_model("linearized", plant, at="zero"),
        make_model("truth", plant),
    ]


def plant_of(spec: ControllerSpec) -> str:
    own = {"dqn": DISCRETE, "enumeration": DISCRETE, "backstepping": BOUNDARY, "pinn-screening": REDISPATCH}
    return own.get(spec.name, PLANT)


def models_of(spec: ControllerSpec, models: list[Dynamics]) -> list[Dynamics]:
    if spec.name == "backstepping":
        return [make_model("truth", make_plant(BOUNDARY))]
    if spec.name == "enumeration":
        return [make_model("truth", make_plant(DISCRETE))]
    return models[:2] if spec.name in ("lqr", "lqg", "mip-mpc") else models


def bound(spec: ControllerSpec, model: Dynamics | None) -> Controller:
    problem = make_simulator(plant_of(spec), 1).problem
    return make_controller(spec.name, **SETTINGS.get(spec.name, {})).bind(problem, model)


TRAINED_ELSEWHERE = ("pinn-screening", "policy-search", "imitation")
"""Their training takes long, and they act as "neural" does: what follows is a slow test for them."""
LONG = ("mip-mpc",)
"""Likewise where every spoiled observation is a program."""


def each(*late: str) -> pytest.MarkDecorator:
    """All controllers, some of them in the slow tests."""
    marked = [pytest.param(s, marks=pytest.mark.slow) if s.name in late else s for s in CONTROLLERS]
    return pytest.mark.parametrize("spec", marked, ids=[s.name for s in CONTROLLERS])


@pytest.mark.parametrize("spec", CONTROLLERS, ids=lambda s: s.name)
def test_check_controller(spec: ControllerSpec, models: list[Dynamics]) -> None:
    assert spec.make.name == spec.name
    model = models_of(spec, models)[-1] if spec.needs_model else None
    check_controller(lambda: bound(spec, model), partial(make_simulator, plant_of(spec)))


@pytest.mark.slow
@pytest.mark.parametrize("spec", [s for s in CONTROLLERS if s.needs_model], ids=lambda s: s.name)
def test_check_controller_with_other_models(spec: ControllerSpec, models: list[Dynamics]) -> None:
    for model in models_of(spec, models)[:-1]:
        check_controller(lambda model=model: bound(spec, model), partial(make_simulator, plant_of(spec)))


@each(*TRAINED_ELSEWHERE, *LONG)
def test_a_thousand_spoiled_observations(spec: ControllerSpec, models: list[Dynamics]) -> None:
    controller = bound(spec, models_of(spec, models)[0] if spec.needs_model else None)
    controller.train(Training(partial(make_simulator, plant_of(spec)), seed=0))
    check_fuzzed(controller, make_simulator(plant_of(spec), 50), 20)


@each(*TRAINED_ELSEWHERE)
def test_a_row_acts_in_any_batch_as_it_would_alone(spec: ControllerSpec, models: list[Dynamics]) -> None:
    """Neighbours may be spoiled."""
    controller = bound(spec, models_of(spec, models)[0] if spec.needs_model else None)
    controller.train(Training(partial(make_simulator, plant_of(spec)), seed=0))
    alone = make_simulator(plant_of(spec), 1)

    def run(key: Tensor, spoiled: bool) -> Tensor:
        simulator = alone if len(key) == 1 else make_simulator(plant_of(spec), len(key))
        simulator.reset(simulator.scenarios(key))
        controller.reset(len(key), gen=torch.Generator().manual_seed(1))
        taken = []
        for k in range(3):
            m = simulator.measure(controller.preview)
            if spoiled and k == 1:
                m = replace(m, y=torch.where(torch.arange(len(key))[:, None] == 0, m.y, torch.nan))
            taken.append(controller.act(m).u)
            simulator.step(taken[-1])
        return torch.stack(taken, dim=1)[0]

    @given(n=st.integers(2, 6), row=st.integers(0, 50), spoiled=st.booleans())
    @settings(max_examples=3, deadline=None, derandomize=True)
    def check(n: int, row: int, spoiled: bool) -> None:
        key = noise.keys(5, 60)[row : row + n]
        torch.testing.assert_close(run(key, spoiled), run(key[:1], False), rtol=1e-6, atol=1e-6)

    check()


@each(*TRAINED_ELSEWHERE)
def test_time_limit(spec: ControllerSpec, models: list[Dynamics]) -> None:
    heavy = {"samples": 4096, "horizon": 10, "iterations": 50} if spec.name in ("mppi", "cem") else {}
    heavy = {"horizon": 12} if spec.name == "mip-mpc" else heavy
    problem = make_simulator(plant_of(spec), 1).problem
    controller = make_controller(spec.name, **{**SETTINGS.get(spec.name, {}), **heavy})
    controller.bind(problem, models_of(spec, models)[0] if spec.needs_model else None)
    controller.train(Training(partial(make_simulator, plant_of(spec)), seed=0))
    check_time_limit(controller, make_simulator(plant_of(spec), 4), 0.1)


@pytest.mark.parametrize("spec", [s for s in CONTROLLERS if s.needs_model], ids=lambda s: s.name)
def test_a_missing_model_is_named(spec: ControllerSpec) -> None:
    with pytest.raises(ValueError, match="model"):
        bound(spec, None)


def test_unknown_controller_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="known: zero, constant"):
        controller_spec("oracle")


class Forgetful(Controller):
    """Remembers the number of calls across resets."""

    name = "forgetful"
    calls = 0

    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        self.calls += 1
        return self.optimal(torch.full((m.n, 1), 1.0 / self.calls, dtype=torch.float64))


class Wild(Controller):
    """Returns numbers that are neither finite nor inside the bounds."""

    name = "wild"

    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        u = torch.full((m.n, 1), 1e9, dtype=torch.float64)
        u[0] = torch.nan
        return self.optimal(u)


def test_check_controller_finds_memory_across_episodes() -> None:
    with pytest.raises(ControllerCheckError, match="forget in reset"):
        check_controller(lambda: Forgetful().bind(make_plant(PLANT).problem), partial(make_simulator, PLANT))


class Stale(LQR):
    """Keeps the windows of rows that are restarted."""

    def reset(self, n: int, mask: Tensor | None = None, *, gen: torch.Generator | None = None) -> None:
        super().reset(n, torch.zeros_like(mask) if mask is not None else None, gen=gen)


class Spread(LQR):
    """Starts all rows again when one is restarted."""

    def reset(self, n: int, mask: Tensor | None = None, *, gen: torch.Generator | None = None) -> None:
        super().reset(n, None, gen=gen)


class Late(Controller):
    """Acts in restarted rows as in none that is new."""

    name = "late"

    def reset(self, n: int, mask: Tensor | None = None, *, gen: torch.Generator | None = None) -> None:
        super().reset(n, mask, gen=gen)
        self.push = torch.zeros(n, 1) if mask is None else torch.where(mask[:, None], 1.0, self.push)

    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        return self.optimal(self.push.to(m.y))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stale(effort=10.0), "clear the memory of masked rows"),
        (lambda: Spread(effort=10.0), "changed the actions of others"),
        (Late, "does not start as after a full reset"),
    ],
)
def test_check_controller_finds_restarts_that_are_none(
    make: Callable[[], Controller], message: str, models: list[Dynamics]
) -> None:
    """The window is two outputs long."""
    problem = make_simulator(PLANT, 1).problem
    with pytest.raises(ControllerCheckError, match=message):
        check_controller(lambda: make().bind(problem, models[0]), partial(make_simulator, PLANT))


class Faulty(Controller):
    """Decides as it is told to."""

    name = "faulty"

    def __init__(self, decide: Callable[[int], Decision]) -> None:
        self._law, self.calls = decide, 0

    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        self.calls += 1
        return self._law(self.calls)


def raising(calls: int) -> Decision:
    raise (RuntimeError if calls % 3 else KeyError)(f"call {calls}")


def decided(outcome: int = 0, dtype: torch.dtype = torch.float64) -> Callable[[int], Decision]:
    good = Decision(torch.zeros(2, 1), torch.full((2,), outcome, dtype=torch.uint8))
    object.__setattr__(good, "u", good.u.to(dtype))  # what no type checker lets pass
    return lambda calls: good


@pytest.mark.parametrize(
    ("law", "notes"),
    [
        (raising, ["RuntimeError: call 1 (the first of 5)", "KeyError: 'call 3' (the first of 2)"]),
        (decided(outcome=200), ["outcome must be an Outcome, from 0 to 4, got 200 (the first of 7)"]),
        (decided(dtype=torch.complex128), ["u must hold real numbers, got torch.complex128"]),
    ],
)
def test_a_law_that_fails_is_noted_once_for_each_type_of_error(
    law: Callable[[int], Decision], notes: list[str]
) -> None:
    simulator = make_simulator(PLANT, 2)
    controller = Faulty(law).bind(simulator.problem)
    controller.reset(2)
    simulator.reset(simulator.scenarios(torch.arange(2)))
    for _ in range(7):
        assert controller.act(simulator.measure()).outcome.tolist() == [Outcome.NEUTRAL] * 2
    assert len(controller.notes) == len(notes)
    assert all(any(part in note for note in controller.notes) for part in notes), controller.notes
    assert controller.bind(simulator.problem).notes == ()
    controller.act(simulator.measure())
    assert len(controller.notes) == 1 and "(the first of 1)" in controller.notes[0]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("y", lambda y: y[:, :1], r"m.y must have shape \(2, 3\), for 2 rows of this problem, got \(2, 1\)"),
        ("y", lambda y: y.long(), r"m.y must hold floating numbers, got torch.int64; convert it with .to"),
        ("y", lambda y: y.to(torch.complex128), "m.y must hold floating numbers, got torch.complex128"),
        ("y", lambda y: y.numpy(), "m.y must be a torch tensor, got ndarray"),
        (
            "k",
            lambda k: k.double(),
            r"m.k must hold integer numbers, got torch.float64; convert it with .to\(torch.int",
        ),
        ("r", lambda r: r[:, :0], "m.r must begin with the present reference, got shape"),
        ("r", lambda r: r[:, 0], r"m.r must have shape \(2, 1, "),
        ("r", lambda r: r.long(), "m.r must hold floating numbers"),
        ("u_prev", lambda u: u[:1], r"m.u_prev must have shape \(2, 1\)"),
    ],
)
def test_a_measurement_of_another_problem_is_refused(
    name: str, change: Callable[[Tensor], object], message: str
) -> None:
    """It is the caller's error: no law is asked, none is blamed."""
    simulator = make_simulator(PLANT, 2)
    controller = Faulty(raising).bind(simulator.problem)
    controller.reset(2)
    simulator.reset(simulator.scenarios(torch.arange(2)))
    m = simulator.measure()
    object.__setattr__(m, name, change(getattr(m, name)))
    with pytest.raises(ValueError, match=message):
        controller.act(m)
    assert controller.calls == 0 and controller.notes == ()


def test_act_makes_any_law_admissible() -> None:
    check_controller(lambda: Wild().bind(make_plant(PLANT).problem), partial(make_simulator, PLANT))
    sim = make_simulator(PLANT, 2)
    controller = Wild().bind(sim.problem)
    controller.reset(2)
    sim.reset(sim.scenarios(torch.arange(2)))
    decision = controller.act(sim.measure())
    assert decision.outcome.tolist() == [4, 0] and decision.u[:, 0].tolist() == [0.0, 2.0]


def test_training_scenarios_differ_from_evaluation_scenarios() -> None:
    ours: Tensor = Training(partial(make_simulator, PLANT), seed=0).keys(8)
    assert not set(ours.tolist()) & set(noise.keys(0, 8).tolist())
