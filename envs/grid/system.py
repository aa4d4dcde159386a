"""Machines with their regulators on a network: operating points, the rate of change of all states, modes.

Loads are impedances, or keep a share of constant power; all buses without a source are eliminated. The right-hand
side works on arrays ``[states, n]`` (scenarios last, so that every state of every machine is contiguous) of torch or
numpy alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from steersman.envs.grid.machines.base import Array, library
from steersman.envs.grid.machines.group import Group, Unit, grouped
from steersman.envs.grid.machines.models import Classical
from steersman.envs.grid.network.admittance import admittance, eliminate, power_flow
from steersman.envs.grid.network.algebra import apply, join, load_currents, rows_of, solve, solve_salient
from steersman.envs.grid.network.case import PQ, SLACK, Case, index_of

_NEWTON = 5


@dataclass(frozen=True)
class OperatingPoint:
    """Equilibria of a batch, from power flows.

    Attributes:
        V: Bus voltages, pu.
        load: Complex power drawn, pu.
        x: States in equilibrium.
        voltage: Reference voltages of the exciters (field voltages of units without), pu.
        power: Set points of the governors (mechanical power of units without), pu.
        held: Constant internal voltages of units that have one, pu.
    """

    V: Complex[Tensor, "n b"]
    load: Complex[Tensor, "n b"]
    x: Float[Tensor, "n states"]
    voltage: Float[Tensor, "n units"]
    power: Float[Tensor, "n units"]
    held: Float[Tensor, "n units"]


@dataclass(frozen=True)
class LoadModel:
    """How the power of all loads depends on voltage: shares of constant power and of constant current.

    The rest is constant impedance.

    Attributes:
        power: Shares of constant power, of the active and the reactive load.
        current: Shares of constant current, likewise.

    Raises:
        ValueError: If a share is not within 0..1, or shares add up to more than 1.
    """

    power: tuple[float, float] = (0.0, 0.0)
    current: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        for name, p, i in zip(("active", "reactive"), self.power, self.current, strict=True):
            if not (0 <= p <= 1 and 0 <= i <= 1 and p + i <= 1):
                raise ValueError(f"shares of the {name} load must be within 0..1 and add up to 1 at most, got {p}, {i}")

    @property
    def linear(self) -> bool:
        """Whether all loads are impedances."""
        return not any((*self.power, *self.current))


class Orders(NamedTuple):
    """Set points ``[units, n]`` of the right-hand side."""

    voltage: Array
    power: Array
    held: Array


class Network(NamedTuple):
    """A reduced network in real form.

    Attributes:
        Y: From the voltages of sources and loads to their currents, ``[2q, 2q]``, or ``[2q, 2q, n]`` if rows differ.
        demand: What the kept load buses draw: constant power, and constant current as power at 1 pu, each real and
            reactive, ``[2, 2, loads, n]``; None without any.
    """

    Y: Array
    demand: Array | None = None


class GridSystem:
    """A case with a machine at every generator.

    Args:
        case: Network.
        units: One per generator of the case that is to be represented, in any order; a generator left out is a
            negative load.
        loads: How loads depend on voltage; impedances unless given.

    Raises:
        ValueError: If a generator has two units or does not exist, a parameter makes no sense (the message names the
            bus), or no unit is given.
    """

    def __init__(self, case: Case, units: Sequence[Unit], *, loads: LoadModel | None = None) -> None:
        """Group the units and find their places."""
        self.case, self.load_model = case, loads or LoadModel()
        self.groups = grouped(case, units)
        self.order = [unit for group in self.groups for unit in group.members]
        self.generator = np.array([unit.generator for unit in self.order])
        self.bus = case.generators.bus[self.generator]
        self.units, self.size = len(self.order), sum(group.size for group in self.groups)
        self.omega = 2 * np.pi * case.frequency
        sides = [np.broadcast_to(part, (len(g.members), 1)) for g in self.groups for part in g.machine.impedance]
        resistance, reactance = np.concatenate(sides[::2])[:, 0], np.concatenate(sides[1::2])[:, 0]
        self.source_admittance = torch.as_tensor(1 / (resistance + 1j * reactance))
        self._internal, self._resistive = (resistance[:, None], reactance[:, None]), bool(resistance.any())
        salient = np.concatenate([np.broadcast_to(g.machine.saliency(), (len(g.members), 1)) for g in self.groups])
        self._salient = salient if np.abs(salient).max() > 0 else None
        self.inertia = np.concatenate([g.inertia for g in self.groups])
        self._cache: dict[Any, Any] = {}

    @property
    def loads(self) -> list[int]:
        """Indices of the buses that stay because their loads are no impedances."""
        return [] if self.load_model.linear else np.flatnonzero(self.case.buses.load).tolist()

    @property
    def states(self) -> tuple[str, ...]:
        """Names of all states, in order."""
        return tuple(name for group in self.groups for name in group.states(self.case))

    # --------------------------------------------------------- operating point

    def operate(self, loading: Float[Tensor, "n"]) -> OperatingPoint:
        """Equilibria when all loads and scheduled powers are multiplied by ``loading``.

        Raises:
            ValueError: If a row has no power flow.
        """
        case, device = self.case, loading.device
        load = loading[:, None] * torch.as_tensor(case.buses.load, device=device)
        schedule = loading[:, None] * torch.as_tensor(case.generators.p + 1j * case.generators.q, device=device)
        V = power_flow(case, load, schedule)
        injected = V * (V @ admittance(case, device).T).conj() + load
        S = self._shares(injected, schedule)
        left_out = [g for g in range(len(case.generators)) if g not in set(self.generator.tolist())]
        if left_out:
            place = torch.as_tensor(case.generators.bus[left_out], device=device)
            load = load.index_add(1, place, -S[:, left_out])
        at = V[:, self.bus]
        return self._start(V, load, at, (S[:, self.generator] / at).conj())

    def _shares(self, injected: Tensor, schedule: Tensor) -> Complex[Tensor, "n g"]:
        """Power of each generator: scheduled where its bus lets it be, else its share of the bus's by rating."""
        gens = self.case.generators
        weight = np.zeros(len(self.case.buses))
        np.add.at(weight, gens.bus, gens.mva)
        share = torch.as_tensor(gens.mva / weight[gens.bus], device=injected.device)
        at = injected[:, gens.bus]
        kind = torch.as_tensor(self.case.buses.kind[gens.bus], device=injected.device)
        active = torch.where(kind == SLACK, at.real * share, schedule.real)
        return torch.complex(active, torch.where(kind == PQ, schedule.imag, at.imag * share))

    def _start(self, V: Tensor, load: Tensor, at: Tensor, current: Tensor) -> OperatingPoint:
        parts, begin = [], 0
        for group in self.groups:
            end = begin + len(group.members)
            parts.append(group.start(at[:, begin:end], current[:, begin:end]))
            begin = end
        x, voltage, power, held = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        return OperatingPoint(V, load, x, voltage, power, held)

    def augmented(self, point: OperatingPoint) -> Complex[Tensor, "n a a"]:
        """Admittances of internal nodes and buses, with loads as far as they are impedances."""
        n, m, device = len(point.V), self.units, point.V.device
        y = self.source_admittance.to(device)
        active, reactive = (1 - p - i for p, i in zip(self.load_model.power, self.load_model.current, strict=True))
        linear = torch.complex(active * point.load.real, reactive * point.load.imag)
        shunt = linear.conj() / point.V.abs().square()
        own, bus = torch.arange(m, device=device), m + torch.as_tensor(self.bus, device=device)
        full = torch.zeros(n, m + shunt.shape[1], m + shunt.shape[1], dtype=point.V.dtype, device=device)
        full[:, m:, m:] = admittance(self.case, device) + torch.diag_embed(shunt)
        row = torch.arange(n, device=device)[:, None]
        for i, j, value in ((own, own, y), (bus, bus, y), (own, bus, -y), (bus, own, -y)):
            full.index_put_((row, i, j), value.expand(n, m), accumulate=True)
        return full

    def reduce(self, full: Complex[Tensor, "n a a"], ports: Sequence[int] = ()) -> Complex[Tensor, "n q q"]:
        """Eliminate all buses but loads that are no impedances and ``ports`` (bus numbers), in this order."""
        wanted = [*self.loads, *index_of(self.case.buses.id, ports, "port").tolist()]
        kept = [*range(self.units), *(self.units + bus for bus in wanted)]
        rest = [i for i in range(full.shape[1]) if i not in set(kept)]
        order = torch.tensor(kept + rest, device=full.device)
        return eliminate(full[:, order][:, :, order], len(kept))

    def demand(self, point: OperatingPoint) -> Float[Tensor, "2 2 loads n"] | None:
        """What loads draw that are no impedances, see :class:`Network`; None without."""
        if not self.loads:
            return None
        load, size = point.load[:, self.loads].T, point.V[:, self.loads].abs().T
        parts = torch.stack([load.real, load.imag])
        power, current = (parts.new_tensor(s)[:, None, None] for s in (self.load_model.power, self.load_model.current))
        return torch.stack([power * parts, current * parts / size])

    # ---------------------------------------------------------------- dynamics

    def flow(self, x: Array, network: Network, orders: Orders) -> Array:
        """Rates of all states ``[states, n]``."""
        lib, parts = library(x), self._parts(x)
        angle = join([states[0] for _, states in parts])
        sin, cos = lib.sin(angle), lib.cos(angle)
        sources = [g.machine.source(s, rows_of(orders.held, g.rows)) for g, s in parts]
        d, q = (join([pair[i] for pair in sources]) for i in (0, 1))
        E = lib.concatenate([d * sin + q * cos, q * sin - d * cos])
        current = self.currents(E, network, sin, cos)
        m = self.units
        along_d, along_q = current[:m] * sin - current[m:] * cos, current[:m] * cos + current[m:] * sin
        voltage = self._terminal(d, q, along_d, along_q)
        rates = []
        for group, states in parts:
            own = [rows_of(part, group.rows) for part in (d, q, along_d, along_q, voltage)]
            rates += group.flow(states, (own[0], own[1]), (own[2], own[3]), own[4], orders, self.omega)
        return lib.concatenate(rates)

    @property
    def undamped(self) -> bool:
        """Whether all forces depend on the angles alone: classical machines without damping and governors."""
        (group,) = self.groups if len(self.groups) == 1 else (None,)
        if group is None or group.make != (Classical, type(None), type(None), type(None)) or self.loads:
            return False
        return not np.any(group.machine.d)  # type: ignore[attr-defined]

    def swing(self, network: Network, orders: Orders) -> Callable[[Array], Array]:
        """Rates of the speeds from the angles of an :attr:`undamped` system: :meth:`flow` without what is constant."""
        m, lib = self.units, library(orders.power)
        twice = self._like("2H", 2 * self.inertia[:, None], orders.power)
        # Internal voltages and inertias are constant, so they are folded into the matrix.
        held, share = lib.concatenate([orders.held, orders.held]), orders.power / twice
        halved = held / lib.concatenate([twice, twice])
        Y = network.Y
        if Y.ndim == 2 and bool((held == held[:, :1]).all()):
            Y = halved[:, :1] * Y * held[:, 0]
        else:
            Y = halved[:, None] * (Y if Y.ndim == 3 else Y[:, :, None]) * held

        def force(angle: Array) -> Array:
            unit = lib.concatenate([lib.cos(angle), lib.sin(angle)])
            electric = unit * apply(Y, unit)
            return share - (electric[:m] + electric[m:])

        return force

    def internal(self, x: Array, orders: Orders) -> Array:
        """Complex internal voltages ``[units, n]``, saliency left aside."""
        angle, parts = self.angles(x), self._parts(x)
        sources = [g.machine.source(s, orders.held[g.rows]) for g, s in parts]
        d, q = (join([pair[i] for pair in sources]) for i in (0, 1))
        lib = library(x)
        return (q - 1j * d) * (lib.cos(angle) + 1j * lib.sin(angle))

    def currents(self, E: Array, network: Network, sin: Array, cos: Array) -> Array:
        """Currents of the sources ``[2 units, n]``, real parts first, from their voltages."""
        Y = network.Y
        if network.demand is not None:
            E = self._with_loads(E, network)
        current = apply(Y, E)
        if network.demand is not None:
            q = len(E) // 2
            current = library(E).concatenate([current[: self.units], current[q : q + self.units]])
        if self._salient is None:
            return current
        return solve_salient(Y, current, self._like("salient", self._salient, E), sin, cos)

    def speeds(self, x: Array, orders: Orders) -> Array:
        """Deviations of the speeds ``[units, n]`` in pu."""
        return join([g.machine.speed(s, g.mechanical(s, orders)) for g, s in self._parts(x)])

    def angles(self, x: Array) -> Array:
        """Angles ``[units, n]`` in rad."""
        return join([s[0] for _, s in self._parts(x)])

    def clamp(self, x: Array) -> Array:
        """States within the limits of their regulators."""
        low, high = (self._like(name, bound, x) for name, bound in zip(("low", "high"), self._bounds, strict=True))
        return library(x).clip(x, low, high)

    @cached_property
    def _bounds(self) -> tuple[Any, Any]:
        """Limits of all states, infinite where there are none, ``[states, 1]`` each."""
        return tuple(np.concatenate([group.bounds[i] for group in self.groups]) for i in (0, 1))  # type: ignore[return-value]

    @property
    def limited(self) -> bool:
        """Whether any state has limits."""
        return any(group.limited for group in self.groups)

    def _parts(self, x: Array) -> list[tuple[Group, tuple[Array, ...]]]:
        """Groups with their states, one array ``[m, n]`` each: to take them apart once costs less than indexing."""
        parts, begin = [], 0
        for group in self.groups:
            states = x[begin : begin + group.size].reshape(-1, len(group.members), x.shape[-1])
            parts.append((group.on(x), tuple(states)))
            begin += group.size
        return parts

    def _terminal(self, d: Array, q: Array, along_d: Array, along_q: Array) -> Array:
        r, x = (self._like(name, part, d) for name, part in zip(("r", "x"), self._internal, strict=True))
        vd, vq = d + x * along_q, q - x * along_d
        if self._resistive:
            vd, vq = vd - r * along_d, vq - r * along_q
        if self._salient is not None:
            vd = vd + self._like("salient", self._salient, d) * along_q
        return library(d).hypot(vd, vq)

    def _like(self, name: str, value: Any, like: Array) -> Array:
        key = (name, like.dtype, getattr(like, "device", None))
        if key not in self._cache:
            tensor = isinstance(like, Tensor)
            self._cache[key] = torch.as_tensor(value).to(like) if tensor else np.asarray(value, like.dtype)
        return self._cache[key]

    def _with_loads(self, E: Array, network: Network) -> Array:
        """Voltages of sources and load buses: Newton's method on the load currents, from the unloaded voltage."""
        lib, m, q = library(E), self.units, len(network.Y) // 2
        load = [*range(m, q), *range(q + m, 2 * q)]
        source = [*range(m), *range(q, q + m)]
        inner, driven = network.Y[load][:, load], apply(network.Y[load][:, source], E)
        V = solve(inner, -driven)
        for _ in range(_NEWTON):
            drawn, slope = load_currents(V, network.demand)
            gap = apply(inner, V) + driven + drawn
            V = V - solve((inner if inner.ndim == 3 else inner[:, :, None]) + slope, gap)
        half = len(load) // 2
        return lib.concatenate([E[:m], V[:half], E[m:], V[half:]])
