"""The command line: what it prints, and that bad input ends in one clear line."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from steersman.envs.scenarios import Scenarios
from steersman.experiments import cli
from steersman.experiments.benchmarks import gpu
from steersman.experiments.benchmarks.base import BENCHMARKS, Row, bench_table, run_benchmark, throughput, write_rows
from steersman.experiments.cli import main
from steersman.experiments.spec.comparison import parse_spec
from steersman.experiments.spec.settings import SpecError
from steersman.experiments.studies import publish
from steersman.experiments.studies.abm import control as abm_control
from steersman.experiments.studies.registry import run_study


def output(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(list(args)) == 0
    return capsys.readouterr().out


def error(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(list(args)) == 2
    text = capsys.readouterr().err
    assert text.startswith("error:") and "Traceback" not in text
    return " ".join(text.split())


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = json.loads(output(capsys, "list", "--json"))
    assert "steersman/WolfSheep-v1" in kinds["plants"] and "tour" in kinds["presets"]
    assert {"zero", "pid", "lqr", "mppi"} <= set(kinds["controllers"]) and "envs" in kinds["benchmarks"]
    assert "steersman/TwoArea-v1" in output(capsys, "list")


def test_compare_writes_a_report(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'episodes = 5\n[[plants]]\nid = "steersman/Pendulum-v1"\n'
        '[[plants.controllers]]\nuse = "zero"\n[[plants.controllers]]\nuse = "pid"\n'
    )
    args = ("compare", str(file), "--out", str(tmp_path / "r"), "--workers", "0", "--episodes", "2")
    scores = json.loads(output(capsys, *args, "--json"))["scores"]
    assert [(s["controller"], s["scenarios"]) for s in scores] == [("zero", 2), ("pid", 2)]
    assert (tmp_path / "r" / "report.html").stat().st_size > 10_000
    assert "pid" in output(capsys, *args) and (tmp_path / "r" / "results.parquet").is_file()


@pytest.mark.parametrize("env", ["steersman/Pendulum-v1", "CartPole-v1"])
def test_simulate_films(env: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    film = tmp_path / "films" / "a.gif"
    args = ("simulate", env, "--steps", "3", "--gif", str(film), "--json")
    if env == "CartPole-v1":
        pytest.importorskip("pygame")
    found = json.loads(output(capsys, *args))
    assert found["steps"] == 3 and found["status"] == "OK"
    with Image.open(film) as frames:
        assert frames.n_frames == 4


def test_simulate_with_a_planner(capsys: pytest.CaptureFixture[str]) -> None:
    settings = '{"horizon": 4, "samples": 8}'
    args = ("simulate", "steersman/Pendulum-v1", "--controller", "mppi", "--settings", settings, "--steps", "5")
    assert "over 5 control steps" in output(capsys, *args)


def test_scenarios_are_written_with_their_hash(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "bank" / "pendulum.safetensors"
    printed = output(capsys, "scenarios", "steersman/Pendulum-v1", "--episodes", "3", "--out", str(path))
    assert printed.split()[0] == Scenarios.load(path).digest() and len(Scenarios.load(path)) == 3
    other = output(capsys, "scenarios", "steersman/Pendulum-v1", "--episodes", "3", "--seed", "1", "--out", str(path))
    assert other.split()[0] != printed.split()[0]


def test_scenarios_of_what_is_not_ours(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plant of one's own has parameters and states in its file; an environment's scenarios are seeds."""
    monkeypatch.chdir(tmp_path)
    own = output(capsys, "scenarios", "steersman.envs.classic.pendulum:Pendulum", "--episodes", "3")
    shipped = output(capsys, "scenarios", "steersman/Pendulum-v1", "--episodes", "3")
    assert own.split()[0] == shipped.split()[0] and "seeds alone" not in own
    assert Path(own.split()[1]) == Path("results/scenarios/steersman.envs.classic.pendulum-Pendulum-2026.safetensors")
    foreign = output(capsys, "scenarios", "CartPole-v1", "--episodes", "3")
    assert "It holds seeds alone" in foreign and len(Scenarios.load(Path(foreign.split()[1]))) == 3


SILENT = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Silent(gymnasium.Env):
    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {}


def make():
    return gymnasium.wrappers.TimeLimit(Silent(), 3)
