from dataclasses import replace

import pytest
import torch
from dynamics_test_plants import Oscillator

from steersman.dynamics.base import Trajectories, Window
from steersman.dynamics.collect import HeldLevels, RandomBinary, collect
from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.score import score
from steersman.dynamics.truth.plant_model import PlantModel
from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.simulator import PlantSimulator


def data_of(plant: Oscillator, episodes: int = 12, seed: int = 1) -> Trajectories:
    return collect(PlantSimulator(plant, 6), HeldLevels(), episodes=episodes, seed=seed)


def window_of(sim: PlantSimulator) -> Window:
    m = sim.measure()
    return Window(m.y[:, None], m.y.new_zeros(sim.n, 0, sim.actions.m), m)


def running(plant: Oscillator, n: int = 4, seed: int = 5) -> PlantSimulator:
    sim = PlantSimulator(plant, n)
    sim.reset(sim.scenarios(noise.keys(seed, n)))
    return sim


def test_collect_records_what_happened() -> None:
    data = data_of(Oscillator())
    assert data.y.shape == (12, 61, 3) and data.u.shape == (12, 60, 1) and data.steps == 12 * 60
    again = data_of(Oscillator())
    assert torch.equal(data.y, again.y) and torch.equal(data.u, again.u)
    changes = (data.u.diff(dim=1) != 0).double().mean()
    assert 0.1 < changes < 0.35  # holds of 1..10 steps, 5.5 on average
    assert len(data.u[:, 0].unique()) == 12
    q, v, u = data.y[:, :-1, 1], data.y[:, :-1, 2], data.u[..., 0]
    want = v + 0.1 * (-q - 0.3 * v + 1.5 * u + 0.1)
    assert torch.allclose(data.y[:, 1:, 2], want, atol=1e-12)


def test_collect_masks_episodes_that_ended() -> None:
    data = data_of(Oscillator(limit=1.5))
    assert 0 < data.steps < 12 * 60
    assert bool((data.valid[:, :-1] | ~data.valid[:, 1:]).all())  # once over, over
    moved = data.y[:, 1:, 1] != data.y[:, :-1, 1]
    assert torch.equal(moved & data.valid, moved)


def test_exciters_respect_the_action_set() -> None:
    actions = ActionSet((-1.0, 0.0, 0.0, 0.0), (1.0, 3.0, 1.0, 1.0), (False, True, False, False), ((2, 3),))
    m = running(Oscillator(), 64).measure()
    for exciter in (HeldLevels(2, 4), RandomBinary(3)):
        exciter.start(actions, noise.keys(0, 64), torch.float64)
        u = torch.stack([exciter(replace(m, k=m.k + j)) for j in range(12)], dim=1)
        assert bool(actions.admissible(u.flatten(0, 1)).all())
        assert len(u[..., 1].unique()) == (4 if isinstance(exciter, HeldLevels) else 2)
    with pytest.raises(ValueError, match="shortest"):
        HeldLevels(5, 2)
    with pytest.raises(ValueError, match="hold"):
        RandomBinary(0)


def test_collect_rejects_bad_input() -> None:
    sim = running(Oscillator())
    with pytest.raises(ValueError, match="episodes"):
        collect(sim, HeldLevels(), episodes=0, seed=0)
    with pytest.raises(ValueError, match="steps"):
        collect(sim, HeldLevels(), episodes=1, seed=0, steps=61)
    with pytest.raises(ValueError, match="policy"):
        collect(sim, lambda m: m.y, episodes=1, seed=0)


@pytest.mark.parametrize("context", [1, 3])
def test_linear_identifies_a_linear_plant(context: int) -> None:
    plant = Oscillator()
    model = LinearDynamics(context, choose=False).bind(plant.problem).fit(data_of(plant))
    test = data_of(plant, seed=2)
    found = score(model, test, 20)
    assert float(found.y[:, 1:].max()) < 1e-6 and float(found.z.max()) < 1e-6
    assert float(found.relative_y[0]) == pytest.approx(1.0)  # the clock is exogenous: it repeats
    system = model.state_space()
    assert system.C.shape == (2, 2 * context + context - 1)
    assert float(system.W.abs().max()) < 1e-12
    if context == 1:
        truth = torch.tensor([[1 - 0.01, 0.1 - 0.003], [-0.1, 0.97]], dtype=torch.float64)
        assert torch.allclose(system.A, truth, atol=1e-6)
        assert torch.allclose(system.B[:, 0], torch.tensor([0.015, 0.15], dtype=torch.float64), atol=1e-6)


