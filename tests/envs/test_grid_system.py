"""Machines on networks: ANDES's trajectories and eigenvalues, Kundur's book, conservation, events, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from steersman.envs.grid.events import Event, Fault, GeneratorTrip, LineTrip, LoadStep, phases
from steersman.envs.grid.machines.group import Unit
from steersman.envs.grid.machines.models import Classical, GridForming, SubTransient, TwoAxis
from steersman.envs.grid.machines.regulators import DCExciter, Stabiliser, StaticExciter
from steersman.envs.grid.modes import Modes, modes, ringdown, state_matrix
from steersman.envs.grid.network.admittance import admittance, power_flow, real_form
from steersman.envs.grid.simulate import integrate, intervals
from steersman.envs.grid.system import GridSystem, LoadModel, Network, Orders
from steersman.envs.grid.tasks import ieee39, kundur_full
from steersman.envs.grid.tasks.two_area_full import AREA_LINES

REFERENCE = np.load(Path(__file__).parent / "data" / "andes_kundur.npz")
"""Written by experiments/benchmarks/andes_reference.py."""
ONE = torch.ones(1, dtype=torch.float64)
FIRST, SECOND = AREA_LINES


def simulate(
    system: GridSystem, events: list[Event], *, n: int = 1, seconds: float = 5.0, dt: float = 0.005, every: float = 0.05
) -> Tensor:
    """States at multiples of ``every``, ``[samples, n, states]``."""
    point = system.operate(torch.ones(n, dtype=torch.float64))
    changes = phases(system, point, events)
    orders = Orders(point.voltage.T, point.power.T, point.held.T)
    x, out = point.x, [point.x]
    for k in range(round(seconds / every)):
        now = torch.full((n,), k * every, dtype=torch.float64)
        pieces = intervals(now, every, round(every / dt), changes.edges)
        x = integrate(system, x, orders, changes.network, pieces, system.demand(point))
        out.append(x)
    return torch.stack(out)


def linear(system: GridSystem) -> Modes:
    point = system.operate(ONE)
    return modes(state_matrix(system, point, phases(system, point, []).network[:, 0]))


def oscillations(found: Modes, low: float = 2.0, high: float = 12.0) -> list[complex]:
    return [z for z in found.eigenvalues.tolist() if low < z.imag < high]


# ------------------------------------------------------------------ against ANDES


@pytest.mark.parametrize(
    ("name", "event", "degrees", "speed"),
    [
        ("full_trip", LineTrip(SECOND, 2.0), 0.01, 1e-5),
        ("classical_trip", LineTrip(FIRST, 2.0), 0.01, 1e-5),
        ("classical_fault", Fault(8, 1.0, 0.1), 0.01, 1e-5),
        ("full_fault", Fault(8, 1.0, 0.1), 0.3, 1e-4),  # ANDES itself is of first order at the edges of a fault
    ],
)
def test_trajectories_of_andes(name: str, event: Event, degrees: float, speed: float) -> None:
    system = kundur_full.full() if name.startswith("full") else kundur_full.classical()
    x = simulate(system, [event])[:, 0]
    angle, reference = x[:, :4], torch.as_tensor(REFERENCE[name])
    gap = (angle - angle[:, :1]) - (reference[:, 1:5] - reference[:, 1:2])
    assert torch.rad2deg(gap).abs().max() < degrees
    assert (x[:, 4:8] - reference[:, 5:]).abs().max() < speed
    assert torch.rad2deg(angle - angle[:, :1]).abs().max() > 20  # something happened


def test_eigenvalues_of_andes() -> None:
    ours = np.array([z for z in linear(kundur_full.full()).eigenvalues.tolist() if z.imag > 0.1])
    theirs = REFERENCE["eigenvalues"]
    theirs = theirs[theirs.imag > 0.1]
    assert len(ours) == len(theirs) == 10
    assert max(np.abs(theirs - z).min() for z in ours) < 1e-3


def test_power_flow_of_andes() -> None:
    """ANDES adds 1e-8 to every resistance and reactance; with that the voltages are the same to rounding."""
    system = kundur_full.full()
    point = system.operate(ONE)
    assert np.abs(point.V[0].abs().numpy() - REFERENCE["voltage"]).max() < 1e-6
    assert point.voltage[0].tolist() == pytest.approx([1.09483, 1.10098, 1.10129, 1.09257], abs=1e-5)
    lines = system.case.branches
    shifted = replace(system.case, branches=replace(lines, r=lines.r + 1e-8, x=lines.x + 1e-8))
    V = power_flow(shifted, torch.as_tensor(shifted.buses.load)[None], torch.as_tensor(shifted.generators.p)[None])
    assert np.abs(V[0].abs().numpy() - REFERENCE["voltage"]).max() < 1e-12


@pytest.mark.parametrize(
    ("make", "brackets"),
    [
        (kundur_full.full, {5: (0.37, 0.39), 7: (0.48, 0.50), 8: (0.61, 0.63)}),
        (kundur_full.classical, {5: (0.50, 0.51), 7: (0.635, 0.645)}),
    ],
)
def test_critical_clearing_times_lie_in_andes_brackets(
    make: Callable[[], GridSystem], brackets: dict[int, tuple[float, float]]
) -> None:
    bus = torch.tensor(list(brackets)).repeat_interleave(2)
    duration = torch.tensor(list(brackets.values()), dtype=torch.float64).flatten()
    x = simulate(make(), [Fault(bus, 0.0, duration)], n=len(bus), every=0.1)
    spread = (x[..., :4].amax(dim=2) - x[..., :4].amin(dim=2)).amax(dim=0)
    assert (spread > math.pi).tolist() == [False, True] * len(brackets)


def test_frequency_after_a_load_step() -> None:
    """Both tools give 59.8598 Hz at 4.79 s for 1 pu at bus 7."""
    system = kundur_full.full()
    speed = simulate(system, [LoadStep(7, 1.0, 1.0)], seconds=6.0)[:, 0, 4:8]
    centre = 60 * (1 + speed @ torch.as_tensor(system.inertia / system.inertia.sum()))
    assert float(centre.min()) == pytest.approx(59.8598, abs=2e-4)
    assert float(centre.argmin()) * 0.05 == pytest.approx(4.79, abs=0.05)


# ------------------------------------------------------------------ against the book


def test_inter_area_mode_of_kundur() -> None:
    """Example 12.6, manual excitation: -0.111 +- j3.43; frequency within 1 %, real part within 0.01."""
    (mode, *local) = oscillations(linear(kundur_full.book()))
    assert mode.imag == pytest.approx(3.43, rel=0.01)
    assert mode.real == pytest.approx(-0.111, abs=0.01)
    assert [z.imag / (2 * math.pi) for z in local] == pytest.approx([1.087, 1.117], rel=0.015)


def test_exciters_and_stabilisers_of_kundur() -> None:
    """A thyristor exciter takes the damping away (+0.031 +- j3.84), stabilisers give 13 %."""
    exciter = StaticExciter(ka=200, ta=0.001, tr=0.01)
    (fast, *_) = oscillations(linear(kundur_full.book(exciter)))
    assert (fast.real, fast.imag) == (pytest.approx(0.031, abs=0.01), pytest.approx(3.84, rel=0.01))
    stabiliser = Stabiliser(k=20, tw=10, t1=0.05, t2=0.02, t3=3.0, t4=5.4)
    (steady, *_) = oscillations(linear(kundur_full.book(exciter, stabiliser)))
    assert -steady.real / abs(steady) == pytest.approx(0.13, abs=0.01)


def test_operating_point_of_kundur() -> None:
    point = kundur_full.book().operate(ONE)
    assert torch.rad2deg(point.V[0, :4].angle()).tolist() == pytest.approx([20.27, 10.51, -6.8, -16.99], abs=5e-3)


def test_new_england_power_flow() -> None:
    """MATPOWER's solution of case39 at buses 1 and 39."""
    V = ieee39.classical().operate(ONE).V[0]
    assert V.abs()[[0, 28]].tolist() == pytest.approx([1.0393836, 1.0501149], abs=1e-6)
    assert torch.rad2deg(V.angle())[[0, 38]].tolist() == pytest.approx([-13.536602, -14.535256], abs=1e-5)


