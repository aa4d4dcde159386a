"""Exciters, governors and stabilisers: what sets field voltage and mechanical power of the machines.

Conventions as in :mod:`~steersman.envs.grid.machines.base`: parameters are numbers or columns ``[m, 1]``, states are
sequences of ``[m, n]``, torch or numpy. Limits of integrators do not wind up: states are clamped after each integrator
step, and within one, where stages overshoot, whatever reads them sees their clipped values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from steersman.envs.grid.machines.base import Array, Number, library, quadratic_saturation


class Regulator(ABC):
    """A controller with states of its own.

    Attributes:
        states: Names of the states.
        base_scaled: Parameters per unit of the machine's base that divide (droops).
        inertial: Parameters that are powers on the machine's base.
    """

    states: ClassVar[tuple[str, ...]]
    base_scaled: ClassVar[tuple[str, ...]] = ()
    inertial: ClassVar[tuple[str, ...]] = ()

    def limits(self) -> list[tuple[int, Number, Number]]:
        """States that are clamped after each integrator step, with their bounds."""
        return []


class Exciter(Regulator, ABC):
    """From the terminal voltage to the field voltage."""

    @abstractmethod
    def field(self, x: Array, speed: Array) -> Array:
        """Field voltage ``[m, n]``."""

    @abstractmethod
    def flow(self, x: Array, voltage: Array, order: Array, speed: Array) -> list[Array]:
        """Rates of all states; ``order`` is the reference voltage plus whatever a stabiliser adds."""

    @abstractmethod
    def start(self, voltage: Tensor, field: Tensor) -> tuple[Tensor, Tensor]:
        """States ``[states, n, m]`` and reference voltage ``[n, m]`` in equilibrium; parameters are rows here."""


@final
@dataclass(frozen=True, kw_only=True)
class DCExciter(Exciter):
    """Commutator machine with rate feedback and speed-dependent output, fixed limits (EXDC2 in ANDES's form).

    ``v1' = (V - v1)/tr``, ``vr' = (ka (order - v1 - kf/tf (ve - w)) - vr)/ta`` in its limits, ``ve' = (vr - (ke +
    Se) ve)/te``, ``w' = (ve - w)/tf``, ``Efd = (1 + s) ve``.

    Attributes:
        tr: Time constant of the voltage transducer, s.
        ka: Gain of the amplifier.
        ta: Its time constant, s.
        ke: Self-excitation.
        te: Time constant of the exciter, s.
        kf: Gain of the rate feedback.
        tf: Its time constant, s.
        vmin: Least output of the amplifier.
        vmax: Largest.
        e1: First field voltage with a stated saturation.
        se1: Saturation there.
        e2: Second.
        se2: Saturation there; 0 for none.
    """

    tr: Number
    ka: Number
    ta: Number
    ke: Number
    te: Number
    kf: Number
    tf: Number
    vmin: Number
    vmax: Number
    e1: Number = 0.75
    se1: Number = 0.0
    e2: Number = 1.0
    se2: Number = 0.0
    states: ClassVar[tuple[str, ...]] = ("transducer", "amplifier", "exciter", "rate feedback")

    def limits(self) -> list[tuple[int, Number, Number]]:
        """See :class:`Regulator`."""
        return [(1, self.vmin, self.vmax)]

    def field(self, x: Array, speed: Array) -> Array:
        """See :class:`Exciter`."""
        return (1.0 + speed) * x[2]

    def flow(self, x: Array, voltage: Array, order: Array, speed: Array) -> list[Array]:
        """See :class:`Exciter`."""
        sensed, amplifier, exciter, washed = x
        limited = library(amplifier).clip(amplifier, self.vmin, self.vmax)
        rate = (exciter - washed) / self.tf
        drop = self.ke * exciter
        if self._saturates:
            drop = drop + self._saturation(exciter)
        return [
            (voltage - sensed) / self.tr,
            (self.ka * (order - sensed - self.kf * rate) - amplifier) / self.ta,
            (limited - drop) / self.te,
            rate,
        ]

    def start(self, voltage: Tensor, field: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Exciter`."""
        amplifier = self.ke * field + self._saturation(field)
        return torch.stack([voltage, amplifier, field, field]), voltage + amplifier / self.ka

    @cached_property
    def _saturates(self) -> bool:
        return bool((self.se2 > 0).any())

    def _saturation(self, field: Array) -> Array:
        """Saturation times the field voltage."""
        a, b = quadratic_saturation(self.e1, self.se1, self.e2, self.se2)
        above = torch.relu(field - a) if library(field) is torch else np.maximum(field - a, 0.0)
        return b * above**2


