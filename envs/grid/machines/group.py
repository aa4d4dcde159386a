"""Units of one make: machines of one model with regulators of one model each, evaluated together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex
from torch import Tensor

from steersman.envs.grid.machines.base import Array, Axes, Machine, Rotor, convert, stack
from steersman.envs.grid.machines.regulators import Exciter, Regulator, Stabiliser, SteamGovernor
from steersman.envs.grid.network.algebra import rows_of
from steersman.envs.grid.network.case import Case


@dataclass(frozen=True)
class Unit:
    """A machine at a generator of the case, with its regulators; parameters are on the machine's own base.

    Attributes:
        generator: Index of the generator in the case.
        machine: Model of the machine or inverter.
        exciter: What sets the field voltage; constant without one.
        governor: What sets the mechanical power; constant without one.
        stabiliser: What adds to the exciter's reference, on speed.
        mva: Base of the parameters, MVA; that of the generator in the case unless given.
    """

    generator: int
    machine: Machine
    exciter: Exciter | None = None
    governor: SteamGovernor | None = None
    stabiliser: Stabiliser | None = None
    mva: float | None = None

    @property
    def make(self) -> tuple[type, ...]:
        """Classes of the parts; units of one make are evaluated together."""
        return tuple(type(part) for part in (self.machine, self.exciter, self.governor, self.stabiliser))


def grouped(case: Case, units: Sequence[Unit]) -> list[Group]:
    """Units by make, in the order of their first appearance.

    Raises:
        ValueError: If there are no units, a generator does not exist or has two, or a unit cannot be.
    """
    if not units:
        raise ValueError("units must not be empty; give one per generator of the case")
    taken: set[int] = set()
    for unit in units:
        if not 0 <= unit.generator < len(case.generators):
            raise ValueError(f"generator must be 0..{len(case.generators) - 1}, got {unit.generator}")
        where = f"unit at bus {case.buses.id[case.generators.bus[unit.generator]]}"
        if unit.generator in taken:
            raise ValueError(f"{where}: generator {unit.generator} has two units; give it one")
        taken.add(unit.generator)
        _check(unit, where)
    makes = list(dict.fromkeys(unit.make for unit in units))
    found, begin = [], 0
    for make in makes:
        members = [unit for unit in units if unit.make == make]
        found.append(Group(case, members, begin))
        begin += len(members)
    return found


def _check(unit: Unit, where: str) -> None:
    unit.machine.check(where)
    if unit.exciter is not None and not unit.machine.excited:
        raise ValueError(f"{where}: a {type(unit.machine).__name__} machine has no field; leave the exciter out")
    if unit.governor is not None and not isinstance(unit.machine, Rotor):
        raise ValueError(f"{where}: a {type(unit.machine).__name__} has no turbine; leave the governor out")
    if unit.stabiliser is not None and unit.exciter is None:
        raise ValueError(f"{where}: a stabiliser acts through an exciter; give it one or leave the stabiliser out")


class Group:
    """Units of one make.

    Args:
        case: Network, for bases.
        members: The units.
        first: Index of the first one among all units.
    """

    def __init__(self, case: Case, members: Sequence[Unit], first: int) -> None:
        """Stack the parameters on the base of the system."""
        self.members, self.rows, self.make = list(members), slice(first, first + len(members)), members[0].make
        mva = [case.generators.mva[u.generator] if u.mva is None else u.mva for u in members]
        ratio = [value / case.base_mva for value in mva]

        def part(name: str) -> Any:
            models = [getattr(unit, name) for unit in members]
            kind = models[0]
            return kind and stack(models, ratio, scaled=kind.base_scaled, inertial=kind.inertial)

        self.machine: Machine = part("machine")
        self.exciter: Exciter | None = part("exciter")
        self.governor: SteamGovernor | None = part("governor")
        self.stabiliser: Stabiliser | None = part("stabiliser")
        self._layout()
        self.inertia = self.machine.h[:, 0] if isinstance(self.machine, Rotor) else np.zeros(len(members))
        self._converted: dict[Any, Group] = {}

    def _layout(self) -> None:
        parts = (self.machine, self.exciter, self.governor, self.stabiliser)
        lengths = [0 if part is None else len(part.states) for part in parts]
        ends = np.cumsum(lengths).tolist()
        self._slices = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
        self.size = ends[-1] * len(self.members)
        regulators: list[tuple[slice, Regulator]] = [
            (place, part)
            for place, part in zip(self._slices[1:], parts[1:], strict=True)
            if isinstance(part, Regulator)
        ]
        self._limits = [(place.start + i, low, high) for place, part in regulators for i, low, high in part.limits()]

    @property
    def limited(self) -> bool:
        """Whether a state has limits."""
        return bool(self._limits)

    def states(self, case: Case) -> list[str]:
        """Names of the states with the machine's bus, state by state."""
        parts = (self.machine, self.exciter, self.governor, self.stabiliser)
        names = [name for part in parts if part is not None for name in part.states]
        buses = [case.buses.id[case.generators.bus[unit.generator]] for unit in self.members]
        return [f"{name} {bus}" for name in names for bus in buses]

    def on(self, like: Array) -> Group:
        """The group with parameters in the library, type and device of ``like``."""
        key = (type(like), like.dtype, getattr(like, "device", None))
        if key not in self._converted:
            self._converted[key] = self._with(lambda part: convert(part, like))
        return self._converted[key]

    def _with(self, change: Any) -> Group:
        other = object.__new__(Group)
        other.members, other.rows, other.make = self.members, self.rows, self.make
        other.inertia, other._converted = self.inertia, {}
        for name in ("machine", "exciter", "governor", "stabiliser"):
            part = getattr(self, name)
            setattr(other, name, None if part is None else change(part))
        other._layout()
        return other

    # ---------------------------------------------------------------- dynamics

    def mechanical(self, x: tuple[Array, ...], orders: Any) -> Array:
        """Mechanical power ``[m, n]``; the set point of units without a governor."""
        power = rows_of(orders.power, self.rows)
        if self.governor is None:
            return power
        return self.governor.power(x[self._slices[2]], self.machine.speed(x[self._slices[0]], power))

    def flow(
        self,
        x: tuple[Array, ...],
        source: tuple[Array, Array],
        current: tuple[Array, Array],
        voltage: Array,
        orders: Any,
        omega: float,
    ) -> list[Array]:
        """Rates of all states, each ``[m, n]``; arguments along the machines' axes."""
        own = x[self._slices[0]]
        order, power = rows_of(orders.voltage, self.rows), rows_of(orders.power, self.rows)
        mechanical = self.mechanical(x, orders)
        speed = self.machine.speed(own, power)
        rates: list[Array] = []
        field = order
        if self.exciter is not None:
            excited = x[self._slices[1]]
            field = self.exciter.field(excited, speed)
            if self.stabiliser is not None:
                order = order + self.stabiliser.signal(x[self._slices[3]], speed)
            rates += self.exciter.flow(excited, voltage, order, speed)
        if self.governor is not None:
            rates += self.governor.flow(x[self._slices[2]], power, speed)
        if self.stabiliser is not None:
            rates += self.stabiliser.flow(x[self._slices[3]], speed)
        return self.machine.flow(own, Axes(*source), Axes(*current), field, mechanical, omega) + rates

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Limits of all states, infinite where there are none, ``[size, 1]`` each."""
        count, m = self.size // len(self.members), len(self.members)
        low, high = np.full((count, m), -np.inf), np.full((count, m), np.inf)
        for i, least, most in self._limits:
            low[i], high[i] = least[:, 0], most[:, 0]
        return low.reshape(-1, 1), high.reshape(-1, 1)

    def start(self, V: Complex[Tensor, "n m"], current: Complex[Tensor, "n m"]) -> tuple[Tensor, ...]:
        """States ``[n, size]``, reference voltage, power set point and constant voltage ``[n, m]`` in equilibrium."""
        group = self._with(lambda part: convert(part, V.real, rows=True))
        begin = group.machine.start(V, current)
        parts, voltage, power = [begin.x], begin.field, begin.power
        if group.exciter is not None:
            states, voltage = group.exciter.start(V.abs(), begin.field)
            parts.append(states)
        if group.governor is not None:
            states, power = group.governor.start(begin.power)
            parts.append(states)
        if group.stabiliser is not None:
            parts.append(torch.zeros(len(group.stabiliser.states), *begin.power.shape).to(begin.power))
        x = torch.cat(parts).permute(1, 0, 2).reshape(len(V), -1)
        return x, voltage, power, begin.field
