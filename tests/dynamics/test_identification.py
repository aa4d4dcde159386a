"""Linear models of data: the plant's modes and no others, whatever window is allowed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dynamics_test_plants import InvertedPendulum, Oscillator
from torch import Tensor

from steersman.controllers.classical.lqr import LQR
from steersman.controllers.rollout import run_episodes
from steersman.dynamics.base import Dynamics, Trajectories, Window
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.linear.arx import Fit
from steersman.dynamics.linear.identification import RIDGES, identify
from steersman.dynamics.linear.models import LinearDynamics, SpectrumWarning
from steersman.dynamics.linear.regression import Ridge
from steersman.dynamics.linear.spectrum import eigenpairs, eigenvalues
from steersman.dynamics.truth.operating_point import linearized
from steersman.dynamics.windowed.windows import folds
from steersman.envs import noise
from steersman.envs.pde.boundary import TransportBoundary
from steersman.envs.plant import Plant
from steersman.envs.simulator import Measurement, PlantSimulator


def radius(model: LinearDynamics) -> float:
    return float(torch.linalg.eigvals(model.A_).abs().max())


def arx(seed: int, order: int, fastest: float, level: float = 0.0, episodes: int = 12) -> tuple[Trajectories, Tensor]:
    """Data of a random ``y_t = sum_i a_i y_{t-i} + b_i u_{t-i}``, and its eigenvalues, the largest of them ``fastest``."""
    gen = torch.Generator().manual_seed(seed)
    poles = 0.7 * torch.rand(order, generator=gen, dtype=torch.float64) - 0.35
    poles[0] = fastest
    poles[1:] += torch.arange(1, order) * 0.12
    a = torch.ones(1, dtype=torch.float64)
    for pole in poles:  # coefficients of the polynomial with these roots
        a = torch.cat([a, a.new_zeros(1)]) - pole * torch.cat([a.new_zeros(1), a])
    b = torch.randn(order, generator=gen, dtype=torch.float64)
    u = torch.randn(episodes, 40, 1, generator=gen, dtype=torch.float64)
    y = [torch.randn(episodes, generator=gen, dtype=torch.float64) for _ in range(order)]
    past = torch.cat([torch.zeros(episodes, order - 1, 1, dtype=torch.float64), u], dim=1)
    for t in range(40):
        now = sum(b[i] * past[:, order - 1 + t - i, 0] - a[i + 1] * y[-1 - i] for i in range(order))
        y.append(now + level * torch.randn(episodes, generator=gen, dtype=torch.float64))
    outputs = torch.stack(y[order - 1 :], dim=1)[..., None]
    valid = torch.ones(episodes, 40, dtype=torch.bool)
    return Trajectories(outputs, outputs.clone(), u, valid, 1.0), poles


def nonzero(model: LinearDynamics) -> Tensor:
    """Eigenvalues without those at zero that the window's past actions bring."""
    values = torch.linalg.eigvals(model.A_)
    return values[values.abs() > 1e-3]


@pytest.mark.parametrize("fastest", [0.9, 1.0, 1.15, -0.95])
@pytest.mark.parametrize("order", [1, 2, 4])
def test_exact_data_give_the_exact_modes(order: int, fastest: float) -> None:
    data, poles = arx(order, order, fastest)
    model = LinearDynamics().fit(data)
    assert model.context == order, "no longer a window than the data call for"
    found = nonzero(model)
    assert float(found.imag.abs().max()) < 1e-5
    want = poles[poles.abs() > 1e-3].sort().values
    torch.testing.assert_close(found.real.sort().values, want, atol=1e-5, rtol=0)


def test_noise_brings_no_fast_modes() -> None:
    for seed in range(5):
        data, _ = arx(seed, 2, 1.05, level=0.05, episodes=32)
        model = LinearDynamics().fit(data)
        assert model.context <= 4
        assert radius(model) == pytest.approx(1.05, abs=0.01)


