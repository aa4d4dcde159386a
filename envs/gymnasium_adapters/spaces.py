"""Spaces of gymnasium as flat vectors: observations to numbers, and actions both ways.

Observations, in the order of ``gymnasium.spaces.utils.flatten`` (dictionaries by key):

- Box, of any shape and type: its entries, row by row. Images are not scaled.
- MultiBinary: its entries, 0 or 1.
- Discrete(n): n entries of which one is 1 (one-hot), named by their values: ``b=2``.
- MultiDiscrete: one such group for each entry: ``b[0]=1``.
- Dict, Tuple: all of their parts, one after the other.

Actions:

- Box: its entries, integer ones where its type is integer.
- Discrete(n): a one-hot group of n, since its members have no order that a network could use.
- MultiDiscrete: integers from ``start`` to ``start + nvec - 1``; MultiBinary: integers 0 or 1.
- Dict, Tuple: all of their parts.

Entries of a part ``position`` are named ``position[0]``, ``position[1, 2]`` or, for a number alone, ``position``; parts
of parts ``arm.position[0]`` and ``arm.0``. An observation that is one vector has the names ``y0, y1, ..``, such an
action ``u0, u1, ..``. Sequence, Graph, Text and OneOf have no fixed number of entries and are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from steersman.envs.actions import ActionSet

Space = spaces.Space[Any]
Vector = NDArray[np.float64]
_WHOLE = 2.0**53
"""Integers up to here are exact in double precision."""


@dataclass(frozen=True)
class Leaf:
    """One part of a space that holds numbers."""

    name: str
    space: Space

    @property
    def entries(self) -> list[str]:
        """Names of its entries."""
        shape = self.space.shape or ()
        if shape == ():
            return [self.name]
        if len(shape) == 1 and self.name in ("y", "u"):
            return [f"{self.name}{i}" for i in range(shape[0])]
        return [f"{self.name}[{', '.join(map(str, at))}]" for at in np.ndindex(*shape)]


def leaves(space: Space, name: str, path: str = "") -> Iterator[Leaf]:
    """The parts of a space, in the order of its flattening.

    Args:
        space: The space.
        name: What an entry without a name of its own is called.
        path: Names of the parts around it.

    Raises:
        ValueError: If a part has no fixed number of entries, or none; the message names it.
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in parts:
            yield from leaves(part, name, f"{path}.{key}" if path else str(key))
    elif isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        if 0 in (space.shape or ()):
            raise ValueError(f"space {path or name!r} has no entries: {space}")
        yield Leaf(path or name, space)
    else:
        kind = type(space).__name__
        where = f" ({path!r})" if path else ""
        raise ValueError(
            f"{kind} spaces{where} have no fixed number of entries; wrap the environment so that it uses Box, "
            "Discrete, MultiDiscrete, MultiBinary, Dict or Tuple"
        )


# ------------------------------------------------------------------ observations


class Observations:
    """Flattening of an observation space.

    Attributes:
        names: Names of the entries.
    """

    def __init__(self, space: Space) -> None:
        """Lay the space out.

        Raises:
            ValueError: If a part cannot be flattened.
        """
        self.space = space
        self.names = tuple(name for leaf in leaves(space, "y") for name in _observed(leaf))
        if not self.names:
            raise ValueError(f"the observation space {space} is empty: there is nothing to measure")

    def flatten(self, observation: Any) -> Vector:
        """Entries of an observation ``[ny]``, a new array.

        Raises:
            ValueError: If the observation does not have the form that the space promises.
        """
        parts: list[Vector] = []
        _collect(self.space, observation, "", parts)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _observed(leaf: Leaf) -> list[str]:
    space = leaf.space
    if isinstance(space, spaces.Discrete):
        return [f"{leaf.name}={int(space.start) + i}" for i in range(int(space.n))]
    if isinstance(space, spaces.MultiDiscrete):
        first, count = _start(space).ravel(), space.nvec.ravel()
        return [
            f"{name}={int(low) + i}" for name, low, n in zip(leaf.entries, first, count, strict=True) for i in range(n)
        ]
    return leaf.entries


def _collect(space: Space, x: Any, path: str, parts: list[Vector]) -> None:
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            try:
                inside = x[key]
            except (KeyError, TypeError, IndexError):
                raise ValueError(
                    f"the observation{_at(path)} has no {key!r}, which its space {space} promises"
                ) from None
            _collect(part, inside, f"{path}.{key}" if path else str(key), parts)
    elif isinstance(space, spaces.Tuple):
        if not hasattr(x, "__len__") or len(x) != len(space.spaces):
            raise ValueError(f"the observation{_at(path)} is not a tuple of {len(space.spaces)} parts, as {space} says")
        for i, part in enumerate(space.spaces):
            _collect(part, x[i], f"{path}.{i}" if path else str(i), parts)
    else:
        parts.append(_numbers(space, x, path))


def _numbers(space: Space, x: Any, path: str) -> Vector:
    try:
        # Always a copy: some environments change the array that they have returned.
        array = np.array(x, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"the observation{_at(path)} does not hold the numbers of {space}, got {x!r:.80}") from None
    shape = space.shape or ()
    if array.shape != shape and tuple(d for d in array.shape if d != 1) != tuple(d for d in shape if d != 1):
        raise ValueError(f"the observation{_at(path)} has shape {array.shape}, but its space is {space}")
    if isinstance(space, spaces.Discrete):
        return _one_hot(space, array.reshape(1), np.asarray([space.start]), np.asarray([space.n]), path)
    if isinstance(space, spaces.MultiDiscrete):
        return _one_hot(space, array.ravel(), _start(space).ravel(), space.nvec.ravel(), path)
    return array.ravel()


