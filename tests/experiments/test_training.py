"""One controller on one plant: trained, kept as a folder, loaded, and the same whatever interrupted it."""

import hashlib
import json
import re
from dataclasses import MISSING, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from steersman.controllers.policy_search.evaluation import Evaluation
from steersman.envs import make_simulator, noise
from steersman.experiments.cli import main
from steersman.experiments.comparison import jobs
from steersman.experiments.comparison.compare import check_problems
from steersman.experiments.exported import load_controller
from steersman.experiments.spec.settings import SpecError
from steersman.experiments.training import TrainingSpec, read_training, train
from steersman.optimizers import resumable

PLANT = '''
import torch

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.plant import Plant


class Cart(Plant):
    """Place and speed under a force."""

    gradient = "exact"

    def __init__(self, mass: float = 1.0):
        self.dt, self.hold, self.horizon, self.mass = 0.2, 1, 12, mass
        self.actions = ActionSet((-1.0,), (1.0,))
        self.objective = Objective((Quadratic(name="z", on="z", weights=(1.0, 0.1)), Quadratic(name="u", on="u", weights=(0.01,))))
        self.measured = self.performed = ("place", "speed")

    def params(self, key):
        return {}

    def initial(self, key, p):
        return noise.normal(key, 2, dtype=self.dtype)

    def step(self, k, x, u, w, p):
        speed = x[:, 1] + self.dt * u[:, 0] / self.mass
        return torch.stack([x[:, 0] + self.dt * speed, speed], dim=1)

    def measure(self, k, x, p):
        return x

    perform = measure
'''
SEARCH = """
[plant]
id = "train_cart:Cart"
settings = { mass = 0.5 }

[controller]
use = "policy-search"
settings = { hidden = [], plant_steps = 6_000, scenarios = 2, explore = 2 }
"""
NEURAL = """
episodes = 16
[plant]
id = "train_cart:Cart"

[model]
use = "neural"
label = "net"
settings = { context = 1, hidden = [8], members = 1, steps = 60, rollout = 2 }
data = { episodes = 8 }

[controller]
use = "neural"
settings = { hidden = [4], steps = 40, batch = 8, horizon = 8, explore = 2, renewals = 1, refit = 0 }
"""
FILES = ("controller.json", "controller.safetensors")


@pytest.fixture(autouse=True)
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train_cart.py").write_text(PLANT)
    for name, text in (("search", SEARCH), ("neural", NEURAL)):
        (tmp_path / f"{name}.toml").write_text(text)
    monkeypatch.chdir(tmp_path)


def trained(name: str, out: str, seed: int = 0) -> dict[str, str]:
    """The files of the controller by their digests."""
    _, path = train(replace(read_training(f"{name}.toml"), seed=seed), Path(out))
    assert path == Path(out) / "controller.json"
    return digests(out)


