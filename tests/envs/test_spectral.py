"""Spectral plants against exact solutions."""

import math

import pytest
import torch
from torch import Tensor

from steersman.envs import make_plant, noise
from steersman.envs.checks import check_plant
from steersman.envs.pde.burgers import BurgersNotebookCompat
from steersman.envs.pde.linear import Wave, convection_diffusion_reaction, heat
from steersman.envs.pde.spectral import SpectralPlant
from steersman.envs.plant import Plant, Status
from steersman.envs.simulator import PlantSimulator

F64 = torch.float64


def ring(**changes: object) -> SpectralPlant:
    settings: dict[str, object] = {
        "length": 2 * math.pi, "points": 64, "symbol": lambda q: -0.1 * q**2, "dt": 0.05, "hold": 10, "horizon": 5,
        "start": lambda x, key: torch.sin(x).expand(len(key), -1).clone(), "sensors": (0, 16),
        "actuators": torch.ones(1, 64),
    }  # fmt: skip
    return SpectralPlant(**(settings | changes))  # type: ignore[arg-type]


def advance(plant: Plant, x: Tensor, steps: int, u: float = 0.0) -> Tensor:
    for j in range(steps):
        k = torch.full((len(x),), j)
        x = plant.step(k, x, torch.full((len(x), plant.actions.m), u, dtype=F64), k, {})  # type: ignore[assignment]
    return x


@pytest.mark.parametrize("make", [convection_diffusion_reaction, heat, Wave, BurgersNotebookCompat, ring])
def test_contract(make) -> None:  # type: ignore[no-untyped-def]
    check_plant(make(), steps=3, tolerance=1e-9)


def test_heat_and_forcing_are_exact() -> None:
    plant = ring()
    start = torch.sin(3 * plant.grid)[None]
    after = advance(plant, start, 2, u=0.7)
    torch.testing.assert_close(after, math.exp(-0.1 * 9 * 1.0) * start + 0.7, rtol=0, atol=1e-12)


def test_travelling_wave_of_burgers_and_its_order() -> None:
    """Cole and Hopf: ``u = -2 nu phi_x / phi`` with ``phi = 2 + exp(-nu t) sin x``."""
    nu, errors = 0.1, []

    def exact(x: Tensor, t: float) -> Tensor:
        decay = math.exp(-nu * t)
        return -2 * nu * decay * torch.cos(x) / (2 + decay * torch.sin(x))

    for hold in (1, 2, 4):
        plant = ring(dt=2.0 / hold, hold=hold, flux=lambda u: u.square() / 2, points=64)
        after = advance(plant, exact(plant.grid, 0.0)[None], 1)
        errors.append(float((after - exact(plant.grid, 2.0)).abs().max()))
    assert math.log2(errors[1] / errors[2]) == pytest.approx(4, abs=0.7), errors


def test_soliton_of_korteweg_and_de_vries() -> None:
    """``u_t = -u_xxx - 6 u u_x`` moves ``c / 2 sech^2(sqrt(c) (x - c t) / 2)``: the symbol is imaginary."""
    c, length, errors = 4.0, 30.0, []
    for hold in (400, 800):
        plant = ring(
            length=length, points=192, symbol=lambda q: torch.complex(torch.zeros_like(q), q**3), dt=1.0 / hold,
            hold=hold, flux=lambda u: 3 * u.square(), actuators=torch.ones(1, 192), sensors=(0,),
        )  # fmt: skip
        gap = (plant.grid - 10.0 + length / 2) % length - length / 2
        start = c / 2 / torch.cosh(math.sqrt(c) / 2 * gap).square()
        moved = (plant.grid - 10.0 - c + length / 2) % length - length / 2
        after = advance(plant, start[None], 1)[0]
        errors.append(float((after - c / 2 / torch.cosh(math.sqrt(c) / 2 * moved).square()).abs().max()))
        assert float(after.mean() - start.mean()) == pytest.approx(0, abs=1e-12)
    assert errors[1] < 1e-5 and math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.5), errors


def test_source_term_is_a_reaction() -> None:
    """``u' = u - u^3`` from a constant: ``u = 1 / sqrt(1 + (1 / u0^2 - 1) exp(-2 t))``."""
    plant = ring(symbol=torch.ones_like, source=lambda u: -(u**3), dt=0.01, hold=100)
    after = advance(plant, torch.full((1, 64), 0.2, dtype=F64), 1)
    assert float(after[0, 5]) == pytest.approx(1 / math.sqrt(1 + 24 * math.exp(-2.0)), abs=1e-8)


def test_waves_keep_their_speed_and_decay_slowly() -> None:
    plant = Wave()
    x = torch.arange(100, dtype=F64) / 100
    start = torch.cat([torch.cos(2 * math.pi * x), torch.zeros(100, dtype=F64)])[None]
    q = 2 * math.pi
    rate, t = 2e-4 * q**2 / 2, 2.0
    speed = math.sqrt(0.01 * q**2 - rate**2)
    want = math.exp(-rate * t) * (math.cos(speed * t) + rate / speed * math.sin(speed * t))
    after = advance(plant, start, 20)
    torch.testing.assert_close(after[0, :100], want * torch.cos(2 * math.pi * x), rtol=0, atol=1e-10)


def test_notebook_task_without_control() -> None:
    """Mean 310, standard deviation 59 over ten seeds in the peer; the same distribution within four standard errors."""
    plant = make_plant("steersman/BurgersNotebookCompat-v1")
    sim = PlantSimulator(plant, 48)
    sim.reset(sim.scenarios(noise.keys(0, 48)))
    cost = torch.zeros(48, dtype=F64)
    y0 = sim.measure().y
    for _ in range(plant.horizon):
        cost = cost + sim.step(torch.zeros(48, 8, dtype=F64)).cost
    assert float(cost.mean()) == pytest.approx(310, abs=4 * 59 * (1 / 10 + 1 / 48) ** 0.5)
    assert float((sim.measure().y - y0).std()) > 0.2


def test_the_notebook_measures_the_state_before() -> None:
    plant = BurgersNotebookCompat()
    key = noise.keys(0, 1)
    x = plant.initial(key, plant.params(key))
    after = plant.step(torch.zeros(1).long(), x, torch.zeros(1, 8, dtype=F64), key, {})
    assert torch.equal(after["seen"], x["u"])  # type: ignore[call-overload, index]


def test_blow_up_is_confined_to_its_row() -> None:
    plant = ring(flux=lambda u: u.square() / 2, bound=None, limit=5.0)
    sim = PlantSimulator(plant, 3)
    sim.reset(sim.scenarios(noise.keys(0, 3)))
    calm = torch.zeros(3, 1, dtype=F64)
    alone = PlantSimulator(plant, 3)
    alone.reset(alone.scenarios(noise.keys(0, 3)))
    alone.step(calm)
    wild = calm.clone()
    wild[0], wild[1] = 1e200, 12.0
    t = sim.step(wild)
    assert t.status.tolist() == [Status.DIVERGED, Status.VIOLATED, Status.OK]
    assert torch.equal(sim.x[2], alone.x[2]) and bool(torch.isfinite(sim.measure().y).all())  # type: ignore[index]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": 7}, "points must be an even number"),
        ({"length": -1.0}, "length must be a positive"),
        ({"dt": math.nan}, "dt must be a positive"),
        ({"hold": 0}, "hold and horizon"),
        ({"actuators": torch.ones(1, 3)}, r"actuators must have shape \[m, 64\]"),
        ({"sensors": (64,)}, "sensors must be grid indices"),
        ({"bound": 0.0}, "bound must be positive"),
    ],
)
def test_bad_arguments(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ring(**changes)
