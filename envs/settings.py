"""Checks of settings, made before any work: what is out of range is named with its value."""

from __future__ import annotations

import math
from collections.abc import Iterable
from difflib import get_close_matches


def at_least(least: int, **settings: float | int | None) -> None:
    """Refuse numbers below ``least``, those that are not finite, and booleans; None stands for a default and passes.

    Raises:
        ValueError: Naming the setting and its value.
    """
    for name, value in settings.items():
        _no_flag(name, value)
        if value is not None and not least <= value < math.inf:
            finite = "" if value < least else "a finite number of "
            raise ValueError(f"{name} must be {finite}at least {least}, got {value}")


def positive(**settings: float | int | None) -> None:
    """Refuse numbers that are not positive and finite, and booleans; None stands for a default and passes.

    Raises:
        ValueError: Naming the setting and its value.
    """
    for name, value in settings.items():
        _no_flag(name, value)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")


def meant(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'zero'?)`` for the known name that is nearest to an unknown one; empty if none is near.

    Names with a namespace, ``steersman/Heat-v1``, are near to what their last part is near to.
    """
    whole = {entry.rpartition("/")[2].lower(): entry for entry in known}
    near = get_close_matches(name.rpartition("/")[2].lower(), whole, n=1, cutoff=0.7)
    return f" (did you mean {whole[near[0]]!r}?)" if near else ""


def missing(name: str, known: Iterable[str]) -> str:
    """``'zer' (did you mean 'zero'?); known: zero, pid``: what to say of a name that is not among the known ones."""
    known = list(known)
    return f"{name!r}{meant(name, known)}; known: {', '.join(known)}"


def _no_flag(name: str, value: object) -> None:
    if isinstance(value, bool):  # which Python takes for 0 or 1
        raise ValueError(f"{name} must be a number, got {value}")


def one_of(*choices: str, **settings: str) -> None:
    """Refuse what is not among the choices.

    Raises:
        ValueError: Naming the setting, the choices and its value.
    """
    for name, value in settings.items():
        if value not in choices:
            known = ", ".join(map(repr, choices[:-1]))
            raise ValueError(f"{name} must be {known} or {choices[-1]!r}, got {value!r}")
