"""Kundur's two-area network (the 10-bus variant that ANDES ships as ``kundur_full``) and its Kron reduction.

Per unit on 100 MVA, 60 Hz. Buses are numbered 1..10 as in the literature and stored at index ``bus - 1``;
machines 1..4 are at buses 1..4, area 1 is buses 1, 2, 5, 6, 7, area 2 the rest.

Source: P. Kundur, Power System Stability and Control (1994), chapters 2, 6, 12.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Complex, Float, Int64
from torch import Tensor

from steersman.envs.grid.network import admittance as network
from steersman.envs.grid.network.case import PQ, PV, SLACK, Branches, Buses, Case, Generators

RATING = 900.0
"""Base of each machine, MVA."""
FREQUENCY = 60.0
"""Nominal frequency, Hz."""
BUSES = 10
MACHINES = 4
FAULT_REACTANCE = 1e-4
"""Reactance of a bolted three-phase fault to ground."""

BRANCHES: tuple[tuple[int, int, float, float, float], ...] = (
    (5, 6, 0.005, 0.05, 0.075),
    (5, 6, 0.00501, 0.05001, 0.075),
    (6, 7, 0.002, 0.02, 0.03),
    (6, 7, 0.00201, 0.02001, 0.03),
    (7, 8, 0.02201, 0.22001, 0.33),
    (7, 8, 0.02202, 0.22002, 0.33),
    (7, 8, 0.022, 0.22, 0.33),
    (8, 9, 0.002, 0.02, 0.03),
    (8, 9, 0.00201, 0.02001, 0.03),
    (9, 10, 0.005, 0.05, 0.075),
    (9, 10, 0.00501, 0.05001, 0.075),
    (1, 5, 0.001, 0.012, 0.0),
    (2, 6, 0.001, 0.012, 0.0),
    (3, 9, 0.001, 0.012, 0.0),
    (4, 10, 0.001, 0.012, 0.0),
)
"""From bus, to bus, series resistance and reactance, total charging susceptance."""
LOADS: dict[int, complex] = {7: 11.59 - 0.735j, 8: 15.75 - 0.899j}
"""Complex power drawn at each load bus."""
DISPATCH = 7.0
"""Active power of machines 2..4; machine 1 is the slack."""
SETPOINT = 1.0
"""Terminal voltage of every machine."""
TRANSIENT_REACTANCE = 0.25 / 9
"""x' of each machine: 0.25 pu on its own 900 MVA."""
INERTIA: tuple[float, ...] = (13.0 * 9, 13.0 * 9, 12.35 * 9, 12.35 * 9)
"""H of the classical machines in s, from 900 to 100 MVA."""


def case(slack_angle: float = 0.0) -> Case:
    """The network; generators 0..3 are at buses 1..4, the slack bus 1 is at ``slack_angle`` in rad."""
    load = np.zeros(BUSES, dtype=complex)
    load[[bus - 1 for bus in LOADS]] = list(LOADS.values())
    kind, angle = np.full(BUSES, PQ), np.zeros(BUSES)
    kind[:4], angle[0] = (SLACK, PV, PV, PV), slack_angle
    volts = np.where(np.arange(BUSES) < MACHINES, 20.0, 230.0)
    buses = Buses(np.arange(1, 11), kind, load, np.zeros_like(load), np.ones(BUSES), angle, volts)
    gens = generators(np.full(MACHINES, DISPATCH), np.full(MACHINES, SETPOINT))
    return Case("Kundur, two areas", 100.0, buses, branches(BRANCHES), gens)


def branches(rows: tuple[tuple[int, int, float, float, float], ...]) -> Branches:
    """Lines from ``(from, to, r, x, b)`` with buses numbered from 1."""
    start, end, r, x, b = (np.array(column) for column in zip(*rows, strict=True))
    one, free = np.ones(len(rows)), np.full(len(rows), np.inf)
    pairs = [row[:2] for row in rows]
    circuit = tuple(str(pairs[: i + 1].count(pair)) for i, pair in enumerate(pairs))
    return Branches(start - 1, end - 1, r, x, b, one, 0 * one, free, -free, free, circuit)


