"""Methods of the study of supervised tasks: searches, the published package, and Adam on surrogate gradients."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steersman.experiments.studies.polystep.supervised_tasks import Data, Preset, Task
from steersman.optimizers.ars import ARS
from steersman.optimizers.base import Search
from steersman.optimizers.bases import Uniform
from steersman.optimizers.cma_es import CMAES
from steersman.optimizers.evolution import OpenAIES
from steersman.optimizers.policies.base import Policy
from steersman.optimizers.polystep.frame import FrameStep
from steersman.optimizers.polystep.polystep import PolyStep
from steersman.optimizers.polystep.polytopes import Polytope
from steersman.optimizers.search import minimise
from steersman.optimizers.spsa import SPSA
from steersman.optimizers.subspace import SubspaceSearch
from steersman.optimizers.vectorise import flatten

_ROWS = 128
"""Networks evaluated at once where a generation holds thousands, whose activations would not stay in the cache."""


@dataclass(frozen=True)
class Trained:
    """What one run gave.

    Attributes:
        task: Name of the task.
        method: Name of the method.
        scale: The tuned setting.
        seed: Seed of weights, mini-batches and method.
        evaluations: Networks evaluated on a mini-batch; a gradient step counts as three.
        validate: Accuracy on the images that chose the checkpoint.
        test: Accuracy on the test's.
        seconds: CPU seconds.
    """

    task: str
    method: str
    scale: float
    seed: int
    evaluations: int
    validate: float
    test: float
    seconds: float


@dataclass(frozen=True)
class Method:
    """A method with one setting to tune.

    Attributes:
        name: Name in tables.
        scales: Values tried.
        meaning: What the setting is.
        train: Trains a network: candidates for deployment, of which the validation chooses one, and evaluations.
    """

    name: str
    scales: tuple[float, ...]
    meaning: str
    train: Callable[[Preset, Task, Data, Policy, float, int, int], tuple[Tensor, int]]


def run_method(method: Method, preset: Preset, task: Task, data: Data, scale: float, seed: int, budget: int) -> Trained:
    """One run: weights from the seed, training, and the candidate that validates best on the test's images."""
    start = time.process_time()
    network = task.make(torch.Generator().manual_seed(seed)).to(data.x.device)
    candidates, used = method.train(preset, task, data, network, scale, seed, budget)
    scores = task.accuracy(network, candidates, data, "validate")
    best = scores.index(max(scores))
    test = task.accuracy(network, candidates[best : best + 1], data, "test")[0]
    return Trained(task.name, method.name, scale, seed, used, scores[best], test, time.process_time() - start)


def batch_of(preset: Preset, data: Data, seed: int, generation: int) -> tuple[Tensor, Tensor]:
    """The mini-batch that all members of a generation, of every method alike, are evaluated on."""
    gen = torch.Generator().manual_seed((seed << 32) + generation)
    return data.batch(preset.batch, gen)


def by_search(make: Callable[[Preset, float], Search[Any]]) -> Callable[..., tuple[Tensor, int]]:
    """Train with a search; its centre and its best point are candidates."""

    def train(
        preset: Preset, task: Task, data: Data, network: Policy, scale: float, seed: int, budget: int
    ) -> tuple[Tensor, int]:
        def evaluate(vectors: Tensor, generation: int) -> Tensor:
            return task.loss(network, vectors, *batch_of(preset, data, seed, generation))

        search = make(preset, scale).start(flatten(network), seed=seed)
        found = minimise(search, evaluate, budget_evaluations=budget)
        best = found.incumbent if found.best is None else found.best.x
        return torch.stack([found.incumbent, best]), found.evaluations

    return train


def by_peer(
    preset: Preset, task: Task, data: Data, network: Policy, scale: float, seed: int, budget: int
) -> tuple[Tensor, int]:
    """The package in its own subspace."""
    package = _package()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on threads and sizes
        subspace = package.HybridSubspace.from_layout(
            package.ParamLayout.from_module(network), rank=4, max_subspace_dim=preset.coordinates, seed=seed
        )
        optimizer = package.PolyStepOptimizer(
            network, subspace=subspace, solver="softmax", step_radius=scale, probe_radius=2 * scale, seed=seed
        )
        return _by_package(optimizer, preset, task, data, network, seed, budget)


