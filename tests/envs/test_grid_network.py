"""Power flow on random networks against equations of single elements solved by SciPy, with no matrix of ours."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import root

from steersman.envs.grid.machines.group import Unit
from steersman.envs.grid.machines.models import Classical
from steersman.envs.grid.network.admittance import admittance, power_flow
from steersman.envs.grid.network.case import PQ, PV, SLACK, Branches, Buses, Case, Generators
from steersman.envs.grid.system import GridSystem


def random_case(seed: int, buses: int = 6, *, turned: float = 0.5) -> Case:
    """A meshed grid with transformers, phase shifters of up to ``turned`` rad, shunts, and generators at every kind of bus.

    Parallel paths are turned by like angles, as in grids that work.
    """
    draw = np.random.default_rng(seed)
    tree = [(int(draw.integers(0, j)), j) for j in range(1, buses)]
    more = [tuple(draw.choice(buses, 2, replace=False).tolist()) for _ in range(buses // 2)]
    start, end = np.array([*tree, *more], dtype=np.int64).T
    flip = draw.random(len(start)) < 0.5
    start, end = np.where(flip, end, start), np.where(flip, start, end)
    m, turn = len(start), draw.uniform(-turned, turned, buses)
    kind = draw.choice([PQ, PQ, PV], buses)
    kind[0] = SLACK
    at = np.sort(np.concatenate([np.flatnonzero(kind != PQ), draw.choice(buses, 3)]))
    level = draw.uniform(0.97, 1.05, buses)
    free, n = np.full(m, np.inf), len(at)
    return Case(
        "random",
        100.0,
        Buses(
            np.arange(buses) + 1, kind, draw.uniform(0, 0.4, buses) + 1j * draw.uniform(-0.1, 0.2, buses),
            draw.uniform(0, 0.05, buses) + 1j * draw.uniform(-0.1, 0.1, buses), np.ones(buses),
            draw.uniform(-0.3, 0.3, buses), np.ones(buses),
        ),
        Branches(
            start, end, draw.uniform(0, 0.03, m), draw.uniform(0.05, 0.2, m), draw.uniform(0, 0.05, m),
            draw.uniform(0.95, 1.05, m), turn[start] - turn[end] + draw.uniform(-0.05, 0.05, m), free, -free, free,
            tuple(map(str, range(m))),
        ),
        Generators(
            at, draw.uniform(0, 0.3, n), draw.uniform(-0.1, 0.1, n), level[at], np.zeros(n), np.ones(n), -np.ones(n),
            np.ones(n), np.full((n, 3), np.nan), np.full(n, 100.0), np.zeros(n, dtype=complex), tuple(map(str, range(n))),
        ),
    )  # fmt: skip


def drawn(case: Case, V: np.ndarray) -> np.ndarray:
    """Power that flows from each bus into the network, branch by branch from Ohm's law at an ideal transformer."""
    S = np.conj(case.buses.shunt) * np.abs(V) ** 2
    lines = case.branches
    for k in range(len(lines)):
        i, j = lines.start[k], lines.end[k]
        ratio = lines.tap[k] * np.exp(1j * lines.shift[k])
        inner = V[i] / ratio
        series = (inner - V[j]) / (lines.r[k] + 1j * lines.x[k])
        into = series + 0.5j * lines.b[k] * inner
        # An ideal transformer keeps the power, so its outer current is the inner one over the conjugate ratio.
        S[i] += V[i] * np.conj(into / np.conj(ratio))
        S[j] += V[j] * np.conj(0.5j * lines.b[k] * V[j] - series)
    return S


def solved(case: Case) -> np.ndarray:
    """Voltages by SciPy from a start at the turned angles."""
    n, slack = len(case.buses), case.slack
    given = -case.buses.load.astype(complex)
    for g, bus in enumerate(case.generators.bus):
        given[bus] += case.generators.p[g] + 1j * case.generators.q[g]
    level = np.ones(n)
    for g, bus in enumerate(case.generators.bus):
        if case.buses.kind[bus] != PQ:
            level[bus] = case.generators.v[g]
    by_angle, by_size = np.flatnonzero(np.arange(n) != slack), np.flatnonzero(case.buses.kind == PQ)

    def voltages(unknown: np.ndarray) -> np.ndarray:
        angle, size = np.full(n, case.buses.v_ang[slack]), level.copy()
        angle[by_angle], size[by_size] = unknown[: n - 1], unknown[n - 1 :]
        return size * np.exp(1j * angle)

    def gap(unknown: np.ndarray) -> np.ndarray:
        missing = drawn(case, voltages(unknown)) - given
        return np.concatenate([missing.real[by_angle], missing.imag[by_size]])

    start = np.concatenate([power_angles(case)[by_angle], np.ones(len(by_size))])
    found = root(gap, start, tol=1e-13)
    assert np.abs(gap(found.x)).max() < 1e-9
    return voltages(found.x)