# ------------------------------------------------------------------ consistency


def systems() -> list[GridSystem]:
    case = kundur_full.case()
    salient = TwoAxis(h=6.5, xd=1.8, xq=1.7, x1d=0.3, x1q=0.55, t1d0=8.0, t1q0=0.4, ra=0.002, d=1.0)
    saturated = kundur_full.machine(6.5, ra=0.002, xl=0.06, s10=0.04, s12=0.2)
    inverter = GridForming(x=0.15, mp=0.02, mq=0.05, tp=0.05)
    exciter = DCExciter(tr=0.02, ka=20, ta=0.02, ke=1, te=0.83, kf=0.0754, tf=1.246, vmin=-4, vmax=6, se1=0.05, se2=0.2)
    stabiliser = Stabiliser(k=5, tw=10, t1=0.1, t2=0.05, t3=0.1, t4=0.05)
    mixed = [
        Unit(0, saturated, exciter, kundur_full.unit(0).governor, stabiliser),
        Unit(1, salient, StaticExciter(ka=50)),
        Unit(2, inverter),
        Unit(3, Classical(h=6.0, x1d=0.3, d=2.0)),
    ]
    round_ = [u if not isinstance(u.machine, TwoAxis) else replace(u, machine=replace(salient, x1q=0.3)) for u in mixed]
    zip_model = LoadModel(power=(0.5, 0.3), current=(0.3, 0.2))
    return [
        kundur_full.full(),
        kundur_full.classical(),
        GridSystem(case, mixed),
        GridSystem(case, round_, loads=zip_model),
        ieee39.regulated(),
    ]