def by_peer_at_full_rank(
    preset: Preset, task: Task, data: Data, network: Policy, scale: float, seed: int, budget: int
) -> tuple[Tensor, int]:
    """The package on all parameters, in simplices of 8.

    Raises:
        ValueError: If the budget does not cover a step.
    """
    package = _package()
    if budget < (need := 9 * -(-len(flatten(network)) // 8)):
        raise ValueError(f"budget is {budget:,}; a step of the package on all parameters takes {need:,}, raise it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = package.PolyStepOptimizer(
            network, particle_dim=8, polytope_type="simplex", solver="softmax", step_radius=scale,
            probe_radius=2 * scale, seed=seed,
        )  # fmt: skip
        return _by_package(optimizer, preset, task, data, network, seed, budget)


def _package() -> Any:
    try:
        import polystep
    except ModuleNotFoundError:
        raise ModuleNotFoundError("this study compares with polystep: pip install steersman[peers]") from None
    return polystep


def _by_package(
    optimizer: Any, preset: Preset, task: Task, data: Data, network: Policy, seed: int, budget: int
) -> tuple[Tensor, int]:
    """Its last weights and those of the lowest loss on its first batch compete.

    The latter is the package's own rule for what to keep; its evaluations are not counted.
    """
    generation, used, widest = 0, 0, 0
    first, kept, lowest = batch_of(preset, data, seed, 0), flatten(network), float("inf")
    names = [name for name, _ in network.named_parameters()]

    def closure(parts: dict[str, Tensor]) -> Tensor:
        nonlocal used
        vectors = torch.cat([parts[name].flatten(1) for name in names], dim=1)
        used += len(vectors)
        batch = batch_of(preset, data, seed, generation)
        return torch.cat([task.loss(network, part, *batch) for part in torch.split(vectors, _ROWS)]).float()

    while used + widest <= budget:
        before = used
        optimizer.step(closure)
        widest = max(widest, used - before)
        generation += 1
        loss = float(task.loss(network, flatten(network)[None], *first))
        if loss < lowest:
            kept, lowest = flatten(network), loss
    return torch.stack([flatten(network), kept]), used


def by_adam(
    preset: Preset, task: Task, data: Data, network: Policy, scale: float, seed: int, budget: int
) -> tuple[Tensor, int]:
    """Adam on the surrogate gradient, with a cosine schedule; never more steps than the budget pays for."""
    steps = min(preset.gradient_steps, budget // 3)
    network.use_surrogate = True
    optimiser = torch.optim.Adam(network.parameters(), scale)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        x, y = batch_of(preset, data, seed, step)
        out, _ = network(x, network.initial_state(len(x)))
        loss = nn.functional.cross_entropy(task.gain * out, y)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    network.use_surrogate = False
    return flatten(network)[None], 3 * steps


def _block_wise(preset: Preset, scale: float) -> Search[Any]:
    inner = PolyStep(probe_radius=scale, step_radius=scale, block=8, polytope=Polytope.SIMPLEX, confirmations=0)
    return SubspaceSearch(inner=inner, basis=Uniform(preset.coordinates), rotate_every=1)


def _frame(preset: Preset, scale: float) -> Search[Any]:
    return FrameStep(probe_radius=2 * scale, step_radius=scale, directions=32)


def _evolution(preset: Preset, scale: float) -> Search[Any]:
    return OpenAIES(size=64, sigma=scale, rate=0.4 * scale)


def _covariance(preset: Preset, scale: float) -> Search[Any]:
    return CMAES(sigma=scale, covariance="diagonal", size=64)


def _spsa(preset: Preset, scale: float) -> Search[Any]:
    return SPSA(radius=scale, step=0.5 * scale, pairs=4)


def _ars(preset: Preset, scale: float) -> Search[Any]:
    return ARS(noise=scale, rate=0.3 * scale, directions=32, top=16)


PEER = "polystep 1.1.0"
FULL = "polystep 1.1.0, full rank"
ADAM = "Adam, surrogate"
METHODS: tuple[Method, ...] = (
    Method(
        "polystep", (0.03, 0.1, 0.3, 1.0, 3.0), "radii, simplices of 8 in a rotating subspace", by_search(_block_wise)
    ),
    Method(
        "frame_step", (0.01, 0.03, 0.1, 0.3, 1.0), "step radius, half of the probes', 32 directions", by_search(_frame)
    ),
    Method(PEER, (1.0, 3.0, 10.0, 30.0, 100.0), "step radius, half of the probes', in its hybrid subspace", by_peer),
    Method("OpenAI-ES", (0.005, 0.015, 0.05, 0.15, 0.5), "deviation, 2.5 rates, population 64", by_search(_evolution)),
    Method("CMA-ES", (0.005, 0.015, 0.05, 0.15, 0.5), "deviation, diagonal, population 64", by_search(_covariance)),
    Method("SPSA", (0.005, 0.015, 0.05, 0.15, 0.5), "perturbation, twice the first step, 4 pairs", by_search(_spsa)),
    Method("ARS", (0.015, 0.05, 0.15, 0.5, 1.5), "deviation, 3.3 rates, 16 best of 32 pairs", by_search(_ars)),
    Method(ADAM, (0.001, 0.003, 0.01, 0.03, 0.1), "learning rate", by_adam),
)
LONG: tuple[Method, ...] = (
    *METHODS,
    Method(
        FULL, (0.03, 0.1, 0.3, 1.0, 3.0), "its step radius, half of the probes', in blocks of 8", by_peer_at_full_rank
    ),
)
"""Methods of presets with many evaluations: a step of the package on all parameters takes thousands of them."""
