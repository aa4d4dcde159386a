"""Plants on grids: what their scenarios say, outputs and limits, grids from files, bad input."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from steersman.envs import make_simulator, noise
from steersman.envs.checks import check_plant
from steersman.envs.grid.events import Fault, GeneratorTrip
from steersman.envs.grid.tasks.ieee39 import IEEE39, tiled
from steersman.envs.grid.tasks.line_faults import GridFile
from steersman.envs.grid.tasks.two_area_full import LOWEST, TwoAreaBrakeFull, TwoAreaDamping, TwoAreaFrequency
from steersman.envs.plant import Plant, Status
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import PlantSimulator

DATA = Path(__file__).parent / "data"


def run(plant: Plant, scenarios: Scenarios, u: torch.Tensor, steps: int) -> PlantSimulator:
    simulator = PlantSimulator(plant, len(scenarios))
    simulator.reset(scenarios)
    for _ in range(steps):
        simulator.step(u.expand(len(scenarios), -1))
    return simulator


def test_shedding_stays_shed_and_storage_runs_empty() -> None:
    plant = TwoAreaFrequency()
    simulator = PlantSimulator(plant, 2)
    scenarios = simulator.scenarios(noise.keys(0, 2))
    u = torch.tensor([[3.0, 0.0, 1.5, 0.0]], dtype=torch.float64)
    after = run(plant, scenarios, u, 40)
    assert isinstance(after.x, dict)
    assert after.x["shed"].tolist() == [[3.0, 0.0]] * 2
    assert after.x["energy"][:, 0].tolist() == pytest.approx([0.0, 0.0], abs=1e-9)  # 10 pu s at 1.5 pu last 6.7 s
    assert after.x["energy"][:, 1].tolist() == [10.0, 10.0]
    after.step(torch.zeros(2, 4, dtype=torch.float64))
    assert after.x["shed"].tolist() == [[3.0, 0.0]] * 2


def test_shedding_keeps_the_frequency_up() -> None:
    plant = TwoAreaFrequency()
    key = noise.keys(5, 16)
    scenarios = PlantSimulator(plant, 16).scenarios(key)
    lowest = []
    for blocks in (0.0, 6.0):
        simulator = PlantSimulator(plant, 16)
        simulator.reset(scenarios)
        u, nadir = torch.tensor([[blocks, blocks, 0.0, 0.0]], dtype=torch.float64).expand(16, -1), torch.zeros(16)
        for _ in range(40):
            simulator.step(u)
            nadir = torch.minimum(nadir, simulator.perform()[:, 4])
        lowest.append(nadir)
    assert (lowest[0] < LOWEST).any() and (lowest[1] > LOWEST).all()


def test_damping_scenarios_swing_lightly_damped() -> None:
    """Left alone the swing between the areas goes on: amplitude falls by less than half in 4 s."""
    plant = TwoAreaDamping()
    simulator = PlantSimulator(plant, 8)
    simulator.reset(simulator.scenarios(noise.keys(2, 8)))
    apart = []
    for _ in range(plant.horizon):
        t = simulator.step(torch.zeros(8, 4, dtype=torch.float64))
        z = simulator.perform()
        apart.append(z[:, :2].mean(dim=1) - z[:, 2:4].mean(dim=1))
    assert (t.status == Status.OK).all()
    series = torch.stack(apart).abs()
    early, late = series[40:80].amax(dim=0), series[120:160].amax(dim=0)
    assert (early > 0.02).all()
    assert (late / early > 0.3).all() and (late < early).all()


def test_scenarios_have_one_shape_whatever_happens_in_them() -> None:
    # Half of the scenarios lose a circuit: alone, a row without that has the same edges, one of them never.
    simulator = PlantSimulator(TwoAreaDamping(), 8)
    key = noise.keys(7, 8)
    whole = simulator.scenarios(key)
    calm = torch.isinf(whole.p["edges"]).any(dim=1)
    assert 0 < int(calm.sum()) < 8
    simulator.reset(whole)
    for mask in (calm, ~calm):  # resets of some rows, as vector environments do them
        simulator.reset(simulator.scenarios(key, mask), mask)
        assert torch.equal(simulator.p["edges"], whole.p["edges"])


def test_a_row_does_not_hang_on_what_its_neighbours_do() -> None:
    # Brakes on everywhere: were equal networks shared, a fourth row that is off would change the last bit of the rest.
    plant = TwoAreaBrakeFull()
    start = PlantSimulator(plant, 4).scenarios(noise.keys(2, 4))
    found = []
    for last in (1.0, 0.0, math.nan):
        simulator = PlantSimulator(plant, 4)
        simulator.reset(start)
        for _ in range(3):
            simulator.step(torch.tensor([[1.0], [1.0], [1.0], [last]], dtype=torch.float64))
        found.append(simulator.x)
    assert all(torch.equal(x[:3], found[0][:3]) for x in found[1:])


def test_faults_before_an_episode_take_steps_of_their_own() -> None:
    plant = TwoAreaBrakeFull()
    duration = torch.tensor([0.0, 0.1, 0.4711, 0.53], dtype=torch.float64)
    together = plant.faulted(duration)["start"]
    for i in range(4):
        alone = plant.faulted(duration[i : i + 1])["start"]
        assert torch.allclose(together[i], alone[0], rtol=1e-12, atol=1e-12)
    calm = plant.scenario(torch.ones(1, dtype=torch.float64), ())["start"][0]
    assert torch.allclose(together[0], calm, rtol=1e-12, atol=1e-12)


def test_a_tripped_unit_is_no_loss_of_synchronism() -> None:
    plant = TwoAreaDamping()
    one = torch.ones(2, dtype=torch.float64)
    p = plant.scenario(one, [GeneratorTrip(3, torch.tensor([0.5, math.inf], dtype=torch.float64))])
    after = run(plant, Scenarios(noise.keys(0, 2), p, p["start"].clone()), torch.zeros(1, 4).double(), 100)
    assert after.measure().k.tolist() == [100, 100]
    angle = plant.system.angles(after.x.T)
    assert float(angle[3, 0] - angle[0, 0]) > math.pi  # the tripped rotor has run away


def test_brake_starts_as_its_fault_clears() -> None:
    plant = TwoAreaBrakeFull()
    duration = torch.tensor([0.47, 0.5], dtype=torch.float64)
    cleared = plant.faulted(duration)["start"]
    during = plant.scenario(torch.ones(2, dtype=torch.float64), [Fault(7, 0.0, duration)])
    # The same fault inside an episode: after 0.4 s on the grid and the rest of it.
    x = during["start"]
    k = torch.zeros(2, dtype=torch.int64)
    for j in range(4):
        x = plant.step(k + j, x, torch.zeros(2, 1, dtype=torch.float64), k, during)
    assert (cleared[:, 4:8] > x[:, 4:8]).all() and (cleared[:, 4:8] - x[:, 4:8] < 0.01).all()


def test_grid_from_files_is_a_plant() -> None:
    check_plant(GridFile(str(DATA / "kundur.raw"), str(DATA / "kundur_full.dyr")), steps=2)


def test_files_in_a_comparison() -> None:
    paths = {"network": str(DATA / "kundur.raw"), "machines": str(DATA / "kundur_full.dyr")}
    simulator = make_simulator("steersman.envs.grid.tasks.line_faults:GridFile", 2, **paths)
    simulator.reset(simulator.scenarios(noise.keys(0, 2)))
    assert simulator.step(torch.zeros(2, 4, dtype=torch.float64)).cost.isfinite().all()


def test_bad_files() -> None:
    with pytest.raises(ValueError, match=r"network must be a \.m or a \.raw file"):
        GridFile("grid.txt", "grid.dyr")
    for network, machines, name in (("no.m", DATA / "kundur_full.dyr", "network"), ("no.raw", "no.dyr", "network"),
                                    (DATA / "kundur.raw", "no.dyr", "machines")):  # fmt: skip
        with pytest.raises(ValueError, match=rf"^{name}: there is no file no\.\w+ \(looked for in /"):
            GridFile(str(network), str(machines))
    with pytest.raises(ValueError, match="dt must divide the control period"):
        IEEE39(dt=0.03)


def test_tiled_grids_have_the_operating_point_of_one() -> None:
    V = tiled(3).operate(torch.ones(1, dtype=torch.float64)).V[0].abs().numpy()
    assert len(V) == 117
    assert np.abs(V.reshape(3, 39) - V[:39]).max() < 1e-5
    with pytest.raises(ValueError, match="copies must be at least 1"):
        tiled(0)
