"""Conformance: every enrolled search, and variants of the composed ones, pass the same tests."""

import math
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from steersman.optimizers.base import Search
from steersman.optimizers.bases import SparseSigns, Uniform
from steersman.optimizers.bounds import BoundedSearch
from steersman.optimizers.checkpoint import read_checkpoint, write_checkpoint
from steersman.optimizers.cma_es import CMAES
from steersman.optimizers.peer import PeerPolyStep
from steersman.optimizers.polystep.control import Scheduled
from steersman.optimizers.polystep.frame import FrameStep
from steersman.optimizers.polystep.polystep import PolyStep
from steersman.optimizers.polystep.polytopes import Polytope
from steersman.optimizers.polystep.schedules import Schedule
from steersman.optimizers.polystep.weighting import ExponentialRanks, Softmax
from steersman.optimizers.random_search import RandomSearch
from steersman.optimizers.registry import SEARCHES, make_search
from steersman.optimizers.search import minimise
from steersman.optimizers.subspace import SubspaceSearch

Make = Callable[[], Search]

PAPER = {"radius": Schedule(1.5, 0.05, 150), "weighting": Softmax(Schedule(0.5, 0.1, 150, "linear"))}

VARIANTS: dict[str, Make] = {
    "polystep, paper": lambda: PolyStep(
        polytope=Polytope.SIMPLEX,
        control=Scheduled(),
        momentum=0.0,
        weighting=PAPER["weighting"],
        probe_radius=PAPER["radius"],
        step_radius=PAPER["radius"],
    ),
    # Its own default, Sinkhorn iterations on costs in their own units, takes a hundred times longer here.
    "polystep_peer": lambda: PeerPolyStep(solver="softmax", divisor="mean"),
    "polystep_peer, cooling": lambda: PeerPolyStep(
        solver="sinkhorn", divisor="mean", temperature=Schedule(1.0, 0.3, 5), block=3
    ),
    "polystep, shells": lambda: PolyStep(block=4, shells=2, momentum=0.3, weighting=ExponentialRanks()),
    "frame, simplex": lambda: FrameStep(polytope=Polytope.SIMPLEX, directions=4, confirmations=3),
    "cma, diagonal": lambda: CMAES(covariance="diagonal", size=10),
    "random, uniform": lambda: RandomSearch(law="uniform", spread=2.0),
    "subspace": lambda: SubspaceSearch(inner=FrameStep(confirmations=0), basis=Uniform(5)),
    "subspace, cma": lambda: SubspaceSearch(inner=CMAES(confirmations=0), basis=Uniform(5)),
    "subspace, signs, rotating": lambda: SubspaceSearch(
        inner=FrameStep(confirmations=0, directions=2), basis=SparseSigns(3), rotate_every=3
    ),
    "bounded": lambda: BoundedSearch(inner=FrameStep(confirmations=0), lower=-2.0, upper=3.0),
}
INSTALLED = [kind for kind in SEARCHES if kind is not PeerPolyStep or find_spec("polystep") is not None]
MAKERS: dict[str, Make] = {kind.name: kind for kind in INSTALLED} | VARIANTS
if PeerPolyStep not in INSTALLED:
    del MAKERS["polystep_peer"], MAKERS["polystep_peer, cooling"]


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Make:
    return MAKERS[request.param]


