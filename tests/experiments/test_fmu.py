"""The way out and the way in: plants and controllers as FMUs, and the page's example from one end to the other."""

import re
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.envs import units

from steersman.envs import make_simulator, noise
from steersman.envs.fmi import FmuSimulator
from steersman.envs.fmi.description import read_fmu
from steersman.envs.gymnasium_adapters.outputs import Reading, Reference
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.plant import Status
from steersman.experiments.cli import main
from steersman.experiments.comparison.compare import check_problems, compare
from steersman.experiments.exported import load_controller
from steersman.experiments.exported.fmu import export_controller, export_plant
from steersman.experiments.spec.comparison import read_spec
from steersman.experiments.spec.settings import SpecError

validation = pytest.importorskip("fmpy.validation", reason=units.NEEDS)

PAGE = (Path(__file__).parents[2] / "experiments" / "functional-mockup-units.md").read_text()
PENDULUM = "steersman/Pendulum-v1"
each_version = pytest.mark.parametrize("version", [2, 3])


def block(language: str) -> str:
    return str(re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)[0])


def efforts(outputs: tuple[str, ...], actions: tuple[str, ...]) -> Objective:
    return Objective((Quadratic(name="effort", on="u", weights=(1.0,) * len(actions)),))


def tracked(outputs: tuple[str, ...], actions: tuple[str, ...]) -> Objective:
    """The cost of the pendulum."""
    stage = make_simulator(PENDULUM, 1).problem.objective.stage
    assert outputs == ("z.theta", "z.speed") and actions == ("u.torque",)
    return Objective(stage)


# ------------------------------------------------------------------ plants


@each_version
def test_a_plant_comes_back_as_itself(tmp_path: Path, version: int) -> None:
    path = export_plant(PENDULUM, tmp_path / "new" / "pendulum.fmu", version=version)
    assert validation.validate_fmu(str(path)) == []
    references = {name: Reference(observation=(f"r{name[1:]}",)) for name in ("z.theta", "z.speed")}
    back = make_simulator(
        "steersman.envs.fmi:FmuSimulator", 2, objective=tracked, fmu=str(path), actions={"u.torque": [-2, 2]},
        performed=["z.theta", "z.speed"], start={"seed": [5, 6]}, reading=Reading(references=references),
    )  # fmt: skip
    assert (back.problem.period, back.problem.horizon) == (0.05, 200) and back.problem.exogenous == (5, 6)
    back.reset(back.scenarios(noise.keys(1, 2)))
    # Whichever of the two seeds were drawn, the scenarios are those of the plant.
    plant = make_simulator(PENDULUM, 2, price=0.0)
    both = plant.scenarios(torch.cat([noise.keys(5, 1), noise.keys(6, 1)]))
    plant.reset(both)
    order = [int((plant.measure().y - y[:3]).abs().sum(dim=1).argmin()) for y in back.measure().y]
    plant.reset(both.index(torch.tensor(order)))
    for k in range(12):
        u = 3.0 * torch.sin(torch.tensor([[0.3 * k], [0.5 * k]], dtype=torch.float64))
        if k == 6:
            snapshot = back.snapshot()
            back.step(-u)
            back.restore(snapshot)
        cost = plant.step(u).cost
        torch.testing.assert_close(back.step(u).cost, cost, rtol=1e-14, atol=1e-14)
        assert torch.equal(back.measure().y[:, :3], plant.measure().y)
        assert torch.equal(back.perform(), plant.perform())
    back.close()


def test_what_a_host_must_have_is_told(tmp_path: Path) -> None:
    path = export_plant("steersman/WolfSheepSteady-v1", tmp_path / "a.fmu", {"horizon": 2, "warmup": 0})
    with zipfile.ZipFile(path) as file:
        for name in ("documentation/index.html", "modelDescription.xml"):
            assert "Its host needs a Python 3 with the package steersman" in file.read(name).decode()
        assert b'needsExecutionTool="true"' in file.read("modelDescription.xml")
    found = read_fmu(path)
    assert found.identifier == "WolfSheepSteady_v1" and found.keeps_states
    assert [v.name for v in found.variables if v.causality == "input"] == ["u.remove_sheep", "u.remove_wolves"]


