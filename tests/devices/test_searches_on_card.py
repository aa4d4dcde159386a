"""Population searches where no GPU is: whole generations without waiting for it, and the points that the CPU finds."""

from functools import partial
from typing import Any

import pytest
import torch
from pretended_card import Card, OnCard, Wait
from torch import Tensor

from steersman.controllers.neural.policy import build_policy
from steersman.controllers.policy_search.evaluation import Episodes, Evaluation, InProcess
from steersman.controllers.policy_search.population import Population
from steersman.envs import make_plant
from steersman.envs.plant import Plant
from steersman.envs.simulator import PlantSimulator, Simulator
from steersman.experiments.benchmarks import gpu
from steersman.optimizers.base import Search
from steersman.optimizers.bases import SparseSigns
from steersman.optimizers.peer import PeerPolyStep
from steersman.optimizers.policies.registry import POLICIES
from steersman.optimizers.polystep.control import TrustRegion
from steersman.optimizers.polystep.weighting import SampleSize, Softmax
from steersman.optimizers.registry import SEARCHES, make_search
from steersman.optimizers.search import minimise
from steersman.optimizers.subspace import SubspaceSearch
from steersman.optimizers.vectorise import flatten

READ = "a copy between the memories at optimizers/base.py"
"""The one wait of a generation: the numbers that the next one begins with are read at the end of ``tell``."""
HOSTED = {
    "cma_es": "the package computes with numpy, so that costs, points and random numbers go by way of the CPU",
}
"""Searches that wait for a GPU more often by their nature."""
SETTINGS: dict[str, dict[str, Any]] = {
    "openai_es": {"size": 4}, "cma_es": {"size": 4}, "random": {"size": 4}, "ars": {"directions": 2, "top": 1},
    "spsa": {"pairs": 2}, "frame_step": {"directions": 2}, "polystep": {"polytope": "simplex", "block": 3},
}  # fmt: skip
FORMS: dict[str, Search[Any]] = {
    "polystep, trust region": make_search("polystep", block=2, control=TrustRegion(), weighting=Softmax(0.5)),
    "frame_step, biased": make_search("frame_step", directions=2, biased=True, momentum=0.5, shells=2),
    "frame_step, sample size": make_search("frame_step", directions=2, weighting=SampleSize(), confirmations=0),
}


def cost_of(points: Tensor) -> Tensor:
    return (points - 0.3).square().sum(dim=1)


def searched(search: Search[Any], device: str, card: Card | None = None) -> tuple[list[Tensor], list[list[Wait]]]:
    """Points of some generations and the champion, and what each generation waited for."""
    search.start(torch.linspace(-1, 1, 12, dtype=torch.float64).to(device), seed=4)
    found, waits = [], []
    for _ in range(4):
        if card is not None:
            card.waits.clear()
        points = search.ask()
        search.tell(cost_of(points))
        found.append(points)
        waits.append([] if card is None else list(card.waits))
    return [*found, search.incumbent, search.best.x], waits


def each_search() -> list[Any]:
    """All but the published package, which computes in inference mode, where nothing can be pretended."""
    made = {
        kind.name: partial(make_search, kind.name, **SETTINGS.get(kind.name, {}))
        for kind in SEARCHES
        if kind is not PeerPolyStep
    }
    return [pytest.param(make, id=name) for name, make in made.items()] + [
        pytest.param(lambda search=search: search, id=name) for name, search in FORMS.items()
    ]


