"""Elements of a power grid in per unit: buses, branches, generators, with the place in the file they come from.

Conventions are those of MATPOWER (R. Zimmerman, MATPOWER User's Manual, sections 3.2-3.5): the ideal transformer of a
branch stands at its start, ``tap * exp(j shift)`` to one, before the series impedance and half of the charging at each
side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Complex, Float, Int64

PQ, PV, SLACK = 1, 2, 3
"""Kinds of buses: power given, active power and voltage given, voltage and angle given."""


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
        where: File and line of each, for messages; empty where there is no file.
    """

    id: Int64[np.ndarray, "b"]
    kind: Int64[np.ndarray, "b"]
    load: Complex[np.ndarray, "b"]
    shunt: Complex[np.ndarray, "b"]
    v_mag: Float[np.ndarray, "b"]
    v_ang: Float[np.ndarray, "b"]
    base_kv: Float[np.ndarray, "b"]
    where: tuple[str, ...] = ()

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
        where: File and line of each, for messages; empty where there is no file.
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
    where: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True, eq=False)
class Generators:
    """Generators in service.

    Attributes:
        bus: Index of the bus.
        p: Scheduled active power, pu.
        q: Scheduled reactive power, pu; it counts at :data:`PQ` buses.
        v: Voltage to hold, pu; it counts at the others, where all generators of a bus hold the same.
        p_min: Least active power, pu.
        p_max: Largest.
        q_min: Least reactive power, pu.
        q_max: Largest.
        cost: ``(c2, c1, c0)`` of the cost ``c2 P^2 + c1 P + c0`` in $/h of P in **MW**; NaN where it has another form
            or the file has none.
        mva: Base of the machine's own per-unit data, MVA.
        z_source: Impedance behind which the machine stands, pu on ``mva``; 0 where the file has none.
        machine: Which of the machines at its bus it is, by the file.
        points: Points (MW, $/h) of costs that are linear in between, by generator; none for a cost of another form.
            Empty where no generator has any.
        where: File and line of each, for messages; empty where there is no file.
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
    points: tuple[Float[np.ndarray, "_ 2"], ...] = ()
    where: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.bus)


def select(branches: Branches, rows: Sequence[int]) -> Branches:
    """The chosen branches."""
    index = np.asarray(rows, dtype=np.int64)
    texts = ("circuit", "where")
    arrays = {f.name: getattr(branches, f.name)[index] for f in fields(branches) if f.name not in texts}
    circuit, where = (tuple(part[j] for j in rows if part) for part in (branches.circuit, branches.where))
    return Branches(**arrays, circuit=circuit, where=where)


def at(part: Buses | Branches | Generators, i: int) -> str:
    """File and line of an element with a colon, for messages; empty where there is no file."""
    return f"{part.where[i]}: " if part.where else ""


def index_of(
    ids: Int64[np.ndarray, "b"],
    wanted: Sequence[int] | Int64[np.ndarray, "k"],
    what: str = "element",
    *,
    where: Sequence[str] = (),
) -> Int64[np.ndarray, "k"]:
    """Indices of bus numbers.

    Args:
        ids: Numbers of all buses.
        wanted: Numbers to look up.
        what: What stands at those buses, for the message.
        where: File and line of each wanted number, or of each bus where none is wanted.

    Raises:
        ValueError: If a number is given twice in ``ids``, or is wanted and not there.
    """
    place: dict[int, int] = {}
    for i, number in enumerate(ids.tolist()):
        if place.setdefault(number, i) != i:
            line = f"{where[i]}: " if len(where) and not len(wanted) else ""
            raise ValueError(f"{line}bus numbers must differ, got {[number]} more than once")
    for i, number in enumerate(wanted):
        if int(number) not in place:
            line = f"{where[i]}: " if len(where) else ""
            raise ValueError(f"{line}{what} at bus {number}, but there is no such bus; add it or remove the {what}")
    return np.array([place[int(number)] for number in wanted], dtype=np.int64)
