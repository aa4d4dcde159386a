"""Rows that cannot run are refused before anything runs, and none that can."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.controllers.base import Controller
from steersman.controllers.classical.baseline import Zero
from steersman.dynamics.base import Trajectories
from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.registry import MODELS
from steersman.dynamics.truth.plant_model import PlantModel
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective
from steersman.envs.plant import ControlProblem
from steersman.envs.registry import make_simulator
from steersman.experiments.comparison import runner
from steersman.experiments.comparison.compare import check_problems, compare
from steersman.experiments.comparison.store import Store
from steersman.experiments.spec import binding
from steersman.experiments.spec.comparison import (
    ComparisonSpec,
    ControllerEntry,
    parse_spec,
    presets,
    read_spec,
)
from steersman.experiments.spec.settings import SpecError

PENDULUM, AGENTS = "steersman/Pendulum-v1", "steersman/WolfSheep-v1"
REACTIONS = {"processes": [{"rate": ["sheep"], "change": {"sheep": 1}}, {"rate": ["lions"], "change": {"sheep": -1}}]}


def row(use: str, model: str = "", **settings: Any) -> dict[str, Any]:
    return {"use": use, "model": model, "settings": settings}


def spec(id: str, *rows: dict[str, Any], models: list[dict[str, Any]] | None = None) -> ComparisonSpec:
    plant = {"id": id, "models": models or [], "controllers": [{"use": "zero"}, *rows]}
    return parse_spec({"name": "pairs", "episodes": 2, "plants": [plant]})


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "mip-mpc, network": (
        PENDULUM,
        row("mip-mpc", "neural"),
        "piecewise-linear model, got NeuralDynamics; use 'linear'",
    ),
    "mip-mpc, plant": (PENDULUM, row("mip-mpc", "truth"), "piecewise-linear model, got PlantModel"),
    "lqr, network": (PENDULUM, row("lqr", "neural-ode"), "lqr needs a linear model, got NeuralODE; use 'linear' or"),
    "lqr, objective": ("Pendulum-v1", row("lqr", "linear"), "LQR needs a quadratic cost of every action"),
    "lqg, plant": (PENDULUM, row("lqg", "truth"), "lqg needs a linear model, got PlantModel"),
    "lqg, calibrated": (PENDULUM, row("lqg", "linear", calibrate=2, effort=1.0), "it needs model = 'linearized'"),
    "backstepping": (PENDULUM, row("backstepping", "truth"), "transport and reaction-diffusion .* or use lqr"),
    "dqn": (PENDULUM, row("dqn"), "dqn needs .*discrete"),
    "policy-search": (
        PENDULUM,
        row("policy-search", plant_steps=1000),
        "does not cover one generation; it takes up to",
    ),
    "adjoint": (AGENTS, row("adjoint", "truth"), "this plant has no gradient; plan with a learned model"),
    "adjoint, warm": (PENDULUM, row("adjoint", "neural", warm="lqr"), "it needs model = 'truth'"),
    "enumeration": (PENDULUM, row("enumeration", "truth"), "enumeration needs integer actions; use adjoint"),
    "linearized": (AGENTS, row("lqr", "linearized"), "needs one row of floating-point state"),
    "truth elsewhere": ("Pendulum-v1", row("mppi", "truth"), "this simulator has none; choose a learned model"),
    "hindsight elsewhere": ("Pendulum-v1", row("mppi", "hindsight"), "this simulator has none; choose a learned model"),
    "teacher's options": (PENDULUM, row("imitation", "neural", options={"far": 1}), "TypeError: .*'far'"),
    "imitation": (PENDULUM, row("imitation", "neural", teacher="lqr"), "lqr needs a linear model, got Neural"),
}


TANK = """
import torch
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.plant import Plant

class Tank(Plant):
    def __init__(self):
        self.dt, self.hold, self.horizon, self.gradient = 1.0, 1, 5, "exact"
        self.actions = ActionSet((-1.0,), (1.0,))
        self.objective = Objective((Quadratic(name="z", on="z", weights=(1.0,)),), failure=1.0)
        self.measured = self.performed = ("x",)
    def params(self, key): return {}
    def initial(self, key, p): return torch.ones(len(key), 1, dtype=self.dtype)
    def step(self, k, x, u, w, p): return x + 0.1 * u
    def measure(self, k, x, p): return x
