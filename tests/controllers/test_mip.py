"""Mixed-integer programs of plans: sound bounds, true optima, obeyed limits."""

import itertools
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog

from steersman.controllers.mip.bounds import interval_bounds, linear_bounds
from steersman.controllers.mip.encode import Arrays, Encoder
from steersman.controllers.mip.program import Program, unroll
from steersman.controllers.mip.pyomo_model import pyomo_model, solve_pyomo
from steersman.controllers.mip.solve import Result, _run, exact_value, load, solve
from steersman.dynamics.windowed.relu import ReluLayer, ReluSystem
from steersman.envs.actions import ActionSet
from steersman.envs.objective import L1, Linear, LInf, Objective, Opaque, PiecewiseLinear, Quadratic, Term

BOX = ActionSet((-1.0, -1.0), (1.0, 1.0))
MIXED = ActionSet((-1.0, 0.0, 0.0, 0.0), (1.0, 2.0, 1.0, 1.0), (False, True, False, False), ((2, 3),))
COSTS: dict[str, tuple[Term, ...]] = {
    "linear": (Linear(name="a", on="z", weights=(1.0, -0.5)), Linear(name="b", on="du", weights=(0.1, 0.1))),
    "l1": (L1(name="a", on="e", weights=(1.0, 0.3)), L1(name="b", on="du", weights=(0.2, 0.2))),
    "linf": (LInf(name="a", on="e", weights=(1.0, 0.3)), Linear(name="b", on="u", weights=(0.1, -0.1))),
    "convex": (PiecewiseLinear(name="a", on="e", index=0, points=((-1.0, 2.0), (0.0, 0.0), (1.0, 1.0))),),
    "valley": (PiecewiseLinear(name="a", on="e", index=0, points=((-1.0, 0.0), (0.0, 1.0), (1.0, -0.5))),),
}


def system(seed: int, hidden: tuple[int, ...], m: int = 2, nk: int = 2, context: int = 2) -> ReluSystem:
    gen = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=gen, dtype=torch.float64)

    ns = context * nk + (context - 1) * m
    sizes = (ns + m, *hidden)
    layers = tuple(
        ReluLayer(draw(b, a) / a**0.5, 0.3 * draw(b), torch.randint(0, 3, (b,), generator=gen).to(torch.int8))
        for a, b in itertools.pairwise(sizes)
    )
    skip = 0.2 * draw(nk, ns + m)
    skip[:, (context - 1) * nk : context * nk] += torch.eye(nk, dtype=torch.float64)
    return ReluSystem(
        layers, 0.5 * draw(nk, sizes[-1] if hidden else 0), skip, 0.1 * draw(nk), draw(2, ns), draw(2), context
    )


def start(relu: ReluSystem, seed: int = 9) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=relu.Cz.shape[1])


def encoded(program: Program, actions: ActionSet, terms: tuple[Term, ...], linear: bool = True) -> Arrays:
    bounds = linear_bounds(program) if linear else interval_bounds(program)
    encoder = Encoder(program, bounds)
    encoder.network(bounds)
    encoder.actions(actions)
    encoder.objective([terms] * program.horizon, np.full((program.horizon, 2), 0.3), np.zeros(program.m))
    return encoder.arrays()


def true_cost(program: Program, terms: tuple[Term, ...], U: NDArray[np.float64]) -> float:
    v = program.evaluate(U)
    Z = torch.tensor(np.array([A @ v + c for A, c in zip(program.Z, program.z0, strict=True)]))
    R = torch.full((program.horizon, 2), 0.3, dtype=torch.float64)
    u = torch.tensor(U.reshape(program.horizon, -1))
    du = torch.diff(u, dim=0, prepend=torch.zeros(1, program.m, dtype=torch.float64))
    return float(Objective(terms).stage_cost(Z, u, du, R).sum())


@pytest.mark.parametrize("seed", range(4))
def test_unrolled_program_equals_the_model(seed: int) -> None:
    relu = system(seed, (6, 5))
    s = torch.tensor(start(relu))[None]
    program = unroll(relu, s[0].numpy(), BOX, 4)
    U = np.random.default_rng(seed).uniform(-1, 1, 8)
    v = program.evaluate(U)
    for j in range(4):
        s = relu.step(s, torch.tensor(U[None, 2 * j : 2 * j + 2]))
        np.testing.assert_allclose(program.Z[j] @ v + program.z0[j], relu.perform(s)[0].numpy(), atol=1e-10)