"""


@pytest.mark.parametrize("env", ["silent_lab:make", "mesa"])
def test_what_draws_no_pictures_says_so(
    env: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "silent_lab.py").write_text(SILENT)
    monkeypatch.syspath_prepend(tmp_path)
    id = env if ":" in env else "steersman.envs.abm.mesa_examples:virus"
    said = error(capsys, "simulate", id, "--gif", str(tmp_path / "t.gif"))
    assert said == f"error: --gif: this environment draws no pictures ({id}); leave --gif out"
    assert not (tmp_path / "t.gif").exists()
    if ":" in env:
        assert "over 3 control steps" in output(capsys, "simulate", id)


BAD = {
    "no scenarios": (("scenarios", "steersman/Pendulum-v1", "--episodes", "0"), "--episodes is 0"),
    "preset": (("compare", "nothing"), "unknown preset 'nothing'; known:"),
    "file": (("compare", "nothing.toml"), "no such file"),
    "environment": (("simulate", "Nothing-v3"), "unknown environment 'Nothing-v3'"),
    "plant": (("simulate", "steersman/Nothing-v3"), "unknown plant"),
    "controller": (("simulate", "steersman/Pendulum-v1", "--controller", "oracle"), "unknown controller 'oracle'"),
    "setting": (
        ("simulate", "steersman/Pendulum-v1", "--controller", "pid", "--settings", '{"kq": 1}'),
        "--settings.kq: unknown key",
    ),
    "json": (("simulate", "steersman/Pendulum-v1", "--settings", "{"), "--settings is not JSON"),
    "horizon": (
        ("simulate", "steersman/Pendulum-v1", "--controller", "mppi", "--settings", '{"horizon": -1}'),
        "horizon must be at least 1, got -1",
    ),
    "steps": (("simulate", "steersman/Pendulum-v1", "--steps", "900"), "between 1 and the horizon 200, got 900"),
    "film": (("simulate", "steersman/Pendulum-v1", "--gif", "a.mp4"), "must name a .gif file"),
    "fitted": (
        ("simulate", "steersman/Pendulum-v1", "--controller", "mppi", "--model", "neural"),
        "has to be fitted to data",
    ),
    "workers": (("compare", "tour", "--workers", "-1"), "--workers must be 1 or more, or 0 to run everything in this"),
    "a limit that nothing keeps": (
        ("compare", "tour", "--workers", "0", "--limit-s", "5", "--out", "/nowhere/at/all"),
        "limit_s = 5: a job that runs in this process cannot be ended; leave limit_s out, or give jobs processes of",
    ),
    "benchmark": (("bench", "nothing"), "unknown benchmark 'nothing'; known: envs"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    args, message = BAD[case]
    assert message in error(capsys, *args)


def test_a_store_of_a_later_version_is_one_clear_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with closing(sqlite3.connect(tmp_path / "store" / "store.sqlite")) as db:
        db.execute("PRAGMA user_version=99")
    assert "has layout 99" in error(capsys, "compare", "tour", "--out", str(tmp_path))


def test_runs_are_listed_shown_and_deleted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'episodes = 2\n[[plants]]\nid = "steersman/Pendulum-v1"\n[[plants.controllers]]\nuse = "zero"\n'
    )
    out = str(tmp_path / "r")
    output(capsys, "compare", str(tmp_path / "mine.toml"), "--out", out, "--workers", "0")
    listed = output(capsys, "runs", out)
    assert "zero" in listed and listed.count("done") == 2
    key = next(line.split()[0] for line in listed.splitlines() if " run " in line)
    shown = json.loads(output(capsys, "runs", out, "--show", key[:8]))
    assert shown["spec"]["controller"]["use"] == "zero" and f"{key}.npz" in shown["files"]
    assert "fits 0 jobs" in error(capsys, "runs", out, "--show", "nothing")
    assert "deleted 1 of 2 jobs" in output(capsys, "runs", out, "--delete", key)
    assert not list((tmp_path / "r" / "store").glob(f"{key}.*"))
    assert "deleted 0 of 1 jobs" in output(capsys, "runs", out, "--delete", "older")
    assert "no store in" in error(capsys, "runs", str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["a/b", "..", "", "täglich", "a\nb"])
def test_names_that_would_be_strange_folders_are_refused(name: str) -> None:
    with pytest.raises(SpecError, match="name becomes a folder"):
        parse_spec({"name": name, "plants": [{"id": "steersman/Pendulum-v1", "controllers": [{"use": "zero"}]}]})


def test_files_that_are_no_utf8_and_numbers_that_are_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes("summary = 'Kläranlage'".encode("latin-1"))
    assert "is not UTF-8 text" in error(capsys, "compare", str(file))
    plant = '[[plants]]\nid = "steersman/Pendulum-v1"\n[[plants.controllers]]\nuse = "pid"\nsettings = { kp = nan }\n'
    file.write_text(plant)
    assert "plants.0.controllers.0.settings.kp: numbers must be finite, got nan" in error(capsys, "compare", str(file))
    for line in ("episodes = 10000000", "seeds = 5000", "bank = -1", "limit_s = 0.0"):
        file.write_text(f"{line}\n{plant.replace('nan', '1.0')}")
        assert f"{line.split()[0]} must be" in error(capsys, "compare", str(file))


def test_an_interrupt_says_how_to_go_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: cli.List, console: Console) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.List, "run", interrupted)
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "stopped; the same command continues from here\n"


def test_module_runs_as_a_program() -> None:
    command = [sys.executable, "-m", "steersman.experiments.cli", "list", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    assert "presets" in json.loads(run.stdout)


def test_benchmark_rows(tmp_path: Path) -> None:
    good, bad = Row("a", "x / s", 30.0, 10.0, "peer", 2.0), Row("b", "x / s", 10.0, 10.0, "peer", 2.0)
    assert good.ratio == 3.0 and good.holds and not bad.holds
    assert bench_table([good, bad]).row_count == 2
    write_rows([good, bad], tmp_path / "deep" / "rows.json", "steersman bench a")
    whole = json.loads((tmp_path / "deep" / "rows.json").read_text())
    assert [row["holds"] for row in whole["rows"]] == [True, False] and whole["machine"]
    with pytest.raises(ValueError, match="unknown benchmark"):
        run_benchmark("nothing")
    assert len({entry.name for entry in BENCHMARKS}) == len(BENCHMARKS)


def test_policies_trained_are_measured_on_any_device_and_a_missing_gpu_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu, "SECONDS", 0.02)
    small, large = gpu.rows(lambda fraction, text: None, "cpu", (("CartPole-v1", "int8"),), (8, 32))
    assert small.ours > 0 and large.ours > 0 and small.peer == large.peer > 0
    assert small.bar == 0 and large.bar == 20 and "32 int8 on the CPU" in large.case
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="not run: benchmark 'gpu' needs a CUDA device"):
        run_benchmark("gpu")


def test_throughput_counts_units_and_alternates() -> None:
    turns: list[str] = []

    def work(name: str, units: int) -> int:
        turns.append(name)
        return units + 0 * sum(range(20_000))

    ours, peer = throughput(lambda: work("ours", 1000), lambda: work("peer", 10), repeats=2)
    assert turns == ["ours", "peer"] * 3 and ours > peer > 0


def test_study_of_a_preset_is_published(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source = tmp_path / "tiny.toml"
    source.write_text(TINY_STUDY)
    monkeypatch.setattr(publish, "RESULTS", tmp_path / "published")
    console = Console(quiet=True)
    folder = publish.publish(str(source), tmp_path / "out", console, abm_control.claims)
    text = (folder / "tiny.md").read_text()
    assert "WolfSheep-v1: the best neural controller (neural, surrogate) costs" in text and "simulator ticks" in text
    assert (folder / "tiny.png").stat().st_size > 5_000
    assert json.loads((folder / "tiny.json").read_text())
    with pytest.raises(ValueError, match="unknown study 'abm'; known: abm-control"):
        run_study("abm", None, console)


TINY_STUDY = """
name = "tiny"
episodes = 2

[[plants]]
id = "steersman/WolfSheep-v1"
settings = { horizon = 6, warmup = 20 }

[[plants.models]]
use = "neural-ode"
settings = { steps = 2 }
data = { episodes = 4, share = 0.5 }

[[plants.controllers]]
use = "zero"

[[plants.controllers]]
use = "constant"
label = "grid search"
settings = { candidates = 9, scenarios = 1 }

[[plants.controllers]]
use = "neural"
label = "neural, surrogate"
model = "neural-ode"
settings = { steps = 2, batch = 2, explore = 2, horizon = 3 }
"""
