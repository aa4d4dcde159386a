import numpy as np
import pytest
import torch

from steersman.envs import noise
from steersman.envs.abm.car_t import ADD, CELLS, REMOVE, SKIP, CarT
from steersman.envs.checks import check_plant
from steersman.envs.simulator import PlantSimulator


def choose(action: int, n: int) -> torch.Tensor:
    u = torch.zeros(n, 3, dtype=torch.float64)
    u[:, action] = 1.0
    return u


def play(plant: CarT, n: int, plan: dict[int, int], steps: int) -> tuple[PlantSimulator, torch.Tensor]:
    sim = PlantSimulator(plant, n)
    sim.reset(sim.scenarios(noise.keys(0, n)))
    cost = torch.zeros(n, dtype=torch.float64)
    for k in range(steps):
        cost = cost + sim.step(choose(plan.get(k, SKIP), n)).cost
    return sim, cost


def test_contract_and_rows_bitwise_independent() -> None:
    check_plant(CarT(hold=8, horizon=5), steps=3, tolerance=0.0)


def test_cells_exclude_each_other_and_are_kept() -> None:
    sim, _ = play(CarT(division=0.02), 8, {0: ADD, 1: ADD, 2: ADD, 6: REMOVE}, 40)
    x = sim.x
    here = torch.zeros(8, CELLS).scatter_add(1, x["cell"], x["alive"].float())  # type: ignore[call-overload, index]
    assert int(here.max()) == 1
    assert bool((x["alive"].sum(1) > 24).any())  # type: ignore[call-overload, index]


def test_beads() -> None:
    sim, _ = play(CarT(hold=1), 4, {0: ADD}, 1)
    beads = sim.x["bead"].sum(1)  # type: ignore[call-overload, index]
    assert bool((beads <= 10).all()) and bool((beads >= 8).all())
    sim.step(choose(REMOVE, 4))
    assert int(sim.x["bead"].sum()) == 0  # type: ignore[call-overload, index]


def test_no_bead_no_activation_and_no_division() -> None:
    plant = CarT(division=0.1)
    sim, cost = play(plant, 4, {}, 50)
    assert not bool(sim.x["active"].any())  # type: ignore[call-overload, index]
    assert torch.equal(sim.x["alive"].sum(1), sim.scenarios(noise.keys(0, 4)).p["start"])  # type: ignore[call-overload, index]
    assert torch.equal(cost, torch.full((4,), 50 * 0.8 + 400.0, dtype=torch.float64))


def test_potency_falls_on_beads_and_hardly_elsewhere() -> None:
    plant = CarT(hold=10, horizon=5)
    key = noise.keys(0, 2)
    p = plant.params(key)
    x = plant.initial(key, p)
    x = x | {"active": x["alive"].clone(), "potency": x["alive"].double()}  # type: ignore[operator, call-overload, index]
    x["bead"][0] = True  # type: ignore[call-overload, index]
    k = torch.zeros(2, dtype=torch.int64)
    after = plant.step(k, x, choose(SKIP, 2), plant.disturbance(key, k), p)
    for row, loss in ((0, 1 / 25), (1, 1 / 40000)):
        potency = after["potency"][row][x["alive"][row]]  # type: ignore[call-overload, index]
        torch.testing.assert_close(potency, torch.full_like(potency, 1 - 10 * loss))
    spoilt = plant.step(
        k, after | {"potency": 0.06 * x["alive"].double()}, choose(SKIP, 2), plant.disturbance(key, k), p
    )  # type: ignore[operator, call-overload, index]
    assert float(spoilt["potency"][0][x["alive"][0]].min()) == 0.05  # type: ignore[call-overload, index]


def test_division_only_inside_the_age_window() -> None:
    plant = CarT(hold=40, horizon=50, division=0.5)
    key = noise.keys(0, 8)
    p = plant.params(key)
    x = plant.initial(key, p)
    grown = x | {"active": x["alive"].clone(), "potency": x["alive"].double()}  # type: ignore[operator, call-overload, index]
    k = torch.zeros(8, dtype=torch.int64)
    for age, divides in ((0, False), (570, True), (900, False)):
        start = grown | {"age": torch.full_like(x["age"], age)}  # type: ignore[call-overload, index]
        after = plant.step(k, start, choose(SKIP, 8), plant.disturbance(key, k), p)
        more = after["alive"].sum() > x["alive"].sum()  # type: ignore[call-overload, index]
        assert bool(more) == divides
    assert torch.equal(after["age"][x["alive"]], torch.full_like(after["age"][x["alive"]], 940))  # type: ignore[call-overload, index]


def test_children_share_the_potency_of_their_mothers() -> None:
    plant = CarT(hold=60, horizon=50, division=0.5)
    key = noise.keys(3, 4)
    p = plant.params(key)
    x = plant.initial(key, p)
    potency = torch.where(x["alive"], 0.5, 0.0).double()  # type: ignore[call-overload, index]
    start = x | {"active": x["alive"].clone(), "potency": potency, "age": torch.full_like(x["age"], 570)}  # type: ignore[operator, call-overload, index]
    k = torch.zeros(4, dtype=torch.int64)
    after = plant.step(k, start, choose(SKIP, 4), plant.disturbance(key, k), p)
    born = after["alive"] & ~x["alive"]  # type: ignore[call-overload, index]
    assert bool(born.any()) and bool(after["active"][born].all())  # type: ignore[call-overload, index]
    torch.testing.assert_close(after["potency"][born], torch.full((int(born.sum()),), 0.5).double(), atol=0.002, rtol=0)  # type: ignore[call-overload, index]
    assert int(after["age"][born].max()) < 60  # type: ignore[call-overload, index]


def test_activating_and_stopping_pays() -> None:
    costs = [
        float(play(CarT(), 16, plan, 50)[1].mean())
        for plan in ({}, {**dict.fromkeys(range(6), ADD), 8: REMOVE}, dict.fromkeys(range(50), ADD))
    ]
    assert costs[1] < 0.8 * costs[0] and costs[2] > 0.95 * costs[0], costs


def test_overflow_is_flagged() -> None:
    sim, _ = play(CarT(division=0.5, capacity=24), 8, dict.fromkeys(range(6), ADD) | {8: REMOVE}, 40)
    assert bool((sim.plant.status(torch.zeros(8).long(), sim.x, {}) == 2).any())  # type: ignore[union-attr]
    assert bool(torch.isfinite(sim.measure().y).all())


def test_render_and_bad_arguments() -> None:
    sim = PlantSimulator(CarT(hold=4, horizon=4), 1)
    sim.reset(sim.scenarios(noise.keys(0, 1)))
    trail = sim.record()
    for action in (ADD, SKIP, REMOVE):
        sim.step(choose(action, 1))
        sim.record(trail, choose(action, 1))
    image = sim.plant.render(trail)  # type: ignore[union-attr]
    assert image.dtype == np.uint8 and int(image.std()) > 10
    with pytest.raises(ValueError, match="division must be a probability"):
        CarT(division=float("nan"))
