"""The README's examples are executed, so that they stay true."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from steersman.controllers.registry import controller_spec, make_controller
from steersman.controllers.rollout import run_episodes
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.registry import make_model
from steersman.envs import make_simulator, noise
from steersman.envs.abm.mesa_simulator import MesaSimulator
from steersman.experiments.checking import check
from steersman.experiments.comparison.compare import check_problems
from steersman.experiments.listing import settings
from steersman.experiments.spec.comparison import read_spec
from steersman.experiments.spec.plan import plan

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(language: str, number: int = 0) -> str:
    return str(re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)[number])


def test_quickstart(capsys: pytest.CaptureFixture[str]) -> None:
    code = block("python")
    assert len(code.splitlines()) <= 35
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    zero, lqr = (float(line.rpartition(" ")[2]) for line in capsys.readouterr().out.splitlines())
    assert lqr < 0.1 * zero


def test_own_controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "readme_mine.py").write_text(block("python", 1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert len(check("readme_mine:Relay")) == 5
    (row,) = [s for s in settings(controller_spec("readme_mine:Relay").make)]
    assert (row.name, row.default, row.text) == ("torque", "2.0", "Size of the action.")
    simulator = make_simulator("steersman/Pendulum-v1", 8)
    scenarios = simulator.scenarios(noise.keys(0, 8))
    costs = []
    for name in ("zero", "readme_mine:Relay"):
        act = make_controller(name).bind(simulator.problem).act
        costs.append(run_episodes(simulator, scenarios, lambda m, act=act: act(m).u).cost.mean())
    assert costs[1] < 0.9 * costs[0]
    assert len(check("readme_mine:LeastSquares")) == 4
    data = collect(simulator, HeldLevels(), episodes=8, steps=40, seed=0)
    model = make_model("readme_mine:LeastSquares", None).bind(simulator.problem).fit(data)
    y, _ = model.rollout(data.y[:, 0], data.u[:, :1])
    assert (y[:, 0] - data.y[:, 1]).abs().mean() < 0.3 * (data.y[:, 1] - data.y[:, 0]).abs().mean()


def test_mesa_model() -> None:
    code = block("python", 2)
    assert len(code.splitlines()) <= 25
    names: dict[str, Any] = {"__name__": "my_twin"}
    exec(compile(code, "README.md", "exec"), names)
    simulator = MesaSimulator(names["virus"], 2)
    simulator.reset(simulator.scenarios(noise.keys(0, 2)))
    assert float(simulator.step(torch.ones(2, 1, dtype=torch.float64)).cost.min()) > 0


def test_comparison_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(block("toml"))
    spec = read_spec(str(tmp_path / "mine.toml"))
    check_problems(spec)
    assert len(plan(spec)) == 2


def test_pictures_exist() -> None:
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (Path(__file__).parents[2] / path).is_file(), path


def test_own_equation(capsys: pytest.CaptureFixture[str]) -> None:
    code = block("python", 3)
    assert len(code.splitlines()) <= 40
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert 0 < float(capsys.readouterr().out.split()[-1]) < 100


def test_own_grid(capsys: pytest.CaptureFixture[str]) -> None:
    code = block("python", 4)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    spread, swing = capsys.readouterr().out.splitlines()
    assert 10 < float(spread.split()[-2]) < 180
    assert swing.startswith("['0.65 Hz, 3.4 %'")
