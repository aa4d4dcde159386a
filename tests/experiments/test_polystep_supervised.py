"""Parts of the study of supervised tasks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
from rich.console import Console

from steersman.experiments.comparison.executor import InProcess
from steersman.experiments.studies.polystep import supervised as study
from steersman.experiments.studies.polystep import supervised_page
from steersman.experiments.studies.polystep import supervised_tree as trees
from steersman.experiments.studies.polystep.supervised_methods import (
    FULL,
    LONG,
    METHODS,
    Method,
    Trained,
    batch_of,
    run_method,
)
from steersman.experiments.studies.polystep.supervised_page import STUDY, figure
from steersman.experiments.studies.polystep.supervised_tasks import Data, Preset, Task, preset_of
from steersman.experiments.studies.running import published, run_cells
from steersman.experiments.studies.study import Finished, Made, Results
from steersman.experiments.studies.writing import page
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


def finished(preset: str, rows: list[Trained]) -> list[Finished]:
    cells = {(cell.task, cell.method): cell for cell in study.trainings(preset_of(preset), {})}
    return [Finished(cells[row.task, row.method], (row,), 1.0, Made("", "", "m")) for row in rows]


def test_the_page_says_what_the_rows_say() -> None:
    row = run_method(METHODS[-1], PRESET, PRESET.tasks[0], blobs(), 0.01, 0, 300)
    rows = finished("digits", [replace(row, task=t.name, method=m.name) for t in PRESET.tasks for m in METHODS])
    text = page(STUDY, Results(rows))
    assert "loses to" in text or "beats" in text
    assert "93.4 %, more than 60 points" in text and "93.0, which is 13.4 points ahead of OpenAI-ES at 79.6" in text
    scores = {"polystep": 0.8, "frame_step": 0.9, "OpenAI-ES": 0.85, FULL: 0.7, "Adam, surrogate": 0.95}
    longer = [replace(row, task="int8", method=m, test=v, seconds=60.0) for m, v in scores.items()]
    results = Results([*rows, *finished("million", longer)])
    text = page(STUDY, results)
    assert (
        "- int8, 1,000,000 evaluations: frame_step 90.0, 5.0 points ahead of the best rival without gradients that was "
        f"run, OpenAI-ES, and 5.0 behind Adam on the surrogate; {FULL} 70.0." in text
    )
    assert "- `million`: " in text and "for all networks and methods; in part above." in text
    assert (
        "- `lif-20m`: hard-LIF spikes, 20,000,000 evaluations, about 45 CPU minutes for each method; not run." in text
    )
    assert "All runs of the table took 5 CPU minutes" in text and f"| {FULL} | 70.0 |" in text
    assert len(figure(results).axes) == 6
    plt.close("all")


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
    long = replace(PRESET, name="million", load=blobs, budget=300, settings="digits")
    monkeypatch.setattr(study, "preset_of", lambda name: long if name == "million" else replace(PRESET, load=blobs))
    monkeypatch.setattr(supervised_page, "LONGER", [long])
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(supervised_page, "published_lines", lambda name: lines)
    with pytest.raises(ValueError, match="takes the settings of digits; run that preset first"):
        supervised_page.further()[0].run(lambda fraction, text: None)
    lines += [
        {"settings": {"preset": "digits"}, "rows": [{"task": t.name, "method": m.name, "scale": m.scales[1]}]}
        for t in PRESET.tasks for m in METHODS
    ]  # fmt: skip
    small = replace(STUDY, cells=lambda: [study.Growing(m.name, 400, 300) for m in trees.METHODS[:1]])
    for method in ("frame_step", "ARS"):
        run_cells(
            small, Console(quiet=True), tmp_path / "out", names=[f"million: staircase, {method}"],
            executor=InProcess(), results=tmp_path,
        )  # fmt: skip
    rows = [row for done in published(small, tmp_path).values() for row in done.rows]
    assert [(r.method, r.scale) for r in rows] == [("frame_step", 0.03), ("ARS", 0.05)]
    assert "## 300 evaluations" in (tmp_path / "polystep-supervised.md").read_text()


def test_a_setting_is_tuned_on_seeds_that_no_row_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "preset_of", lambda name: replace(PRESET, load=blobs))
    (cell,) = (c for c in study.trainings(PRESET, {}) if (c.task, c.method) == ("int8", "Adam, surrogate"))
    seen = []

    def run(method: Method, preset: Preset, task: Task, data: Data, scale: float, seed: int, budget: int) -> Trained:
        seen.append((scale, seed, budget))
        return Trained(task.name, method.name, scale, seed, budget, -abs(scale - 0.01), 0.5, 0.0)

    monkeypatch.setattr(study, "run_method", run)
    rows = cell.run(lambda fraction, text: None)
    assert [(r.scale, r.seed, r.evaluations) for r in rows] == [(0.01, 0, 400)]
    assert seen[:-1] == [(s, k, 300) for s in METHODS[-1].scales for k in study.TUNED_ON]


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(
        ValueError, match="unknown preset 'imagenet'; choose one of digits, 100k, million, lif-20m, mnist"
    ):
        preset_of("imagenet")
