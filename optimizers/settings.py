"""Settings by their types: as text, so that a state can say which search it belongs to, and what is no number."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any


def flag_in(hint: Any, value: Any, path: str) -> str:
    """Path of the first boolean in a value whose type asks for a number there; empty if there is none.

    Python takes ``True`` for 1, and so do checks of types: ``tune = true`` would tune with a single try.

    Args:
        hint: Type of the value, or of each entry by its name; dataclasses, unions and containers are looked into.
        value: What is given; a mapping for a dataclass.
        path: Path of the value.
    """
    choices = alternatives(hint)
    if isinstance(value, bool):
        return path if bool not in choices and not {int, float}.isdisjoint(choices) else ""
    if not isinstance(value, Mapping | list | tuple):
        return ""
    # One alternative of a union that takes the value is enough.
    found = [next(filter(None, parts), "") for choice in choices if (parts := _inside(choice, value, path)) is not None]
    return "" if "" in found or not found else found[0]


def _inside(hint: Any, value: Any, path: str) -> list[str] | None:
    """:func:`flag_in` of all parts of a mapping or sequence; None if the type is of another kind."""
    if isinstance(value, Mapping):
        named = _of_mapping(hint, value)
        return None if named is None else [flag_in(named[n], value[n], f"{path}.{n}") for n in named if n in value]
    listed = _of_sequence(hint, len(value))
    if listed is None:
        return None
    return [flag_in(kind, part, f"{path}.{i}") for i, (kind, part) in enumerate(zip(listed, value, strict=False))]


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of a union; of anything else the type itself."""
    if typing.get_origin(hint) is typing.Annotated:
        return alternatives(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(choice for part in typing.get_args(hint) for choice in alternatives(part))
    return (hint,)


def _of_mapping(hint: Any, value: Mapping[str, Any]) -> dict[str, Any] | None:
    """Types of the entries of a mapping, if the type is one of mappings or a dataclass."""
    if isinstance(hint, dict):
        return hint
    if is_dataclass(hint):
        return typing.get_type_hints(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(origin, type) and issubclass(origin, Mapping) and len(args) == 2:
        return dict.fromkeys(value, args[1])
    return None


def _of_sequence(hint: Any, length: int) -> tuple[Any, ...] | None:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and args and args[-1] is not Ellipsis:
        return args
    return (args[0],) * length if isinstance(origin, type) and issubclass(origin, tuple | list) and args else None


def settings_json(part: object) -> str:
    """JSON of a dataclass of numbers, strings and further dataclasses, with the type's name at every level."""
    return json.dumps(_plain(part), sort_keys=True)


def _plain(part: object) -> object:
    if is_dataclass(part) and not isinstance(part, type):
        return {"type": type(part).__name__} | {f.name: _plain(getattr(part, f.name)) for f in fields(part)}
    if isinstance(part, tuple | list):
        return [_plain(item) for item in part]
    return part.value if isinstance(part, Enum) else part
