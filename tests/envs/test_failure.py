"""The price of a failure: breaking is never cheaper than working, in any way of running a plant."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.failure import BANK, SCENARIOS, failure_price
from steersman.envs.gymnasium_adapters.env import PlantEnv
from steersman.envs.gymnasium_adapters.sb3 import SB3VecEnv
from steersman.envs.gymnasium_adapters.vector import PlantVectorEnv
from steersman.envs.objective import L1, Linear, LInf, Objective, PiecewiseLinear, Quadratic, Term
from steersman.envs.plant import Plant, Status, failed
from steersman.envs.simulator import PlantSimulator
from steersman.experiments.spec.comparison import ComparisonSpec

LEVEL = Quadratic(name="level", on="z", weights=(1.0,))


class Tank(Plant):
    """x' = x + u from a start in 1 .. 2; an action of 1 breaks it at once, at a level that costs little."""

    def __init__(self, *terms: Term, failure: float = 0.0, terminal: tuple[Term, ...] = (), sound: bool = True) -> None:
        self.dt, self.hold, self.horizon, self.gradient = 1.0, 1, 10, "exact"
        self.actions = ActionSet((-1.0,), (1.0,))
        self.objective = Objective(terms or (LEVEL,), terminal, failure=failure)
        self.measured = self.performed = ("level",)
        self.sound = sound

    def params(self, key: Tensor) -> dict[str, Tensor]:
        return {}

    def initial(self, key: Tensor, p: dict[str, Tensor]) -> Tensor:
        return 1.0 + noise.uniform(key, 1, dtype=self.dtype)

    def step(self, k: Tensor, x: Any, u: Tensor, w: Tensor, p: dict[str, Tensor]) -> Tensor:
        broken = torch.where(u >= 1.0, 100.0 if self.sound else torch.nan, 0.0)
        return x + u.clamp(max=0.5) + broken

    def measure(self, k: Tensor, x: Any, p: dict[str, Tensor]) -> Tensor:
        return x

    def status(self, k: Tensor, x: Any, p: dict[str, Tensor]) -> Tensor:
        return ((x[:, 0] > 50.0) * int(Status.TERMINATED)).to(torch.uint8)


def episode(plant: Plant, u: float, n: int = 4) -> tuple[Tensor, Tensor]:
    sim = PlantSimulator(plant, n)
    sim.reset(sim.scenarios(noise.keys(7, n)))
    cost = torch.zeros(n, dtype=torch.float64)
    for _ in range(plant.horizon):
        t = sim.step(torch.full((n, 1), u, dtype=torch.float64))
        cost = cost + t.cost
    return cost, t.status


def largest_step(plant: Plant) -> float:
    """The rule by hand: the neutral action stays, the lower one goes down to the end, the upper one breaks at once."""
    x0 = plant.initial(noise.keys(BANK, SCENARIOS), {})
    assert isinstance(x0, Tensor)
    return max(float(((x0 - k) ** 2).max()) for k in range(plant.horizon))


def test_a_plant_without_a_price_charges_the_largest_step_of_constant_actions() -> None:
    plant = Tank()
    price = failure_price(lambda n: PlantSimulator(plant, n, price=0.0))
    assert price == pytest.approx(largest_step(plant), rel=1e-12)
    cost, status = episode(plant, 1.0)
    first = PlantSimulator(plant, 4).scenarios(noise.keys(7, 4)).x0
    assert isinstance(first, Tensor) and bool(failed(status).all())
    assert torch.allclose(cost, first[:, 0] ** 2 + 10 * price, rtol=1e-12)
    assert ComparisonSpec.bank == BANK


def test_a_stated_price_stands() -> None:
    plant = Tank(failure=3.0)
    assert failure_price(lambda n: PlantSimulator(plant, n)) == 3.0
    assert PlantSimulator(plant, 2, price=99.0).price() == 3.0


@pytest.mark.parametrize("sound", [True, False], ids=["terminated", "diverged"])
def test_breaking_never_wins(sound: bool) -> None:
    for plant in (Tank(sound=sound), Tank(Quadratic(name="far", on="z", weights=(5.0,)), sound=sound)):
        broken, alive = episode(plant, 1.0)[0], episode(plant, 0.0)[0]
        nothing = episode(plant, math.nan)[0]
        assert bool((broken > alive).all()) and bool((nothing > alive).all())


def test_the_price_is_the_same_for_every_row_and_every_batch() -> None:
    plant = Tank()
    alone, together = episode(plant, 1.0, 1)[0], episode(plant, 1.0, 8)[0]
    assert alone[0] == together[0]


def test_ends_that_are_rewarded_alive_earn_nothing_more() -> None:
    """A cost of -1 a step, as of gymnasium's CartPole: ending is free, so living longer is better."""
    plant = Tank(PiecewiseLinear(name="alive", on="z", index=0, points=((0.0, -1.0), (1.0, -1.0))))
    assert failure_price(lambda n: PlantSimulator(plant, n, price=0.0)) == 0.0
    assert episode(plant, 1.0)[0].tolist() == [-1.0] * 4 and episode(plant, 0.0)[0].tolist() == [-10.0] * 4


def test_a_terminal_cost_alone_has_a_price() -> None:
    plant = Tank(Quadratic(name="none", on="u", weights=(0.0,)), terminal=(LEVEL,))
    assert bool((episode(plant, 1.0)[0] > episode(plant, 0.0)[0]).all())


