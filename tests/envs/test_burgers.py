"""Burgers' equation on an interval: both schemes, their orders, and the tasks built on them."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from steersman.controllers.base import Training
from steersman.controllers.registry import make_controller
from steersman.controllers.rollout import run_episodes
from steersman.dynamics.registry import make_model
from steersman.dynamics.truth.plant_model import PlantModel
from steersman.envs import noise
from steersman.envs.checks import check_plant
from steersman.envs.pde.burgers import BurgersNotebookCompat, BurgersOpenLoop, BurgersTracking, forces, starts
from steersman.envs.pde.finite_volume import Burgers, godunov, van_leer
from steersman.envs.registry import make_plant
from steersman.envs.simulator import PlantSimulator

F64 = torch.float64


def exact(x: Tensor, t: float, nu: float) -> Tensor:
    """Cole and Hopf with ``phi = 2 + exp(-nu pi^2 t) cos(pi x)``: zero at both ends."""
    decay = math.exp(-nu * math.pi**2 * t)
    return 2 * nu * math.pi * decay * torch.sin(math.pi * x) / (2 + decay * torch.cos(math.pi * x))


@pytest.mark.parametrize("scheme", ["central", "heun", "limited"])
def test_order_in_space(scheme: str) -> None:
    nu, errors = 0.1, []
    for points in (32, 64, 128) if scheme == "limited" else (31, 63, 127):
        equation = Burgers(points, nu, 1e-5, scheme)  # type: ignore[arg-type]
        after = equation.run(exact(equation.grid, 0.0, nu)[None], torch.zeros(1, points, dtype=F64), 2000)
        errors.append(float((after[0] - exact(equation.grid, 0.02, nu)).abs().mean()))
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.35), errors


@pytest.mark.parametrize(("scheme", "order"), [("central", 1), ("heun", 2), ("limited", 2)])
def test_order_in_time(scheme: str, order: int) -> None:
    errors, fine = [], 1600
    for substeps in (fine, 80, 160):
        equation = Burgers(128, 0.01, 0.1 / substeps, scheme)  # type: ignore[arg-type]
        key = noise.keys(1, 4)
        after = equation.run(starts(equation.grid, key), forces(equation.grid, key, 1)[:, 0], substeps)
        if substeps == fine:
            reference = after
        else:
            errors.append(float((after - reference).abs().mean()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2), errors


def test_steps_of_the_second_version_are_accurate_and_each_scheme_has_stable_ones() -> None:
    first, second, fine = (make_plant(f"BurgersTracking-{v}", **kw) for v, kw in (
        ("v1", {}), ("v2", {}), ("v2", {"substeps": 400})
    ))  # fmt: skip
    key = noise.keys(2026, 4)
    ways = [plant.params(key)["target"][:, :20] for plant in (first, second, fine)]
    size = ways[2].square().mean().sqrt()
    far, near = (float((way - ways[2]).square().mean().sqrt() / size) for way in ways[:2])
    assert near < 2e-4 and far > 4e-3
    assert BurgersTracking(scheme="limited").hold == 80 and first.hold == second.hold == 40


def test_mass_is_conserved_but_for_the_ends() -> None:
    equation = Burgers(64, 0.0, 1e-3, "limited")
    u = torch.exp(-0.5 * ((equation.grid - 0.4) / 0.05) ** 2)[None]
    after = equation.run(u, torch.zeros_like(u), 100)
    assert float((after.sum() - u.sum()).abs()) / 64 < 1e-10


def test_a_shock_keeps_its_speed_and_does_not_ring() -> None:
    """Between 1 and 0.2 a shock moves at 0.6 (Rankine and Hugoniot); no new extremum appears."""
    equation = Burgers(200, 0.0, 1e-3, "limited")
    u = torch.where((equation.grid > 0.2) & (equation.grid < 0.4), 1.0, 0.2)[None].to(F64)
    after = equation.run(u, torch.zeros_like(u), 200)[0]
    assert float(after.max()) <= 1 + 1e-9
    front = float(equation.grid[(after[60:180] > 0.6).nonzero()[-1, 0] + 60])
    assert front == pytest.approx(0.4 + 0.6 * 0.2, abs=0.01)


def test_flux_and_limiter() -> None:
    a, b = torch.tensor([1.0, -1.0, 1.0, -1.0, 2.0]), torch.tensor([2.0, -2.0, -2.0, 2.0, -1.0])
    assert godunov(a, b).tolist() == [0.5, 2.0, 2.0, 0.0, 2.0]
    assert van_leer(torch.tensor([1.0, 1.0, -3.0, 0.0]), torch.tensor([3.0, -1.0, -3.0, 0.0])).tolist() == [
        1.5,
        0,
        -3,
        0,
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((128, 0.01, 0.01, "central"), "is not stable on 128 points"),
        ((128, 0.0, 0.1, "limited"), "use at most"),
        ((4, 0.01, 1e-4, "central"), "points must be at least 8"),
        ((16, 0.001, 1e-4, "central"), "do not resolve fronts"),
        ((16, -1.0, 1e-4, "limited"), "viscosity must be non-negative"),
    ],
)
def test_unstable_or_unresolved(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Burgers(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "plant",
    [
        BurgersOpenLoop(substeps=40),
        BurgersOpenLoop("FO-PC", substeps=40),
        BurgersOpenLoop("PO-PC", scheme="limited", substeps=80),
        BurgersTracking(),
        BurgersTracking(noisy=True),
        BurgersTracking(scheme="heun"),
        BurgersTracking(scheme="limited"),
    ],
    ids=["FC", "FO-PC", "PO-PC", "tracking", "noisy", "heun", "limited"],
)
def test_contract(plant) -> None:  # type: ignore[no-untyped-def]
    check_plant(plant, steps=3, n=4, tolerance=1e-9)


def test_coverage() -> None:
    full, partial, hidden = (BurgersOpenLoop(c, substeps=40) for c in ("FC", "FO-PC", "PO-PC"))
    assert [p.actions.m for p in (full, partial, hidden)] == [128, 64, 64]
    assert [len(p.performed) for p in (full, partial, hidden)] == [128, 128, 64]


def test_the_safe_variant_begins_and_ends_within_the_bound_and_a_penalty_keeps_the_way_there() -> None:
    plant = BurgersOpenLoop(substeps=40, safe=True)
    simulator = PlantSimulator(plant, 6)
    scenarios = simulator.scenarios(noise.keys(5, 6))
    for profile in (scenarios.x0, scenarios.p["target"]):
        assert isinstance(profile, Tensor) and float(profile.abs().max()) <= 0.8 + 1e-12
    violated = []
    for penalty in (0.0, 0.1):
        controller = make_controller("adjoint", iterations=20, penalty=penalty).bind(plant.problem, PlantModel(plant))
        controller.reset(6)
        simulator.reset(scenarios)
        violated.append(sum(simulator.step(controller.act(simulator.measure()).u).violation for _ in range(10)))
    assert float(violated[0].max()) > 1e-3, "without a price some way leaves the bound"  # type: ignore[union-attr]
    assert float(violated[1].max()) < 1e-3 * float(violated[0].max())  # type: ignore[union-attr]


def test_the_forces_that_made_the_target_reach_it() -> None:
    plant = BurgersOpenLoop(substeps=40)
    sim = PlantSimulator(plant, 4)
    scenarios = sim.scenarios(noise.keys(0, 4))
    sim.reset(scenarios)
    plan = forces(plant.grid, scenarios.key, 10)
    cost = sum(sim.step(plan[:, k]).cost for k in range(10))
    assert float(cost.max()) < 1e-20  # type: ignore[union-attr]


@pytest.mark.slow
def test_the_adjoint_on_a_coarse_model_solves_the_fine_task() -> None:
    """Published: diffusion 3.7e-4, flow matching 1.74e-4 on cases of the same kind."""
    fine, coarse = (BurgersOpenLoop("FO-PC", substeps=s) for s in (1000, 40))
    simulator = PlantSimulator(fine, 4)
    controller = make_controller("adjoint", iterations=150).bind(fine.problem, PlantModel(coarse))
    controller.reset(4)
    scenarios = simulator.scenarios(noise.keys(5, 4))
    found = run_episodes(simulator, scenarios, lambda m: controller.act(m).u)
    assert float(found.cost.mean()) < 2e-5


def test_tracking_a_known_way_is_free_and_renders() -> None:
    plant = BurgersTracking()
    sim = PlantSimulator(plant, 1)
    scenarios = sim.scenarios(noise.keys(0, 1))
    sim.reset(scenarios)
    plan = forces(plant.grid, scenarios.key, 80)
    trail = sim.record()
    total = 0.0
    for k in range(80):
        total += float(sim.step(plan[:, k]).cost)
        if k < 3:
            sim.record(trail, plan[:, k])
    assert total < 1e-20
    image = plant.render(trail)
    assert image.dtype == np.uint8 and image.shape == (520, 960, 3) and int(image.std()) > 10


@pytest.mark.parametrize("calibrate", [0, 16])
def test_lqg_reaches_the_band_of_the_notebook_task(calibrate: int) -> None:
    """86.6 +- 9.7 is a textbook filter's on controlgym itself, ten seeds; a known start is worth about 5 of that."""
    plant = BurgersNotebookCompat()
    simulator = PlantSimulator(plant, 32)
    settings = {"process_noise": 1e-5**0.5, "measurement_noise": 0.05**0.5, "start_noise": 1.0, "calibrate": calibrate}
    controller = make_controller("lqg", **settings).bind(plant.problem, make_model("linearized", plant, at="zero"))
    controller.train(Training(simulate=lambda n: PlantSimulator(plant, n), seed=3))
    controller.reset(32)
    found = run_episodes(simulator, simulator.scenarios(noise.keys(7, 32)), lambda m: controller.act(m).u)
    assert 86.6 - 9.7 < float(found.cost.mean()) < 86.6 + 9.7


def test_linearisation_is_free_of_the_notebooks_noise() -> None:
    """A frozen draw as offset would be multiplied by the slow modes, and one of a sensor is a bias of the filter."""
    model = make_model("linearized", BurgersNotebookCompat(), at="zero")
    assert float(model.c_.abs().max()) < 1e-12 and float(model.d_.abs().max()) == 0.0
