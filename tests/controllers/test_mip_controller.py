"""Mixed-integer MPC as a controller: limits of time, a chain of fallbacks that says so, rows that restart alone."""

import time
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from steersman.controllers.base import Decision, Outcome
from steersman.controllers.mip import controller as module
from steersman.controllers.mip.controller import MixedIntegerMPC
from steersman.controllers.mip.solve import Result, Solution
from steersman.controllers.plan import plan_cost
from steersman.controllers.planning.sampling import CEM
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.estimation.base import Windows
from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.truth.plant_model import PlantModel
from steersman.envs import make_plant, make_simulator, noise
from steersman.envs.objective import Limit, Linear, Objective


@pytest.fixture(scope="module")
def pendulum() -> tuple[LinearDynamics, MixedIntegerMPC]:
    sim = make_simulator("steersman/Pendulum-v1", 4)
    model = LinearDynamics(2).bind(sim.problem).fit(collect(sim, HeldLevels(), episodes=4, seed=0, steps=50))
    return model, MixedIntegerMPC(horizon=4, samples=16, time_limit=20.0).bind(sim.problem, model)


def test_chain_of_fallbacks(pendulum: tuple[LinearDynamics, MixedIntegerMPC], monkeypatch: pytest.MonkeyPatch) -> None:
    model, planner = pendulum
    sim = make_simulator("steersman/Pendulum-v1", 2)
    sim.reset(sim.scenarios(noise.keys(0, 2)))
    m = sim.measure(planner.preview)

    def outcomes(controller: MixedIntegerMPC, budget: float | None = None) -> set[int]:
        return set(controller.act(m, budget).outcome.tolist())

    planner.reset(2)
    assert outcomes(planner) == {Outcome.OPTIMAL}
    assert outcomes(planner, budget=0.0) == {Outcome.SHIFTED}
    planner.reset(2)
    assert outcomes(planner, budget=0.0) == {Outcome.NEUTRAL}, "the cross-entropy method had no time either"

    bare = MixedIntegerMPC(horizon=4, samples=0, time_limit=20.0).bind(sim.problem, model)
    bare.reset(2)
    assert outcomes(bare) == {Outcome.OPTIMAL}
    assert outcomes(bare, budget=0.0) == {Outcome.SHIFTED}
    bare.reset(2)
    assert outcomes(bare, budget=0.0) == {Outcome.NEUTRAL}

    spare = MixedIntegerMPC(horizon=4, samples=0, backup="lqr").bind(sim.problem, model)
    spare.reset(2)
    assert outcomes(spare, budget=0.0) == {Outcome.BACKUP}

    def nothing(*_: object, **__: object) -> Solution:
        return Solution(Result.NONE, np.zeros(0), np.inf, -np.inf, 0.0, 1)

    monkeypatch.setattr(module, "solve", nothing)
    spare.reset(2)
    assert outcomes(spare) == {Outcome.BACKUP}
    planner.reset(2)
    assert outcomes(planner) == {Outcome.INCUMBENT}, "the plan of the cross-entropy method"


ABSURD = (1e12, -1e30, 1e150, -1e300, 1.7e308)


@pytest.mark.parametrize("backup", ["none", "pid", "lqr"])
@pytest.mark.parametrize("where", ["y", "r", "u_prev"])
def test_absurd_numbers_end_in_a_fallback_of_their_row_alone(
    pendulum: tuple[LinearDynamics, MixedIntegerMPC], backup: Literal["none", "pid", "lqr"], where: str
) -> None:
    model, _ = pendulum
    n = len(ABSURD) + 1
    sim = make_simulator("steersman/Pendulum-v1", n)
    sim.reset(sim.scenarios(noise.keys(0, n)))
    m = sim.measure(3)
    spoiled = getattr(m, where).clone()
    spoiled.flatten(1)[1:, -1] = torch.tensor(ABSURD, dtype=spoiled.dtype)
    bad = replace(m, **{where: spoiled})
    for samples in (0, 8):
        planner = MixedIntegerMPC(3, samples=samples, backup=backup, time_limit=20.0).bind(sim.problem, model)
        planner.reset(n)
        decision = planner.act(bad)
        for code, u in zip(decision.outcome[1:].tolist(), decision.u[1:], strict=True):
            assert code >= Outcome.BACKUP or (samples and code == Outcome.INCUMBENT)
            assert code != Outcome.NEUTRAL or not u.any()
        assert int(decision.outcome[0]) == Outcome.OPTIMAL
        planner.reset(n)
        assert torch.equal(decision.u[0], planner.act(m).u[0])
        after = planner.act(bad).outcome[1:].tolist()
        assert set(after) <= {Outcome.INCUMBENT, Outcome.SHIFTED}, "there are plans to go on with"


def test_a_backup_that_gives_up_is_no_backup(pendulum: tuple[LinearDynamics, MixedIntegerMPC]) -> None:
    model, _ = pendulum
    sim = make_simulator("steersman/Pendulum-v1", 1)
    sim.reset(sim.scenarios(noise.keys(0, 1)))
    planner = MixedIntegerMPC(3, samples=0, backup="lqr").bind(sim.problem, model)
    planner.reset(1)
    assert planner._backup is not None
    planner._backup.decide = lambda m, budget: Decision(  # type: ignore[method-assign]
        torch.full((1, 1), torch.nan), torch.zeros(1, dtype=torch.uint8)
    )
    decision = planner.act(sim.measure(3), 0.0)
    assert decision.outcome.tolist() == [Outcome.NEUTRAL] and not decision.u.any()


