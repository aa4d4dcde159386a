"""The Kuramoto-Sivashinsky plant against an independent solver, its symmetries, and what linear control achieves."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from steersman.dynamics.truth.expansion import Expansion, linearize
from steersman.envs import noise
from steersman.envs.integrators import ETDRK4
from steersman.envs.pde import kuramoto_sivashinsky
from steersman.envs.pde.kuramoto_sivashinsky import LENGTH, LIMIT, POINTS, SITES, WIDTH, KuramotoSivashinsky
from steersman.envs.plant import Status
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import PlantSimulator

F64 = torch.float64
N = 48
DX = LENGTH / POINTS
EFFORT = 0.025


@pytest.fixture(scope="module")
def plant() -> KuramotoSivashinsky:
    return KuramotoSivashinsky(None)


@pytest.fixture(scope="module")
def bank(plant: KuramotoSivashinsky) -> Scenarios:
    return PlantSimulator(plant, N).scenarios(noise.keys(0, N))


@pytest.fixture(scope="module")
def linear(plant: KuramotoSivashinsky) -> Expansion:
    return linearize(plant, torch.zeros(1, POINTS, dtype=F64), torch.zeros(1, SITES, dtype=F64), {})


@pytest.fixture(scope="module")
def riccati(linear: Expansion) -> tuple[Tensor, Tensor]:
    """Cost-to-go matrix and feedback gain of the linear-quadratic regulator for the plant's own stage cost."""
    A, B = linear.A.numpy(), linear.B.numpy()
    Q, R = 0.25 * DX * np.eye(POINTS), EFFORT * np.eye(SITES)
    S = scipy.linalg.solve_discrete_are(A, B, Q, R)
    return torch.tensor(S), torch.tensor(np.linalg.solve(R + B.T @ S @ B, B.T @ S @ A))


def advance(plant: KuramotoSivashinsky, x: Tensor, u: Tensor, steps: int = 1) -> Tensor:
    for i in range(steps):
        k = torch.full((len(x),), i)
        x = plant.step(k, x, u, k, {})
    return x


def total_cost(plant: KuramotoSivashinsky, bank: Scenarios, policy: Callable[[Tensor], Tensor]) -> Tensor:
    sim = PlantSimulator(plant, len(bank))
    sim.reset(bank)
    total = torch.zeros(len(bank), dtype=F64)
    for _ in range(plant.horizon):
        t = sim.step(policy(sim.x))
        total += t.cost
    assert t.truncated.all() and not t.status.any()
    return total


