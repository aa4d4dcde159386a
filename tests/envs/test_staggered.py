"""Flow on a staggered grid: exact projection, orders, conservation, bad input; smoke and convection on it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steersman.envs import noise
from steersman.envs.pde.rayleigh_benard import COLD, HOT, Convection, RayleighBenard, roll
from steersman.envs.pde.smoke import Smoke
from steersman.envs.pde.staggered import Faces, StaggeredGrid


def draw(grid: StaggeredGrid, seed: int, dtype: torch.dtype = torch.float64) -> Faces:
    g = torch.Generator().manual_seed(seed)
    u = torch.randn(2, grid.rows, grid.cols - 1, generator=g, dtype=dtype)
    return Faces(u, torch.randn(2, grid.rows - 1, grid.cols, generator=g, dtype=dtype))


def inner(a: Faces, b: Faces) -> Tensor:
    return (a.u * b.u).sum() + (a.v * b.v).sum()


def maze(rows: int, cols: int, seed: int) -> Tensor:
    """Random solids, among them enclosed cells."""
    solid = torch.rand(rows, cols, generator=torch.Generator().manual_seed(seed)) < 0.3
    solid[0, 0] = False
    return solid


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_projection_is_orthogonal_and_exact(rows: int, cols: int, seed: int) -> None:
    grid = StaggeredGrid(rows, cols, 0.5, maze(rows, cols, seed))
    flow = draw(grid, seed)
    after = grid.project(flow)
    again = grid.project(after)
    assert grid.divergence(after).abs().max() < 1e-10
    assert float((again.u - after.u).abs().max()) < 1e-10
    blocked = grid.solid[:, 1:] | grid.solid[:, :-1]
    assert float(after.u[:, blocked].abs().sum()) == 0.0
    gap = Faces(flow.u - after.u, flow.v - after.v)
    assert abs(float(inner(gap, grid.project(draw(grid, seed + 1))))) < 1e-9


def test_projection_in_single_precision() -> None:
    grid = StaggeredGrid(32, 32, 1.0, maze(32, 32, 3))
    assert grid.divergence(grid.project(draw(grid, 0, torch.float32))).abs().max() < 1e-4


def test_poisson_order() -> None:
    def error(cells: int) -> float:
        grid = StaggeredGrid(cells, cells, 1 / cells)
        place = math.pi * (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
        exact = torch.cos(2 * place)[:, None] * torch.cos(place)
        return float((grid.solve(-5 * math.pi**2 * exact[None])[0] - exact).abs().max())

    assert abs(math.log2(error(16) / error(32)) - 2) < 0.05


def test_advection_order_in_the_trace() -> None:
    """A parcel on a rotating disc comes back; the midpoint rule closes its circle to order 2."""
    cells = 65
    grid = StaggeredGrid(cells, cells)
    y, x = torch.meshgrid(*(torch.arange(cells, dtype=torch.float64) + 0.5 - cells / 2,) * 2, indexing="ij")
    linear = grid.faces(torch.stack([-y, x])[None] * 0.02)

    def error(dt: float) -> float:
        carried = grid.advect(linear, (x + 2 * y)[None, None], dt)[1][0, 0]
        angle = 0.02 * dt
        back_x, back_y = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        near = (x.square() + y.square()) < 15**2
        return float((carried - back_x - 2 * back_y)[near].abs().max())

    assert abs(math.log2(error(8.0) / error(4.0)) - 3) < 0.1  # local error of a method of order 2


def test_bad_grids() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        StaggeredGrid(1, 4)
    with pytest.raises(ValueError, match="spacing"):
        StaggeredGrid(4, 4, 0.0)
    with pytest.raises(ValueError, match="no fluid"):
        StaggeredGrid(4, 4, 1.0, torch.ones(4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="multiple of 64"):
        Smoke(96)
    with pytest.raises(ValueError, match="patch"):
        Smoke(64, 3)
    with pytest.raises(ValueError, match="divide the hold"):
        RayleighBenard(50, 0.03)
    with pytest.raises(ValueError, match="CFL"):
        RayleighBenard(50, 0.04)
    with pytest.raises(ValueError, match="multiple of 10"):
        RayleighBenard(48)


def test_smoke_is_conserved_and_the_fans_draw_it_out() -> None:
    """A draught out at the top and in at the sides: most smoke takes the exit at the top."""
    plant = Smoke()
    key = noise.keys(1, 2)
    wish = torch.zeros(2, len(plant.fans), dtype=torch.float64)
    for i, (x, y) in enumerate(plant.fans):
        side = 1.0 if x > 32 else -1.0
        wish[0, i] = 2 * side if y > 56 else -2 * side if 16 < y < 28 else 0.0
        wish[1, i] = -2.0 if 8 < y < 56 else 0.0
    shares = []
    for u in (torch.zeros(1, plant.actions.m, dtype=torch.float64), wish.reshape(1, -1)):
        x = plant.initial(key, {})
        for j in range(12):
            x = plant.step(torch.full((2,), j), x, u.expand(2, -1), key, {})
        assert isinstance(x, dict)
        total = x["smoke"].sum(dim=(1, 2)) + x["through"].sum(dim=1)
        assert torch.allclose(total, torch.ones(2, dtype=torch.float64), atol=1e-12)
        assert plant.grid.divergence(Faces(x["u"], x["v"])).abs().max() < 1e-10
        assert float(x["smoke"][:, plant.grid.solid].abs().max()) == 0.0
        shares.append(1 - plant.perform(key, x, {})[:, 0])
    assert (shares[0] < 0.05).all()
    assert (shares[1] > 0.2).all()


def test_fans_reach_their_own_patch() -> None:
    plant = Smoke(64, 1)
    assert plant.actions.m == 2 * 1792
    assert int((plant.reach < len(plant.fans)).sum()) == 1792
    assert plant.reach[3, 5] == plant.fans.index((5.5, 3.5))


def test_conduction_stays_where_convection_is_too_weak() -> None:
    """Below the critical Rayleigh number a disturbance dies and heat is conducted: Nu = 1."""
    flow = Convection(20, 0.1, rayleigh=1000.0)
    place = (torch.arange(20, dtype=torch.float64) + 0.5) / 20
    temperature = HOT - place[:, None] + 0.1 * torch.sin(math.pi * place)[:, None] * torch.cos(math.pi * place)
    still = (torch.zeros(1, 20, 19).double(), torch.zeros(1, 19, 20).double(), temperature[None])
    (_, v, end), _ = flow.run(still, torch.zeros(1, 20, 20).double(), torch.full((1, 20), HOT).double(), 1000)
    assert flow.heat(end) == pytest.approx(1.0, abs=1e-3)
    assert v.abs().max() < 1e-3


def test_convection_carries_the_heat_of_the_literature() -> None:
    """Nu = 2.158 in the limit of fine grids (Ouertatani et al.), and as much leaves as comes in."""
    coarse, fine = (roll(n)["T"] for n in (30, 50))
    nu = [float(Convection(n, 0.02).heat(t)) for n, t in ((30, coarse), (50, fine))]
    limit = nu[1] + (nu[1] - nu[0]) / ((50 / 30) ** 2 - 1)
    assert limit == pytest.approx(2.158, abs=0.002)
    assert 100 * nu[1] == pytest.approx(216.3, abs=0.1)  # beacon's return without control, same grid
    entering = 2 * (HOT - fine[:, 0]).mean() * 50
    assert float(entering) == pytest.approx(nu[1], abs=1e-4)
    assert fine.mean() == pytest.approx((HOT + COLD) / 2, abs=1e-6)


def test_order_of_convection_in_time() -> None:
    start = RayleighBenard(20, 0.02).initial(noise.keys(3, 1), {})
    assert isinstance(start, dict)
    hot = HOT + 0.3 * torch.cos(math.pi * torch.arange(20, dtype=torch.float64) / 20)[None]

    def end(dt: float) -> Tensor:
        flow = Convection(20, dt)
        fields, p = flow.run((start["u"], start["v"], start["T"]), start["p"], hot, round(0.4 / dt))
        fields, _ = flow.run(fields, p, hot, round(1.6 / dt))
        return fields[2]

    steps = [end(dt) for dt in (0.1, 0.05, 0.025)]
    assert math.log2(float((steps[0] - steps[1]).norm() / (steps[1] - steps[2]).norm())) > 1.75


def test_heaters_act_by_their_shape_alone() -> None:
    plant = RayleighBenard()
    u = torch.rand(3, 10, dtype=torch.float64) * 1.5 - 0.75
    plate = plant.plate(u)
    assert torch.allclose(plate.mean(dim=1), torch.full((3,), HOT, dtype=torch.float64))
    assert (plate - HOT).abs().max() <= 0.75 + 1e-12
    assert torch.equal(plant.plate(torch.full((1, 10), 0.4, dtype=torch.float64)), torch.full((1, 50), HOT).double())
