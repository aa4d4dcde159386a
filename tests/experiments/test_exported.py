"""Controllers out of a store: what is loaded from the folder acts as what was evaluated."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.controllers.test_conformance import SETTINGS, bound, plant_of

from steersman.controllers.base import Controller, Decision, Outcome, Training
from steersman.controllers.registry import CONTROLLERS, ControllerSpec
from steersman.dynamics.base import Dynamics
from steersman.dynamics.collect import HeldLevels, collect
from steersman.envs import make_plant, make_simulator, noise
from steersman.envs.objective import Objective, Opaque, Quadratic
from steersman.envs.registry import plant_ids
from steersman.envs.simulator import Measurement
from steersman.experiments.cli import main
from steersman.experiments.comparison.jobs import spec_of
from steersman.experiments.comparison.runner import restored
from steersman.experiments.comparison.store import Store
from steersman.experiments.exported import DeployedController, load_controller
from steersman.experiments.exported.controller import Part, SavedController, save_controller
from steersman.experiments.exported.deployed import Vector
from steersman.experiments.exported.loop import LoopReport, control_loop
from steersman.experiments.exported.problem import from_plain, to_plain
from steersman.experiments.spec.members import new_model

PENDULUM = "steersman/Pendulum-v1"
QUICK = ("constant", "lqr", "lqg", "pid", "mppi", "neural", "ppo", "dqn", "adjoint", "zero", "cem", "sac")
"""Controllers whose training takes a moment; the others are slow tests."""


def model_for(spec: ControllerSpec) -> tuple[Dynamics | None, Part | None]:
    """A model that a controller can have, and how it is made."""
    if not spec.needs_model:
        return None, None
    simulator = make_simulator(plant_of(spec), 4)
    if spec.name in ("backstepping", "enumeration", "adjoint", "mppi"):
        from steersman.dynamics.registry import make_model

        model = make_model("truth", make_plant(plant_of(spec))).bind(simulator.problem)
        return model, Part("truth", plant={"id": plant_of(spec), "settings": {}})
    settings = {"context": 2}
    model = new_model("linear", settings, simulator.problem)
    return model.fit(collect(simulator, HeldLevels(), episodes=4, seed=0, steps=40)), Part("linear", settings)


def acts(law: DeployedController | Controller, id: str, steps: int = 4) -> list[list[float]]:
    """Actions along an episode; both kinds are shown the same measurements."""
    simulator = make_simulator(id, 1)
    simulator.reset(simulator.scenarios(noise.keys(9, 1)))
    if isinstance(law, DeployedController):
        law.reset()
    else:
        law.reset(1, gen=torch.Generator().manual_seed(0))
    out = []
    for _ in range(steps):
        m = simulator.measure(0)
        if isinstance(law, DeployedController):
            u = torch.from_numpy(law(m.y[0].double().numpy(), m.r[0, 0].double().numpy(), state=m.x, parameters=m.p))[
                None
            ]
        else:
            u = law.act(replace(m, y=m.y.double(), r=m.r.double(), u_prev=m.u_prev.double())).u
        out.append(u[0].tolist())
        simulator.step(u)
    return out


def cases() -> Sequence[object]:
    late = [pytest.mark.slow]
    return [pytest.param(s, id=s.name, marks=() if s.name in QUICK else late) for s in CONTROLLERS]


@pytest.mark.parametrize("spec", cases())
def test_every_controller_is_what_it_was(spec: ControllerSpec, tmp_path: Path) -> None:
    model, made = model_for(spec)
    law = bound(spec, model)
    law.train(Training(partial(make_simulator, plant_of(spec)), seed=0))
    settings = json.loads(json.dumps(SETTINGS.get(spec.name, {})))
    if spec.name == "mip-mpc":  # its shooting stops by the clock, which two loads of the machine may tell apart
        settings["samples"] = 0
        law = spec.make(**settings).bind(law.problem, model)
    save_controller(SavedController(Part(spec.name, settings), law, made), tmp_path)
    loaded = load_controller(tmp_path, episode=True)
    assert loaded.problem == law.problem
    np.testing.assert_allclose(acts(loaded, plant_of(spec)), acts(law, plant_of(spec)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("id", plant_ids())
def test_every_problem_has_a_written_form(id: str) -> None:
    problem = make_plant(id).problem
    assert from_plain(json.loads(json.dumps(to_plain(problem)))) == problem


def test_code_without_a_name_cannot_be_written() -> None:
    problem = make_plant(PENDULUM).problem
    secret = Opaque(name="secret", on="z", function=lambda z: z.sum(dim=-1))
    with pytest.raises(ValueError, match="'secret' of the objective is code without a name"):
        to_plain(replace(problem, objective=Objective((secret,))))

    class Own(Quadratic):
        pass

    own = Own(name="own", on="z", weights=(1.0, 1.0))
    with pytest.raises(ValueError, match="'own' of the objective is a Own, which has no written form"):
        to_plain(replace(problem, objective=Objective((own,))))


# ------------------------------------------------------------------ in a loop


def pid(tmp_path: Path) -> DeployedController:
    spec = next(s for s in CONTROLLERS if s.name == "pid")
    settings = {"error": [[0.0, 1.0, 0.0]], "kp": 1.0, "ki": 0.1}
    law = spec.make(error=((0.0, 1.0, 0.0),), kp=1.0, ki=0.1).bind(make_plant(PENDULUM).problem)
    save_controller(SavedController(Part("pid", settings), law, reference=(0.0, 0.0)), tmp_path)
    return load_controller(tmp_path)


def test_a_loop_of_ones_own(tmp_path: Path) -> None:
    law = pid(tmp_path)
    first = [float(law([1.0, 0.5, 0.0])[0]) for _ in range(3)]
    assert law.outcome == Outcome.OPTIMAL and law.seconds > 0 and len(set(first)) == 3  # it integrates
    law.reset()
    assert [float(law(np.array([1.0, 0.5, 0.0]))[0]) for _ in range(3)] == first
    law([1.0, float("nan"), 0.0])
    assert law.outcome == Outcome.NEUTRAL
    with pytest.raises(ValueError, match=r"observation must have shape \(3,\), got \(2,\)"):
        law([1.0, 0.5])
    with pytest.raises(ValueError, match=r"reference must have shape \(1, 2\), got \(1, 3\)"):
        law([1.0, 0.5, 0.0], [0.0, 0.0, 0.0])


class Clock(Controller):
    """Acts by the control step that it is told."""

    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        return self.optimal(0.1 * m.k[:, None].double())


def test_by_default_the_horizon_recedes_and_episodes_end_where_they_are_asked_for() -> None:
    problem = make_plant(PENDULUM).problem
    law = DeployedController(Clock().bind(problem), reference=[0.0, 0.0])
    assert [float(law([1.0, 0.0, 0.0])[0]) for _ in range(3)] == [0.0, 0.0, 0.0]
    short = replace(problem, horizon=2)
    law = DeployedController(Clock().bind(short), reference=[0.0, 0.0], episode=True)
    assert [float(law([1.0, 0.0, 0.0])[0]) for _ in range(2)] == pytest.approx([0.0, 0.1])
    with pytest.raises(RuntimeError, match="the episode of 2 steps is over"):
        law([1.0, 0.0, 0.0])


class Follower(Controller):
    """Acts by the reference that it is told."""

    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        return self.optimal(m.r[:, 0, :1])


def test_references_are_those_of_the_comparison_or_must_be_given() -> None:
    problem = make_plant(PENDULUM).problem
    with pytest.raises(ValueError, match="give reference, one for each of theta, speed"):
        DeployedController(Follower().bind(problem))([1.0, 0.0, 0.0])
    law = DeployedController(Follower().bind(problem), reference=[0.5, 0.0])
    assert float(law([1.0, 0.0, 0.0])[0]) == 0.5 and float(law([1.0, 0.0, 0.0], [0.25, 0.0])[0]) == 0.25
    plain = replace(problem, objective=Objective((Quadratic(name="z", on="z", weights=(1.0, 1.0)),)))
    assert float(DeployedController(Follower().bind(plain))([1.0, 0.0, 0.0])[0]) == 0.0
    sent = list[float]()
    asyncio.run(
        control_loop(
            law, lambda: np.array([1.0, 0.0, 0.0]), lambda u: sent.append(float(u[0])), period=0.01, steps=3,
            refer=lambda: np.array([0.1 * len(sent), 0.0]),
        )
    )  # fmt: skip
    assert sent == pytest.approx([0.0, 0.1, 0.2])


def test_a_loop_keeps_its_times_beside_other_work(tmp_path: Path) -> None:
    law, sent, ticks = pid(tmp_path), list[float](), 0

    async def measure() -> Vector:
        await asyncio.sleep(0.001)
        return np.array([1.0, 0.1 * len(sent), 0.0])

    async def other() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.005)

    async def both() -> LoopReport:
        beside = asyncio.create_task(other())
        found = await control_loop(law, measure, lambda u: sent.append(float(u[0])), period=0.02, steps=25)
        beside.cancel()
        return found

    report = asyncio.run(both())
    assert len(sent) == 25 and ticks > 25 and report.fallbacks == 0
    assert (report.jitter >= 0).all() and float(np.median(report.jitter)) < 0.02
    assert float(np.diff(report.began).mean()) == pytest.approx(0.02, rel=0.2)
    assert "25 steps of 20 ms" in str(report)
    with pytest.raises(ValueError, match="positive period"):
        asyncio.run(control_loop(law, measure, sent.append, period=0.0, steps=1))


# ------------------------------------------------------------------ from a store


COMPARISON = """
episodes = 2
[[plants]]
id = "steersman/Pendulum-v1"
[[plants.models]]
use = "linear"
data = { episodes = 4, steps = 40 }
[[plants.controllers]]
use = "zero"
[[plants.controllers]]
use = "pid"
settings = { kp = 2.0, tune = 2 }
[[plants.controllers]]
use = "lqr"
model = "linear"
settings = { effort = 10.0 }
[[plants.controllers]]
use = "mppi"
model = "truth"
settings = { samples = 8, horizon = 4 }
"""


def test_runs_leave_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.toml").write_text(COMPARISON)
    out = tmp_path / "out"
    assert main(["compare", str(tmp_path / "small.toml"), "--out", str(out), "--workers", "0"]) == 0
    store = Store(out / "store")
    runs = [job for job in store.jobs() if job.kind == "run"]
    assert len(runs) == 4
    for job in runs:
        folder = tmp_path / job.key
        assert main(["export", str(out), job.key[:10], "--out", str(folder)]) == 0
        was = restored(spec_of(job), lambda of, suffix: store.file(of.key, suffix))  # type: ignore[arg-type]
        np.testing.assert_allclose(
            acts(load_controller(folder, episode=True), PENDULUM), acts(was, PENDULUM), rtol=0, atol=1e-12
        )
        about = json.loads((folder / "controller.json").read_text())
        assert (
            about["reference"] == [0.0, 0.0]
            and about["about"]["run"] == job.key
            and about["about"]["environment"]["id"] == PENDULUM
        )
    capsys.readouterr()
    fit = next(job for job in store.jobs() if job.kind == "fit")
    assert main(["export", str(out), fit.key, "--out", str(tmp_path / "no")]) == 2
    assert "is a fit and no run of a controller" in capsys.readouterr().err
    (tmp_path / runs[0].key / "controller.safetensors").unlink()
    with pytest.raises(ValueError, match=r"is not the file that controller.json was written with"):
        load_controller(tmp_path / runs[0].key)
    with pytest.raises(FileNotFoundError, match="steersman export"):
        load_controller(tmp_path)
