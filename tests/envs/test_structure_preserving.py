"""The structure-preserving two areas against another solver, their own invariants, and the plant on them."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from steersman.envs import noise
from steersman.envs.checks import check_plant
from steersman.envs.grid.tasks import structure_preserving as grid
from steersman.envs.grid.tasks.redispatch import BLOCK, INSECURE, LIMIT, PreventiveRedispatch
from steersman.envs.grid.tasks.structure_preserving import (
    ANGLES,
    DAMPING,
    FREQUENCY,
    INERTIA,
    LINES,
    POWER,
    VOLTAGE,
    Stage,
)
from steersman.envs.simulator import PlantSimulator

F64 = torch.float64


def loop_rate(t: float, x: np.ndarray, dP: float, stage: Stage) -> np.ndarray:
    """The equations node by node and line by line, as they are printed."""
    angle, speed = x[list(ANGLES)], x[4:8]
    surplus = np.array(POWER)
    surplus[4] += dP
    for i, j, B in LINES:
        tie = 2 / 3 if (stage == Stage.TRIPPED and (i, j) == (4, 5)) else 1.0
        voltage = [0.0 if (stage == Stage.SHORT and node == 5) else VOLTAGE[node] for node in (i, j)]
        flow = voltage[0] * voltage[1] * tie * B * np.sin(angle[i] - angle[j])
        surplus[i] -= flow
        surplus[j] += flow
    mean = sum(H * w for H, w in zip(INERTIA, speed, strict=True)) / sum(INERTIA)
    machines = [surplus[i] * FREQUENCY / (2 * INERTIA[i]) for i in range(4)]
    return np.array([*(speed - mean), *machines, surplus[4] / DAMPING[0], surplus[5] / DAMPING[1]])


def test_rate_is_the_printed_equation() -> None:
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(3, 10, generator=gen, dtype=F64)
    dP = torch.tensor([0.0, 2.0, 6.0], dtype=F64)
    for stage in Stage:
        want = np.array([loop_rate(0.0, x[i].numpy(), dP[i].item(), stage) for i in range(3)])
        assert grid.rate(x, dP, stage).numpy() == pytest.approx(want, rel=1e-12, abs=1e-10)


def test_trajectories_match_dop853() -> None:
    def rate(t: float, x: np.ndarray, dP: float, stage: Stage) -> np.ndarray:
        A, C, G, c, e = matrices[stage]
        return x @ A + np.sin(x @ C) @ G + c + dP * e

    matrices = {stage: grid.matrices(stage) for stage in Stage}
    exact = {"method": "DOP853", "rtol": 1e-10, "atol": 1e-10}
    disturbances = torch.tensor([1.65, 6.0], dtype=F64)
    fine = grid.swing_trajectories(disturbances, every=40).numpy()
    coarse = grid.swing_trajectories(disturbances, h=0.005, every=20).numpy()
    times = np.linspace(0, grid.SWING, 21)
    for row, dP in enumerate(disturbances.tolist()):
        x = np.array(grid.equilibrium())
        for stage, seconds in ((Stage.SOUND, grid.SETTLING), (Stage.SHORT, grid.SHORT)):
            x = solve_ivp(rate, (0, seconds), x, args=(dP, stage), **exact).y[:, -1]
        want = solve_ivp(rate, (0, grid.SWING), x, args=(dP, Stage.TRIPPED), t_eval=times, **exact).y.T
        assert fine[row, 0] == pytest.approx(x, abs=1e-6)
        assert np.abs(fine[row, :, list(ANGLES)] - want[:, list(ANGLES)].T).max() < 5e-5
        assert np.abs(coarse[row] - want).max() < 2e-3


def test_equilibrium_rests() -> None:
    x = torch.tensor([grid.equilibrium()], dtype=F64)
    assert grid.rate(x, torch.zeros(1, dtype=F64), Stage.SOUND).abs().max() < 1e-10


def test_momentum_balances() -> None:
    """Lossless lines: what drives the mean speed is the disturbance, less what the loads' frequencies take."""
    dP = torch.tensor([0.5, 3.0], dtype=F64)
    x = grid.swing_trajectories(dP, every=200)
    mass = 2 * torch.tensor(INERTIA, dtype=F64) / FREQUENCY
    momentum = x[..., 4:8] @ mass + x[..., 8:] @ torch.tensor(DAMPING, dtype=F64)
    time = torch.linspace(0, grid.SWING, x.shape[1], dtype=F64)
    assert (momentum - momentum[:, :1] - dP[:, None] * time).abs().max() < 1e-9


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="dP must lie in 0"):
        grid.start(torch.tensor([6.5], dtype=F64))
    with pytest.raises(ValueError, match="step h"):
        grid.swing_trajectories(torch.ones(1, dtype=F64), h=0.02)
    with pytest.raises(ValueError, match="dt must divide"):
        PreventiveRedispatch(dt=0.003)


def test_contract() -> None:
    check_plant(PreventiveRedispatch(dt=0.01), n=4, steps=1)


def test_storage_buys_security() -> None:
    """A large surplus loses synchronism after each contingency; four blocks against 2.6 pu prevent that and cost four."""
    plant = PreventiveRedispatch(dt=0.01)
    simulator = PlantSimulator(plant, 2)
    scenarios = simulator.scenarios(noise.keys(0, 2))
    scenarios.p["forecast"] = torch.full_like(scenarios.p["forecast"], 2.6)
    simulator.reset(scenarios)
    blocks = torch.tensor([[0.0], [4.0]], dtype=F64)
    cost = torch.stack([simulator.step(blocks).cost for _ in range(3)])
    assert cost[:, 0].tolist() == pytest.approx([0.0, INSECURE, INSECURE])
    assert cost[:, 1].tolist() == pytest.approx([4.0] * 3)
    last = plant.objective.terminal_cost(simulator.perform(), torch.zeros(2, 1, dtype=F64))
    assert last.tolist() == pytest.approx([INSECURE, 0.0])


def test_peak_swing_is_the_peak_of_the_trajectory() -> None:
    dP = torch.tensor([0.2, 1.3, 1.5, 2.6], dtype=F64)
    peak = grid.peak_swing(dP)
    fine = grid.area_angle(grid.swing_trajectories(dP)).amax(dim=1)
    assert (peak - fine).abs().max() < 2e-3
    assert (peak[1] < LIMIT) and (peak[2] > LIMIT) and (peak.diff() > 0).all() and BLOCK == 0.5


def test_gradient_of_the_start() -> None:
    dP = torch.tensor([0.0, 2.0, 6.0], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: grid.start(0.5 + 0.9 * d), dP)