@pytest.mark.parametrize("system", systems(), ids=["full", "classical", "mixed", "loads", "new england"])
def test_equilibria_stay_and_numpy_equals_torch(system: GridSystem) -> None:
    point = system.operate(torch.tensor([1.0, 0.95], dtype=torch.float64))
    changes = phases(system, point, [Fault(int(system.case.buses.id[5]), 0.2, 0.05)])
    orders = Orders(point.voltage.T, point.power.T, point.held.T)
    demand = system.demand(point)

    def run(rows: slice, until: float) -> Tensor:
        now = torch.zeros(len(point.x[rows]), dtype=torch.float64)
        pieces = intervals(now, until, round(until / 0.005), changes.edges[rows])
        held = Orders(*(part[:, rows] for part in orders))
        kept = None if demand is None else demand[..., rows]
        return integrate(system, point.x[rows], held, changes.network[rows], pieces, kept)

    assert (run(slice(0, 2), 0.2) - point.x).abs().max() < 1e-9
    both = run(slice(0, 2), 0.4)
    assert (both - point.x).abs().max() > 1e-3
    alone = torch.cat([run(slice(0, 1), 0.4), run(slice(1, 2), 0.4)])
    assert torch.allclose(both, alone, rtol=1e-9, atol=1e-10)


def test_nystrom_equals_runge_kutta_and_both_have_order_four() -> None:
    nystrom = kundur_full.classical()
    damped = GridSystem(nystrom.case, [replace(u, machine=replace(u.machine, d=1e-12)) for u in nystrom.order])
    assert nystrom.undamped and not damped.undamped
    event: list[Event] = [Fault(8, 0.1234, 0.0777), LineTrip(4, 0.2011)]

    def end(system: GridSystem, dt: float) -> Tensor:
        return simulate(system, event, seconds=1.0, dt=dt, every=0.1)[-1, 0, :4]

    exact = end(nystrom, 0.001)
    assert (end(damped, 0.001) - exact).abs().max() < 1e-9
    for system in (nystrom, damped):
        coarse, fine = ((end(system, dt) - exact).abs().max() for dt in (0.05, 0.025))
        assert 3.5 < math.log2(coarse / fine) < 5.0


