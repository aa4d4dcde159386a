"""An FMU as a control problem: which inputs are actions, what is measured, and what is drawn for each scenario."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.fmi.description import Description, Variable, listed
from steersman.envs.plant import Status

Number = float | int
Bounds = Sequence[Number] | Mapping[str, Number]
"""``[low, high]`` of an action, or a table with ``low``, ``high`` and ``neutral``, all optional."""
Start = Number | Sequence[Any]
"""A number, or ``[low, high]`` that it is drawn from."""
_START = 0xF31
_ENTRIES = ("low", "high", "neutral")
_SLACK = 1e-9


@dataclass(frozen=True)
class Action:
    """An input that is an action; what is applied is ``neutral + u``.

    Attributes:
        variable: The input.
        low: Its least value.
        high: Its largest value.
        neutral: Its value where the action is 0.
    """

    variable: Variable
    low: float
    high: float
    neutral: float


@dataclass(frozen=True)
class Given:
    """A start value: between two numbers, uniformly drawn; a constant if they are equal."""

    variable: Variable
    low: float
    high: float

    def drawn(self, seed: int) -> float:
        """The value in the scenario of a seed; the same one whatever else is drawn."""
        if self.low == self.high:
            return self.low
        key = noise.fold(noise.fold(torch.tensor([seed]), _START), zlib.crc32(self.variable.name.encode()))
        unit = float(noise.uniform(key)[0])
        if self.variable.whole:
            return min(self.high, self.low + math.floor(unit * (self.high - self.low + 1)))
        return self.low + unit * (self.high - self.low)


@dataclass(frozen=True)
class FmuTask:
    """What rows are made of.

    Attributes:
        description: The model description.
        actions: Inputs that are actions.
        measured: Variables that are measured.
        performed: Variables that the objective is written in.
        start: What is set before the initialization.
        step: Communication step.
        count: Communication steps in a control step.
        limits: Places in ``performed`` with the numbers they must stay between.
        references: Constant references ``[nz]``.
        led: Places in ``performed`` with those in ``measured`` that hold their references of this step and those ahead.
        end: What it means when the FMU asks for the end of the simulation.
    """

    description: Description
    actions: tuple[Action, ...]
    measured: tuple[Variable, ...]
    performed: tuple[Variable, ...]
    start: tuple[Given, ...]
    step: float
    count: int
    limits: tuple[tuple[int, float, float], ...] = ()
    references: tuple[float, ...] = ()
    led: tuple[tuple[int, tuple[int, ...]], ...] = ()
    end: Status = Status.ENDED


def actions_of(description: Description, given: Mapping[str, Bounds]) -> tuple[Action, ...]:
    """Inputs that are actions, with their bounds.

    Raises:
        ValueError: If a name is no input, or its bounds are missing or crossed; the message begins with its key.
    """
    if not given:
        inputs = [v.name for v in description.variables if v.causality == "input" and v.numeric]
        raise ValueError(f"actions: name an input with its bounds; {description.path.name} has {listed(inputs)}")
    return tuple(_action(description, name, bounds) for name, bounds in given.items())


def _action(description: Description, name: str, bounds: Bounds) -> Action:
    where = f"actions.{name}"
    variable = description.find(name, where, causality="input")
    if not isinstance(bounds, Mapping):
        low, high = _pair(bounds, where)
        bounds = {"low": low, "high": high}
    if strange := [entry for entry in bounds if entry not in _ENTRIES]:
        raise ValueError(f"{where}.{strange[0]}: unknown key; known: {', '.join(_ENTRIES)}")
    low, high = (
        _number(bounds.get(end, own), f"{where}.{end}") for end, own in (("low", variable.low), ("high", variable.high))
    )
    if not -math.inf < low <= high < math.inf:
        raise ValueError(f"{where}: needs finite low <= high, got {low} and {high}; write {name} = [low, high]")
    neutral = _number(bounds.get("neutral", 0.0), f"{where}.neutral")
    if "neutral" in bounds and not low <= neutral <= high:
        raise ValueError(f"{where}.neutral: must lie in {low} .. {high}, got {neutral}")
    return Action(variable, low, high, neutral)


def action_set(actions: tuple[Action, ...]) -> ActionSet:
    """Admissible actions, counted from the neutral values."""
    return ActionSet(
        tuple(a.low - a.neutral for a in actions),
        tuple(a.high - a.neutral for a in actions),
        tuple(a.variable.whole for a in actions),
        names=tuple(a.variable.name for a in actions),
        units=tuple(a.variable.unit for a in actions),
    )


def outputs_of(description: Description, names: Sequence[str], where: str) -> tuple[Variable, ...]:
    """Variables by name; all numeric outputs without names.

    Raises:
        ValueError: If a name is unknown or comes twice, or there is none; the message begins with ``where``.
    """
    if isinstance(names, str):
        raise ValueError(f"{where}: must be a list of names, got {names!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"{where}: names must differ, got {', '.join(names)}")
    if names:
        return tuple(description.find(name, where) for name in names)
    found = tuple(v for v in description.variables if v.causality == "output" and v.numeric)
    if not found:
        raise ValueError(f"{where}: {description.path.name} has no numeric output; name variables of it")
    return found


def start_of(description: Description, given: Mapping[str, Start], actions: tuple[Action, ...]) -> tuple[Given, ...]:
    """Start values, with the neutral actions among them.

    Raises:
        ValueError: If a name is unknown or cannot be set, or a value is wrong; the message begins with its key.
    """
    rest = [min(max(a.neutral, a.low), a.high) for a in actions]
    found = [Given(a.variable, value, value) for a, value in zip(actions, rest, strict=True)]
    taken = {a.variable.name for a in actions}
    for name, value in given.items():
        where = f"start.{name}"
        variable = description.find(name, where)
        if name in taken:
            raise ValueError(f"{where}: {name!r} is an action; its start is the neutral action")
        if not variable.settable:
            able = [v.name for v in description.variables if v.settable and v.numeric]
            raise ValueError(f"{where}: the FMU computes it by itself; what can be set: {listed(able)}")
        ends = _pair(value, where) if isinstance(value, Sequence) else (_number(value, where, flag=True),) * 2
        if not -math.inf < ends[0] <= ends[1] < math.inf:
            raise ValueError(f"{where}: must be a number or [low, high], got {value}")
        if variable.whole and any(end != int(end) for end in ends):
            raise ValueError(f"{where}: {name!r} takes whole numbers, got {value}")
        found.append(Given(variable, *ends))
    return tuple(found)


def divided(period: float, step: float) -> int:
    """Communication steps in a control step.

    Raises:
        ValueError: If they are no whole number.
    """
    count = round(period / step)
    if count < 1 or abs(count * step - period) > _SLACK * period:
        raise ValueError(f"step: period must be a whole number of communication steps, got {period} and {step}")
    return count


def _pair(value: Sequence[Any], where: str) -> tuple[float, float]:
    if isinstance(value, str) or len(value) != 2:
        raise ValueError(f"{where}: must be two numbers [low, high], got {value!r}")
    return _number(value[0], where), _number(value[1], where)


def _number(value: object, where: str, *, flag: bool = False) -> float:
    if not isinstance(value, int | float) or (isinstance(value, bool) and not flag):
        raise ValueError(f"{where}: must be a number, got {value!r}")
    return float(value)