@pytest.mark.parametrize("seed", range(6))
def test_bounds_are_sound_and_relaxation_is_tighter(seed: int) -> None:
    relu = system(seed, (12, 12))
    program = unroll(relu, start(relu, seed), BOX, 4)
    loose, tight = interval_bounds(program), linear_bounds(program)
    assert (tight.lower >= loose.lower - 1e-7).all() and (tight.upper <= loose.upper + 1e-7).all()
    assert (tight.upper - tight.lower).sum() < 0.7 * (loose.upper - loose.lower).sum()
    low, high = tight.after(program)
    rng = np.random.default_rng(seed)
    for _ in range(300):
        corner = rng.choice([-1.0, 1.0], 8) if rng.random() < 0.5 else rng.uniform(-1, 1, 8)
        v = program.evaluate(corner)
        assert (v >= low).all() and (v <= high).all()


def brute_force(arrays: Arrays) -> float:
    """Every assignment of the integer columns, one linear program each."""
    index = np.flatnonzero(arrays.integer)
    ranges = [np.arange(arrays.lower[i], arrays.upper[i] + 1) for i in index]
    both = arrays.A.toarray()
    up, low = np.isfinite(arrays.row_upper), np.isfinite(arrays.row_lower)
    A_ub = np.concatenate([both[up], -both[low]])
    b_ub = np.concatenate([arrays.row_upper[up], -arrays.row_lower[low]])
    best = np.inf
    for values in itertools.product(*ranges):
        lower, upper = arrays.lower.copy(), arrays.upper.copy()
        lower[index] = upper[index] = values
        found = linprog(arrays.cost, A_ub, b_ub, bounds=np.stack([lower, upper], axis=1))
        if found.status == 0:
            best = min(best, found.fun + arrays.constant)
    return float(best)


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("seed", range(3))
def test_equals_brute_force(cost: str, seed: int) -> None:
    relu = system(seed, (4,))
    program = unroll(relu, start(relu, seed), BOX, 2)
    arrays = encoded(program, BOX, COSTS[cost])
    assert arrays.binaries <= 12
    found = solve(arrays, gap=1e-9)
    assert found.result == Result.OPTIMAL
    assert found.value == pytest.approx(brute_force(arrays), abs=1e-5)
    assert true_cost(program, COSTS[cost], found.x[:4]) == pytest.approx(found.value, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_integer_and_one_hot_actions_equal_brute_force(seed: int) -> None:
    relu = system(seed, (3,), m=4)
    program = unroll(relu, start(relu, seed), MIXED, 2)
    terms = (L1(name="a", on="e", weights=(1.0, 0.3)), L1(name="b", on="u", weights=(0.1,) * 4))
    arrays = encoded(program, MIXED, terms)
    found = solve(arrays, gap=1e-9)
    assert found.value == pytest.approx(brute_force(arrays), abs=1e-5)
    U = torch.tensor(found.x[:8].reshape(2, 4))
    assert bool(MIXED.admissible(U, 1e-5).all())


@pytest.mark.parametrize("cost", COSTS)
def test_pyomo_model_has_the_same_optimum(cost: str) -> None:
    relu = system(1, (5, 4))
    program = unroll(relu, start(relu), BOX, 3)
    found = solve(encoded(program, BOX, COSTS[cost]), gap=1e-9)
    model = pyomo_model(program, linear_bounds(program), BOX, [COSTS[cost]] * 3, np.full((3, 2), 0.3), np.zeros(2))
    assert solve_pyomo(model) == pytest.approx(found.value, abs=1e-4)


def test_quadratic_costs_are_refined_to_the_truth() -> None:
    terms = (Quadratic(name="q", on="e", weights=(1.0, 0.5)), Quadratic(name="r", on="u", weights=(0.1, 0.1)))
    relu = system(3, (5,))
    program = unroll(relu, start(relu), BOX, 3)
    arrays = encoded(program, BOX, terms)
    found = solve(arrays, gap=1e-5, rounds=40)
    U = found.x[:6]
    assert found.result == Result.OPTIMAL and exact_value(arrays, found.x) == found.value
    assert true_cost(program, terms, U) == pytest.approx(found.value, rel=1e-6)
    rng = np.random.default_rng(0)
    for scale in (1.0, 0.1, 0.01):
        for _ in range(300):
            other = np.clip(U + scale * rng.normal(size=6), -1, 1)
            assert true_cost(program, terms, other) >= found.value * (1 - 1e-3)
    model = pyomo_model(program, linear_bounds(program), BOX, [terms] * 3, np.full((3, 2), 0.3), np.zeros(2))
    assert solve_pyomo(model) == pytest.approx(found.value, rel=2e-2)


def test_terms_without_a_mixed_integer_form_are_refused() -> None:
    relu = system(0, (3,))
    program = unroll(relu, start(relu), BOX, 2)
    with pytest.raises(ValueError, match="'odd' is Opaque"):
        encoded(program, BOX, (Opaque(name="odd", on="z", function=lambda s: s.sum(-1)),))
    with pytest.raises(ValueError, match="'hill' has a negative weight"):
        encoded(program, BOX, (Quadratic(name="hill", on="z", weights=(-1.0, 0.0)),))
    with pytest.raises(ValueError, match="finite action bounds"):
        unroll(relu, start(relu), ActionSet((-np.inf, 0.0), (np.inf, 1.0)), 2)


def quickest(work: Callable[[], object], times: int = 3) -> float:
    """Seconds of the quickest of several calls, of this process alone: other programs may hold them up."""
    taken = []
    for _ in range(times):
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return min(taken)


@pytest.mark.parametrize(
    ("hidden", "horizon", "binaries"), [((48, 48), 6, 150), ((64, 64), 8, 290), ((256, 256), 4, 500)]
)
@pytest.mark.parametrize("cost", ["l1", "valley", "square"])
def test_time_limits_are_kept_with_what_was_there_to_begin_with(
    hidden: tuple[int, ...], horizon: int, binaries: int, cost: str
) -> None:
    relu = system(2, hidden)
    program = unroll(relu, start(relu), BOX, horizon)
    square = (Quadratic(name="q", on="e", weights=(1.0, 0.5)),)
    arrays = encoded(program, BOX, {**COSTS, "square": square}[cost])
    assert arrays.binaries > binaries
    begin = program.evaluate(np.zeros(2 * horizon))
    value = exact_value(arrays, arrays.complete(begin))
    for limit in (0.05, 0.4):
        found = solve(arrays, time_limit=limit, starts=[begin], gap=1e-9)
        assert quickest(lambda limit=limit: solve(arrays, time_limit=limit, starts=[begin], gap=1e-9)) < limit + 0.15
        assert found.result == Result.INCUMBENT and found.bound <= found.value <= value


def test_the_limit_of_a_repeated_solve_is_its_own() -> None:
    relu = system(2, (24, 24))
    program = unroll(relu, start(relu), BOX, 6)
    solver = load(encoded(program, BOX, COSTS["l1"]))
    for _ in range(3):
        assert quickest(lambda: _run(solver, 0.2), times=1) < 0.3


def test_too_large_programs_are_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    relu = system(2, (8,))
    program = unroll(relu, start(relu), BOX, 3)
    arrays = encoded(program, BOX, COSTS["l1"])
    begin = [program.evaluate(np.zeros(6))]
    assert solve(arrays, time_limit=5.0, starts=begin).result == Result.OPTIMAL
    monkeypatch.setattr("steersman.controllers.mip.solve.SETUP", 6.0 / arrays.A.nnz)
    assert solve(arrays, time_limit=5.0).result == Result.NONE
    assert solve(arrays, time_limit=5.0, starts=begin).result == Result.INCUMBENT
    assert solve(arrays, starts=begin).result == Result.OPTIMAL, "without a limit nothing is too large"


def test_bounds_that_are_out_of_time_are_intervals() -> None:
    relu = system(1, (12, 12))
    program = unroll(relu, start(relu), BOX, 4)
    late, loose = linear_bounds(program, time.perf_counter()), interval_bounds(program)
    assert (late.lower == loose.lower).all() and (late.upper == loose.upper).all()


def test_programs_with_numbers_that_no_solver_takes_are_not_solved() -> None:
    relu = system(0, (4,))
    program = unroll(relu, start(relu), BOX, 3)
    arrays = encoded(program, BOX, COSTS["l1"])
    assert arrays.usable
    for value in (1e16, np.nan, np.inf):
        cost, lower = arrays.cost.copy(), arrays.row_lower.copy()
        cost[0], lower[0] = value, value
        assert not replace(arrays, cost=cost).usable and not replace(arrays, row_lower=lower).usable
        assert not replace(arrays, constant=value).usable