@pytest.mark.parametrize("make", each_search())
def test_search(make: Any) -> None:
    search = make()
    here, _ = searched(search, "cpu")
    with Card() as card:
        there, waits = searched(make(), "cuda", card)
        assert all(isinstance(t, OnCard) for t in there)
        found = [t.cpu() for t in there]
    for a, b in zip(found, here, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    # The first one also places what is placed once.
    more = [str(wait) for generation in waits[1:] for wait in generation if not str(wait).startswith(READ)]
    if search.name in HOSTED:
        assert more, "it waits no more than others: strike it from HOSTED"
    else:
        assert not more, more
        assert all(len(generation) == 1 for generation in waits[1:])


def test_a_search_of_a_subspace_reads_once_more() -> None:
    """Its inner search judges its own candidates."""

    def make() -> Search[Any]:
        inner = make_search("frame_step", directions=2, confirmations=0)
        return SubspaceSearch(inner=inner, basis=SparseSigns(rank=4), rotate_every=3)

    with Card() as card:
        there, waits = searched(make(), "cuda", card)
        found = [t.cpu() for t in there]
    torch.testing.assert_close(found, searched(make(), "cpu")[0], rtol=1e-12, atol=1e-12)
    assert all(len(generation) == 2 for generation in waits[1:])


def generations(plant: Plant, policy: str, device: str, card: Card | None = None) -> tuple[list[Tensor], list[Wait]]:
    """Points and costs of two generations, and what the second one waited for but the reading at its end."""

    def simulate(n: int) -> Simulator:
        return PlantSimulator(plant, n, device=device, price=1.0)

    problem = simulate(1).problem
    network = build_policy(policy, problem.ny, problem.actions.m, POLICY.get(policy, (3,)), 0).to(device)
    like = flatten(network)
    mean, std = like.new_zeros(1, problem.ny), like.new_ones(1, problem.ny)
    episodes = Episodes(Population(network, like[None], mean, std, problem.actions), simulate, 0)
    search = make_search("frame_step", directions=2).start(like, seed=0)
    evaluate, found, waits = Evaluation(episodes, InProcess(episodes), 2, 0, 1.0), list[Tensor](), list[Wait]()
    for generation in range(2):
        steps = evaluate.plant_steps(generation)
        assert steps == generation * search.population * 2 * plant.horizon or plant.horizon > 3
        if card is not None:
            card.waits.clear()
        points = search.ask()
        cost = evaluate(points, generation)
        search.tell(cost)
        found += [points, cost]
        waits = [] if card is None else list(card.waits)
    return found, waits


POLICY: dict[str, tuple[int, ...]] = {"tree": (4,), "table": (3,), "rules": (2,), "attention": (4,), "experts": (2,)}
"""Sizes of the families that one number sizes."""


def epidemic() -> Plant:
    return make_plant("steersman/SEIRNetwork-v1", nodes=12, degree=2, seeds=2, hold=1, horizon=3)


@pytest.mark.parametrize("policy", [kind.name for kind in POLICIES])
def test_a_generation_waits_for_nothing_before_its_end(policy: str) -> None:
    """Asked for, run, their costs told: int8, binary, spiking and all other policies."""
    with Card() as card:
        there, waits = generations(epidemic(), policy, "cuda", card)
        assert all(isinstance(t, OnCard) for t in there)
        found = [t.cpu() for t in there]
    torch.testing.assert_close(found, generations(epidemic(), policy, "cpu")[0], rtol=1e-9, atol=1e-9)
    assert [str(wait) for wait in waits if not str(wait).startswith(READ)] == []
    assert len(waits) == 1


def test_episodes_that_end_early_cost_what_they_do_on_the_cpu() -> None:
    """There they leave the batch, here they stay in it: a pole that falls within twelve steps."""
    plant = make_plant("steersman/CartPole-v1")
    plant.horizon = 12
    with Card() as card:
        there, waits = generations(plant, "int8", "cuda", card)
        found = [t.cpu() for t in there]
    torch.testing.assert_close(found, generations(plant, "int8", "cpu")[0], rtol=1e-9, atol=1e-9)
    assert len(waits) == 1 and len(found[1].unique()) > 1


def test_a_line_of_the_history_is_read_at_once() -> None:
    x0 = torch.zeros(6, dtype=torch.float64)
    here = minimise(make_search("frame_step").start(x0), lambda points, g: cost_of(points), budget_evaluations=60)
    with Card() as card:
        search = make_search("frame_step").start(x0.to("cuda"))
        there = minimise(search, lambda points, g: cost_of(points), budget_evaluations=60)
        after = [wait for wait in card.waits if "optimizers/search.py" in wait.where[-1]]
    assert there.history == here.history and len(after) == len(there.history) > 2


def test_the_benchmark_waits_for_the_end_of_each_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "HIDDEN", (2,))
    monkeypatch.setattr(
        gpu, "make_simulator", lambda id, n, device, price: PlantSimulator(epidemic(), n, device=device)
    )
    with Card() as card:
        generation = gpu.Generation("steersman/SEIRNetwork-v1", "int8", 4, "cuda")
        for _ in range(2):
            card.waits.clear()
            assert generation() == 6  # four probes, the champion and its challenger
        assert [wait.what for wait in card.waits][-1] == "synchronize"


def test_policies() -> None:
    """One moved with ``to`` answers as before, with its memory."""
    for kind in POLICIES:
        network = build_policy(kind.name, 3, 2, POLICY.get(kind.name, (4,)), 0)
        obs = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
        here = network(obs, network.initial_state(4))
        with Card():
            there = network.to("cuda")(obs.to("cuda"), network.initial_state(4))
            assert all(isinstance(t, OnCard) for t in there), kind.name
            found = tuple(t.cpu() for t in there)
        torch.testing.assert_close(found, here, rtol=1e-12, atol=1e-12)
