"""What grid plants share: scenarios as events, integration, frequencies and angles as outputs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Complex, Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs.grid.events import Event, Patch, patched, phases
from steersman.envs.grid.network.admittance import eliminate
from steersman.envs.grid.simulate import grid_state, integrate, intervals
from steersman.envs.grid.system import GridSystem, Orders
from steersman.envs.grid.tasks.swing import check_version, separation_names, separations
from steersman.envs.placement import constant
from steersman.envs.plant import Plant, Status, Trail
from steersman.envs.tree import Params, State


class GridPlant(Plant, ABC):
    """Machines on a network after an event, on actions that change set points or conductances.

    State: that of the :class:`~steersman.envs.grid.system.GridSystem`, ``[n, states]``, or a dict with it under
    ``grid`` where a subclass carries more. Measured: frequency deviations of the units in Hz, angles of all but the
    first relative to it in rad. Performance: deviations of the units from the frequency of the centre of inertia, and
    that of the centre from the nominal one, in Hz; in version 2 (:mod:`~steersman.envs.grid.tasks.swing`) also
    differences of
    the angles in rad. Angles of connected units that spread over more than pi are a loss of synchronism (TERMINATED).
    Gradients are exact but for limits.

    A controller knows nothing of an event that has not begun. From then on it knows when that is over, as protection
    has set times, and what else begins meanwhile, as the loss of the line by which a fault is cleared.

    Subclasses call :meth:`_setup`, set actions and objective, and say by :meth:`draw` what happens.

    Attributes:
        system: Machines and network.
        ports: Numbers of the buses to which actions attach conductances.
        places: Where renders draw each bus; by a layout of networkx unless given.
    """

    system: GridSystem
    ports: tuple[int, ...] = ()
    places: dict[int, tuple[float, float]] | None = None
    gradient = "exact"

    def _setup(self, system: GridSystem, dt: float, period: float, seconds: float, version: int = 1) -> None:
        """Store what the base class needs.

        Raises:
            ValueError: If ``dt`` does not divide the control period, or there is no such version.
        """
        check_version(version)
        hold = round(period / dt) if dt > 0 else 0
        if hold < 1 or not math.isclose(hold * dt, period, rel_tol=1e-9):
            raise ValueError(f"dt must divide the control period of {period} s, got {dt}; try {period / 20:g}")
        self.system, self.dt, self.hold, self.horizon = system, dt, hold, round(seconds / period)
        self.version = version
        names = [str(system.case.buses.id[bus]) for bus in system.bus]
        angles = tuple(f"angle {name}-{names[0]}" for name in names[1:])
        self.measured = (*(f"frequency {name}" for name in names), *angles)
        self._apart = separation_names(names) if version == 2 else ()
        self.performed = (*(f"swing {name}" for name in names), "centre frequency", *self._apart)

    # ---------------------------------------------------------- for subclasses

    @abstractmethod
    def draw(self, key: Int64[Tensor, "n"]) -> tuple[Float[Tensor, "n"], Sequence[Event]]:
        """Loadings and events of scenarios."""

    def modulation(self, u: Float[Tensor, "n m"]) -> Float[Tensor, "n units"]:
        """What actions add to the reference voltages, pu; nothing by default."""
        return u.new_zeros(len(u), self.system.units)

    def conductance(self, u: Float[Tensor, "n m"], x: State, p: Params) -> Float[Tensor, "n ports"]:
        """Conductance in pu that actions attach to the buses :attr:`ports`."""
        return u.new_zeros(len(u), len(self.ports))

    # ---------------------------------------------------------------- scenarios

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """Operating points and networks of what :meth:`draw` says."""
        return self.scenario(*self.draw(key))

    def scenario(self, loading: Float[Tensor, "n"], events: Sequence[Event]) -> Params:
        """Parameters of chosen loadings and events.

        Raises:
            ValueError: If a loading has no power flow, or an event's place or time makes no sense.
        """
        point = self.system.operate(loading)
        changes = phases(self.system, point, events, self.ports)
        demand = self.system.demand(point)
        ports = [self.system.case.buses.id.tolist().index(bus) for bus in self.ports]
        return {
            "loading": loading,
            "start": point.x,
            "voltage": point.voltage,
            "power": point.power,
            "held": point.held,
            "port voltage": point.V[:, ports].abs(),
            "edges": changes.edges,
            "trip": changes.trip,
            # Real pairs, since files of scenarios hold no complex numbers.
            "network": torch.view_as_real(changes.network),
            **_stored(changes.patches),
        } | ({} if demand is None else {"demand": demand.movedim(-1, 0).contiguous()})

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """The equilibrium of the scenario's loading."""
        return p["start"].clone()

    def known(self, k: Int64[Tensor, "n"], p: Params) -> Params:
        """No event that has not begun; see the class."""
        if "on" not in p:
            return p
        now = k.to(p["edges"])[:, None] * self.period
        over = p["off"].where((p["on"] <= now) & p["off"].isfinite(), -math.inf).amax(dim=1, keepdim=True)
        until = torch.maximum(now, over)
        ahead = p["on"] > until
        times = {name: p[name].where(p[name] <= until, math.inf) for name in ("edges", "trip")}
        changes = {name: p[name].masked_fill(ahead, math.inf) for name in ("on", "off")}
        places = {
            "nodes": p["nodes"].masked_fill(ahead[..., None], 0),
            "delta": p["delta"].masked_fill(ahead[..., None, None, None], 0.0),
        }
        # The network stays what it is after the last known change.
        phase = torch.arange(p["network"].shape[1], device=k.device).minimum((p["edges"] <= until).sum(1, keepdim=True))
        row = torch.arange(len(k), device=k.device)[:, None]
        return p | times | changes | places | {"network": p["network"][row, phase]}

    # ------------------------------------------------------------------ physics

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        return self.advance(k, grid_state(x), u, x, p)

    def advance(
        self, k: Int64[Tensor, "n"], grid: Float[Tensor, "n states"], u: Float[Tensor, "n m"], x: State, p: Params
    ) -> Float[Tensor, "n states"]:
        """States of the grid after a control step."""
        # Sines of a vector take another path when one lane is NaN: a bad row must not change its neighbours' last bit.
        bad = ~torch.isfinite(u).all(dim=1, keepdim=True)
        u = torch.where(bad, 0.0, u)
        now = k.to(p["edges"]) * self.period
        pieces = intervals(now, self.period, self.hold, p["edges"])
        demand = p["demand"].movedim(0, -1).contiguous() if "demand" in p else None
        after = integrate(self.system, grid, self.orders(u, p), self._networks(u, x, p), pieces, demand)
        return torch.where(bad, math.nan, after)

    def orders(self, u: Float[Tensor, "n m"], p: Params) -> Orders:
        """Set points under an action, rows last."""
        held = self.orders_of(p)
        return held._replace(voltage=held.voltage + self.modulation(u).T)

    def _networks(self, u: Tensor, x: State, p: Params) -> Tensor:
        networks = torch.view_as_complex(p["network"].contiguous())
        if not self.ports:
            return networks
        kept = networks.shape[-1] - len(self.ports)
        shunt = torch.nn.functional.pad(self.conductance(u, x, p), (kept, 0))
        return eliminate(networks + torch.diag_embed(shunt)[:, None], kept)

    # ------------------------------------------------------------------ outputs

    def frequency(self, x: State, p: Params) -> Float[Tensor, "n units"]:
        """Deviations of the units from the nominal frequency, Hz."""
        speeds: Tensor = self.system.speeds(grid_state(x).T, self.orders_of(p)).T
        return self.system.case.frequency * speeds

    def orders_of(self, p: Params) -> Orders:
        """Set points without any action."""
        return Orders(p["voltage"].T, p["power"].T, p["held"].T)

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n ny"]:
        """Frequency deviations in Hz and angles relative to the first unit in rad."""
        angle = self.system.angles(grid_state(x).T).T
        return torch.cat([self.frequency(x, p), angle[:, 1:] - angle[:, :1]], dim=1)

    def centre(self, frequency: Float[Tensor, "n units"]) -> Float[Tensor, "n 1"]:
        """Deviation of the centre of inertia from those of the units."""
        H = constant(tuple(self.system.inertia), frequency)
        return (frequency @ (H / H.sum()))[:, None]

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n nz"]:
        """Deviations from the centre of inertia and of the centre in Hz, and in version 2 angles in rad."""
        frequency = self.frequency(x, p)
        centre = self.centre(frequency)
        apart = [separations(self.system.angles(grid_state(x).T).T)] if self._apart else []
        return torch.cat([frequency - centre, centre, *apart], dim=1)

    def status(self, k: Int64[Tensor, "n"], x: State, p: Params) -> UInt8[Tensor, "n"]:
        """TERMINATED where the angles of connected units spread over more than pi."""
        angle = self.system.angles(grid_state(x).T).T
        there = k.to(p["trip"])[:, None] * self.period < p["trip"]
        high = angle.where(there, -math.inf).amax(dim=1)
        low = angle.where(there, math.inf).amin(dim=1)
        lost: Tensor = high - low > math.pi
        return (lost * int(Status.TERMINATED)).to(torch.uint8)

    def voltages(self, time: float, grid: Float[Tensor, "1 states"], p: Params) -> Complex[Tensor, "b"]:
        """Bus voltages of one row from its internal voltages, under what holds at a time; actions left aside."""
        point = self.system.operate(p["loading"][:1])
        at = torch.full((1,), time, dtype=torch.float64)
        full = patched(self.system.augmented(point), _restored(p), at)[0]
        m = self.system.units
        E = self.system.internal(grid.T, self.orders_of({name: p[name][:1] for name in ("voltage", "power", "held")}))
        V: Tensor = torch.linalg.solve(full[m:, m:], -full[m:, :m] @ E[:, 0])
        return V

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """One-line diagram with angles and flows, and angles, frequencies and actions so far."""
        from steersman.envs.grid.picture import draw

        return draw(self, trail)


def _stored(patches: Sequence[Patch]) -> Params:
    """Changes of the network as parameters, for renders: one column per event."""
    if not patches:
        return {}
    nodes, delta, on, off = (torch.stack(part, dim=1) for part in zip(*patches, strict=True))
    return {"nodes": nodes, "delta": torch.view_as_real(delta), "on": on, "off": off}


def _restored(p: Params) -> list[Patch]:
    """Changes of the network of the first row."""
    if "on" not in p:
        return []
    delta = torch.view_as_complex(p["delta"].contiguous())
    columns = range(p["on"].shape[1])
    return [Patch(p["nodes"][:1, i], delta[:1, i], p["on"][:1, i], p["off"][:1, i]) for i in columns]
