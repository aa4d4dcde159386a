"""Transport and reaction-diffusion: schemes against exact solutions, and the peer's tasks against their figures."""

import itertools
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import i1

from steersman.controllers.classical.backstepping import Backstepping, reaction_diffusion_kernel, transport_kernel
from steersman.controllers.registry import make_controller
from steersman.controllers.rollout import run_episodes
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.registry import make_model
from steersman.dynamics.truth.plant_model import PlantModel
from steersman.envs import noise
from steersman.envs.checks import check_plant
from steersman.envs.pde.boundary import (
    ReactionDiffusion,
    ReactionDiffusionCompat,
    TransportBoundary,
    TransportBoundaryCompat,
    reaction,
    recirculation,
)
from steersman.envs.plant import Plant
from steersman.envs.simulator import PlantSimulator

PLANTS = (
    partial(TransportBoundary, 2),
    TransportBoundary,
    ReactionDiffusion,
    TransportBoundaryCompat,
    ReactionDiffusionCompat,
)


def close_loop(plant: Plant, n: int) -> tuple[torch.Tensor, PlantSimulator]:
    controller = Backstepping().bind(plant.problem, PlantModel(plant))
    sim = PlantSimulator(plant, n)
    sim.reset(sim.scenarios(noise.keys(0, n)))
    controller.reset(n)
    cost = torch.zeros(n, dtype=torch.float64)
    for _ in range(plant.horizon):
        cost = cost + sim.step(controller.act(sim.measure()).u).cost
    return cost, sim


@pytest.mark.parametrize("make", PLANTS, ids=lambda c: getattr(c, "__name__", "second version"))
def test_contract(make: Callable[[], Plant]) -> None:
    check_plant(make(), steps=3, tolerance=1e-9)


def test_kernels_against_closed_forms_and_their_order() -> None:
    """Constant coefficients: an exponential, and Bessel's function (Smyshlyaev and Krstic 2004)."""
    errors: dict[str, list[float]] = {"transport": [], "reaction": []}
    for n in (51, 101, 201):
        y = np.linspace(0, 1, n)
        root = np.sqrt(20 * (1 - y**2))
        bessel = -20 * y * np.where(root > 0, i1(root) / np.where(root > 0, root, 1), 0.5)
        errors["reaction"].append(
            float(np.abs(reaction_diffusion_kernel(torch.full((n,), 20.0).double()).numpy() - bessel).max())
        )
        exponential = -2 * np.exp(2 * (1 - y))
        errors["transport"].append(
            float(np.abs(transport_kernel(torch.full((n,), 2.0).double()).numpy() - exponential).max())
        )
    for found in errors.values():
        assert math.log2(found[0] / found[1]) == pytest.approx(2, abs=0.15)
        assert math.log2(found[1] / found[2]) == pytest.approx(2, abs=0.15)


def test_transport_of_a_profile_is_exact_without_recirculation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersman.envs.pde.boundary.recirculation", torch.zeros_like)
    plant = TransportBoundary()
    start = torch.sin(3 * plant.grid)[None]
    k = torch.zeros(1, dtype=torch.int64)
    after = plant.step(k, start, torch.full((1, 1), 0.5).double(), k, {})
    torch.testing.assert_close(after[0, :95], start[0, 5:100])
    torch.testing.assert_close(after[0, 96:], torch.full((5,), 0.5).double())


def exact_end(level: float, rate: float, U: torch.Tensor, steps: int) -> tuple[float, float]:
    """``u(0, t)`` before and after the jump that arrives at t in 1..2, for constant recirculation and held actions.

    On a characteristic ``u(0, t) = U(t - 1) + rate times the integral of u(0, s) over the unit of time before t``, with
    ``level`` for U before it arrives: an exponential up to t = 1, then ``v' = rate (v(t) - v(t - 1))`` and the jumps.
    """
    late = 0.05 * steps - 1
    smooth = math.exp(rate * late) * (float(U[0]) + level * (math.exp(rate) - 1) - rate * level * late)
    jumps = U.diff()[: steps - 20]
    ages = late - 0.05 * torch.arange(1, len(jumps) + 1, dtype=torch.float64)
    before = smooth + float((jumps[:-1] * torch.exp(rate * ages[:-1])).sum())
    return before, before + float(jumps[-1])


