"""Compiled control steps: the same episodes as step by step, whatever leaves the batch, and errors that say why not."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from shutil import which
from typing import Any

import pytest
import torch

from steersman.controllers.base import Training
from steersman.controllers.neural.policy import build_policy
from steersman.controllers.policy_search import PolicySearch
from steersman.controllers.policy_search.compiled import STRIDE
from steersman.controllers.policy_search.evaluation import Episodes
from steersman.controllers.policy_search.population import Costs, Population
from steersman.envs import make_simulator, noise
from steersman.envs.simulator import Simulator
from steersman.optimizers.vectorise import flatten


def members(simulate: Callable[[int], Simulator], policy: str, pop: int) -> Population:
    problem = simulate(1).problem
    network = build_policy(policy, problem.ny, problem.actions.m, (4,), 0)
    start = flatten(network)
    vectors = start + torch.randn(pop, len(start), generator=torch.Generator().manual_seed(1), dtype=start.dtype)
    one = torch.ones(1, problem.ny, dtype=torch.float64)
    return Population(network, vectors, 0 * one, one, problem.actions)


def both(plant: str, policy: str, pop: int, episodes: int, **settings: Any) -> tuple[Costs, Costs]:
    simulate = partial(make_simulator, plant)
    population, keys = members(simulate, policy, pop), noise.keys(3, episodes)
    plain, compiled = (
        Episodes(population, simulate, 0, compiled=way, **settings).run(population.vectors, keys)
        for way in (False, True)
    )
    return plain, compiled


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler does nothing, so that results must be equal to the last bit (and are known in a moment)."""
    monkeypatch.setattr(torch, "compile", lambda f, **settings: f)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    ("plant", "policy", "pop", "episodes"),
    [
        ("steersman/CartPole-v1", "mlp", 40, 5),
        ("steersman/CartPole-v1", "gru", 3, 2),
        ("steersman/CartPole-v1", "binary-activation", 9, 3),
        ("steersman/CartPole-v1", "mlp", 1, 4),
        ("steersman/CartPole-v1", "mlp", 4, 1),
        ("steersman/TwoAreaBrake-v1", "int8", 3, 2),
    ],
)
def test_steps_in_fours_give_the_episodes_of_single_ones(plant: str, policy: str, pop: int, episodes: int) -> None:
    plain, compiled = both(plant, policy, pop, episodes)
    assert torch.equal(plain.cost, compiled.cost) and torch.equal(plain.plant_steps, compiled.plant_steps)
    live = int(plain.plant_steps.sum())
    assert live <= compiled.simulated <= plain.simulated + STRIDE * plain.cost.numel() + live


@pytest.mark.usefixtures("uncompiled")
def test_hopeless_members_still_end_early() -> None:
    plain, compiled = both("steersman/Acrobot-v1", "mlp", 8, 2, floor=0.0, keep=1 / 8)
    best = int(plain.cost.mean(dim=1).argmin())
    assert torch.equal(plain.cost[best], compiled.cost[best])
    assert int(compiled.plant_steps.sum()) < 8 * 2 * 500


REAL = """
import torch
torch.set_num_threads(1)
import sys
sys.path.insert(0, sys.argv[1])
from test_compiled_steps import both
from torch._dynamo.utils import counters
plain, compiled = both("steersman/CartPole-v1", sys.argv[2], 24, 4)
same = (plain.cost == compiled.cost).double().mean()
assert same > 0.9, same  # rounding decides some pushes, and from there on episodes differ
assert abs(plain.cost.mean() / compiled.cost.mean() - 1) < 0.05
assert not torch.equal(plain.cost[0], plain.cost[1])
print(counters["stats"]["unique_graphs"])
"""


@pytest.mark.skipif(which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("policy", ["mlp", pytest.param("binary-activation", marks=pytest.mark.slow)])
def test_the_compiler_is_called_once_for_all_sizes(policy: str) -> None:
    # In a process of its own: the compiler does not look through the checks of shapes that tests run under.
    folder = str(__file__).rsplit("/", 1)[0]
    run = subprocess.run(
        [sys.executable, "-c", REAL, folder, policy], capture_output=True, text=True, check=False, timeout=600
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["1"]


def test_what_cannot_be_compiled_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"compiled=True takes a plant .* set compiled=False"):
        both("CartPole-v1", "mlp", 2, 2)

    def refuse(f: object, **settings: object) -> Any:
        def call(*args: object) -> None:
            raise RuntimeError("no compiler found\nlong story")

        return call

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(
        RuntimeError, match=r"MLPPolicy on CartPole cannot be compiled; set compiled=False.*no compiler"
    ):
        both("steersman/CartPole-v1", "mlp", 2, 2)


def test_a_compiler_that_is_wrong_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def twist(f: Callable[..., Any], **settings: object) -> Any:
        def call(*args: Any) -> Any:
            after, over = f(*args)
            return replace(after, now=replace(after.now, x=1.1 * after.now.x)), over

        return call

    monkeypatch.setattr(torch, "compile", twist)
    with pytest.raises(RuntimeError, match="agree with the others in 0% of the rows only"):
        both("steersman/CartPole-v1", "mlp", 2, 2)


@pytest.mark.slow
@pytest.mark.usefixtures("uncompiled")
def test_a_search_with_compiled_steps_finds_the_same_policy() -> None:
    def trained(compiled: bool) -> dict[str, torch.Tensor]:
        controller = PolicySearch(
            "cma_es", hidden=(2,), plant_steps=17_000, scenarios=2, explore=2, options={"size": 6}, compiled=compiled
        )
        simulate = partial(make_simulator, "steersman/CartPole-v1")
        controller.bind(simulate(1).problem)
        controller.train(Training(simulate, 1, None))
        return controller.state_dict()

    one, other = trained(False), trained(True)
    assert all(torch.equal(one[name], other[name]) for name in one)
