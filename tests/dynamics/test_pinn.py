"""Networks in place of the swing's integration: derivatives, losses, projection, files and the export."""

import numpy as np
import pytest
import torch

from steersman.dynamics.pinn import losses
from steersman.dynamics.pinn.data import SwingGrid, collocation, dense, uniform
from steersman.dynamics.pinn.fast import FastSwing
from steersman.dynamics.pinn.network import Plain, Separable, SwingNetwork
from steersman.dynamics.pinn.operator import SwingOperator, SwingSettings
from steersman.dynamics.pinn.projection import Projection
from steersman.envs.grid.tasks.structure_preserving import FINE, LARGEST, SWING, Stage, rate, start, swing_trajectories

SMALL = {"rank": 16, "width": 24, "adam": 60, "lbfgs": 60}


@pytest.fixture(scope="module")
def data() -> SwingGrid:
    return uniform(9, 21)


@pytest.fixture(scope="module")
def operator(data: SwingGrid) -> SwingOperator:
    return SwingOperator(SwingSettings(kind="NN", **SMALL)).fit(data)


def networks() -> list[SwingNetwork]:
    gen = torch.Generator().manual_seed(0)
    return [Separable(4, 8, gen), Plain(8, gen)]


def test_data_obey_the_equations(data: SwingGrid) -> None:
    assert data.x.shape == (9, 21, 10) and torch.equal(data.x[:, 0], start(data.dP))
    fine = swing_trajectories(data.dP[:2])
    slope = (fine[:, 41] - fine[:, 39]) / (2 * FINE)
    assert (slope - data.rate[:2, 1]).abs().max() < 0.05
    with pytest.raises(ValueError, match="must divide"):
        uniform(5, 8)


@pytest.mark.parametrize("network", networks(), ids=["separable", "plain"])
def test_forward_derivative_is_the_difference_quotient(network: SwingNetwork) -> None:
    t = torch.tensor([0.003, 0.4, 1.7], dtype=torch.float64)
    dP = torch.tensor([0.3, 4.0], dtype=torch.float64)
    x0, h = start(dP), 1e-6
    _, slope = losses.with_rate(network, t, dP, x0)
    quotient = (network(t + h, dP, x0) - network(t - h, dP, x0)) / (2 * h)
    assert torch.allclose(slope, quotient, rtol=1e-5, atol=1e-6)


def test_separable_form_starts_right() -> None:
    dP = torch.tensor([0.0, 3.3], dtype=torch.float64)
    found = networks()[0](torch.zeros(1, dtype=torch.float64), dP, start(dP))
    assert torch.equal(found[:, 0], start(dP))


