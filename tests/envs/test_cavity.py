from pathlib import Path

import numpy as np
import pytest
import torch

from steersman.controllers.registry import make_controller
from steersman.controllers.rollout import run_episodes
from steersman.dynamics.truth.plant_model import PlantModel
from steersman.envs import noise
from steersman.envs.checks import check_plant
from steersman.envs.pde.cavity import SIDE, SPACING, CavityFlow, _pressure, advance, target
from steersman.envs.simulator import PlantSimulator


def sweeps(p: np.ndarray, source: np.ndarray, count: int) -> np.ndarray:
    """Jacobi sweeps as a loop, in place of the affine map."""
    for _ in range(count):
        q = p.copy()
        q[1:-1, 1:-1] = (p[1:-1, :-2] + p[:-2, 1:-1] + p[1:-1, 2:] + p[2:, 1:-1] - SPACING**2 * source[1:-1, 1:-1]) / 4
        q[:, -1], q[0], q[:, 0], q[-1] = q[:, -2], q[0], q[:, 0], q[-1]
        q[0] = q[1]
        q[:, 0] = q[:, 1]
        q[-1] = q[-2]
        p = q
    return p


def test_contract() -> None:
    check_plant(CavityFlow(), steps=3, tolerance=1e-9)


@pytest.mark.parametrize("count", [1, 7, 2000])
def test_the_affine_map_equals_the_sweeps(count: int) -> None:
    generator = np.random.default_rng(0)
    p, source = np.pad(generator.normal(size=(SIDE - 2, SIDE - 2)), 1, mode="edge"), generator.normal(size=(SIDE, SIDE))
    onto, back, made = _pressure(count)
    inside = (torch.tensor(f[1:-1, 1:-1]).reshape(1, -1) for f in (p, source))
    found = next(inside) @ onto @ back + next(inside) @ made
    swept = sweeps(p, source, count)
    assert np.abs(found.reshape(SIDE - 2, SIDE - 2).numpy() - swept[1:-1, 1:-1]).max() < 1e-11
    assert np.array_equal(swept, np.pad(swept[1:-1, 1:-1], 1, mode="edge")), "walls copy their neighbours"


def test_the_lid_drives_a_vortex_and_the_projection_works() -> None:
    rest = torch.zeros(1, SIDE, SIDE, dtype=torch.float64)
    x = {"u": rest, "v": rest, "p": rest}
    for _ in range(400):
        x = advance(x, torch.full((1,), 2.0).double())
    assert bool((x["u"][0, -1, 1:-1] == 2).all()) and not bool(x["u"][0, 0].any())
    assert float(x["u"][0, 5:12, 10].min()) < -0.05, "the flow returns below the lid"
    east, north = x["u"][0, :, 2:] - x["u"][0, :, :-2], x["v"][0, 2:] - x["v"][0, :-2]
    gap = ((east[1:-1] + north[:, 1:-1]) / (2 * SPACING))[2:-2, 2:-2]
    assert float(gap.abs().max()) < 0.1 * 2 / SPACING / 10


def test_no_lid_speed_is_right_for_all_starts_and_the_adjoint_finds_better() -> None:
    plant = CavityFlow()
    plant.horizon = 50
    simulator = PlantSimulator(plant, 4)
    scenarios = simulator.scenarios(noise.keys(0, 4))
    costs = []
    for name in ("zero", "adjoint"):
        settings = {} if name == "zero" else {"iterations": 5}
        controller = make_controller(name, **settings).bind(plant.problem, PlantModel(plant))
        controller.reset(4)
        costs.append(run_episodes(simulator, scenarios, lambda m, c=controller: c.act(m).u, controller.preview).cost)
    assert bool((costs[1] < costs[0]).all())


def test_the_stored_flow_costs_nothing_but_the_lid() -> None:
    plant = CavityFlow()
    flow = target()
    assert flow.shape == (200, 2 * SIDE * SIDE)
    k = torch.tensor([0, 0])
    x = plant.initial(noise.keys(0, 2), {})
    torch.testing.assert_close(plant.perform(k, x, {}), plant.reference(k, {}))
    assert not torch.equal(plant.perform(k + 1, x, {}), plant.reference(k + 1, {}))


def test_a_stored_flow_of_your_own_is_followed(tmp_path: Path) -> None:
    ours = target().reshape(200, 2, SIDE, SIDE).numpy() * (2 * SIDE * SIDE) ** 0.5
    np.savez(tmp_path / "target.npz", u=ours[:, 0] + 1, v=ours[:, 1])
    plant, key = CavityFlow(tmp_path / "target.npz"), noise.keys(0, 1)
    shifted = plant.reference(key * 0 + 7, {}) - CavityFlow().reference(key * 0 + 7, {})
    assert float(shifted.square().sum()) == pytest.approx(0.5)  # |1|^2 over 441 of 882 values
    with pytest.raises(ValueError, match="is no file"):
        CavityFlow(tmp_path / "none.npz")
    np.savez(tmp_path / "bad.npz", u=ours[:, 0], w=ours[:, 1])
    with pytest.raises(ValueError, match=r"lacks the arrays \['v'\]"):
        CavityFlow(tmp_path / "bad.npz")
    np.savez(tmp_path / "short.npz", u=ours[:9, 0], v=ours[:9, 1])
    with pytest.raises(ValueError, match="at least 200"):
        CavityFlow(tmp_path / "short.npz")


def test_one_schedule_for_all_starts_lies_between_a_constant_and_the_oracle() -> None:
    """The peer's own task is nearly solved by one schedule; so is ours, as far as its starts allow."""
    plant = CavityFlow()
    plant.horizon = 30
    simulator = PlantSimulator(plant, 3)
    scenarios = simulator.scenarios(noise.keys(1, 3))
    costs = []
    for settings in ({"iterations": 1, "shared": True}, {"iterations": 4, "shared": True}, {"iterations": 4}):
        controller = make_controller("adjoint", **settings).bind(plant.problem, PlantModel(plant))
        controller.reset(3)
        costs.append(run_episodes(simulator, scenarios, lambda m, c=controller: c.act(m).u, controller.preview).cost)
    assert float(costs[1].mean()) < float(costs[0].mean())
    assert float(costs[2].mean()) < float(costs[1].mean())


def test_render() -> None:
    sim = PlantSimulator(CavityFlow(), 1)
    sim.reset(sim.scenarios(noise.keys(0, 1)))
    trail = sim.record()
    for _ in range(3):
        sim.step(torch.ones(1, 1, dtype=torch.float64))
        sim.record(trail, torch.ones(1, 1, dtype=torch.float64))
    image = sim.plant.render(trail)  # type: ignore[union-attr]
    assert image.dtype == np.uint8 and int(image.std()) > 10
