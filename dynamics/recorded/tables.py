"""Columns of a table by name, from csv, parquet and npz files, or a Minari data set."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from steersman.dynamics.recorded.minari_sets import PREFIX, files_of, read_set
from steersman.envs.importing import needed

Column = NDArray[Any]
"""Numbers in double precision, or texts."""
_MISSING = {"", "na", "n/a", "nan", "null", "none", "-"}
"""Cells in which nothing was recorded, in lower case."""
_SEPARATORS = ";\t,"
_HEAD = 65_536
"""Characters in which the first line is looked for."""


def read_table(path: Path | str, texts: Collection[str] = ()) -> dict[str, Column]:
    """Columns of equal length, in their order. Empty cells are NaN; a column with any other text is one of texts.

    A csv file begins with a line of names; commas, semicolons and tabs separate, and with semicolons a comma may be the
    decimal mark. Columns of an array ``y`` of two dimensions in an npz file are ``y[0]``, ``y[1]`` and so on. Dates and
    times of a parquet file become seconds since 1970; those without a time zone are taken for UTC.

    Args:
        path: The file, or ``minari:ID`` for a local Minari data set
            (:func:`~steersman.dynamics.recorded.minari_sets.read_set`).
        texts: Columns of a csv file that stay as they are written, such as names that look like numbers.

    Raises:
        ValueError: If the file is of another kind, or no table of named columns.
        FileNotFoundError: If there is no such file.
        ImportError: For a parquet file or a data set without its package; the message names the extra.
    """
    if str(path).startswith(PREFIX):
        return read_set(str(path).removeprefix(PREFIX))
    path = Path(path)
    texts_kept = partial(_csv, texts=texts)
    readers: dict[str, Callable[[Path], dict[str, Column]]] = {
        ".csv": texts_kept, ".tsv": texts_kept, ".txt": texts_kept, ".parquet": _parquet, ".npz": _npz
    }  # fmt: skip
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path.name}: a table is one of {', '.join(readers)}; save it as csv")
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    found = readers[path.suffix.lower()](path)
    lengths = {name: len(column) for name, column in found.items()}
    if not found or not max(lengths.values()):
        raise ValueError(f"{path.name} holds no rows")
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in lengths.items())
        raise ValueError(f"{path.name}: columns must be of equal length, but {told}")
    return found


def files_behind(path: Path | str) -> list[str]:
    """The files that a table is read from."""
    return files_of(str(path).removeprefix(PREFIX)) if str(path).startswith(PREFIX) else [str(path)]


def seconds(column: Column, name: str) -> NDArray[np.float64]:
    """Times in seconds: numbers as they are, ISO 8601 texts since 1970, those without a time zone taken for UTC.

    Raises:
        ValueError: Naming the first row that is neither, or that has a time zone where the first one has none.
    """
    if column.dtype.kind == "f":
        return column
    found, zoned = np.empty(len(column)), None
    for row, text in enumerate(column):
        try:
            time = datetime.fromisoformat(str(text))
        except ValueError as error:
            raise ValueError(
                f"column {name!r}, row {row + 1}: {text!r} is no time; write seconds, or 2026-12-01T08:30:00"
            ) from error
        zoned = time.tzinfo is not None if zoned is None else zoned
        if (time.tzinfo is not None) != zoned:
            raise ValueError(f"column {name!r}, row {row + 1}: {text!r}: give all times a time zone, or none")
        found[row] = _since_1970(time)
    return found


def numbers(column: Column) -> Column | None:
    """A column of texts that are numbers as numbers; None where one is neither a number nor missing."""
    if column.dtype.kind == "f":
        return column
    found = _column([str(text) for text in column], ",")
    return found if found.dtype.kind == "f" else None


def strange(column: Column) -> str:
    """The first text of a column that is no number in any notation, or else the first that is none as it stands."""
    cells = [str(text) for text in column if str(text).strip().lower() not in _MISSING]
    unread = [cell for cell in cells if _number(cell, ",") is None]
    return next((cell for cell in unread if _number(cell, ";") is None), unread[0] if unread else "")


def _since_1970(time: datetime) -> float:
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()


def _csv(path: Path, texts: Collection[str]) -> dict[str, Column]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            head = re.sub(r'"[^"]*"', "", file.read(_HEAD)).partition("\n")[0]
            mark = max(_SEPARATORS, key=head.count)
            file.seek(0)
            lines = [line for line in csv.reader(file, delimiter=mark) if any(cell.strip() for cell in line)]
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path.name} is no csv file in UTF-8 ({error})") from error
    if not lines:
        raise ValueError(f"{path.name} is empty")
    names = [name.strip() for name in lines[0]]
    if any(_number(name, mark) is not None for name in names):
        raise ValueError(f"{path.name} must begin with a line of column names, got {', '.join(names)}")
    if len(set(names)) < len(names) or not all(names):
        raise ValueError(f"{path.name}: every column needs a name of its own, got {', '.join(map(repr, names))}")
    for place, line in enumerate(lines[1:], start=1):
        if len(line) != len(names):
            raise ValueError(f"{path.name}, row {place}: {len(line)} cells under {len(names)} names")
    columns = {name: [line[i] for line in lines[1:]] for i, name in enumerate(names)}
    return {
        name: np.array([cell.strip() for cell in cells], dtype=object) if name in texts else _column(cells, mark)
        for name, cells in columns.items()
    }


def _column(cells: Sequence[str], mark: str) -> Column:
    numbers = [np.nan if cell.strip().lower() in _MISSING else _number(cell, mark) for cell in cells]
    if any(number is None for number in numbers):
        return np.array([cell.strip() for cell in cells], dtype=object)
    return np.array(numbers, dtype=np.float64)


def _number(cell: str, mark: str) -> float | None:
    text = cell.strip().replace(",", ".") if mark == ";" else cell.strip()
    try:
        return float(text)
    except ValueError:
        return None


def _parquet(path: Path) -> dict[str, Column]:
    parquet = needed("pyarrow.parquet", "report", "a parquet file")
    try:
        table = parquet.read_table(path)
    except Exception as error:
        raise ValueError(f"{path.name} is no parquet file ({error})") from error
    return {name: _plain(table.column(name).to_pylist()) for name in table.column_names}


def _plain(values: list[Any]) -> Column:
    if all(value is None or isinstance(value, int | float | Decimal) for value in values):
        return np.array([np.nan if value is None else float(value) for value in values])
    if all(isinstance(value, date) for value in values):
        return np.array([_since_1970(datetime.fromisoformat(value.isoformat())) for value in values])
    return np.array(["" if value is None else str(value) for value in values], dtype=object)


def _npz(path: Path) -> dict[str, Column]:
    found: dict[str, Column] = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            parts = {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path.name} is no npz file of plain arrays ({error})") from error
    for name, array in parts.items():
        if array.ndim not in (1, 2):
            raise ValueError(f"{path.name}: array {name!r} must have one or two dimensions, got shape {array.shape}")
        if array.ndim == 1:
            found[name] = _typed(array)
        else:
            found |= {f"{name}[{i}]": _typed(array[:, i]) for i in range(array.shape[1])}
    return found


def _typed(array: NDArray[Any]) -> Column:
    return array.astype(np.float64) if array.dtype.kind in "biuf" else array.astype(str).astype(object)
