"""Network data of a power grid in per unit: buses, branches, generators, whatever file they come from.

Files are read by :mod:`~steersman.envs.grid.matpower` and :mod:`~steersman.envs.grid.psse`. Conventions are those
of MATPOWER (R. Zimmerman, MATPOWER User's Manual, sections 3.2-3.5): the ideal transformer of a branch stands at
its start, ``tap * exp(j shift)`` to one, before the series impedance and half of the charging at each side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Complex, Float, Int64
from scipy import sparse
from scipy.sparse.csgraph import connected_components

PQ, PV, SLACK = 1, 2, 3
"""Kinds of buses: power given, power and voltage given, voltage and angle given."""


@dataclass(frozen=True, eq=False)
class Buses:
    """Buses; all other arrays of a case refer to them by index, 0 for the first.

    Attributes:
        id: Number in the file.
        kind: :data:`PQ`, :data:`PV` or :data:`SLACK`.
        load: Complex power drawn, pu.
        shunt: Admittance to ground, pu; it draws ``conj(shunt)`` at a voltage of 1 pu.
        v_mag: Voltage that the file states, pu.
        v_ang: Angle that the file states, rad.
        base_kv: Nominal voltage, kV; 0 where the file has none.
    """

    id: Int64[np.ndarray, "b"]
    kind: Int64[np.ndarray, "b"]
    load: Complex[np.ndarray, "b"]
    shunt: Complex[np.ndarray, "b"]
    v_mag: Float[np.ndarray, "b"]
    v_ang: Float[np.ndarray, "b"]
    base_kv: Float[np.ndarray, "b"]

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True, eq=False)
class Branches:
    """Lines and transformers in service.

    Attributes:
        start: Index of the bus with the transformer's tap.
        end: Index of the other bus.
        r: Series resistance, pu.
        x: Series reactance, pu; never 0.
        b: Total charging susceptance, pu.
        tap: Ratio of the transformer, 1 for a line.
        shift: Phase shift, rad.
        rate: Rating, pu; infinite where the file has none.
        angle_min: Least ``angle[start] - angle[end]``, rad; minus infinity where there is no limit.
        angle_max: Largest.
        circuit: Which of the parallel branches it is, by the file.
    """

    start: Int64[np.ndarray, "l"]
    end: Int64[np.ndarray, "l"]
    r: Float[np.ndarray, "l"]
    x: Float[np.ndarray, "l"]
    b: Float[np.ndarray, "l"]
    tap: Float[np.ndarray, "l"]
    shift: Float[np.ndarray, "l"]
    rate: Float[np.ndarray, "l"]
    angle_min: Float[np.ndarray, "l"]
    angle_max: Float[np.ndarray, "l"]
    circuit: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True, eq=False)
class Generators:
    """Generators in service.

    Attributes:
        bus: Index of the bus.
        p: Scheduled active power, pu.
        q: Reactive power that the file states, pu.
        v: Voltage to hold, pu.
        p_min: Least active power, pu.
        p_max: Largest.
        q_min: Least reactive power, pu.
        q_max: Largest.
        cost: ``(c2, c1, c0)`` of the cost ``c2 P^2 + c1 P + c0`` in $/h of P in **MW**; NaN where the file has none.
        mva: Base of the machine's own per-unit data, MVA.
        z_source: Impedance behind which the machine stands, pu on ``mva``; 0 where the file has none.
        machine: Which of the machines at its bus it is, by the file.
    """

    bus: Int64[np.ndarray, "g"]
    p: Float[np.ndarray, "g"]
    q: Float[np.ndarray, "g"]
    v: Float[np.ndarray, "g"]
    p_min: Float[np.ndarray, "g"]
    p_max: Float[np.ndarray, "g"]
    q_min: Float[np.ndarray, "g"]
    q_max: Float[np.ndarray, "g"]
    cost: Float[np.ndarray, "g 3"]
    mva: Float[np.ndarray, "g"]
    z_source: Complex[np.ndarray, "g"]
    machine: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.bus)


@dataclass(frozen=True, eq=False)
class Case:
    """A grid in per unit on ``base_mva``, whole and with one slack bus.

    Attributes:
        name: Name for reports.
        base_mva: Base of all powers, MVA.
        buses: Buses.
        branches: Lines and transformers in service.
        generators: Generators in service.
        frequency: Nominal frequency, Hz.
        notes: What the reader left out or changed, a sentence each.

    Raises:
        ValueError: If arrays differ in length or hold NaN, a bus number occurs twice, an index points to no bus,
            a branch has no reactance or no ratio, buses are cut off from the slack bus, or there is not exactly
            one slack bus. Readers keep the first of several and make the others PV, with a note.
    """

    name: str
    base_mva: float
    buses: Buses
    branches: Branches
    generators: Generators
    frequency: float = 60.0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("base_mva", "frequency"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be a positive finite number, got {getattr(self, name)}")
        for part in (self.buses, self.branches, self.generators):
            _check_arrays(part)
        index_of(self.buses.id, ())
        _check_indices(self)
        _check_branches(self)
        slack = self.buses.id[self.buses.kind == SLACK]
        if len(slack) != 1:
            raise ValueError(f"a case needs exactly one slack bus (kind 3), got {slack.tolist()}; choose one")
        cut_off = islanded(self)
        if cut_off:
            raise ValueError(
                f"buses {', '.join(map(str, cut_off))} are cut off from slack bus {slack[0]}; "
                "remove them, or put a branch to them in service"
            )

    @property
    def slack(self) -> int:
        """Index of the slack bus."""
        return int(np.flatnonzero(self.buses.kind == SLACK)[0])

    def label(self, i: int) -> str:
        """Name of a branch for messages: the numbers of its buses and its circuit."""
        start, end = self.buses.id[self.branches.start[i]], self.buses.id[self.branches.end[i]]
        return f"{start}-{end} circuit {self.branches.circuit[i]}"

    def with_load(self, factor: float) -> Case:
        """All loads and all scheduled active powers multiplied by ``factor``; limits and set points stay.

        Raises:
            ValueError: If the factor is negative or not finite.
        """
        if not 0 <= factor < np.inf:
            raise ValueError(f"factor must be a finite number of at least 0, got {factor}")
        buses = replace(self.buses, load=self.buses.load * factor)
        return replace(self, buses=buses, generators=replace(self.generators, p=self.generators.p * factor))

    def without_branch(self, i: int) -> Case:
        """The case with branch ``i`` (its index here) out of service.

        Raises:
            ValueError: If there is no such branch, or buses depend on it alone; the message names them.
        """
        if not 0 <= i < len(self.branches):
            raise ValueError(f"branch must be 0..{len(self.branches) - 1}, got {i}")
        keep = [j for j in range(len(self.branches)) if j != i]
        return replace(self, branches=select(self.branches, keep), notes=(*self.notes, f"{self.label(i)} taken out"))


def select(branches: Branches, rows: Sequence[int]) -> Branches:
    """The chosen branches."""
    index = np.asarray(rows, dtype=np.int64)
    arrays = {f.name: getattr(branches, f.name)[index] for f in fields(branches) if f.name != "circuit"}
    return Branches(**arrays, circuit=tuple(branches.circuit[j] for j in rows))


def index_of(
    ids: Int64[np.ndarray, "b"], wanted: Sequence[int] | Int64[np.ndarray, "k"], what: str = "element"
) -> Int64[np.ndarray, "k"]:
    """Indices of bus numbers.

    Args:
        ids: Numbers of all buses.
        wanted: Numbers to look up.
        what: What stands at those buses, for the message.

    Raises:
        ValueError: If a number is given twice in ``ids``, or is wanted and not there.
    """
    place = {int(number): i for i, number in enumerate(ids)}
    if len(place) != len(ids):
        values, counts = np.unique(ids, return_counts=True)
        raise ValueError(f"bus numbers must differ, got {values[counts > 1].tolist()} more than once")
    for number in wanted:
        if int(number) not in place:
            raise ValueError(f"{what} at bus {number}, but there is no such bus; add it or remove the {what}")
    return np.array([place[int(number)] for number in wanted], dtype=np.int64)


def settled(buses: Buses, generators: Generators, notes: list[str]) -> Buses:
    """The first slack bus kept, further ones made PV, PV buses without a generator made PQ; ``notes`` tell."""
    kind = buses.kind.copy()
    for i in np.flatnonzero(kind == SLACK)[1:]:
        kind[i] = PV
        notes.append(f"bus {buses.id[i]} is a further slack bus and made PV")
    for i in np.flatnonzero((kind == PV) & ~np.isin(np.arange(len(buses)), generators.bus)):
        kind[i] = PQ
        notes.append(f"bus {buses.id[i]} has no generator in service and is made PQ")
    return replace(buses, kind=kind)


def islanded(case: Case) -> list[int]:
    """Numbers of the buses without a path to the slack bus."""
    n, lines = len(case.buses), case.branches
    graph = sparse.coo_matrix((np.ones(len(lines)), (lines.start, lines.end)), shape=(n, n))
    _, part = connected_components(graph, directed=False)
    found: list[int] = case.buses.id[part != part[case.slack]].tolist()
    return found


def _check_arrays(part: Buses | Branches | Generators) -> None:
    for field in fields(part):
        value, label = getattr(part, field.name), f"{type(part).__name__.lower()}.{field.name}"
        if len(value) != len(part):
            raise ValueError(f"{label} must have {len(part)} entries, as the first array has, got {len(value)}")
        # Costs may be missing, and missing limits are infinite.
        if not isinstance(value, tuple) and field.name != "cost" and np.isnan(value).any():
            raise ValueError(f"{label} must not be NaN, got it at {np.flatnonzero(np.isnan(value)).tolist()}")


def _check_indices(case: Case) -> None:
    n = len(case.buses)
    for name, index in (
        ("branches.start", case.branches.start),
        ("branches.end", case.branches.end),
        ("generators.bus", case.generators.bus),
    ):
        wrong = index[(index < 0) | (index >= n)]
        if len(wrong):
            raise ValueError(f"{name} must be an index of the {n} buses, got {wrong.tolist()}; see index_of")


def _check_branches(case: Case) -> None:
    for i in map(int, np.flatnonzero(case.branches.x == 0)):
        raise ValueError(f"branch {case.label(i)} has no reactance; give it one, or merge its two buses")
    for i in map(int, np.flatnonzero(case.branches.tap <= 0)):
        raise ValueError(f"branch {case.label(i)} has the ratio {case.branches.tap[i]}; use 1 for a line")
    for i in map(int, np.flatnonzero(case.branches.start == case.branches.end)):
        raise ValueError(f"branch {case.label(i)} starts and ends at one bus; remove it")
    for i in map(int, np.flatnonzero(case.branches.rate <= 0)):
        raise ValueError(f"branch {case.label(i)} has the rating {case.branches.rate[i]}; use infinity for no limit")
