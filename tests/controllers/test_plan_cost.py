"""A plan costs what its episode costs, whoever plans it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from linear_test_plants import LinearPlant, case, measurement
from torch import Tensor

from steersman.controllers.plan import PlanCost, plan_cost, with_slopes
from steersman.controllers.planning.adjoint import Adjoint
from steersman.controllers.planning.enumeration import Enumeration
from steersman.controllers.planning.sampling import CEM, MPPI
from steersman.dynamics.base import Prediction
from steersman.dynamics.estimation.base import WindowEstimator, Windows
from steersman.dynamics.truth.plant_model import Hindsight, PlantModel
from steersman.envs import make_plant, noise
from steersman.envs.objective import L1, Limit, Objective, Quadratic
from steersman.envs.plant import Plant
from steersman.envs.registry import PLANTS
from steersman.envs.simulator import Measurement, PlantSimulator

NOISY = {"WolfSheep", "CarT", "Sepsis", "Metabolic", "SEIR", "Kolmogorov", "Smoke"}
LONG = 60
"""Control steps of an episode that are tried at most."""


def is_calm(plant: Plant) -> bool:
    """Whether the plant does the same whatever its disturbance."""
    key = noise.keys(3, 2)
    p = plant.params(key)
    k, x = torch.zeros(2, dtype=torch.int64), plant.initial(key, p)
    u = plant.actions.neutral(2, torch.zeros(1, dtype=plant.dtype))
    after = [plant.step(k, x, u, plant.disturbance(noise.fold(key, i), k), p) for i in (1, 2)]
    first, second = (a if isinstance(a, dict) else {"x": a} for a in after)
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "spec", [s for s in PLANTS if not s.id.split("/")[1].startswith(tuple(NOISY))], ids=lambda s: s.id
)
def test_a_plan_of_a_whole_episode_costs_what_the_episode_does(spec) -> None:  # type: ignore[no-untyped-def]
    """Less the cost of the first outputs: failures, goals, terminal costs and rate costs included."""
    plant = make_plant(spec.id)
    if not is_calm(plant):
        pytest.skip("a plan of a noisy plant does not know its noise")
    plant.horizon = min(plant.horizon, 5 if "RayleighBenard" in spec.id else LONG)
    rows = 3
    simulator = PlantSimulator(plant, rows, price=7.0)
    problem = simulator.problem
    simulator.reset(simulator.scenarios(noise.keys(11, rows)))
    m = simulator.measure(problem.horizon)
    unit = noise.uniform(noise.keys(12, rows), problem.horizon, problem.actions.m, dtype=simulator.dtype)
    U = torch.stack([problem.actions.sample(unit[:, j]) for j in range(problem.horizon)], dim=1)
    model = Hindsight(plant)
    with torch.no_grad():
        planned = PlanCost(problem).through(model, model.init(Windows(1).push(m)), U, m)
    first = problem.objective.output_cost(simulator.perform(), m.r[:, 0])
    total = torch.zeros_like(first)
    for j in range(problem.horizon):
        total = total + simulator.step(U[:, j]).cost
    torch.testing.assert_close(planned + first, total, rtol=1e-9, atol=1e-9 * float(total.abs().max()))


def limited(failure: float = 50.0) -> LinearPlant:
    """Two actions, all kinds of terms, a terminal cost and a limit that some plans break."""
    plant = LinearPlant(case(5, rate=True), horizon=12, bound=2.0)
    plant.objective = replace(
        plant.objective,
        terminal=(Quadratic(name="end", on="e", weights=(3.0, 1.0)), L1(name="far", on="z", weights=(0.5, 0.5))),
        failure=failure,
        limits=(Limit(name="edge", index=0, low=-3.0, high=3.0),),
    )
    return plant


def standing(rows: int, horizon: int) -> Measurement:
    """Rows at different steps of their episodes, the last ones near the end."""
    rng = np.random.default_rng(1)
    m = measurement(rng.normal(size=(rows, 3)), 0.3 * np.ones(2), rng.normal(size=(13, 2)))
    return replace(m, k=torch.tensor([0, 3, horizon - 2, horizon - 1])[:rows])


def by_hand(plant: LinearPlant, m: Measurement, U: Tensor) -> list[float]:
    """The cost of each row's plan, step by step."""
    c, objective, N = plant.case, plant.objective, plant.horizon
    costs = []
    for row in range(m.n):
        x, before, total, k = m.y[row].numpy(), m.u_prev[row], 0.0, int(m.k[row])
        for j in range(U.shape[1]):
            if k + j >= N:
                break
            u = U[row, j]
            total += float(objective.action_cost(u[None], (u - before)[None]))
            x, before = c.A @ x + c.B @ u.numpy() + c.c, u
            z, r = torch.from_numpy(c.Cz @ x + c.dz)[None], m.r[row, min(j + 1, m.r.shape[1] - 1)][None]
            if objective.failure and bool(objective.lost(z)):
                total += objective.failure * (N - k - j)
                break
            last = k + j + 1 == N
            total += float(objective.terminal_cost(z, r) if last else objective.output_cost(z, r))
        costs.append(total)
    return costs


