"""What planners do at steps that give them nothing to plan with, and when they plan: no time, no outputs, a restart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from linear_test_plants import Array, LinearPlant, case, measurement, scalar
from torch import Tensor

from steersman.controllers.base import Controller, Outcome
from steersman.controllers.planning.adjoint import Adjoint
from steersman.controllers.planning.enumeration import Enumeration
from steersman.dynamics.base import Hidden, Prediction, Window
from steersman.dynamics.estimation.base import Windows
from steersman.dynamics.truth.plant_model import PlantModel
from steersman.envs.actions import ActionSet
from steersman.envs.simulator import Measurement

HORIZON = 6
REST = torch.zeros(1).double().numpy()


class Counted(PlantModel):
    """The plant, and the control steps at which plans begin."""

    def __init__(self, plant: LinearPlant) -> None:
        super().__init__(plant)
        self.steps: list[int] = []

    def init(self, window: Window) -> Hidden:
        self.now = int(window.now.k[0])
        return super().init(window)

    def predict(self, *args: Any, **kwargs: Any) -> Prediction:
        if self.steps[-1:] != [self.now]:
            self.steps.append(self.now)
        return super().predict(*args, **kwargs)


def unstable(whole: bool = False) -> LinearPlant:
    plant = LinearPlant(scalar(a=1.2, effort=0.3), horizon=HORIZON, bound=2.0)
    if whole:
        plant.actions = ActionSet((-2.0,), (2.0,), (True,))
    return plant


def at(k: int, x: Array | list[list[float]]) -> Measurement:
    """Rows at states ``x`` and control step k."""
    rows = torch.tensor(x, dtype=torch.float64).numpy()
    return measurement(rows, REST, torch.zeros(HORIZON + 1, 1).double().numpy(), k=k)


def blinded(m: Measurement, rows: list[bool]) -> Measurement:
    return replace(m, y=torch.where(torch.tensor(rows)[:, None], torch.nan, m.y))


def planner(kind: str, learned: bool = False) -> Controller:
    """Adjoint, with a warm start or without, or enumeration; learned models see outputs only."""
    plant = unstable(kind == "enumeration")
    law = {
        "adjoint": Adjoint(iterations=30),
        "warm": Adjoint(iterations=30, warm="lqr"),
        "enumeration": Enumeration(4),
    }[kind]
    law.bind(plant.problem, Unaware(plant) if learned else PlantModel(plant))
    return law


class Unaware(PlantModel):
    """Takes the newest output of the window for the state."""

    def init(self, window: Window) -> Hidden:
        return super().init(replace(window, now=replace(window.now, x=window.y[:, -1], p={})))


def acts(
    law: Controller, first: Measurement, later: list[Measurement], budget_s: float | None
) -> tuple[Tensor, Tensor]:
    """Outcomes ``[steps n]`` and actions of later steps, after a first one."""
    law.reset(first.n)
    decisions = [law.act(first, budget_s), *(law.act(m) for m in later)]
    return torch.stack([d.outcome for d in decisions]), torch.stack([d.u for d in decisions[1:]])


@pytest.mark.parametrize("budget_s", [0.0, 1e-6])
@pytest.mark.parametrize("kind", ["adjoint", "warm", "enumeration"])
def test_a_step_without_time_costs_that_step_alone(kind: str, budget_s: float) -> None:
    """From the next step on it acts as a planner does whose episode begins there."""
    later = [at(k, [[1.3], [-0.6]]) for k in range(1, HORIZON)]
    found, u = acts(planner(kind), at(0, [[1.0], [-0.5]]), later, budget_s)
    assert (found[0] == (Outcome.BACKUP if kind == "warm" else Outcome.NEUTRAL)).all()
    assert (found[1:] == Outcome.OPTIMAL).all()
    _, want = acts(planner(kind), later[0], later[1:], None)
    torch.testing.assert_close(u[1:], want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["adjoint", "enumeration"])
def test_nothing_is_planned_from_outputs_that_nobody_saw(kind: str) -> None:
    """The row plans at the first outputs that there are; the other one is not disturbed."""
    law, x = planner(kind, learned=True), [[1.0], [-0.5]]
    later = [at(k, [[1.3], [-0.6]]) for k in range(1, HORIZON)]
    found, u = acts(law, blinded(at(0, x), [True, False]), [blinded(later[0], [True, False]), *later[1:]], None)
    assert found[:, 0].tolist() == [Outcome.NEUTRAL] * 2 + [Outcome.OPTIMAL] * (HORIZON - 2)
    assert (found[:, 1] == Outcome.OPTIMAL).all()
    _, whole = acts(planner(kind, learned=True), at(0, x), later, None)
    start = planner(kind, learned=True)
    start.reset(2)
    torch.testing.assert_close(u[1, 0], start.act(later[1]).u[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(u[:, 1], whole[:, 1], rtol=1e-9, atol=1e-9)


def test_a_window_begins_with_outputs_that_were_seen() -> None:
    memory, m = Windows(3), at(0, [[0.0], [1.0]])
    memory.push(replace(m, seen=torch.tensor([[False], [True]])))
    assert memory.push(at(1, [[2.0], [3.0]])).y[:, :, 0].tolist() == [[2.0, 2.0, 2.0], [1.0, 1.0, 3.0]]
    late = memory.push(replace(at(2, [[2.0], [3.0]]), seen=torch.tensor([[False], [True]])))
    assert late.y[0, :, 0].tolist() == [2.0, 2.0, 2.0] and not memory.push(at(3, [[4.0], [3.0]])).y.isnan().any()


def test_where_there_is_no_time_the_last_plan_goes_on_and_says_so() -> None:
    """Neutral before there is a plan (the warm start's with one), shifted after, and planned anew as soon as may be."""
    for warm, none in ((None, Outcome.NEUTRAL), ("lqr", Outcome.BACKUP)):
        plant = unstable()
        law = Adjoint(4, iterations=30, replan=1, warm=warm).bind(plant.problem, PlantModel(plant))  # type: ignore[arg-type]
        law.reset(1)
        assert [law.act(at(0, [[1.0]]), 0.0).outcome.tolist() for _ in range(2)] == [[none]] * 2
        assert law.act(at(1, [[1.0]])).outcome.tolist() == [Outcome.OPTIMAL]
        assert law._plans is not None
        shifted = law._plans.u[0, 0].clone()
        late = law.act(at(2, [[1.0]]), 0.0)
        assert late.outcome.tolist() == [Outcome.SHIFTED] and torch.equal(late.u[0], shifted)
        assert law.act(at(3, [[1.0]])).outcome.tolist() == [Outcome.OPTIMAL]


def test_a_plan_that_is_used_up_while_nothing_is_seen_repeats_its_last_action() -> None:
    plant = unstable()
    law = Adjoint(2, iterations=30).bind(plant.problem, Unaware(plant))
    law.reset(1)
    law.act(at(0, [[1.0]]))
    last = law.act(at(1, [[1.0]])).u
    m = replace(at(2, [[1.0]]), seen=torch.zeros(1, 1, dtype=torch.bool))
    spent = law.decide(m, None)
    assert spent.outcome.tolist() == [Outcome.SHIFTED] and torch.equal(spent.u, last)


@pytest.mark.parametrize(("replan", "want"), [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 2, 4]), (3, [0, 3]), (None, [0, 4])])
def test_plans_are_made_every_so_many_steps(replan: int | None, want: list[int]) -> None:
    model = Counted(unstable())
    law = Adjoint(4, iterations=3, replan=replan).bind(model.plant.problem, model)
    law.reset(1)
    for k in range(HORIZON):
        law.act(at(k, [[1.0]]))
    assert model.steps == want


@pytest.mark.parametrize("iterations", [1, 3])
def test_a_restarted_row_plans_as_a_new_one(iterations: int) -> None:
    """A search of few steps shows where it began: not at what is left of the plan of the episode before."""
    plant = LinearPlant(case(11), horizon=HORIZON, bound=2.0)
    law = Adjoint(iterations=iterations).bind(plant.problem, PlantModel(plant))
    x, two = torch.tensor([[2.0, -1.0, 0.5], [0.3, 0.1, -1.0]]).double().numpy(), torch.zeros(2).double().numpy()
    m = measurement(x, two, torch.ones(HORIZON + 1, 2).double().numpy())
    law.reset(2)
    new = law.act(m).u
    law.act(m)
    law.reset(2, torch.tensor([True, False]))
    torch.testing.assert_close(law.act(m).u[0], new[0], rtol=1e-9, atol=1e-9)
