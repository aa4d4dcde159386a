"""The hard oblique tree of the published package's examples: a chessboard, 40,000 evaluations."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steersman.optimizers.base import Search
from steersman.optimizers.cma_es import CMAES
from steersman.optimizers.evolution import OpenAIES
from steersman.optimizers.policies.tree import TreePolicy
from steersman.optimizers.polystep.control import Scheduled
from steersman.optimizers.polystep.frame import FrameStep
from steersman.optimizers.polystep.polystep import PolyStep
from steersman.optimizers.polystep.weighting import Softmax
from steersman.optimizers.random_search import RandomSearch
from steersman.optimizers.search import minimise
from steersman.optimizers.vectorise import assign, flatten, population_forward

BUDGET = 40_000
TUNING = 15_000
TUNED_ON = (90, 91)
SEEDS = (0, 1, 2, 3, 4)
POINTS, TEST_POINTS, DEPTH = 600, 5000, 4
PEER = "polystep 1.1.0"


@dataclass(frozen=True)
class TreeRun:
    """One tree.

    Attributes:
        method: Name of the method.
        scale: Its tuned setting.
        seed: Seed of first point and method.
        evaluations: Trees evaluated on all training points.
        train: Accuracy on the 600 points.
        test: Accuracy on 5,000 new ones.
        seconds: CPU seconds.
    """

    method: str
    scale: float
    seed: int
    evaluations: int
    train: float
    test: float
    seconds: float


@dataclass(frozen=True)
class TreeMethod:
    """A method: name, radii, deviations or rates to try, and what trains a tree."""

    name: str
    scales: tuple[float, ...]
    train: Callable[[Board, float, int, int], tuple[Tensor, int]]


@dataclass(frozen=True)
class Board:
    """A 3 x 3 chessboard of classes: points uniform on it, standardised, then moved by noise of 0.05."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


def board(seed: int = 0) -> Board:
    """The package's example: the training set of its seed 0, with more points of the same law for a test."""
    gen = torch.Generator().manual_seed(seed)

    def draw(n: int) -> tuple[Tensor, Tensor]:
        place = 3 * torch.rand(n, 2, generator=gen)
        return place, place.floor().sum(dim=1).remainder(2) > 0

    place, y = draw(POINTS)
    mean, std = place.mean(dim=0), place.std(dim=0)
    x = (place - mean) / std + 0.05 * torch.randn(POINTS, 2, generator=gen)
    fresh, test_y = draw(TEST_POINTS)
    return Board(x, y, (fresh - mean) / std + 0.05 * torch.randn(TEST_POINTS, 2, generator=gen), test_y)


def tree() -> TreePolicy:
    """Fifteen splits, sixteen constants: 61 numbers."""
    return TreePolicy(2, 1, DEPTH, gen=torch.Generator().manual_seed(0), dtype=torch.float32)