def _one_hot(space: Space, value: Vector, start: NDArray[Any], count: NDArray[Any], path: str) -> Vector:
    out = np.zeros(int(count.sum()))
    if not np.isfinite(value).all():
        return np.full_like(out, np.nan)
    place = value - start
    if (place < 0).any() or (place >= count).any() or (place != np.floor(place)).any():
        raise ValueError(f"the observation{_at(path)} is {value.tolist()}, which is not in {space}")
    out[np.cumsum(count) - count + place.astype(np.int64)] = 1.0
    return out


def _at(path: str) -> str:
    return f" {path!r}" if path else ""


def _start(space: spaces.MultiDiscrete) -> NDArray[Any]:
    return np.asarray(getattr(space, "start", np.zeros_like(space.nvec)))


# ------------------------------------------------------------------ actions


class Actions:
    """An action space as an :class:`~steersman.envs.actions.ActionSet`, with the way back.

    Attributes:
        set: Admissible actions u ``[m]``.
    """

    def __init__(self, space: Space) -> None:
        """Lay the space out.

        Raises:
            ValueError: If a part has no fixed number of entries, is an unbounded integer, or has bounds that double
                precision cannot hold.
        """
        self.space = space
        self._leaves = list(leaves(space, "u"))
        if not self._leaves:
            raise ValueError(f"the action space {space} is empty: there is nothing to control")
        lower: list[float] = []
        upper: list[float] = []
        integer: list[bool] = []
        names: list[str] = []
        groups: list[tuple[int, ...]] = []
        for leaf in self._leaves:
            low, high, whole = _bounds(leaf)
            if isinstance(leaf.space, spaces.Discrete):
                groups.append(tuple(range(len(lower), len(lower) + len(low))))
            lower += low
            upper += high
            integer += [whole] * len(low)
            names += _observed(leaf) if isinstance(leaf.space, spaces.Discrete) else leaf.entries
        self.set = ActionSet(tuple(lower), tuple(upper), tuple(integer), tuple(groups), tuple(names))
        self._widths = [_width(leaf.space) for leaf in self._leaves]

    def decode(self, u: Vector) -> Any:
        """The environment's own action, in the type and shape of its space, for a finite admissible ``u`` ``[m]``."""
        ends = np.cumsum(self._widths)
        parts = iter(
            [
                _native(leaf.space, u[end - w : end])
                for leaf, w, end in zip(self._leaves, self._widths, ends, strict=True)
            ]
        )
        return _assembled(self.space, parts)

    def encode(self, action: Any) -> Vector:
        """Inverse of :meth:`decode`."""
        found: list[Vector] = []
        _disassembled(self.space, action, found)
        return np.concatenate(found)


def action_set(space: Space) -> ActionSet:
    """The action set of a gymnasium space; see the module for the rules.

    Raises:
        ValueError: If a part of the space has no fixed number of entries or is an unbounded integer.
    """
    return Actions(space).set


def _width(space: Space) -> int:
    return int(space.n) if isinstance(space, spaces.Discrete) else int(np.prod(space.shape or ()))


def _bounds(leaf: Leaf) -> tuple[list[float], list[float], bool]:
    """Bounds of the entries of u, and whether they are integers."""
    space = leaf.space
    if isinstance(space, spaces.Discrete):
        return [0.0] * int(space.n), [1.0] * int(space.n), False
    if isinstance(space, spaces.MultiBinary):
        return [0.0] * _width(space), [1.0] * _width(space), True
    if isinstance(space, spaces.MultiDiscrete):
        low = _start(space).ravel()
        return low.astype(float).tolist(), (low + space.nvec.ravel() - 1).astype(float).tolist(), True
    assert isinstance(space, spaces.Box)  # noqa: S101 - the last kind of leaf
    whole = space.dtype is not None and space.dtype.kind in "iub"
    if whole and not space.is_bounded():
        raise ValueError(
            f"action {leaf.name!r} is an integer without bounds ({space}); wrap the environment and bound it"
        )
    low, high = space.low.ravel().astype(float), space.high.ravel().astype(float)
    if whole and max(np.abs(low).max(), np.abs(high).max()) > _WHOLE:
        raise ValueError(f"action {leaf.name!r} has bounds beyond 2^53 ({space}); wrap the environment and narrow them")
    # A bound that does not exist may be given as the largest number of its type.
    largest = np.inf if whole else float(np.finfo(space.dtype).max)
    return np.where(low <= -largest, -np.inf, low).tolist(), np.where(high >= largest, np.inf, high).tolist(), whole


def _native(space: Space, u: Vector) -> Any:
    if isinstance(space, spaces.Discrete):
        assert space.dtype is not None  # noqa: S101 - Discrete has one
        return space.dtype.type(int(space.start) + int(np.argmax(u)))
    shape = space.shape or ()
    if isinstance(space, spaces.Box) and space.dtype is not None and space.dtype.kind == "f":
        top = float(np.finfo(space.dtype).max)
        return np.clip(u, -top, top).astype(space.dtype).reshape(shape)
    return np.round(u).astype(space.dtype).reshape(shape)


def _assembled(space: Space, parts: Iterator[Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _assembled(part, parts) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_assembled(part, parts) for part in space.spaces)
    return next(parts)


def _disassembled(space: Space, action: Any, found: list[Vector]) -> None:
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            _disassembled(part, action[key], found)
    elif isinstance(space, spaces.Tuple):
        for part, inside in zip(space.spaces, action, strict=True):
            _disassembled(part, inside, found)
    elif isinstance(space, spaces.Discrete):
        found.append(np.eye(int(space.n))[int(action) - int(space.start)])
    else:
        found.append(np.asarray(action, dtype=np.float64).ravel())
