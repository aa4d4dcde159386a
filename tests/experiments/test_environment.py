"""What a comparison file says about foreign environments: every key does what it says, and every slip is named."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium
import pydantic
import pytest
import torch
from gymnasium.envs.registration import EnvSpec

from steersman.controllers.classical.pid import PID
from steersman.envs import noise
from steersman.envs.objective import L1, Limit, Linear, PiecewiseLinear, Quadratic
from steersman.envs.plant import Status
from steersman.experiments.cli import main
from steersman.experiments.comparison.compare import compare
from steersman.experiments.report.page import to_json, write_report
from steersman.experiments.simulate import simulate
from steersman.experiments.spec.comparison import parse_spec, read_spec
from steersman.experiments.spec.environment import Environment
from steersman.experiments.spec.settings import SpecError
from steersman.experiments.studies.publish import page

LAB = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Tank(gymnasium.Env):
    observation_space = spaces.Dict({"level": spaces.Box(-10, 10, (2,)), "target": spaces.Box(-10, 10, ())})
    action_space = spaces.Dict({"flow": spaces.Box(-1, 1, (1,)), "valve": spaces.Discrete(2)})

    def __init__(self, price=0.0, n=1, id="x"):
        self.price = price

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.level = 0, self.np_random.normal()
        return self.observe(), {"plan": [1.0, 2.0]}

    def observe(self):
        return {"level": np.array([self.level, -self.level], np.float32), "target": np.float32(1.0)}

    def step(self, action):
        self.t += 1
        self.level += float(action["flow"][0]) * (1.0 if action["valve"] else 0.5)
        return self.observe(), -((self.level - 1.0) ** 2) - self.price, self.level > 3, False, {"plan": [1.0, 2.0]}


class Louder(gymnasium.RewardWrapper):
    def __init__(self, env, factor):
        super().__init__(env)
        self.factor = factor

    def reward(self, reward):
        return self.factor * reward
"""

