"""The two-area grid against published operating point, modes and clearing times, and its own conservation laws."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from steersman.envs import noise
from steersman.envs.checks import check_plant
from steersman.envs.grid.tasks import kundur
from steersman.envs.grid.tasks.two_area import TwoArea
from steersman.envs.plant import Status
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import PlantSimulator
from steersman.envs.tree import Params

F64 = torch.float64
ONE = torch.ones(1, dtype=F64)
OMEGA = 2 * math.pi * 60


def idle(n: int) -> Tensor:
    return torch.zeros(n, 2, dtype=F64)


def faulted(plant: TwoArea, bus: int, duration: Tensor, start: float = 0.0, loading: float = 1.0) -> Params:
    one = torch.ones_like(duration)
    return plant.faulted(torch.full(duration.shape, bus), start * one, duration, loading * one)


def roll(plant: TwoArea, p: Params, steps: int, policy: Callable[[Tensor], Tensor] | None = None) -> list[Tensor]:
    n = len(p["start"])
    xs = [plant.initial(noise.keys(0, n), p)]
    for step in range(steps):
        k = torch.full((n,), step)
        u = idle(n) if policy is None else policy(plant.perform(k, xs[-1], p))
        xs.append(plant.step(k, xs[-1], u, k, p))
    return xs


def test_contract() -> None:
    check_plant(TwoArea())


def test_power_flow_is_the_published_operating_point() -> None:
    V = kundur.power_flow(ONE)[0]
    size = torch.tensor([1, 1, 1, 1, 0.983375, 0.969086, 0.956218, 0.954000, 0.968564, 0.983771], dtype=F64)
    generators, others = [32.6732, 21.6556, 11.2169, 21.6418], [27.6489, 16.8183, 8.1674, -2.1271, 6.3795, 16.8056]
    angle = torch.tensor(generators + others, dtype=F64)
    assert (V.abs() - size).abs().max() < 1e-6
    assert (torch.rad2deg(V.angle()) + 32.6732 - angle).abs().max() < 1.1e-4
    S = V * (kundur.admittance() @ V).conj()
    assert S[0].real.item() == pytest.approx(7.26803, abs=1e-5)
    assert S[:4].imag.tolist() == pytest.approx([1.0946, 2.2805, 2.3238, 1.0609], abs=1e-4)
    with pytest.raises(ValueError, match="no power flow"):
        kundur.power_flow(3 * ONE)


def test_undamped_modes() -> None:
    plant = TwoArea()
    p = faulted(plant, 7, 0 * ONE)
    Y, _ = plant.coupling(idle(1), p)
    K = torch.autograd.functional.jacobian(lambda d: plant.acceleration(d, Y, p)[0], p["angle"])[:, 0]
    modes = torch.linalg.eigvals(K * OMEGA)
    assert modes.imag.abs().max() < 1e-9
    frequencies = modes.real.neg().clamp(min=0).sqrt().sort().values
    assert frequencies.tolist() == pytest.approx([0.0, 2.9016, 5.4913, 5.6767], abs=6e-5)


@pytest.mark.parametrize(("bus", "critical"), [(5, 0.505), (7, 0.640)])
def test_critical_clearing_time(bus: int, critical: float) -> None:
    plant = TwoArea(dt=0.005)
    duration = torch.tensor([critical - 0.1, critical - 0.005, critical, critical + 0.005], dtype=F64)
    p = faulted(plant, bus, duration)
    lost = torch.stack([plant.status(x[:, 0].long(), x, p) for x in roll(plant, p, 50)]).amax(dim=0)
    assert lost.tolist() == [Status.OK, Status.OK, Status.OK, Status.TERMINATED]


def test_equilibrium_stays() -> None:
    plant = TwoArea()
    loading = torch.tensor([0.9, 0.97, 1.02], dtype=F64)
    p = plant.faulted(torch.tensor([5, 7, 8]), loading, 0 * loading, loading)
    xs = roll(plant, p, 100)
    assert (xs[-1] - xs[0]).abs().max() < 1e-9


def test_energy_is_conserved_without_losses() -> None:
    """Loads and resistances make the energy path dependent, so they are taken out of the reduced network."""
    plant = TwoArea(dt=0.005)
    p = faulted(plant, 7, 0 * ONE)
    network = p["network"].clone()
    network[..., 0] = 0
    # No mechanical power, and a start far from rest: a free swing of the four rotors.
    p |= {"network": network, "power": torch.zeros(1, 4, dtype=F64), "angle": 3 * p["angle"]}
    Y, _ = plant.coupling(idle(1), p)
    B = Y[0, 4:, :4]

    def energy(x: Tensor) -> tuple[float, float]:
        angle, speed = x[0].split(4)
        E = p["emf"][0]
        kinetic = (torch.tensor(kundur.INERTIA, dtype=F64) * OMEGA * speed**2).sum()
        potential = -0.5 * (E[:, None] * E * B * torch.cos(angle[:, None] - angle)).sum()
        return float(kinetic), float(potential)

    kinetic, potential = zip(*(energy(x) for x in roll(plant, p, 100)), strict=True)
    total = [a + b for a, b in zip(kinetic, potential, strict=True)]
    assert max(kinetic) > 1.0
    assert max(total) - min(total) < 1e-6 * max(kinetic)


def test_convergence_of_order_four_with_events_off_the_grid() -> None:
    def end(dt: float) -> Tensor:
        plant = TwoArea(dt=dt)
        p = faulted(plant, 7, torch.tensor([0.3137], dtype=F64), start=0.1234)
        return roll(plant, p, 20)[-1][:, :4]

    exact = end(0.0025)
    coarse, fine = ((end(dt) - exact).abs().max() for dt in (0.05, 0.025))
    assert 3.5 < math.log2(coarse / fine) < 4.7
    assert (end(0.01) - exact).abs().max() < 2e-6


def test_gradient_through_a_step_with_fault() -> None:
    plant = TwoArea(dt=0.05)
    p = faulted(plant, 6, torch.tensor([0.063, 0.2], dtype=F64), start=0.02)
    k = torch.zeros(2, dtype=torch.int64)
    x = (plant.initial(noise.keys(0, 2), p) + 0.01 * noise.normal(noise.keys(1, 2), 8)).requires_grad_()
    u = torch.tensor([[1.0, -0.5], [0.2, 1.5]], dtype=F64, requires_grad=True)
    # Hz instead of pu, lest the small derivatives of speeds pass under gradcheck's absolute tolerance.
    assert torch.autograd.gradcheck(lambda x, u: plant.measure(k, plant.step(k, x, u, k, p), p), (x, u))


def test_storage_power_balances_at_its_bus() -> None:
    """Bus voltages recovered from the kept ports deliver ``u |V / V0|^2`` and, without action, are the prefault ones."""
    plant = TwoArea()
    p = faulted(plant, 7, 0 * ONE)
    network = torch.view_as_complex(p["network"])[0, 0]
    V0 = kundur.power_flow(ONE)[0, 6:8]
    E = torch.polar(p["emf"], p["angle"])[0]
    free = torch.linalg.solve(network[4:, 4:], -network[4:, :4] @ E)
    assert (free - V0).abs().max() < 1e-9
    u = torch.tensor([1.5, -0.7], dtype=F64)
    V = torch.linalg.solve(network[4:, 4:] - torch.diag((u / V0.abs() ** 2).to(V0.dtype)), -network[4:, :4] @ E)
    fed = (V * (network[4:, :4] @ E + network[4:, 4:] @ V).conj()).real
    assert fed.tolist() == pytest.approx((u * (V / V0).abs() ** 2).tolist(), rel=1e-9)
    Y, _ = plant.coupling(u[None], p)
    current = network[:4, :4] @ E + network[:4, 4:] @ V
    rate = (p["power"][0] - (E * current.conj()).real) / (2 * torch.tensor(kundur.INERTIA, dtype=F64))
    assert (plant.acceleration(p["angle"], Y, p)[0] - rate).abs().max() < 1e-12


def test_storage_relieves_the_machines() -> None:
    plant = TwoArea()
    p = faulted(plant, 7, 0 * ONE)
    gain = []
    for i in range(2):
        u = idle(1)
        u[0, i] = 0.01
        Y, _ = plant.coupling(u, p)
        rise = plant.acceleration(p["angle"], Y, p)
        gain.append(float((rise * 2 * torch.tensor(kundur.INERTIA, dtype=F64)).sum() / 0.01))
    # Voltage-dependent loads take up a part, since storage lifts the voltage.
    assert gain == pytest.approx([0.64, 0.49], abs=0.01)


def test_damping_control_helps() -> None:
    """Power against the local frequency deviation: what any engineer would try first."""
    plant, n = TwoArea(), 16
    key = noise.keys(4, n)

    def cost(gain: float) -> Tensor:
        sim = PlantSimulator(plant, n)
        sim.reset(sim.scenarios(key))
        total = torch.zeros(n, dtype=F64)
        for _ in range(plant.horizon):
            hertz = sim.measure().y[:, :4]
            total += sim.step(-gain * torch.stack([hertz[:, :2].mean(1), hertz[:, 2:].mean(1)], dim=1)).cost
        return total

    free, damped = cost(0.0), cost(8.0)
    assert 10 < free.median() < 1000
    assert damped.median() < 0.7 * free.median()


def test_loss_of_synchronism_is_a_failure_that_costs_the_rest() -> None:
    plant = TwoArea()
    p = faulted(plant, 7, torch.tensor([0.9, 0.2], dtype=F64))
    sim = PlantSimulator(plant, 2)
    key = noise.keys(0, 2)
    sim.reset(Scenarios(key, p, plant.initial(key, p)))
    for k in range(plant.horizon):  # noqa: B007 - read after the loop
        t = sim.step(idle(2))
        if t.ended[0]:
            break
    assert t.status.tolist() == [Status.TERMINATED, Status.OK] and not t.truncated[0]
    assert t.terms["failure"].tolist() == [plant.objective.failure * (plant.horizon - k), 0.0]


def test_scenarios_are_what_the_docstring_says() -> None:
    plant, key = TwoArea(), noise.keys(9, 500)
    p = plant.params(key)
    duration = p["clear"] - p["start"]
    assert set(p["bus"].tolist()) == {5, 6, 7, 8}
    assert p["start"].min() >= 0.5 and p["start"].max() <= 1.0
    assert duration.min() > 0.1 and duration.max() < 0.775
    assert p["loading"].min() >= 0.9 and p["loading"].max() <= 1.02
    alone = plant.params(key[7:8])
    assert all(torch.allclose(alone[name][0], p[name][7], rtol=1e-12) for name in p)
    with pytest.raises(ValueError, match="bus"):
        faulted(plant, 11, ONE)
    with pytest.raises(ValueError, match="dt"):
        TwoArea(dt=0.03)
