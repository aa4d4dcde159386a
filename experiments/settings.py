"""Settings from files, checked against the signature of what they configure, with the key's path in the error."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any

import pydantic

from steersman.optimizers.settings import flag_in


class SpecError(ValueError):
    """A comparison file or a setting is wrong; the message names the key, the value and the remedy."""


def validated(target: Callable[..., Any], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Keyword arguments for ``target``, converted to the types of its signature.

    A target that takes one dataclass called ``settings`` is configured by the fields of that dataclass.

    Args:
        target: A class or function with annotated parameters.
        given: The settings, as TOML or JSON gives them.
        where: Path of the settings, for the error.

    Raises:
        SpecError: If a setting is unknown, missing or of the wrong type.
    """
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if name != "plant":
            fields[name] = (hints[name], ... if parameter.default is parameter.empty else parameter.default)
    nested = "settings" in fields and _dataclass_in(hints["settings"])
    refuse_flags(hints["settings"] if nested else hints, given, where)
    model = pydantic.create_model(
        getattr(target, "__name__", "settings"),
        __config__=pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=True),
        **fields,
    )
    try:
        found = model(**({"settings": dict(given)} if nested else given))
    except pydantic.ValidationError as error:
        known = sorted(_field_names(hints["settings"]) if nested else fields)
        raise SpecError(explain(error, where, known, skip=1 if nested else 0)) from error
    return {name: getattr(found, name) for name in found.model_fields_set}


def refuse_flags(hint: Any, given: Any, where: str) -> None:
    """Refuse booleans where numbers are asked for.

    Raises:
        SpecError: With the path of the key.
    """
    if flag := flag_in(hint, given, where):
        raise SpecError(f"{flag.strip('.')}: must be a number, got a boolean")


def explain(error: pydantic.ValidationError, where: str, known: list[str] | None = None, skip: int = 0) -> str:
    """The first problem of a validation error as one sentence with the path of the key."""
    first = error.errors()[0]
    path = ".".join([where, *(str(part) for part in first["loc"][skip:])]).strip(".")
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{path}: unknown key" + (f"; known: {', '.join(known)}" if known else "; check the spelling")
    if first["type"] in ("missing", "missing_argument"):
        return f"{path}: this key is required"
    if first["type"] == "value_error":  # our own words, which name the value
        return f"{path}: {first['ctx']['error']}".removeprefix(": ")
    return f"{path}: {first['msg'].lower()}, got {first['input']!r}"


def _dataclass_in(hint: Any) -> bool:
    return any(is_dataclass(part) for part in (hint, *typing.get_args(hint)))


def _field_names(hint: Any) -> list[str]:
    return [name for part in (hint, *typing.get_args(hint)) if is_dataclass(part) for name in part.__annotations__]
