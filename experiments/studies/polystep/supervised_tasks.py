"""Data and networks of the study of supervised tasks, at CPU scale and as published for a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steersman.optimizers.policies.attention import AttentionPolicy
from steersman.optimizers.policies.base import Policy
from steersman.optimizers.policies.experts import ExpertsPolicy
from steersman.optimizers.policies.int8 import Int8Policy
from steersman.optimizers.policies.spiking import SpikingPolicy
from steersman.optimizers.policies.staircase import StaircasePolicy
from steersman.optimizers.vectorise import population_forward

FLOAT = torch.float32


@dataclass(frozen=True)
class Data:
    """Images as rows of pixels in [-1, 1] and their classes, cut into three parts.

    Attributes:
        x: Pixels.
        y: Classes.
        train: Images to learn from; the first ones.
        validate: Images after them that choose settings and checkpoints; the rest is for the test.
    """

    x: Float[Tensor, "images pixels"]
    y: Int[Tensor, "images"]
    train: int
    validate: int

    def part(self, name: str) -> tuple[Tensor, Tensor]:
        """Pixels and classes of "train", "validate" or "test"."""
        ends = {"train": (0, self.train), "validate": (self.train, self.train + self.validate)}
        start, end = ends.get(name, (self.train + self.validate, len(self.x)))
        return self.x[start:end], self.y[start:end]

    def batch(self, size: int, gen: torch.Generator) -> tuple[Tensor, Tensor]:
        """A mini-batch of the training images, drawn with replacement on the CPU's generator."""
        index = torch.randint(0, self.train, (size,), generator=gen).to(self.x.device)
        return self.x[index], self.y[index]


@dataclass(frozen=True)
class Task:
    """A network to train.

    Attributes:
        name: Its decision that has no gradient.
        make: A fresh network from a generator.
        gain: Factor from outputs to logits.
    """

    name: str
    make: Callable[[torch.Generator], Policy]
    gain: float = 1.0

    def logits(self, network: Policy, vectors: Float[Tensor, "pop dim"], x: Tensor) -> Float[Tensor, "pop n classes"]:
        """Logits of a whole population on common images, as one batch; memories start at zero."""
        pop = len(vectors)
        state = network.initial_state(len(x)).expand(pop, -1, -1)
        out, _ = population_forward(network, vectors, x.expand(pop, -1, -1), state)
        scaled: Tensor = self.gain * out
        return scaled

    def loss(self, network: Policy, vectors: Float[Tensor, "pop dim"], x: Tensor, y: Tensor) -> Float[Tensor, "pop"]:
        """Mean cross-entropy of each member, float64."""
        logits = self.logits(network, vectors, x).double()
        target = y.expand(len(vectors), -1)
        return torch.nn.functional.cross_entropy(logits.movedim(-1, 1), target, reduction="none").mean(dim=1)

    def accuracy(self, network: Policy, vectors: Float[Tensor, "pop dim"], data: Data, part: str) -> list[float]:
        """Share of images classified rightly, of each member."""
        x, y = data.part(part)
        hits = (self.logits(network, vectors, x).argmax(dim=-1) == y).double().mean(dim=1)
        return [float(h) for h in hits]


@dataclass(frozen=True)
class Preset:
    """A configuration of the study.

    Attributes:
        name: Name on the command line.
        load: Its images.
        tasks: Its networks.
        budget: Evaluations of each search on each task and seed.
        tuning: Evaluations of each setting that is tried, on each seed of tuning.
        batch: Images that a generation is evaluated on.
        gradient_steps: Steps of Adam.
        coordinates: Of the subspaces of searches that need one.
        seeds: Seeds of initial weights, mini-batches and searches.
        settings: Preset whose published settings are taken over; empty where they are tuned.
        cost: What a run takes, for those who think of starting it.
        device: Where networks are evaluated.
    """

    name: str
    load: Callable[[], Data]
    tasks: tuple[Task, ...]
    budget: int
    tuning: int
    batch: int
    gradient_steps: int
    coordinates: int
    seeds: tuple[int, ...]
    settings: str = ""
    cost: str = ""
    device: str = "cpu"