def start(dim: int = 6, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.full((dim,), -1.3, dtype=dtype)


def sphere(x: Tensor, generation: int) -> Tensor:
    return (x - 1).square().sum(1)


def rosenbrock(x: Tensor, generation: int) -> Tensor:
    return (100 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(1)


def rastrigin(x: Tensor, generation: int) -> Tensor:
    return (x.square() - 10 * torch.cos(2 * math.pi * x) + 10).sum(1)


def noisy(x: Tensor, generation: int) -> Tensor:
    gen = torch.Generator().manual_seed(generation)
    return sphere(x, generation) + torch.randn(len(x), generator=gen, dtype=torch.float64)


def run(search: Search, generations: int, cost: Callable[[Tensor, int], Tensor] = noisy) -> Tensor:
    asked = []
    for _ in range(generations):
        asked.append(search.ask())
        search.tell(cost(asked[-1], search.generation))
    return torch.stack(asked)


@pytest.mark.parametrize("cost", [sphere, rosenbrock, rastrigin])
def test_costs_fall(make: Make, cost: Callable[[Tensor, int], Tensor]) -> None:
    search = make().start(start(), seed=1)
    first = float(cost(start()[None], 0))
    result = minimise(search, cost, budget_evaluations=3000)
    # Drawing at random is the yardstick; the other searches learn. A subspace holds no minimum of the whole space.
    share = {"random": 0.5, "subspace": 0.5}.get(search.name, 0.25 if cost is rastrigin else 0.05)
    assert result.best is not None and result.best.cost < share * first
    assert result.best.cost == pytest.approx(float(cost(result.best.x[None], 0)), rel=1e-9, abs=1e-12)
    assert float(cost(search.incumbent[None], 0)) < share * first


def test_what_a_population_is(make: Make) -> None:
    search = make().start(start(dtype=torch.float32))
    sizes = {len(search.ask())}
    search.tell(torch.arange(search.population, dtype=torch.float32))
    sizes.add(len(search.ask()))
    assert sizes == {search.population}
    assert search.best.x.dtype == torch.float32 == search.incumbent.dtype
    assert search.evaluations == search.population and search.generation == 1


def test_same_seed_same_points(make: Make) -> None:
    one, two, other = (run(make().start(start(), seed=seed), 8) for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_a_given_buffer_is_filled_with_the_same_points(make: Make) -> None:
    fresh, frugal = make().start(start(), seed=3), make().start(start(), seed=3)
    buffer = torch.empty(frugal.population, 6, dtype=torch.float64)
    for _ in range(4):
        points = frugal.ask(buffer)
        assert points is buffer and torch.equal(points, fresh.ask())
        for search in (fresh, frugal):
            search.tell(noisy(points, search.generation))
    assert torch.equal(fresh.best.x, frugal.best.x)
    for wrong in (buffer[:-1], buffer.float(), buffer.T.contiguous().T):
        with pytest.raises(ValueError, match="take a population that ask returned"):
            frugal.ask(wrong)
    assert torch.equal(fresh.ask(), frugal.ask())


def test_a_given_generator_is_used(make: Make) -> None:
    gen = torch.Generator().manual_seed(3)
    assert torch.equal(run(make().start(start(), gen=gen), 5), run(make().start(start(), seed=3), 5))


@pytest.mark.parametrize("pending", [False, True])
def test_resume_is_bit_exact(make: Make, pending: bool, tmp_path: Path) -> None:
    whole = make().start(start(), seed=5)
    run(whole, 7)
    waiting = whole.ask() if pending else None
    write_checkpoint(tmp_path / "state.safetensors", whole.state_dict(), {})
    state, _ = read_checkpoint(tmp_path / "state.safetensors")
    again = make()
    again.load_state_dict(state)
    if waiting is not None:
        for search in (whole, again):
            search.tell(noisy(waiting, 7))
    assert torch.equal(run(whole, 7), run(again, 7))
    assert torch.equal(whole.incumbent, again.incumbent)
    assert whole.best.cost == again.best.cost and torch.equal(whole.best.x, again.best.x)
    assert (whole.evaluations, whole.generation) == (again.evaluations, again.generation)


def test_taking_a_state_changes_nothing(make: Make) -> None:
    quiet, watched = make().start(start(), seed=2), make().start(start(), seed=2)
    for _ in range(4):
        points = quiet.ask()
        watched.state_dict()
        assert torch.equal(points, watched.ask())
        state = watched.state_dict()
        for value in state.values():
            if isinstance(value, Tensor):
                value.zero_()
        quiet.tell(noisy(points, quiet.generation))
        watched.tell(noisy(points, watched.generation))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_costs_that_are_not_finite_are_never_best(make: Make, bad: float) -> None:
    def half_broken(x: Tensor, generation: int) -> Tensor:
        return torch.where(x[:, 0] > 0, bad, sphere(x, generation))

    search = make().start(start(), seed=1)
    run(search, 30, half_broken)
    assert math.isfinite(search.best.cost)
    assert search.best.x[0] <= 0
    assert torch.isfinite(search.incumbent).all()


def test_a_failing_start_gives_way(make: Make) -> None:
    def broken_at_start(x: Tensor, generation: int) -> Tensor:
        return torch.where((x == start()).all(dim=1), math.nan, sphere(x, generation))

    search = make().start(start(), seed=1)
    run(search, 6, broken_at_start)
    assert math.isfinite(search.best.cost)


def test_nothing_finite_has_no_best_and_moves_stay_finite(make: Make) -> None:
    search = make().start(start())
    run(search, 4, lambda x, generation: torch.full((len(x),), math.nan, dtype=torch.float64))
    assert torch.isfinite(search.incumbent).all()
    with pytest.raises(RuntimeError, match="no finite cost"):
        _ = search.best


def test_plateau(make: Make) -> None:
    search = make().start(start())
    run(search, 40, lambda x, generation: torch.zeros(len(x), dtype=torch.float64))
    assert torch.isfinite(search.incumbent).all() and search.best.cost == 0


def test_order_and_shapes_are_checked(make: Make) -> None:
    search = make()
    for call in (search.ask, search.state_dict, lambda: search.tell(torch.zeros(3))):
        with pytest.raises(RuntimeError, match="no first point"):
            call()
    search.start(start())
    with pytest.raises(RuntimeError, match="call ask first"):
        search.tell(torch.zeros(search.population))
    search.ask()
    with pytest.raises(RuntimeError, match="twice"):
        search.ask()
    with pytest.raises(ValueError, match=f"{search.population} rows"):
        search.tell(torch.zeros(search.population + 1))
    search.tell(torch.zeros(search.population))


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_small_dimensions(make: Make, dim: int) -> None:
    search = make().start(start(dim))
    run(search, 5)
    assert search.incumbent.shape == (dim,)


def test_bad_starts(make: Make) -> None:
    with pytest.raises(ValueError, match="finite"):
        make().start(torch.tensor([0.0, math.nan]))
    with pytest.raises(ValueError, match="vector"):
        make().start(torch.zeros(0))
    with pytest.raises((ValueError, TypeCheckError), match="x0"):
        make().start(torch.zeros(3, dtype=torch.int64))
    with pytest.raises((ValueError, TypeCheckError), match="x0"):
        make().start([0.0, 1.0])


@pytest.mark.parametrize("bad", [[0.0, 1.0], None, torch.zeros(3, dtype=torch.complex64), torch.zeros(2, 2)])
def test_wrong_costs_leave_the_search_as_it_was(make: Make, bad: object) -> None:
    spoilt, clean = make().start(start(), seed=1), make().start(start(), seed=1)
    points = spoilt.ask()
    with pytest.raises((ValueError, TypeCheckError), match="cost"):
        spoilt.tell(bad)
    assert torch.equal(clean.ask(), points)
    for search in (spoilt, clean):
        search.tell(sphere(points, 0))
    assert torch.equal(run(spoilt, 3), run(clean, 3))


def test_an_objective_that_raises_leaves_the_search_as_it_was(make: Make) -> None:
    failed = []

    def breaks_once(x: Tensor, generation: int) -> Tensor:
        if generation == 2 and not failed:
            failed.append(generation)
            raise ZeroDivisionError
        return noisy(x, generation)

    spoilt, clean = make().start(start(), seed=1), make().start(start(), seed=1)
    budget = 6 * clean.population
    with pytest.raises(ZeroDivisionError):
        minimise(spoilt, breaks_once, budget_evaluations=budget)
    assert spoilt.generation == 2 and spoilt.waiting is not None
    again = minimise(spoilt, breaks_once, budget_evaluations=budget)
    assert torch.equal(again.incumbent, minimise(clean, noisy, budget_evaluations=budget).incumbent)


def test_state_of_another_search_or_other_settings_is_refused() -> None:
    state = PolyStep().start(start()).state_dict()
    with pytest.raises(ValueError, match="search 'polystep'"):
        FrameStep().load_state_dict(state)
    with pytest.raises(ValueError, match="settings"):
        PolyStep(block=3).load_state_dict(state)


@pytest.mark.skipif(PeerPolyStep not in INSTALLED, reason="needs steersman[peers]")
def test_the_peer_begins_and_goes_on_without_advice() -> None:
    """The package advises against cubes of more than four dimensions; this one was asked for."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        search = PeerPolyStep(solver="softmax", divisor="mean", polytope=Polytope.CUBE, block=5).start(start(10))
        search.tell(sphere(search.ask(), 0))
        again = PeerPolyStep(solver="softmax", divisor="mean", polytope=Polytope.CUBE, block=5)
        again.load_state_dict(search.state_dict())
    assert not said and torch.equal(again.incumbent, search.incumbent)


def test_registry() -> None:
    assert make_search("openai_es", size=8).start(start()).population == 10
    with pytest.raises(ValueError, match="unknown search 'adam'; choose one of ars, cma_es"):
        make_search("adam")
    with pytest.raises(ValueError, match="no setting sise"):
        make_search("openai_es", sise=8)
    assert len({kind.name for kind in SEARCHES}) == len(SEARCHES)


@pytest.mark.parametrize("kind", SEARCHES)
def test_bad_settings_name_themselves(kind: type[Search]) -> None:
    for setting in ("size", "sigma", "rate", "spread", "block", "directions", "shells", "confirmations"):
        if setting in kind.__dataclass_fields__:
            with pytest.raises(ValueError, match=setting):
                kind(**{setting: type(kind.__dataclass_fields__[setting].default)(-1)})
