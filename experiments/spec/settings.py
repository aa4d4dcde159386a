"""Settings from files, checked against the signature of what they configure, with the key's path in the error."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

import pydantic

from steersman.envs.settings import meant
from steersman.optimizers.settings import alternatives, flag_in


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
    try:
        plain = inspect.isclass(target) and not is_dataclass(target)
        hints = typing.get_type_hints(target.__init__ if plain else target)
    except NameError as error:
        name = getattr(target, "__qualname__", target)
        raise SpecError(
            f"{where}: an annotation of {name} cannot be read ({error}); import what it names outside of TYPE_CHECKING"
        ) from error
    fields: dict[str, Any] = {}
    for name, parameter in named(target).items():
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
        asked = hints["settings"] if nested else {name: hint for name, (hint, _) in fields.items()}
        raise SpecError(explain(error, where, asked, skip=1 if nested else 0)) from error
    return {name: getattr(found, name) for name in found.model_fields_set}


def named(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Parameters that can be given by name; ``*args`` and ``**kwargs`` cannot."""
    found = inspect.signature(target).parameters
    return {name: p for name, p in found.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def refuse_flags(hint: Any, given: Any, where: str) -> None:
    """Refuse booleans where numbers are asked for.

    Raises:
        SpecError: With the path of the key.
    """
    if flag := flag_in(hint, given, where):
        raise SpecError(f"{flag.strip('.')}: must be a number, got a boolean")


def explain(error: pydantic.ValidationError, where: str, hint: Any = None, skip: int = 0) -> str:
    """The first problem of a validation error as one sentence with the path of the key.

    Args:
        error: The error.
        where: Path of what was validated.
        hint: Its type, or the types of its entries by name: what an unknown key may have been meant for.
        skip: Parts of the error's own path that the user knows nothing of.
    """
    first = error.errors()[0]
    path = ".".join([where, *(str(part) for part in first["loc"][skip:])]).strip(".")
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        *inside, key = first["loc"][skip:]
        known = _known(hint, inside)
        told = f"{meant(str(key), known)}; known: {', '.join(known)}" if known else "; check the spelling"
        return f"{path}: unknown key{told}"
    if first["type"] in ("missing", "missing_argument"):
        return f"{path}: this key is required"
    if first["type"] == "value_error":  # our own words, which name the value
        return f"{path}: {first['ctx']['error']}".removeprefix(": ")
    return f"{path}: {first['msg'].lower()}, got {first['input']!r}"


def _known(hint: Any, path: Sequence[Any]) -> list[str]:
    """Keys that a type has at a place inside of it; empty if they are not known."""
    for kind in alternatives(hint):
        named = kind if isinstance(kind, dict) else typing.get_type_hints(kind) if is_dataclass(kind) else {}
        args = [arg for arg in typing.get_args(kind) if arg is not Ellipsis]
        if not path and named:
            return list(named)
        if path and (path[0] in named or args):
            return _known(named[path[0]] if path[0] in named else args[-1], path[1:])
    return []


def _dataclass_in(hint: Any) -> bool:
    return any(is_dataclass(part) for part in (hint, *typing.get_args(hint)))
