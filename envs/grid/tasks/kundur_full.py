"""Kundur's two areas with machines of full order, the parameters that ANDES ships as ``kundur_full``, and the book's.

Units are on 900 MVA. The full case has half the inertia of the classical variant in
:mod:`~steersman.envs.grid.tasks.kundur`; both are published that way.
"""

from __future__ import annotations

import numpy as np

from steersman.envs.grid.machines.group import Unit
from steersman.envs.grid.machines.models import Classical, SubTransient
from steersman.envs.grid.machines.regulators import DCExciter, Stabiliser, StaticExciter, SteamGovernor
from steersman.envs.grid.network.case import Buses, Case
from steersman.envs.grid.system import GridSystem, LoadModel
from steersman.envs.grid.tasks import kundur

INERTIA = (6.5, 6.5, 6.175, 6.175)
"""H of the machines of full order, s."""
SLACK_ANGLE = float(np.deg2rad(32.6732))


def case() -> Case:
    """The 10-bus network; generators 0..3 are at buses 1..4."""
    return kundur.case(SLACK_ANGLE)


def classical() -> GridSystem:
    """Classical machines."""
    scale = kundur.RATING / 100
    x1d = kundur.TRANSIENT_REACTANCE * scale
    return GridSystem(case(), [Unit(i, Classical(h=h / scale, x1d=x1d)) for i, h in enumerate(kundur.INERTIA)])


def full(*, loads: LoadModel | None = None) -> GridSystem:
    """Machines of full order with DC exciters and steam governors; loads are impedances unless a model is given."""
    return GridSystem(case(), [unit(i) for i in range(4)], loads=loads)


def unit(i: int) -> Unit:
    """Unit i of the full case."""
    exciter = DCExciter(tr=0.02, ka=20, ta=0.02, ke=1, te=0.83, kf=0.0754, tf=1.246, vmin=-4.16, vmax=5.2)
    governor = SteamGovernor(r=0.05, t1=0.49, t2=2.1, t3=7.0, vmin=0.4, vmax=33.0)
    return Unit(i, machine(INERTIA[i], ra=0.0, xl=0.06), exciter, governor)


def machine(h: float, *, ra: float, xl: float, s10: float = 0.0, s12: float = 0.0) -> SubTransient:
    """The round rotor of all four machines (Kundur, example 12.6)."""
    return SubTransient(
        h=h, xd=1.8, xq=1.7, x1d=0.3, x1q=0.55, x2=0.25, xl=xl, ra=ra, s10=s10, s12=s12,
        t1d0=8.0, t1q0=0.4, t2d0=0.03, t2q0=0.05,
    )  # fmt: skip


BOOK_LOADS = LoadModel(current=(1.0, 0.0))
"""Active power as constant current, reactive power as constant impedance."""


def book(exciter: StaticExciter | None = None, stabiliser: Stabiliser | None = None) -> GridSystem:
    """Kundur's example 12.6: 11 buses, saturation, no governors; manual excitation unless an exciter is given."""
    lengths = ((5, 6, 25), (6, 7, 10), (7, 8, 110), (7, 8, 110), (8, 9, 110), (8, 9, 110), (9, 10, 10), (10, 11, 25))
    lines = [(a, b, 0.0001 * km, 0.001 * km, 0.00175 * km) for a, b, km in lengths]
    step_up = [(a, b, 0.0, 0.15 * 100 / kundur.RATING, 0.0) for a, b in ((1, 5), (2, 6), (3, 11), (4, 10))]
    load, shunt, angle = np.zeros(11, dtype=complex), np.zeros(11, dtype=complex), np.zeros(11)
    load[[6, 8]], shunt[[6, 8]] = (9.67 + 1j, 17.67 + 1j), (2j, 3.5j)
    angle[2] = np.deg2rad(-6.8)
    kind = np.array([2, 2, 3, 2, *(1,) * 7])
    buses = Buses(np.arange(1, 12), kind, load, shunt, np.ones(11), angle, np.array([20.0] * 4 + [230.0] * 7))
    gens = kundur.generators(np.array([7.0, 7.0, 7.19, 7.0]), np.array([1.03, 1.01, 1.03, 1.01]))
    grid = Case("Kundur, example 12.6", 100.0, buses, kundur.branches((*lines, *step_up)), gens)
    machines = [machine(h, ra=0.0025, xl=0.2, s10=0.0392, s12=0.223) for h in INERTIA]
    return GridSystem(grid, [Unit(i, m, exciter, None, stabiliser) for i, m in enumerate(machines)], loads=BOOK_LOADS)
