"""Binary weights as the sign of a sine: quantisation error by frequency, and accuracy against straight-through."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steersman.experiments.studies.polystep_supervised_methods import METHODS, run_method
from steersman.experiments.studies.polystep_supervised_tasks import FLOAT, Data, Preset, Task
from steersman.optimizers.policies.base import Policy
from steersman.optimizers.policies.binary import BinaryPolicy, quantisation_error
from steersman.optimizers.vectorise import flatten

FREQUENCIES = (0.0, 1.0, 5.0, 10.0, 20.0, 40.0)
RATES = (0.01, 0.03)
HIDDEN = 64


@dataclass(frozen=True)
class BiPerRun:
    """One binary network trained by a gradient, or by a search.

    Attributes:
        method: "gradient" or the search.
        frequency: Of the sine; 0 is the sign of the weight itself with the straight-through estimator.
        rate: Learning rate of Adam, the better one by validation; or the search's tuned setting.
        seed: Seed.
        test: Accuracy on the test's images.
        validate: Accuracy on the validation's.
        start: Mean squared error of the first layer's initial wave by bits and one factor.
        error: The same after training.
        relative: That over the wave's mean square.
    """

    method: str
    frequency: float
    rate: float
    seed: int
    test: float
    validate: float
    start: float
    error: float
    relative: float


def task_of(frequency: float, pixels: int) -> Task:
    """The binary network of one frequency."""

    def make(gen: torch.Generator) -> Policy:
        return BinaryPolicy(pixels, 10, (HIDDEN,), frequency=frequency, gen=gen, dtype=FLOAT)

    return Task("binary", make, gain=2.0)


def expected_error(frequency: float, deviation: float) -> float:
    """Quantisation error of the sine of normal weights.

    From ``E sin^2 = (1 - exp(-2 s^2)) / 2`` and the Fourier series
    ``|sin x| = 2/pi - 4/pi sum_k cos(2 k x) / (4 k^2 - 1)`` with ``s = frequency * deviation``.
    """
    s = frequency * deviation
    power = (1 - math.exp(-2 * s**2)) / 2
    series = sum(math.exp(-2 * (k * s) ** 2) / (4 * k**2 - 1) for k in range(1, 2000))
    return power - (2 / math.pi - 4 / math.pi * series) ** 2


def run_gradient(preset: Preset, data: Data, frequency: float, seed: int) -> BiPerRun:
    """Adam on the surrogate, at the learning rate that validates better."""
    found = [_trained(preset, data, frequency, rate, seed) for rate in RATES]
    return max(found, key=lambda run: run.validate)


def _trained(preset: Preset, data: Data, frequency: float, rate: float, seed: int) -> BiPerRun:
    adam = METHODS[-1]
    task = task_of(frequency, data.x.shape[1])
    network = task.make(torch.Generator().manual_seed(seed))
    begin, _ = quantisation_error(_wave(network, frequency))
    candidates, _ = adam.train(preset, task, data, network, rate, seed, preset.budget)
    scores = [task.accuracy(network, candidates, data, part)[0] for part in ("validate", "test")]
    error, relative = quantisation_error(_wave(network, frequency))
    return BiPerRun("gradient", frequency, rate, seed, scores[1], scores[0], begin, error, relative)


def run_search(preset: Preset, data: Data, frequency: float, seed: int) -> BiPerRun:
    """The same network by ``frame_step``, at the middle of its settings."""
    method = METHODS[1]
    scale = method.scales[len(method.scales) // 2]
    run = run_method(method, preset, task_of(frequency, data.x.shape[1]), data, scale, seed, preset.budget)
    return BiPerRun(method.name, frequency, run.scale, seed, run.test, run.validate, *(float("nan"),) * 3)


def _wave(network: Policy, frequency: float) -> Tensor:
    """What bits replace in the first layer: the sine of the weights, or the weights themselves."""
    layers = network.layers
    assert isinstance(layers, nn.ModuleList)  # noqa: S101 - narrows what modules forget
    weight = flatten(layers[0])[:-HIDDEN]
    return torch.sin(frequency * weight) if frequency else weight