FILE = """
episodes = 4
recorded = 1
seeds = 1

[[plants]]
id = "file_lab:Tank"
settings = { price = 0.5, n = 3, id = "anything" }
max_episode_steps = 6
workers = 2
wrappers = [{ use = "file_lab:Louder", settings = { factor = 2.0 } }, { use = "TimeAwareObservation" }]
termination = "failure"
names = { "level[0]" = "level" }
outputs = [{ name = "sum", of = { level = 1.0, "level[1]" = 1.0 } }]
references = { level = { observation = "target" }, sum = { info = "plan" } }
exogenous = ["time"]
objective = [
    { kind = "quadratic", on = "e", weights = { level = 1.0 } },
    { kind = "l1", on = "u", weights = { "flow[0]" = 0.1 }, name = "effort" },
    { kind = "piecewise", on = "z", of = "level", points = [[0, 1], [1, 0], [2, 1]] },
    { kind = "linear", on = "z", weights = { reward = -1.0 }, terminal = true },
]
limits = [{ output = "level", low = -5, high = 3 }]
failure = 40.0
shown = ["level", "sum", "reward"]

[[plants.models]]
use = "linear"
settings = { context = 2 }
data = { episodes = 8 }

[[plants.controllers]]
use = "zero"

[[plants.controllers]]
use = "mppi"
model = "linear"
settings = { horizon = 2, samples = 8 }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "file_lab.py").write_text(LAB)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def tank(**keys: Any) -> dict[str, Any]:
    return {"id": "file_lab:Tank", "max_episode_steps": 6, **keys}


def built(**keys: Any) -> Environment:
    return pydantic.TypeAdapter(Environment).validate_python(tank(**keys))


def test_every_key_does_what_it_says(folder: Path) -> None:
    (folder / "c.toml").write_text(without_time(FILE))
    (plant,) = read_spec(str(folder / "c.toml")).plants
    simulator = plant.environment.simulator(2)
    p = simulator.problem
    assert p.measured == ("level", "level[1]", "target")
    assert p.performed == ("level", "level[1]", "target", "sum", "reward")
    assert (p.horizon, p.exogenous) == (6, (2,))
    assert p.actions.names == ("flow[0]", "valve=0", "valve=1") and p.actions.one_hot == ((1, 2),)
    assert p.objective.stage == (
        Quadratic(name="quadratic e 0", on="e", weights=(1.0, 0.0, 0.0, 0.0, 0.0)),
        L1(name="effort", on="u", weights=(0.1, 0.0, 0.0)),
        PiecewiseLinear(name="piecewise z 2", on="z", index=0, points=((0.0, 1.0), (1.0, 0.0), (2.0, 1.0))),
    )
    assert p.objective.terminal == (Linear(name="linear z 3", on="z", weights=(0.0, 0.0, 0.0, 0.0, -1.0)),)
    assert p.objective.limits == (Limit(name="level", index=0, low=-5.0, high=3.0),)
    assert p.objective.failure == simulator.price() == 40.0
    simulator.reset(simulator.scenarios(noise.keys(0, 2)))
    m = simulator.measure(1)
    assert m.r[0].tolist() == [[1, 0, 0, 1, 0], [1, 0, 0, 2, 0]]
    level = float(m.y[0, 0])
    t = simulator.step(torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64))
    assert float(t.cost[0]) == pytest.approx(2 * (level**2 + 0.5), rel=1e-5)
    for _ in range(4):
        t = simulator.step(torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64))
        if bool(t.ended[0]):
            break
    assert int(t.status[0]) == Status.TERMINATED and float(t.cost[0]) > 40.0
    simulator.close()


def without_time(text: str) -> str:
    return text.replace(', { use = "TimeAwareObservation" }', "").replace('["time"]', "[]")


def test_an_environment_survives_a_job_file(folder: Path) -> None:
    (folder / "c.toml").write_text(FILE)
    environment = read_spec(str(folder / "c.toml")).plants[0].environment
    again = pydantic.TypeAdapter(Environment).validate_json(json.dumps(asdict(environment)))
    assert again == environment


def test_the_defaults_leave_the_reward(folder: Path) -> None:
    simulator = built().simulator(1)
    assert [term.name for term in simulator.problem.objective.stage] == ["reward"]
    only_limits = built(limits=[{"output": "level[0]", "low": 0, "high": 1}], failure=3.0).simulator(1)
    assert [term.name for term in only_limits.problem.objective.stage] == ["reward"]
    assert only_limits.problem.objective.failure == 3.0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"terminaton": "goal"}, r"plants.0.terminaton: unknown key"),
        ({"termination": "win"}, r"plants.0.termination: input should be 'end', 'failure' or 'goal', got 'win'"),
        ({"max_episode_steps": 0}, r"plants.0.max_episode_steps: .*greater than or equal to 1, got 0"),
        ({"workers": -1}, r"plants.0.workers: .*greater than or equal to 0"),
        ({"failure": -1.0}, r"plants.0.failure: .*greater than or equal to 0"),
        ({"failure": float("inf")}, r"plants.0.failure: numbers must be finite"),
        ({"references": {"level[0]": {}}}, r"plants.0.references.level\[0\].*one of value, observation and info"),
        ({"references": {"level[0]": {"value": 1, "info": "a"}}}, r"one of value, observation and info"),
        ({"objective": [{"kind": "piecewise", "on": "z"}]}, r"plants.0.objective.0.*has of and points"),
        ({"objective": [{"kind": "linear", "on": "z"}]}, r"plants.0.objective.0.*a linear term has weights"),
        ({"objective": [{"kind": "linear", "on": "z", "weights": [float("nan")]}]}, r"objective.0.weights.0: numbers"),
        ({"wrappers": [{"name": "x"}]}, r"plants.0.wrappers.0"),
        ({"outputs": [{"name": "gap"}]}, r"plants.0.outputs.0.of: this key is required"),
    ],
)
def test_slips_that_are_seen_when_the_file_is_read(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_spec({"name": "c", "plants": [{**tank(**keys), "controllers": [{"use": "zero"}]}]})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"max_episode_steps": None}, r"plants.0: .*set max_episode_steps"),
        ({"settings": {"colour": 1}}, r"plants.0: file_lab:Tank cannot be made .*'colour'"),
        ({"wrappers": [{"use": "file_lab:Nothing"}]}, r"plants.0: unknown wrapper 'file_lab:Nothing'"),
        ({"names": ["a"]}, r"plants.0: names: the observation has 3 entries"),
        ({"outputs": [{"name": "g", "of": {"x": 1.0}}]}, r"plants.0: outputs.0.of: no output 'x'; known: level\[0\]"),
        ({"references": {"x": {"value": 0.0}}}, r"plants.0: references: no output 'x'"),
        ({"exogenous": ["x"]}, r"plants.0: exogenous: no output 'x'"),
        ({"objective": [{"kind": "l1", "on": "u", "weights": {"x": 1.0}}]}, r"objective.0.weights: no output 'x'"),
        ({"objective": [{"kind": "l1", "on": "u", "weights": [1.0]}]}, r"has 1 weights but signal 'u' has 3 entries"),
        (
            {"objective": [{"kind": "piecewise", "on": "z", "of": "x", "points": [[0, 0], [1, 1]]}]},
            r"plants.0: objective.0.of: no output 'x'",
        ),
        ({"limits": [{"output": "x", "low": 0, "high": 1}]}, r"plants.0: limits.0.output: no output 'x'"),
        ({"limits": [{"output": "reward", "low": 1, "high": 0}]}, r"plants.0: limit 'reward' needs finite low < high"),
    ],
)
def test_slips_that_are_seen_before_anything_runs(folder: Path, keys: dict[str, Any], message: str) -> None:
    spec = parse_spec({"name": "c", "plants": [{**tank(**keys), "controllers": [{"use": "zero"}]}]})
    with pytest.raises(SpecError, match=message):
        compare(spec, folder / "out")
    assert not (folder / "out").exists() or not list((folder / "out").rglob("*.npz"))


def test_a_plant_says_these_things_by_itself(folder: Path) -> None:
    spec = {"name": "c", "plants": [{"id": "steersman/Pendulum-v1", "workers": 1, "controllers": [{"use": "zero"}]}]}
    with pytest.raises(SpecError, match="workers would say"):
        compare(parse_spec(spec), folder / "out")


def test_pid_follows_a_stated_reference_and_says_which_it_does_not(folder: Path) -> None:
    """The level is held at 1 for a reward of nothing lost; without the reference PID holds it at 0 and pays 1 a step."""
    names = {"level[0]": "level"}
    references = {"level": {"value": 1.0}, "level[1]": {"value": 2.0}}
    error = [[1.0, 0, 0], [0, 0, 0], [0, 0, 0]]
    laws = [
        {"use": "pid", "settings": {"kp": 0.6}},
        {"use": "pid", "label": "raw", "settings": {"kp": 0.6, "error": error}},
    ]
    plant = tank(names=names, references=references, max_episode_steps=30, controllers=[{"use": "zero"}, *laws])
    found = compare(parse_spec({"name": "c", "episodes": 4, "plants": [plant]}), folder / "out")
    assert not found.failures
    zero, pid, raw = found.results
    assert pid.cost.mean() < 0.5 * raw.cost.mean() and zero.notes == ()
    assert raw.notes == (
        "its stated error knows the references of level, level[1] only as far as measured outputs hold them",
    )


def test_a_comparison_of_a_foreign_environment(folder: Path) -> None:
    text = without_time(FILE).replace("workers = 2\n", "")
    (folder / "c.toml").write_text(text)
    found = compare(read_spec(str(folder / "c.toml")), folder / "out")
    assert not found.failures and {result.controller for result in found.results} == {"zero", "mppi (linear)"}
    cost = {result.controller: result.cost.mean() for result in found.results}
    assert cost["mppi (linear)"] < cost["zero"]


FRAGILE = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Fragile(gymnasium.Env):  # pushing hard breaks the gauge, or with ``paid`` the meter of the reward
    observation_space = spaces.Box(-10, 10, (1,))
    action_space = spaces.Box(-1, 1, (1,))

    def __init__(self, paid=False):
        self.paid = paid

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        bad = np.nan if action[0] > 0.5 else 0.0
        gauge = np.array([0.0 if self.paid else bad], np.float32)
        return gauge, -1.0 + (bad if self.paid else 0.0), False, False, {}
"""