def test_collinear_windows_get_nothing_along_what_never_varied() -> None:
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=gen, dtype=torch.float64)
    phi = torch.cat([x, x @ torch.randn(3, 2, generator=gen, dtype=torch.float64)], dim=1)
    phi = phi + 1e-13 * torch.randn(200, 5, generator=gen, dtype=torch.float64)
    target = x @ torch.randn(3, 1, generator=gen, dtype=torch.float64)
    target = target + 1e-3 * torch.randn(200, 1, generator=gen, dtype=torch.float64)
    found = Ridge(phi, target)(0.0)
    assert float(found.norm()) < 10  # 1e9 or so without a cut
    never = torch.linalg.svd(phi).Vh[3:]
    assert float((never @ found).abs().max()) < 1e-9
    best = torch.linalg.lstsq(x, target).solution
    torch.testing.assert_close(phi @ found, x @ best, atol=1e-9, rtol=0)


def test_ridge_minimises_what_it_says() -> None:
    gen = torch.Generator().manual_seed(1)
    phi, target = (torch.randn(50, width, generator=gen, dtype=torch.float64) for width in (6, 2))
    fitted = Ridge(phi, target)
    for weight in (1e-8, 1e-2, 3.0):
        normal = phi.T @ phi / 50 + weight * torch.eye(6, dtype=torch.float64)
        torch.testing.assert_close(fitted(weight), torch.linalg.solve(normal, phi.T @ target / 50))


def regulated(plant: Plant, model: Dynamics, n: int = 12) -> float:
    simulator = PlantSimulator(plant, n, price=5.0)
    law = LQR().bind(simulator.problem, model)
    law.reset(n)
    return float(run_episodes(simulator, simulator.scenarios(noise.keys(2026, n)), lambda m: law.act(m).u).cost.mean())


@pytest.mark.filterwarnings("ignore::steersman.dynamics.linear.models.SpectrumWarning")  # of one seed, rightly
@pytest.mark.parametrize("context", [1, 4, None])
def test_a_falling_pendulum_is_identified_and_balanced(context: int | None) -> None:
    """Short episodes with all states measured: longer windows are collinear but for what is not linear."""
    plant = InvertedPendulum()
    truth = linearized(plant, at="zero")
    for seed in range(3):
        data = collect(PlantSimulator(plant, 32), HeldLevels(), episodes=32, seed=seed)
        model = LinearDynamics(context).bind(plant.problem).fit(data)
        assert radius(model) == pytest.approx(radius(truth), rel=0.01)
        assert regulated(plant, model) <= 1.01 * regulated(plant, truth)
    as_it_is = LinearDynamics(4, choose=False).bind(plant.problem).fit(data)
    assert as_it_is.context == 4 and radius(as_it_is) > 1.4, "which no choice would have avoided"


def recirculating(seed: int) -> Trajectories:
    """Data of a plant with a delay of twenty control steps, of which eleven sensors see a part."""
    exciter = HeldLevels(longest=10, share=0.2)
    return collect(PlantSimulator(TransportBoundary(), 32, price=0.0), exciter, episodes=64, seed=seed, steps=40)


