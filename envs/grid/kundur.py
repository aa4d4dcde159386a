"""Kundur's two-area network (the 10-bus variant that ANDES ships as ``kundur_full``) and its Kron reduction.

Per unit on 100 MVA, 60 Hz. Buses are numbered 1..10 as in the literature and stored at index ``bus - 1``;
machines 1..4 are at buses 1..4, area 1 is buses 1, 2, 5, 6, 7, area 2 the rest.

Sources: P. Kundur, Power System Stability and Control (1994), chapters 2, 6, 12; the Newton power flow in
polar coordinates follows the usual complex form of the Jacobian (R. Zimmerman, MATPOWER technical note 2).
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float, Int64
from torch import Tensor

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


def admittance(device: torch.device | str = "cpu") -> Complex[Tensor, "10 10"]:
    """Bus admittance matrix of the branches, without loads and machines."""
    Y = torch.zeros(BUSES, BUSES, dtype=torch.complex128)
    for start, end, r, x, b in BRANCHES:
        i, j, y = start - 1, end - 1, 1 / complex(r, x)
        Y[i, i] += y + 0.5j * b
        Y[j, j] += y + 0.5j * b
        Y[i, j] -= y
        Y[j, i] -= y
    return Y.to(device)


def demand(loading: Float[Tensor, "n"]) -> Complex[Tensor, "n 10"]:
    """Complex power drawn at every bus when all loads are multiplied by ``loading``."""
    power = [LOADS.get(bus, 0j) for bus in range(1, BUSES + 1)]
    nominal = torch.tensor(power, dtype=torch.complex128, device=loading.device)
    return loading[:, None] * nominal


def power_flow(loading: Float[Tensor, "n"], *, iterations: int = 8) -> Complex[Tensor, "n 10"]:
    """Bus voltages by Newton's method from a flat start; the slack is bus 1 at angle zero.

    Args:
        loading: Factor on all loads and on the dispatch of machines 2..4, one per row.
        iterations: Newton steps; five reach rounding error for ordinary loadings.

    Raises:
        ValueError: If a row does not converge, because its loading is beyond what the network can carry.
    """
    Y = admittance(loading.device)
    target = -demand(loading)
    target[:, 1:MACHINES] += DISPATCH * loading[:, None]
    angle = torch.zeros(len(loading), BUSES, dtype=torch.float64, device=loading.device)
    size = torch.full_like(angle, SETPOINT)
    for _ in range(iterations):
        V = torch.polar(size, angle)
        mismatch = V * (V @ Y.T).conj() - target
        step = torch.linalg.solve(_jacobian(Y, V), -_unknown_rows(mismatch))
        angle = torch.cat([angle[:, :1], angle[:, 1:] + step[:, : BUSES - 1]], dim=1)
        size = torch.cat([size[:, :MACHINES], size[:, MACHINES:] + step[:, BUSES - 1 :]], dim=1)
    V = torch.polar(size, angle)
    worst = _unknown_rows(V * (V @ Y.T).conj() - target).abs().amax(dim=1)
    if not bool((worst < 1e-8).all()):
        raise ValueError(f"no power flow at loading {loading[~(worst < 1e-8)].tolist()}; use loadings near 1")
    return V


def _unknown_rows(S: Complex[Tensor, "n 10"]) -> Float[Tensor, "n 15"]:
    """Active power of all buses but the slack, reactive power of the load buses."""
    return torch.cat([S.real[:, 1:], S.imag[:, MACHINES:]], dim=1)


def _jacobian(Y: Complex[Tensor, "10 10"], V: Complex[Tensor, "n 10"]) -> Float[Tensor, "n 15 15"]:
    current, unit = V @ Y.T, V / V.abs()
    by_angle = 1j * V[:, :, None] * (torch.diag_embed(current) - Y * V[:, None, :]).conj()
    by_size = V[:, :, None] * (Y * unit[:, None, :]).conj() + torch.diag_embed(current.conj() * unit)
    columns = torch.cat([by_angle[:, :, 1:], by_size[:, :, MACHINES:]], dim=2)
    return torch.cat([columns.real[:, 1:], columns.imag[:, MACHINES:]], dim=1)


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
    return eliminate(full[:, kept + rest][:, :, kept + rest], len(kept))


def eliminate(Y: Complex[Tensor, "n a a"], keep: int) -> Complex[Tensor, "n q q"]:
    """Kron reduction to the first ``keep`` nodes, no current being injected at the others."""
    inner: Tensor = torch.linalg.solve(Y[:, keep:, keep:], Y[:, keep:, :keep])
    return Y[:, :keep, :keep] - Y[:, :keep, keep:] @ inner