def test_linear_learns_past_the_end_of_episodes_only_what_happened() -> None:
    plant = Oscillator(limit=1.5)
    model = LinearDynamics(2, choose=False).bind(plant.problem).fit(data_of(plant, 48))
    assert float(score(model, data_of(plant, 48, seed=2), 3).z.max()) < 1e-6


@pytest.mark.parametrize("gradient", ["exact", "none"])
def test_linearised_plant_follows_the_plant(gradient: str) -> None:
    plant = Oscillator(gradient=gradient)
    sim = running(plant)
    one = torch.zeros(1, dtype=torch.float64)
    model = LinearDynamics.from_plant(plant, {"q": one, "v": one}, one[:, None], plant.params(noise.keys(0, 1)))
    assert model.needs_state
    h = model.init(window_of(sim))
    for j in range(5):
        u = torch.full((4, 1), 0.2 * j, dtype=torch.float64)
        sim.step(u)
        h = model.step(h, u)
        y, z = model.output(h)
        assert torch.allclose(y[:, 1:], sim.measure().y[:, 1:], atol=1e-8)
        assert torch.allclose(z, sim.perform(), atol=1e-8)
    other = LinearDynamics()
    other.load_state_dict(model.state_dict())
    assert other.needs_state and torch.equal(other.A_, model.A_)
    with pytest.raises(ValueError, match="floating-point"):
        LinearDynamics.from_plant(plant, {"q": one.long(), "v": one}, one[:, None], plant.params(noise.keys(0, 1)))


def test_truth_equals_a_deterministic_plant_and_stops_where_it_fails() -> None:
    plant = Oscillator(limit=1.6)
    sim = running(plant, 32)
    model = PlantModel(plant)
    h = model.init(window_of(sim))
    for j in range(65):  # beyond the horizon
        u = torch.full((32, 1), (-1.0) ** (j // 7), dtype=torch.float64)
        sim.step(u)
        h = model.step(h, u)
        y, z = model.output(h)
        assert torch.equal(y, sim.measure().y) and torch.equal(z, sim.perform())
    failing = model.failing(h)
    assert 0 < int(failing.sum()) < 32


def test_truth_does_not_know_the_disturbance() -> None:
    plant = Oscillator(noise_level=0.1)
    sim = running(plant, 400)
    model = PlantModel(plant)
    h = model.init(window_of(sim))
    u = torch.zeros(400, 1, dtype=torch.float64)
    calm = PlantModel(Oscillator())
    _, mean = calm.rollout(calm.init(window_of(sim)), u[:, None])
    y, z = model.rollout(h, u[:, None])
    assert torch.equal(model.rollout(h, u[:, None])[1], z)
    sim.step(u)
    own, real = z[:, 0, 1] - mean[:, 0, 1], sim.perform()[:, 1] - mean[:, 0, 1]
    assert float(own.std()) == pytest.approx(0.1, rel=0.15) and float(real.std()) == pytest.approx(0.1, rel=0.15)
    assert abs(float(torch.corrcoef(torch.stack([own, real]))[0, 1])) < 0.2  # four standard errors
    other = PlantModel(plant, seed=1)
    assert not torch.equal(other.rollout(other.init(window_of(running(plant, 400))), u[:, None])[0], y)


def test_errors_name_the_remedy() -> None:
    plant = Oscillator()
    data = data_of(plant)
    sim = running(plant)
    blind = Window(window_of(sim).y, window_of(sim).u, sim.measure().blind())
    with pytest.raises(ValueError, match="solver access"):
        PlantModel(plant).init(blind)
    with pytest.raises(ValueError, match="true state"):
        score(PlantModel(plant), data, 2)
    with pytest.raises(RuntimeError, match="not fitted"):
        LinearDynamics().init(blind)
    model = LinearDynamics(3, choose=False).bind(plant.problem).fit(data)
    with pytest.raises(ValueError, match="windows of 3"):
        model.init(blind)
    with pytest.raises(ValueError, match="context"):
        LinearDynamics(0)
    with pytest.raises(ValueError, match="choose=False needs a context"):
        LinearDynamics(choose=False)
    with pytest.raises(ValueError, match="longer episodes"):
        LinearDynamics(70, choose=False).fit(data)
    y = data.y.clone()
    y[3, 7, 1] = torch.nan
    with pytest.raises(ValueError, match="y of episode 3"):
        LinearDynamics(1).fit(replace(data, y=y))
    with pytest.raises(ValueError, match=r"data\.y has 2"):
        LinearDynamics(1).bind(plant.problem).fit(replace(data, y=data.y[..., 1:], seen=data.seen[..., 1:]))
