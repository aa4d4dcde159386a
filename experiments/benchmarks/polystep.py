"""PolyStep against the package of the same name: steps, policy evaluations on CartPole, and memory.

Peaks of memory are those of fresh processes, so that nothing measured before counts.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from steersman.controllers.policy_search.compiled import CompiledSteps
from steersman.controllers.policy_search.population import Costs, Population, roll_out
from steersman.envs import noise
from steersman.envs.classic.cart_pole import CartPole
from steersman.envs.simulator import PlantSimulator
from steersman.experiments.benchmarks.base import Progress, Row, peer, throughput
from steersman.optimizers.policies.mlp import MLPPolicy
from steersman.optimizers.polystep.paper import paper
from steersman.optimizers.polystep.polytopes import Polytope
from steersman.optimizers.vectorise import flatten

SIZES = ((4, 16, 2), (8, 64, 8))
"""Layers of the policies whose parameters are moved: 114 and 1,096 of them."""
POPULATIONS, EPISODES, HORIZON = (64, 512), 16, 500
WIDTH, LONG = 16, 5000
MILLION = (990, 990)
"""Hidden widths of a policy of about a million parameters."""
LIMIT = 4.0
"""GiB that training it may take."""


def rows(progress: Progress) -> Iterator[Row]:
    """Measurements against polystep on equal particles, candidates and policies."""
    name = peer("polystep")
    for i, sizes in enumerate(SIZES):
        count = sum(a * b + b for a, b in itertools.pairwise(sizes))
        for j, weighting in enumerate(("softmax", "sinkhorn")):
            progress((2 * i + j) / 8, f"steps, {count} parameters, {weighting}")
            ours, theirs = throughput(_steps(sizes, weighting), _peer_steps(sizes, weighting), repeats=6)
            yield Row(
                f"PolyStep, {count:,} parameters, {weighting}, free costs", "steps / CPU s", ours, theirs, name, 2.0
            )
    plant = _plant()
    compiled = CompiledSteps(policies(2).network, plant, plant.objective)
    for i, members in enumerate(POPULATIONS):
        case = f"CartPole, {members} fixed policies x {EPISODES} episodes"
        for steps, text in ((compiled, "compiled"), (None, "not compiled")):
            progress((4 + i) / 8, f"{members} policies on CartPole, {text}")
            ours, theirs = throughput(partial(_episodes, members, steps), partial(_peer_episodes, members))
            yield Row(f"{case}, {text}", "policies / CPU s", ours, theirs, name, 1.5)
    shares = _live_share(members), _peer_live_share(members)
    yield Row(case, "needed / computed env steps", *shares, name, 1.0)
    progress(6 / 8, "memory, short and long episodes")
    short, long = (_peak(f"episodes({horizon})") for horizon in (HORIZON, LONG))
    case = f"CartPole, {POPULATIONS[0] * EPISODES:,} rollouts, {LONG:,} steps"
    yield Row(case, "1 / peak GiB", 1 / long, 1 / short, f"itself at {HORIZON} steps", 0.95)
    progress(7 / 8, "memory, a million parameters")
    for search, text in (("frame_step", "whole vector"), ("polystep", "block-wise in a sparse subspace")):
        peak = _peak(f"million({search!r})")
        yield Row(f"policy of 1,000,000 parameters, {text}", "1 / peak GiB", 1 / peak, 1 / LIMIT, "limit of 4 GiB", 1.0)


# ------------------------------------------------------------------ steps


def _network(sizes: tuple[int, ...]) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(sizes)))


def _steps(sizes: tuple[int, ...], weighting: Any) -> Callable[[], int]:
    """The paper's step, which the parity test holds to the peer's; the caller lends one population, as a loop does."""
    search = paper(temperature=0.1, polytope=Polytope.ORTHOPLEX, weighting=weighting).start(flatten(_network(sizes)))
    buffer: Tensor | None = None

    def work() -> int:
        nonlocal buffer
        for _ in range(20):
            buffer = search.ask(buffer)
            search.tell(buffer[:, 0].square())
        return 20

    return work


def _peer_steps(sizes: tuple[int, ...], weighting: str) -> Callable[[], int]:
    from polystep import PolyStepOptimizer

    optimizer = PolyStepOptimizer(
        _network(sizes), polytope_type="orthoplex", particle_dim=2, epsilon=0.1, solver=weighting, seed=0
    )

    def closure(batched: dict[str, Tensor]) -> Tensor:
        first: Tensor = next(iter(batched.values())).flatten(1)[:, 0].square()
        return first

    def work() -> int:
        for _ in range(20):
            optimizer.step(closure)
        return 20

    return work


# ------------------------------------------------------------------ policies on CartPole


def policies(members: int) -> Population:
    """Policies 4-16-2 from random ones to ones that balance, evenly, as in the middle of a training.

    The latter's hidden units are a stabilising feedback of position, velocity, angle and angular velocity.
    """
    gen = torch.Generator().manual_seed(0)
    network = MLPPolicy(4, 2, (WIDTH,), gen=gen, dtype=torch.float32)
    sign = torch.ones(WIDTH).index_fill_(0, torch.arange(0, WIDTH, 2), -1.0)
    feedback = torch.tensor([0.05, 0.15, 1.0, 0.4])
    good = torch.cat(
        [torch.outer(sign, feedback).flatten(), torch.zeros(WIDTH), -sign / WIDTH, sign / WIDTH, torch.zeros(2)]
    )
    noisy = torch.randn(members, len(good), generator=gen) * 0.3
    share = torch.linspace(0, 1, members)[:, None]
    actions = CartPole().problem.actions
    return Population(network, share * good + (1 - share) * noisy, torch.zeros(1, 4), torch.ones(1, 4), actions)


def _plant(horizon: int = HORIZON) -> CartPole:
    plant = CartPole()
    plant.horizon, plant.dtype = horizon, torch.float32  # as the peer's
    return plant


def _roll_out(members: int, horizon: int = HORIZON, compiled: CompiledSteps | None = None) -> Costs:
    simulator = PlantSimulator(_plant(horizon), members * EPISODES)
    bank = simulator.scenarios(noise.keys(0, EPISODES).repeat(members))
    return roll_out(policies(members), simulator, bank, compiled=compiled)


def _episodes(members: int, compiled: CompiledSteps | None = None) -> int:
    _roll_out(members, compiled=compiled)
    return members


def _peer_roll_out(members: int) -> Any:
    from polystep.benchmarks.rl.cartpole import CartPoleEvaluator

    vectors, parts, i = policies(members).vectors, {}, 0
    for name, shape in (("0.weight", (16, 4)), ("0.bias", (16,)), ("2.weight", (2, 16)), ("2.bias", (2,))):
        size = torch.Size(shape).numel()
        parts[f"net.{name}"] = vectors[:, i : i + size].reshape(members, *shape).contiguous()
        i += size
    evaluator = CartPoleEvaluator(rollouts_per_candidate=EPISODES, horizon=HORIZON)
    return evaluator.rollout_stacked_params(parts, seed=0, step=0)


def _peer_episodes(members: int) -> int:
    _peer_roll_out(members)
    return members


def _live_share(members: int) -> float:
    """Control steps of running episodes over rows that were stepped."""
    found = _roll_out(members)
    return float(found.plant_steps.sum()) / found.simulated


def _peer_live_share(members: int) -> float:
    """Likewise; it steps all rows until none runs, or to the end."""
    lengths = _peer_roll_out(members).lengths
    every = HORIZON // 8
    last = min(HORIZON, every * -(-int(lengths.max()) // every))
    return float(lengths.sum() / (lengths.numel() * last))


# ------------------------------------------------------------------ memory


def _peak(call: str) -> float:
    """GiB that a fresh process takes at most in which a function of this module runs."""
    code = (
        "import resource, torch\n"
        "torch.set_num_threads(1)\n"
        f"from {__name__} import episodes, million\n"
        f"{call}\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    return float(found.stdout)


def episodes(horizon: int) -> None:
    """Roll the fixed policies out, for a measurement of memory."""
    _roll_out(POPULATIONS[0], horizon)


def million(name: str) -> None:
    """Three generations on CartPole of a policy with a million parameters, for a measurement of memory."""
    from steersman.optimizers.bases import SparseSigns
    from steersman.optimizers.registry import make_search
    from steersman.optimizers.subspace import SubspaceSearch

    network = MLPPolicy(4, 2, MILLION, gen=torch.Generator().manual_seed(0), dtype=torch.float32)
    search: Any = make_search(name, confirmations=0)
    if name == "polystep":
        search = SubspaceSearch(inner=search, basis=SparseSigns(64), rotate_every=2)
    search.start(flatten(network))
    plant, pop = _plant(horizon=20), search.population
    simulator = PlantSimulator(plant, pop)
    buffer: Tensor | None = None
    for generation in range(3):
        buffer = search.ask(buffer)
        members = Population(network, buffer, torch.zeros(1, 4), torch.ones(1, 4), plant.problem.actions)
        keys = noise.keys(generation, 1).repeat(pop)
        search.tell(roll_out(members, simulator, simulator.scenarios(keys)).cost.mean(dim=1))