@pytest.mark.parametrize(
    ("paid", "why"), [(False, "observation 'y0' was nan"), (True, "the reward was nan")], ids=["gauge", "meter"]
)
def test_why_rows_diverged_is_said_wherever_results_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], paid: bool, why: str
) -> None:
    """In the evaluation, in the training and in the data of a model; in result, terminal, report, JSON and page."""
    (tmp_path / "fragile_lab.py").write_text(FRAGILE)
    monkeypatch.syspath_prepend(tmp_path)
    entry = f"""
episodes = 3
[[plants]]
id = "fragile_lab:Fragile"
settings = {{ paid = {str(paid).lower()} }}
max_episode_steps = 4
[[plants.models]]
use = "linear"
settings = {{ context = 1 }}
data = {{ episodes = 32, longest = 1 }}
[[plants.controllers]]
use = "zero"
[[plants.controllers]]
use = "pid"
settings = {{ kp = 0.0, tune = 2, scenarios = 2, error = [[1.0]] }}
[[plants.controllers]]
use = "constant"
label = "push"
settings = {{ candidates = 3, scenarios = 1 }}
[[plants.controllers]]
use = "cem"
model = "linear"
settings = {{ horizon = 1, samples = 4, elites = 2 }}
"""
    (tmp_path / "c.toml").write_text(entry)
    found = compare(read_spec(str(tmp_path / "c.toml")), tmp_path / "out")
    notes = {result.controller: result.notes for result in found.results}
    assert notes["zero"] == notes["pid"] == ()
    assert notes["push"] == (f"in its training, 1 row ended as diverged because {why}",)
    assert not found.failures
    assert re.fullmatch(
        rf"in the data of its model, \d+ rows ended as diverged because {why}", notes["cem (linear)"][0]
    )
    assert main(["compare", str(tmp_path / "c.toml"), "--out", str(tmp_path / "out"), "--workers", "0"]) == 0
    said = f"push, seed 0: in its training, 1 row ended as diverged because {why}."
    assert f"fragile_lab:Fragile, {said}" in " ".join(capsys.readouterr().out.split())
    write_report(found, tmp_path / "r.html")
    assert said.replace("'", "&#39;") in (tmp_path / "r.html").read_text()
    assert said in page(found) and said.removeprefix("push, seed 0: ")[:-1] in to_json(found)


