"""Mixed-integer programs charge what plans cost: the same terms at the same steps, to rounding."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from linear_test_plants import LinearPlant, case, measurement, scalar
from numpy.typing import NDArray
from torch import Tensor

from steersman.controllers.base import Outcome
from steersman.controllers.mip.bounds import linear_bounds
from steersman.controllers.mip.controller import MixedIntegerMPC
from steersman.controllers.mip.encode import Arrays, Encoder
from steersman.controllers.mip.program import Program, unroll
from steersman.controllers.mip.pyomo_model import pyomo_model, solve_pyomo
from steersman.controllers.mip.solve import Result, exact_value, solve
from steersman.controllers.plan import charged_terms, plan_cost
from steersman.dynamics.base import Dynamics, Trajectories, Window
from steersman.dynamics.estimation.base import Windows
from steersman.dynamics.windowed.relu import Kind, ReluLayer, ReluSystem
from steersman.envs.actions import ActionSet
from steersman.envs.objective import L1, Limit, Linear, LInf, Objective, PiecewiseLinear, Quadratic, Term
from steersman.envs.plant import ControlProblem
from steersman.envs.simulator import Measurement

EPISODE, AHEAD = 9, 4
STEPS = (0, 3, 5, 6, 7, 8)
"""Control steps of the rows; plans from 6 on end with the episode."""
ACTIONS = ActionSet((-1.0, 0.0, 0.0, 0.0), (1.5, 2.0, 1.0, 1.0), (False, True, False, False), ((2, 3),))


class Network(Dynamics):
    """A random ReLU network on windows of two measurements of two outputs."""

    context = 2

    def __init__(self, seed: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)

        def draw(*shape: int) -> Tensor:
            return torch.tensor(rng.normal(size=shape))

        ns, m, sizes = 8, ACTIONS.m, (12, *hidden)
        layers = tuple(
            ReluLayer(draw(b, a) / a**0.5, draw(b), torch.tensor(rng.choice(list(Kind), b), dtype=torch.int8))
            for a, b in pairwise(sizes)
        )
        last = draw(2, sizes[-1] if hidden else 0)
        self.system = ReluSystem(layers, last, 0.3 * draw(2, ns + m), draw(2), draw(2, ns), draw(2), 2)

    def fit(self, data: Trajectories) -> "Network":
        return self

    def relu_system(self) -> ReluSystem:
        return self.system

    def init(self, window: Window) -> dict[str, Tensor]:
        return {"s": torch.cat([window.y.flatten(1), window.u.flatten(1)], dim=1)}

    def step(self, h: dict[str, Tensor], u: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"s": self.system.step(h["s"], u)}

    def output(self, h: dict[str, Tensor]) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return h["s"][:, 2:4], self.system.perform(h["s"])


def random_objective(seed: int, m: int, squares: bool = True) -> Objective:
    """Terms of all kinds in all signals, some of them at the end."""
    rng = np.random.default_rng(seed)

    def weights(size: int) -> tuple[float, ...]:
        return tuple(rng.uniform(0.1, 2, size))

    def bend(on: str, index: int, convex: bool) -> PiecewiseLinear:
        xs = np.sort(rng.normal(size=4)) + np.arange(4)
        slopes = np.sort(rng.normal(size=3)) if convex else np.array([1.0, -0.5, 0.7])
        ys = np.append(0.3, 0.3 + np.cumsum(slopes * np.diff(xs)))
        return PiecewiseLinear(
            name=f"bend {on} {convex}", on=on, index=index, points=tuple(zip(xs.tolist(), ys.tolist(), strict=True))
        )  # type: ignore[arg-type]

    stage: list[Term] = [
        Linear(name="lz", on="z", weights=tuple(rng.normal(size=2))), L1(name="ae", on="e", weights=weights(2)),
        LInf(name="me", on="e", weights=weights(2)), bend("z", 1, True), bend("e", 0, False),
        Linear(name="lu", on="u", weights=tuple(rng.normal(size=m))), L1(name="adu", on="du", weights=weights(m)),
        LInf(name="mu", on="u", weights=weights(m)), bend("u", 0, False), bend("du", 0, True),
    ]  # fmt: skip
    final: list[Term] = [
        Linear(name="lz", on="z", weights=tuple(rng.normal(size=2))), L1(name="ae", on="e", weights=weights(2)),
        LInf(name="mz", on="z", weights=weights(2)), bend("e", 1, False), bend("z", 0, True),
    ]  # fmt: skip
    if squares:
        stage += [
            Quadratic(name="q" + on, on=on, weights=weights(2 if on in "ze" else m)) for on in ("z", "e", "u", "du")
        ]
        final += [Quadratic(name="q" + on, on=on, weights=weights(2)) for on in ("z", "e")]
    chosen = [term for term in stage if rng.random() < 0.6] or stage[:1]
    limits = (Limit(name="edge", index=0, low=-0.5, high=0.7),) if rng.random() < 0.5 else ()
    return Objective(tuple(chosen), tuple(term for term in final if rng.random() < 0.6), 3.0, limits)


def random_problem(seed: int, squares: bool = True) -> ControlProblem:
    names = ("a", "b")
    return ControlProblem(ACTIONS, random_objective(seed, ACTIONS.m, squares), 1.0, EPISODE, names, names)


def random_start(seed: int, problem: ControlProblem) -> Measurement:
    rng, n = np.random.default_rng(seed), len(STEPS)
    return Measurement(
        torch.tensor(STEPS), torch.tensor(rng.normal(size=(n, problem.ny))),
        torch.tensor(rng.normal(size=(n, AHEAD + 1, problem.nz))), torch.tensor(rng.normal(size=(n, problem.actions.m))),
    )  # fmt: skip


def programs(planner: MixedIntegerMPC, m: Measurement) -> list[tuple[Program, Arrays]]:
    """The program of each row."""
    s = planner.model.init(Windows(planner.model.context).push(m))["s"].numpy()  # type: ignore[union-attr, index, call-overload]
    found = []
    for row, k in enumerate(m.k.tolist()):
        program = planner._unroll(s[row], k)
        arrays = planner._encode(program, k, m.references(AHEAD)[row].numpy(), m.u_prev[row].numpy(), None)
        found.append((program, arrays))
    return found


def fixed(arrays: Arrays, U: NDArray[np.float64]) -> Arrays:
    """The same program with its actions given."""
    lower, upper = arrays.lower.copy(), arrays.upper.copy()
    lower[: len(U)] = upper[: len(U)] = U
    return replace(arrays, lower=lower, upper=upper)


@pytest.mark.parametrize("seed", range(12))
def test_a_program_costs_what_the_plan_does(seed: int) -> None:
    """Networks and linear models; whole plans follow from their actions, feasible and no dearer than they need be."""
    problem, model = random_problem(seed), Network(seed, ((), (5,), (6, 4))[seed % 3])
    planner = MixedIntegerMPC(AHEAD, samples=0, margin=0.2).bind(problem, model)
    m = random_start(seed, problem)
    unit = torch.tensor(np.random.default_rng(seed).uniform(size=(len(STEPS) * AHEAD, ACTIONS.m)))
    U = ACTIONS.sample(unit).reshape(len(STEPS), AHEAD, -1)
    softened = replace(problem, objective=problem.objective.softened(0.2))
    h = model.init(Windows(2).push(m))
    want = plan_cost(softened, model.predict(h, U), U, m)
    for row, (program, arrays) in enumerate(programs(planner, m)):
        assert program.horizon == min(AHEAD, EPISODE - STEPS[row])
        plan = U[row, : program.horizon].flatten().numpy()
        x = arrays.complete(program.evaluate(plan))
        assert arrays.feasible(x, 1e-9)
        assert exact_value(arrays, x) == pytest.approx(float(want[row]), rel=1e-9)
        found = solve(fixed(arrays, plan), gap=1e-9, rounds=30)
        assert found.value == pytest.approx(float(want[row]), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_linear_plants_with_their_own_state_likewise(seed: int) -> None:
    plant = LinearPlant(case(seed), horizon=EPISODE, bound=1.0)
    plant.objective = random_objective(seed, 2)
    planner = MixedIntegerMPC(AHEAD, samples=0).bind(plant.problem, plant.model())
    rng = np.random.default_rng(seed)
    for k in STEPS:
        m = measurement(rng.normal(size=3), rng.normal(size=2), rng.normal(size=(AHEAD + 1, 2)), k)
        U = torch.tensor(rng.uniform(-1, 1, (1, AHEAD, 2)))
        softened = replace(plant.problem, objective=plant.objective.softened(0.05))
        want = float(plan_cost(softened, plant.model().predict(plant.model().init(Windows(1).push(m)), U), U, m))
        ((program, arrays),) = programs(planner, m)
        x = arrays.complete(program.evaluate(U[0, : program.horizon].flatten().numpy()))
        assert exact_value(arrays, x) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_an_exported_model_costs_what_the_plan_does(seed: int) -> None:
    problem, model = random_problem(seed, squares=False), Network(seed, (4,))
    m = random_start(seed, problem)
    unit = torch.tensor(np.random.default_rng(seed).uniform(size=(len(STEPS) * AHEAD, ACTIONS.m)))
    U = ACTIONS.sample(unit).reshape(len(STEPS), AHEAD, -1)
    problem = replace(problem, objective=problem.objective.softened(0.2))
    h = model.init(Windows(2).push(m))
    want = plan_cost(problem, model.predict(h, U), U, m)
    for row in (0, 3, 5):
        charged = charged_terms(problem, STEPS[row], AHEAD)
        program = unroll(model.system, h["s"][row].numpy(), ACTIONS, len(charged))
        export = pyomo_model(
            program, linear_bounds(program), ACTIONS, charged, m.references(AHEAD)[row].numpy(), m.u_prev[row].numpy()
        )
        for i, value in enumerate(U[row, : len(charged)].flatten().tolist()):
            export.v[i].fix(value)
        assert solve_pyomo(export) == pytest.approx(float(want[row]), rel=1e-5, abs=1e-4)


def test_terms_of_other_steps_than_the_programs_are_refused() -> None:
    model = Network(0, (3,))
    program = unroll(model.system, np.zeros(8), ACTIONS, 3)
    bounds, terms = linear_bounds(program), [random_objective(0, ACTIONS.m).stage] * 2
    with pytest.raises(ValueError, match="terms of 2 steps but the program has 3"):
        Encoder(program, bounds).objective(terms, np.zeros((3, 2)), np.zeros(4))
    with pytest.raises(ValueError, match="terms of 2 steps but the program has 3"):
        pyomo_model(program, bounds, ACTIONS, terms, np.zeros((3, 2)), np.zeros(4))


def test_a_goal_at_the_end_alone_needs_plans_that_reach_it() -> None:
    """``min (x + u0 + u1 + u2)^2`` over three steps of at most 0.4 from 1: it can be met."""
    plant = LinearPlant(scalar(), horizon=3, bound=0.4)
    plant.objective = Objective((), (Quadratic(name="end", on="e", weights=(1.0,)),))
    with pytest.raises(ValueError, match="give mip-mpc horizon=3"):
        MixedIntegerMPC(2).bind(plant.problem, plant.model())
    with pytest.raises(ValueError, match="needs an objective"):
        MixedIntegerMPC(3).bind(replace(plant.problem, objective=Objective(())), plant.model())
    planner = MixedIntegerMPC(3, samples=0, gap=1e-6).bind(plant.problem, plant.model())
    planner.reset(1)
    x = 1.0
    for k in range(3):
        decision = planner.act(measurement(np.full(1, x), np.zeros(1), np.zeros((4, 1)), k))
        assert int(decision.outcome) <= Outcome.INCUMBENT
        x += float(decision.u)
    assert x == pytest.approx(0.0, abs=1e-2)


def test_terms_that_only_the_end_brings_are_tried_early() -> None:
    plant = LinearPlant(scalar(), horizon=9, bound=0.4)
    hill = Quadratic(name="hill", on="e", weights=(-1.0,))
    plant.objective = replace(plant.objective, terminal=(hill,))
    with pytest.raises(ValueError, match="'hill' has a negative weight"):
        MixedIntegerMPC(2).bind(plant.problem, plant.model())


def test_beyond_the_end_there_is_nothing_to_plan() -> None:
    plant = LinearPlant(scalar(), horizon=3, bound=0.4)
    planner = MixedIntegerMPC(2, samples=8).bind(plant.problem, plant.model())
    planner.reset(1)
    decision = planner.act(measurement(np.ones(1), np.zeros(1), np.zeros((3, 1)), 3))
    assert decision.outcome.tolist() == [Outcome.NEUTRAL] and not decision.u.any()


def test_only_feasible_plans_are_begun_with() -> None:
    problem, model = random_problem(1), Network(1, (5,))
    program, arrays = programs(MixedIntegerMPC(AHEAD, samples=0).bind(problem, model), random_start(1, problem))[0]
    good = np.tile([0.3, 1.0, 0.0, 1.0], AHEAD)
    begun = solve(arrays, time_limit=0.0, starts=[program.evaluate(good)])
    assert begun.result == Result.INCUMBENT and begun.x[: len(good)] == pytest.approx(good)
    for i, value in ((0, 1.6), (1, 0.5), (2, 1.0), (4, np.nan)):
        bad = good.copy()
        bad[i] = value
        assert solve(arrays, time_limit=0.0, starts=[program.evaluate(bad)]).result == Result.NONE
    other = np.tile([-0.9, 2.0, 1.0, 0.0], AHEAD)
    values = [exact_value(arrays, arrays.complete(program.evaluate(plan))) for plan in (good, other)]
    both = solve(arrays, time_limit=0.0, starts=[program.evaluate(good), program.evaluate(other)])
    assert both.value == min(values) and max(values) > min(values)
