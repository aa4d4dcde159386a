"""Parts of the study of supervised tasks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from steersman.experiments.studies.polystep import supervised as study
from steersman.experiments.studies.polystep import supervised_tree as trees
from steersman.experiments.studies.polystep.supervised_methods import FULL, LONG, METHODS, Method, batch_of, run_method
from steersman.experiments.studies.polystep.supervised_page import page, plot
from steersman.experiments.studies.polystep.supervised_tasks import Data, Task, preset_of
from steersman.optimizers.vectorise import flatten

PRESET = replace(preset_of("digits"), budget=400, tuning=300, batch=16, gradient_steps=20, seeds=(0,))


def blobs() -> Data:
    """Ten classes, each around a point of its own, in place of images."""
    gen = torch.Generator().manual_seed(0)
    y = torch.randint(0, 10, (300,), generator=gen)
    return Data(torch.randn(10, 64, generator=gen)[y] + 0.1 * torch.randn(300, 64, generator=gen), y, 200, 50)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_keeps_its_budget_and_a_same_run_is_the_same(method: Method) -> None:
    if method.name == "polystep 1.1.0":
        pytest.importorskip("polystep", reason="needs steersman[peers]")
    task, data = PRESET.tasks[3], blobs()
    first, again = (run_method(method, PRESET, task, data, method.scales[1], 0, 400) for _ in range(2))
    assert 0 < first.evaluations <= 400
    assert replace(first, seconds=0.0) == replace(again, seconds=0.0)
    assert first.test > 0.05


@pytest.mark.parametrize("task", PRESET.tasks, ids=lambda task: task.name)
def test_loss_of_a_population_is_that_of_each_network(task: Task) -> None:
    data = blobs()
    network = task.make(torch.Generator().manual_seed(0))
    vectors = torch.stack([flatten(network), 1.5 * flatten(network)])
    x, y = batch_of(PRESET, data, 0, 3)
    losses = task.loss(network, vectors, x, y)
    out, _ = network(x, network.initial_state(len(x)))
    alone = torch.nn.functional.cross_entropy(task.gain * out.detach().double(), y)
    assert float(losses[0]) == pytest.approx(float(alone), rel=1e-5)
    assert torch.equal(batch_of(PRESET, data, 0, 3)[0], x)
    assert not torch.equal(batch_of(PRESET, data, 0, 4)[0], x)


def test_tree_task_is_the_published_one() -> None:
    data, network = trees.board(), trees.tree()
    assert len(flatten(network)) == 61 and data.x.shape == (600, 2)
    torch.testing.assert_close(data.x.std(dim=0), torch.ones(2), atol=0.01, rtol=0)
    run = trees.run_tree(trees.METHODS[0], data, 0.2, 0, budget=2000)
    assert 1900 < run.evaluations <= 2000
    assert run.train > max(float(data.y.float().mean()), float(1 - data.y.float().mean()))


def test_runs_are_kept_and_a_page_is_written(tmp_path: Path) -> None:
    data, calls = blobs(), []
    task, method = PRESET.tasks[0], METHODS[-1]

    def make() -> object:
        calls.append(1)
        return run_method(method, PRESET, task, data, 0.01, 0, 300)

    row = study.Rows(tmp_path / "runs.json").get("a", make)
    assert study.Rows(tmp_path / "runs.json").get("a", make) == row and len(calls) == 1
    rows = [{**row, "task": t.name, "method": m.name} for t in PRESET.tasks for m in METHODS]
    whole = {
        "command": "c", "machine": "m", "preset": "digits", "budget": 400, "tuning": 300, "batch": 16, "seeds": [0],
        "tree": [], "tasks": rows,
    }  # fmt: skip
    text = page(whole, PRESET)
    assert "loses to" in text or "beats" in text
    assert "93.4 %, more than 60 points" in text and "93.0, which is 13.4 points ahead of OpenAI-ES at 79.6" in text
    scores = {"polystep": 0.8, "frame_step": 0.9, "OpenAI-ES": 0.85, FULL: 0.7, "Adam, surrogate": 0.95}
    longer = {
        "commands": ["long c"], "preset": "million", "machine": "m", "budget": 1_000_000, "tuning": 50_000, "seeds": [0],
        "tasks": [{**row, "task": "int8", "method": m, "test": v, "seconds": 60.0} for m, v in scores.items()],
    }  # fmt: skip
    text = page(whole, PRESET, [longer])
    assert (
        "- int8: frame_step 90.0, 5.0 points ahead of the best rival without gradients that was run, OpenAI-ES, and 5.0 "
        f"behind Adam on the surrogate; {FULL} 70.0." in text
    )
    assert "- `million`: " in text and "for all networks and methods; in part above." in text
    assert (
        "- `lif-20m`: hard-LIF spikes, 20,000,000 evaluations, about 45 CPU minutes for each method; not run." in text
    )
    assert "All runs of the table took 5 CPU minutes" in text and f"| {FULL} | 70.0 |" in text
    plot(whole, [longer], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_the_package_at_full_rank_moves_all_parameters_within_its_budget() -> None:
    pytest.importorskip("polystep", reason="needs steersman[peers]")
    task, data, method = PRESET.tasks[3], blobs(), LONG[-1]
    size = len(flatten(task.make(torch.Generator().manual_seed(0))))
    step = 9 * -(-size // 8)
    run = run_method(method, PRESET, task, data, 10.0, 0, 2 * step + 100)
    assert method.name == FULL and run.evaluations == 2 * step
    with pytest.raises(ValueError, match=f"all parameters takes {step:,}, raise it"):
        run_method(method, PRESET, task, data, 10.0, 0, 100)


def test_longer_presets_take_over_settings_and_keep_what_was_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "RESULTS", tmp_path / "published")
    monkeypatch.setattr(study, "edition", lambda folder, modules: folder)
    long = replace(PRESET, name="million", load=blobs, budget=300, settings="digits")
    monkeypatch.setattr(study, "preset_of", lambda name: long if name == "million" else PRESET)
    arguments = ("million", Console(quiet=True), tmp_path / "rows")
    (tmp_path / "published").mkdir()
    (tmp_path / "rows").mkdir()
    with pytest.raises(ValueError, match="takes the settings of digits; run that preset first"):
        study.run_preset(*arguments)
    row = vars(run_method(METHODS[-1], PRESET, PRESET.tasks[0], blobs(), 0.01, 0, 300))
    rows = [{**row, "task": t.name, "method": m.name, "scale": m.scales[1]} for t in PRESET.tasks for m in METHODS]
    whole = {
        "command": "c", "machine": "m", "preset": "digits", "budget": 400, "tuning": 300, "batch": 16, "seeds": [0],
        "tree": [], "tasks": rows,
    }  # fmt: skip
    (tmp_path / "published" / "polystep-supervised.json").write_text(json.dumps(whole))
    with pytest.raises(ValueError, match="methods has unknown Newton; choose of polystep"):
        study.run_preset(*arguments, methods=["Newton"])
    for method in ("frame_step", "ARS"):
        study.run_preset(*arguments, tasks=["staircase"], methods=[method])
    kept = json.loads((tmp_path / "published" / "million.json").read_text())
    assert [(r["method"], r["scale"]) for r in kept["tasks"]] == [("frame_step", 0.03), ("ARS", 0.05)]
    assert len(kept["commands"]) == 2 and '--methods "ARS"' in kept["commands"][1]
    assert "## 300 evaluations" in (tmp_path / "published" / "polystep-supervised.md").read_text()


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(
        ValueError, match="unknown preset 'imagenet'; choose one of digits, 100k, million, lif-20m, mnist"
    ):
        preset_of("imagenet")