def test_a_row_that_an_evaluation_loses_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fragile_lab.py").write_text(FRAGILE)
    monkeypatch.syspath_prepend(tmp_path)
    pid = {"use": "pid", "settings": {"kp": 0.0, "ki": 0.0, "error": [[1.0]]}}
    plant = {"id": "fragile_lab:Fragile", "max_episode_steps": 3, "controllers": [{"use": "zero"}, pid]}
    monkeypatch.setattr(PID, "decide", lambda self, m, budget_s: self.optimal(torch.ones_like(m.u_prev)))
    found = compare(parse_spec({"name": "c", "episodes": 3, "plants": [plant]}), tmp_path / "out")
    why = "3 rows ended as diverged because observation 'y0' was nan"
    assert [result.notes for result in found.results] == [(), (why,)]
    monkeypatch.setitem(
        gymnasium.registry, "Fragile-v0", EnvSpec("Fragile-v0", "fragile_lab:Fragile", max_episode_steps=3)
    )
    done = simulate("Fragile-v0", "pid", settings=pid["settings"])
    assert done.notes == (why.replace("3 rows", "1 row"),)


def test_remarks_of_processes_that_a_search_starts_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gauge breaks in worker processes only, so that nothing else can have told of it."""
    told = FRAGILE.replace("import gymnasium\n", "import multiprocessing\n\nimport gymnasium\n")
    child = "multiprocessing.parent_process() is not None"
    (tmp_path / "fragile_lab.py").write_text(told.replace("action[0] > 0.5", child))
    monkeypatch.syspath_prepend(tmp_path)
    search = {
        "search": "random", "options": {"size": 4}, "hidden": [2], "plant_steps": 400, "scenarios": 1, "explore": 1,
        "workers": 1,
    }  # fmt: skip
    rows = [{"use": "zero"}, {"use": "policy-search", "settings": search}]
    plant = {"id": "fragile_lab:Fragile", "max_episode_steps": 3, "controllers": rows}
    found = compare(parse_spec({"name": "c", "episodes": 2, "plants": [plant]}), tmp_path / "out")
    assert not found.failures
    zero, trained = (result.notes for result in found.results)
    assert zero == ()
    assert re.fullmatch(r"in its training, \d+ rows ended as diverged because observation 'y0' was nan", trained[0])
