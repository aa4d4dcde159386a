"""Binary weights as the sign of a sine against the straight-through estimator, on a dense and a convolutional network.

The claim (Vargas et al., "BiPer: Binary Neural Networks using a Periodic Function", CVPR 2024): the frequency of the
sine controls the quantisation error, and accuracy rises by up to 1 % on CIFAR-10 and 0.69 % on ImageNet against the
best rivals. Both trainings start from the same latent weights and see the same mini-batches. All runs take about two
CPU minutes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from steersman.experiments.comparison.cell import Cell, Report
from steersman.experiments.studies.polystep.biper_networks import BinaryConvolutions
from steersman.experiments.studies.polystep.supervised_methods import ADAM, METHODS, run_method
from steersman.experiments.studies.polystep.supervised_tasks import FLOAT, Preset, Task, load_digits, preset_of
from steersman.optimizers.policies.base import Policy
from steersman.optimizers.policies.binary import BinaryPolicy, quantisation_error, wave_of

NETWORKS = ("dense", "convolutional")
SEARCH = "frame_step"
FREQUENCIES = (0.0, 1.0, 5.0, 10.0, 20.0, 40.0)
RATES = (0.01, 0.03)
HIDDEN = 64
IMAGES = (897, 200, 700)
"""For training, for the choice between rates, and for the test."""
PRESET: Preset = replace(preset_of("digits"), load=partial(load_digits, *IMAGES[:2]))
"""The terms of ``polystep-supervised`` with more test images."""


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


@dataclass(frozen=True)
class Training(Cell):
    """A binary network trained by a gradient at the learning rate that validates better, or by a search.

    Attributes:
        network: "dense" or "convolutional".
        method: "gradient" or the search, which has the middle of its settings.
        frequency: Of the sine.
        seed: Seed of weights and mini-batches.
        budget: Evaluations of the search; a gradient step counts as three.
        batch: Images of a mini-batch.
        steps: Steps of Adam at most.
    """

    row: ClassVar[type] = BiPerRun
    title: ClassVar[str] = "{network}, {method}, frequency {frequency:g}, seed {seed}"
    network: str
    method: str
    frequency: float
    seed: int
    budget: int = PRESET.budget
    batch: int = PRESET.batch
    steps: int = PRESET.gradient_steps

    def run(self, report: Report) -> list[BiPerRun]:
        """See :class:`Cell`.

        Raises:
            ModuleNotFoundError: Without the extra ``studies``.
        """
        if self.method != "gradient":
            return [self._searched()]
        return [max(map(self._trained, RATES), key=lambda run: run.validate)]

    def _searched(self) -> BiPerRun:
        preset, data = self._terms(), PRESET.load()
        method = next(method for method in METHODS if method.name == self.method)
        task, scale = self._task(data.x.shape[1]), method.scales[len(method.scales) // 2]
        run = run_method(method, preset, task, data, scale, self.seed, preset.budget)
        return BiPerRun(self.network, self.method, self.frequency, run.scale, self.seed, run.test, run.validate)

    def _trained(self, rate: float) -> BiPerRun:
        preset, data = self._terms(), PRESET.load()
        adam = next(method for method in METHODS if method.name == ADAM)
        task = self._task(data.x.shape[1])
        made = task.make(torch.Generator().manual_seed(self.seed))
        sizes = [(w.numel(), 1 / math.sqrt(w[0].numel())) for w in latents(made)]
        expected = sum(n * expected_error(self.frequency, deviation) for n, deviation in sizes)
        start, relative_start = errors(made, self.frequency)
        candidates, _ = adam.train(preset, task, data, made, rate, self.seed, preset.budget)
        validate, test = (task.accuracy(made, candidates, data, part)[0] for part in ("validate", "test"))
        error, relative = errors(made, self.frequency)
        return BiPerRun(
            self.network, "gradient", self.frequency, rate, self.seed, test, validate,
            expected / sum(n for n, _ in sizes), start, error, relative_start, relative,
        )  # fmt: skip

    def _terms(self) -> Preset:
        return replace(PRESET, budget=self.budget, batch=self.batch, gradient_steps=self.steps)

    def _task(self, pixels: int) -> Task:
        return task_of(self.network, self.frequency, pixels)


def trainings(seeds: tuple[int, ...] = PRESET.seeds) -> list[Training]:
    """All runs."""
    gradient = [Training(network, "gradient", f, seed) for network in NETWORKS for f in FREQUENCIES for seed in seeds]
    return [*gradient, *(Training("dense", SEARCH, 1.0, seed) for seed in seeds)]
