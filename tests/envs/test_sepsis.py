import numpy as np
import pytest
import torch

from steersman.envs import noise
from steersman.envs.abm.sepsis import CELLS, DEATH, LIFE, PHAGOCYTE, REGULATOR, RESIDENT, Sepsis
from steersman.envs.checks import check_plant
from steersman.envs.plant import Status
from steersman.envs.simulator import PlantSimulator


def begin(n: int, **rates: float):
    plant = Sepsis()
    key = noise.keys(0, n)
    p = plant.params(key)
    p |= {name: torch.full_like(p[name], value) for name, value in rates.items()}
    return plant, key, p, plant.initial(key, p)


def run(plant: Sepsis, key, p, x, steps: int, u=(0.0, 0.0)):
    for j in range(steps):
        k = torch.full((len(key),), j)
        action = torch.tensor(u, dtype=torch.float64).expand(len(key), 2)
        x = plant.step(k, x, action, plant.disturbance(key, k), p)
    return x


def healthy(x):
    return x | {name: torch.zeros_like(x[name]) for name in ("infection", "damage")}


def test_contract_and_rows_bitwise_independent() -> None:
    check_plant(Sepsis(hold=4, horizon=5), steps=3, tolerance=0.0)


def test_health_stays_and_keeps_its_cells() -> None:
    plant, key, p, x = begin(64)
    after = run(plant, key, p, healthy(x), 30)
    for name in ("infection", "damage", "pro", "anti"):
        assert float(after[name].abs().max()) == 0.0
    for who, mean in zip((PHAGOCYTE, REGULATOR), RESIDENT, strict=True):
        found = (after["kind"] == who).sum(1).double()
        # Stays are geometric with mean LIFE and arrivals nearly regular, so the number varies less than Poisson's.
        assert abs(float(found.mean()) - mean) < 4 * (mean / 64) ** 0.5
    assert LIFE < 300


def test_infection_without_cells_wins_and_growth_is_logistic() -> None:
    plant, key, p, x = begin(4, recruit=0.0, growth=0.1, toxicity=0.0)
    x = x | {"kind": torch.zeros_like(x["kind"]), "infection": torch.full_like(x["infection"], 0.05)}
    x["damage"] = torch.zeros_like(x["damage"])
    want = torch.full((4,), 0.05, dtype=torch.float64)
    for _ in range(10):
        want = want + 0.1 * want * (1 - want)
    found = run(plant, key, p, x, 1)["infection"]
    # A few cells have come in and thin it out around them; most sites have not met one.
    assert float(((found - want[:, None, None]).abs() < 1e-3).double().mean()) > 0.6


def test_the_burst_hurts_and_kills_bacteria() -> None:
    damage, infection = [], []
    for burst, kill in ((0.0, 0.0), (0.3, 0.0), (0.0, 0.9)):
        plant, key, p, x = begin(8, burst=burst, kill=kill, toxicity=0.01)
        z = plant.perform(torch.zeros(8).long(), run(plant, key, p, x, 10), p).mean(0)
        damage.append(float(z[0]))
        infection.append(float(z[1]))
    assert damage[1] > 1.5 * damage[0] and infection[2] < 0.5 * infection[0]


def test_therapy_moves_the_signals_and_some_patients_live_by_it() -> None:
    dead, signals = {}, {}
    for u in ((0.0, 0.0), (-1.0, 0.0), (0.0, 2.0)):
        sim = PlantSimulator(Sepsis(), 48)
        sim.reset(sim.scenarios(noise.keys(0, 48)))
        action = torch.tensor(u, dtype=torch.float64).expand(48, 2)
        for k in range(60):
            status = sim.step(action).status
            if k == 4:
                signals[u] = sim.measure().y[:, :2].mean(0)
        dead[u] = float((status == Status.TERMINATED).double().mean())
    assert 0.35 < dead[0.0, 0.0] < 0.7 and dead[-1.0, 0.0] < 0.7 * dead[0.0, 0.0], dead
    assert signals[-1.0, 0.0][0] < 0.8 * signals[0.0, 0.0][0] and signals[0.0, 2.0][1] > 2 * signals[0.0, 0.0][1]


def test_death_ends_the_row() -> None:
    plant, _, p, x = begin(2)
    x["damage"][0] = DEATH + 0.01
    assert plant.status(torch.zeros(2).long(), x, p).tolist() == [Status.TERMINATED, Status.OK]
    assert x["cell"].max() < CELLS


def test_render_and_bad_arguments() -> None:
    sim = PlantSimulator(Sepsis(horizon=4), 1)
    sim.reset(sim.scenarios(noise.keys(0, 1)))
    trail = sim.record()
    u = torch.ones(1, 2, dtype=torch.float64)
    for _ in range(3):
        sim.step(u)
        sim.record(trail, u)
    image = sim.plant.render(trail)  # type: ignore[union-attr]
    assert image.dtype == np.uint8 and int(image.std()) > 10
    with pytest.raises(ValueError, match="capacity must be at least 80"):
        Sepsis(capacity=3)