def error(network: TreePolicy, vectors: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Share of points on the wrong side of zero, of each member."""
    state = network.initial_state(len(x)).expand(len(vectors), -1, -1)
    out, _ = population_forward(network, vectors, x.expand(len(vectors), -1, -1), state)
    wrong: Tensor = ((out[..., 0] > 0) != y).double().mean(dim=1)
    return wrong


def start(seed: int) -> Tensor:
    """The example's law of first points: normal with deviation 0.3 in all coordinates."""
    return 0.3 * torch.randn(len(flatten(tree())), generator=torch.Generator().manual_seed(seed))


def by_search(make: Callable[[float], Search[Any]]) -> Callable[[Board, float, int, int], tuple[Tensor, int]]:
    """The best point of a search."""

    def train(data: Board, scale: float, seed: int, budget: int) -> tuple[Tensor, int]:
        network = tree()
        search = make(scale).start(start(seed), seed=seed)
        found = minimise(search, lambda vectors, _: error(network, vectors, data.x, data.y), budget_evaluations=budget)
        assert found.best is not None  # noqa: S101 - errors are finite
        return found.best.x, found.evaluations

    return train


def by_peer(data: Board, scale: float, seed: int, budget: int) -> tuple[Tensor, int]:
    """The example's own search: one particle, temperature 0.02; its radius is the setting."""
    try:
        import polystep
    except ModuleNotFoundError:
        raise ModuleNotFoundError("this study compares with polystep: pip install steersman[peers]") from None
    network, x0 = tree(), start(seed)
    search = polystep.PolyStepES(len(x0), epsilon=0.02, step_radius=scale, x0=x0, seed=seed)
    used = 0
    while used + search.popsize <= budget:
        search.tell(error(network, search.ask(), data.x, data.y))
        used += search.popsize
    assert search.best_solution is not None  # noqa: S101 - errors are finite
    return search.best_solution, used


def by_adam(data: Board, scale: float, seed: int, budget: int) -> tuple[Tensor, int]:
    """Adam on the logistic surrogate of the hard tree; the steps with the fewest errors."""
    network = tree()
    assign(network, start(seed))
    network.use_surrogate = True
    optimiser = torch.optim.Adam(network.parameters(), scale)
    best, lowest, steps = flatten(network), 1.0, 2000
    for _ in range(steps):
        out, _ = network(data.x, network.initial_state(len(data.x)))
        wrong = float(((out[:, 0] > 0) != data.y).double().mean())
        if wrong < lowest:
            best, lowest = flatten(network), wrong
        loss = nn.functional.binary_cross_entropy_with_logits(out[:, 0], data.y.float())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return best, 3 * steps


def _cold(scale: float) -> Search[Any]:
    """The example's transport: all directions, softmax at 0.02 of the mean cost, radii that stay."""
    return FrameStep(
        probe_radius=2 * scale, step_radius=scale, directions=61, weighting=Softmax(0.02), control=Scheduled(),
        confirmations=0,
    )  # fmt: skip


METHODS: tuple[TreeMethod, ...] = (
    TreeMethod("frame_step, cold", (0.07, 0.2, 0.6, 1.8, 5.4), by_search(_cold)),
    TreeMethod(PEER, (0.5, 1.5, 4.5, 13.5, 40.0), by_peer),
    TreeMethod(
        "frame_step", (0.1, 0.3, 1.0, 3.0, 10.0),
        by_search(lambda s: FrameStep(probe_radius=2 * s, step_radius=s, confirmations=0)),
    ),
    TreeMethod(
        "polystep", (0.5, 1.5, 4.5, 13.5, 40.0),
        by_search(lambda s: PolyStep(probe_radius=s, step_radius=s, confirmations=0)),
    ),
    TreeMethod(
        "OpenAI-ES", (0.01, 0.03, 0.1, 0.3, 1.0),
        by_search(lambda s: OpenAIES(size=122, sigma=s, rate=0.5 * s, confirmations=0)),
    ),
    TreeMethod("CMA-ES", (0.01, 0.03, 0.1, 0.3, 1.0), by_search(lambda s: CMAES(sigma=s, confirmations=0))),
    TreeMethod("random", (0.3, 1.0, 3.0, 10.0, 30.0), by_search(lambda s: RandomSearch(spread=s, confirmations=0))),
    TreeMethod("Adam, surrogate", (0.01, 0.03, 0.1, 0.3, 1.0), by_adam),
)  # fmt: skip


def run_tree(method: TreeMethod, data: Board, scale: float, seed: int, budget: int = BUDGET) -> TreeRun:
    """One tree, trained and tested."""
    begun = time.process_time()
    x, used = method.train(data, scale, seed, budget)
    seconds = time.process_time() - begun
    network = tree()
    train, test = (float(1 - error(network, x[None], *part)) for part in ((data.x, data.y), (data.test_x, data.test_y)))
    return TreeRun(method.name, scale, seed, used, train, test, seconds)
