"""What plans and trainings pay for: failures, doubt of the model, limits; and the policy that a training keeps."""

from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from linear_test_plants import LinearPlant, case, measurement, plan_cost, scalar
from torch import Tensor

from steersman.controllers.base import Controller, Outcome, Training
from steersman.controllers.classical.baseline import Zero
from steersman.controllers.classical.lqr import LQR
from steersman.controllers.mip.controller import MixedIntegerMPC
from steersman.controllers.neural.controller import NeuralPolicy
from steersman.controllers.neural.informed import ModelRollouts, Rollouts
from steersman.controllers.planning import sampling
from steersman.controllers.planning.adjoint import Adjoint
from steersman.controllers.planning.sampled import Sampled
from steersman.controllers.planning.sampling import CEM, MPPI, SamplingMPC
from steersman.controllers.rollout import run_episodes
from steersman.dynamics.estimation.base import WindowEstimator, Windows
from steersman.dynamics.linear.models import LinearDynamics
from steersman.envs import noise
from steersman.envs.objective import Limit, Quadratic
from steersman.envs.simulator import PlantSimulator

HORIZON = 4
PLANS = torch.tensor([[0.2, 0.2, -0.1, 0.0], [0.4, 0.5, 0.1, 0.2], [3.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
"""From 0.5, the second is beyond 1 from its second step on, the third from its first."""


class Doubtful(LinearDynamics):
    """Doubts large actions."""

    def doubt(self, h, u: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]
        return 4 * u[:, 0].abs()


def tight(failure: float, target: float = 0.0) -> LinearPlant:
    """``x+ = x + u`` that is lost beyond -1 and 1, with a price of failure."""
    plant = LinearPlant(scalar(), bound=5.0, reference=np.full((1, 1), target))
    limit = Limit(name="edge", index=0, low=-1.0, high=1.0)
    plant.objective = replace(plant.objective, failure=failure, limits=(limit,))
    return plant


def doubtful(plant: LinearPlant) -> Doubtful:
    model = Doubtful(context=1).bind(plant.problem)
    model.load_state_dict(plant.model().state_dict())
    return model


def stages(plan: Tensor, start: float) -> float:
    r = np.zeros((len(plan), 1))
    return plan_cost(scalar(), np.array([start]), np.zeros(1), r, plan.numpy()[:, None])


def start(rows: int, x: float = 0.5):  # type: ignore[no-untyped-def]
    return measurement(np.full((rows, 1), x), np.zeros(1), np.zeros((HORIZON + 1, 1)))


def costs(kind: type[Controller] | str, plant: LinearPlant, doubt: float) -> list[float]:
    """What a controller thinks that the three plans cost."""
    model = doubtful(plant)
    if kind is Adjoint:
        adjoint = Adjoint(HORIZON).bind(plant.problem, model)
        m = start(3)
        return adjoint._through(model, WindowEstimator(model).update(m), PLANS[..., None], None).tolist()
    if kind is ModelRollouts:
        training = Training(partial(PlantSimulator, plant), seed=0)
        rollouts = ModelRollouts(
            Zero().bind(plant.problem, model), lambda y, s: (y, s), lambda n: torch.zeros(n), training, 3, 1, doubt, 0.0
        )
        rows = []
        for i in range(3):
            one = iter(PLANS[i, :, None, None])
            rollouts.law = lambda y, s, one=one: (next(one), s)  # type: ignore[misc]
            rows.append(float(rollouts._cost(Windows(1).push(start(1)), HORIZON)) * HORIZON)
        return rows
    planner = MPPI(HORIZON, samples=3, doubt=doubt).bind(plant.problem, model)
    return planner._predicted(model.init(Windows(1).push(start(1))), PLANS[None, ..., None], start(1), None)[0].tolist()


@pytest.mark.parametrize("kind", [MPPI, Adjoint, ModelRollouts], ids=["sampling", "adjoint", "model rollouts"])
def test_failures_without_a_price_cost_what_their_stages_do(kind: type[Controller]) -> None:
    assert costs(kind, tight(0.0), 0.0) == pytest.approx([stages(plan, 0.5) for plan in PLANS])


def test_a_failure_costs_its_price_for_each_step_that_is_left_of_the_episode_and_ends_all_else() -> None:
    plant = tight(70.0)
    first = stages(PLANS[1, :1], 0.5)
    own = [stages(PLANS[0], 0.5), first + 0.5**2 + 70 * (plant.horizon - 1), 3.0**2 + 70 * plant.horizon]
    assert costs(MPPI, plant, 0.0) == pytest.approx(own)


@pytest.mark.parametrize("kind", [Adjoint, ModelRollouts], ids=["adjoint", "model rollouts"])
def test_descents_pay_for_limits_by_a_barrier(kind: type[Controller]) -> None:
    def near(x: float) -> float:
        return 70 * (max(0.0, 1 - (1 - x) / 0.05) ** 2 + max(0.0, 1 - (x + 1) / 0.05) ** 2)

    x = 0.5 + PLANS.cumsum(dim=1)
    want = [stages(plan, 0.5) + sum(map(near, row)) for plan, row in zip(PLANS, x.tolist(), strict=True)]
    assert near(1.0) == 70 and near(0.94) == 0
    assert costs(kind, tight(70.0), 0.0) == pytest.approx(want)


@pytest.mark.parametrize("kind", [MPPI, ModelRollouts], ids=["sampling", "model rollouts"])
def test_doubt_beyond_the_edge_of_the_data_is_priced(kind: type[Controller]) -> None:
    want = [stages(plan, 0.5) + 2 * float(torch.relu(4 * plan.abs() - 1).sum()) for plan in PLANS]
    assert costs(kind, tight(0.0), 2.0) == pytest.approx(want)
    assert costs(kind, tight(0.0), 0.0) == pytest.approx([stages(plan, 0.5) for plan in PLANS])


MAKERS = {
    "mppi": lambda: MPPI(3, samples=200, iterations=5, spread=0.3),
    "cem": lambda: CEM(3, samples=200, iterations=5, spread=0.3),
    "mip-mpc": lambda: MixedIntegerMPC(3, samples=0, margin=0.01),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_priced_limit_holds_what_an_unpriced_one_lets_go(kind: str) -> None:
    """The reference 3 lies beyond the limit of 1."""
    for failure, low, high in ((0.0, 1.2, 5.0), (200.0, 0.3, 1.0)):
        plant = tight(failure, target=3.0)
        controller = MAKERS[kind]().bind(plant.problem, plant.model())
        controller.reset(1)
        m = measurement(np.zeros(1), np.zeros(1), np.full((4, 1), 3.0))
        x = 0.0
        for _ in range(4):
            u = controller.act(replace(m, y=m.y + x, x=m.y + x)).u
            x += float(u)
        assert low <= x <= high


@pytest.mark.parametrize("kind", ["mppi", "cem"])
def test_doubt_keeps_plans_near_the_data(kind: str) -> None:
    plant = tight(0.0, target=3.0)
    found = []
    for doubt in (0.0, 100.0):
        controller = {"mppi": MPPI, "cem": CEM}[kind](2, samples=300, iterations=6, doubt=doubt)
        controller.bind(plant.problem, doubtful(plant)).reset(1)
        found.append(float(controller.act(measurement(np.zeros(1), np.zeros(1), np.full((3, 1), 3.0))).u))
    assert found[0] > 0.8 and 0.1 < found[1] < 0.3


def test_blocks_of_rows_cost_what_a_whole_batch_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    plant = tight(50.0)
    planner = MPPI(HORIZON, samples=5).bind(plant.problem, plant.model())
    m = measurement(np.linspace(-1, 1, 7)[:, None], np.zeros(1), np.zeros((HORIZON + 1, 1)))
    h, gen = plant.model().init(Windows(1).push(m)), torch.Generator().manual_seed(0)
    knots = torch.randn(7, 5, HORIZON, 1, generator=gen, dtype=torch.float64)
    whole = planner._predicted(h, knots, m, None)
    monkeypatch.setattr(sampling, "BLOCK", 10)
    torch.testing.assert_close(planner._costs(h, knots, m), whole)


@pytest.mark.parametrize("kind", [MPPI, CEM])
def test_a_budget_ends_the_rounds_and_says_so(kind: type[SamplingMPC]) -> None:
    plant = tight(0.0)
    planner = kind(HORIZON, samples=16, iterations=20000).bind(plant.problem, plant.model())
    planner.reset(2)
    decision = planner.act(start(2), 0.3)
    assert decision.outcome.tolist() == [Outcome.INCUMBENT] * 2 and decision.seconds < 0.3
    assert (decision.u < -0.2).all(), "the best plan so far goes from 0.5 towards 0"
    planner.reset(2)
    decision = planner.act(start(2), 0.0)
    assert decision.outcome.tolist() == [Outcome.NEUTRAL] * 2 and not decision.u.any()


# ------------------------------------------------------------------ what a training keeps


class Scripted(Rollouts):
    """Gradients that push the first weight on and on; validations as told."""

    def __init__(self, policy: NeuralPolicy, validations: list[float]) -> None:
        self.policy, self.left, self.used = policy, list(validations), 7
        self.curve = []
        self.visited: list[Tensor] = []
        self.renewed_after: int | None = None

    def loss(self, length: int) -> Tensor:
        return -sum(p.sum() for p in self.policy._policy.parameters())  # type: ignore[return-value]

    def validate(self, length: int) -> float:
        self.visited.append(torch.cat([p.detach().flatten() for p in self.policy._policy.parameters()]).clone())
        return self.left.pop(0)

    def renew(self) -> None:
        self.renewed_after = len(self.visited)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise AssertionError("nothing was saved")


@pytest.mark.parametrize(
    ("validations", "kept"),
    [
        ([5.0, 4.0, 3.0, 2.0, 2.5, 2.4, 2.1, 2.9, 2.8, 2.7], 6),  # the best of the second half, on its own starts
        ([5.0, 4.0, 3.0, 2.0, 2.5, 9.0, 8.0, 7.0, 6.0, 5.0], 9),
        ([1.0, 1.0, 1.0, 1.0, 1.0, 4.0, 5.0, 6.0, float("nan"), 7.0], 5),
    ],
)
def test_a_neural_policy_keeps_its_best_validated_weights(
    validations: list[float], kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = tight(0.0)
    policy = NeuralPolicy(hidden=(3,), steps=20, batch=2, horizon=2, explore=1, renewals=1)
    policy.bind(plant.problem, plant.model())
    script: list[Scripted] = []

    def source(training: Training, gen: torch.Generator) -> Scripted:
        script.append(Scripted(policy, validations))
        return script[0]

    monkeypatch.setattr(policy, "_source", source)
    spent = policy.train(Training(partial(PlantSimulator, plant), seed=0))
    (scripted,) = script
    seen = scripted.visited
    assert len(seen) == 10 and scripted.renewed_after == 5
    now = torch.cat([p.detach().flatten() for p in policy._policy.parameters()])
    assert torch.equal(now, seen[kept]) and not torch.equal(seen[kept], seen[kept - 1])
    # the rollouts', one episode of exploration, and the verdict's six contenders on eight scenarios
    assert spent.plant_steps == 7 + (1 + 6 * 8) * plant.horizon


# ------------------------------------------------------------------ what is known to be wrong


def test_gradients_hold_a_priced_limit() -> None:
    """As sampling and mixed-integer plans do, and without giving up what lies inside."""
    plant = tight(200.0, target=3.0)
    controller = Adjoint(3, iterations=100).bind(plant.problem, plant.model())
    controller.reset(1)
    x = float(controller.act(measurement(np.zeros(1), np.zeros(1), np.full((4, 1), 3.0))).u)
    assert 0.9 <= x <= 1.0, "from 0 the best plan goes to the limit at once"


def test_the_price_of_a_failure_reaches_the_gradient_of_a_policy() -> None:
    def slope(failure: float) -> float:
        plant = tight(failure)
        bias = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
        rollouts = ModelRollouts(
            Zero().bind(plant.problem, plant.model()), lambda y, s: (0 * y + bias, s), lambda n: torch.zeros(n),
            Training(partial(PlantSimulator, plant), seed=0), 3, 1, 0.0, 0.0,
        )  # fmt: skip
        rollouts._cost(Windows(1).push(start(1)), HORIZON).backward()
        return float(bias.grad)  # type: ignore[arg-type]

    assert slope(200.0) > slope(0.0) + 1.0, "0.5 + 4 x 0.2 is beyond the limit of 1"


def test_rollouts_to_the_end_of_an_episode_count_the_terminal_cost() -> None:
    plant = tight(0.0)
    plant.horizon = HORIZON
    plant.objective = replace(plant.objective, terminal=(Quadratic(name="end", on="z", weights=(3.0,)),))
    rollouts = ModelRollouts(
        Zero().bind(plant.problem, plant.model()), lambda y, s: (0 * y, s), lambda n: torch.zeros(n),
        Training(partial(PlantSimulator, plant), seed=0), 3, 1, 0.0, 0.0,
    )  # fmt: skip
    assert float(rollouts._cost(Windows(1).push(start(1)), HORIZON)) * HORIZON == pytest.approx(3 * 0.25 + 3 * 0.25)


def test_a_restarted_row_leaves_the_plans_of_the_others_alone() -> None:
    plant = LinearPlant(scalar(a=0.9), horizon=20, bound=20.0)
    controller = Adjoint(5, iterations=100).bind(plant.problem, plant.model())
    controller.reset(2)
    m = measurement(np.array([[2.0], [1.5]]), np.zeros(1), np.zeros((6, 1)))
    controller.act(m)
    assert controller._plans is not None
    planned = controller._plans.u[1].clone()
    controller.reset(2, torch.tensor([True, False]))
    assert torch.equal(controller.act(m).u[1], planned[0]) and torch.equal(controller._plans.u[1, :4], planned[1:])


@pytest.mark.parametrize("kind", ["mppi", "cem"])
def test_samplers_settle_where_nothing_changes(kind: str) -> None:
    """One round a decision holds ``x+ = x / 2 + u`` at a hundredth of the cost above the regulator of that horizon."""
    plant = LinearPlant(scalar(a=0.5), bound=4.0, horizon=10**6)
    costs = []
    for controller in (LQR(4), {"mppi": MPPI, "cem": CEM}[kind](4, samples=64, iterations=1)):
        controller.bind(plant.problem, plant.model()).reset(1)
        x, cost = 0.0, []
        for _ in range(80):
            u = float(controller.act(measurement(np.full(1, x), np.zeros(1), np.full((5, 1), 2.0))).u)
            cost.append((x - 2) ** 2 + u**2)
            x = 0.5 * x + u
        costs.append(sum(cost[20:]))
    assert costs[1] == pytest.approx(costs[0], rel=0.01)


def total(controller: Controller, seed: int) -> float:
    """Cost of two episodes of 30 steps on a random plant with three states and two actions."""
    drawn = case(seed, ns=3, m=2, nz=3)
    nil = {name: 0 * getattr(drawn, name) for name in ("q", "g", "c", "dz")}
    plant = LinearPlant(replace(drawn, **nil), horizon=30, bound=5.0)
    simulator = PlantSimulator(plant, 2)
    scenarios = simulator.scenarios(noise.keys(7, 2))
    scenarios = replace(scenarios, x0=2 * noise.normal(scenarios.key, 3))
    controller.bind(plant.problem, plant.model()).reset(2)
    found = run_episodes(simulator, scenarios, lambda m: controller.act(m).u, controller.preview)
    return float(found.cost.sum())


ALWAYS = 4
"""A stable plant whose best actions are a tenth of the draws; the others, up to an eigenvalue of 1.10, are slow tests."""


@pytest.mark.parametrize("seed", [s if s == ALWAYS else pytest.param(s, marks=pytest.mark.slow) for s in range(9)])
@pytest.mark.parametrize("kind", ["mppi", "cem"])
def test_long_plans_of_samples_come_within_a_fiftieth_of_the_regulator(kind: str, seed: int) -> None:
    """Plans of 40 steps with 80 free numbers, on stable and unstable plants: the largest eigenvalues go up to 1.10."""
    assert total({"mppi": MPPI, "cem": CEM}[kind](40, samples=512), seed) < 1.02 * total(LQR(), seed)


@pytest.mark.parametrize("kind", [MPPI, CEM])
def test_rows_that_search_anew_leave_others_alone(kind: type[SamplingMPC]) -> None:
    """Old plans take one stage while new ones take all of theirs; what a row decides is its own affair."""
    plant = LinearPlant(scalar(a=1.1), bound=5.0)
    m = measurement(np.array([[1.0], [2.0]]), np.zeros(1), np.zeros((9, 1)))
    decided = []
    for restarted in (False, True):
        planner = kind(8, samples=32).bind(plant.problem, plant.model())
        planner.reset(2, gen=torch.Generator().manual_seed(0))
        first = planner.act(m).u
        if restarted:
            planner.reset(2, torch.tensor([True, False]))
        decided.append([planner.act(m).u for _ in range(3)])
        assert first.abs().min() > 0
    for before, after in zip(*decided, strict=True):
        assert torch.equal(before[1], after[1])


def test_of_two_searches_the_cheaper_whole_plan_stays() -> None:
    state = Sampled(torch.zeros(3, 4, 1), torch.ones(3, 4, 1), torch.arange(3))
    everywhere = torch.arange(3)
    state.mean = 1 + state.mean
    state.offer(everywhere, torch.ones(3, 4, 1), torch.tensor([1.0, 2.0, 3.0]))
    state.search_on(everywhere[:2], 2)
    assert state.mean[:, 0, 0].tolist() == [0.0, 0.0, 1.0] and state.cost.tolist() == [torch.inf, torch.inf, 3.0]
    state.std = torch.full((3, 4, 1), 0.5)
    state.offer(everywhere[:2], 2 + torch.zeros(2, 2, 1), torch.tensor([0.1, 0.1]))
    cut_short = copy(state)
    cut_short.settle()
    assert cut_short.best[:, 0, 0].tolist() == [1.0, 1.0, 1.0] and cut_short.cost.tolist() == [1.0, 2.0, 3.0]
    state.search_on(everywhere[:2], 4)
    state.offer(everywhere[:2], 3 + torch.zeros(2, 4, 1), torch.tensor([1.5, 1.5]))
    state.settle()
    assert state.best[:, 0, 0].tolist() == [1.0, 3.0, 1.0] and state.cost.tolist() == [1.0, 1.5, 3.0]
    assert state.mean[:, 0, 0].tolist() == [1.0, 0.0, 1.0]
