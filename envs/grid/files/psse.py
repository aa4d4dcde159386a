"""PSS/E raw files (versions 30 to 34) as grids; machine data (``.dyr``) in :mod:`~steersman.envs.grid.files.psse_dyr`.

Read are buses, loads, fixed and switched shunts, generators, lines and two-winding transformers. Field names and order
are those of the PSS/E Program Operation Manual, chapter 5. The two ideal transformers of a PSS/E transformer, with the
ratios t1 and t2 at its ends, become one of ratio ``t1 / t2`` at the start, and the impedance is multiplied by ``t2^2``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from steersman.envs.grid.files.psse_checks import check_once, check_slack, fixed_reactive, tell_controls
from steersman.envs.grid.files.psse_dyr import MachineData, read_dyr
from steersman.envs.grid.files.psse_records import Record, sections
from steersman.envs.grid.network.case import PQ, Branches, Buses, Case, Generators, index_of, settled

__all__ = ["MachineData", "read_dyr", "read_raw"]

ISOLATED = 4
"""PSS/E's code of a bus that is out of service."""
DEVICES = (
    "two-terminal dc", "vsc dc", "multi-terminal dc", "facts", "gne", "induction machine", "system switching device",
)  # fmt: skip
"""Sections of devices that are not modelled."""


def read_raw(path: str | Path) -> Case:
    """The grid of a raw file.

    Loads of constant current count with their power at 1 pu, those of constant admittance as shunts. Controls are not
    modelled: switched shunts keep their initial value, transformers their ratio and phase shift. Power flows do not
    enforce limits of reactive power, but a bus whose machines have none to give (QT = QB) is PQ. What is out of service
    is left out. The case's notes tell all that. There are no costs.

    Args:
        path: A raw file.

    Raises:
        ValueError: If there is no such file, its version is not 30 to 34, a field is no number, it holds a device that
            is not modelled (direct current, FACTS, three windings, ...), a machine regulates another bus or runs at a
            bus of type 1, a device is given twice, or its grid is not valid (see
            :class:`~steersman.envs.grid.network.case.Case`). The message names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no such PSS/E raw file: {path}")
    base, frequency, found = sections(path)
    for name in DEVICES:
        for record in found.get(name, []):
            raise ValueError(f"{record.where}: {name} data is not modelled; remove it from the file")
    notes: list[str] = []
    isolated = {r.integer("I") for r in found["bus"] if r.integer("IDE", 1) == ISOLATED}
    notes += [f"bus {bus} is isolated and left out" for bus in sorted(isolated)]
    rows = [r for r in found["bus"] if r.integer("I") not in isolated]
    working = _Working(isolated, notes)
    generators = [r for r in found["generator"] if working(r, "STAT", ("I",), "generator", "ID")]
    lines = [r for r in found["branch"] if working(r, "ST", ("I", "J"), "branch", "CKT")]
    transformers = [r for r in found["transformer"] if working(r, "STAT", ("I", "J"), "transformer", "CKT")]
    loads = [r for r in found["load"] if working(r, "STATUS", ("I",), "load", "ID")]
    shunts = [r for r in found["fixed shunt"] if working(r, "STATUS", ("I",), "shunt", "ID")]
    switched = [r for r in found["switched shunt"] if working(r, "STAT", ("I",), "switched shunt", "ID")]
    for records in (generators, loads, shunts):
        check_once(records, "I", "ID")
    check_once([*lines, *transformers], "IJ", "CKT")
    buses = _buses(rows, base)
    index_of(buses.id, (), where=buses.where)
    units = _generators(generators, buses, base)
    check_slack(rows, generators)
    branches = _branches(lines, transformers, buses, base)
    _add_loads(buses, loads, base, notes)
    _add_shunts(buses, [*shunts, *switched], lines, transformers, base)
    tell_controls(switched, transformers, notes)
    buses = fixed_reactive(settled(buses, units, notes), units, notes)
    return Case(path.stem, base, buses, branches, units, frequency, tuple(notes))


class _Working:
    """Whether an element is in service; tells the notes if it is not."""

    def __init__(self, isolated: set[int], notes: list[str]) -> None:
        self.isolated, self.notes = isolated, notes

    def __call__(self, record: Record, status: str, ends: Sequence[str], what: str, name: str) -> bool:
        # A negative bus number marks the metered end.
        buses = [abs(record.integer(end)) for end in ends]
        if record.integer(status, 1) > 0 and self.isolated.isdisjoint(buses):
            if what == "transformer" and record.integer("K", 0):
                raise ValueError(
                    f"{record.where}: the transformer at bus {buses[0]} has three windings; replace it by three of two"
                )
            return True
        where = "-".join(map(str, buses))
        self.notes.append(f"{what} {where} {record.text(name, '1')} is out of service and left out")
        return False


def _buses(rows: list[Record], base: float) -> Buses:
    shunt = [complex(r.number("GL", 0.0), r.number("BL", 0.0)) for r in rows]
    return Buses(
        id=np.array([r.integer("I") for r in rows], dtype=np.int64),
        kind=np.array([r.integer("IDE", 1) for r in rows], dtype=np.int64),
        load=np.zeros(len(rows), dtype=complex),
        shunt=np.array(shunt, dtype=complex) / base,
        v_mag=_column(rows, "VM", 1.0),
        v_ang=np.deg2rad(_column(rows, "VA", 0.0)),
        base_kv=_column(rows, "BASKV", 0.0),
        where=_places(rows),
    )


def _add_loads(buses: Buses, loads: list[Record], base: float, notes: list[str]) -> None:
    at = index_of(buses.id, [r.integer("I") for r in loads], "load", where=_places(loads))
    for i, r in zip(at, loads, strict=True):
        if r.integer("DGENM", 0) and (r.number("DGENP", 0.0) or r.number("DGENQ", 0.0)):
            raise ValueError(f"{r.where}: distributed generation of a load is not modelled; make it a load of its own")
        power = complex(r.number("PL", 0.0), r.number("QL", 0.0))
        current = complex(r.number("IP", 0.0), r.number("IQ", 0.0))
        admittance = complex(r.number("YP", 0.0), r.number("YQ", 0.0))
        buses.load[i] += (power + current) / base
        buses.shunt[i] += admittance / base
        if current:
            notes.append(f"load of constant current at bus {buses.id[i]} counts with its power at 1 pu")


def _add_shunts(
    buses: Buses, shunts: list[Record], lines: list[Record], transformers: list[Record], base: float
) -> None:
    """Add the admittances of shunts, of shunts at the ends of lines, and of the iron of transformers."""
    parts = [(r, "I", complex(r.number("GL", 0.0), r.number("BL", 0.0)) / base) for r in shunts]
    for r in lines:
        parts.append((r, "I", complex(r.number("GI", 0.0), r.number("BI", 0.0))))
        parts.append((r, "J", complex(r.number("GJ", 0.0), r.number("BJ", 0.0))))
    parts += [(r, "I", _magnetising(r, base)) for r in transformers]
    wanted = [abs(r.integer(end)) for r, end, _ in parts]
    at = index_of(buses.id, wanted, "shunt", where=_places([r for r, _, _ in parts]))
    for i, (_, _, admittance) in zip(at, parts, strict=True):
        buses.shunt[i] += admittance


def _magnetising(r: Record, base: float) -> complex:
    """Code CM: 1 for an admittance in pu of the system, 2 for the losses in W and the current in pu of SBASE."""
    first, second = r.number("MAG1", 0.0), r.number("MAG2", 0.0)
    if r.integer("CM", 1) == 1:
        return complex(first, second)
    g, y = first / 1e6 / base, second * r.number("SBASE", base) / base
    return complex(g, -math.sqrt(max(0.0, y * y - g * g)))


def _generators(rows: list[Record], buses: Buses, base: float) -> Generators:
    at = index_of(buses.id, [r.integer("I") for r in rows], "generator", where=_places(rows))
    for r, bus in zip(rows, at, strict=True):
        name, remote = f"the machine at bus {r.integer('I')}", r.integer("IREG", 0)
        if buses.kind[bus] == PQ:
            raise ValueError(
                f"{r.where}: {name} runs at a bus of type 1, which has no machines in PSS/E; make the bus type 2 (with "
                "QT = QB for fixed reactive power), or set STAT = 0"
            )
        if remote not in (0, r.integer("I")):
            raise ValueError(f"{r.where}: {name} regulates bus {remote}, which is not modelled; set IREG = 0")
        if r.number("RT", 0.0) or r.number("XT", 0.0):
            raise ValueError(
                f"{r.where}: a generator with a transformer of its own (RT, XT) is not modelled; add a branch"
            )
    none = np.full((len(rows), 3), np.nan)
    mva = _column(rows, "MBASE", base)
    z = _column(rows, "ZR", 0.0) + 1j * _column(rows, "ZX", 1.0)
    return Generators(
        bus=at,
        p=_column(rows, "PG", 0.0) / base, q=_column(rows, "QG", 0.0) / base, v=_column(rows, "VS", 1.0),
        p_min=_column(rows, "PB", -9999.0) / base, p_max=_column(rows, "PT", 9999.0) / base,
        q_min=_column(rows, "QB", -9999.0) / base, q_max=_column(rows, "QT", 9999.0) / base,
        cost=none, mva=np.where(mva == 0, base, mva), z_source=z,
        machine=tuple(r.text("ID", "1") for r in rows), where=_places(rows),
    )  # fmt: skip


def _branches(lines: list[Record], transformers: list[Record], buses: Buses, base: float) -> Branches:
    rows = [*lines, *transformers]
    ends = [
        index_of(buses.id, [abs(r.integer(end)) for r in rows], "branch", where=_places(rows)) for end in ("I", "J")
    ]
    volts = dict(zip(buses.id.tolist(), buses.base_kv.tolist(), strict=True))
    impedance = [complex(r.number("R", 0.0), r.number("X")) for r in lines]
    ratio = [1.0] * len(lines)
    for r in transformers:
        first, second = (_turns(r, side, volts[abs(r.integer(end))]) for side, end in (("1", "I"), ("2", "J")))
        impedance.append(_impedance(r, base) * second**2)
        ratio.append(first / second)
    z, free = np.array(impedance, dtype=complex), np.full(len(rows), np.inf)
    rate = _column(rows, "RATE1", 0.0)
    return Branches(
        start=ends[0], end=ends[1], r=z.real, x=z.imag, b=_column(rows, "B", 0.0), tap=np.array(ratio, dtype=float),
        shift=np.deg2rad(_column(rows, "ANG1", 0.0)), rate=np.where(rate == 0, np.inf, rate / base),
        angle_min=-free, angle_max=free, circuit=tuple(r.text("CKT", "1") for r in rows),
        where=_places(rows),
    )  # fmt: skip


def _turns(r: Record, side: str, base_kv: float) -> float:
    """Ratio of a winding to its bus; code CW: 1 for pu of the bus, 2 for kV, 3 for pu of the nominal voltage."""
    code, value = r.integer("CW", 1), r.number(f"WINDV{side}", 1.0)
    if code == 1:
        return value
    if not base_kv > 0:
        raise ValueError(f"{r.where}: windings in kV (CW = {code}) need the nominal voltages of both buses (BASKV)")
    return value / base_kv if code == 2 else value * (r.number(f"NOMV{side}", 0.0) or base_kv) / base_kv


def _impedance(r: Record, base: float) -> complex:
    """Code CZ: 1 for pu of the system, 2 for pu of SBASE, 3 for the losses in W and the modulus in pu of SBASE."""
    code, first, second = r.integer("CZ", 1), r.number("R", 0.0), r.number("X")
    if code == 1:
        return complex(first, second)
    own = r.number("SBASE", base)
    if code == 2:
        return complex(first, second) * base / own
    resistance = first / 1e6 / own
    return complex(resistance, math.sqrt(max(0.0, second**2 - resistance**2))) * base / own


def _places(rows: list[Record]) -> tuple[str, ...]:
    return tuple(r.where for r in rows)


def _column(rows: list[Record], name: str, default: float) -> np.ndarray:
    return np.array([r.number(name, default) for r in rows], dtype=float)
