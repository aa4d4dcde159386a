"""Controllers, models, searches and policies of somebody else's: found, checked, compared, and watched for edits."""

import importlib
import json
from importlib import metadata
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch

from steersman.controllers.kinds import POLICIES, SEARCHES
from steersman.controllers.registry import CATALOGUE, controller_spec
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.registry import make_model, model_spec
from steersman.envs import make_simulator
from steersman.envs.catalogue import Catalogue
from steersman.experiments.checking import check
from steersman.experiments.cli import main
from steersman.experiments.comparison.compare import compare
from steersman.experiments.listing import member, settings
from steersman.experiments.spec.comparison import read_spec
from steersman.experiments.spec.settings import SpecError

CODE = '''
import torch
from steersman.controllers.base import Controller, TrainingCost
from steersman.dynamics.base import Dynamics
from steersman.dynamics.linear.models import LinearDynamics
from steersman.envs.plant import Plant
from steersman.optimizers.policies.mlp import MLPPolicy
from steersman.optimizers.random_search import RandomSearch


class Relay(Controller):
    """Full torque against the speed. More follows."""

    def __init__(self, torque: float = 1.0, *, side: int = 1) -> None:
        """Store the settings.

        Args:
            torque: Size of the action,
                in Nm.
            side: Sign.
        """
        self.torque, self.side = torque, side

    def decide(self, m, budget_s):
        return self.optimal(-self.side * self.torque * torch.sign(m.y[:, 2:3]))


class Chance(Controller):
    """Forgets to take the generator."""

    name = "chance"

    def decide(self, m, budget_s):
        return self.optimal(torch.randn(m.n, 1, dtype=m.y.dtype))

    def train(self, training):
        return TrainingCost(7)


class Planner(Controller):
    """Wants a model."""

    needs_model = True
    learns = False

    def decide(self, m, budget_s):
        return self.optimal(m.y[:, :1] * 0)

    def train(self, training):
        return TrainingCost()


class Lawless(Controller):
    pass


class Short(LinearDynamics):
    """A linear model that sees one measurement."""

    def __init__(self) -> None:
        super().__init__(1)


def drawn(plant, at: str = "zero"):
    """A model of a plant."""


class Walk(RandomSearch):
    """A search of its own."""

    name = "walk"


class Net(MLPPolicy):
    """A policy of its own."""

    name = "net"


class Kept(Dynamics):
    """Persistence with a learned mean."""

    def fit(self, data):
        self.mean_ = data.y.mean(dim=(0, 1))
        self.size_ = torch.tensor(float(len(data)))
        return self

    def init(self, window):
        return window.now.y + 0 * self.mean_

    def step(self, h, u):
        return 0.5 * h + 0.5 * self.mean_ + 0.1 * u

    def output(self, h):
        return h, h[:, :1] * torch.ones(1, 2, dtype=h.dtype)


class Lost(Kept):
    """The same, with what nobody saves."""

    def fit(self, data):
        self.mean = data.y.mean(dim=(0, 1))
        return self

    def init(self, window):
        return window.now.y + 0 * self.mean

    def step(self, h, u):
        return 0.5 * h + 0.5 * self.mean + 0.1 * u


class Never(Controller):
    """Raises."""

    def decide(self, m, budget_s):
        raise KeyError("the sun")


class Bare(Controller):
    """Returns what is no decision."""

    def decide(self, m, budget_s):
        return m.y[:, :1]


class Outer:
    class Inner(Relay):
        pass


class Hinted(Controller):
    """Names a type that only checkers see."""

    def __init__(self, place: "Nowhere | None" = None) -> None:
        pass

    def decide(self, m, budget_s):
        return self.optimal(m.y[:, :1] * 0)


class NoPlant(Plant):
    pass


number = 3
thing = Relay()
'''