@each_version
def test_steps_are_refused_that_a_plant_cannot_take(tmp_path: Path, version: int) -> None:
    path = export_plant("steersman/SEIRNetwork-v1", tmp_path / "b.fmu", version=version)
    found, problem = read_fmu(path), make_simulator("steersman/SEIRNetwork-v1", 1).problem
    assert (found.step, found.stop) == (problem.period, problem.period * problem.horizon)
    actions = {v.name: [0, 1] for v in found.variables if v.causality == "input"}

    def told(steps: int, **more: Any) -> tuple[str, ...]:
        made = FmuSimulator(1, str(path), actions, objective=efforts, price=1.0, **more)
        made.reset(made.scenarios(noise.keys(0, 1)))
        for _ in range(steps):
            assert not made.notes
            t = made.step(torch.zeros(1, len(actions), dtype=torch.float64))
        assert t.status.tolist() == [int(Status.DIVERGED)]
        made.close()
        return made.notes

    (note,) = told(1, period=2 * problem.period)
    assert f"it works in steps of {problem.period:g}, which is its step size; got {2 * problem.period:g}" in note
    (note,) = told(problem.horizon + 1, horizon=problem.horizon + 2)
    assert f"the episode of {problem.horizon} steps is over" in note


@each_version
def test_a_plant_that_fails_ends_the_simulation(tmp_path: Path, version: int) -> None:
    path = export_plant("steersman/CartPole-v1", tmp_path / "c.fmu", version=version)
    names = [v.name for v in read_fmu(path).variables if v.causality == "input"]
    made = FmuSimulator(
        2, str(path), {name: [0, 1] for name in names}, objective=efforts, price=1.0,
        reading=Reading(termination="failure"),
    )  # fmt: skip
    made.reset(made.scenarios(noise.keys(0, 2)))
    for _ in range(30):
        t = made.step(torch.ones(2, len(names), dtype=torch.float64))
    assert t.status.tolist() == [int(Status.TERMINATED)] * 2 and bool((made.measure().k < 15).all())


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown plant .*'steersman/Pendulum-v1'"):
        export_plant("steersman/Pendulm-v1", tmp_path / "a.fmu")
    with pytest.raises(ValueError, match="version must be 2 or 3, got 1"):
        export_plant(PENDULUM, tmp_path / "a.fmu", version=1)
    with pytest.raises(ValueError, match=r"path must end in .fmu, got '.*a.zip'"):
        export_plant(PENDULUM, tmp_path / "a.zip")
    with pytest.raises(FileNotFoundError, match=r"no controller\.json"):
        export_controller(tmp_path, tmp_path / "a.fmu")
    assert not list(tmp_path.glob("*.fmu"))


# ------------------------------------------------------------------ the page, and controllers


def page(folder: Path, *changes: tuple[str, str]) -> Path:
    """The page's comparison file beside its FMU, changed."""
    text = block("toml")
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (folder / "tank.toml").write_text(text)
    return folder / "tank.toml"