@pytest.mark.parametrize(("version", "order"), [(1, 1), (2, 2)])
def test_order_of_transport_under_jumping_actions(version: int, order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rate, level, steps = 1.3, 3.0, 30
    monkeypatch.setattr("steersman.envs.pde.boundary.recirculation", lambda x: torch.full_like(x, rate))
    U = 4 * noise.uniform(noise.keys(5, 1), steps + 1)[0] - 2
    before, after = exact_end(level, rate, U, steps)
    errors = []
    for points in (81, 161, 321):
        plant = TransportBoundary(version)
        plant.points, plant.dt, plant.hold = points, 1 / (points - 1), (points - 1) // 20
        x, k = torch.full((1, points), level, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
        for j in range(steps):
            x = plant.step(k, x, U[j].reshape(1, 1), k, {})  # type: ignore[assignment]
        errors.append(abs(float(x[0, 0]) - (before if version == 1 else (before + after) / 2)))
    found = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert found == pytest.approx([order] * 2, abs=0.15), errors
    with pytest.raises(ValueError, match="version must be 1"):
        TransportBoundary(3)


def test_diffusion_against_its_fundamental_mode_and_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """``sin(pi x)`` decays at ``pi^2`` of the difference operator; Crank and Nicolson's error is of order two."""
    monkeypatch.setattr("steersman.envs.pde.boundary.reaction", torch.zeros_like)
    errors = []
    for halvings in (0, 1, 2):
        plant = ReactionDiffusion()
        plant.dt, plant.hold = 4e-3 / 2**halvings, 5 * 2**halvings
        mode = torch.sin(math.pi * plant.grid)[None]
        k = torch.zeros(1, dtype=torch.int64)
        after = plant.step(k, mode, torch.zeros(1, 1).double(), k, {})
        rate = 2 * (plant.points - 1) ** 2 * (1 - math.cos(math.pi / (plant.points - 1)))
        errors.append(float((after - mode * math.exp(-rate * 0.02)).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("make", "least"), [(TransportBoundaryCompat, 243.06), (ReactionDiffusionCompat, 298.98)])
def test_backstepping_reaches_the_published_returns(make: type[Plant], least: float) -> None:
    cost, _ = close_loop(make(), 200)
    assert float(-cost.mean()) > least


def test_the_peers_transport_gives_the_peers_sum_of_boundary_values() -> None:
    """With its first-order kernel and sum, constant starts of 1 and 10 end at ``300 - sum |U| / 1000`` = 289.8, 198.4.

    Those are the published returns. They leave out the decreases of the norm, which its reward adds.
    """
    plant = TransportBoundaryCompat()
    beta, n = recirculation(plant.grid), plant.points
    kappa = torch.zeros(n).double()
    for i in range(n):
        kappa[i] = 0.01 * (kappa[1 : i + 1].flip(0) * beta[:i]).sum() - beta[i] if i else -beta[0]
    kernel = kappa.flip(0)
    for level, published in ((1.0, 289.8), (10.0, 198.4)):
        x = {
            "u": torch.full((1, n), level).double(),
            "before": torch.zeros(1).double(),
            "spent": torch.zeros(1).double(),
        }
        x["spent"] = x["spent"] + level
        for j in range(plant.horizon):
            k = torch.full((1,), j)
            x = plant.step(k, x, (0.01 * x["u"] @ kernel)[:, None], k, {})  # type: ignore[assignment]
        assert 300 - float(x["spent"]) / 1000 - float(x["u"].norm()) == pytest.approx(published, abs=0.1)


def test_the_augmented_states_follow_substep_by_substep() -> None:
    plant = TransportBoundaryCompat()
    key = noise.keys(0, 1)
    x = plant.initial(key, {})
    M, b = plant._substep()
    profile, norms = x["u"][0], []  # type: ignore[call-overload, index]
    for _ in range(1000):
        profile = M @ profile + 3.0 * b
        norms.append(float(profile.norm()))
    k = torch.zeros(1, dtype=torch.int64)
    after = plant.step(k, x, torch.full((1, 1), 3.0).double(), k, {})
    torch.testing.assert_close(after["u"][0], profile)  # type: ignore[call-overload, index]
    assert float(after["before"]) == pytest.approx(norms[899])  # type: ignore[call-overload, index]
    z = plant.perform(k + 1, after, {})[0]
    assert z.tolist() == pytest.approx([norms[899] - norms[999], norms[999], float(x["spent"]) + 3000])  # type: ignore[call-overload, index]


@pytest.mark.parametrize("make", [TransportBoundary, partial(TransportBoundary, 2), ReactionDiffusion])
def test_unstable_alone_and_calmed_by_backstepping(make: Callable[[], Plant]) -> None:
    plant = make()
    cost, sim = close_loop(plant, 16)
    assert bool((sim.measure().y.abs() < 0.5).all()) and not bool(sim.plant.status(sim.k, sim.x, {}).any())  # type: ignore[union-attr]
    assert float(cost.mean()) < 250
    values = torch.linalg.eigvals(plant._held[0])  # type: ignore[attr-defined]
    assert float(values.abs().max()) > 1.005


def test_reaction_is_the_published_one() -> None:
    x = torch.tensor([0.0, 0.5, 1.0]).double()
    assert reaction(x).tolist() == pytest.approx([50 * math.cos(8 * math.pi / 2), 50 * math.cos(8 * math.pi / 3), 50])


def test_bad_bound() -> None:
    with pytest.raises(ValueError, match="bound must be a positive finite number"):
        ReactionDiffusionCompat(bound=-1.0)


@pytest.mark.parametrize(
    ("make", "steps", "effort", "published"),
    [(TransportBoundaryCompat, 50, 10.0, 189.98), (ReactionDiffusionCompat, 200, 0.1, 293.19)],
)
def test_lqr_on_a_model_from_data_beats_published_learning(
    make: type[Plant], steps: int, effort: float, published: float
) -> None:
    """PPO's returns; ours comes from 16 episodes of random actions, 800 and 3,200 control steps."""
    plant = make()
    data = collect(PlantSimulator(plant, 16), HeldLevels(), episodes=16, steps=steps, seed=0)
    model = make_model("linear", None, context=1).bind(plant.problem).fit(data)
    controller = make_controller("lqr", effort=effort).bind(plant.problem, model)
    assert controller.track == "data only"
    simulator = PlantSimulator(plant, 24)
    controller.reset(24)
    found = run_episodes(simulator, simulator.scenarios(noise.keys(0, 24)), lambda m: controller.act(m).u)
    assert float(-found.cost.mean()) > published


def test_a_warm_plan_is_never_worse_than_what_warmed_it() -> None:
    plant = TransportBoundaryCompat()
    simulator, truth = PlantSimulator(plant, 4), PlantModel(plant)
    scenarios = simulator.scenarios(noise.keys(2, 4))
    costs = []
    for name, settings in (("backstepping", {}), ("adjoint", {"warm": "backstepping", "iterations": 5})):
        controller = make_controller(name, **settings).bind(plant.problem, truth)
        controller.reset(4)
        costs.append(run_episodes(simulator, scenarios, lambda m, c=controller: c.act(m).u, controller.preview).cost)
    assert bool((costs[1] <= costs[0] + 1e-9).all())
    with pytest.raises(ValueError, match="needs model = 'truth'"):
        make_controller("adjoint", warm="lqr").bind(plant.problem, make_model("linear", None))
    for settings, message in (({"iterations": 0}, "iterations must be"), ({"penalty": -1.0}, "penalty must be")):
        with pytest.raises(ValueError, match=message):
            make_controller("adjoint", **settings)
    with pytest.raises(ValueError, match="effort must be positive"):
        make_controller("lqr", effort=0.0)