def test_restarted_rows_leave_the_plans_of_others_as_they_are(
    pendulum: tuple[LinearDynamics, MixedIntegerMPC],
) -> None:
    model, _ = pendulum
    sim = make_simulator("steersman/Pendulum-v1", 4)
    sim.reset(sim.scenarios(noise.keys(0, 4)))
    m = sim.measure(3)
    alike = [MixedIntegerMPC(3, samples=16, time_limit=20.0).bind(sim.problem, model) for _ in range(2)]
    for planner in alike:
        planner.reset(4, gen=torch.Generator().manual_seed(3))
        planner.act(m)
    mask = torch.tensor([True, False, False, True])
    alike[1].reset(4, mask)
    assert sorted(alike[1]._plans) == [1, 2]
    after = [planner.act(sim.measure(3)) for planner in alike]
    assert torch.equal(after[0].u[~mask], after[1].u[~mask])
    shots = [planner._shooting for planner in alike]
    assert shots[0] is not None and shots[1] is not None
    assert torch.equal(shots[0].plan[~mask], shots[1].plan[~mask])
    keys = [shot._state.key for shot in shots if shot is not None and shot._state is not None]
    assert torch.equal(keys[0] != keys[1], mask), "rows that begin anew draw anew"
    for row in (1, 2):
        assert (alike[0]._plans[row] == alike[1]._plans[row]).all()


def test_plans_at_least_as_well_as_the_cross_entropy_method(pendulum: tuple[LinearDynamics, MixedIntegerMPC]) -> None:
    model, planner = pendulum
    sim = make_simulator("steersman/Pendulum-v1", 4)
    sim.reset(sim.scenarios(noise.keys(3, 4)))
    m = sim.measure(4)
    planner.reset(4)
    planner.act(m)
    shooting = CEM(4, 64, iterations=4).bind(sim.problem, model)
    shooting.reset(4)
    shooting.act(m)
    plans = torch.tensor(np.array([planner._plans[i] for i in range(4)])).reshape(4, 4, 1)
    hidden = model.init(Windows(model.context).push(m))
    costs = []
    for U in (plans, shooting.plan):
        costs.append(plan_cost(sim.problem, model.predict(hidden, U), U, m))
    assert bool((costs[0] <= costs[1] * (1 + 2e-3) + 1e-6).all())


@pytest.mark.parametrize("budget", [None, 0.2])
def test_first_decisions_keep_the_limit_with_the_search_for_an_incumbent(
    pendulum: tuple[LinearDynamics, MixedIntegerMPC], budget: float | None
) -> None:
    """Two seconds of drawing, if it were not for the limit."""
    model, _ = pendulum
    sim = make_simulator("steersman/Pendulum-v1", 1)
    sim.reset(sim.scenarios(noise.keys(0, 1)))
    limit = 0.2 if budget is None else 50.0
    planner = MixedIntegerMPC(12, samples=8192, time_limit=limit).bind(sim.problem, model)

    taken = []
    for _ in range(3):
        planner.reset(1)
        begun = time.process_time()
        planner.act(sim.measure(12), budget)
        taken.append(time.process_time() - begun)
    assert min(taken) < 0.3


def test_models_that_cannot_be_encoded_are_named() -> None:
    plant = make_plant("steersman/Pendulum-v1")
    with pytest.raises(ValueError, match="piecewise-linear model, got PlantModel"):
        MixedIntegerMPC().bind(plant.problem, PlantModel(plant))
    with pytest.raises(ValueError, match="plans with a model"):
        MixedIntegerMPC().bind(plant.problem)


def test_limits_keep_plans_inside(pendulum: tuple[LinearDynamics, MixedIntegerMPC]) -> None:
    model, _ = pendulum
    sim = make_simulator("steersman/Pendulum-v1", 4)
    sim.reset(sim.scenarios(noise.keys(3, 4)))
    m, push = sim.measure(4), Linear(name="push", on="u", weights=(-1.0,))
    index, furthest = sim.problem.performed.index("speed"), []
    h = model.init(Windows(model.context).push(m))
    _, rest = model.rollout(h, torch.zeros(4, 4, 1, dtype=m.y.dtype))
    most = float(rest[..., index].abs().max()) + 0.1
    for limits in ((), (Limit(name="speed", index=index, low=-most, high=most),)):
        problem = replace(sim.problem, objective=Objective((push,), failure=100.0, limits=limits))
        planner = MixedIntegerMPC(horizon=4, samples=0, time_limit=60.0, margin=0.02).bind(problem, model)
        planner.reset(4)
        planner.act(m)
        plans = torch.tensor(np.array([planner._plans[i][:4] for i in range(4)]))[:, :, None]
        _, Z = model.rollout(h, plans)
        furthest.append(float(Z[..., index].abs().max()))
    assert furthest[0] > most >= furthest[1] - 1e-6
