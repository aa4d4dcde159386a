"""Planners on linear plants with quadratic costs: MPC equals LQR, and searches come near the convex optimum."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from linear_test_plants import Array, LinearPlant, case, measurement, optimum, plan_cost, scalar

from steersman.controllers.base import Controller, Outcome
from steersman.controllers.classical.lqr import LQR
from steersman.controllers.mip.controller import MixedIntegerMPC
from steersman.controllers.planning.adjoint import Adjoint
from steersman.controllers.planning.sampling import CEM, MPPI, NARROWEST, SamplingMPC
from steersman.dynamics.truth.plant_model import PlantModel
from steersman.envs import noise
from steersman.envs.objective import Quadratic

X = np.array([[1.0, -0.5, 0.3], [-0.7, 0.2, 0.9]])


def plans(controller: Controller, plant: LinearPlant, r: Array, u_prev: Array, model: object = None) -> Array:
    """First actions ``[n, m]`` at the states X."""
    controller.bind(plant.problem, plant.model() if model is None else model)  # type: ignore[arg-type]
    controller.reset(len(X))
    decision = controller.act(measurement(X, u_prev, r))
    assert decision.outcome.tolist() == [Outcome.OPTIMAL] * len(X)
    return decision.u.numpy()


def references(horizon: int) -> Array:
    return np.random.default_rng(4).normal(size=(horizon + 1, 2))


@pytest.mark.parametrize("rate", [False, True])
@pytest.mark.parametrize("bound", [50.0, 0.6])
def test_gradients_find_the_convex_optimum(bound: float, rate: bool) -> None:
    c, horizon = case(11, rate=rate), 5
    r, u_prev = references(horizon), np.array([0.3, -0.2])
    want = [optimum(c, x, u_prev, r[1:], bound)[0][0] for x in X]
    plant = LinearPlant(c, bound=bound)
    for model in (plant.model(), PlantModel(plant)):
        found = plans(Adjoint(horizon, iterations=300), plant, r, u_prev, model)
        np.testing.assert_allclose(found, want, atol=2e-3)
    if bound > 10 and not rate:
        np.testing.assert_allclose(plans(LQR(horizon), plant, r, u_prev), want, atol=1e-8)


def test_unconstrained_mixed_integer_mpc_is_lqr_within_its_gap() -> None:
    c, horizon = case(12), 3
    r, u_prev = references(horizon), np.zeros(2)
    plant = LinearPlant(c, bound=3.0)
    controller = MixedIntegerMPC(horizon, gap=1e-3, time_limit=20.0, samples=0).bind(plant.problem, plant.model())
    controller.reset(len(X))
    found = controller.act(measurement(X, u_prev, r)).u.numpy()
    want = plans(LQR(horizon), plant, r, u_prev)
    assert (np.abs(want) > 0.2).any() and (np.abs(want) < 3).all()
    np.testing.assert_allclose(found, want, atol=0.05)
    for row, x in enumerate(X):
        best, idle = optimum(c, x, u_prev, r[1:])[1], plan_cost(c, x, u_prev, r[1:], np.zeros((horizon, 2)))
        plan = controller._plans[row].reshape(horizon, 2)
        assert plan_cost(c, x, u_prev, r[1:], plan) <= best + 0.01 * (idle - best)


@pytest.mark.parametrize("bound", [5.0, 0.5])
@pytest.mark.parametrize("kind", ["mppi", "cem"])
def test_samples_come_within_a_hundredth_of_the_convex_optimum(kind: str, bound: float) -> None:
    """Of what is gained over doing nothing, 99 % is found, with bounds that bind and without."""
    c, horizon = case(13, rate=True), 3
    r, u_prev = references(horizon), np.array([0.2, 0.1])
    controller: SamplingMPC
    if kind == "mppi":
        controller = MPPI(horizon, samples=400, iterations=12)
    else:
        controller = CEM(horizon, samples=400, iterations=12, elites=20)
    plant = LinearPlant(c, bound=bound)
    plans(controller, plant, r, u_prev)
    for x, plan in zip(X, controller.plan.numpy(), strict=True):
        _, best = optimum(c, x, u_prev, r[1:], bound)
        idle = plan_cost(c, x, u_prev, r[1:], np.zeros_like(plan))
        found = plan_cost(c, x, u_prev, r[1:], plan)
        assert best - 1e-9 <= found <= best + 0.01 * (idle - best)


def test_held_actions_are_the_optimum_among_held_actions() -> None:
    """With one knot the plan is one constant action: the minimum of a parabola."""
    c, horizon = scalar(a=0.8, effort=0.5), 6
    plant = LinearPlant(c, bound=4.0)
    r = np.full((horizon + 1, 1), 2.0)
    costs = [plan_cost(c, np.ones(1), np.zeros(1), r[1:], np.full((horizon, 1), u)) for u in (-1.0, 0.0, 1.0)]
    best = (costs[0] - costs[2]) / (2 * (costs[0] + costs[2] - 2 * costs[1]))
    controller = CEM(horizon, samples=300, iterations=10, knots=1, elites=15)
    controller.bind(plant.problem, plant.model())
    controller.reset(1)
    u = controller.act(measurement(np.ones(1), np.zeros(1), r)).u
    assert float(u) == pytest.approx(best, abs=0.01) and controller.plan.shape == (1, horizon, 1)


def test_mppi_weights_are_a_softmax_in_which_the_best_weighs_most() -> None:
    """Its scale is the lead over the best eighth, which failures at a high price do not move."""
    planner = MPPI(horizon=1, samples=16, temperature=0.5)
    cost = torch.arange(16, dtype=torch.float64).roll(5)[None] * 3
    cost[cost > 24] = torch.inf
    for price in (27.0, 1e9, torch.inf):
        found = planner._weights(cost.nan_to_num(posinf=price))[0].numpy()
        weight = np.exp(-cost[0].numpy() / (0.5 * 3.0))
        np.testing.assert_allclose(found, weight / weight.sum(), atol=1e-6)
        assert found.argmax() == 5
    torch.testing.assert_close(planner._weights(torch.ones_like(cost)), torch.full_like(cost, 1 / 16))
    assert not planner._weights(torch.full_like(cost, torch.inf)).any()
    one = torch.full_like(cost, torch.inf)
    one[0, 3] = 2.0
    assert planner._weights(one).argmax() == 3 and float(planner._weights(one).sum()) == 1.0


def test_cem_refits_to_the_elites_and_plays_the_best() -> None:
    planner = CEM(horizon=1, samples=4, elites=2)
    inf = torch.inf
    cost = torch.tensor([[4.0, 1.0, 2.0, inf], [inf, inf, 3.0, inf], [inf] * 4], dtype=torch.float64)
    first, second = np.log(2.5), np.log(2.5 / 2)
    share = second / (first + second)
    want = [[0.0, 1 - share, share, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0] * 4]
    np.testing.assert_allclose(planner._weights(cost).numpy(), want, atol=1e-12)
    mean, best = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    assert torch.equal(planner._choose(mean, best), best)


def test_a_round_moves_to_the_good_samples_and_spreads_as_far_as_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """The spread is that about the old mean, within its bounds; a row whose predictions all fail stays as it is."""
    plant = LinearPlant(scalar(), bound=9.0)
    planner = CEM(horizon=1, samples=4, elites=2, spread=1.0).bind(plant.problem, plant.model())
    m = measurement(np.zeros((3, 1)), np.zeros(1), np.zeros((2, 1)))
    drawn = torch.tensor([[5.0, 1.0, 3.0, -7.0], [0.0, 0.0, 0.0, 8.0], [1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    price = torch.tensor([[4.0, 1.0, 2.0, 9.0], [1.0, 1.0, 2.0, 2.0], [torch.inf] * 4], dtype=torch.float64)
    planner.reset(3)
    planner.act(m)
    assert planner._state is not None
    state = planner._state
    state.mean, state.std = torch.zeros_like(state.mean), 2 * torch.ones_like(state.std)
    state.begin()
    monkeypatch.setattr(planner, "_draw", lambda mean, std, key: drawn[:, :, None, None])
    monkeypatch.setattr(planner, "_costs", lambda h, knots, m, until: price)
    planner._round(state, torch.arange(3), m.y, m, None)
    weigh = planner._weights(price)[0, 2].item()
    assert state.mean.flatten().tolist() == pytest.approx([1 + 2 * weigh, 0.0, 0.0])
    assert state.best.flatten().tolist() == [1.0, 0.0, 0.0]
    assert state.std.flatten().tolist() == pytest.approx([(1 + 8 * weigh) ** 0.5, NARROWEST * 9.0, 2.0])
    assert state.cost.tolist() == [1.0, 1.0, torch.inf]


def test_a_plan_moves_on_by_a_step_between_decisions() -> None:
    plant = LinearPlant(scalar(), bound=9.0)
    controller = CEM(horizon=6, samples=2, elites=1, knots=3).bind(plant.problem, plant.model())
    controller.reset(1)
    state = controller._start(measurement(np.ones(1), np.zeros(1), np.zeros((7, 1))))
    assert state.mean.flatten().tolist() == [0.0] * 3 and state.std.flatten().tolist() == [4.5] * 3
    state.std = torch.tensor([[[1.0], [2.0], [0.5]]], dtype=torch.float64)
    state.end(torch.tensor([[[1.0], [5.0], [3.0]]], dtype=torch.float64), hold=2)
    assert state.mean.flatten().tolist() == [3.0, 4.0, 3.0]  # half a knot of two steps
    assert state.std.flatten().tolist() == [1.5, 1.25, 0.75]
    state.restart(torch.tensor([True]))
    assert state.mean.flatten().tolist() == [0.0] * 3 and state.std.flatten().tolist() == [4.5] * 3


def test_samples_start_with_the_mean_and_spread_by_the_range() -> None:
    plant = LinearPlant(scalar(), bound=9.0)
    controller = MPPI(horizon=2, samples=4000, spread=0.1).bind(plant.problem, plant.model())
    controller.reset(1)
    mean, key = torch.full((1, 2, 1), 1.0, dtype=torch.float64), noise.keys(0, 1)
    drawn = controller._draw(mean, controller._widest.expand(1, 2, -1), key)
    assert torch.equal(drawn[0, 0], mean[0])
    assert float(drawn.std()) == pytest.approx(0.9, rel=0.05) and float(drawn.mean()) == pytest.approx(1.0, abs=0.05)
    assert bool((controller._draw(mean, 100 * mean, key).abs() <= 9).all()), (
        "samples are projected before they are rolled out"
    )


def test_where_every_prediction_fails_the_old_plan_is_shifted_and_said_so() -> None:
    plant = LinearPlant(replace(scalar(), A=np.array([[1e200]])), bound=2.0)
    for controller in (MPPI(horizon=3, samples=8), CEM(horizon=3, samples=8)):
        controller.bind(plant.problem, plant.model())
        controller.reset(1)
        m = measurement(np.full(1, 1e100), np.zeros(1), np.zeros((4, 1)))
        controller._state = controller._start(m)
        plan = torch.tensor([[[0.5], [1.5], [1.0]]], dtype=torch.float64)
        controller._state.offer(torch.zeros(1, dtype=torch.int64), plan, torch.zeros(1, dtype=torch.float64))
        controller._state.end(plan, hold=1)
        decision = controller.act(m)
        assert decision.outcome.tolist() == [Outcome.SHIFTED]


def test_at_the_end_of_an_episode_gradients_plan_for_the_terminal_cost() -> None:
    """One step left: ``min u^2 + 8 (x+u)^2``, so u = -8/9 x."""
    plant = LinearPlant(scalar(), horizon=5, bound=50.0)
    plant.objective = replace(plant.objective, terminal=(Quadratic(name="end", on="e", weights=(8.0,)),))
    controller = Adjoint(3, iterations=100).bind(plant.problem, plant.model())
    for k, want in ((4, -8 / 9), (0, None)):
        controller.reset(1)
        u = float(controller.act(measurement(np.ones(1), np.zeros(1), np.zeros((4, 1)), k=k)).u)
        if want is None:
            want = float(optimum(scalar(), np.ones(1), np.zeros(1), np.zeros((3, 1)))[0][0, 0])
        assert u == pytest.approx(want, abs=1e-3)


@pytest.mark.parametrize("kind", ["mppi", "cem", "mip-mpc"])
def test_at_the_end_of_an_episode_plans_count_the_terminal_cost(kind: str) -> None:
    plant = LinearPlant(scalar(), horizon=5, bound=2.0)
    plant.objective = replace(plant.objective, terminal=(Quadratic(name="end", on="e", weights=(8.0,)),))
    makers = {
        "mppi": lambda: MPPI(1, samples=400, iterations=8, temperature=0.05),
        "cem": lambda: CEM(1, samples=400, iterations=8),
        "mip-mpc": lambda: MixedIntegerMPC(1, gap=1e-6),
    }
    controller = makers[kind]().bind(plant.problem, plant.model())
    controller.reset(1)
    u = float(controller.act(measurement(np.ones(1), np.zeros(1), np.zeros((2, 1)), k=4)).u)
    assert u == pytest.approx(-8 / 9, abs=0.02)


def test_a_shared_plan_is_the_optimum_of_the_mean() -> None:
    c, horizon = case(14), 3
    plant = LinearPlant(c, bound=50.0)
    r, u_prev = references(horizon), np.zeros(2)
    shared = plans(Adjoint(horizon, iterations=300, shared=True), plant, r, u_prev)
    # The costs are quadratics of equal curvature: the best common plan is the optimum at the mean state.
    want = optimum(c, X.mean(axis=0), u_prev, r[1:])[0][0]
    np.testing.assert_allclose(shared, np.tile(want, (2, 1)), atol=2e-3)


def test_a_penalty_prices_what_violates_constraints() -> None:
    """``min (x+u)^2 + u^2 + 3 relu(u - 0.2)`` at x = -1: the free optimum 0.5 violates; 2u(1+1) - 2 = -3 nowhere above."""

    class Priced(PlantModel):
        def violation(self, h, u):  # type: ignore[no-untyped-def]
            return torch.relu(u[:, 0] - 0.2)

    plant = LinearPlant(scalar(), bound=5.0)
    m = measurement(-np.ones(1), np.zeros(1), np.zeros((2, 1)))
    for penalty, want in ((0.0, 0.5), (0.4, 0.4), (3.0, 0.2)):
        controller = Adjoint(1, iterations=200, penalty=penalty).bind(plant.problem, Priced(plant))
        controller.reset(1)
        assert float(controller.act(m).u) == pytest.approx(want, abs=5e-3)


def test_replanning_starts_from_what_is_left_of_the_plan() -> None:
    """A plan of five steps, played two at a time, then made anew: the optimum of each present horizon."""
    c, horizon = scalar(a=0.9), 5
    plant = LinearPlant(c, horizon=20, bound=20.0)
    controller = Adjoint(horizon, iterations=100, replan=2).bind(plant.problem, plant.model())
    controller.reset(1)
    x, played = np.array([2.0]), []
    for k in range(4):
        u = controller.act(measurement(x, np.zeros(1), np.zeros((6, 1)), k=k)).u.numpy()[0]
        played.append(float(u[0]))
        x = c.A @ x + c.B @ u
    first, _ = optimum(c, np.array([2.0]), np.zeros(1), np.zeros((5, 1)))
    middle = c.A @ (c.A @ np.array([2.0]) + c.B @ first[0]) + c.B @ first[1]
    second, _ = optimum(c, middle, np.zeros(1), np.zeros((5, 1)))
    np.testing.assert_allclose(played, [*first[:2, 0], *second[:2, 0]], atol=1e-3)


def test_the_reference_solver_agrees_with_itself() -> None:
    """The dense optimum used above costs what the step-by-step sum says, and no neighbour costs less."""
    c, rng = case(15, rate=True), np.random.default_rng(0)
    r, u_prev = references(4)[1:], np.array([0.5, 0.5])
    U, cost = optimum(c, X[0], u_prev, r, bound=0.4)
    assert cost == pytest.approx(plan_cost(c, X[0], u_prev, r, U), rel=1e-10)
    for _ in range(50):
        near = np.clip(U + 0.05 * rng.normal(size=U.shape), -0.4, 0.4)
        assert plan_cost(c, X[0], u_prev, r, near) >= cost - 1e-9


def test_controllers_ask_for_the_references_that_they_plan_with() -> None:
    plant = LinearPlant(case(2), horizon=40, bound=2.0)
    made = (LQR(), LQR(5), MPPI(4), CEM(7), MixedIntegerMPC(2), Adjoint(6), Adjoint())
    assert [c.bind(plant.problem, plant.model()).preview for c in made] == [0, 5, 4, 7, 2, 6, 40]


@pytest.mark.parametrize("planner", [MPPI, CEM])
def test_a_plan_that_there_was_no_time_for_is_still_a_new_one(planner: type[SamplingMPC]) -> None:
    """It has the rounds of a first plan, and is no plan to be followed until it is found."""
    plant, horizon = LinearPlant(case(3), bound=5.0), 8
    r, u_prev = references(horizon), np.zeros(2)
    m = measurement(X, u_prev, r)
    late, prompt = (planner(horizon, samples=64) for _ in range(2))
    for controller in (late, prompt):
        controller.bind(plant.problem, plant.model())
        controller.reset(len(X), gen=torch.Generator().manual_seed(0))
    for _ in range(2):
        assert late.act(m, budget_s=0.0).outcome.tolist() == [Outcome.NEUTRAL] * len(X)
    found, rounds = [], []
    for controller in (late, prompt):
        predicted: list[int] = []
        inner = controller._predicted

        def counted(*args: object, inner: object = inner, predicted: list[int] = predicted) -> torch.Tensor:
            predicted.append(1)
            return inner(*args)  # type: ignore[operator,no-any-return]

        controller._predicted = counted  # type: ignore[method-assign]
        found.append(controller.act(m).outcome.tolist())
        rounds.append(len(predicted))
        controller.act(m)
        assert len(predicted) - rounds[-1] < rounds[-1]
    assert found == [[Outcome.OPTIMAL] * len(X)] * 2
    assert rounds[0] == rounds[1]
