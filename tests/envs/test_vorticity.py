"""Two-dimensional flow: exact decay, orders, conservation, gradients, bad input; and the plant on it."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from steersman.envs import noise
from steersman.envs.pde.kolmogorov import KolmogorovFlow
from steersman.envs.pde.vorticity import Scheme, VorticityFlow


def eddies(flow: VorticityFlow) -> Tensor:
    """A smooth field of several waves, whose modes interact."""
    y, x = flow.axis[:, None], flow.axis[None]
    field = (
        torch.sin(x) * torch.cos(2 * y) + 0.6 * torch.cos(3 * x + y) + 0.8 * torch.sin(2 * x - 2 * y + 1) + torch.cos(y)
    )
    return field[None]


def zero(flow: VorticityFlow) -> Tensor:
    return torch.zeros(1, flow.points, flow.points, dtype=torch.float64)


@pytest.mark.parametrize("scheme", ["ab2cn", "rk4if"])
def test_taylor_green_decays_exactly(scheme: Scheme) -> None:
    """``omega = 2 k^2 cos(k x) cos(k y) / k`` does not advect itself and decays by ``exp(-(2 nu k^2 + drag) t)``."""
    flow = VorticityFlow(32, 0.05, 0.01, 1.0, drag=0.1, scheme=scheme)
    y, x = flow.axis[:, None], flow.axis[None]
    start = (2 * torch.cos(2 * x) * torch.cos(2 * y))[None]
    after = flow.run(start, zero(flow), 100)
    error = (after - start * math.exp(-(2 * 0.05 * 4 + 0.1))).abs().max()
    assert error < (1e-4 if scheme == "ab2cn" else 1e-12)
    u, v = flow.velocity(start)[0]
    assert torch.allclose(u, -0.5 * torch.cos(2 * x) * torch.sin(2 * y), atol=1e-12)
    assert torch.allclose(v, 0.5 * torch.sin(2 * x) * torch.cos(2 * y), atol=1e-12)


@pytest.mark.parametrize(("scheme", "order", "coarse"), [("ab2cn", 2, 0.02), ("rk4if", 4, 0.08)])
def test_order_where_waves_interact(scheme: Scheme, order: int, coarse: float) -> None:
    def end(dt: float) -> Tensor:
        flow = VorticityFlow(32, 0.02, dt, 0.5, scheme=scheme)
        return flow.run(eddies(flow), 0.5 * eddies(flow).roll(3, 2), round(0.8 / dt))

    steps = [end(coarse / 2**i) for i in range(3)]
    errors = [float((a - b).norm()) for a, b in pairwise(steps)]
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.25


def test_conservation_without_viscosity() -> None:
    flow = VorticityFlow(32, 0.0, 0.005, 2.0, scheme="rk4if")
    start = eddies(flow)
    after = flow.run(start, zero(flow), 100)
    assert (after - start).abs().max() > 0.5
    energy = [float(flow.velocity(w).square().mean()) for w in (start, after)]
    enstrophy = [float(w.square().mean()) for w in (start, after)]
    assert energy[1] == pytest.approx(energy[0], rel=1e-10)
    assert enstrophy[1] == pytest.approx(enstrophy[0], rel=1e-9)
    assert abs(float(after.mean())) < 1e-12


def test_single_precision_follows_double() -> None:
    flow = VorticityFlow(32, 0.02, 0.01, 1.0)
    double, single = (flow.run(eddies(flow).to(d), zero(flow).to(d), 50) for d in (torch.float64, torch.float32))
    assert single.dtype == torch.float32 and (double - single).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"points": 7}, "even"),
        ({"viscosity": -1.0}, "viscosity"),
        ({"viscosity": math.nan}, "viscosity"),
        ({"dt": 0.0}, "dt must be"),
        ({"dt": 0.1, "speed": 5.0}, "Courant.*choose dt <="),
        ({"viscosity": 1e-4}, "do not resolve.*points"),
        ({"drag": -0.1}, "drag"),
    ],
)
def test_bad_input(given: dict[str, float | str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        VorticityFlow(**({"points": 32, "viscosity": 0.05, "dt": 0.01, "speed": 1.0} | given))  # type: ignore[arg-type]


def test_remedy_of_an_unresolved_grid_works() -> None:
    with pytest.raises(ValueError, match="take") as caught:
        VorticityFlow(32, 1e-3, 0.001, 2.0)
    needed = int(str(caught.value).split("take ")[1].split()[0])
    assert VorticityFlow(needed, 1e-3, 0.001, 2.0).points == needed
    with pytest.raises(ValueError, match="multiple of 8"):
        KolmogorovFlow(60)


def test_gradient_of_the_plant_and_rows_apart() -> None:
    plant = KolmogorovFlow()
    key = noise.keys(1, 2)
    x = plant.initial(key, {})
    assert isinstance(x, Tensor)
    k = torch.zeros(2, dtype=torch.int64)
    u = torch.zeros(2, 16, dtype=torch.float64, requires_grad=True)

    def cost(action: Tensor) -> Tensor:
        return plant.perform(k, plant.step(k, x, action, key, {}), {})[0, 0]

    (slope,) = torch.autograd.grad(cost(u), u)
    h = 1e-5
    push = torch.zeros_like(u)
    push[0, 5] = h
    with torch.no_grad():
        difference = (cost(u + push) - cost(u - push)) / (2 * h)
    assert float(slope[0, 5]) == pytest.approx(float(difference), rel=1e-5, abs=1e-9)
    broken = x.clone()
    broken[1] = math.nan
    with torch.no_grad():
        assert torch.equal(plant.step(k, broken, u, key, {})[0], plant.step(k, x, u, key, {})[0])  # type: ignore[index]
    assert plant.status(k, 4 * x, {}).tolist() != [0, 0]


def test_torques_calm_the_flow() -> None:
    """Against the local vorticity, as its sensors tell it."""
    plant = KolmogorovFlow()
    key = noise.keys(3, 4)
    rms = {}
    for gain in (0.0, 0.5):
        x, k = plant.initial(key, {}), torch.zeros(4, dtype=torch.int64)
        for _ in range(50):
            y = plant.measure(k, x, {}).reshape(-1, 8, 8)
            u = plant.actions.project(-gain * y[:, 1::2, 1::2].flatten(1))
            x = plant.step(k, x, u, key, {})
        rms[gain] = float(plant.perform(k, x, {})[:, 1].mean())
    assert rms[0.5] < 0.85 * rms[0.0]
