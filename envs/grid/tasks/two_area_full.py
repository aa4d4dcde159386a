"""Kundur's two areas with machines of full order: excitation, damping, frequency and a dynamic brake."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.grid.events import Event, Fault, LineTrip, LoadStep
from steersman.envs.grid.plant import GridPlant
from steersman.envs.grid.simulate import Interval, grid_state, integrate
from steersman.envs.grid.tasks import kundur_full
from steersman.envs.grid.tasks.swing import begin, swing_cost, synchronism
from steersman.envs.objective import L1, Linear, Objective, PiecewiseLinear, Quadratic
from steersman.envs.tree import Params, State

CRITICAL: dict[int, float] = {5: 0.380, 6: 0.430, 7: 0.490, 8: 0.620}
"""Critical clearing time in s of a self-clearing fault at each bus: no control, 5 s, on a grid of 5 ms."""
TIE_LINE, AREA_LINES = 4, (7, 8)
"""Branches: a circuit of the tie, the two circuits between buses 8 and 9."""


PLACES: dict[int, tuple[float, float]] = {
    **{5: (1, 0), 6: (2, 0), 7: (3.2, 0), 8: (5.8, 0), 9: (7, 0), 10: (8, 0)},
    **{1: (0, 0), 2: (2, -1), 3: (7, -1), 4: (9, 0)},
}
"""Where each bus is drawn."""


def _choose(unit: Float[Tensor, "n"], values: Sequence[int | float]) -> Tensor:
    """One of the values for each row."""
    return torch.tensor(values, device=unit.device)[(unit * len(values)).long()]


class TwoAreaFull(GridPlant):
    """Ride through a severe fault by moving the reference voltages of all four machines within +-0.1 pu.

    Machines: :mod:`~steersman.envs.grid.tasks.kundur_full`, 12 states each. A scenario is a self-clearing fault at
    buses 5
    to 8 at 0.5..1 s (version 1), or at any time or never, 0.2 to 1.02 times its critical duration, at a loading of 0.9
    to 1.02. Control every 0.1 s for 10 s. Cost a step: squares of the swings and of the centre's deviation in Hz,
    ``5 |swing|^2 + df^2``, and ``10 |u|^2``.

    Args:
        dt: Integrator step in s; must divide 0.1 s. Above 5 ms the limits of the exciters are hit inaccurately.
        version: See :mod:`~steersman.envs.grid.tasks.swing`.

    Raises:
        ValueError: If ``dt`` does not divide 0.1 s, or there is no such version.
    """

    places = PLACES

    def __init__(self, dt: float = 0.005, version: int = 1) -> None:
        """Set up the plant."""
        self._setup(kundur_full.full(), dt, 0.1, 10.0, version)
        self.actions = ActionSet(
            (-0.1,) * 4, (0.1,) * 4, names=tuple(f"Vref {i}" for i in range(1, 5)), units=("pu",) * 4
        )
        effort = Quadratic(name="effort", on="u", weights=(10.0,) * 4)
        swings, limits = swing_cost(4, len(self._apart)), synchronism(self.performed, self._apart)
        self.objective = Objective((*swings, effort), failure=20.0, limits=limits)

    def modulation(self, u: Float[Tensor, "n m"]) -> Float[Tensor, "n units"]:
        """The action."""
        return u

    def draw(self, key: Int64[Tensor, "n"]) -> tuple[Float[Tensor, "n"], Sequence[Event]]:
        """See the class."""
        unit = noise.uniform(noise.fold(key, 0), 4)
        bus = _choose(unit[:, 0], list(CRITICAL))
        critical = _choose(unit[:, 0], list(CRITICAL.values())).double()
        duration = critical * (0.2 + 0.82 * unit[:, 2])
        start = begin(self.version, unit[:, 1], 0.5, 0.5, self.horizon * self.period)
        return 0.9 + 0.12 * unit[:, 3], [Fault(bus, start, duration)]


class TwoAreaDamping(GridPlant):
    """Damp the oscillation between the areas (0.65 Hz, damping ratio 3.4 %) by the reference voltages.

    A scenario is a fault of 20 to 80 ms at buses 5 to 8, at 0.2..0.4 s (version 1), or at any time or never, followed
    in half of the scenarios by the trip of a tie circuit as it clears, at a loading of 0.95 to 1.02. Actions are added
    to the references of the four machines, within +-0.05 pu, every 0.05 s for 10 s. Cost a step:
    ``20 |swing|^2 + df^2 + 5 |u|^2``, swings in Hz.

    Args:
        dt: Integrator step in s; must divide 0.05 s.
        version: See :mod:`~steersman.envs.grid.tasks.swing`.

    Raises:
        ValueError: If ``dt`` does not divide 0.05 s, or there is no such version.
    """

    places = PLACES

    def __init__(self, dt: float = 0.01, version: int = 1) -> None:
        """Set up the plant."""
        self._setup(kundur_full.full(), dt, 0.05, 10.0, version)
        self.actions = ActionSet(
            (-0.05,) * 4, (0.05,) * 4, names=tuple(f"Vref {i}" for i in range(1, 5)), units=("pu",) * 4
        )
        effort = Quadratic(name="effort", on="u", weights=(5.0,) * 4)
        swings, limits = swing_cost(4, len(self._apart), 20.0), synchronism(self.performed, self._apart)
        self.objective = Objective((*swings, effort), failure=20.0, limits=limits)

    def modulation(self, u: Float[Tensor, "n m"]) -> Float[Tensor, "n units"]:
        """The action."""
        return u

    def draw(self, key: Int64[Tensor, "n"]) -> tuple[Float[Tensor, "n"], Sequence[Event]]:
        """See the class."""
        unit = noise.uniform(noise.fold(key, 0), 5)
        bus = _choose(unit[:, 0], list(CRITICAL))
        start = begin(self.version, unit[:, 1], 0.2, 0.2, self.horizon * self.period)
        duration = 0.02 + 0.06 * unit[:, 2]
        trip = torch.where(unit[:, 3] < 0.5, start + duration, torch.inf)
        return 0.95 + 0.07 * unit[:, 4], [Fault(bus, start, duration), LineTrip(TIE_LINE, trip)]


BLOCK, BLOCKS = 0.5, 6
"""Size of a block of load that can be shed, pu, and how many there are at each of buses 7 and 8."""
STORAGE, CAPACITY = 1.5, 10.0
"""Largest power of a storage, pu, and its energy, pu s."""
LOWEST = -0.5
"""Deviation of the frequency at which under-frequency relays would act, Hz (59.5 Hz)."""


class TwoAreaFrequency(GridPlant):
    """After a sudden load keep the frequency above 59.5 Hz with the least shed load and storage energy.

    A scenario is a load of 2 to 6 pu that appears at bus 7 or 8 at 1 s (version 1), or at any time or never, at a
    loading of 0.9 to 1. Actions: blocks of 0.5 pu to be shed at buses 7 and 8, 0..6 each, not connected again; power of
    a storage at either bus, within +-1.5 pu, as long as its 10 pu s last. All act as conductances at the voltage before
    the event. Control every 0.2 s for 20 s. Cost a step of 0.2 s: 0.2 times ``shed + 0.2 |storage| + 0.5 |df|`` (pu,
    Hz) and 20 per Hz below 59.5 Hz, which is also the reported constraint.

    State: ``grid``, ``shed [n, 2]`` in blocks, ``energy [n, 2]`` left in pu s. Measured and performed also: blocks
    shed and energies.

    Args:
        dt: Integrator step in s; must divide 0.2 s.
        version: See :mod:`~steersman.envs.grid.tasks.swing`.

    Raises:
        ValueError: If ``dt`` does not divide 0.2 s, or there is no such version.
    """

    ports = (7, 8)
    places = PLACES

    def __init__(self, dt: float = 0.01, version: int = 1) -> None:
        """Set up the plant."""
        self._setup(kundur_full.full(), dt, 0.2, 20.0, version)
        names = ("shed 7", "shed 8", "storage 7", "storage 8")
        self.actions = ActionSet(
            (0.0, 0.0, -STORAGE, -STORAGE), (float(BLOCKS), float(BLOCKS), STORAGE, STORAGE),
            (True, True, False, False), names=names, units=("blocks", "blocks", "pu", "pu"),
        )  # fmt: skip
        extra = ("shed 7", "shed 8", "energy 7", "energy 8")
        self.measured, self.performed = (*self.measured, "centre frequency", *extra), (*self.performed, *extra)
        self.constrained = ("59.5 Hz - frequency",)
        centre = self.performed.index("centre frequency")
        shed = tuple(self.period * BLOCK if "shed" in name else 0.0 for name in self.performed)
        near = tuple(0.5 * self.period if i == centre else 0.0 for i in range(len(self.performed)))
        low = PiecewiseLinear(
            name="under-frequency", on="z", index=centre, points=((-1.5, 20.0), (LOWEST, 0.0), (1.0, 0.0))
        )
        stored = L1(name="storage", on="u", weights=(0.0, 0.0, 0.2 * self.period, 0.2 * self.period))
        terms = (Linear(name="shed", on="z", weights=shed), L1(name="frequency", on="z", weights=near), low, stored)
        self.objective = Objective(terms, failure=50.0, limits=synchronism(self.performed, self._apart))

    def draw(self, key: Int64[Tensor, "n"]) -> tuple[Float[Tensor, "n"], Sequence[Event]]:
        """See the class."""
        unit = noise.uniform(noise.fold(key, 0), 3)
        bus = _choose(unit[:, 0], self.ports)
        when = noise.uniform(noise.fold(key, 1))
        time = begin(self.version, when, 1.0, 0.0, self.horizon * self.period)
        return 0.9 + 0.1 * unit[:, 2], [LoadStep(bus, time, 2.0 + 4.0 * unit[:, 1])]

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """Equilibrium, nothing shed, full storages."""
        none = torch.zeros(len(key), 2, dtype=self.dtype, device=key.device)
        return {"grid": p["start"].clone(), "shed": none, "energy": none + CAPACITY}

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        assert isinstance(x, dict)  # noqa: S101 - narrows the type
        after = {**x, "shed": torch.maximum(x["shed"], u[:, :2])}
        grid = self.advance(k, x["grid"], u, after, p)
        energy = (x["energy"] - self.period * self.storage(u, x)).clamp(0.0, CAPACITY)
        return {"grid": grid, "shed": after["shed"], "energy": energy}

    def storage(self, u: Float[Tensor, "n m"], x: State) -> Float[Tensor, "n 2"]:
        """Power that the storages give, as far as their energy lasts."""
        assert isinstance(x, dict)  # noqa: S101 - narrows the type
        most, least = x["energy"] / self.period, (x["energy"] - CAPACITY) / self.period
        return torch.minimum(torch.maximum(u[:, 2:], least), most)

    def conductance(self, u: Float[Tensor, "n m"], x: State, p: Params) -> Float[Tensor, "n ports"]:
        """Power given and load shed, as negative conductances."""
        assert isinstance(x, dict)  # noqa: S101 - narrows the type
        return -(self.storage(u, x) + BLOCK * x["shed"]) / p["port voltage"].square()

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n ny"]:
        """See the class."""
        assert isinstance(x, dict)  # noqa: S101 - narrows the type
        centre = self.centre(self.frequency(x, p))
        return torch.cat([super().measure(k, x, p), centre, x["shed"], x["energy"]], dim=1)

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n nz"]:
        """See the class."""
        assert isinstance(x, dict)  # noqa: S101 - narrows the type
        return torch.cat([super().perform(k, x, p), x["shed"], x["energy"]], dim=1)

    def constraints(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], p: Params) -> Float[Tensor, "n 1"]:
        """How far the centre's frequency is below 59.5 Hz."""
        return LOWEST - self.centre(self.frequency(x, p))