def test_gradient_through_a_fault() -> None:
    """Against central differences of the same program, in float64."""
    system = kundur_full.full()
    point = system.operate(torch.ones(2, dtype=torch.float64))
    changes = phases(system, point, [Fault(8, 0.1, 0.05)])
    pieces = intervals(torch.zeros(2, dtype=torch.float64), 0.4, 40, changes.edges)

    def loss(move: Tensor) -> Tensor:
        orders = Orders((point.voltage + move).T, point.power.T, point.held.T)
        return integrate(system, point.x, orders, changes.network, pieces)[:, 4:8].square().sum() * 1e4

    move = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(move), move)
    step = torch.zeros(2, 4, dtype=torch.float64)
    step[0, 2] = 1e-5
    central = (loss(step) - loss(-step)) / 2e-5
    assert float(slope[0, 2]) == pytest.approx(float(central), rel=1e-5)


def test_power_flow_is_differentiable() -> None:
    case = kundur_full.case()

    def voltage(load: Tensor) -> Tensor:
        schedule = torch.as_tensor(case.generators.p)[None]
        return power_flow(case, torch.complex(load, torch.as_tensor(case.buses.load.imag)[None]), schedule).abs()[0, 6]

    load = torch.as_tensor(case.buses.load.real)[None].requires_grad_()
    (slope,) = torch.autograd.grad(voltage(load), load)
    step = torch.zeros(1, 10, dtype=torch.float64)
    step[0, 7] = 1e-5
    with torch.no_grad():
        central = (voltage(load + step) - voltage(load - step)) / 2e-5
    assert float(slope[0, 7]) == pytest.approx(float(central), rel=1e-6)


def test_power_flows_are_solved_row_by_row() -> None:
    case = kundur_full.full().case
    loading = torch.tensor([1.0, math.nan, 0.2, 9.0, 1.02], dtype=torch.float64)

    def flow(rows: list[int], iterations: int = 12) -> Tensor:
        share = loading[rows][:, None]
        load, schedule = (share * torch.as_tensor(part) for part in (case.buses.load, case.generators.p))
        return power_flow(case, load, schedule, iterations=iterations)

    # One row without a power flow and one without numbers do not end the iteration of the others.
    with pytest.raises(ValueError, match=r"no power flow in 2 of 5 rows; the mismatch of row 1 is"):
        flow([0, 1, 2, 3, 4])
    # A solved row takes no further steps while its neighbours do.
    assert torch.allclose(flow([2, 0, 4])[0], flow([2])[0], rtol=1e-14, atol=1e-14)
    assert torch.equal(flow([0, 4, 2], 40), flow([0, 4, 2], 12))


def test_a_tripped_generator_is_gone() -> None:
    system = kundur_full.full()
    x = simulate(system, [GeneratorTrip(3, 0.5)], seconds=2.0)[:, 0]
    point = system.operate(ONE)
    after = phases(system, point, [GeneratorTrip(3, 0.5)]).network[0, -1]
    assert after[3].abs().max() < 1e-9 and after[:, 3].abs().max() < 1e-9
    # Nothing is drawn from it any more, so it runs away; the others stay together.
    assert x[-1, 7] > 0.02
    assert x[-1, 4:7].abs().max() < 0.01


def test_generators_without_a_unit_are_negative_loads() -> None:
    full = kundur_full.full()
    partial = GridSystem(full.case, [kundur_full.unit(i) for i in range(3)])
    point = partial.operate(ONE)
    Y = phases(partial, point, []).network[:, 0]
    rates = partial.flow(point.x.T, Network(real_form(Y[0])), Orders(point.voltage.T, point.power.T, point.held.T))
    assert rates.abs().max() < 1e-9


