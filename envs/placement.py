"""Constants beside the tensors they meet, made or copied once for each device: a copy makes the host wait for a GPU."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from copy import copy
from dataclasses import is_dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

Nested = tuple[Any, ...]
"""A tuple of numbers, or of such tuples of equal lengths."""

_COPIES: MutableMapping[Tensor, dict[tuple[torch.device, torch.dtype], Tensor]] = WeakTensorKeyDictionary()
"""Copies by original; those of an original that is no more are forgotten."""


def constant(values: Nested, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Numbers as a tensor beside ``like``, made once for each device; not to be written to.

    Args:
        values: The numbers.
        like: Gives the device, and the type where none is given.
        dtype: The type.
    """
    return _constant(values, dtype or like.dtype, like.device)


def placed(t: Tensor, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor that never changes, beside ``like`` and in the type given or its own; copied once for each device."""
    dtype = dtype or t.dtype
    if t.device == like.device or torch.compiler.is_compiling():
        return t.to(like.device, dtype)
    copies = _COPIES.setdefault(t, {})
    if (copy := copies.get((like.device, dtype))) is None:
        copy = copies[like.device, dtype] = t.to(like.device, dtype)
    return copy


def synchronise(device: torch.device | str) -> None:
    """Wait until a GPU has done all that it was told; clocks say nothing before. Nothing to do on a CPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def moved(value: Any, device: torch.device, own: Callable[[type], bool], seen: dict[int, Any] | None = None) -> Any:
    """A value whose tensors lie on a device: itself with other attributes, or a copy where it is plain data.

    What has a method ``to`` is asked; tuples, lists and dictionaries are looked through, and objects of own classes.

    Args:
        value: Anything.
        device: Where to.
        own: Whether objects of a class are looked through.
        seen: Results so far, so that what is shared stays shared.
    """
    seen = {} if seen is None else seen
    if id(value) in seen:
        return seen[id(value)][1]
    result = value
    if callable(to := getattr(value, "to", None)) and not isinstance(value, type):
        result = to(device)
    elif type(value) in (tuple, list):
        parts = [moved(part, device, own, seen) for part in value]
        result = value if all(a is b for a, b in zip(parts, value, strict=True)) else type(value)(parts)
    elif type(value) is dict:
        result = {name: moved(part, device, own, seen) for name, part in value.items()}
        result = value if all(result[name] is part for name, part in value.items()) else result
    elif own(type(value)) and hasattr(value, "__dict__"):
        seen[id(value)] = value, value
        found = {name: moved(part, device, own, seen) for name, part in vars(value).items()}
        if other := {name: part for name, part in found.items() if part is not getattr(value, name)}:
            result = copy(value) if is_dataclass(value) else value
            vars(result).update(other)
    seen[id(value)] = value, result
    return result


@lru_cache(maxsize=1024)
def _constant(values: Nested, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)