def generators(schedule: np.ndarray, volts: np.ndarray) -> Generators:
    """Generators at the first four buses, on 900 MVA, without costs."""
    zero, most = np.zeros(4), np.full(4, RATING / 100)
    none = np.full((4, 3), np.nan)
    return Generators(
        np.arange(4), schedule, zero, volts, zero, most, -most, most, none, np.full(4, RATING), zero + 0j, ("1",) * 4
    )


def admittance(device: torch.device | str = "cpu") -> Complex[Tensor, "10 10"]:
    """Bus admittance matrix of the branches, without loads and machines."""
    return network.admittance(case(), device)


def demand(loading: Float[Tensor, "n"]) -> Complex[Tensor, "n 10"]:
    """Complex power drawn at every bus when all loads are multiplied by ``loading``."""
    power = [LOADS.get(bus, 0j) for bus in range(1, BUSES + 1)]
    nominal = torch.tensor(power, dtype=torch.complex128, device=loading.device)
    return loading[:, None] * nominal


def power_flow(loading: Float[Tensor, "n"]) -> Complex[Tensor, "n 10"]:
    """Bus voltages when all loads and the dispatch of machines 2..4 are multiplied by ``loading``; bus 1 at angle zero.

    Raises:
        ValueError: If a row has no power flow, because its loading is beyond what the network can carry.
    """
    schedule = torch.full((len(loading), MACHINES), DISPATCH, dtype=torch.float64, device=loading.device)
    return network.power_flow(case(), demand(loading), loading[:, None] * schedule)


def internal_voltage(V: Complex[Tensor, "n 10"], loading: Float[Tensor, "n"]) -> Complex[Tensor, "n 4"]:
    """Voltage behind x' of each classical machine in the operating point ``V``; constant in size ever after."""
    current = (V @ admittance(V.device).T + (demand(loading) / V).conj())[:, :MACHINES]
    return V[:, :MACHINES] + 1j * TRANSIENT_REACTANCE * current


def reduced(
    V: Complex[Tensor, "n 10"],
    loading: Float[Tensor, "n"],
    ports: tuple[int, ...],
    fault: Int64[Tensor, "n"] | None = None,
) -> Complex[Tensor, "n q q"]:
    """Admittance matrix seen from the four internal nodes and from the buses ``ports``, in this order.

    Loads are the constant impedances that draw their power in the operating point ``V``; all other buses are
    eliminated (Kron reduction).

    Args:
        V: Bus voltages of the operating point.
        loading: Factor on the loads, one per row.
        ports: Buses that are kept because something is connected there.
        fault: Bus with a three-phase fault to ground, one per row; None for the sound network.
    """
    n, y = len(loading), torch.full_like(V[:, :MACHINES], 1 / (1j * TRANSIENT_REACTANCE))
    shunt = demand(loading).conj() / V.abs().square()
    shunt = shunt + torch.nn.functional.pad(y, (0, BUSES - MACHINES))
    if fault is not None:
        shunt = shunt + torch.nn.functional.one_hot(fault - 1, BUSES) / (1j * FAULT_REACTANCE)
    full = torch.zeros(n, MACHINES + BUSES, MACHINES + BUSES, dtype=V.dtype, device=V.device)
    machine = torch.arange(MACHINES, device=V.device)
    full[:, machine, machine] = y
    full[:, machine, MACHINES + machine] = -y
    full[:, MACHINES + machine, machine] = -y
    full[:, MACHINES:, MACHINES:] = admittance(V.device) + torch.diag_embed(shunt)
    kept = [*range(MACHINES), *(MACHINES + bus - 1 for bus in ports)]
    rest = [i for i in range(MACHINES + BUSES) if i not in kept]
    return network.eliminate(full[:, kept + rest][:, :, kept + rest], len(kept))
