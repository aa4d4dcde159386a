"""Comparison runs end to end, small."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from steersman.experiments.comparison import runner
from steersman.experiments.comparison.compare import News, check_problems, compare
from steersman.experiments.comparison.results import Comparison
from steersman.experiments.comparison.store import Store
from steersman.experiments.report.page import terminal_tables, to_json, write_parquet, write_report
from steersman.experiments.spec.comparison import ComparisonSpec, parse_spec
from steersman.experiments.spec.settings import SpecError

SMALL = {"settings": {"hidden": [8], "members": 1, "steps": 20}, "data": {"episodes": 2, "steps": 20}}
PENDULUM: dict[str, Any] = {
    "id": "steersman/Pendulum-v1",
    "models": [{"use": "neural", **SMALL}],
    "controllers": [
        {"use": "zero"},
        {"use": "constant", "settings": {"candidates": 3, "scenarios": 1}},
        {"use": "mppi", "model": "neural", "settings": {"horizon": 2, "samples": 4}, "episodes": 2},
    ],
}
FOREIGN: dict[str, Any] = {
    "id": "Pendulum-v1",
    "objective": [
        {"kind": "linear", "on": "z", "weights": [-2, 0, 0]},
        {"kind": "quadratic", "on": "u", "weights": [0.001]},
    ],
    "models": [{"use": "linear", "data": SMALL["data"]}],
    "controllers": [
        {"use": "zero"},
        {"use": "cem", "model": "linear", "settings": {"horizon": 2, "samples": 8, "elites": 2}},
    ],
}


def spec(*plants: dict[str, Any], **more: Any) -> ComparisonSpec:
    return parse_spec({"name": "small", "episodes": 3, "plants": list(plants), **more})


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    out = tmp_path_factory.mktemp("small")
    return compare(spec(PENDULUM, FOREIGN), out, command="steersman compare <small>"), out


def test_rows_are_complete_and_paired(found: tuple[Comparison, Path]) -> None:
    comparison, _ = found
    assert not comparison.failures
    assert [(r.controller, len(r.cost)) for r in comparison.results] == [
        ("zero", 3), ("constant", 3), ("mppi (neural)", 2), ("zero", 3), ("cem (linear)", 3),
    ]  # fmt: skip
    for r in comparison.results:
        assert np.isfinite(r.cost).all() and (r.cost > 0).all() and (r.steps == 200).all() and r.inadmissible == 0
        assert r.latency.p50 > 0 and r.episodes.z.shape[1] == 201
    zero, constant, mppi = comparison.results[:3]
    assert zero.bank == constant.bank != mppi.bank
    assert zero.train_steps == 0 and constant.train_steps == 600 and mppi.train_steps == 40
    assert {r.track for r in comparison.results} == {"data only"}
    slow, correlation = comparison.notes
    assert slow == (
        "Pendulum-v1: mppi (neural) is slow and ran on the first 2 of 3 scenarios; its differences are paired on those."
    )
    assert correlation.startswith("Pendulum-v1: Planners minimise the stated objective; what is charged is minus the")


def test_outputs(found: tuple[Comparison, Path]) -> None:
    comparison, out = found
    write_report(comparison, out / "report.html")
    page = (out / "report.html").read_text()
    assert "steersman compare &lt;small&gt;" in page and "data:image/png;base64," in page
    assert not re.search(r'(src|href)="(?!data:|#)', page), "the page must not load anything"
    for r in comparison.results:
        assert r.controller in page
    write_parquet(comparison, out / "results.parquet")
    table = pq.read_table(out / "results.parquet")
    assert table.num_rows == 14 and sorted(set(table["scenario"].to_pylist())) == [0, 1, 2]
    rows = json.loads(to_json(comparison))["scores"]
    assert rows[1]["verdict"] == "not tested, n = 3" and rows[1]["interval"] is None and rows[0]["gain"] is None
    assert [t.row_count for t in terminal_tables(comparison)] == [3, 2]


def test_a_finished_comparison_does_nothing(found: tuple[Comparison, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    comparison, out = found

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("work was done again")

    monkeypatch.setattr(runner, "work", refuse)
    again = compare(spec(PENDULUM, FOREIGN), out)
    for a, b in zip(comparison.results, again.results, strict=True):
        assert np.array_equal(a.cost, b.cost) and a.latency == b.latency


def test_a_lost_result_is_made_again_and_equal(found: tuple[Comparison, Path]) -> None:
    comparison, out = found
    first = comparison.results[1]
    (out / "store" / f"{first.key}.npz").write_bytes(b"damaged")
    again = compare(spec(PENDULUM, FOREIGN), out).results[1]
    assert np.array_equal(first.cost, again.cost)


def test_a_failing_run_is_a_row_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {**PENDULUM, "controllers": PENDULUM["controllers"][:2]}
    real = runner._controller

    def fail(run: Any, model: Any, simulate: Any) -> Any:
        if run.controller.use == "constant":
            raise FloatingPointError("the sun was in its eyes")
        return real(run, model, simulate)

    monkeypatch.setattr(runner, "_controller", fail)
    news: list[News] = []
    comparison = compare(spec(broken), tmp_path, progress=news.append)
    assert [r.controller for r in comparison.results] == ["zero"]
    assert [f.error for f in comparison.failures] == ["FloatingPointError: the sun was in its eyes"]
    assert {job.state for n in news for _, job in n.jobs if n.phase in ("first rows", "runs")} >= {"done", "failed"}
    write_report(comparison, tmp_path / "report.html")
    assert "the sun was in its eyes" in (tmp_path / "report.html").read_text()
    monkeypatch.undo()
    assert len(compare(spec(broken), tmp_path).results) == 2


def test_finished_rows_are_told_of_while_others_are_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersman.experiments.comparison.compare.INTERIM_S", 0.0)
    monkeypatch.setattr("steersman.experiments.comparison.compare.INTERIM_SHARE", 0.0)
    seeds = {**PENDULUM, "seeds": 2, "controllers": [*PENDULUM["controllers"][:2], {"use": "mppi", "model": "truth"}]}
    seeds["controllers"][2] |= {"settings": {"horizon": 2, "samples": 4}, "episodes": 2}
    told: list[Comparison] = []
    news: list[News] = []
    whole = compare(spec(seeds, FOREIGN), tmp_path, progress=news.append, interim=told.append)
    assert [(c.waiting, [r.controller for r in c.results]) for c in told] == [
        (5, ["zero"]),
        (4, ["zero", "zero"]),  # the planner has fewer scenarios, so it is slow and comes after
        (3, ["zero", "mppi (truth)", "zero"]),
        (2, ["zero", "mppi (truth)", "zero"]),
        (1, ["zero", "constant", "constant", "mppi (truth)", "zero"]),
    ]
    assert whole.waiting == 0
    assert len(whole.results) == 6
    assert [n.phase for n in news if n.jobs][-1] == "runs"
    write_report(told[2], tmp_path / "so-far.html")
    assert "3 runs are still to come" in (tmp_path / "so-far.html").read_text()
    write_report(whole, tmp_path / "report.html")
    assert "still to come" not in (tmp_path / "report.html").read_text()


def test_changed_scenarios_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from steersman.envs.classic.pendulum import Pendulum

    one = {**PENDULUM, "controllers": PENDULUM["controllers"][:1]}
    two = {**PENDULUM, "controllers": PENDULUM["controllers"][:2]}
    compare(spec(one), tmp_path)
    honest = Pendulum.initial
    monkeypatch.setattr(Pendulum, "initial", lambda self, key, p: honest(self, key, p) * 0.5)
    found = compare(spec(two), tmp_path)
    assert [r.controller for r in found.results] == ["zero"]
    assert "it met other scenarios than zero" in found.failures[0].error


CHECKS = {
    "unknown plant": ({**PENDULUM, "id": "steersman/Nothing-v1"}, r"plants\.0: unknown plant .*known: steersman/"),
    "unknown environment": ({**PENDULUM, "id": "Nothing-v9"}, "unknown environment 'Nothing-v9'"),
    "unknown output": ({**PENDULUM, "shown": ["height"]}, "no output 'height'; known: theta"),
    "bad setting": (
        {**PENDULUM, "controllers": [{"use": "zero"}, {"use": "pid", "settings": {"error": [[1.0]]}}]},
        r"controllers\.1: error must be 1 rows of 3 weights",
    ),
    "negative horizon": (
        {**PENDULUM, "controllers": [{"use": "zero"}, {"use": "mppi", "model": "truth", "settings": {"horizon": -4}}]},
        "horizon must be at least 1, got -4",
    ),
    "objective on a plant": (
        {**PENDULUM, "objective": FOREIGN["objective"]},
        "says by itself what objective would say",
    ),
}


@pytest.mark.parametrize("case", CHECKS, ids=lambda name: name.replace(" ", "-"))
def test_what_cannot_run_is_refused_before_anything_runs(case: str, tmp_path: Path) -> None:
    plant, message = CHECKS[case]
    with pytest.raises(SpecError, match=message):
        compare(spec(plant), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_limit_of_the_file_that_nothing_keeps_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^limit_s = 2\.5: .*cannot be ended; leave limit_s out, or"):
        compare(spec(PENDULUM, limit_s=2.5), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_device_is_named() -> None:
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(SpecError, match="CUDA is not available; use device='cpu'"):
            check_problems(spec(PENDULUM, device="cuda"))


def test_killed_and_continued(tmp_path: Path) -> None:
    slow = {**PENDULUM, "controllers": [
        {"use": "zero"},
        {"use": "mppi", "model": "truth", "settings": {"horizon": 40, "samples": 256, "iterations": 4}},
    ]}  # fmt: skip
    (tmp_path / "slow.toml").write_text(_toml(slow))
    command = [sys.executable, "-m", "steersman.experiments.cli", "compare", str(tmp_path / "slow.toml")]
    with subprocess.Popen([*command, "--out", str(tmp_path), "--workers", "0"], stdout=subprocess.DEVNULL) as process:
        store = None
        for _ in range(600):
            time.sleep(0.1)
            if (tmp_path / "store" / "store.sqlite").exists():
                store = Store(tmp_path / "store")
                states = [job["state"] for job in _jobs(store)]
                if states.count("done") == 2 and "running" in states:
                    break
        process.send_signal(signal.SIGKILL)
    assert store is not None
    assert sorted(job["state"] for job in _jobs(store)) == ["done", "done", "running"]
    (key,) = [job["key"] for job in _jobs(store) if job["state"] == "running"]
    assert store.claim(key), "the job of a dead process must be free"


def _jobs(store: Store) -> list[dict[str, str]]:
    with store._connect() as db:
        return [{"key": key, "state": state} for key, state in db.execute("SELECT key, state FROM jobs")]


def _toml(plant: dict[str, Any]) -> str:
    lines = ["episodes = 8", "[[plants]]", f'id = "{plant["id"]}"']
    for entry in plant["controllers"]:
        lines.append("[[plants.controllers]]")
        for name, value in entry.items():
            if isinstance(value, dict):
                inner = ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items())
                lines.append(f"{name} = {{ {inner} }}")
            else:
                lines.append(f"{name} = {json.dumps(value)}")
    return "\n".join(lines)


TANK = """
import torch
from pathlib import Path
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.plant import Plant

