"""Integration of a grid over a control step: fixed steps, split row by row where events do not lie on their grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float, Int64
from torch import Tensor

from steersman.envs.grid.machines.base import Array
from steersman.envs.grid.network.admittance import real_form
from steersman.envs.grid.network.algebra import join
from steersman.envs.grid.system import GridSystem, Network, Orders
from steersman.envs.tree import State, tree_leaves

NEGLIGIBLE = 1e-12
"""Stretches shorter than this are left out, s."""


class Interval(NamedTuple):
    """A stretch of a control step in which no row's network changes.

    Attributes:
        h: Length, s: a number where all rows agree, else one per row.
        phase: Phase of each row, if it differs from that of the interval before; else None.
    """

    h: float | Tensor
    phase: Int64[Tensor, "n"] | None


def intervals(now: Float[Tensor, "n"], period: float, steps: int, edges: Float[Tensor, "n e"]) -> list[Interval]:
    """The integrator's grid with the edges of each row sorted in; stretches of no length are left out."""
    ahead, step = edges - now[:, None], period / steps
    if not bool(((ahead > NEGLIGIBLE) & (ahead < period - NEGLIGIBLE)).any()):
        return [Interval(step, (ahead <= period / 2).sum(dim=1)), *[Interval(step, None)] * (steps - 1)]
    inside = ahead.clamp(0.0, period)
    grid = torch.arange(steps + 1, dtype=now.dtype, device=now.device) * (period / steps)
    cuts = torch.cat([grid.expand(len(now), -1), inside], dim=1).sort(dim=1).values
    middle = now[:, None] + (cuts[:, 1:] + cuts[:, :-1]) / 2
    phase = (edges[:, None, :] <= middle[:, :, None]).sum(dim=2)
    h = torch.diff(cuts, dim=1)
    h = torch.where((h - step).abs() < NEGLIGIBLE, step, torch.where(h <= NEGLIGIBLE, 0.0, h))
    shortest, longest = h.amin(dim=0).tolist(), h.amax(dim=0).tolist()
    found: list[Interval] = []
    last: Tensor | None = None
    for j, (low, high) in enumerate(zip(shortest, longest, strict=True)):
        if high == 0.0:
            continue
        same = last is not None and torch.equal(phase[:, j], last)
        last = phase[:, j]
        length = step if low == high == step else h[:, j]
        found.append(Interval(length, None if same else last))
    return found


def integrate(
    system: GridSystem,
    x: Float[Tensor, "n states"],
    orders: Orders,
    networks: Complex[Tensor, "n p q q"],
    pieces: list[Interval],
    demand: Float[Tensor, "2 2 loads n"] | None = None,
) -> Float[Tensor, "n states"]:
    """States at the end of the pieces.

    Undamped classical machines are stepped by the Runge-Kutta-Nystrom method of order 4 with three evaluations
    (Hairer, Norsett, Wanner, Solving ODEs I, II.14), all others by RK4; limited states are clamped after each step.
    One row that needs no gradient runs in numpy, where an operation costs less.

    Args:
        system: Machines and network.
        x: States at the start.
        orders: Set points, held.
        networks: Reduced matrices of each phase; a network expanded over the rows costs least.
        pieces: From :func:`intervals`.
        demand: What loads draw that are no impedances.
    """
    single = len(x) == 1 and x.device.type == "cpu" and not (torch.is_grad_enabled() and _tracked(x, orders, networks))

    def native(t: Tensor) -> Array:
        return t.numpy() if single else t

    state = native(x.T.contiguous())
    held = Orders(*(native(part.contiguous()) for part in orders))
    loads = None if demand is None else native(demand)
    step: Callable[[Array, Array | float], Array] | None = None
    for piece in pieces:
        if piece.phase is not None:
            network = Network(native(_matrix(networks, piece.phase)), loads)
            step = (nystrom if system.undamped else runge_kutta)(system, network, held)
        assert step is not None  # noqa: S101 - the first piece has a phase
        state = step(state, piece.h if isinstance(piece.h, float) else native(piece.h))
    return (torch.from_numpy(state) if single else state).T.contiguous()


def runge_kutta(system: GridSystem, network: Network, orders: Orders) -> Callable[[Array, Array | float], Array]:
    """A step of order 4, a function of states and length; the length is a number or one per row."""

    def f(state: Array) -> Array:
        return system.flow(state, network, orders)

    def step(x: Array, h: Array | float) -> Array:
        k1 = f(x)
        k2 = f(_ahead(x, k1, 0.5 * h))
        k3 = f(_ahead(x, k2, 0.5 * h))
        k4 = f(_ahead(x, k3, h))
        after = _ahead(x, _ahead(k1 + k4, k2 + k3, 2.0), h / 6)
        return system.clamp(after) if system.limited else after

    return step


def _ahead(x: Array, rate: Array, h: Array | float) -> Array:
    # Not fused: a row must get the same last bit whether its neighbours' events make h a tensor or not.
    return x + h * rate


def nystrom(system: GridSystem, network: Network, orders: Orders) -> Callable[[Array, Array | float], Array]:
    """A step of order 4 for a force that does not depend on the speed; see :func:`runge_kutta`."""
    m, omega, force = system.units, system.omega, system.swing(network, orders)

    def step(x: Array, h: Array | float) -> Array:
        angle, rate, drift = x[:m], x[m:], h * omega
        a1 = force(angle)
        a2 = force(angle + (0.5 * drift) * (rate + (0.25 * h) * a1))
        a3 = force(angle + drift * (rate + (0.5 * h) * a2))
        twice = 2 * a2
        inner = a1 + twice
        after = angle + drift * (rate + (h / 6) * inner)
        return join([after, rate + (h / 6) * (inner + twice + a3)])

    return step


def _matrix(networks: Complex[Tensor, "n p q q"], phase: Int64[Tensor, "n"]) -> Tensor:
    """Real form of each row's present matrix, ``[2q, 2q, n]``; ``[2q, 2q]`` of one row or one expanded network."""
    # Matrices that merely happen to be equal are not shared: a product with one matrix rounds otherwise than one per
    # row, and then the last bit of a row would hang on what its neighbours do.
    if len(phase) == 1 or (networks.stride(0) == 0 and bool((phase == phase[0]).all())):
        return real_form(networks[0, phase[0]])
    chosen = networks[torch.arange(len(phase), device=phase.device), phase]
    return real_form(chosen).permute(1, 2, 0).contiguous()


def _tracked(x: Tensor, orders: Orders, networks: Tensor) -> bool:
    return x.requires_grad or networks.requires_grad or any(part.requires_grad for part in orders)


def grid_state(x: State) -> Float[Tensor, "n states"]:
    """States of machines and regulators, also where a plant carries more."""
    grid: Tensor = x["grid"] if isinstance(x, dict) else tree_leaves(x)[0]
    return grid
