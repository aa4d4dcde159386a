"""What a fit to rollouts follows: predictions, not readouts that are exact, nor the few rows that nobody foresees."""

import pytest
import torch
from torch import Tensor

from steersman.dynamics.base import Trajectories
from steersman.dynamics.windowed.base import Batches, divided, huber
from steersman.dynamics.windowed.neural import NeuralDynamics, NeuralSettings
from steersman.dynamics.windowed.windows import cut, starts, window_at


def swings(episodes: int, seed: int, shocks: float = 0.0, steps: int = 60) -> tuple[Tensor, Tensor]:
    """A curved map of one output that is pushed, with rare jumps; outputs ``[n, steps + 1, 1]`` and actions."""
    gen = torch.Generator().manual_seed(seed)
    u = 2 * torch.rand(episodes, steps, 1, generator=gen, dtype=torch.float64) - 1
    jumps = 3 * torch.randn(u.shape, generator=gen, dtype=torch.float64)
    jumps = torch.where(torch.rand(u.shape, generator=gen, dtype=torch.float64) < shocks, jumps, 0.0)
    y = [torch.zeros(episodes, 1, dtype=torch.float64)]
    for k in range(steps):
        y.append(0.4 * y[-1] + 0.4 * torch.sin(2 * y[-1]) + 0.5 * u[:, k] + jumps[:, k])
    return torch.stack(y, dim=1), u


def fitted(y: Tensor, u: Tensor, z: Tensor) -> NeuralDynamics:
    data = Trajectories(y, z, u, torch.ones(u.shape[:2], dtype=torch.bool), 1.0)
    return NeuralDynamics(NeuralSettings(context=1, hidden=(32, 32), members=1, steps=500, rate=5e-3)).fit(data)


def miss(model: NeuralDynamics, ahead: int = 4) -> float:
    """Median error of predictions some steps ahead, on new episodes without jumps."""
    y, u = swings(8, seed=7)
    data = Trajectories(y, y, u, torch.ones(u.shape[:2], dtype=torch.bool), 1.0)
    rows = starts(data.valid, 1, ahead)
    with torch.no_grad():
        found, _ = model.rollout(model.init(window_at(data, rows, 1)), cut(u, rows, 0, ahead))
    return float((found - cut(y, rows, 1, ahead)).abs().median())


def test_the_loss_of_a_readout_does_not_depend_on_what_is_predicted() -> None:
    """In units of what an affine readout leaves, errors of predicted outputs would be all that there is in the loss."""
    y, u = swings(24, seed=1)
    data = Trajectories(y, y, u, torch.ones(u.shape[:2], dtype=torch.bool), 1.0)
    model = NeuralDynamics(NeuralSettings(context=2))
    model._prepare(data)
    model._normalise(data, padded := model._pad(data, 3))
    batches = Batches(model, padded, ahead=3, members=1, batch=4, validation=0.2, gen=torch.Generator().manual_seed(0))

    def readout(x: Tensor, z: Tensor) -> Tensor:
        return 1e8 * (x[..., 1:2] * model.y_std_.float() + model.y_mean_.float() - z).square().mean(dim=2)

    for change in (lambda x, _: 0 * x[..., :1], lambda x, _: 100 * x[..., :1]):
        bare, whole = (batches.error(change, batches.rows, part) for part in (None, readout))
        assert float(whole - bare) < 1e-3


def test_what_the_ridge_leaves_of_an_exact_readout_is_not_learnt() -> None:
    """The difference of outputs that move together needs large coefficients, which the ridge makes smaller."""
    y, u = swings(24, seed=1)
    y = torch.cat([y, y + 3e-3 * torch.sin(40 * y)], dim=-1)
    model = fitted(y, u, y[..., 1:] - y[..., :1])
    assert float(model.z_scale_) == 0.0


def test_jumps_that_nobody_foresees_do_not_drown_the_rest() -> None:
    """Of a fiftieth of the steps; with squared errors the median error is more than twice as large."""
    y, u = swings(24, seed=1, shocks=0.02)
    assert miss(fitted(y, u, y)) < 0.025


def test_the_loss_is_the_square_of_small_errors_and_straight_for_large_ones() -> None:
    error = torch.tensor([-40.0, -1.0, -0.3, 0.0, 0.5, 1.0, 3.0])
    assert huber(error).tolist() == pytest.approx([79.0, 1.0, 0.09, 0.0, 0.25, 1.0, 5.0])


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5])
def test_whole_episodes_of_every_part_of_the_data_are_held_back(share: float) -> None:
    """Data that are joined come part by part: the last part must be learnt from, and the first one judged by, too."""
    rows = starts(torch.ones(40, 9, dtype=torch.bool), 2, 1)
    train, held = divided(rows, share)
    assert sorted([*train.tolist(), *held.tolist()]) == rows.tolist()
    back = held[:, 0].bincount().nonzero().flatten()
    assert not torch.isin(train[:, 0], back).any()
    assert len(back) == round(share * 40)
    halves = [int((back < 20).sum()), int((back >= 20).sum())]
    assert min(halves) >= 1 and max(halves) - min(halves) <= 1


def test_the_end_of_a_single_episode_is_held_back() -> None:
    rows = starts(torch.ones(1, 20, dtype=torch.bool), 1, 1)
    train, held = divided(rows, 0.15)
    assert held.tolist() == [[0, 17], [0, 18], [0, 19]]
    assert len(train) == 17
    train, held = divided(rows[:2], 0.9)
    assert len(train) == len(held) == 1
