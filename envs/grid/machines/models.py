"""Models of machines and inverters, one class each; conventions in :mod:`~steersman.envs.grid.machines.base`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from steersman.envs.grid.machines.base import Array, Axes, Machine, Number, Rotor, Start, library, quadratic_saturation


@final
@dataclass(frozen=True, kw_only=True)
class Classical(Rotor):
    """Constant voltage behind x': ``delta' = w0 s``, ``2 H s' = Pm - Pe - D s``.

    Attributes:
        h: Inertia constant, s.
        x1d: Transient reactance.
        ra: Armature resistance.
        d: Damping torque per unit of speed.
    """

    h: Number
    x1d: Number
    ra: Number = 0.0
    d: Number = 0.0
    states: ClassVar[tuple[str, ...]] = ("angle", "speed")
    base_scaled: ClassVar[tuple[str, ...]] = ("x1d", "ra")
    inertial: ClassVar[tuple[str, ...]] = ("h", "d")

    @property
    def impedance(self) -> tuple[Number, Number]:
        """See :class:`Machine`."""
        return self.ra, self.x1d

    def source(self, x: Array, held: Array) -> tuple[Array, Array]:
        """See :class:`Machine`."""
        return 0.0 * held, held

    def flow(self, x: Array, source: Axes, current: Axes, field: Array, power: Array, omega: float) -> list[Array]:
        """See :class:`Machine`."""
        return [omega * x[1], self.acceleration(power, source.q * current.q, x[1])]

    def start(self, V: Tensor, I: Tensor) -> Start:  # noqa: E741
        """See :class:`Machine`."""
        E = V + torch.complex(self.ra, self.x1d) * I
        power = (E * I.conj()).real
        return Start(torch.stack([E.angle(), torch.zeros_like(power)]), E.abs(), power)


@final
@dataclass(frozen=True, kw_only=True)
class TwoAxis(Rotor):
    """Transient voltages on both axes (Sauer and Pai, Power System Dynamics and Stability, section 5.4).

    ``Td0' E'q' = Efd - E'q - (xd - x'd) id``, ``Tq0' E'd' = -E'd + (xq - x'q) iq``. With x'd and x'q unequal the
    network is solved with saliency in each evaluation.

    Attributes:
        h: Inertia constant, s.
        xd: Synchronous reactance, d axis.
        xq: Synchronous reactance, q axis.
        x1d: Transient reactance, d axis.
        x1q: Transient reactance, q axis.
        t1d0: Open-circuit time constant, d axis, s.
        t1q0: Open-circuit time constant, q axis, s.
        ra: Armature resistance.
        d: Damping torque per unit of speed.
    """

    h: Number
    xd: Number
    xq: Number
    x1d: Number
    x1q: Number
    t1d0: Number
    t1q0: Number
    ra: Number = 0.0
    d: Number = 0.0
    states: ClassVar[tuple[str, ...]] = ("angle", "speed", "E'q", "E'd")
    base_scaled: ClassVar[tuple[str, ...]] = ("xd", "xq", "x1d", "x1q", "ra")
    inertial: ClassVar[tuple[str, ...]] = ("h", "d")
    salient: ClassVar[bool] = True
    excited: ClassVar[bool] = True

    @property
    def impedance(self) -> tuple[Number, Number]:
        """See :class:`Machine`."""
        return self.ra, self.x1d

    def saliency(self) -> Number:
        """See :class:`Machine`."""
        return self.x1q - self.x1d

    def source(self, x: Array, held: Array) -> tuple[Array, Array]:
        """See :class:`Machine`."""
        return x[3], x[2]

    def flow(self, x: Array, source: Axes, current: Axes, field: Array, power: Array, omega: float) -> list[Array]:
        """See :class:`Machine`."""
        d, q = current
        torque = x[3] * d + x[2] * q + (self.x1q - self.x1d) * d * q
        return [
            omega * x[1],
            self.acceleration(power, torque, x[1]),
            (field - x[2] - (self.xd - self.x1d) * d) / self.t1d0,
            ((self.xq - self.x1q) * q - x[3]) / self.t1q0,
        ]

    def start(self, V: Tensor, I: Tensor) -> Start:  # noqa: E741
        """See :class:`Machine`."""
        angle = (V + torch.complex(self.ra, self.xq) * I).angle()
        turn = torch.polar(torch.ones_like(angle), torch.pi / 2 - angle)
        v, i = V * turn, I * turn
        transient_q = v.imag + self.ra * i.imag + self.x1d * i.real
        transient_d = v.real + self.ra * i.real - self.x1q * i.imag
        power = (V * I.conj()).real + self.ra * I.abs().square()
        x = torch.stack([angle, torch.zeros_like(angle), transient_q, transient_d])
        return Start(x, transient_q + (self.xd - self.x1d) * i.real, power)


@final
@dataclass(frozen=True, kw_only=True)
class SubTransient(Rotor):
    """Round rotor with a field winding and three dampers, ``x''d = x''q`` (PSS/E's GENROU; six states).

    Equations after the open formulation of GENROU (OpenIPSL; PSS/E Program Application Guide, volume II), with
    quadratic saturation ``B (psi - A)^2 / psi`` of the air-gap flux above A on both axes, through s10 and s12.

    Attributes:
        h: Inertia constant, s.
        xd: Synchronous reactance, d axis.
        xq: Synchronous reactance, q axis.
        x1d: Transient reactance, d axis.
        x1q: Transient reactance, q axis.
        x2: Sub-transient reactance.
        xl: Leakage reactance.
        t1d0: Open-circuit transient time constant, d axis, s.
        t1q0: The same, q axis.
        t2d0: Open-circuit sub-transient time constant, d axis, s.
        t2q0: The same, q axis.
        ra: Armature resistance.
        d: Damping torque per unit of speed.
        s10: Saturation at a flux of 1.0.
        s12: Saturation at a flux of 1.2; zero for none.
    """

    h: Number
    xd: Number
    xq: Number
    x1d: Number
    x1q: Number
    x2: Number
    xl: Number
    t1d0: Number
    t1q0: Number
    t2d0: Number
    t2q0: Number
    ra: Number = 0.0
    d: Number = 0.0
    s10: Number = 0.0
    s12: Number = 0.0
    states: ClassVar[tuple[str, ...]] = ("angle", "speed", "E'q", "E'd", "psi 1d", "psi 2q")
    base_scaled: ClassVar[tuple[str, ...]] = ("xd", "xq", "x1d", "x1q", "x2", "xl", "ra")
    inertial: ClassVar[tuple[str, ...]] = ("h", "d")
    excited: ClassVar[bool] = True

    @property
    def impedance(self) -> tuple[Number, Number]:
        """See :class:`Machine`."""
        return self.ra, self.x2

    def source(self, x: Array, held: Array) -> tuple[Array, Array]:
        """See :class:`Machine`."""
        share_d, share_q = self._shares
        return x[5] + share_q * (x[3] - x[5]), x[4] + share_d * (x[2] - x[4])

    def flow(self, x: Array, source: Axes, current: Axes, field: Array, power: Array, omega: float) -> list[Array]:
        """See :class:`Machine`."""
        d, q = current
        _, speed, transient_q, transient_d, flux_d, flux_q = x
        (reach_d, reach_q), (onto_d, onto_q), (across_d, across_q) = self._reach, self._onto, self._across
        gap_d, gap_q = transient_q - flux_d - reach_d * d, transient_d - flux_q + reach_q * q
        field_current = transient_q + across_d * d + onto_d * gap_d
        damper_current = transient_d - across_q * q + onto_q * gap_q
        if self._saturates:
            more = self._saturation(library(d).hypot(source.d, source.q))
            field_current = field_current + more * source.q
            damper_current = damper_current + more * source.d * self._axis_share
        return [
            omega * speed,
            self.acceleration(power, source.d * d + source.q * q, speed),
            (field - field_current) / self.t1d0,
            -damper_current / self.t1q0,
            gap_d / self.t2d0,
            gap_q / self.t2q0,
        ]

    def start(self, V: Tensor, I: Tensor) -> Start:  # noqa: E741
        """See :class:`Machine`."""
        E = V + torch.complex(self.ra, self.x2) * I
        more = self._saturation(E.abs()) if self._saturates else torch.zeros_like(E.real)
        # On the q axis all of (1 + s) E''d stems from the current; this fixes the axis.
        angle = ((1 + more * self._axis_share) * E + 1j * (self.xq - self.x2) * I).angle()
        turn = torch.polar(torch.ones_like(angle), torch.pi / 2 - angle)
        e, i = E * turn, I * turn
        transient_q, transient_d = e.imag + (self.x1d - self.x2) * i.real, e.real - (self.x1q - self.x2) * i.imag
        flux_d, flux_q = transient_q - (self.x1d - self.xl) * i.real, transient_d + (self.x1q - self.xl) * i.imag
        field = transient_q + (self.xd - self.x1d) * i.real + more * e.imag
        power = e.real * i.real + e.imag * i.imag
        still = torch.zeros_like(angle)
        return Start(torch.stack([angle, still, transient_q, transient_d, flux_d, flux_q]), field, power)

    def check(self, where: str) -> None:
        """See :class:`Machine`."""
        super().check(where)
        if not self.xl < self.x2 < min(self.x1d, self.x1q) or not self.x1d < self.xd or not self.x1q <= self.xq:
            raise ValueError(f"{where}: reactances must obey xl < x2 < x1d < xd and x2 < x1q <= xq, got {self}")

    @cached_property
    def _saturates(self) -> bool:
        return bool((self.s12 > 0).any())

    @cached_property
    def _axis_share(self) -> Number:
        return (self.xq - self.xl) / (self.xd - self.xl)

    @cached_property
    def _shares(self) -> tuple[Number, Number]:
        """Shares of the transient voltages in the sub-transient ones."""
        return (self.x2 - self.xl) / (self.x1d - self.xl), (self.x2 - self.xl) / (self.x1q - self.xl)

    @cached_property
    def _reach(self) -> tuple[Number, Number]:
        return self.x1d - self.xl, self.x1q - self.xl

    @cached_property
    def _onto(self) -> tuple[Number, Number]:
        """``(xd - x') (x' - x'') / (x' - xl)^2``: what a damper winding adds to the current of the outer one."""
        reach_d, reach_q = self._reach
        return (
            (self.xd - self.x1d) * (self.x1d - self.x2) / reach_d**2,
            (self.xq - self.x1q) * (self.x1q - self.x2) / reach_q**2,
        )

    @cached_property
    def _across(self) -> tuple[Number, Number]:
        return self.xd - self.x1d, self.xq - self.x1q

    def _saturation(self, flux: Array) -> Array:
        lib = library(flux)
        a, b = quadratic_saturation(1.0, self.s10, 1.2, self.s12)
        above = lib.clip(flux - a, 0.0, None) if lib is np else torch.relu(flux - a)
        return b * above**2 / flux


@final
@dataclass(frozen=True, kw_only=True)
class GridForming(Machine):
    """Inverter that holds a voltage by droops: ``s = mp (P0 - P)``, ``E = E0 - mq (Q - Q0)``, both powers filtered.

    Chandorkar, Divan, Adapa, IEEE Trans. Ind. Appl. 29 (1993) 136. The powers are those of the internal source.

    Attributes:
        x: Reactance of filter and transformer.
        mp: Frequency droop, pu of speed per pu of power.
        mq: Voltage droop.
        tp: Time constant of the power filters, s.
        r: Resistance of the filter.
    """

    x: Number
    mp: Number
    mq: Number
    tp: Number
    r: Number = 0.0
    states: ClassVar[tuple[str, ...]] = ("angle", "power", "reactive power")
    base_scaled: ClassVar[tuple[str, ...]] = ("x", "r", "mp", "mq")

    @property
    def impedance(self) -> tuple[Number, Number]:
        """See :class:`Machine`."""
        return self.r, self.x

    def source(self, x: Array, held: Array) -> tuple[Array, Array]:
        """See :class:`Machine`; ``held`` is ``E0 + mq Q0``."""
        return 0.0 * held, held - self.mq * x[2]

    def speed(self, x: Array, power: Array) -> Array:
        """See :class:`Machine`."""
        return self.mp * (power - x[1])

    def flow(self, x: Array, source: Axes, current: Axes, field: Array, power: Array, omega: float) -> list[Array]:
        """See :class:`Machine`."""
        active, reactive = source.q * current.q, source.q * current.d
        return [omega * self.speed(x, power), (active - x[1]) / self.tp, (reactive - x[2]) / self.tp]

    def start(self, V: Tensor, I: Tensor) -> Start:  # noqa: E741
        """See :class:`Machine`."""
        E = V + torch.complex(self.r, self.x) * I
        S = E * I.conj()
        return Start(torch.stack([E.angle(), S.real, S.imag]), E.abs() + self.mq * S.imag, S.real)