def test_ringdown_finds_a_mode_in_a_signal() -> None:
    time = np.arange(200) * 0.05
    signal = np.exp(-0.1395 * time) * np.cos(4.0646 * time) + 0.3 * np.exp(-0.6 * time) * np.cos(6.96 * time + 1)
    found = ringdown(signal, 0.05)
    assert found[0] == pytest.approx(-0.1395 + 4.0646j, abs=1e-6)
    assert found[1] == pytest.approx(-0.6 + 6.96j, abs=1e-6)
    with pytest.raises(ValueError, match="at least 24 samples"):
        ringdown(signal[:10], 0.05)


# ------------------------------------------------------------------ bad input


def test_bad_units() -> None:
    case, good = kundur_full.case(), kundur_full.unit(0)
    machine = good.machine
    assert isinstance(machine, SubTransient)
    with pytest.raises(ValueError, match="units must not be empty"):
        GridSystem(case, [])
    with pytest.raises(ValueError, match="bus 1: generator 0 has two units"):
        GridSystem(case, [good, good])
    with pytest.raises(ValueError, match=r"generator must be 0\.\.3, got 9"):
        GridSystem(case, [Unit(9, machine)])
    with pytest.raises(ValueError, match="unit at bus 1: reactances must obey"):
        GridSystem(case, [Unit(0, replace(machine, x1d=0.2))])
    with pytest.raises(ValueError, match="unit at bus 1: h must be finite, got nan"):
        GridSystem(case, [Unit(0, replace(machine, h=math.nan))])
    with pytest.raises(ValueError, match="internal reactance must be positive"):
        GridSystem(case, [Unit(0, Classical(h=1.0, x1d=0.0))])
    with pytest.raises(ValueError, match="Classical machine has no field"):
        GridSystem(case, [Unit(0, Classical(h=1.0, x1d=0.3), good.exciter)])
    with pytest.raises(ValueError, match="no turbine"):
        GridSystem(case, [Unit(0, GridForming(x=0.1, mp=0.01, mq=0.01, tp=0.1), None, good.governor)])
    with pytest.raises(ValueError, match="unit at bus 1: a stabiliser acts through an exciter"):
        GridSystem(
            case, [Unit(0, machine, None, good.governor, Stabiliser(k=20, tw=10, t1=0.05, t2=0.02, t3=3.0, t4=5.4))]
        )
    with pytest.raises(ValueError, match="add up to 1"):
        LoadModel(power=(0.8, 0.0), current=(0.3, 0.0))


def test_bad_events_and_loads() -> None:
    system = kundur_full.full()
    point = system.operate(ONE)
    with pytest.raises(ValueError, match="event at bus 77"):
        phases(system, point, [Fault(77, 0.0, 0.1)])
    with pytest.raises(ValueError, match="start must not be negative"):
        phases(system, point, [Fault(7, -1.0, 0.1)])
    with pytest.raises(ValueError, match="reactance of a fault must be positive"):
        phases(system, point, [Fault(7, 0.0, 0.1, 0.0)])
    with pytest.raises(ValueError, match=r"branch must be 0\.\.14"):
        phases(system, point, [LineTrip(15, 0.0)])
    with pytest.raises(ValueError, match="cut off"):
        phases(system, point, [LineTrip(11, 0.0)])
    with pytest.raises(ValueError, match=r"unit must be 0\.\.3"):
        phases(system, point, [GeneratorTrip(4, 0.0)])
    with pytest.raises(ValueError, match="no power flow in 1 of 2 rows; the mismatch of row 1 is largest at bus"):
        system.operate(torch.tensor([1.0, 3.0], dtype=torch.float64))


def test_admittance_has_the_ratios_of_transformers() -> None:
    Y = admittance(ieee39.case())
    off = Y[1, 29]
    assert complex(off) == pytest.approx(-1 / (1.025 * 0.0181j))
