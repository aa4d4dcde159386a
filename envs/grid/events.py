"""What happens to a grid, as data: faults, trips and load steps, each a change of the admittance matrix for a time.

An event describes one thing that happens in every scenario of a batch, with a place and times per row (numbers apply
to all rows); a row in which it does not happen has the time ``inf``. Buses are their numbers in the case. Every event
adds a symmetric 2 x 2 block at two nodes of the network from ``on`` to ``off``, so any mixture of them is handled
alike; times need not lie on the integrator's grid.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Complex, Float, Int64
from torch import Tensor

from steersman.envs.grid.network.admittance import branch_admittance
from steersman.envs.grid.network.case import Case, index_of

if TYPE_CHECKING:
    from steersman.envs.grid.system import GridSystem, OperatingPoint

PerRow = float | Tensor
"""A number for all rows, or one per row, ``[n]``."""


class Patch(NamedTuple):
    """A change of the network; nodes count the machines' internal ones first, then the buses.

    Attributes:
        nodes: Two nodes per row.
        delta: What is added to the admittance matrix there, pu.
        on: From this time on, s.
        off: Until this time, s; infinite for good.
    """

    nodes: Int64[Tensor, "n 2"]
    delta: Complex[Tensor, "n 2 2"]
    on: Float[Tensor, "n"]
    off: Float[Tensor, "n"]


class Event(ABC):
    """One thing that happens; subclasses are final dataclasses.

    Attributes:
        ends: Whether it can be over again, as a fault is when it clears.
    """

    ends: ClassVar[bool] = False

    @abstractmethod
    def patch(self, system: GridSystem, point: OperatingPoint) -> Patch:
        """The change of the network. Raises ValueError for places that do not exist and times below zero."""


def _row(value: PerRow, n: int, name: str, device: torch.device) -> Float[Tensor, "n"]:
    row = torch.as_tensor(value, dtype=torch.float64, device=device).expand(n)
    if not bool((row >= 0).all()):
        raise ValueError(f"{name} must not be negative or NaN, got {row[~(row >= 0)].tolist()}; use inf for never")
    return row


def _buses(case: Case, bus: int | Tensor, n: int, device: torch.device) -> Int64[Tensor, "n"]:
    if isinstance(bus, Tensor):
        wanted, back = torch.unique(bus, return_inverse=True)
        places = torch.as_tensor(index_of(case.buses.id, wanted.tolist(), "event"), device=device)
        return places[back].expand(n)
    return torch.as_tensor(index_of(case.buses.id, [bus], "event"), device=device).expand(n)


def _corner(value: Complex[Tensor, "n"]) -> Complex[Tensor, "n 2 2"]:
    block = value.new_zeros(len(value), 2, 2)
    block[:, 0, 0] = value
    return block


@final
@dataclass(frozen=True, eq=False)
class Fault(Event):
    """Three-phase short circuit to ground that clears by itself.

    Attributes:
        bus: Number of the bus, or one per row.
        start: Time, s.
        duration: Duration, s.
        reactance: Reactance of the fault, pu.
    """

    bus: int | Tensor
    start: PerRow
    duration: PerRow
    reactance: float = 1e-4
    ends: ClassVar[bool] = True

    def patch(self, system: GridSystem, point: OperatingPoint) -> Patch:
        """See :class:`Event`."""
        if not self.reactance > 0:
            raise ValueError(f"reactance of a fault must be positive, got {self.reactance}")
        n, device = len(point.V), point.V.device
        node = system.units + _buses(system.case, self.bus, n, device)
        on = _row(self.start, n, "start", device)
        shunt = torch.full((n,), 1 / (1j * self.reactance), dtype=torch.complex128, device=device)
        return Patch(torch.stack([node, node], 1), _corner(shunt), on, on + _row(self.duration, n, "duration", device))


@final
@dataclass(frozen=True, eq=False)
class LineTrip(Event):
    """A branch is taken out of service for good.

    Attributes:
        branch: Index in the case, or one per row.
        time: Time, s.
    """

    branch: int | Tensor
    time: PerRow

    def patch(self, system: GridSystem, point: OperatingPoint) -> Patch:
        """See :class:`Event`."""
        n, device, lines = len(point.V), point.V.device, system.case.branches
        branch = torch.as_tensor(self.branch, device=device).expand(n)
        if not bool(((branch >= 0) & (branch < len(lines))).all()):
            raise ValueError(f"branch must be 0..{len(lines) - 1}, got {branch.tolist()}")
        for i in torch.unique(branch).tolist():
            system.case.without_branch(i)  # names the buses that would be cut off
        ends = torch.as_tensor(np.stack([lines.start, lines.end], axis=1), device=device)[branch]
        on = _row(self.time, n, "time", device)
        return Patch(system.units + ends, -branch_admittance(lines, device)[branch], on, torch.full_like(on, math.inf))


@final
@dataclass(frozen=True, eq=False)
class LoadStep(Event):
    """More (or less) load, as an impedance that draws ``power`` at the voltage before all events.

    Attributes:
        bus: Number of the bus, or one per row.
        time: Time, s.
        power: Active power, pu; reactive power in proportion ``tangent``.
        tangent: Reactive over active power.
    """

    bus: int | Tensor
    time: PerRow
    power: PerRow
    tangent: float = 0.0

    def patch(self, system: GridSystem, point: OperatingPoint) -> Patch:
        """See :class:`Event`."""
        n, device = len(point.V), point.V.device
        bus = _buses(system.case, self.bus, n, device)
        size = point.V.gather(1, bus[:, None])[:, 0].abs()
        power = torch.as_tensor(self.power, dtype=torch.float64, device=device).expand(n) / size**2
        on, node = _row(self.time, n, "time", device), system.units + bus
        shunt = torch.complex(power, -self.tangent * power)
        return Patch(torch.stack([node, node], 1), _corner(shunt), on, torch.full_like(on, math.inf))


@final
@dataclass(frozen=True, eq=False)
class GeneratorTrip(Event):
    """A unit is disconnected for good; it counts no more in centres of inertia and losses of synchronism.

    Attributes:
        unit: Index among the system's units.
        time: Time, s.
    """

    unit: int
    time: PerRow

    def patch(self, system: GridSystem, point: OperatingPoint) -> Patch:
        """See :class:`Event`."""
        if not 0 <= self.unit < system.units:
            raise ValueError(f"unit must be 0..{system.units - 1}, got {self.unit}")
        n, device = len(point.V), point.V.device
        nodes = torch.tensor([self.unit, system.units + int(system.bus[self.unit])], device=device)
        y = system.source_admittance.to(device)[self.unit]
        block = torch.stack([torch.stack([-y, y]), torch.stack([y, -y])])
        on = _row(self.time, n, "time", device)
        return Patch(nodes.expand(n, 2), block.expand(n, 2, 2), on, torch.full_like(on, math.inf))


@dataclass(frozen=True)
class Phases:
    """The network over time: it changes at ``edges`` (ascending, infinite where unused).

    Attributes:
        edges: Times, s.
        network: Reduced matrices seen from the internal nodes and the kept buses, one more than edges.
        trip: When each unit is disconnected, s; infinite for never.
        patches: The changes themselves.
    """

    edges: Float[Tensor, "n e"]
    network: Complex[Tensor, "n p q q"]
    trip: Float[Tensor, "n units"]
    patches: tuple[Patch, ...]


def phases(system: GridSystem, point: OperatingPoint, events: Sequence[Event], ports: Sequence[int] = ()) -> Phases:
    """Reduce the network of every phase between events, once.

    Args:
        system: Machines and network.
        point: Operating points before the events.
        events: What happens; none leaves one phase.
        ports: Numbers of buses to keep because a plant connects something there.

    Raises:
        ValueError: From an event whose place or time makes no sense.
    """
    n, device = len(point.V), point.V.device
    patches = [event.patch(system, point) for event in events]
    # By kind and not by value: the shape must not depend on what happens in the other rows.
    times = [
        t for event, patch in zip(events, patches, strict=True) for t in (patch.on, patch.off)[: 1 + type(event).ends]
    ]
    edges = torch.stack(times, dim=1).sort(dim=1).values if times else torch.zeros(n, 0, device=device).double()
    outer = torch.nn.functional.pad(edges.clamp(max=1e9), (1, 1), value=0.0)
    outer[:, -1] = 2e9
    middle = (outer[:, 1:] + outer[:, :-1]) / 2
    base = system.augmented(point)
    networks = [system.reduce(patched(base, patches, time), ports) for time in middle.unbind(dim=1)]
    trip = torch.full((n, system.units), math.inf, dtype=torch.float64, device=device)
    for event, patch in zip(events, patches, strict=True):
        if isinstance(event, GeneratorTrip):
            trip[:, event.unit] = torch.minimum(trip[:, event.unit], patch.on)
    return Phases(edges, torch.stack(networks, dim=1), trip, tuple(patches))


def patched(
    full: Complex[Tensor, "n a a"], patches: Sequence[Patch], time: Float[Tensor, "n"]
) -> Complex[Tensor, "n a a"]:
    """Admittances with the changes that hold at a time."""
    row = torch.arange(len(full), device=full.device)[:, None, None]
    for patch in patches:
        active = (patch.on <= time) & (time < patch.off)
        value = patch.delta * active[:, None, None]
        full = full.index_put((row, patch.nodes[:, :, None], patch.nodes[:, None, :]), value, accumulate=True)
    return full