DATA = collect(make_simulator("steersman/Pendulum-v1", 2), HeldLevels(), episodes=2, steps=10, seed=0)
FILE = """
episodes = 3
[[plants]]
id = "steersman/Pendulum-v1"
[[plants.models]]
use = "{module}:Short"
data = {{ episodes = 4, steps = 30 }}
[[plants.controllers]]
use = "zero"
[[plants.controllers]]
use = "{module}:Relay"
settings = {{ torque = 2.0 }}
[[plants.controllers]]
use = "mppi"
model = "{module}:Short"
settings = {{ horizon = 4, samples = 8 }}
episodes = 1
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Name of a module beside the user, another one in each test."""
    name = f"own_members_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(dedent(CODE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return name


def test_a_class_says_what_a_list_would(own: str) -> None:
    relay, chance, planner = (controller_spec(f"{own}:{name}") for name in ("Relay", "Chance", "Planner"))
    assert [spec.make.name for spec in (relay, chance, planner)] == ["Relay", "chance", "Planner"]
    assert (relay.learns, relay.needs_model, relay.summary) == (
        False,
        False,
        "Full torque against the speed. More follows",
    )
    assert (chance.learns, planner.learns, planner.needs_model) == (True, False, True)
    short, drawn = model_spec(f"{own}:Short"), model_spec(f"{own}:drawn")
    assert (short.needs_plant, drawn.needs_plant, short.hasty) == (False, True, None)
    assert SEARCHES.find(f"{own}:Walk").kind.name == "walk" and POLICIES.find(f"{own}:Net").kind.name == "net"


@pytest.mark.parametrize(
    ("find", "name", "message"),
    [
        (controller_spec, "Relai", "module '{m}' has no 'Relai' \\(did you mean 'Relay'\\?\\)"),
        (
            controller_spec,
            "Short",
            "'{m}:Short' is no controller but Short; derive it from steersman.controllers.base.C",
        ),
        (controller_spec, "number", "is no controller but int"),
        (controller_spec, "Lawless", "controller '{m}:Lawless' lacks decide"),
        (model_spec, "Relay", "'{m}:Relay' is no model but Relay"),
        (model_spec, "number", "is no model but int; name a class, or a function that makes one"),
        (SEARCHES.find, "Net", "'{m}:Net' is no search; derive a class from steersman.optimizers.base.Search"),
        (POLICIES.find, "Walk", "'{m}:Walk' is no policy"),
    ],
)
def test_what_is_none_is_refused_with_the_remedy(own: str, find: Any, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("{m}", own)):
        find(f"{own}:{name}")


def test_unknown_names_are_told_with_what_was_meant() -> None:
    with pytest.raises(
        ValueError, match=r"unknown controller 'mpi' \(did you mean 'mppi'\?\); known: zero, .*module:Name"
    ):
        controller_spec("mpi")
    with pytest.raises(ValueError, match="No module named 'nowhere'; run steersman in the folder of that module"):
        CATALOGUE.find("nowhere:Thing")