def digests(out: str) -> dict[str, str]:
    files = {path.name: path.read_bytes() for path in Path(out).iterdir() if path.is_file()}
    assert set(FILES) <= set(files)
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def test_it_is_trained_kept_and_judged(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "search.toml", "--out", "out", "--workers", "0", "--seed", "7"]) == 0
    told = capsys.readouterr().out
    assert "Controller: out/controller.json" in told and "Report: out/training/report.html" in told
    about = json.loads(Path("out/controller.json").read_text())["about"]
    cost = about["validation"]["cost"]
    assert set(cost) == {"policy-search", "zero", "constant"} and about["validation"]["episodes"] == 64
    assert cost["policy-search"] < 0.5 * cost["zero"] and cost["policy-search"] < 0.5 * cost["constant"]
    for name, value in cost.items():
        assert name in told and f"{value:.4g}" in told
    law = load_controller("out", episode=True)
    simulator = make_simulator("train_cart:Cart", 1, mass=0.5)
    costs = []
    for row in range(4):
        simulator.reset(simulator.scenarios(noise.keys(2026, 1, start=row)))
        law.reset()
        total = 0.0
        for _ in range(12):
            u = law(simulator.measure().y[0].numpy())
            assert law.outcome == 0 and -1 <= u[0] <= 1
            total += float(simulator.step(torch.from_numpy(u)[None]).cost)
        costs.append(total)
    (run,) = Path("out/training/store").glob(f"{about['run']}.npz")
    np.testing.assert_allclose(costs, np.load(run)["cost"][:4], rtol=1e-9)
    # Again: nothing is trained, and the folder is what it was. Another seed: it is not.
    files = digests("out")
    Path("out/controller.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluation, "__call__", lambda *args: pytest.fail("it was trained again"))
        assert trained("search", "out", 7) == files
    assert trained("search", "out")["controller.safetensors"] != files["controller.safetensors"]
    assert about["seed"] == 7 and json.loads(Path("out/controller.json").read_text())["about"]["seed"] == 0


class Interruptions:
    """Reports of jobs, and Ctrl-C at one of them."""

    def __init__(self) -> None:
        self.told = list[str]()
        self.at: tuple[str, int] | None = None

    def __call__(self, fraction: float, text: str) -> None:
        self.told.append(text)
        if self.at is not None and self.count(self.at[0]) == self.at[1]:
            raise KeyboardInterrupt

    def count(self, part: str) -> int:
        return sum(part in text for text in self.told)


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Interruptions:
    monkeypatch.setattr(resumable, "SAVE_EVERY_S", 0.0)
    found = Interruptions()
    monkeypatch.setattr(jobs, "_reporter", lambda store, key: found)
    return found


@pytest.mark.parametrize(
    ("name", "stops"),
    [("search", [("training", 14)]), ("neural", [("fitting: val", 1), ("training", 7)])],
)
def test_what_was_interrupted_ends_with_the_same_bits(
    name: str, stops: list[tuple[str, int]], reports: Interruptions, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = trained(name, "whole")
    trainings, fits = reports.count("training"), reports.count("fitting")
    for stop in stops:
        reports.told, reports.at = [], stop
        assert main(["train", f"{name}.toml", "--out", "again", "--workers", "0"]) == 130
        assert "the same command continues from here" in capsys.readouterr().err
        assert not Path("again/controller.json").exists()
    reports.told, reports.at = [], None
    assert trained(name, "again") == whole
    assert reports.count("training") <= trainings - 6 and (not fits or not reports.count("fitting"))


def test_a_controller_that_learns_nothing_has_its_model_fitted() -> None:
    text = (
        '[plant]\nid = "train_cart:Cart"\n[model]\nuse = "linear"\ndata = { episodes = 4 }\n[controller]\nuse = "lqr"\n'
    )
    Path("lqr.toml").write_text("episodes = 8\n" + text)
    assert "model.safetensors" in trained("lqr", "lqr")
    u = load_controller("lqr")([1.0, 0.0])
    assert -1 <= u[0] < -0.1


def test_a_training_that_fails_leaves_no_controller(capsys: pytest.CaptureFixture[str]) -> None:
    Path("train_broken.py").write_text(
        "from steersman.controllers.base import Controller\n\n\nclass Broken(Controller):\n"
        "    def train(self, training):\n        raise RuntimeError('no fuel')\n\n"
        "    def decide(self, m, budget_s):\n        return self.optimal(m.y[:, :1])\n"
    )
    Path("bad.toml").write_text(
        'episodes = 4\n[plant]\nid = "train_cart:Cart"\n[controller]\nuse = "train_broken:Broken"\n'
    )
    assert main(["train", "bad.toml", "--out", "bad", "--workers", "0"]) == 1
    assert "no fuel" in capsys.readouterr().err and not Path("bad/controller.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("hidden = [4], ", "hiden = [4], "), "controller.settings.hiden: unknown key"),
        (("members = 1", "members = 0"), "model"),
        (("train_cart:Cart", "train_cart:Carr"), "plant: .*Cart"),
        (("episodes = 16", "epsiodes = 16"), "epsiodes: unknown key"),
        (("episodes = 16", "seed = -1"), "^seed must be at least 0"),
        (("episodes = 16", "episodes = 0"), "episodes must be at least 1"),
        (('use = "neural"\nsettings = { hidden', 'use = "nural"\nsettings = { hidden'), "controller.*neural"),
        (
            ('use = "neural"\nsettings = { hidden', 'use = "neural"\nmodel = "truth"\nsettings = { hidden'),
            "controller.model: the file describes the model 'net', and names 'truth'",
        ),
    ],
)
def test_wrong_keys_are_named_as_the_file_has_them(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    assert change[0] in NEURAL
    Path("wrong.toml").write_text(NEURAL.replace(*change))
    with pytest.raises(SpecError, match=message) as error:
        train(read_training("wrong.toml"), tmp_path / "out")
    assert "plants" not in str(error.value) and not (tmp_path / "out").exists()


def test_what_is_no_training_file_is_told() -> None:
    with pytest.raises(SpecError, match=r"no such file: nothing\.toml; a training file is TOML with"):
        read_training("nothing.toml")
    Path("half.toml").write_text("[plant")
    with pytest.raises(SpecError, match=r"half\.toml is not valid TOML"):
        read_training("half.toml")
    Path("half.toml").write_text('[plant]\nid = "train_cart:Cart"\n')
    with pytest.raises(SpecError, match="controller: this key is required"):
        read_training("half.toml")


# ------------------------------------------------------------------ the page


def test_the_page_names_every_key_and_its_files_can_run(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "experiments" / "training-files.md").read_text()
    told = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page, flags=re.MULTILINE))
    defaults = {field.name: field.default for field in fields(TrainingSpec)}
    assert set(told) == set(defaults)
    for name, default in defaults.items():
        if default not in (MISSING, None, ""):
            assert told[name] == f"`{json.dumps(default)}`"
    planned, fitted = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    Path("page.toml").write_text(planned)
    check_problems(read_training("page.toml").comparison)
    Path("fitted.toml").write_text(fitted)
    spec = read_training("fitted.toml")
    assert spec.comparison.plants[0].controllers[0].use == "pid"
