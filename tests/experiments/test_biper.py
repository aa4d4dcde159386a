"""The study of periodic binary weights: its network, its errors and its verdicts."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy import stats
from torch import Tensor

from steersman.experiments.comparison.executor import InProcess
from steersman.experiments.studies.polystep import biper, biper_page
from steersman.experiments.studies.polystep.biper import BiPerRun
from steersman.experiments.studies.polystep.biper_networks import BinaryConvolutions
from steersman.experiments.studies.polystep.biper_page import claims, gain
from steersman.experiments.studies.polystep.supervised_tasks import Data
from steersman.experiments.studies.running import published, run_cells
from steersman.experiments.studies.study import Finished, Made, Results
from steersman.optimizers.policies.binary import bits_of, quantisation_error, wave_of
from steersman.optimizers.vectorise import flatten, population_forward


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs() -> Data:
    y = torch.randint(0, 10, (300,), generator=gen())
    return Data(torch.randn(10, 64, generator=gen())[y] + 0.1 * torch.randn(300, 64, generator=gen()), y, 200, 50)


def by_hand(network: BinaryConvolutions, image: Tensor) -> Tensor:
    """Filters as sums over shifted pixels, one output at a time."""
    x = image.reshape(1, network.side, network.side)
    for stride, filters in enumerate(network.filters, start=1):
        weight = torch.where(torch.sin(network.frequency * filters.weight) >= 0, 1.0, -1.0).double()
        channels, terms, side = len(weight), weight[0].numel(), x.shape[1]
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
        places = range(0, side, stride)
        sums = [
            [[float((padded[:, i : i + 3, j : j + 3] * weight[c]).sum()) for j in places] for i in places]
            for c in range(channels)
        ]
        x = torch.where(torch.tensor(sums) / math.sqrt(terms) + filters.bias[:, None, None] >= 0, 1.0, -1.0).double()
    last = torch.where(torch.sin(network.frequency * network.last.weight) >= 0, 1.0, -1.0).double()
    return last @ x.flatten() / math.sqrt(last.shape[1]) + network.last.bias


def test_convolutions_are_sums_of_bits() -> None:
    network = BinaryConvolutions(6, 3, (4, 5), frequency=7.0, gen=gen(), dtype=torch.float64)
    images = torch.randn(4, 36, generator=gen(1), dtype=torch.float64)
    out, _ = network(images, network.initial_state(4))
    with torch.no_grad():
        wanted = torch.stack([by_hand(network, image) for image in images])
    torch.testing.assert_close(out.detach(), wanted)
    assert len(out.unique()) > 3
    vectors = torch.stack([flatten(network), -0.5 * flatten(network)])
    together, _ = population_forward(
        network, vectors, images.expand(2, -1, -1), network.initial_state(4).expand(2, 4, 0)
    )
    torch.testing.assert_close(together[0], out.detach())
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        BinaryConvolutions(6, 3, (4, 0), frequency=1.0, gen=gen(), dtype=torch.float64)


def test_surrogates_reach_every_layer_and_keep_the_values() -> None:
    for frequency in (0.0, 5.0):
        network = BinaryConvolutions(6, 3, frequency=frequency, gen=gen(), dtype=torch.float64)
        images = torch.randn(20, 36, generator=gen(1), dtype=torch.float64)
        hard, _ = network(images, network.initial_state(20))
        network.use_surrogate = True
        soft, _ = network(images, network.initial_state(20))
        assert torch.equal(hard, soft)
        grads = torch.autograd.grad(soft.square().sum(), list(network.parameters()))
        assert all(bool((g != 0).any()) for g in grads)


def test_bits_are_signs_of_the_wave() -> None:
    weight = torch.randn(50, generator=gen(), dtype=torch.float64)
    for frequency in (0.0, 3.0):
        assert torch.equal(bits_of(weight, frequency, False), torch.sign(wave_of(weight, frequency)))
    assert torch.equal(wave_of(weight, 0.0), weight)


def test_expected_quantisation_error() -> None:
    weights = torch.randn(1_000_000, generator=gen(), dtype=torch.float64) / 8
    for frequency in (0.0, 1.0, 5.0, 20.0, 200.0):
        measured, _ = quantisation_error(wave_of(weights, frequency))
        assert biper.expected_error(frequency, 1 / 8) == pytest.approx(measured, abs=3e-4)
    assert biper.expected_error(1e4, 1.0) == pytest.approx(0.5 - 4 / math.pi**2, abs=1e-6)


def test_errors_weigh_layers_by_their_weights() -> None:
    network = biper.task_of("convolutional", 5.0, 64).make(gen())
    error, relative = biper.errors(network, 5.0)
    waves = [torch.sin(5 * w).flatten() for w in biper.latents(network)]
    assert [len(w) for w in waves] == [8 * 9, 16 * 8 * 9, 10 * 256]
    squares = [(w - w.abs().mean() * torch.sign(w)).square().sum() for w in waves]
    assert error == pytest.approx(float(sum(squares)) / sum(map(len, waves)), rel=1e-4)
    assert relative == pytest.approx(float(sum(squares) / sum(w.square().sum() for w in waves)), rel=1e-4)


def test_the_test_has_more_than_400_images() -> None:
    pytest.importorskip("sklearn", reason="needs steersman[studies]")
    data = biper.PRESET.load()
    assert [len(data.part(name)[0]) for name in ("train", "validate", "test")] == list(biper.IMAGES)
    assert biper.IMAGES[2] == 700 and len(biper.PRESET.seeds) == 5


def row(frequency: float, seed: int, test: float, network: str = "dense") -> BiPerRun:
    return BiPerRun(network, "gradient", frequency, 0.01, seed, test, 0.9, *[0.1] * 5)


def test_gains_are_paired_and_their_intervals_hold_together() -> None:
    plain, periodic = [0.90, 0.95, 0.92], [0.91, 0.97, 0.925]
    runs = [
        row(frequency, seed, value + gained, network)
        for network in biper.NETWORKS
        for frequency, values, gained in ((0.0, plain, 0.0), (5.0, periodic, 0.0), (20.0, plain, -0.1))
        for seed, value in enumerate(values)
    ]
    differences = 100 * (np.array(periodic) - np.array(plain))
    low, high = stats.t.interval(0.975, 2, differences.mean(), stats.sem(differences))
    assert gain(runs, "dense", 5.0) == pytest.approx((differences.mean(), low, high))
    said = claims(Results([Finished(biper.trainings()[0], tuple(runs), 1.0, Made("", "", ""))]))
    assert "periodic weights are worse at 20" in said[1].text and "best frequency, 5, gains +1.17" in said[1].text


def test_study_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(biper, "PRESET", replace(biper.PRESET, load=blobs))
    cells = [replace(cell, budget=300, batch=16, steps=20) for cell in biper.trainings((0, 1))]
    small = replace(biper_page.STUDY, cells=lambda: cells)
    run_cells(small, Console(quiet=True), tmp_path / "out", executor=InProcess(), results=tmp_path)
    runs = [row for done in published(small, tmp_path).values() for row in done.rows]
    assert len(runs) == 2 * 6 * 2 + 2
    first = [r for r in runs if r.network == "dense" and r.seed == 0 and r.method == "gradient"]
    assert all(abs(r.start - r.expected) < 0.01 for r in first)
    assert all(r.test > 0.3 for r in first)
    text = (tmp_path / "biper.md").read_text()
    assert "## Convolutional, 3 x 3 filters" in text and "| frame_step, 10,000 evaluations |" in text
    assert (tmp_path / "biper.png").stat().st_size > 10_000