class Tank(Plant):
    def __init__(self, path):
        self.dt, self.hold, self.horizon, self.gradient = 1.0, 1, 5, "exact"
        self.actions = ActionSet((-1.0,), (1.0,))
        weight = float(Path(path).read_text())
        self.objective = Objective((Quadratic(name="z", on="z", weights=(weight,)),))
        self.measured = self.performed = ("x",)
    def params(self, key): return {}
    def initial(self, key, p): return SCALE * torch.ones(len(key), 1, dtype=self.dtype)
    def step(self, k, x, u, w, p): return x + 0.1 * u
    def measure(self, k, x, p): return x
"""


@pytest.fixture
def tank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_tank_of_tests", raising=False)
    (tmp_path / "own_tank_of_tests.py").write_text(TANK.replace("SCALE", "1.0"))
    (tmp_path / "weight.txt").write_text("1.0")
    settings = {"path": str(tmp_path / "weight.txt")}
    return {"id": "own_tank_of_tests:Tank", "settings": settings, "controllers": [{"use": "zero"}]}


def test_edited_code_and_edited_files_are_run_again_and_said(tank: dict[str, Any], tmp_path: Path) -> None:
    def cost() -> tuple[float, tuple[str, ...]]:
        found = compare(spec(tank), tmp_path / "out")
        assert not found.failures
        return float(found.results[0].cost[0]), found.notes

    again = "1 result is from older code and was made again."
    assert cost() == (5.0, ())
    (tmp_path / "weight.txt").write_text("100.0")
    assert cost() == (500.0, (again,))
    assert cost() == (500.0, ())
    (tmp_path / "own_tank_of_tests.py").write_text(TANK.replace("SCALE", "(1.0 + 1.0)"))
    assert cost() == (2000.0, (again,))
    (tmp_path / "weight.txt").write_text("1.0")
    (tmp_path / "own_tank_of_tests.py").write_text(TANK.replace("SCALE", "1.0") + "# as at first\n")
    assert cost() == (5.0, ()), "the first result is valid again"


def test_an_edit_while_a_comparison_runs_is_no_result_under_the_old_key(
    tank: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = runner.work

    def edit(run: Any, files: Any, report: Any) -> None:
        (tmp_path / "weight.txt").write_text("3.0")
        real(run, files, report)

    monkeypatch.setattr(runner, "work", edit)
    found = compare(spec(tank), tmp_path / "out")
    assert not found.results and "were edited while the comparison ran; run it again" in found.failures[0].error
    monkeypatch.undo()
    sys.path.insert(0, str(tmp_path))
    assert float(compare(spec(tank), tmp_path / "out").results[0].cost[0]) == 15.0
    sys.path.remove(str(tmp_path))


def test_one_environment_with_two_settings_and_a_baseline_with_a_label(tank: dict[str, Any], tmp_path: Path) -> None:
    from steersman.experiments.stats import scores

    (tmp_path / "ten.txt").write_text("10.0")
    rival = {"use": "constant", "settings": {"candidates": 3, "scenarios": 1}}
    plain = {**tank, "controllers": [{"use": "zero"}, rival]}
    ten = {**tank, "label": "ten", "settings": {"path": str(tmp_path / "ten.txt")}}
    ten["controllers"] = [{"use": "zero", "label": "nothing"}, rival]
    found = compare(spec(plain, ten), tmp_path / "out")
    assert [(r.plant, r.controller, r.cost[0]) for r in found.results][::2] == [
        ("own_tank_of_tests:Tank", "zero", 5.0), ("ten", "nothing", 50.0),
    ]  # fmt: skip
    assert [p.baseline for p in found.plants] == ["zero", "nothing"]
    assert [s.difference is not None for s in scores(found)] == [False, True, False, True]
    write_report(found, tmp_path / "report.html")
    with pytest.raises(SpecError, match=r"names must differ.*set label"):
        compare(spec(plain, plain), tmp_path / "out2")


def test_two_labels_of_one_thing_are_two_rows(tmp_path: Path) -> None:
    twice = {**PENDULUM, "controllers": [{"use": "zero", "label": "A"}, {"use": "zero", "label": "B"}]}
    found = compare(spec(twice), tmp_path)
    assert [(r.controller, len(r.cost)) for r in found.results] == [("A", 3), ("B", 3)]
    assert len(list((tmp_path / "store").glob("*.npz"))) == 1


def test_what_does_not_repeat_is_not_paired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_lottery_of_tests.py").write_text(
        TANK.replace("SCALE", "torch.randn(())")
        .replace("self, path", "self")
        .replace("float(Path(path).read_text())", "1.0")
    )
    monkeypatch.syspath_prepend(tmp_path)
    entry = {"id": "own_lottery_of_tests:Tank", "controllers": [{"use": "zero"}]}
    found = compare(spec(entry), tmp_path / "out")
    assert not found.results
    assert "nothing can be paired on it: scenario 0 does not repeat: y 'x' of step 0 was" in found.failures[0].error
