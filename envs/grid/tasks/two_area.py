"""Kundur's two-area grid after a short circuit, steadied by storage in the tie or by a dynamic brake."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.grid.network.admittance import eliminate, real_form
from steersman.envs.grid.tasks import kundur
from steersman.envs.grid.tasks.swing import (
    begin,
    check_version,
    separation_names,
    separations,
    swing_cost,
    synchronism,
)
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.placement import constant
from steersman.envs.plant import Plant, Status, Trail
from steersman.envs.tree import Params, State, rows_like, tree_leaves

STORAGE_BUSES = (7, 8)
BRAKE = 4.0
"""Conductance of the dynamic brake in pu."""
CRITICAL: dict[int, float] = {5: 0.505, 6: 0.62, 7: 0.64, 8: 0.775}
"""Critical clearing time in s of a fault at each bus: nominal loading, no control, 5 s, on a grid of 5 ms."""
_SPEED = 2 * math.pi * kundur.FREQUENCY


class TwoAreaGrid(Plant, ABC):
    """Four classical machines, two areas, a weak tie; a fault sets the areas swinging and nothing damps them.

    Machine i (constant voltage E_i behind x', no damping, constant mechanical power) obeys
    ``delta_i' = 2 pi 60 omega_i`` and ``2 H_i omega_i' = Pm_i - Re(E_i conj(sum_j Y_ij E_j))``. Loads are
    constant impedances, so the network is a 4 x 4 matrix Y. A scenario is a self-clearing three-phase fault
    with a random bus, start and duration (off the integrator's grid) and a random loading; its operating point
    is solved by a power flow. Versions: :mod:`~steersman.envs.grid.tasks.swing`. A controller knows nothing of a fault
    that has not begun, and where it is and when it clears from then on, as protection has set times. Subclasses attach
    conductances to buses, which enter Y exactly, by eliminating those buses.

    State ``[n, 8]``: rotor angles in rad in the synchronous frame, speed deviations in pu. Measured: frequency
    deviations of the machines in Hz, angles of machines 2..4 relative to machine 1 in rad. Performance:
    deviations of the machines from the frequency of the centre of inertia, and that of the centre from 60 Hz,
    all in Hz; in version 2 also the differences of all pairs of angles in rad, limited to +-pi. A spread of the angles
    above pi is a loss of synchronism (TERMINATED).

    Integration: the force does not depend on the speed, so Runge-Kutta-Nystrom of order 4 (Hairer, Norsett,
    Wanner, Solving ODEs I, II.14) with three force evaluations; fault edges split the steps row by row.

    Attributes:
        attached: Buses with a controlled conductance, one per action.
        faults: Range of critical clearing times that scenarios draw a fault's duration from, as shares.
        places: Buses that a fault can hit.
    """

    attached: tuple[int, ...]
    faults: tuple[float, float] = (0.2, 1.0)
    places: tuple[int, ...] = tuple(CRITICAL)

    def __init__(self, dt: float, version: int) -> None:
        """Set up what both variants share."""
        check_version(version)
        self.hold = round(0.1 / dt) if dt > 0 else 0
        if self.hold < 1 or abs(self.hold * dt - 0.1) > 1e-12:
            raise ValueError(f"dt must divide the control period of 0.1 s, got {dt}; try 0.01 or 0.005")
        self.dt, self.horizon, self.version = dt, 100, version
        self.gradient = "exact"
        self.measured = (*(f"frequency {i}" for i in range(1, 5)), *(f"angle {i}-1" for i in range(2, 5)))
        self._apart = separation_names(list("1234")) if version == 2 else ()
        self.performed = (*(f"swing {i}" for i in range(1, 5)), "centre frequency", *self._apart)

    def _objective(self, term: Quadratic) -> Objective:
        """The cost of swings and of the actions."""
        swings = swing_cost(kundur.MACHINES, len(self._apart))
        return Objective((*swings, term), failure=20.0, limits=synchronism(self.performed, self._apart))

    @abstractmethod
    def conductance(self, u: Float[Tensor, "n m"], p: Params) -> Float[Tensor, "n m"]:
        """Conductance in pu that the actions attach to the buses :attr:`attached`."""

    # ---------------------------------------------------------------- scenarios

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """Faults at :attr:`places`, lasting :attr:`faults` times the critical time, loadings 0.9..1.02.

        They begin at 0.5..1 s in version 1, at any time or never in version 2.
        """
        draw = noise.uniform(noise.fold(key, 0), 4)
        places = constant(tuple(self.places), key)
        critical = constant(tuple(CRITICAL[bus] for bus in self.places), key, torch.float64)
        choice = (draw[:, 0] * len(self.places)).long()
        shortest, longest = self.faults
        duration = critical[choice] * (shortest + (longest - shortest) * draw[:, 2])
        start = begin(self.version, draw[:, 1], 0.5, 0.5, self.horizon * self.period)
        return self.faulted(places[choice], start, duration, 0.9 + 0.12 * draw[:, 3])

    def faulted(
        self,
        bus: Int64[Tensor, "n"],
        start: Float[Tensor, "n"],
        duration: Float[Tensor, "n"],
        loading: Float[Tensor, "n"],
    ) -> Params:
        """Parameters of chosen faults.

        Args:
            bus: Faulted bus, 1..10.
            start: Start of the fault, s; infinite for no fault.
            duration: Duration, s; zero for no fault.
            loading: Factor on loads and dispatch.

        Raises:
            ValueError: If a bus does not exist, a time is negative, or a loading has no power flow.
        """
        if not bool(((bus >= 1) & (bus <= kundur.BUSES)).all()):
            raise ValueError(f"bus must be 1..{kundur.BUSES}, got {bus.tolist()}")
        if not bool(((start >= 0) & (duration >= 0)).all()):
            raise ValueError("start and duration of a fault must not be negative")
        V = kundur.power_flow(loading)
        E = kundur.internal_voltage(V, loading)
        networks = [kundur.reduced(V, loading, self.attached, fault) for fault in (None, bus)]
        Y = eliminate(networks[0], kundur.MACHINES)
        return {
            "bus": bus,
            "start": start,
            "clear": start + duration,
            "loading": loading,
            "emf": E.abs(),
            "angle": E.angle(),
            "power": (E * torch.einsum("nij,nj->ni", Y, E).conj()).real,
            "voltage": V[:, [b - 1 for b in self.attached]].abs(),
            # Real pairs, since files of scenarios hold no complex numbers.
            "network": torch.view_as_real(torch.stack(networks, dim=1)),
        }

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """The equilibrium of the scenario's loading."""
        return torch.cat([p["angle"], torch.zeros_like(p["angle"])], dim=1)

    def known(self, k: Int64[Tensor, "n"], p: Params) -> Params:
        """No fault (bus 0) until it has begun."""
        ahead = p["start"] > k * self.period
        sound = p["network"][:, :1].expand_as(p["network"])
        nothing = {"start": math.inf, "clear": math.inf, "bus": 0}
        hidden = {name: p[name].masked_fill(ahead, value) for name, value in nothing.items()}
        return p | hidden | {"network": torch.where(rows_like(ahead, sound), sound, p["network"])}

    # ------------------------------------------------------------------ physics

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        angle, speed = _parts(x)
        sound, short = self.coupling(u, p)
        edges, faulted = self._intervals(k, p)
        for j in range(edges.shape[1] - 1):
            h = (edges[:, j + 1] - edges[:, j])[:, None]
            Y = torch.where(faulted[:, j, None, None], short, sound)
            a1 = self.acceleration(angle, Y, p)
            a2 = self.acceleration(angle + h / 2 * _SPEED * speed + h * h / 8 * _SPEED * a1, Y, p)
            a3 = self.acceleration(angle + h * _SPEED * speed + h * h / 2 * _SPEED * a2, Y, p)
            angle = angle + h * _SPEED * speed + h * h / 6 * _SPEED * (a1 + 2 * a2)
            speed = speed + h / 6 * (a1 + 4 * a2 + a3)
        return torch.cat([angle, speed], dim=1)

    def coupling(self, u: Float[Tensor, "n m"], p: Params) -> tuple[Float[Tensor, "n 8 8"], Float[Tensor, "n 8 8"]]:
        """Map from internal voltages to currents (real parts, then imaginary parts), sound and faulted."""
        shunt = torch.nn.functional.pad(self.conductance(u, p), (kundur.MACHINES, 0))
        networks = torch.view_as_complex(p["network"].contiguous()) + torch.diag_embed(shunt)[:, None]
        reduced = eliminate(networks, kundur.MACHINES)
        return real_form(reduced[:, 0]), real_form(reduced[:, 1])

    def acceleration(self, angle: Float[Tensor, "n 4"], Y: Float[Tensor, "n 8 8"], p: Params) -> Float[Tensor, "n 4"]:
        """Rate of change of the speeds in pu/s, for one of the matrices of :meth:`coupling`."""
        E = torch.cat([p["emf"] * torch.cos(angle), p["emf"] * torch.sin(angle)], dim=1)
        current = (Y @ E[:, :, None])[:, :, 0]
        electric = (E * current).reshape(-1, 2, kundur.MACHINES).sum(dim=1)
        surplus: Tensor = p["power"] - electric
        return surplus / (2 * _inertia(angle))

    def _intervals(self, k: Int64[Tensor, "n"], p: Params) -> tuple[Float[Tensor, "n e"], Bool[Tensor, "n i"]]:
        """The integrator's grid with the fault's edges sorted in, and which of its intervals are faulted."""
        now = k * self.period
        on, off = ((p[name] - now).clamp(0.0, self.period) for name in ("start", "clear"))
        grid = torch.arange(self.hold + 1, dtype=on.dtype, device=on.device) * self.dt
        events = torch.stack([on, off], dim=1)
        edges = torch.cat([grid.expand(len(k), -1), events], dim=1).sort(dim=1).values
        middle = (edges[:, 1:] + edges[:, :-1]) / 2
        return edges, (middle > on[:, None]) & (middle < off[:, None])

    # ------------------------------------------------------------------ outputs

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n ny"]:
        """Frequency deviations in Hz and angles relative to machine 1 in rad."""
        angle, speed = _parts(x)
        return torch.cat([kundur.FREQUENCY * speed, angle[:, 1:] - angle[:, :1]], dim=1)

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n nz"]:
        """Deviations from the centre of inertia and of the centre in Hz, and in version 2 angles in rad."""
        angle, speed = _parts(x)
        frequency = kundur.FREQUENCY * speed
        H = _inertia(frequency)
        centre = (frequency @ (H / H.sum()))[:, None]
        apart = [separations(angle)] if self._apart else []
        return torch.cat([frequency - centre, centre, *apart], dim=1)

    def status(self, k: Int64[Tensor, "n"], x: State, p: Params) -> UInt8[Tensor, "n"]:
        """TERMINATED where the angles spread over more than pi."""
        angle = _parts(x)[0]
        lost = angle.amax(dim=1) - angle.amin(dim=1) > math.pi
        return (lost * int(Status.TERMINATED)).to(torch.uint8)

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """One-line diagram with the machines' frequencies, and angles, frequencies and actions so far."""
        from steersman.envs.grid.tasks.two_area_picture import draw

        return draw(trail, self.period, self.horizon, self.attached, self.actions)


class TwoArea(TwoAreaGrid):
    """Storage in the middle of the tie: the action is the active power fed in at buses 7 and 8, pu of 100 MVA.

    It acts as the conductance ``-u / |V0|^2`` at the prefault voltage V0 (power proportional to the square of the
    voltage, so a fault next to the storage silences it). Storage also lifts the voltage and with it the impedance
    loads: machines are relieved of 0.64 pu per pu at bus 7, 0.49 at bus 8.

    Args:
        dt: Integrator step in s; must divide the control period of 0.1 s.
        version: 1, or 2 for faults at any time or never and limits in z.

    Raises:
        ValueError: If ``dt`` does not divide 0.1 s, or there is no such version.
    """

    attached = STORAGE_BUSES

    def __init__(self, dt: float = 0.01, version: int = 1) -> None:
        """Set up the plant."""
        super().__init__(dt, version)
        self.actions = ActionSet((-2.0, -2.0), (2.0, 2.0), names=("storage 7", "storage 8"), units=("pu", "pu"))
        self.objective = self._objective(Quadratic(name="effort", on="u", weights=(0.02, 0.02)))

    def conductance(self, u: Float[Tensor, "n m"], p: Params) -> Float[Tensor, "n m"]:
        """See the class."""
        return -u / p["voltage"].square()


class TwoAreaBrake(TwoAreaGrid):
    """A dynamic brake at bus 6: a resistor of 0.25 pu that is on or off in each control step.

    Faults at buses 5, 6 and 7 last 0.7 to 1.1 times the critical clearing time, so that some scenarios lose
    synchronism unless the brake takes energy from the machines of area 1; braking costs 2 per step, as in the
    dynamic-brake task of the RLGC project, whose fault times belong to another machine model and are not used.

    Args:
        dt: Integrator step in s; must divide the control period of 0.1 s.
        version: 1, or 2 for faults at any time or never and limits in z.

    Raises:
        ValueError: If ``dt`` does not divide 0.1 s, or there is no such version.
    """

    attached = (6,)
    faults = (0.7, 1.1)
    places = (5, 6, 7)

    def __init__(self, dt: float = 0.01, version: int = 1) -> None:
        """Set up the plant."""
        super().__init__(dt, version)
        self.actions = ActionSet((0.0,), (1.0,), (True,), names=("brake 6",))
        self.objective = self._objective(Quadratic(name="braking", on="u", weights=(2.0,)))

    def conductance(self, u: Float[Tensor, "n m"], p: Params) -> Float[Tensor, "n m"]:
        """Four pu while the brake is on."""
        return BRAKE * u


def _parts(x: State) -> tuple[Float[Tensor, "n 4"], Float[Tensor, "n 4"]]:
    """Angles and speeds."""
    (state,) = tree_leaves(x)
    return state[:, : kundur.MACHINES], state[:, kundur.MACHINES :]


def _inertia(like: Tensor) -> Tensor:
    return constant(tuple(kundur.INERTIA), like)