def load_digits(train: int = 1097, validate: int = 300) -> Data:
    """The 1,797 handwritten digits of scikit-learn, 8 x 8 pixels of 0..16; 400 images are left for the test."""
    datasets = _datasets()
    digits = datasets.load_digits()
    return _data(torch.tensor(digits.data / 8 - 1, dtype=FLOAT), torch.tensor(digits.target), train, validate)


def load_mnist() -> Data:
    """MNIST from OpenML, 28 x 28 pixels of 0..255: 55,000 / 5,000 / 10,000 images. Needs the network once."""
    mnist = _datasets().fetch_openml("mnist_784", version=1, as_frame=False)
    return _data(torch.tensor(mnist.data / 127.5 - 1, dtype=FLOAT), torch.tensor(mnist.target.astype(int)), 55000, 5000)


def _datasets() -> Any:
    try:
        from sklearn import datasets
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "this study reads its images with scikit-learn: pip install steersman[studies]"
        ) from None
    return datasets


def _data(x: Tensor, y: Tensor, train: int, validate: int) -> Data:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return Data(x[order], y[order].long(), train, validate)


def _tasks(pixels: int, hidden: int, layers: int, ticks: int, heads: int, tokens: int, expert: int) -> tuple[Task, ...]:
    widths = (hidden,) * layers

    def spiking(gen: torch.Generator) -> Policy:
        # Outputs in [-1, 1] would keep the cross-entropy far from zero.
        return SpikingPolicy(pixels, 10, (hidden,), ticks=ticks, pool=1, span=8.0, gen=gen, dtype=FLOAT)

    def int8(gen: torch.Generator) -> Policy:
        return Int8Policy(pixels, 10, widths, gen=gen, dtype=FLOAT)

    def attention(gen: torch.Generator) -> Policy:
        return AttentionPolicy(pixels, 10, hidden, heads=heads, tokens=tokens, gen=gen, dtype=FLOAT)

    def staircase(gen: torch.Generator) -> Policy:
        return StaircasePolicy(pixels, 10, widths, levels=5, gen=gen, dtype=FLOAT)

    def experts(gen: torch.Generator) -> Policy:
        return ExpertsPolicy(pixels, 10, expert, experts=4, gen=gen, dtype=FLOAT)

    return (
        Task("hard-LIF spikes", spiking), Task("int8", int8), Task("argmax attention", attention),
        Task("staircase", staircase), Task("hard experts", experts),
    )  # fmt: skip


_DIGITS = Preset(
    "digits", load_digits, _tasks(64, hidden=32, layers=1, ticks=6, heads=8, tokens=8, expert=8),
    budget=10_000, tuning=5_000, batch=128, gradient_steps=600, coordinates=128, seeds=(0, 1, 2, 3, 4),
    cost="25 CPU minutes",
)  # fmt: skip
PRESETS: tuple[Preset, ...] = (
    _DIGITS,
    replace(
        _DIGITS, name="100k", budget=100_000, tuning=20_000, gradient_steps=3_000, seeds=(0,), settings="digits",
        cost="eight CPU minutes for all networks and methods",
    ),
    replace(
        _DIGITS, name="million", budget=1_000_000, tuning=50_000, gradient_steps=6_000, seeds=(0,), settings="digits",
        cost="an hour of one core for all networks and methods",
    ),
    replace(
        _DIGITS, name="lif-20m", tasks=_DIGITS.tasks[:1], budget=20_000_000, tuning=50_000, gradient_steps=6_000,
        seeds=(0,), settings="digits", cost="about 45 CPU minutes for each method",
    ),
    Preset(
        "mnist", load_mnist, _tasks(784, hidden=128, layers=2, ticks=15, heads=8, tokens=28, expert=128),
        budget=20_000_000, tuning=1_000_000, batch=512, gradient_steps=20_000, coordinates=2048, seeds=(0, 1, 2, 3, 4),
        cost="a GPU, not measured", device="cuda",
    ),
)  # fmt: skip
"""``digits`` fits a CPU, ``100k``, ``million`` and ``lif-20m`` are its networks with far more evaluations; ``mnist``
has the published widths, ticks and lower end of evaluations (Le, arXiv 2605.01928)."""


def preset_of(name: str) -> Preset:
    """A preset by name. Raises ValueError if there is none."""
    for preset in PRESETS:
        if preset.name == name:
            return preset
    raise ValueError(f"unknown preset {name!r}; choose one of {', '.join(p.name for p in PRESETS)}")
