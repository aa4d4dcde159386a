"""The New England system (IEEE 39 buses, 10 machines): network, operating point, machines, and a plant on it.

Network and operating point: G. W. Bills et al., On-Line Stability Analysis Study (Edison Electric Institute RP90-1,
1970), as solved in MATPOWER's ``case39``. Machines: T. Athay, R. Podmore, S. Virmani, IEEE Trans. PAS 98 (1979) 573,
in the numbering of M. A. Pai, Energy Function Analysis for Power System Stability (1989); all per unit on 100 MVA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from steersman.envs.grid.machines.group import Unit
from steersman.envs.grid.machines.models import Classical, TwoAxis
from steersman.envs.grid.machines.regulators import StaticExciter, SteamGovernor
from steersman.envs.grid.network.case import PQ, PV, SLACK, Branches, Buses, Case, Generators
from steersman.envs.grid.system import GridSystem
from steersman.envs.grid.tasks.line_faults import LineFaults

BRANCHES = (
    (1, 2, 0.0035, 0.0411, 0.6987, 1), (1, 39, 0.001, 0.025, 0.75, 1), (2, 3, 0.0013, 0.0151, 0.2572, 1),
    (2, 25, 0.007, 0.0086, 0.146, 1), (2, 30, 0, 0.0181, 0, 1.025), (3, 4, 0.0013, 0.0213, 0.2214, 1),
    (3, 18, 0.0011, 0.0133, 0.2138, 1), (4, 5, 0.0008, 0.0128, 0.1342, 1), (4, 14, 0.0008, 0.0129, 0.1382, 1),
    (5, 6, 0.0002, 0.0026, 0.0434, 1), (5, 8, 0.0008, 0.0112, 0.1476, 1), (6, 7, 0.0006, 0.0092, 0.113, 1),
    (6, 11, 0.0007, 0.0082, 0.1389, 1), (6, 31, 0, 0.025, 0, 1.07), (7, 8, 0.0004, 0.0046, 0.078, 1),
    (8, 9, 0.0023, 0.0363, 0.3804, 1), (9, 39, 0.001, 0.025, 1.2, 1), (10, 11, 0.0004, 0.0043, 0.0729, 1),
    (10, 13, 0.0004, 0.0043, 0.0729, 1), (10, 32, 0, 0.02, 0, 1.07), (12, 11, 0.0016, 0.0435, 0, 1.006),
    (12, 13, 0.0016, 0.0435, 0, 1.006), (13, 14, 0.0009, 0.0101, 0.1723, 1), (14, 15, 0.0018, 0.0217, 0.366, 1),
    (15, 16, 0.0009, 0.0094, 0.171, 1), (16, 17, 0.0007, 0.0089, 0.1342, 1), (16, 19, 0.0016, 0.0195, 0.304, 1),
    (16, 21, 0.0008, 0.0135, 0.2548, 1), (16, 24, 0.0003, 0.0059, 0.068, 1), (17, 18, 0.0007, 0.0082, 0.1319, 1),
    (17, 27, 0.0013, 0.0173, 0.3216, 1), (19, 20, 0.0007, 0.0138, 0, 1.06), (19, 33, 0.0007, 0.0142, 0, 1.07),
    (20, 34, 0.0009, 0.018, 0, 1.009), (21, 22, 0.0008, 0.014, 0.2565, 1), (22, 23, 0.0006, 0.0096, 0.1846, 1),
    (22, 35, 0, 0.0143, 0, 1.025), (23, 24, 0.0022, 0.035, 0.361, 1), (23, 36, 0.0005, 0.0272, 0, 1),
    (25, 26, 0.0032, 0.0323, 0.531, 1), (25, 37, 0.0006, 0.0232, 0, 1.025), (26, 27, 0.0014, 0.0147, 0.2396, 1),
    (26, 28, 0.0043, 0.0474, 0.7802, 1), (26, 29, 0.0057, 0.0625, 1.029, 1), (28, 29, 0.0014, 0.0151, 0.249, 1),
    (29, 38, 0.0008, 0.0156, 0, 1.025)
)  # fmt: skip
"""From bus, to bus, resistance, reactance, charging, ratio."""
LOADS: dict[int, complex] = {
    1: 0.976 + 0.442j, 3: 3.22 + 0.024j, 4: 5 + 1.84j, 7: 2.338 + 0.84j, 8: 5.22 + 1.766j, 9: 0.065 - 0.666j,
    12: 0.0853 + 0.88j, 15: 3.2 + 1.53j, 16: 3.29 + 0.323j, 18: 1.58 + 0.3j, 20: 6.8 + 1.03j, 21: 2.74 + 1.15j,
    23: 2.475 + 0.846j, 24: 3.086 - 0.922j, 25: 2.24 + 0.472j, 26: 1.39 + 0.17j, 27: 2.81 + 0.755j, 28: 2.06 + 0.276j,
    29: 2.835 + 0.269j, 31: 0.092 + 0.046j, 39: 11.04 + 2.5j,
}  # fmt: skip
"""Complex power drawn."""
GENERATORS: dict[int, tuple[float, float]] = {
    30: (2.5, 1.0499), 31: (6.77871, 0.982), 32: (6.5, 0.9841), 33: (6.32, 0.9972), 34: (5.08, 1.0123),
    35: (6.5, 1.0494), 36: (5.6, 1.0636), 37: (5.4, 1.0275), 38: (8.3, 1.0265), 39: (10.0, 1.03),
}  # fmt: skip
"""Active power and voltage; bus 31 is the slack."""
MACHINES: dict[int, tuple[float, float, float, float, float, float]] = {
    30: (42.0, 0.1, 0.069, 0.031, 10.2, 1.5), 31: (30.3, 0.295, 0.282, 0.0697, 6.56, 1.5),
    32: (35.8, 0.2495, 0.237, 0.0531, 5.7, 1.5), 33: (28.6, 0.262, 0.258, 0.0436, 5.69, 1.5),
    34: (26.0, 0.67, 0.62, 0.132, 5.4, 0.44), 35: (34.8, 0.254, 0.241, 0.05, 7.3, 0.4),
    36: (26.4, 0.295, 0.292, 0.049, 5.66, 1.5), 37: (24.3, 0.29, 0.28, 0.057, 6.7, 0.41),
    38: (34.5, 0.2106, 0.205, 0.057, 4.79, 1.96), 39: (500.0, 0.02, 0.019, 0.006, 7.0, 0.7),
}  # fmt: skip
"""H in s, xd, xq, x'd, T'd0 and T'q0 in s. x'q is taken equal to x'd; T'q0 of bus 30, which has none, as elsewhere."""
PLACES: dict[int, tuple[float, float]] = {
    1: (0.43, 0.49), 2: (0.39, 0.26), 3: (0.16, 0.2), 4: (-0.07, 0.28), 5: (-0.13, 0.51), 6: (-0.33, 0.65),
    7: (-0.21, 0.84), 8: (-0.02, 0.72), 9: (0.19, 0.81), 10: (-0.65, 0.34), 11: (-0.55, 0.56), 12: (-0.53, 0.37),
    13: (-0.48, 0.18), 14: (-0.25, 0.1), 15: (-0.22, -0.14), 16: (-0.11, -0.35), 17: (0.12, -0.25), 18: (0.13, -0.03),
    19: (-0.34, -0.44), 20: (-0.5, -0.61), 21: (-0.14, -0.56), 22: (-0.13, -0.79), 23: (0.06, -0.77), 24: (0.02, -0.54),
    25: (0.56, 0.09), 26: (0.57, -0.15), 27: (0.36, -0.27), 28: (0.69, -0.33), 29: (0.79, -0.21), 30: (0.58, 0.37),
    31: (-0.45, 0.84), 32: (-0.87, 0.37), 33: (-0.55, -0.42), 34: (-0.68, -0.74), 35: (-0.2, -1.0), 36: (0.16, -0.97),
    37: (0.78, 0.17), 38: (0.99, -0.3), 39: (0.39, 0.71),
}  # fmt: skip
"""Where each bus is drawn."""


def case() -> Case:
    """Network and operating point."""
    n, first = 39, 30
    load, kind = np.zeros(n, dtype=complex), np.full(n, PQ)
    load[[bus - 1 for bus in LOADS]] = list(LOADS.values())
    kind[first - 1 :], kind[30] = PV, SLACK
    buses = Buses(np.arange(1, n + 1), kind, load, np.zeros_like(load), np.ones(n), np.zeros(n), np.full(n, 345.0))
    start, end, r, x, b, tap = (np.array(column) for column in zip(*BRANCHES, strict=True))
    free = np.full(len(start), np.inf)
    ones = ("1",) * len(start)
    lines = Branches(start - 1, end - 1, r, x, b, tap * 1.0, 0 * r, free, -free, free, ones)
    power, volts = (np.array(column) for column in zip(*GENERATORS.values(), strict=True))
    zero, wide, none = 0 * power, np.full(10, 20.0), np.full((10, 3), np.nan)
    place, base = np.arange(first - 1, n), np.full(10, 100.0)
    gens = Generators(place, power, zero, volts, zero, wide, -wide, wide, none, base, zero + 0j, ("1",) * 10)
    return Case("IEEE 39", 100.0, buses, lines, gens)


def classical() -> GridSystem:
    """Classical machines."""
    return GridSystem(case(), [Unit(i, Classical(h=m[0], x1d=m[3])) for i, m in enumerate(MACHINES.values())])


def regulated() -> GridSystem:
    """Two-axis machines with static exciters of gain 5 and steam governors of 5 % droop.

    Both are our choice: the inter-area mode (0.63 Hz) and the local modes have damping ratios of 3 to 6 %, and at a
    gain of 20 two of them are unstable without stabilisers.
    """
    return GridSystem(case(), [_unit(i, *machine) for i, machine in enumerate(MACHINES.values())])


def _unit(i: int, h: float, xd: float, xq: float, x1d: float, t1d0: float, t1q0: float) -> Unit:
    rating = 10.0 if h < 100 else 100.0
    machine = TwoAxis(h=h, xd=xd, xq=xq, x1d=x1d, x1q=x1d, t1d0=t1d0, t1q0=t1q0)
    governor = SteamGovernor(r=0.05 / rating, t1=0.5, t2=2.1, t3=7.0, vmax=1.2 * rating)
    return Unit(i, machine, StaticExciter(ka=5.0, ta=0.05, tr=0.02, emin=-5.0, emax=5.0), governor)


class IEEE39(LineFaults):
    """Ride through faults on lines of the New England system by the reference voltages of all ten machines.

    Scenarios, actions and cost as in :class:`~steersman.envs.grid.tasks.line_faults.LineFaults`.

    Args:
        dt: Integrator step in s; must divide 0.1 s.
        version: See :mod:`~steersman.envs.grid.tasks.swing`.

    Raises:
        ValueError: If ``dt`` does not divide 0.1 s, or there is no such version.
    """

    places = PLACES

    def __init__(self, dt: float = 0.01, version: int = 1) -> None:
        """Set up the plant."""
        self._faults_on(regulated(), dt, version)


def tiled(copies: int) -> GridSystem:
    """Copies of the system, bus 1 of each tied to bus 1 of the first: a classical grid of any size.

    Raises:
        ValueError: If there is no copy.
    """
    if copies < 1:
        raise ValueError(f"copies must be at least 1, got {copies}")
    one = case()
    n, times = len(one.buses), np.arange(copies)

    def moved(index: np.ndarray) -> np.ndarray:
        whole: np.ndarray = (index[None] + n * times[:, None]).ravel()
        return whole

    def many(part: Buses | Branches | Generators) -> dict[str, Any]:
        values = {f.name: getattr(part, f.name) for f in fields(part)}
        return {name: _joined([value] * copies) for name, value in values.items()}

    buses = {**many(one.buses), "id": moved(one.buses.id)}
    buses["kind"] = np.where((buses["kind"] == SLACK) & (np.arange(copies * n) >= n), PV, buses["kind"])
    lines = {**many(one.branches), "start": moved(one.branches.start), "end": moved(one.branches.end)}
    gens = {**many(one.generators), "bus": moved(one.generators.bus)}
    ties = {name: value[: copies - 1] for name, value in lines.items()}
    ties |= {"start": 0 * times[1:], "end": n * times[1:], "x": np.full(copies - 1, 0.05)}
    ties |= {name: np.zeros(copies - 1) for name in ("r", "b")}
    joined = {name: _joined([lines[name], ties[name]]) for name in lines}
    whole = Case(f"IEEE 39 x {copies}", 100.0, Buses(**buses), Branches(**joined), Generators(**gens))
    units = list(MACHINES.values()) * copies
    return GridSystem(whole, [Unit(i, Classical(h=m[0], x1d=m[3])) for i, m in enumerate(units)])


def _joined(parts: Sequence[Any]) -> Any:
    """Arrays or tuples, one after the other."""
    return sum(parts, ()) if isinstance(parts[0], tuple) else np.concatenate(parts)