@pytest.mark.parametrize("failure", [0.0, 50.0])
def test_planners_cost_a_plan_equally(failure: float) -> None:
    """Samplers, gradients (which see limits by their barrier) and enumeration, each row at a step of its own."""
    plant, h = limited(failure), 5
    m = standing(4, plant.horizon)
    model = plant.model()
    U = torch.from_numpy(np.random.default_rng(2).uniform(-2, 2, size=(4, h, 2)))
    want = by_hand(plant, m, U)
    window = Windows(model.context).push(m)
    for sampler in (MPPI(h, samples=1), CEM(h, samples=1)):
        sampler.bind(plant.problem, model)
        assert sampler._predicted(model.init(window), U[:, None], m, None)[:, 0].tolist() == pytest.approx(want)
    soft = replace(plant.objective, limits=(), failure=0.0, stage=plant.objective.softened(0.05, smooth=True).stage)
    adjoint = Adjoint(h).bind(plant.problem, model)
    plant.objective = soft
    assert adjoint._through(model, WindowEstimator(model).update(m), U, None).tolist() == pytest.approx(
        by_hand(plant, m, U)
    )
    assert failure == 0 or by_hand(plant, m, U) != pytest.approx(want), "no plan comes near a limit"


def test_enumeration_costs_a_plan_as_samplers_do() -> None:
    plant = limited()
    plant.actions = replace(plant.actions, lower=(-1.0, 0.0), upper=(1.0, 0.0), integer=(True, True))
    m, model = standing(4, plant.horizon), plant.model()
    U = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]]], dtype=torch.float64)
    found = Enumeration(2).bind(plant.problem, model)._costs(model.init(Windows(1).push(m)), m, U, None)
    assert found[:, 0].tolist() == pytest.approx(by_hand(plant, m, U.expand(4, -1, -1)))


def test_what_lies_beyond_the_end_of_the_episode_costs_nothing_and_has_no_slope() -> None:
    plant = limited()
    m, model = standing(4, plant.horizon), plant.model()
    U = torch.zeros(4, 6, 2, dtype=torch.float64, requires_grad=True)
    cost = PlanCost(with_slopes(plant.problem)).through(model, model.init(Windows(1).push(m)), U, m)
    (slope,) = torch.autograd.grad(cost.sum(), U)
    assert bool((slope[2, 2:] == 0).all()) and bool((slope[3, 1:] == 0).all())
    assert bool((slope[3, 0] != 0).all()) and bool((slope[0] != 0).any(dim=1).all())


def ends(lost: list[bool], reached: list[bool], failure: float) -> float:
    """Cost of three steps of ``z = 2, 3, 4`` without actions, squares at 1 and terminal squares at 10."""
    objective = Objective(
        (Quadratic(name="z", on="z", weights=(1.0,)),), (Quadratic(name="end", on="z", weights=(10.0,)),), failure
    )
    problem = replace(LinearPlant(case(1, ns=1, m=1, nz=1), horizon=8).problem, objective=objective)
    z = torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64).reshape(1, 1, 3, 1)
    flags = {"lost": torch.tensor([[lost]]), "reached": torch.tensor([[reached]])}
    m = replace(measurement(np.zeros((1, 1)), np.zeros(1), np.zeros((4, 1))), k=torch.tensor([2]))
    return float(plan_cost(problem, Prediction(z, z, **flags), torch.zeros(1, 3, 1, dtype=torch.float64), m))


def test_ends_of_an_episode() -> None:
    no, yes = [False] * 3, [False, True, True]
    assert ends(no, no, 100.0) == 4 + 9 + 16
    assert ends(yes, no, 100.0) == 4 + 100 * (8 - 3), "lost in step 3 of 8: five are left, that one included"
    assert ends([False, True, False], no, 100.0) == 4 + 100 * 5, "a failure is for ever"
    assert ends(no, yes, 100.0) == 4 + 10 * 9, "the goal ends it, with the terminal cost"
    assert ends(yes, no, 0.0) == 4 + 9 + 16, "what has no price is no end either"
    assert ends(yes, yes, 100.0) == 4 + 100 * 5, "a failure is no goal"


# ------------------------------------------------------------------ noise


