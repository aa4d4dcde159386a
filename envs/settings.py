"""Checks of settings, made before any work: what is out of range is named with its value."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints


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


# ------------------------------------------------------------------ ranges, beside the types


@dataclass(frozen=True)
class Range:
    """Finite numbers of a setting: from ``low`` to ``high``, the ends included unless they are ``open``.

    Annotations say it, ``rate: Annotated[float, Range(0, open=True)]``; of a tuple each entry has to lie in it.
    """

    low: float | int
    high: float | int = math.inf
    open: bool = False

    def __str__(self) -> str:
        if math.isfinite(self.high):
            return f"{'between' if self.open else 'in'} {self.low:g} {'and' if self.open else '..'} {self.high:g}"
        return "positive" if self.open and self.low == 0 else f"{'above' if self.open else 'at least'} {self.low:g}"

    def check(self, name: str, value: Any) -> None:
        """Refuse what does not lie in the range, or is a boolean or not finite.

        Raises:
            ValueError: Naming the setting, the range and the value.
        """
        for number in value if isinstance(value, tuple) else (value,):
            _no_flag(name, number)
            inside = self.low < number < self.high if self.open else self.low <= number <= self.high
            if not inside or not math.isfinite(number):
                each = "be in every entry" if isinstance(value, tuple) else "be"
                finite = "" if math.isfinite(number) else " and finite"
                raise ValueError(f"{name} must {each} {self}{finite}, got {value}")


Count = Annotated[int, Range(1)]
"""How many of something there must be."""
Whole = Annotated[int, Range(0)]
"""How many of something there may be."""
Positive = Annotated[float, Range(0, open=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1, open=True)]
"""A part of a whole that is neither nothing nor all."""


@dataclass(frozen=True)
class Settings:
    """Settings whose ranges stand in their annotations. Subclasses are frozen dataclasses.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __post_init__(self) -> None:
        check_ranges(self)


def check_ranges(settings: Any) -> None:
    """Refuse a dataclass of which a field lies out of the range that its annotation states; None passes.

    Raises:
        ValueError: Naming the field, the range and the value.
    """
    kind: Any = type(settings)
    for name, bounds in ranges(kind).items():
        if (value := getattr(settings, name)) is not None:
            bounds.check(name, value)


@cache
def ranges(kind: type[Any]) -> dict[str, Range]:
    """Ranges of the fields of a dataclass, as far as their annotations state any."""
    hints = get_type_hints(kind, include_extras=True)
    found = {field.name: range_of(hints[field.name]) for field in fields(kind)}
    return {name: bounds for name, bounds in found.items() if bounds is not None}


def range_of(hint: Any) -> Range | None:
    """The range that an annotation states, of a number or of the entries of a tuple; None without."""
    if get_origin(hint) is Annotated:
        return next((part for part in hint.__metadata__ if isinstance(part, Range)), None)
    return next((found for part in get_args(hint) if (found := range_of(part)) is not None), None)