def test_installed_packages_enrol_their_members(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def entry_points(*, group: str) -> list[metadata.EntryPoint]:
        asked.append(group)
        return [metadata.EntryPoint("relay", f"{own}:Relay", group)]

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    catalogue = Catalogue("controller", CATALOGUE.ours, CATALOGUE._own)
    assert catalogue.find("relay").target == f"{own}:Relay" and catalogue.find("relay").name == "relay"
    assert catalogue.find("zero") is CATALOGUE.find("zero")
    assert Catalogue("policy", (), POLICIES._own).installed == {"relay": f"{own}:Relay"}
    assert asked == ["steersman.controllers", "steersman.policies"]


def test_they_are_compared_and_an_edit_makes_their_runs_again(own: str, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(FILE.format(module=own))
    first = compare(read_spec("own.toml"), tmp_path / "out")
    assert not first.failures
    assert [r.controller for r in first.results] == ["zero", f"{own}:Relay", f"mppi ({own}:Short)"]
    assert first.results[1].cost.mean() != first.results[0].cost.mean()
    assert first.results[2].train_steps == 120
    module = tmp_path / f"{own}.py"
    module.write_text(module.read_text().replace("-self.side", "+self.side"))
    second = compare(read_spec("own.toml"), tmp_path / "out")
    assert [a.key == b.key for a, b in zip(first.results, second.results, strict=True)] == [True, False, False]
    assert second.results[1].cost.mean() != first.results[1].cost.mean()


def test_a_search_and_a_policy_of_ones_own_are_trained(own: str, tmp_path: Path) -> None:
    text = (
        FILE.format(module=own).partition("[[plants.models]]")[0]
        + f"""
[[plants.controllers]]
use = "zero"
[[plants.controllers]]
use = "policy-search"
settings = {{ search = "{own}:Walk", policy = "{own}:Net", plant_steps = 40000, hidden = [2], options = {{ size = 4 }} }}
"""
    )
    (tmp_path / "own.toml").write_text(text)
    spec = read_spec("own.toml")
    found = compare(spec, tmp_path / "out")
    assert not found.failures and found.results[1].train_steps > 20000
    bad = text.replace(f"{own}:Walk", f"{own}:Wolk")
    (tmp_path / "own.toml").write_text(bad)
    with pytest.raises(SpecError, match="has no 'Wolk' \\(did you mean 'Walk'\\?\\)"):
        compare(read_spec("own.toml"), tmp_path / "out")


def test_list_shows_settings_with_defaults_and_meanings(own: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", f"{own}:Relay", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["settings"][0]) == (
        "controller",
        {"name": "torque", "type": "float", "default": "1.0", "text": "Size of the action, in Nm."},
    )
    assert [s["name"] for s in told["settings"]] == ["torque", "side"]
    assert main(["list", "mppi"]) == 0
    assert "Control steps that a plan looks ahead" in " ".join(capsys.readouterr().out.split())
    assert main(["list", "searches"]) == 0
    assert "cma_es" in (out := capsys.readouterr().out) and "mppi" not in out
    assert main(["list", "contrllers"]) == 2
    assert "did you mean 'controllers'?" in capsys.readouterr().err
    assert main(["list", f"{own}:Missing"]) == 2


@pytest.mark.parametrize("name", ["neural", "steersman/TwoArea-v2", "Heat-v1", "cma_es", "spiking", "linearized"])
def test_members_of_every_kind_have_settings_that_are_explained(name: str) -> None:
    found = member(name)
    assert found is not None
    assert all(s.type for s in settings(found[2]))
    assert sum(bool(s.text) for s in settings(found[2])) >= 0.5 * len(settings(found[2]))


def test_check_says_what_holds_and_what_is_broken(own: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", f"{own}:Relay"]) == 0
    assert capsys.readouterr().out.count("passed") == 5
    assert main(["check", f"{own}:Chance"]) == 1
    assert (
        "broken: two runs after reset with equal generators differ: draw from the generator" in capsys.readouterr().out
    )
    assert main(["check", f"{own}:Relai"]) == 2
    assert "did you mean 'Relay'" in capsys.readouterr().err
    assert main(["check", "zero"]) == 2
    assert "is not module:Name, such as mine:Relay" in capsys.readouterr().err
    assert main(["check", f"{own}:Lawless"]) == 2


def test_check_knows_models_plants_and_environments(own: str) -> None:
    assert len(check(f"{own}:Short")) == 4
    assert "pure functions" in " ".join(check("steersman.envs.classic.pendulum:Pendulum"))
    env = "gymnasium.envs.classic_control.pendulum:PendulumEnv"
    assert check(env, max_episode_steps=20)[-1] == "a seed repeats its episode"
    with pytest.raises(ValueError, match="has no max_episode_steps"):
        check(env)


def row(own: str, name: str, model: str = "") -> str:
    """A comparison file with a controller beside doing nothing."""
    text = FILE.format(module=own).partition("[[plants.models]]")[0] + '[[plants.controllers]]\nuse = "zero"\n'
    if not model:
        return text + f'[[plants.controllers]]\nuse = "{own}:{name}"\n'
    data = "data = { episodes = 2, steps = 10 }"
    head, _, tail = text.partition("[[plants.controllers]]")
    planner = f'use = "mppi"\nmodel = "{own}:{model}"\nsettings = {{ horizon = 2, samples = 4 }}\nepisodes = 1'
    return f'{head}[[plants.models]]\nuse = "{own}:{model}"\n{data}\n[[plants.controllers]]{tail}[[plants.controllers]]\n{planner}\n'


def told(own: str, tmp_path: Path, *names: str, **more: str) -> list[str]:
    """Errors of the rows that failed."""
    (tmp_path / "own.toml").write_text(row(own, *names, **more))
    return [f.error for f in compare(read_spec("own.toml"), tmp_path / "out").failures]


def test_what_a_model_has_learned_is_kept_or_the_fit_fails(own: str, tmp_path: Path) -> None:
    assert told(own, tmp_path, "", model="Kept") == []
    (error,) = told(own, tmp_path, "", model="Lost")
    assert "cannot be restored (AttributeError" in error and "with an underscore at the end" in error
    kept = make_model(f"{own}:Kept", None)
    kept.fit(DATA)
    assert set(kept.state_dict()) == {"mean_", "size_"}
    other = make_model(f"{own}:Kept", None)
    other.load_state_dict(kept.state_dict())
    assert torch.equal(other.mean_, kept.mean_)
    assert check(f"{own}:Kept")
    with pytest.raises(AssertionError, match=rf"Lost raised AttributeError: .*'mean' \({own}.py:\d+, in init\)"):
        check(f"{own}:Lost")


def test_a_controller_that_never_decides_has_no_result(own: str, tmp_path: Path) -> None:
    (error,) = told(own, tmp_path, "Never")
    assert "it never decided, in 200 steps: Never failed to decide: KeyError: 'the sun' (the first of 200)" in error
    (error,) = told(own, tmp_path, "Bare")
    assert "decide must return a Decision, got Tensor; return self.optimal(u)" in error


def test_modules_that_end_the_interpreter_and_types_that_nobody_has_are_told(own: str, tmp_path: Path) -> None:
    (tmp_path / f"{own}_exits.py").write_text("import sys; sys.exit(3)")
    with pytest.raises(ValueError, match=r"its module cannot be imported \(SystemExit: 3\)"):
        controller_spec(f"{own}_exits:Relay")
    with pytest.raises(SpecError, match=r"an annotation of Hinted cannot be read .*'Nowhere'"):
        told(own, tmp_path, "Hinted")
    (place,) = settings(controller_spec(f"{own}:Hinted").make)
    assert (place.name, place.type) == ("place", "Nowhere | None")
    assert controller_spec(f"{own}:Outer.Inner").make.__qualname__ == "Outer.Inner"
    with pytest.raises(ValueError, match="is not module:Name; name the module before the colon"):
        controller_spec(f"{own}:")


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("Planner", {}, "plans with a model; name one, for example --model truth"),
        ("Relay", {"settings": {"torqe": 1}}, r"--settings.torqe: unknown key \(did you mean 'torque'\?\)"),
        ("thing", {}, "is an object; name its class, Relay"),
        ("Outer", {}, "is of no kind that can be checked; derive it from one of .*Controller"),
        ("Walk", {}, "is a search or a policy"),
        ("NoPlant", {}, "'{m}:NoPlant' lacks .*step"),
    ],
)
def test_what_cannot_be_checked_says_why(own: str, name: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("{m}", own)):
        check(f"{own}:{name}", **more)


def test_checks_take_settings_models_and_environments_without_an_end(own: str) -> None:
    assert check(f"{own}:Planner", model="truth") and check(f"{own}:Relay", settings={"torque": 0.5})
    on = "gymnasium.envs.classic_control.pendulum:PendulumEnv"
    assert check(f"{own}:Relay", on, max_episode_steps=20)