def test_costs_that_overflow_diverge_and_are_charged() -> None:
    plant = Tank(Quadratic(name="level", on="z", weights=(1e308,)))
    plant.objective = Objective((LEVEL, Quadratic(name="u", on="u", weights=(1e308,))), failure=2.0)
    plant.actions = ActionSet((-10.0,), (10.0,))
    sim = PlantSimulator(plant, 2)
    sim.reset(sim.scenarios(noise.keys(7, 2)))
    t = sim.step(torch.tensor([[-10.0], [0.0]], dtype=torch.float64))
    assert t.status.tolist() == [Status.DIVERGED, Status.OK] and t.cost[0] == 2.0 * 10
    assert sim.step(torch.zeros(2, 1, dtype=torch.float64)).cost[0] == 0.0, "an ended row costs nothing more"


@pytest.mark.parametrize("violation", [math.nan, math.inf])
def test_a_constraint_that_is_no_number_ends_its_row_at_a_price(violation: float) -> None:
    class Walled(Tank):
        constrained = ("wall",)

        def constraints(self, k: Tensor, x: Any, u: Tensor, p: dict[str, Tensor]) -> Tensor:
            return torch.where(u > 0.0, violation, 0.0)

    plant = Walled(failure=3.0)
    sim = PlantSimulator(plant, 2)
    sim.reset(sim.scenarios(noise.keys(7, 2)))
    t = sim.step(torch.tensor([[-0.1], [0.1]], dtype=torch.float64))
    assert t.status.tolist() == [Status.OK, Status.DIVERGED] and t.violation.tolist() == [0.0, 0.0]
    assert float(t.terms["failure"][1]) == 30.0


def test_plants_need_no_hash_and_equal_ones_share_no_price() -> None:
    @dataclass
    class Table(Tank):
        weight: float = field(compare=False)

        def __post_init__(self) -> None:
            Tank.__init__(self, Quadratic(name="level", on="z", weights=(self.weight,)))

    plants = Table(1.0), Table(10.0)
    assert plants[0] == plants[1]
    prices = [PlantSimulator(plant, 1).price() for plant in plants]
    costs = [float(episode(plant, 1.0)[0][0]) for plant in plants]
    assert prices[1] == pytest.approx(10 * prices[0]) and costs[1] == pytest.approx(10 * costs[0])


def test_a_terminal_cost_that_is_no_number_is_charged() -> None:
    plant = Tank(terminal=(Quadratic(name="end", on="z", weights=(1e308,)),), failure=2.0)
    cost, status = episode(plant, -1.0)
    assert bool((status == int(Status.DIVERGED)).all()) and bool(torch.isfinite(cost).all())


def test_without_any_finite_cost_there_is_no_price() -> None:
    plant = Tank(Quadratic(name="level", on="z", weights=(1e308,)))
    plant.initial = lambda key, p: torch.full((len(key), 1), 10.0, dtype=torch.float64)  # type: ignore[method-assign]
    sim = PlantSimulator(plant, 1)
    sim.reset(sim.scenarios(noise.keys(0, 1)))
    with pytest.raises(ValueError, match=r"a failure has no price.*Objective\(failure=\.\.\.\)"):
        sim.step(torch.zeros(1, 1, dtype=torch.float64))


def test_every_way_of_running_charges_the_same() -> None:
    plant, actions = Tank(), torch.tensor([[1.0], [0.0]])
    sim = PlantSimulator(plant, 2)
    sim.reset(sim.scenarios(torch.cat([noise.keys(3, 1), noise.keys(4, 1)])))
    wanted = sim.step(actions.double()).cost
    assert wanted[0] > 10 * sim.price() > wanted[1]
    venv = PlantVectorEnv(plant, 2)
    venv.reset(seed=3)
    _, reward, terminated, _, _ = venv.step(actions)
    assert terminated.tolist() == [True, False] and torch.equal(-reward, wanted)
    sb3 = SB3VecEnv(PlantVectorEnv(plant, 2))
    sb3.seed(3)
    sb3.reset()
    _, rewards, dones, _ = sb3.step(actions.numpy())
    assert dones.tolist() == [True, False] and -rewards == pytest.approx(wanted.numpy(), rel=1e-6)
    env = PlantEnv(plant)
    env.reset(seed=3)
    assert env.step(actions[0].numpy())[1] == -float(wanted[0])


def test_a_search_does_not_find_that_breaking_pays() -> None:
    from steersman.controllers.base import Training
    from steersman.controllers.registry import make_controller

    plant = Tank()
    law = make_controller("constant", candidates=9, scenarios=4).bind(PlantSimulator(plant, 1).problem)
    law.train(Training(lambda n: PlantSimulator(plant, n), seed=0))
    assert float(law.state_dict()["u"]) < 1.0


@given(st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(0, 1))
def test_weights_and_points_are_finite_numbers(wrong: float, place: int) -> None:
    weights = tuple(wrong if i == place else 1.0 for i in range(2))
    for kind in (Quadratic, Linear, L1, LInf):
        with pytest.raises(ValueError, match=r"term 'cost': weights must be finite numbers, got .*Limit"):
            kind(name="cost", on="z", weights=weights)
    with pytest.raises(ValueError, match="points must be finite numbers"):
        PiecewiseLinear(name="cost", on="z", index=0, points=((0.0, weights[0]), (1.0, weights[1])))
    with pytest.raises(ValueError, match="finite non-negative"):
        Objective((LEVEL,), failure=wrong)


def test_terms_of_one_name_are_refused_since_one_would_vanish() -> None:
    with pytest.raises(ValueError, match="terms need names of their own, got level, level"):
        Objective((LEVEL, Quadratic(name="level", on="u", weights=(1.0,))))