"""


@pytest.fixture
def tank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A plant that runs in no time."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "tank_to_bind.py").write_text(TANK)
    return "tank_to_bind:Tank"


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something ran")

    monkeypatch.setattr(runner, "work", refuse)


@pytest.mark.parametrize("case", BAD, ids=lambda name: name.replace(", ", "-").replace(" ", "-").replace("'", ""))
def test_a_row_that_cannot_run_is_refused(case: str, tmp_path: Path, idle: None) -> None:
    id, entry, message = BAD[case]
    with pytest.raises(SpecError, match=rf"^plants\.0\.controllers\.1[:.].*{message}.*\(row '{entry['use']}") as caught:
        compare(spec(id, entry), tmp_path / "out")
    assert str(caught.value).endswith(f"of {id})")
    assert not (tmp_path / "out").exists()


def test_all_rows_that_cannot_run_are_told_at_once(tmp_path: Path, idle: None) -> None:
    asked = spec(PENDULUM, row("lqr", "neural"), row("mppi", "neural"), {**row("dqn"), "label": "deep"})
    two = parse_spec(
        {"name": "two", "plants": [
            {"id": PENDULUM, "controllers": [{"use": "zero"}, row("lqr", "neural"), row("mppi", "neural")]},
            {"id": AGENTS, "controllers": [{"use": "zero"}, {**row("lqr", "linearized"), "label": "states"}]},
        ]}
    )  # fmt: skip
    for refused, lines in (
        (asked, ("0.controllers.1", "0.controllers.3")),
        (two, ("0.controllers.1", "1.controllers.1")),
    ):
        with pytest.raises(SpecError) as caught:
            compare(refused, tmp_path / "out")
        first, *told = str(caught.value).splitlines()
        assert first == "2 rows cannot run:"
        assert [line.partition(": ")[0] for line in told] == [f"plants.{line}" for line in lines]
    assert told[1].endswith(f"(row 'states' of {AGENTS})")


MODEL_FAULTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a setting out of range": (PENDULUM, {"use": "linear", "settings": {"context": 0}}, "context must be at least 1"),
    "steps beyond the horizon": (
        PENDULUM, {"use": "linear", "data": {"steps": 500}}, "steps must be between 1 and the horizon 200, got 500"),
    "a process of what is not measured": (AGENTS, {"use": "reactions", "settings": REACTIONS}, "process 1 names 'lions'"),
}  # fmt: skip


@pytest.mark.parametrize("case", MODEL_FAULTS, ids=lambda name: name.replace(" ", "-"))
def test_a_model_that_cannot_be_fitted_is_the_fault_of_all_its_rows(case: str, idle: None, tmp_path: Path) -> None:
    id, model, message = MODEL_FAULTS[case]
    rows = [row("mppi", "own"), row("cem", "own"), row("constant")]
    with pytest.raises(SpecError) as caught:
        compare(spec(id, *rows, models=[{**model, "label": "own"}]), tmp_path / "out")
    told = str(caught.value).splitlines()
    assert len(told) == 3 and all(message in line for line in told[1:])


WINDOWS: dict[str, tuple[dict[str, Any], str]] = {
    "longer than the episode": (
        {"use": "linear", "settings": {"context": 6, "choose": False}}, "need episodes of 6 transitions, the data have 5",
    ),
    "longer than the data": (
        {"use": "linear", "settings": {"context": 3, "choose": False}, "data": {"steps": 2}},
        "need episodes of 3 transitions, the data have 2",
    ),
    "too few": ({"use": "neural", "data": {"episodes": 1, "steps": 1}}, "at least two windows, .*got 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", WINDOWS)
def test_windows_that_planned_data_cannot_hold_are_refused(case: str, tank: str) -> None:
    model, message = WINDOWS[case]
    with pytest.raises(SpecError, match=message):
        check_problems(spec(tank, row("mppi", "own"), models=[{**model, "label": "own"}]))


@pytest.mark.parametrize(
    "model",
    [
        {"use": "linear", "settings": {"context": 8}},
        {"use": "linear", "settings": {"context": 5, "choose": False}},
        {"use": "neural", "settings": {"context": 9}, "data": {"episodes": 2, "steps": 1}},
    ],
)
def test_windows_that_planned_data_hold_are_taken(model: dict[str, Any], tank: str) -> None:
    check_problems(spec(tank, row("mppi", "own"), models=[{**model, "label": "own"}]))


# ------------------------------------------------------------------ no false refusals


SHORT = ("agents", "grid-brake", "grid-control", "grid-pinn", "polystep-classic", "tour")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SHORT else pytest.mark.slow) for name in presets()]
)
def test_presets_can_run(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_problems(read_spec(name))


@pytest.mark.parametrize("use", [known.name for known in MODELS if not known.needs_plant])
def test_every_learned_model_has_a_stand_in(use: str) -> None:
    own = {**REACTIONS, "processes": REACTIONS["processes"][:1]} if use == "reactions" else {}
    check_problems(spec(AGENTS, row("mppi", "own"), models=[{"use": use, "label": "own", "settings": own}]))


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 5), st.integers(0, 6))
@settings(max_examples=25, deadline=None)
def test_invented_numbers_determine_a_stable_system(ny: int, nz: int, m: int, exogenous: int) -> None:
    """So that no regulator refuses modes that the real plant may not have."""
    names = tuple(f"y{i}" for i in range(ny))
    problem = ControlProblem(
        actions=ActionSet((-1.0,) * m, (2.0,) * m), objective=Objective(()), period=1.0, horizon=3, gradient="none",
        measured=names, performed=tuple(f"z{i}" for i in range(nz)), exogenous=tuple(range(min(exogenous, ny - 1))),
    )  # fmt: skip
    data = binding.invented(problem)
    assert bool(problem.actions.admissible(data.u.flatten(0, 1)).all()) and bool((data.y > 0).all())
    model = LinearDynamics(context=1, choose=False).bind(problem).fit(data)
    kept = len(model.kept_)
    assert torch.allclose(model.A_, 0.5 * torch.eye(kept, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(model.B_, torch.zeros(kept, m, dtype=torch.float64), atol=1e-6)


BROKEN: dict[str, Callable[[], Exception]] = {
    "singular": lambda: np.linalg.LinAlgError("singular"),  # a ValueError by descent
    "diverged": lambda: RuntimeError("diverged"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_numbers_that_break_a_stand_in_refuse_nothing(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, data: Trajectories) -> Any:
        raise BROKEN[case]()

    monkeypatch.setattr(LinearDynamics, "fit", broken)
    check_problems(spec(PENDULUM, row("mppi", "linear")))


def test_what_breaks_the_plant_s_own_model_would_break_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, *_: Any, **__: Any) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(PlantModel, "__init__", broken)
    with pytest.raises(SpecError, match=r"controllers\.1: RuntimeError: out of order \(row 'mppi \(truth\)'"):
        check_problems(spec(PENDULUM, row("mppi", "truth")))


def test_beyond_a_size_stand_ins_are_not_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their kind is still judged, but nothing that asks for weights."""
    monkeypatch.setattr(binding, "MOST", 3)
    monkeypatch.setattr(LinearDynamics, "fit", lambda self, data: pytest.fail("it was fitted"))
    with pytest.raises(SpecError, match="needs a linear model, got NeuralDynamics"):
        check_problems(spec(PENDULUM, row("lqr", "linear"), row("lqr", "neural")))