class Gusty(LinearPlant):
    """Pushed by a normal disturbance of its first state."""

    def step(self, k, x, u, w, p):  # type: ignore[no-untyped-def]
        push = torch.zeros_like(x)
        push[:, 0] = noise.normal(w)
        return super().step(k, x, u, w, p) + push


def test_particles_are_draws_of_their_own_and_costs_their_mean() -> None:
    plant = Gusty(case(3), horizon=10, bound=2.0)
    model, U = PlantModel(plant), torch.zeros(2, 3, 2, dtype=torch.float64)
    m = measurement(np.ones((2, 3)), np.zeros(2), np.zeros((4, 2)))
    h = model.init(Windows(1).push(m))
    found = model.predict(h, U, particles=4000)
    assert found.z.shape == (2, 4000, 3, 2) and len(found.y[0, :, 0, 0].unique()) == 4000
    spread = found.y[0, :, 0, 0]
    assert float(spread.std()) == pytest.approx(1.0, rel=0.05)
    single = [PlanCost(plant.problem)(Prediction(found.y[:, i, None], found.z[:, i, None]), U, m) for i in range(20)]
    some = Prediction(found.y[:, :20], found.z[:, :20])
    torch.testing.assert_close(PlanCost(plant.problem)(some, U, m), torch.stack(single).mean(dim=0))
    assert torch.equal(model.predict(h, U).z, model.predict(h, U).z), "one particle is the model's own"


def test_samples_meet_noise_of_their_own_or_share_their_particles() -> None:
    plant = Gusty(case(3), horizon=10, bound=2.0)
    model = PlantModel(plant)
    m = measurement(np.ones((1, 3)), np.zeros(2), np.zeros((4, 2)))
    h, same = model.init(Windows(1).push(m)), torch.zeros(1, 6, 3, 2, dtype=torch.float64)
    own = MPPI(3, samples=6).bind(plant.problem, model)._predicted(h, same, m, None)
    shared = MPPI(3, samples=6, particles=5).bind(plant.problem, model)._predicted(h, same, m, None)
    assert len(own.unique()) == 6
    torch.testing.assert_close(shared, shared[:, :1].expand(1, 6))


def test_averaged_plans_do_not_fit_one_draw_of_the_noise() -> None:
    """``x+ = x + u + 3 w`` costs ``(x+)^2 + u^2``: on average u = -x/2; by a single draw, its push as well."""
    c = replace(case(3, ns=1, m=1, nz=1), A=np.eye(1), B=np.eye(1), Cz=np.eye(1), E=np.ones(1), R=np.ones(1))
    c = replace(c, **{name: 0 * getattr(c, name) for name in ("c", "dz", "Q", "q", "g", "S")})
    plant = Gusty(c, horizon=10, bound=6.0)
    start = 1.5
    m = measurement(np.full((1, 1), start), np.zeros(1), np.zeros((2, 1)))

    def planned(particles: int) -> float:
        controller = Adjoint(1, iterations=50, particles=particles).bind(plant.problem, PlantModel(plant))
        controller.reset(1)
        return float(controller.act(m).u)

    assert planned(2000) == pytest.approx(-start / 2, abs=0.05) and abs(planned(1) + start / 2) > 0.1


def test_a_start_beyond_a_limit_is_priced_as_in_the_episode() -> None:
    """The episode goes on for the step that leads back within the limit, or ends after it."""
    plant = make_plant("steersman/CartPole-v1")
    plant.horizon = 6
    simulator = PlantSimulator(plant, 3, price=7.0)
    scenarios = simulator.scenarios(noise.keys(1, 3))
    assert isinstance(scenarios.x0, Tensor)
    x0 = scenarios.x0.clone()
    x0[0, :2] = torch.tensor([2.41, -2.0])  # position and speed: beyond, on its way back
    x0[1, :2] = torch.tensor([2.41, 2.0])
    simulator.reset(replace(scenarios, x0=x0))
    assert simulator.plant.status(simulator.k, x0, scenarios.p).tolist() == [1, 1, 0]
    m = simulator.measure(plant.horizon)
    U = plant.actions.neutral(3, x0)[:, None].expand(-1, plant.horizon, -1)
    model = PlantModel(plant)
    planned = PlanCost(simulator.problem).through(model, model.init(Windows(1).push(m)), U, m)
    total = torch.zeros_like(planned)
    for j in range(plant.horizon):
        total = total + simulator.step(U[:, j]).cost
    torch.testing.assert_close(
        planned, total - simulator.problem.objective.output_cost(plant.perform(m.k, x0, scenarios.p), m.r[:, 0])
    )
    assert total[1] > total[0]