@final
@dataclass(frozen=True, kw_only=True)
class StaticExciter(Exciter):
    """Fast thyristor exciter: ``v1' = (V - v1)/tr``, ``Efd' = (ka (order - v1) - Efd)/ta`` in its limits.

    Attributes:
        ka: Gain.
        ta: Time constant, s.
        tr: Time constant of the voltage transducer, s.
        emin: Least field voltage.
        emax: Largest.
    """

    ka: Number
    ta: Number = 0.02
    tr: Number = 0.01
    emin: Number = -6.4
    emax: Number = 7.0
    states: ClassVar[tuple[str, ...]] = ("transducer", "field voltage")

    def limits(self) -> list[tuple[int, Number, Number]]:
        """See :class:`Regulator`."""
        return [(1, self.emin, self.emax)]

    def field(self, x: Array, speed: Array) -> Array:
        """See :class:`Exciter`."""
        return library(x[1]).clip(x[1], self.emin, self.emax)

    def flow(self, x: Array, voltage: Array, order: Array, speed: Array) -> list[Array]:
        """See :class:`Exciter`."""
        return [(voltage - x[0]) / self.tr, (self.ka * (order - x[0]) - x[1]) / self.ta]

    def start(self, voltage: Tensor, field: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Exciter`."""
        return torch.stack([voltage, field]), voltage + field / self.ka


@final
@dataclass(frozen=True, kw_only=True)
class SteamGovernor(Regulator):
    """Droop, valve and reheater (TGOV1): ``v' = (P0 - s/r - v)/t1`` in its limits, lead-lag ``(1 + t2 s)/(1 + t3 s)``.

    Attributes:
        r: Droop, pu of speed per pu of power.
        t1: Time constant of the valve, s.
        t2: Lead of the reheater, s.
        t3: Lag, s.
        vmin: Least opening, pu of power.
        vmax: Largest.
        dt: Damping of the turbine.
    """

    r: Number
    t1: Number
    t2: Number
    t3: Number
    vmin: Number = 0.0
    vmax: Number = 1e3
    dt: Number = 0.0
    states: ClassVar[tuple[str, ...]] = ("valve", "reheater")
    base_scaled: ClassVar[tuple[str, ...]] = ("r",)
    inertial: ClassVar[tuple[str, ...]] = ("vmin", "vmax", "dt")

    def limits(self) -> list[tuple[int, Number, Number]]:
        """See :class:`Regulator`."""
        return [(0, self.vmin, self.vmax)]

    def power(self, x: Array, speed: Array) -> Array:
        """Mechanical power ``[m, n]``."""
        power = x[1] + self._lead * (self._valve(x) - x[1])
        return power - self.dt * speed if self._damps else power

    def _valve(self, x: Array) -> Array:
        return library(x[0]).clip(x[0], self.vmin, self.vmax)

    @cached_property
    def _lead(self) -> Number:
        return self.t2 / self.t3

    @cached_property
    def _damps(self) -> bool:
        return bool((self.dt != 0).any())

    def flow(self, x: Array, order: Array, speed: Array) -> list[Array]:
        """Rates of all states; ``order`` is the power set point."""
        return [(order - speed / self.r - x[0]) / self.t1, (self._valve(x) - x[1]) / self.t3]

    def start(self, power: Tensor) -> tuple[Tensor, Tensor]:
        """States ``[2, n, m]`` and set point in equilibrium."""
        return torch.stack([power, power]), power


@final
@dataclass(frozen=True, kw_only=True)
class Stabiliser(Regulator):
    """Power system stabiliser on speed: washout and two lead-lags (Kundur, section 12.5).

    ``w' = (k s - w)/tw``, output of the washout ``k s - w``, then ``(1 + t1 s)/(1 + t2 s)`` and ``(1 + t3 s)/(1 + t4
    s)``; the output is clipped to ``+-vmax``.

    Attributes:
        k: Gain, pu of voltage per pu of speed.
        tw: Washout, s.
        t1: First lead, s.
        t2: First lag, s.
        t3: Second lead, s.
        t4: Second lag, s.
        vmax: Largest output.
    """

    k: Number
    tw: Number
    t1: Number
    t2: Number
    t3: Number
    t4: Number
    vmax: Number = 0.2
    states: ClassVar[tuple[str, ...]] = ("washout", "lag 1", "lag 2")

    def signal(self, x: Array, speed: Array) -> Array:
        """What is added to the reference voltage, ``[m, n]``."""
        first = self.k * speed - x[0]
        second = x[1] + self.t1 / self.t2 * (first - x[1])
        out = x[2] + self.t3 / self.t4 * (second - x[2])
        return library(out).clip(out, -self.vmax, self.vmax)

    def flow(self, x: Array, speed: Array) -> list[Array]:
        """Rates of all states."""
        first = self.k * speed - x[0]
        second = x[1] + self.t1 / self.t2 * (first - x[1])
        return [first / self.tw, (first - x[1]) / self.t2, (second - x[2]) / self.t4]