class TwoAreaBrakeFull(GridPlant):
    """A dynamic brake of 4 pu at bus 6 that is on or off in each of the steps after a fault at bus 7 has cleared.

    After the dynamic-brake task of the RLGC project: every 0.1 s, for 6 s, cost ``|mean speed of area 1 - mean speed
    of area 2| + 2 u``, speeds in pu, and 20 for each step that remains at a loss of synchronism. Its fault times
    belong to another machine model; here the critical time is 0.49 s, and a scenario's fault lasts 0.47 to 0.53 s at
    nominal loading. The episode begins as the fault clears. The study ``grid-brake`` holds optima over all patterns
    of the first steps. Performed also: the difference of the areas' mean speeds, and the angles of the machines of area
    2 relative to those of area 1, whose limits of +-pi are the loss of synchronism for planners.

    Args:
        dt: Integrator step in s; must divide 0.1 s.

    Raises:
        ValueError: If ``dt`` does not divide 0.1 s.
    """

    ports = (6,)
    places = PLACES

    def __init__(self, dt: float = 0.01) -> None:
        """Set up the plant."""
        self._setup(kundur_full.full(), dt, 0.1, 6.0)
        self.actions = ActionSet((0.0,), (1.0,), (True,), names=("brake 6",))
        angles = tuple(f"angle {there}-{here}" for here in (1, 2) for there in (3, 4))
        self.performed = (*self.performed, "area speeds", *angles)
        apart = L1(name="areas", on="z", weights=(*(0.0,) * 5, 1.0, *(0.0,) * 4))
        brake = Linear(name="braking", on="u", weights=(2.0,))
        self.objective = Objective((apart, brake), failure=20.0, limits=synchronism(self.performed, angles))

    def conductance(self, u: Float[Tensor, "n m"], x: State, p: Params) -> Float[Tensor, "n ports"]:
        """Four pu while the brake is on."""
        return 4.0 * u

    def draw(self, key: Int64[Tensor, "n"]) -> tuple[Float[Tensor, "n"], Sequence[Event]]:
        """Not used: the fault lies before the episode."""
        return torch.ones(len(key), dtype=torch.float64, device=key.device), ()

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """Faults of 0.47 to 0.53 s."""
        return self.faulted(0.47 + 0.06 * noise.uniform(noise.fold(key, 0)))

    def faulted(self, duration: Float[Tensor, "n"]) -> Params:
        """Parameters of faults at bus 7 of these durations in s."""
        one = torch.ones_like(duration)
        during = super().scenario(one, [Fault(7, 0.0, duration)])
        return super().scenario(one, ()) | {"duration": duration, "start": self._cleared(duration, during)}

    def _cleared(self, duration: Float[Tensor, "n"], p: Params) -> Float[Tensor, "n states"]:
        """States as the fault clears, by steps of about 2 ms."""
        idle = torch.zeros_like(duration)[:, None]
        # A row has as many steps as it would have alone, and stands still while longer faults go on.
        steps = torch.ceil(duration / 0.002).clamp(min=1.0)
        pieces = [
            Interval(torch.where(j < steps, duration / steps, 0.0), None if j else torch.zeros_like(steps).long())
            for j in range(int(steps.max()))
        ]
        return integrate(self.system, p["start"], self.orders(idle, p), self._networks(idle, {}, p), pieces)

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n nz"]:
        """As of all grids, the difference of the areas' mean speeds in pu, and the angles between them in rad."""
        speed = self.frequency(x, p) / self.system.case.frequency
        apart = speed[:, :2].mean(dim=1) - speed[:, 2:].mean(dim=1)
        angle = self.system.angles(grid_state(x).T).T
        between = (angle[:, None, 2:] - angle[:, :2, None]).flatten(1)
        return torch.cat([super().perform(k, x, p), apart[:, None], between], dim=1)