def test_the_page_runs_and_its_controllers_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    units.build(tmp_path, block("python"), 2, name="tank")
    check_problems(read_spec(str(page(tmp_path))))
    small = page(
        tmp_path,
        ("step = 0.1 ", "step = 0.5 "),
        ("horizon = 60", "horizon = 20"),
        ("episodes = 16", "episodes = 3"),
        ("tune = 24", "tune = 3"),
    )
    small.write_text(f"episodes = 2\n{small.read_text()}")
    found = compare(read_spec(str(small)), tmp_path / "out")
    assert not found.failures and found.plants[0].performed == ("second", "first")
    assert (found.plants[0].period, found.plants[0].horizon) == (0.5, 20)
    cost = {r.controller: float(np.mean(r.cost)) for r in found.results}
    assert cost["lqr (linear)"] < 0.8 * cost["zero"] and cost["pid"] < cost["zero"]

    key = next(r.key for r in found.results if r.controller == "lqr (linear)")
    assert main(["export", "out", key, "--out", "lqr", "--fmu", "2"]) == 0
    export_controller("lqr/controller.json", "lqr3.fmu", version=3)
    for path in ("lqr.fmu", "lqr3.fmu"):
        assert validation.validate_fmu(path) == []
        description = read_fmu(path)
        assert not description.keeps_states
        variables = {v.name: v for v in description.variables}
        assert {"y.first", "y.second", "r.first", "r.second", "u.pump"} <= set(variables) and "seed" not in variables
        made = FmuSimulator(1, path, {"y.second": [-5, 5], "y.first": [-5, 5]}, objective=efforts)
        made.reset(made.scenarios(noise.keys(0, 1)))
        law = load_controller("lqr")
        assert made.measure().y.tolist() == [[0.0]]
        for y in ([0.5, 0.2], [0.9, 0.4], [1.0, 1.1]):
            made.step(torch.tensor([y], dtype=torch.float64))
            assert made.measure().y[0].tolist() == law(y).tolist()
        made.close()


def test_a_changed_fmu_is_another_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    units.build(tmp_path, block("python"), 2, name="tank")
    from steersman.experiments.spec.plan import plan

    before = plan(read_spec(str(page(tmp_path))))[0].run.key
    units.build(tmp_path, block("python").replace("0.5 * (self", "0.4 * (self"), 2, name="tank")
    assert plan(read_spec(str(page(tmp_path))))[0].run.key != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"Tank.fmu"', '"Tonk.fmu"'), "plants.0: .*no file 'Tonk.fmu' from .*; give its path from the current folder"),
        (("actions = { pump", "actions = { pomp"), r"plants.0: actions.pomp: .* \(did you mean 'pump'\?\)"),
        (
            ('measured = ["second", "first"', 'measured = ["second", "furst"'),
            r"plants.0: measured: .* \(did you mean 'first'\?\)",
        ),
        (("weights = { pump", "weights = { pomp"), r"plants.0: objective.1.weights: .* \(did you mean 'pump'\?\)"),
        (("references = { second", "references = { secnd"), r"plants.0: references: .* \(did you mean 'second'\?\)"),
    ],
)
def test_a_slip_in_the_file_is_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    units.build(tmp_path, block("python"), 2, name="tank")
    with pytest.raises(SpecError, match=message):
        check_problems(read_spec(str(page(tmp_path, change))))


def test_a_controller_that_reads_the_state_stays(tmp_path: Path) -> None:
    from steersman.controllers.registry import make_controller
    from steersman.dynamics.registry import make_model
    from steersman.envs import make_plant
    from steersman.experiments.exported.controller import Part, SavedController, save_controller

    plant = make_plant(PENDULUM)
    settings: dict[str, Any] = {"horizon": 2, "samples": 4}
    law = make_controller("mppi", **settings).bind(plant.problem, make_model("truth", plant))
    truth = Part("truth", plant={"id": PENDULUM, "settings": {}})
    save_controller(SavedController(Part("mppi", settings), law, truth), tmp_path)
    with pytest.raises(
        ValueError, match="'mppi' needs the plant's state, which no output of an FMU is; export one with"
    ):
        export_controller(tmp_path, tmp_path / "x.fmu")


def test_the_readme_links_to_the_page() -> None:
    assert "(experiments/functional-mockup-units.md)" in (Path(__file__).parents[2] / "README.md").read_text()
    assert tomllib.loads(block("toml"))["plants"][0]["id"] == "steersman.envs.fmi:FmuSimulator"
