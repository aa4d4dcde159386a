"""The contract of machines and inverters: voltage sources behind an impedance.

A model holds parameters: numbers of one machine on its own base, or, after :func:`stack`, columns ``[m, 1]`` of m
machines on the base of the system. The functions take the states of m machines in n scenarios, one ``[m, n]`` each,
and work on torch tensors and on numpy arrays alike (a single scenario is quicker in numpy). Angles in rad, time in s,
the rest in pu; speeds are deviations from the nominal one. The q axis lies at the machine's angle (Kundur, Power
System Stability and Control, 1994, section 3.6): ``v_d + j v_q = v exp(-j (delta - pi/2))``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cached_property
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

Number = Any
"""A float, or a column of floats after :func:`stack`."""
Array = Any
"""A torch tensor or a numpy array."""


def library(array: Array) -> ModuleType:
    """``torch`` or ``numpy``, whichever the array belongs to."""
    return torch if isinstance(array, Tensor) else np


class Axes(NamedTuple):
    """A phasor ``[m, n]`` in the frame of each machine."""

    d: Array
    q: Array


class Start(NamedTuple):
    """A machine in equilibrium: states ``[states, n, m]``, field voltage, mechanical power, both ``[n, m]``."""

    x: Tensor
    field: Tensor
    power: Tensor


class Machine(ABC):
    """A source behind an impedance. Subclasses are final dataclasses of parameters.

    Attributes:
        states: Names of the states; the first is the angle of the axis frame.
        base_scaled: Parameters that are impedances on the machine's base.
        inertial: Parameters that are energies or powers per unit of the machine's base.
    """

    states: ClassVar[tuple[str, ...]]
    base_scaled: ClassVar[tuple[str, ...]] = ()
    inertial: ClassVar[tuple[str, ...]] = ()
    salient: ClassVar[bool] = False
    excited: ClassVar[bool] = False

    @property
    @abstractmethod
    def impedance(self) -> tuple[Number, Number]:
        """Resistance and reactance behind which the source stands."""

    @abstractmethod
    def source(self, x: Array, held: Array) -> tuple[Array, Array]:
        """Internal voltage along d and q, ``[m, n]``; ``held`` is a constant one for models that have it."""

    @abstractmethod
    def speed(self, x: Array, power: Array) -> Array:
        """Deviation of the speed (frequency), ``[m, n]``."""

    @abstractmethod
    def flow(self, x: Array, source: Axes, current: Axes, field: Array, power: Array, omega: float) -> list[Array]:
        """Rates of all states.

        Args:
            x: States, in a sequence.
            source: Internal voltage along the axes.
            current: Current along the axes.
            field: Field voltage; a constant of the operating point for models without a field.
            power: Mechanical power or, for an inverter, its set point.
            omega: Nominal angular frequency, rad/s.
        """

    @abstractmethod
    def start(self, V: Tensor, I: Tensor) -> Start:  # noqa: E741 - the current's usual name
        """Equilibrium at complex terminal voltages and currents ``[n, m]``; parameters are rows here."""

    def saliency(self) -> Number:
        """``x_q - x_d`` of the reactance behind which the source stands; zero without saliency."""
        return 0.0

    def check(self, where: str) -> None:
        """Raise ValueError, naming ``where``, if a parameter makes no sense."""
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if not np.isfinite(value):
                raise ValueError(f"{where}: {field.name} must be finite, got {value}")
        if not self.impedance[1] > 0:
            raise ValueError(f"{where}: the internal reactance must be positive, got {self.impedance[1]}")


class Rotor(Machine, ABC):
    """A machine with a turning mass; the second state is the speed.

    Attributes:
        h: Inertia constant, s.
        d: Damping torque per unit of speed.
    """

    h: Number
    d: Number

    def check(self, where: str) -> None:
        """See :class:`Machine`."""
        super().check(where)
        if not self.h > 0:
            raise ValueError(f"{where}: the inertia constant h must be positive, got {self.h}")

    def speed(self, x: Array, power: Array) -> Array:
        """See :class:`Machine`."""
        return x[1]

    def acceleration(self, power: Array, torque: Array, speed: Array) -> Array:
        """``(power - torque - d speed) / (2 h)``, for models with inertia h and damping d."""
        surplus = power - torque
        if self._damped:
            surplus = surplus - self.d * speed
        return surplus / self._twice_h

    @cached_property
    def _damped(self) -> bool:
        return bool((self.d != 0).any())

    @cached_property
    def _twice_h(self) -> Number:
        return 2 * self.h


M = TypeVar("M")


def stack(
    models: Sequence[M],
    ratio: Sequence[float] | None = None,
    *,
    scaled: Sequence[str] = (),
    inertial: Sequence[str] = (),
) -> M:
    """One model with columns ``[m, 1]`` from m models with numbers, moved to the base of the system.

    Args:
        models: Models of one class.
        ratio: Base of each machine over that of the system; 1 unless given.
        scaled: Parameters to divide by the ratio (impedances, droops).
        inertial: Parameters to multiply by it (energies, powers).
    """
    size = np.ones(len(models)) if ratio is None else np.asarray(ratio, dtype=float)
    columns = {}
    for field in fields(models[0]):  # type: ignore[arg-type]
        value = np.array([getattr(model, field.name) for model in models], dtype=float)
        value = value / size if field.name in scaled else value * size if field.name in inertial else value
        columns[field.name] = value[:, None]
    return replace(models[0], **columns)  # type: ignore[type-var]


def convert(model: M, like: Array, *, rows: bool = False) -> M:
    """The model with columns of the library, type and device of ``like``; as rows ``[1, m]`` if asked."""

    def column(value: Any) -> Any:
        value = value.T if rows else value
        return (
            torch.as_tensor(value, dtype=like.dtype, device=like.device)
            if isinstance(like, Tensor)
            else np.asarray(value, like.dtype)
        )

    return replace(model, **{f.name: column(getattr(model, f.name)) for f in fields(model)})  # type: ignore[type-var, arg-type]


def quadratic_saturation(x1: Number, y1: Number, x2: Number, y2: Number) -> tuple[Number, Number]:
    """A and B of ``B (x - A)^2 / x`` above A through two points; without saturation (y2 = 0) B is 0."""
    some = y2 > 0
    root = np.sqrt if not isinstance(y2, Tensor) else torch.sqrt
    safe = y2 + (1.0 - 1.0 * some)
    a = root(x1 * y1 / (x2 * safe)) * some
    A = x2 - (x1 - x2) / (a - 1)
    return A, some * x2 * safe * (a - 1) ** 2 / (x1 - x2) ** 2