def power_angles(case: Case) -> np.ndarray:
    """Angles along a tree of branches, each turned by its shift."""
    angle = np.full(len(case.buses), np.nan)
    angle[case.slack] = case.buses.v_ang[case.slack]
    lines = case.branches
    while np.isnan(angle).any():
        for i, j, shift in zip(lines.start, lines.end, lines.shift, strict=True):
            if np.isnan(angle[j]) and not np.isnan(angle[i]):
                angle[j] = angle[i] - shift
            if np.isnan(angle[i]) and not np.isnan(angle[j]):
                angle[i] = angle[j] + shift
    return angle


def flow(case: Case) -> np.ndarray:
    load, generation = torch.as_tensor(case.buses.load)[None], torch.as_tensor(case.generators.p)[None]
    return power_flow(case, load, generation)[0].numpy()


@pytest.mark.parametrize("seed", range(12))
def test_power_flow_of_random_grids(seed: int) -> None:
    case = random_case(seed)
    np.testing.assert_allclose(flow(case), solved(case), atol=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_groups_of_transformers_turn_by_any_angle(seed: int) -> None:
    """A flat start would be half a turn away."""
    case = random_case(seed, turned=3.0)
    np.testing.assert_allclose(flow(case), solved(case), atol=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_admittances_give_the_power_of_every_branch(seed: int) -> None:
    case, draw = random_case(seed), np.random.default_rng(seed)
    V = draw.uniform(0.9, 1.1, 6) * np.exp(1j * draw.uniform(-1, 1, 6))
    np.testing.assert_allclose(V * (admittance(case).numpy() @ V).conj(), drawn(case, V), atol=1e-12)


def test_reactive_power_counts_at_pq_buses_alone() -> None:
    case = random_case(3)
    here = case.buses.kind[case.generators.bus] == PQ
    assert here.any() and not here.all()
    V, q = flow(case), case.generators.q
    other = replace(case, generators=replace(case.generators, q=np.where(here, q, q + 5)))
    assert (flow(other) == V).all()
    other = replace(case, generators=replace(case.generators, q=np.where(here, q + 0.05, q)))
    assert np.abs(flow(other) - V).max() > 1e-3
    load, stated = (
        torch.as_tensor(case.buses.load)[None],
        torch.as_tensor(other.generators.p + 1j * other.generators.q)[None],
    )
    assert (power_flow(case, load, stated)[0].numpy() == flow(other)).all()
    moved = replace(other, buses=replace(case.buses, load=case.buses.load * 1.1), generators=replace(
        other.generators, p=other.generators.p * 1.1, q=other.generators.q * 1.1))  # fmt: skip
    np.testing.assert_allclose(flow(other.with_load(1.1)), flow(moved), atol=1e-12)


def test_operating_point_with_machines_at_pq_buses() -> None:
    """Scheduled powers stay each machine's own at a PQ bus, whatever the ratings; machines left out are negative loads."""
    case = random_case(3)
    kind, bus = case.buses.kind[case.generators.bus], case.generators.bus
    first, *_, last = np.flatnonzero(kind == PQ)
    bus = np.where(kind == PQ, bus[first], bus)
    assert last > first
    case = replace(case, generators=replace(case.generators, bus=bus, mva=np.linspace(50.0, 150.0, len(bus))))
    loading = torch.tensor([1.0, 1.2], dtype=torch.float64)
    scheduled = case.generators.p + 1j * case.generators.q
    units = [Unit(g, Classical(h=3.0, x1d=0.2)) for g in range(len(bus))]
    point = GridSystem(case, units).operate(loading)
    V = point.V.numpy()
    for row, factor in enumerate((1.0, 1.2)):
        np.testing.assert_allclose(V[row], solved(case.with_load(factor)), atol=1e-8)
        given = point.power[row].numpy()
        np.testing.assert_allclose(given[kind != SLACK], (factor * case.generators.p)[kind != SLACK], atol=1e-8)
    fewer = GridSystem(case, [unit for unit in units if unit.generator != last]).operate(loading)
    left = case.buses.load.copy()
    left[bus[last]] -= scheduled[last]
    np.testing.assert_allclose(fewer.load.numpy(), np.outer([1.0, 1.2], left), atol=1e-8)
