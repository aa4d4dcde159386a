"""Network equations of a case: admittances, a batched power flow, elimination of buses.

Tensors are batched over scenarios and differentiable. The Newton power flow in polar coordinates follows the complex
form of the Jacobian (R. Zimmerman, MATPOWER Technical Note 2); the elimination of nodes without injection is Kron's.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from steersman.envs.grid.network.case import PQ, SLACK, Branches, Case

TOLERANCE = 1e-9
"""Largest mismatch of a solved power flow, pu."""


def branch_admittance(branches: Branches, device: torch.device | str = "cpu") -> Complex[Tensor, "l 2 2"]:
    """Two-port admittances of branches, from and to end, in pu (MATPOWER User's Manual, eq. 3.2)."""
    r, x, b, tap, shift = (
        torch.as_tensor(part, dtype=torch.float64, device=device)
        for part in (branches.r, branches.x, branches.b, branches.tap, branches.shift)
    )
    series = 1 / torch.complex(r, x)
    whole = series + 0.5j * b
    ratio = torch.polar(tap, shift)
    rows = (torch.stack([whole / tap**2, -series / ratio.conj()]), torch.stack([-series / ratio, whole]))
    return torch.stack(rows).permute(2, 0, 1)


def admittance(case: Case, device: torch.device | str = "cpu") -> Complex[Tensor, "b b"]:
    """Bus admittance matrix with the case's shunts, without loads and machines, in pu."""
    ends = torch.as_tensor(np.stack([case.branches.start, case.branches.end], axis=1), device=device)
    Y = torch.diag(torch.as_tensor(case.buses.shunt, dtype=torch.complex128, device=device))
    rows, columns = ends[:, :, None].expand(-1, 2, 2), ends[:, None, :].expand(-1, 2, 2)
    return Y.index_put((rows, columns), branch_admittance(case.branches, device), accumulate=True)


def power_flow(
    case: Case,
    load: Complex[Tensor, "n b"],
    generation: Float[Tensor, "n g"] | Complex[Tensor, "n g"],
    *,
    iterations: int = 12,
) -> Complex[Tensor, "n b"]:
    """Bus voltages by Newton's method from a start without flows; the slack bus has the angle the case states.

    Args:
        case: Network, voltage set points and kinds of buses.
        load: Complex power drawn at each bus, pu.
        generation: Power of each generator, pu. The active part counts but at the slack bus, the reactive part at
            :data:`~steersman.envs.grid.network.case.PQ` buses alone; where only active power is given it is the case's.
        iterations: Most Newton steps; about five reach rounding error.

    Raises:
        ValueError: If a row does not converge; the message names the bus with the largest mismatch.
    """
    device = load.device
    Y = admittance(case, device)
    kind = torch.as_tensor(case.buses.kind, device=device)
    by_angle, by_size = (kind != SLACK).nonzero()[:, 0], (kind == PQ).nonzero()[:, 0]
    place = torch.as_tensor(case.generators.bus, device=device)
    if not generation.is_complex():
        reactive = torch.as_tensor(case.generators.q, dtype=generation.dtype, device=device)
        generation = torch.complex(generation, reactive.expand_as(generation))
    target = (-load).index_add(1, place, generation.to(load.dtype))
    size = _flat(case, device).expand(len(load), -1)
    angle = _turned(case, device).expand_as(size) + float(case.buses.v_ang[case.slack])
    if len(case.buses) == 1:
        return torch.polar(size, angle)

    def mismatch(V: Tensor) -> Tensor:
        gap = V * (V @ Y.T).conj() - target
        return torch.cat([gap.real[:, by_angle], gap.imag[:, by_size]], dim=1)

    gap = mismatch(torch.polar(size, angle))
    for i in range(iterations):
        # Row by row: whoever is solved, or lost, stays as it is while the others go on. The first step is always taken,
        # since derivatives come from steps.
        going = (gap.abs().amax(dim=1) >= TOLERANCE)[:, None] | (i == 0)
        if not bool(going.any()):
            break
        step, _ = torch.linalg.solve_ex(_jacobian(Y, torch.polar(size, angle), by_angle, by_size), -gap)
        step = torch.where(going, step, 0.0)
        angle = angle.index_add(1, by_angle, step[:, : len(by_angle)])
        size = size.index_add(1, by_size, step[:, len(by_angle) :])
        gap = mismatch(torch.polar(size, angle))
    _require_solved(case, gap, torch.cat([by_angle, by_size]))
    return torch.polar(size, angle)


def _flat(case: Case, device: torch.device | str) -> Float[Tensor, "1 b"]:
    """Set points at voltage-controlled buses, 1 elsewhere."""
    size = torch.ones(1, len(case.buses), dtype=torch.float64, device=device)
    controlled = case.buses.kind[case.generators.bus] != PQ
    size[0, case.generators.bus[controlled]] = torch.as_tensor(case.generators.v[controlled], device=device)
    return size


def _turned(case: Case, device: torch.device | str) -> Float[Tensor, "1 b"]:
    """Angles at which phase shifters drive least through the branches (none in a tree), zero at the slack bus."""
    lines, n = case.branches, len(case.buses)
    angle = np.zeros((1, n))
    if lines.shift.any():
        across = np.zeros((len(lines), n))
        across[range(len(lines)), lines.start] = 1
        across[range(len(lines)), lines.end] = -1
        free, weight = np.arange(n) != case.slack, 1 / np.abs(lines.r + 1j * lines.x)
        angle[0, free] = np.linalg.lstsq(weight[:, None] * across[:, free], weight * lines.shift, rcond=None)[0]
    return torch.as_tensor(angle, device=device)


def _jacobian(Y: Tensor, V: Tensor, by_angle: Tensor, by_size: Tensor) -> Float[Tensor, "n u u"]:
    current, unit = V @ Y.T, V / V.abs()
    of_angle = 1j * V[:, :, None] * (torch.diag_embed(current) - Y * V[:, None, :]).conj()
    of_size = V[:, :, None] * (Y * unit[:, None, :]).conj() + torch.diag_embed(current.conj() * unit)
    columns = torch.cat([of_angle[:, :, by_angle], of_size[:, :, by_size]], dim=2)
    return torch.cat([columns.real[:, by_angle], columns.imag[:, by_size]], dim=1)


def _require_solved(case: Case, gap: Float[Tensor, "n u"], bus: Tensor) -> None:
    worst, which = gap.nan_to_num(nan=torch.inf).abs().max(dim=1)
    bad = worst >= 1e-6
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        raise ValueError(
            f"{case.name}: no power flow in {int(bad.sum())} of {len(gap)} rows; the mismatch of row {row} is largest "
            f"at bus {case.buses.id[int(bus[which[row]])]} ({float(worst[row]):.3g} pu): lower the load or the transfer"
        )


def eliminate(Y: Complex[Tensor, "*n a a"], keep: int) -> Complex[Tensor, "*n q q"]:
    """Kron reduction to the first ``keep`` nodes, no current being injected at the others."""
    if Y.shape[-1] == keep:
        return Y
    # Unchecked: whether a network is singular would have to be read, and its rows show it by what they become.
    inner: Tensor = torch.linalg.solve_ex(Y[..., keep:, keep:], Y[..., keep:, :keep])[0]
    return Y[..., :keep, :keep] - Y[..., :keep, keep:] @ inner


def real_form(Y: Complex[Tensor, "*n q q"]) -> Float[Tensor, "*n 2*q 2*q"]:
    """The matrix on stacked real and imaginary parts."""
    return torch.cat([torch.cat([Y.real, -Y.imag], dim=-1), torch.cat([Y.imag, Y.real], dim=-1)], dim=-2)
