"""Binary weights as the sign of a sine against the straight-through estimator, on a dense and a convolutional network.

The claim (Vargas et al., "BiPer: Binary Neural Networks using a Periodic Function", CVPR 2024): the frequency of the
sine controls the quantisation error, and accuracy rises by up to 1 % on CIFAR-10 and 0.69 % on ImageNet against the
best rivals. Both trainings start from the same latent weights and see the same mini-batches. Results lie in
``results/biper`` beside this file; all runs take about two CPU minutes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from steersman.experiments.comparison.machine import describe_machine
from steersman.experiments.report.progress import bar
from steersman.experiments.studies.polystep.biper_networks import BinaryConvolutions
from steersman.experiments.studies.polystep.biper_page import page, plot
from steersman.experiments.studies.polystep.supervised_methods import ADAM, METHODS, run_method
from steersman.experiments.studies.polystep.supervised_tasks import FLOAT, Data, Preset, Task, load_digits, preset_of
from steersman.optimizers.policies.base import Policy
from steersman.optimizers.policies.binary import BinaryPolicy, quantisation_error, wave_of

RESULTS = Path(__file__).parents[1] / "results" / "biper"
FREQUENCIES = (0.0, 1.0, 5.0, 10.0, 20.0, 40.0)
RATES = (0.01, 0.03)
HIDDEN = 64
PRESET: Preset = replace(preset_of("digits"), load=partial(load_digits, 897, 200))
"""The terms of ``polystep-supervised`` with 700 test images."""


@dataclass(frozen=True)
class BiPerRun:
    """One binary network trained by a gradient, or by a search.

    Errors are mean squared ones of all weights' waves by their bits and one factor for each layer.

    Attributes:
        network: "dense" or "convolutional".
        method: "gradient" or the search.
        frequency: Of the sine; 0 is the sign of the weight itself with the straight-through estimator.
        rate: Learning rate of Adam, the better one by validation; or the search's setting.
        seed: Seed of weights and mini-batches.
        test: Accuracy on the test's images.
        validate: Accuracy on the validation's.
        expected: Error of the initial law.
        start: Error of the initial weights.
        error: Error after training.
        relative_start: Initial error over the waves' mean square.
        relative: The same after training.
    """

    network: str
    method: str
    frequency: float
    rate: float
    seed: int
    test: float
    validate: float
    expected: float = math.nan
    start: float = math.nan
    error: float = math.nan
    relative_start: float = math.nan
    relative: float = math.nan


def task_of(network: str, frequency: float, pixels: int) -> Task:
    """A binary network of one frequency."""

    def dense(gen: torch.Generator) -> Policy:
        return BinaryPolicy(pixels, 10, (HIDDEN,), frequency=frequency, gen=gen, dtype=FLOAT)

    def convolutional(gen: torch.Generator) -> Policy:
        return BinaryConvolutions(math.isqrt(pixels), 10, frequency=frequency, gen=gen, dtype=FLOAT)

    return Task(network, dense if network == "dense" else convolutional, gain=2.0)


def expected_error(frequency: float, deviation: float) -> float:
    """Quantisation error of the sine of normal weights; of the weights themselves at frequency 0.

    From ``E sin^2 = (1 - exp(-2 s^2)) / 2`` and the Fourier series
    ``|sin x| = 2/pi - 4/pi sum_k cos(2 k x) / (4 k^2 - 1)`` with ``s = frequency * deviation``.
    """
    if frequency == 0:
        return deviation**2 * (1 - 2 / math.pi)
    s = frequency * deviation
    power = (1 - math.exp(-2 * s**2)) / 2
    series = sum(math.exp(-2 * (k * s) ** 2) / (4 * k**2 - 1) for k in range(1, 2000))
    return power - (2 / math.pi - 4 / math.pi * series) ** 2


def latents(network: Policy) -> list[Tensor]:
    """Latent binary weights, layer by layer."""
    return [p.detach() for name, p in network.named_parameters() if name.endswith("weight")]


def errors(network: Policy, frequency: float) -> tuple[float, float]:
    """Error of all weights, absolute and over the mean square of their waves."""
    waves = [wave_of(w, frequency) for w in latents(network)]
    count = sum(w.numel() for w in waves)
    error = sum(quantisation_error(w)[0] * w.numel() for w in waves) / count
    return error, error * count / float(sum(w.square().sum() for w in waves))


def run_gradient(preset: Preset, data: Data, network: str, frequency: float, seed: int) -> BiPerRun:
    """Adam on the surrogate, at the learning rate that validates better."""
    found = [_trained(preset, data, network, frequency, rate, seed) for rate in RATES]
    return max(found, key=lambda run: run.validate)


def _trained(preset: Preset, data: Data, network: str, frequency: float, rate: float, seed: int) -> BiPerRun:
    adam = next(method for method in METHODS if method.name == ADAM)
    task = task_of(network, frequency, data.x.shape[1])
    made = task.make(torch.Generator().manual_seed(seed))
    sizes = [(w.numel(), 1 / math.sqrt(w[0].numel())) for w in latents(made)]
    expected = sum(n * expected_error(frequency, deviation) for n, deviation in sizes) / sum(n for n, _ in sizes)
    start, relative_start = errors(made, frequency)
    candidates, _ = adam.train(preset, task, data, made, rate, seed, preset.budget)
    validate, test = (task.accuracy(made, candidates, data, part)[0] for part in ("validate", "test"))
    error, relative = errors(made, frequency)
    return BiPerRun(
        network, "gradient", frequency, rate, seed, test, validate, expected, start, error, relative_start, relative
    )


def run_search(preset: Preset, data: Data, network: str, frequency: float, seed: int) -> BiPerRun:
    """The same network by ``frame_step``, at the middle of its settings."""
    method = next(method for method in METHODS if method.name == "frame_step")
    scale = method.scales[len(method.scales) // 2]
    run = run_method(method, preset, task_of(network, frequency, data.x.shape[1]), data, scale, seed, preset.budget)
    return BiPerRun(network, method.name, frequency, run.scale, seed, run.test, run.validate)


def jobs(preset: Preset, data: Data) -> Iterator[tuple[str, partial[BiPerRun]]]:
    """All runs with their names."""
    for network in ("dense", "convolutional"):
        for frequency in FREQUENCIES:
            for seed in preset.seeds:
                yield f"{network}, {frequency:g}, {seed}", partial(run_gradient, preset, data, network, frequency, seed)
    for seed in preset.seeds:
        yield f"search, {seed}", partial(run_search, preset, data, "dense", 1.0, seed)


def run(console: Console, out: Path | None) -> Path:
    """Run the study; it keeps nothing in ``out``.

    Raises:
        ModuleNotFoundError: Without the extra ``studies``.
    """
    return execute(PRESET, RESULTS, console)


def execute(preset: Preset, results: Path, console: Console) -> Path:
    """Run the study with given terms; the folder of its results."""
    torch.set_num_threads(1)
    data = preset.load()
    work = list(jobs(preset, data))
    runs = []
    with bar(console, "biper") as report:
        for i, (name, job) in enumerate(work):
            report(i / len(work), name)
            runs.append(asdict(job()))
    whole = {
        "command": "steersman study biper", "machine": describe_machine(), "seeds": list(preset.seeds),
        "images": [data.train, data.validate, len(data.x) - data.train - data.validate], "batch": preset.batch,
        "steps": preset.gradient_steps, "rates": list(RATES), "evaluations": preset.budget, "runs": runs,
    }  # fmt: skip
    results.mkdir(parents=True, exist_ok=True)
    (results / "biper.json").write_text(json.dumps(whole, indent=1) + "\n")
    return publish(results)


def publish(results: Path) -> Path:
    """Write page and plot from the numbers in a folder; the folder."""
    whole = json.loads((results / "biper.json").read_text())
    (results / "biper.md").write_text(page(whole))
    plot(whole, results / "biper.png")
    return results