# ------------------------------------------------------------------ what is stored


def test_rows_whose_results_are_stored_are_not_bound_again(
    tank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = spec(tank, row("constant", candidates=3, scenarios=1))
    compare(first, tmp_path)
    built: list[str] = []
    real = runner.build_controller

    def build(entry: ControllerEntry) -> Controller:
        built.append(entry.name)
        return real(entry)

    monkeypatch.setattr(binding, "build_controller", build)
    compare(first, tmp_path)
    assert built == []
    more = spec(tank, row("constant", candidates=3, scenarios=1), row("pid"))
    compare(more, tmp_path)
    assert built == ["pid"]
    compare(more, tmp_path / "elsewhere")
    assert built == ["pid", "zero", "constant", "pid"]


def test_a_refused_comparison_leaves_a_store_as_it_was(tank: str, tmp_path: Path) -> None:
    compare(spec(tank), tmp_path)
    jobs = Store(tmp_path / "store").jobs()
    with pytest.raises(SpecError, match="needs a linear model"):
        compare(spec(tank, row("lqr", "neural")), tmp_path)
    assert Store(tmp_path / "store").jobs() == jobs


def test_controllers_are_bound_to_a_problem_whose_failures_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a run, which finds the price before it binds."""
    prices: list[float] = []
    monkeypatch.setattr(Zero, "bind", lambda self, problem, model=None: prices.append(problem.objective.failure))
    check_problems(spec("Pendulum-v1"))
    assert make_simulator("Pendulum-v1", 1).problem.objective.failure == 0 < prices[0]


def test_simulators_are_closed_when_a_row_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    kind = type(make_simulator(PENDULUM, 1))
    monkeypatch.setattr(kind, "close", lambda self: closed.append(True))
    with pytest.raises(SpecError):
        check_problems(spec(PENDULUM, row("lqr", "neural")))
    assert closed


@pytest.mark.parametrize(
    ("use", "taken"), [("linear", False), ("neural", False), ("sparse", False), ("neural-ode", True)]
)
def test_models_of_the_control_period_refuse_irregular_data_before_they_are_collected(use: str, taken: bool) -> None:
    settings = {"context": 1} if use != "linear" else {}
    planner = row("mip-mpc" if use == "sparse" else "mppi", use)
    model = {"use": use, "settings": settings | ({"relus": 2} if use == "sparse" else {}), "data": {"irregular": 3}}
    asked = spec(PENDULUM, planner, models=[model])
    if taken:
        assert len(check_problems(asked)) == 1
        return
    with pytest.raises(SpecError, match=r"knows steps of one control period only; use a model in continuous time"):
        check_problems(asked)
