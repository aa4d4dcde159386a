"""The DC model of a grid: active power linear in the voltage angles, without losses.

Conventions of the published DC optima of PGLib (v23.07), found by trying them all: the flow of a branch is
``b (angle[start] - angle[end] - shift)`` with the susceptance ``b = x / (r^2 + x^2)`` of its series impedance; ratios
of transformers count for nothing; shunt conductances draw their power at 1 pu. With ``b = 1 / x``, or with ratios, the
optima of PGLib's 30-, 39- and 118-bus cases come out otherwise. Phase shifts count as in the MATPOWER User's Manual,
section 3.7: they drive power around loops whatever is loaded. PGLib leaves them out of its DC optima, so those of cases
with phase shifters are met by :func:`unturned` cases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from steersman.envs.grid.network.case import Case, at


@dataclass(frozen=True, eq=False)
class DCGrid:
    """What the DC model needs of a case, in pu.

    Attributes:
        susceptance: Flow of each branch per rad.
        shift: Phase shift of each branch, rad: the angle across it at which it carries nothing.
        low: Least flow of each branch in service: minus its rating, or what its limit on angles allows.
        high: Largest flow.
        demand: Active power that loads and shunts draw at each bus.
    """

    susceptance: Float[np.ndarray, "l"]
    shift: Float[np.ndarray, "l"]
    low: Float[np.ndarray, "l"]
    high: Float[np.ndarray, "l"]
    demand: Float[np.ndarray, "b"]


def dc_grid(case: Case) -> DCGrid:
    """The DC model of a case.

    Where neither rating nor angle limits a branch, the total supply does: where all reactances are positive, power runs
    downhill in the angle, so no branch carries more than everything that is fed in. A phase shifter acts as ``b shift``
    fed in at one end and drawn at the other (and lost on the branch itself), which counts as supply.

    Raises:
        ValueError: If a branch has no limit at all, and a reactance is negative or a generator has no limit either.
    """
    lines = case.branches
    b = lines.x / (lines.r**2 + lines.x**2)
    by_angle = np.sort(np.stack([b * (lines.angle_min - lines.shift), b * (lines.angle_max - lines.shift)]), axis=0)
    low, high = np.maximum(-lines.rate, by_angle[0]), np.minimum(lines.rate, by_angle[1])
    demand = case.buses.load.real + case.buses.shunt.real
    for i in map(int, np.flatnonzero(np.isinf(low) | np.isinf(high))[:1]):
        supply = np.maximum(case.generators.p_max, 0).sum() + np.maximum(-demand, 0).sum()
        reason = f"{case.label(int(np.argmin(b)))} a negative reactance" if (b < 0).any() else ""
        reason = reason or ("" if np.isfinite(supply) else "a generator no largest power")
        if reason:
            raise ValueError(
                f"{at(lines, i)}branch {case.label(i)} has no limit, and {reason}, so flows have no bound; "
                "give every branch a rating"
            )
        driven = np.abs(b * lines.shift)
        most = supply + driven.sum() + driven
        low, high = np.maximum(low, -most), np.minimum(high, most)
    return DCGrid(b, lines.shift, low, high, demand)


def unturned(case: Case) -> Case:
    """The case with all phase shifts zero, as PGLib's published DC optima have it."""
    return replace(case, branches=replace(case.branches, shift=np.zeros(len(case.branches))))
