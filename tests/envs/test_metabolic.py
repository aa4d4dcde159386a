import numpy as np
import pytest
import torch

from steersman.envs import noise
from steersman.envs.abm.metabolic import CELLS, ENZYMES, FIRST, MEMORY, PRODUCT, SECOND, SUBSTRATE, Metabolic
from steersman.envs.checks import check_plant
from steersman.envs.plant import Status
from steersman.envs.simulator import PlantSimulator


def begin(plant: Metabolic, n: int, **rates: float):
    key = noise.keys(0, n)
    p = plant.params(key)
    for name, value in rates.items():
        p[name] = torch.full_like(p[name], value)
    return key, p, plant.initial(key, p)


def run(plant: Metabolic, key, p, x, feed: float, steps: int):
    for j in range(steps):
        k = torch.full((len(key),), j)
        u = torch.full((len(key), 1), feed, dtype=torch.float64)
        x = plant.step(k, x, u, plant.disturbance(key, k), p)
    return x


def counts(x) -> torch.Tensor:
    return torch.stack([(x["kind"] == i).sum(1) for i in range(5)], dim=1)


def test_contract_and_rows_bitwise_independent() -> None:
    check_plant(Metabolic(hold=4, horizon=5), steps=3, tolerance=0.0)


def test_molecules_are_conserved_without_losses() -> None:
    plant = Metabolic(hold=10, horizon=10)
    key, p, x = begin(plant, 3, harvest=0.0, wash=0.0)
    after = run(plant, key, p, x, 2.0, 5)
    assert torch.equal(counts(after)[:, 1:].sum(1), counts(x)[:, 1:].sum(1) + 100)
    assert bool((after["made"] < x["made"]).all()) and bool((counts(after)[:, PRODUCT] > counts(x)[:, PRODUCT]).all())


def test_nothing_happens_without_conversion_but_feeding() -> None:
    plant = Metabolic(hold=10, horizon=10)
    key, p, x = begin(plant, 3, convert=0.0, harvest=0.0, wash=0.0)
    after = run(plant, key, p, x, 1.0, 2)
    change = counts(after)[:, 1:] - counts(x)[:, 1:]
    assert torch.equal(change, torch.tensor([[20, 0, 0, 0]]).expand(3, 4))
    bound = after["bound"]
    assert bool((after["kind"][bound] == PRODUCT).all()) and bool(bound.any())
    assert bool((p["enzyme"].gather(1, after["cell"])[bound] == 1).all()), "products bind the first enzyme only"
    one = torch.zeros(3, CELLS).scatter_add(1, after["cell"], bound.float())
    assert int(one.max()) == 1, "an enzyme binds one product"


def test_one_conversion_of_an_enzyme_in_a_tick() -> None:
    plant = Metabolic(hold=1, horizon=3)
    key, p, x = begin(plant, 4, convert=1.0, harvest=0.0, wash=0.0)
    x = x | {"cell": torch.zeros_like(x["cell"])}
    p["enzyme"] = torch.full_like(p["enzyme"], FIRST)
    before, after = counts(x), counts(run(plant, key, p, x, 0.0, 1))
    assert torch.equal(after[:, FIRST] - before[:, FIRST], before[:, SECOND] - after[:, SECOND])
    moved_to = 5  # the molecules of one cell reach five cells, each with one enzyme
    assert (
        bool(((after[:, SECOND] - before[:, SECOND]) > 0).all())
        and int((after[:, SECOND] - before[:, SECOND]).max()) <= moved_to
    )


def test_dilute_kinetics_follow_the_well_mixed_rate() -> None:
    """Rare conversions of few molecules: ``rate = convert * ENZYMES / CELLS`` each tick, and no saturation."""
    plant = Metabolic(hold=10, horizon=40)
    key, p, x = begin(plant, 256, convert=0.05, harvest=1.0, wash=0.0)
    start, after = counts(x).double().mean(0), counts(run(plant, key, p, x, 0.0, 40)).double().mean(0)
    rate = 0.05 * ENZYMES / CELLS
    want = start[SUBSTRATE] * (1 - rate) ** 400
    assert abs(float(after[SUBSTRATE] / want) - 1) < 0.06
    assert float(after[FIRST]) > 0


def test_the_product_inhibits_its_own_making() -> None:
    plant = Metabolic(hold=10, horizon=30)
    made = []
    for release in (1.0, 0.002):
        key, p, x = begin(plant, 16, release=release)
        made.append(float(run(plant, key, p, x, 2.0, 25)["made"].mean()))
    assert made[1] < 0.8 * made[0], made


def test_augmented_flows() -> None:
    plant = Metabolic(hold=5, horizon=20)
    key, p, x = begin(plant, 2, convert=0.0, wash=0.0, harvest=0.0)
    after = run(plant, key, p, x, 0.0, 3)
    torch.testing.assert_close(after["made"], x["made"] * (1 - 1 / MEMORY) ** 15)
    z = plant.perform(torch.zeros(2, dtype=torch.int64), after, p)
    torch.testing.assert_close(z[:, 1], torch.full((2,), 0.2, dtype=torch.float64))


def test_overflow_ends_its_row_alone() -> None:
    plant = Metabolic(hold=10, horizon=40, capacity=360)
    sim = PlantSimulator(plant, 6)
    sim.reset(sim.scenarios(noise.keys(4, 6)))
    feed = torch.zeros(6, 1, dtype=torch.float64)
    feed[:3] = 4.0
    for _ in range(20):
        status = sim.step(feed).status
    assert (status[:3] == Status.VIOLATED).all() and (status[3:] == Status.OK).all()
    assert bool(torch.isfinite(sim.measure().y).all())


def test_demand_switches_or_is_held() -> None:
    key = noise.keys(0, 8)
    for switching in (True, False):
        plant = Metabolic(switching=switching)
        p = plant.params(key)
        r = torch.stack([plant.reference(torch.full((8,), k), p)[:, 0] for k in range(61)])
        assert ((r.diff(dim=0) != 0).sum(0) >= 2).all() if switching else (r == r[0]).all()
        assert r.min() >= 0.4 and r.max() <= 1.2


def test_render_and_bad_arguments() -> None:
    sim = PlantSimulator(Metabolic(horizon=4), 1)
    sim.reset(sim.scenarios(noise.keys(0, 1)))
    trail = sim.record()
    u = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(2):
        sim.step(u)
        sim.record(trail, u)
    image = sim.plant.render(trail)  # type: ignore[union-attr]
    assert image.dtype == np.uint8 and image.shape == (520, 960, 3) and int(image.std()) > 10
    with pytest.raises(ValueError, match="capacity must be at least 320"):
        Metabolic(capacity=10)