def test_against_an_implicit_solver_on_a_finer_grid(plant: KuramotoSivashinsky, bank: Scenarios) -> None:
    """Other grid, other product, sampled forces, other time stepping: the equation is all they share."""
    fine, time = 96, 2 * plant.period
    q = 2 * math.pi / LENGTH * np.arange(fine // 2 + 1)
    x = LENGTH / fine * np.arange(fine)
    distance = x[None] - LENGTH / SITES * np.arange(SITES)[:, None]
    images = [distance + turn * LENGTH for turn in (-1, 0, 1)]
    shapes = sum(np.exp(-0.5 * (d / WIDTH) ** 2) for d in images) / (WIDTH * math.sqrt(2 * math.pi))
    a = np.linspace(-1, 1, SITES)

    def rate(_: float, u: np.ndarray) -> np.ndarray:
        v = np.fft.rfft(u)
        slope = np.fft.irfft(1j * q * v, n=fine)
        return np.fft.irfft((q**2 - q**4) * v, n=fine) - u * slope + a @ shapes

    for row in bank.x0[:2]:
        start = np.fft.irfft(np.fft.rfft(row.numpy()), n=fine) * (fine / POINTS)
        found = solve_ivp(rate, (0, time), start, method="Radau", rtol=1e-9, atol=1e-10).y[:, -1]
        ours = advance(plant, row[None], torch.tensor(a)[None], 2)[0].numpy()
        # Every third point of the fine grid is every second of ours.
        assert np.abs(ours[::2] - found[::3]).max() < 1e-5


def test_convergence_in_time(plant: KuramotoSivashinsky, bank: Scenarios) -> None:
    """Order 4 is reached below the step of the plant, whose stiff modes still lower it there."""
    spectral = kuramoto_sivashinsky._spectral(torch.device("cpu"))
    q = 2 * math.pi / LENGTH * torch.arange(POINTS // 2 + 1, dtype=F64)
    x, u = bank.x0[:8], torch.zeros(8, SITES, dtype=F64)

    def end(steps: int) -> Tensor:
        scheme = ETDRK4((q**2 - q**4).to(torch.complex128), 0.5 / steps)
        return replace(spectral, scheme=scheme).run(x, u, steps)

    exact = end(800)
    ours, coarse, fine = (float(((end(n) - exact).norm(dim=1) / exact.norm(dim=1)).max()) for n in (10, 80, 160))
    assert torch.allclose(advance(plant, x, u, 2), end(10), rtol=0, atol=1e-13)
    assert ours < 2e-6
    assert math.log2(coarse / fine) == pytest.approx(4, abs=0.3)


def test_mean_is_conserved_and_moved_by_forces_only(plant: KuramotoSivashinsky, bank: Scenarios) -> None:
    x = bank.x0
    u = noise.normal(noise.keys(3, N), SITES)
    free = advance(plant, x, torch.zeros_like(u), 40)
    assert (free.mean(dim=1) - x.mean(dim=1)).abs().max() < 1e-13
    assert (free - x).abs().max() > 1
    pushed = advance(plant, x, u, 3)
    rise = 3 * plant.period * u.sum(dim=1) / LENGTH
    assert (pushed.mean(dim=1) - x.mean(dim=1) - rise).abs().max() < 1e-13


def test_symmetries(plant: KuramotoSivashinsky, bank: Scenarios) -> None:
    x, u = bank.x0[:4], noise.normal(noise.keys(4, 4), SITES)
    moved = advance(plant, x, u, 4)
    turned = advance(plant, x.roll(POINTS // SITES, 1), u.roll(1, 1), 4)
    assert (turned - moved.roll(POINTS // SITES, 1)).abs().max() < 1e-12

    def mirror(v: Tensor) -> Tensor:
        return -v.flip(1).roll(1, 1)

    assert (advance(plant, mirror(x), mirror(u), 4) - mirror(moved)).abs().max() < 1e-12


def test_outputs(plant: KuramotoSivashinsky, bank: Scenarios) -> None:
    k = torch.zeros(N, dtype=torch.int64)
    z = plant.perform(k, bank.x0, {})
    assert torch.allclose(z[:, -1] ** 2, DX * (bank.x0**2).sum(dim=1))
    assert torch.equal(plant.measure(k, bank.x0, {})[:, 3], bank.x0[:, 24])
    # Over a sine of amplitude 2 the integral of the square is 2 L.
    wave = 2 * torch.sin(2 * math.pi * 3 / POINTS * torch.arange(POINTS, dtype=F64))[None]
    u = torch.full((1, SITES), 0.5, dtype=F64)
    z = plant.perform(k[:1], wave, {})
    cost = plant.objective.stage_cost(z, u, u, torch.zeros_like(z))
    assert cost.tolist() == pytest.approx([0.25 * (2 * LENGTH + 0.1 * SITES * 0.25)])


def test_expansion_at_the_target(plant: KuramotoSivashinsky, linear: Expansion) -> None:
    q = 2 * math.pi / LENGTH * np.array([0, *np.repeat(np.arange(1, POINTS // 2), 2), POINTS // 2])
    exact = np.sort(np.exp(plant.period * (q**2 - q**4)))
    assert np.abs(np.sort(np.linalg.eigvals(linear.A.numpy()).real) - exact).max() < 1e-12
    assert torch.isfinite(linear.Cz).all() and (linear.Cz[-1] == 0).all()
    assert linear.c.abs().max() == 0


@pytest.mark.parametrize(("every", "missing"), [(1, 0), (2, 1)])
def test_eight_sites_reach_every_unstable_mode_and_four_do_not(linear: Expansion, every: int, missing: int) -> None:
    """Popov-Belevitch-Hautus: the rank of [A - s I, B] at each eigenvalue that does not decay."""
    A = linear.A.numpy()
    inputs, outputs = linear.B.numpy()[:, ::every], linear.C.numpy()[::every].T
    values = np.linalg.eigvalsh((A + A.T) / 2)
    unstable = np.unique(values[values > 1 - 1e-9].round(9))
    assert len(unstable) == 4
    for matrix, side in ((A, inputs), (A.T, outputs)):
        lost = [POINTS - np.linalg.matrix_rank(np.hstack([matrix - s * np.eye(POINTS), side]), 1e-6) for s in unstable]
        assert sum(lost) == missing


def test_gradient(plant: KuramotoSivashinsky, bank: Scenarios) -> None:
    k = torch.zeros(1, dtype=torch.int64)
    x = bank.x0[:1].clone().requires_grad_()
    u = torch.linspace(-1, 1, SITES, dtype=F64)[None].requires_grad_()
    assert torch.autograd.gradcheck(lambda x, u: plant.perform(k, plant.step(k, x, u, k, {}), {}), (x, u))
    flat = torch.zeros(1, POINTS, dtype=F64, requires_grad=True)
    assert torch.isfinite(torch.autograd.grad(plant.perform(k, flat, {}).sum(), flat)[0]).all()


def test_scenarios_lie_on_the_attractor(plant: KuramotoSivashinsky, bank: Scenarios) -> None:
    size = bank.x0.square().mean(dim=1).sqrt()
    assert size.min() > 0.8 and size.max() < 1.8
    assert bank.x0.mean(dim=1).std() == pytest.approx(0.1 / math.sqrt(POINTS), rel=0.35)
    alone = plant.initial(bank.key[5:6], {})
    assert (alone - bank.x0[5]).abs().max() < 1e-8


def test_cost_without_control(plant: KuramotoSivashinsky, bank: Scenarios) -> None:
    """Mean 3101.5, standard deviation 203 over 1,024 other scenarios."""
    cost = total_cost(plant, bank, lambda x: x.new_zeros(len(x), SITES))
    assert float(cost.mean()) == pytest.approx(3101.5, abs=4 * 203 / math.sqrt(N))


def test_cost_of_linear_quadratic_control(
    plant: KuramotoSivashinsky, bank: Scenarios, riccati: tuple[Tensor, Tensor]
) -> None:
    """Mean 23.9, standard deviation 7.6 over 1,024 other scenarios; near the target Riccati's value is exact."""
    S, K = riccati
    cost = total_cost(plant, bank, lambda x: -x @ K.T)
    assert float(cost.mean()) == pytest.approx(23.9, abs=4 * 7.6 / math.sqrt(N))
    near = Scenarios(bank.key, {}, 1e-5 * bank.x0)
    value = torch.einsum("ni,ij,nj->n", near.x0, S, near.x0)
    assert torch.allclose(total_cost(plant, near, lambda x: -x @ K.T), value, rtol=1e-4, atol=0)


def test_cost_of_linear_quadratic_control_counted_after_the_step(
    plant: KuramotoSivashinsky, bank: Scenarios, riccati: tuple[Tensor, Tensor]
) -> None:
    """With ``z_{k+1}`` instead of ``z_k`` in the stage cost the same control costs 16.2 +- 5.3."""
    K = riccati[1]
    cost = total_cost(plant, bank, lambda x: -x @ K.T)
    # The state ends near the target, so only the first stage cost is lost.
    after = cost - 0.25 * DX * bank.x0.square().sum(dim=1)
    assert float(after.mean()) == pytest.approx(16.25, abs=4 * 5.33 / math.sqrt(N))


def test_bounded_actions_still_calm_the_chaos(bank: Scenarios, riccati: tuple[Tensor, Tensor]) -> None:
    cost = total_cost(KuramotoSivashinsky(), bank, lambda x: -x @ riccati[1].T)
    assert cost.median() < 100


def test_leaving_the_valid_range_is_a_failure_that_never_pays(plant: KuramotoSivashinsky, bank: Scenarios) -> None:
    sim = PlantSimulator(plant, N)
    sim.reset(bank)
    u = torch.zeros(N, SITES, dtype=F64)
    u[0], u[1] = 1e200, 300.0
    t = sim.step(u)
    assert t.status[:2].tolist() == [Status.DIVERGED, Status.VIOLATED] and not t.status[2:].any()
    most = 0.25 * LENGTH * LIMIT**2
    assert t.terms["failure"].tolist() == [most * plant.horizon] * 2 + [0.0] * (N - 2)
    assert torch.isfinite(sim.measure().y).all() and torch.isfinite(t.cost).all()


def test_pushing_the_mean_ends_the_episode_before_the_scheme_fails(bank: Scenarios) -> None:
    bounded, few = KuramotoSivashinsky(), bank.index(slice(0, 4))
    sim = PlantSimulator(bounded, 4)
    sim.reset(few)
    cost, largest = torch.zeros(4, dtype=F64), 0.0
    for _ in range(bounded.horizon):
        t = sim.step(torch.ones(4, SITES, dtype=F64))
        cost += t.cost
        largest = max(largest, float(t.terms["energy"].max()))
    assert t.status.tolist() == [Status.VIOLATED] * 4
    assert largest < bounded.objective.failure
    # The mean rises by 8 / 22 in each time unit; what is left of it is the waves' own height.
    assert (sim.k * bounded.period * SITES / LENGTH + bank.x0[:4].mean(dim=1)).tolist() == pytest.approx(
        [13.0] * 4, abs=2
    )
    assert torch.isfinite(cost).all()


def test_bounds() -> None:
    assert KuramotoSivashinsky().actions.upper == (1.0,) * SITES
    assert not KuramotoSivashinsky(None).actions.bounded
    for bound in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="bound must be a positive finite number, or None"):
            KuramotoSivashinsky(bound)