@pytest.mark.parametrize("context", [4, 6, 8])
def test_what_windows_leave_open_does_not_grow(context: int) -> None:
    """Collinear windows have directions of their own; drawn to persistence they were modes from 1.02 to 1.04."""
    plant, data = TransportBoundary(), recirculating(0)
    true = torch.linalg.eigvals(linearized(plant, at="zero").A_).abs()
    model = LinearDynamics(context, ridge=1e-4, choose=False).bind(plant.problem).fit(data)
    found = torch.linalg.eigvals(model.A_).abs()
    assert int((found > 1).sum()) == int((true > 1).sum())
    assert radius(model) == pytest.approx(float(true.max()), abs=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_choice_serves_the_closed_loop(seed: int) -> None:
    """A growing mode decides all predictions far ahead; near ones show the delay that feedback is unstable without."""
    plant, data = TransportBoundary(), recirculating(seed)
    chosen = LinearDynamics().bind(plant.problem).fit(data)
    assert chosen.context == 8, "the longest window that is tried"
    for context in (2, 4):
        as_it_is = LinearDynamics(context, choose=False).bind(plant.problem).fit(data)
        assert regulated(plant, chosen) <= 0.7 * regulated(plant, as_it_is)
    assert regulated(plant, chosen) <= 4 * regulated(plant, linearized(plant, at="zero"))


def test_a_choice_survives_a_file_and_forgets_the_fit_before() -> None:
    plant = InvertedPendulum()
    data = collect(PlantSimulator(plant, 32), HeldLevels(), episodes=32, seed=0)
    model = LinearDynamics(4).bind(plant.problem).fit(data)
    assert model.context == 1
    other = LinearDynamics(4).bind(plant.problem)
    other.load_state_dict(model.state_dict())
    assert other.context == 1 and torch.equal(other.A_, model.A_) and other.notes == model.notes
    hidden, _ = arx(3, 4, 0.9)
    free = LinearDynamics(4).fit(hidden)
    assert free.context == 4
    again = LinearDynamics(4)
    again.fit(collect(PlantSimulator(Oscillator(), 6), HeldLevels(), episodes=12, seed=1))
    assert torch.equal(LinearDynamics(4).fit(hidden).A_, again.fit(hidden).A_)


def test_what_the_data_leave_open_is_said() -> None:
    plant = InvertedPendulum()
    data = collect(PlantSimulator(plant, 6), HeldLevels(), episodes=6, seed=1)
    model = LinearDynamics().bind(plant.problem)
    with pytest.warns(SpectrumWarning, match="fastest mode grows 1.19-fold in a step, but models that predict as well"):
        model.fit(data)
    assert len(model.notes) == 1
    assert LinearDynamics(1).bind(plant.problem).fit(data).notes == ()
    assert linearized(plant).notes == LinearDynamics().notes == ()


def test_little_data_still_give_a_model() -> None:
    data, _ = arx(0, 1, 0.5, episodes=1)
    assert LinearDynamics().fit(data).context == 1, "the end of a single episode is held out"
    short = Trajectories(data.y[:, :4], data.z[:, :4], data.u[:, :3], data.valid[:, :3], 1.0)
    for most in (None, 8):  # more than episodes hold is no fault: it is the most that there may be
        assert 1 <= LinearDynamics(most).fit(short).context <= 3, "three transitions, one of them held out"
    one = Trajectories(data.y[:, :2], data.z[:, :2], data.u[:, :1], data.valid[:, :1], 1.0)
    model = LinearDynamics()
    with pytest.warns(SpectrumWarning, match="too few to hold any of them out"):
        model.fit(one)
    assert model.context == 1 and len(model.notes) == 1
    other = LinearDynamics()
    other.load_state_dict(model.state_dict())
    assert other.notes == model.notes
    assert LinearDynamics(1, choose=False).fit(one).notes == ()


def test_without_a_judge_the_choice_is_cautious() -> None:
    """One transition, twice: nothing tells more of a window than that its least is enough."""
    data, _ = arx(0, 1, 0.5, episodes=1)
    zero = torch.zeros(1, dtype=torch.float64)
    valid = torch.zeros_like(data.valid)
    valid[0, :2] = True
    judged = identify(replace(data, valid=valid), torch.tensor([0]), zero, [1, 2], RIDGES)
    valid[0, 1] = False
    model, good = identify(replace(data, valid=valid), torch.tensor([0]), zero, [1], RIDGES)
    assert judged[1] and not good
    expected = Fit(data.y, data, valid, 1)(1e-6)
    assert torch.equal(model.W, expected.W) and torch.equal(model.V, expected.V)


def test_dead_last_episodes_leave_a_judge() -> None:
    """The last episodes, and whole kinds that come last, may hold no transition at all."""
    data, _ = arx(1, 2, 0.9, level=0.05, episodes=16)
    dead = torch.ones_like(data.valid)
    dead[-4:] = False
    alive = LinearDynamics().fit(Trajectories(*(part[:12] for part in (data.y, data.z, data.u, data.valid)), 1.0))
    model = LinearDynamics().fit(replace(data, valid=dead))
    assert len(model.radii_) and model.context == alive.context
    torch.testing.assert_close(model.A_, alive.A_, rtol=0, atol=1e-9)


def test_every_episode_is_held_out() -> None:
    for n in (2, 3, 5, 8, 64):
        rows = torch.ones(n, 3, dtype=torch.bool).nonzero()
        held = [back[:, 0].unique() for _, back in folds(rows, 0.25)]
        assert torch.cat(held).unique(return_counts=True)[1].tolist() == [1] * n
        for fitted, back in folds(rows, 0.25):
            assert len(fitted) + len(back) == len(rows) and not torch.isin(fitted[:, 0], back[:, 0]).any()


@pytest.mark.parametrize("size", [1e151, 1e200, 1e300])
def test_run_away_data_are_refused_by_name(size: float) -> None:
    data, _ = arx(0, 1, 0.5)
    y = data.y.clone()
    y[2, 10:] = size
    for model in (LinearDynamics(), LinearDynamics(2, choose=False)):
        with pytest.raises(ValueError, match=r"y\[0\] reaches .* in step 9 of episode 2, .*not valid"):
            model.fit(replace(data, y=y))
    valid = data.valid.clone()
    valid[2, 9:] = False
    assert LinearDynamics().fit(replace(data, y=y, valid=valid)).context == 1
    y[2, 10:] = 1e149
    assert bool(LinearDynamics().fit(replace(data, y=y)).A_.isfinite().all())


def test_models_that_are_not_finite_are_left_out() -> None:
    """The second measurement of an episode is a target of windows of one only."""
    data, _ = arx(0, 1, 0.5)
    y, z, zero = data.y.clone(), torch.zeros_like(data.z), torch.zeros(1, dtype=torch.float64)
    y[1, 1] = 1e200
    spoiled = replace(data, y=y, z=z)
    assert Fit(y, spoiled, data.valid, 1)(1e-6).radius == torch.inf
    model, good = identify(spoiled, torch.tensor([0]), zero, [1, 2, 4], RIDGES)
    assert model.finite and {choice.context for choice in good} <= {2, 4}
    with pytest.raises(ValueError, match=r"no linear model of the data is finite: .*1e\+200"):
        identify(spoiled, torch.tensor([0]), zero, [1], RIDGES)


def test_matrices_that_are_not_finite_have_no_modes() -> None:
    """LAPACK would end the interpreter."""
    A = torch.eye(3, dtype=torch.float64)
    for bad in (torch.nan, torch.inf):
        A[1, 2] = bad
        for modes in (eigenvalues, eigenpairs):
            with pytest.raises(ValueError, match=r"not finite .* in row 1, column 2"):
                modes(A)


def test_what_only_an_action_brings_is_seen() -> None:
    """``z = 2 u`` of the step before, which no measurement tells: a window without an action would be blind to it."""
    gen = torch.Generator().manual_seed(0)
    u = torch.rand(8, 20, 1, generator=gen, dtype=torch.float64) - 0.5
    y = torch.zeros(8, 21, 1, dtype=torch.float64)
    for k in range(20):
        y[:, k + 1] = 0.8 * y[:, k] + 0.1 * torch.randn(8, 1, generator=gen, dtype=torch.float64)
    z = torch.cat([torch.zeros(8, 1, 1, dtype=torch.float64), 2 * u], dim=1)
    model = LinearDynamics(context=4).fit(Trajectories(y, z, u, torch.ones(8, 20, dtype=torch.bool), 1.0))
    assert model.context > 1
    now = Measurement(torch.zeros(1, dtype=torch.int64), y[:1, 5], z[:1, None, 5], u[:1, 4])
    window = Window(y[:1, 6 - model.context : 6], u[:1, 6 - model.context : 5], now)
    found = model.predict(model.init(window), torch.tensor([[[0.3], [-0.2]]], dtype=torch.float64)).z
    torch.testing.assert_close(found.flatten(), torch.tensor([0.6, -0.4], dtype=torch.float64), atol=0.01, rtol=0)
