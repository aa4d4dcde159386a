"""Costs of generation in a MATPOWER case (table ``gencost``): polynomials, or points joined by straight lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from steersman.envs.grid.files.matpower_columns import COST
from steersman.envs.grid.files.matpower_tables import Table

Points = Float[np.ndarray, "_ 2"]


def costs(
    table: Table | None, on: Bool[np.ndarray, "n"], names: Sequence[str], notes: list[str]
) -> tuple[Float[np.ndarray, "g 3"], tuple[Points, ...]]:
    """``(c2, c1, c0)`` and points of each generator in service.

    They are those of :class:`~steersman.envs.grid.network.case.Generators`. Polynomials above the second degree and
    costs of reactive power are left out, with a note.

    Args:
        table: Table of the costs of all generators, then of their reactive power where there are any; None without.
        on: Which generators are in service.
        names: Names of those, for notes.
        notes: Gets the notes.

    Raises:
        ValueError: If the table has another number of rows, or a row is not as the manual says; the message names its
            line.
    """
    found = np.full((len(names), 3), np.nan)
    points = [np.zeros((0, 2)) for _ in names]
    if table is None or not len(table):
        return found, ()
    n = len(on)
    if len(table) not in (n, 2 * n):
        raise ValueError(
            f"{table.where[-1]}: {table.name} must have {n} or {2 * n} rows, as many as generators or twice that, "
            f"got {len(table)}"
        )
    if len(table) > n:
        notes.append(f"{table.where[n]}: costs of reactive power are left out")
    for g, i in enumerate(np.flatnonzero(on)):
        numbers, model = _numbers(table.where[i], table.values[i])
        if model == COST["PW_LINEAR"]:
            points[g] = _points(table.where[i], numbers)
        elif np.any(numbers[:-3]):
            notes.append(f"{table.where[i]}: the cost of {names[g]} is no polynomial of degree 2 and left out")
        else:
            found[g] = np.pad(numbers[-3:], (max(0, 3 - len(numbers)), 0))
    return found, tuple(points) if any(map(len, points)) else ()


def _numbers(where: str, row: Float[np.ndarray, "c"]) -> tuple[Float[np.ndarray, "k"], int]:
    """Coefficients, or points one after the other, and the model."""
    head = COST["COST"] - 1
    if len(row) < head + 1:
        raise ValueError(f"{where}: a cost must have at least {head + 1} columns, got {len(row)}")
    model, count = row[COST["MODEL"] - 1], row[COST["NCOST"] - 1]
    if model not in (COST["PW_LINEAR"], COST["POLYNOMIAL"]):
        raise ValueError(f"{where}: MODEL of a cost must be 1 (points) or 2 (polynomial), got {model:g}")
    each = 2 if model == COST["PW_LINEAR"] else 1
    if not each <= count <= (len(row) - head) / each or count != round(count):
        raise ValueError(f"{where}: NCOST must be a whole number that the {len(row)} columns hold, got {count:g}")
    end = head + each * int(count)
    if not np.isfinite(row[head:end]).all():
        raise ValueError(f"{where}: a cost must consist of finite numbers, got {row[head:end].tolist()}")
    if np.any(row[end:] != 0):
        raise ValueError(f"{where}: numbers follow the {int(count)} that NCOST states; raise it or remove them")
    return row[head:end], int(model)


def _points(where: str, numbers: Float[np.ndarray, "numbers"]) -> Points:
    points = numbers.reshape(-1, 2)
    if not (np.diff(points[:, 0]) > 0).all():
        raise ValueError(f"{where}: the points of a cost must rise in power, got {points[:, 0].tolist()} MW")
    return points
