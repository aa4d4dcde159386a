"""Tables of a MATPOWER case file, checked against the manual, with the line of every row.

What a case holds beside its tables is either known to change nothing or refused by name, so that nothing that acts on
the grid is left out in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int64

from steersman.envs.grid.files.matlab import MatlabFile
from steersman.envs.grid.files.matlab_algebra import Value
from steersman.envs.grid.files.matpower_columns import COLUMNS, COMMANDS, COUNTS, DCLINE_STATUS, SOLVED

TABLES = ("version", "baseMVA", "bus", "gen", "branch", "gencost", "dcline")
LIMITS = ("RATE_A", "ANGMIN", "ANGMAX", "PMIN", "PMAX", "QMIN", "QMAX")
"""Columns in which an infinite number is no limit."""
LABELS = (
    "areas", "bus_name", "gen_name", "branch_name", "area_name", "zone_name", "gentype", "genfuel", "name", "f", "et",
    "success", "iterations", "order",
)  # fmt: skip
"""Fields that name things, or report on an earlier solution, and do not act on the grid."""


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of a table.

    Attributes:
        file: Name of the file.
        name: Name of the table, such as ``mpc.bus``.
        columns: Number of each column by its name, from 1.
        values: Numbers.
        where: File and line of each row.
    """

    file: str
    name: str
    columns: dict[str, int]
    values: Float[np.ndarray, "n c"]
    where: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)

    def __contains__(self, column: str) -> bool:
        return bool(self.columns[column] <= self.values.shape[1])

    def __getitem__(self, column: str) -> Float[np.ndarray, "n"]:
        """A column.

        Raises:
            ValueError: If an entry is no number, or infinite and no limit; the message names its line.
        """
        found: np.ndarray = self.values[:, self.columns[column] - 1]
        for i in np.flatnonzero(np.isnan(found) if column in LIMITS else ~np.isfinite(found)):
            raise ValueError(f"{self.where[i]}: {column} must be a finite number, got {found[i]:g}")
        return found

    def whole(self, column: str, allowed: Sequence[int] = ()) -> Int64[np.ndarray, "n"]:
        """A column of whole numbers.

        Raises:
            ValueError: If one is none, or not one of ``allowed`` where there are any; the message names the line.
        """
        found = self[column]
        good = np.isin(found, allowed) if len(allowed) else found == np.round(found)
        for i in np.flatnonzero(~good):
            rule = f"one of {', '.join(map(str, allowed))}" if len(allowed) else "a whole number"
            raise ValueError(f"{self.where[i]}: {column} must be {rule}, got {found[i]:g}")
        return found.astype(np.int64)

    def rows(self, chosen: Bool[np.ndarray, "n"]) -> Table:
        """The rows for which ``chosen`` holds."""
        where = tuple(place for place, kept in zip(self.where, chosen.tolist(), strict=True) if kept)
        return Table(self.file, self.name, self.columns, self.values[chosen], where)


@dataclass(frozen=True, eq=False)
class Tables:
    """What is read of a case: its name, base power in MVA, tables, and notes on what was left out."""

    name: str
    base: float
    bus: Table
    gen: Table
    branch: Table
    gencost: Table | None
    notes: tuple[str, ...]


def read_tables(path: Path) -> Tables:
    """The tables of a case file.

    Raises:
        ValueError: If the file cannot be read or run, lacks a table, a table has a wrong number of columns, or there is
            data that is not modelled. The message names file and line.
    """
    file = MatlabFile(path, COMMANDS)
    fields = {
        name.removeprefix(f"{file.output}."): value
        for name, value in file.values.items()
        if name.startswith(f"{file.output}.")
    }
    missing = [name for name in ("baseMVA", "bus", "gen", "branch") if name not in fields]
    if missing:
        needed = f"it needs {file.output}.baseMVA, bus, gen and branch, and has no {', '.join(missing)}"
        raise ValueError(f"{file.file} is not a MATPOWER case that can be read: {needed}")
    base = _base(file, fields)
    tables = {name: _table(file, name, fields[name]) for name in COLUMNS}
    gencost = _table(file, "gencost", fields["gencost"]) if "gencost" in fields else None
    notes = [
        f"{table.name} has {table.values.shape[1]} columns; what follows column {COUNTS[name][-1]} is not read"
        for name, table in tables.items()
        if table.values.shape[1] > COUNTS[name][-1] and table.values.shape[1] not in SOLVED[name]
    ]
    return Tables(file.name, base, **tables, gencost=gencost, notes=(*notes, *_rest(file, fields)))


def _base(file: MatlabFile, fields: dict[str, Value]) -> float:
    version, base = fields.get("version", "2"), fields["baseMVA"]
    if (version if isinstance(version, str) else f"{np.asarray(version).reshape(-1)[0]:g}") != "2":
        raise ValueError(f"{_place(file, 'version')}version {version!r} is not read; save the case in version 2")
    size = np.asarray(base if isinstance(base, float | np.ndarray) else np.nan).reshape(-1)
    if size.size != 1 or not 0 < size[0] < np.inf:
        raise ValueError(f"{_place(file, 'baseMVA')}the base power {file.output}.baseMVA must be positive, got {base}")
    return float(size[0])


def _place(file: MatlabFile, field: str) -> str:
    lines = file.lines.get(f"{file.output}.{field}", [])
    return f"{file.file} line {lines[0]}: " if lines else f"{file.file}: "


def _table(file: MatlabFile, field: str, value: Value) -> Table:
    name = f"{file.output}.{field}"
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{_place(file, field)}{name} must be a matrix")
    columns, counts = COLUMNS.get(field, {}), COUNTS.get(field, (0,))
    value = value.astype(float).reshape(-1, value.shape[1] if value.size else max(counts[-1], 1))
    if value.shape[1] not in counts and value.shape[1] < counts[-1]:
        raise ValueError(
            f"{_place(file, field)}{name} must have {' or '.join(map(str, counts))} columns, got {value.shape[1]}"
        )
    return Table(file.file, name, columns, value, tuple(f"{file.file} line {line}" for line in file.lines[name]))


def _rest(file: MatlabFile, fields: dict[str, Value]) -> list[str]:
    """Notes on what is left out.

    Raises:
        ValueError: If a field that is not known holds numbers, or a direct current line is in service.
    """
    notes = []
    for name, value in fields.items():
        if name in TABLES[:-1] or name.split(".")[0] in LABELS:
            continue
        whole = f"{file.output}.{name}"
        if name == "dcline" and isinstance(value, np.ndarray) and value.shape[1] >= DCLINE_STATUS:
            for row, line in zip(value, file.lines[whole], strict=True):
                if row[DCLINE_STATUS - 1] != 0:
                    raise ValueError(
                        f"{file.file} line {line}: {whole}: direct current lines are not modelled; replace the line "
                        "between its buses by a load at one and a generator at the other"
                    )
            notes += [f"{whole} is out of service and left out"] if len(value) else []
        elif isinstance(value, str) or _texts(value):
            notes.append(f"{whole} holds text and is left out")
        elif isinstance(value, list) or np.asarray(value).size:
            raise ValueError(f"{_place(file, name)}{whole} is not modelled; remove it if it does not act on the grid")
    return notes


def _texts(value: Value) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for row in value for entry in row)
