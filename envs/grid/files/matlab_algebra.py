"""Arithmetic of MATLAB on real matrices: operators, functions, ranges and indices.

Every operation that has no real value, or sizes that do not fit, raises a ValueError; nothing becomes NaN on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int64

Matrix = Float[np.ndarray, "r c"]
Value = float | np.ndarray | str | list[list["Value"]]
"""A scalar, a matrix, a text, or the rows of a cell array."""
Mask = np.bool_

CONSTANTS: dict[str, float] = {
    "pi": np.pi, "Inf": np.inf, "inf": np.inf, "NaN": np.nan, "nan": np.nan, "NA": np.nan,
    "eps": float(np.finfo(float).eps), "true": 1.0, "false": 0.0,
}  # fmt: skip
ELEMENTWISE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "abs": np.abs, "sqrt": np.sqrt, "exp": np.exp, "log": np.log, "log10": np.log10, "sin": np.sin, "cos": np.cos,
    "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "floor": np.floor, "ceil": np.ceil,
    "deg2rad": np.deg2rad, "rad2deg": np.rad2deg, "double": np.array,
}  # fmt: skip
SIMPLE: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "+": np.add, "-": np.subtract, ".*": np.multiply, "./": np.divide, ".^": np.power, ".\\": lambda a, b: b / a,
    "==": np.equal, "~=": np.not_equal, "!=": np.not_equal, "<": np.less, ">": np.greater, "<=": np.less_equal,
    ">=": np.greater_equal, "&": np.logical_and, "|": np.logical_or,
}  # fmt: skip
FUNCTIONS = (*ELEMENTWISE, "zeros", "ones", "repmat", "size", "numel", "length", "sum", "find")
"""Names of the functions that are known."""


def matrix(value: Value | None) -> np.ndarray:
    """A number or matrix as an array of two axes.

    Raises:
        ValueError: If it is text, a cell array or a colon.
    """
    if value is None or isinstance(value, str | list):
        raise ValueError("a text, a cell array or a colon stands where a number must")
    return np.atleast_2d(np.asarray(value))


def operate(sign: str, left: Value, right: Value) -> np.ndarray:
    """A binary operator; matrices grow along axes of length 1 as in MATLAB.

    Raises:
        ValueError: If sizes do not fit, the operator is not known on them, or the result is not real.
    """
    a, b = matrix(left), matrix(right)
    if sign == "*" and a.size > 1 and b.size > 1:
        if a.shape[1] != b.shape[0]:
            raise ValueError(f"sizes {_size(a)} and {_size(b)} do not fit the product '*'; use '.*' for elements")
        return _real(a.astype(float) @ b.astype(float), a, b)
    scalar = {"*": True, "/": b.size == 1, "\\": a.size == 1, "^": a.size == b.size == 1}
    if scalar.get(sign):
        sign = "." + sign
    if sign not in SIMPLE:
        raise ValueError(f"operator {sign!r} is not supported for sizes {_size(a)} and {_size(b)}")
    if any(m != n and 1 not in (m, n) for m, n in zip(a.shape, b.shape, strict=True)):
        raise ValueError(f"sizes {_size(a)} and {_size(b)} do not fit {sign!r}")
    arithmetic = SIMPLE[sign] not in (np.logical_and, np.logical_or)
    with np.errstate(all="ignore"):
        return _real(SIMPLE[sign](*((a.astype(float), b.astype(float)) if arithmetic else (a != 0, b != 0))), a, b)


def call(name: str, given: Sequence[Value | None]) -> np.ndarray:
    """A function of :data:`FUNCTIONS`.

    Raises:
        ValueError: If it takes other arguments, or the result is not real.
    """
    values = [matrix(value) for value in given]
    first = values[0] if values else np.zeros((0, 0))
    if name in ELEMENTWISE and len(values) == 1:
        with np.errstate(all="ignore"):
            return _real(ELEMENTWISE[name](first.astype(float)), first)
    if name in ("zeros", "ones") and 1 <= len(values) <= 2:
        shape = [_count(v) for v in values] if len(values) == 2 else [int(n) for n in np.broadcast_to(first, (1, 2))[0]]
        return np.full(shape, float(name == "ones"))
    if name == "repmat" and len(values) == 3:
        return np.tile(first, (_count(values[1]), _count(values[2])))
    if name == "size" and 1 <= len(values) <= 2:
        sizes = np.array([first.shape], dtype=float)
        return sizes if len(values) == 1 else chosen(sizes, given[1:])
    if name in ("numel", "length") and len(values) == 1:
        return matrix(float(first.size if name == "numel" else max(first.shape) if first.size else 0))
    if name == "sum" and len(values) == 1:
        return matrix(first.sum()) if 1 in first.shape else first.sum(axis=0, keepdims=True)
    if name == "find" and len(values) == 1:
        found = np.flatnonzero(first.flatten(order="F")) + 1.0
        return found[None] if first.shape[0] == 1 else found[:, None]
    raise ValueError(f"{name} with {len(values)} arguments is not supported")


def span(first: Value, step: Value, last: Value) -> np.ndarray:
    """``first:step:last`` as a row.

    Raises:
        ValueError: If one is no finite scalar, or the step is 0.
    """
    a, by, b = (matrix(value) for value in (first, step, last))
    if not a.size == by.size == b.size == 1 or not np.isfinite([a.item(), by.item(), b.item()]).all() or not by.item():
        raise ValueError("a range needs three finite numbers and a step other than 0")
    count = int(np.floor((b - a).item() / by.item() + 1e-10)) + 1
    return np.asarray(a + by * np.arange(count)[None])


def places(index: Value, size: int) -> Int64[np.ndarray, "k"]:
    """Places of an index, 0 for the first; true and false choose by place.

    Raises:
        ValueError: If one is not a whole number from 1 to ``size``.
    """
    wanted = matrix(index).flatten(order="F")
    if wanted.dtype == Mask:
        wanted = np.flatnonzero(wanted) + 1
    bad = wanted[(wanted < 1) | (wanted > size) | (wanted != np.round(wanted))]
    if len(bad):
        raise ValueError(f"index {bad[0]:g} must be a whole number from 1 to {size}")
    return np.asarray(wanted.astype(np.int64) - 1)


def chosen(array: np.ndarray, index: Sequence[Value | None]) -> np.ndarray:
    """``array(i, j)`` or ``array(i)``; None stands for all."""
    if len(index) == 2:
        rows, columns = (_all(i, n) for i, n in zip(index, array.shape, strict=True))
        return np.asarray(array[np.ix_(rows, columns)])
    found: np.ndarray = array.flatten(order="F")[_all(index[0], array.size)]
    shape = (len(found), 1) if index[0] is None else matrix(index[0]).shape
    # Of a row or column, a row or column is chosen that lies as it does; else the index gives the shape.
    if index[0] is not None and 1 in array.shape and 1 in shape:
        shape = (1, -1) if array.shape[0] == 1 else (-1, 1)
    elif np.prod(shape) != len(found):
        shape = (len(found), 1)
    return found.reshape(shape, order="F")


def replaced(array: np.ndarray, index: Sequence[Value | None], value: Value) -> np.ndarray:
    """``array`` after ``array(i, j) = value`` or ``array(i) = value``.

    Raises:
        ValueError: If the value does not fit the chosen elements; arrays neither grow nor shrink.
    """
    new = matrix(value).astype(float)
    if len(index) == 2:
        shape, target = array.shape, array.astype(float)
        where = np.ix_(*(_all(i, n) for i, n in zip(index, array.shape, strict=True)))
        wanted = target[where].shape
    else:
        shape, target = array.shape, array.flatten(order="F").astype(float)
        where = (_all(index[0], target.size),)
        wanted = target[where].shape
    if new.size != 1 and [n for n in new.shape if n != 1] != [n for n in wanted if n != 1]:
        raise ValueError(f"{_size(new)} values do not fit {' by '.join(map(str, wanted))} places")
    target[where] = new.item() if new.size == 1 else new.reshape(wanted, order="F")
    return target if len(index) == 2 else target.reshape(shape, order="F")


def _all(index: Value | None, size: int) -> Int64[np.ndarray, "k"]:
    return np.arange(size) if index is None else places(index, size)


def _count(value: np.ndarray) -> int:
    if value.size != 1 or value.item() != int(value.item()) or value.item() < 0:
        raise ValueError("a size must be a whole number of at least 0")
    return int(value.item())


def _size(value: np.ndarray) -> str:
    return " by ".join(map(str, value.shape))


def _real(result: np.ndarray, *inputs: np.ndarray) -> np.ndarray:
    if np.isnan(result).any() and not any(np.isnan(part.astype(float)).any() for part in inputs):
        raise ValueError("the result is not a real number")
    return result
