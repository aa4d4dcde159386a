"""Parts of the study of supervised tasks."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from steersman.experiments.studies import polystep_supervised as study
from steersman.experiments.studies import polystep_supervised_biper as biper
from steersman.experiments.studies import polystep_supervised_tree as trees
from steersman.experiments.studies.polystep_supervised_methods import METHODS, Method, batch_of, run_method
from steersman.experiments.studies.polystep_supervised_page import page, plot
from steersman.experiments.studies.polystep_supervised_tasks import Data, Task, preset_of
from steersman.optimizers.policies.binary import quantisation_error
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


def test_expected_quantisation_error() -> None:
    weights = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 8
    for frequency in (1.0, 5.0, 20.0, 200.0):
        measured, _ = quantisation_error(torch.sin(frequency * weights))
        assert biper.expected_error(frequency, 1 / 8) == pytest.approx(measured, abs=3e-4)
    assert biper.expected_error(1e4, 1.0) == pytest.approx(0.5 - 4 / math.pi**2, abs=1e-6)


def test_runs_are_kept_and_a_page_is_written(tmp_path: Path) -> None:
    data, calls = blobs(), []
    task, method = PRESET.tasks[0], METHODS[-1]

    def make() -> object:
        calls.append(1)
        return run_method(method, PRESET, task, data, 0.01, 0, 300)

    row = study.Rows(tmp_path / "runs.json").get("a", make)
    assert study.Rows(tmp_path / "runs.json").get("a", make) == row and len(calls) == 1
    rows = [{**row, "task": t.name, "method": m.name} for t in PRESET.tasks for m in METHODS]
    binary = [vars(biper.run_gradient(PRESET, data, f, 0)) for f in (0.0, 5.0)]
    whole = {
        "command": "c", "machine": "m", "preset": "digits", "budget": 400, "tuning": 300, "batch": 16, "seeds": [0],
        "tree": [], "tasks": rows, "biper": binary,
    }  # fmt: skip
    text = page(whole, PRESET)
    assert "loses to" in text or "beats" in text
    plot(whole, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown preset 'imagenet'; choose one of digits, mnist"):
        preset_of("imagenet")
