"""The DC model of a grid: active power linear in the voltage angles, without losses.

Conventions of the published DC optima of PGLib (v23.07), found by trying them all: the flow of a branch is
``b (angle[start] - angle[end])`` with the susceptance ``b = x / (r^2 + x^2)`` of its series impedance; ratios and phase
shifts of transformers count for nothing; shunt conductances draw their power at 1 pu. With ``b = 1 / x``, or with
ratios, the optima of PGLib's 30-, 39- and 118-bus cases come out otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from steersman.envs.grid.case import Case


@dataclass(frozen=True, eq=False)
class DCGrid:
    """What the DC model needs of a case, in pu.

    Attributes:
        susceptance: Flow of each branch per rad.
        low: Least flow of each branch in service: minus its rating, or what its limit on angles allows.
        high: Largest flow.
        demand: Active power that loads and shunts draw at each bus.
    """

    susceptance: Float[np.ndarray, "l"]
    low: Float[np.ndarray, "l"]
    high: Float[np.ndarray, "l"]
    demand: Float[np.ndarray, "b"]


def dc_grid(case: Case) -> DCGrid:
    """The DC model of a case.

    Where neither rating nor angle limits a branch, the total supply does: where all reactances are positive, power runs
    downhill in the angle, so no branch carries more than everything that is fed in.

    Raises:
        ValueError: If a branch has no limit at all and a reactance is negative.
    """
    lines = case.branches
    b = lines.x / (lines.r**2 + lines.x**2)
    by_angle = np.sort(np.stack([b * lines.angle_min, b * lines.angle_max]), axis=0)
    low, high = np.maximum(-lines.rate, by_angle[0]), np.minimum(lines.rate, by_angle[1])
    demand = case.buses.load.real + case.buses.shunt.real
    free = np.flatnonzero(np.isinf(low) | np.isinf(high))
    if len(free):
        if (b < 0).any():
            raise ValueError(
                f"branch {case.label(int(free[0]))} has no limit, and {case.label(int(np.argmin(b)))} a negative "
                "reactance, so flows have no bound; give every branch a rating"
            )
        supply = np.maximum(case.generators.p_max, 0).sum() + np.maximum(-demand, 0).sum()
        low, high = np.maximum(low, -supply), np.minimum(high, supply)
    return DCGrid(b, low, high, demand)