class Exact(SwingNetwork):
    """The integrated states themselves, interpolated to first order about the times of a grid."""

    def __init__(self, data: SwingGrid) -> None:
        super().__init__()
        self.data = data

    def forward(self, t: torch.Tensor, dP: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
        return self.data.x + (t - self.data.t)[:, None] * self.data.rate


def test_losses_vanish_at_the_solution_and_only_there(data: SwingGrid) -> None:
    points = (data.t, data.dP, start(data.dP))
    exact = Exact(data)
    wrong = Exact(SwingGrid(data.t, data.dP, data.x + 0.1, data.rate))
    for kind in ("NN", "dtNN", "PINN"):
        assert losses.make_loss(exact, data, kind, points)().item() < 1e-20
    assert losses.residual(exact, points).abs().max() < 1e-9
    found = [losses.make_loss(wrong, data, kind, points)().item() for kind in ("NN", "dtNN", "PINN")]
    assert found[0] > 1e-3 and found[1] == pytest.approx(found[0]) and found[2] >= found[1]
    tilted = Exact(SwingGrid(data.t, data.dP, data.x, 2 * data.rate))
    assert losses.make_loss(tilted, data, "NN", None)().item() < 1e-20
    assert losses.make_loss(tilted, data, "dtNN", None)().item() > 1e-3
    want = rate(data.x, data.dP[:, None].expand(9, 21), Stage.TRIPPED)
    assert torch.allclose(losses.residual(tilted, points), want)


def test_projection_is_the_best_last_layer(data: SwingGrid) -> None:
    network = networks()[0]
    assert isinstance(network, Separable)
    projection = Projection(network, data)
    promised = projection.loss().item()
    projection.solve()
    last = network.branch[-1].weight
    loss = losses.make_loss(network, data, "NN", None)
    assert loss().item() == pytest.approx(promised, rel=1e-4)
    (slope,) = torch.autograd.grad(loss(), last)
    assert slope.abs().max() < 1e-6
    with torch.no_grad():
        last += 1e-2
    assert loss().item() > promised


def test_fit_learns_and_forgets(data: SwingGrid, operator: SwingOperator) -> None:
    score = operator.score(data)
    assert score.rms < 0.02 and operator.seconds > 0
    again = SwingOperator(operator.settings).fit(data).fit(data)
    assert again.score(data).rms == pytest.approx(score.rms, rel=1e-3)


def test_physics_replaces_data() -> None:
    """From 5 x 5 states, asking the equations at collocation points takes away much of the error elsewhere."""
    test, scarce = uniform(17, 41), uniform(5, 5)
    short = {"adam": 100, "lbfgs": 20, "rank": 24, "width": 32}
    data_only = SwingOperator(SwingSettings(kind="NN", **short)).fit(scarce)
    informed = SwingOperator(SwingSettings(kind="PINN", polish=40, **short)).fit(scarce, collocation(25, 41))
    assert informed.score(test).rms < 0.7 * data_only.score(test).rms
    points = collocation(9, 11)
    assert informed.residual(points) < 0.5 * data_only.residual(points)


def test_files_keep_everything(operator: SwingOperator, tmp_path) -> None:  # type: ignore[no-untyped-def]
    operator.save(tmp_path / "swing.safetensors")
    found = SwingOperator.load(tmp_path / "swing.safetensors")
    t, dP = torch.linspace(0, 2, 5, dtype=torch.float64), torch.tensor([0.7, 5.0], dtype=torch.float64)
    assert found.settings == operator.settings and found.seconds == operator.seconds
    assert torch.equal(found.predict(t, dP), operator.predict(t, dP))


def test_export_agrees_with_torch(operator: SwingOperator) -> None:
    times, dP = np.linspace(0, 2, 21), np.array([0.2, 1.4, 5.9])
    fast = FastSwing(operator, times)
    want = operator.predict(torch.tensor(times), torch.tensor(dP)).numpy()
    assert np.abs(fast.trajectory(1.4) - want[1]).max() < 2e-4
    assert np.abs(fast.along(times[3:5].astype(np.float32), 5.9) - want[2, 3:5]).max() < 2e-4
    assert np.abs(fast.point(float(times[10]), 0.2) - want[0, 10]).max() < 2e-4
    between = (want[..., 0] + want[..., 1] - want[..., 2] - want[..., 3]) / 2
    assert np.abs(fast.peak(dP) - between.max(axis=1)).max() < 2e-4


def test_dense_grid_resolves_the_first_milliseconds() -> None:
    data = dense(5, every=80)
    assert (data.t < 0.03).sum() >= 10 and data.dP.min() == 0.0 and data.dP.max() == 6.0


def test_collocation_spans_disturbances_and_times() -> None:
    t, dP, x0 = collocation(5, 11)
    assert dP.tolist() == pytest.approx([0, LARGEST / 4, LARGEST / 2, 3 * LARGEST / 4, LARGEST])
    assert torch.equal(x0, start(dP)) and bool((t.diff() > 0).all())
    even = torch.linspace(0, SWING, 11, dtype=torch.float64)
    assert bool(torch.isin(even, t).all()) and len(t) > 20
    early = t[~torch.isin(t, even)]
    assert float(early.min()) == pytest.approx(FINE) and float(early.max()) < 40 * FINE


def test_the_residual_is_the_root_mean_square_of_the_equations(operator: SwingOperator) -> None:
    t = torch.tensor([0.2, 0.9], dtype=torch.float64)
    dP = torch.tensor([1.0, 2.5], dtype=torch.float64)
    points = (t, dP, start(dP))
    x, slope = losses.with_rate(operator.network, *points)
    gap = slope - rate(x, dP[:, None].expand(x.shape[:2]), Stage.TRIPPED)
    assert operator.residual(points) == pytest.approx(float(gap.detach().square().mean().sqrt()))


def test_bad_input_is_named(data: SwingGrid) -> None:
    with pytest.raises(ValueError, match="collocation"):
        SwingOperator(SwingSettings(kind="PINN", **SMALL)).fit(data)
    with pytest.raises(ValueError, match="rank must be"):
        SwingSettings(rank=0)
    with pytest.raises(ValueError, match="dP must lie"):
        SwingOperator(SwingSettings(**SMALL)).predict(torch.zeros(1).double(), torch.tensor([7.0]).double())
    with pytest.raises(ValueError, match="separable"):
        FastSwing(SwingOperator(SwingSettings(form="plain", width=4)), np.linspace(0, 2, 3))
