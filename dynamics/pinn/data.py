"""Trajectories of the post-fault swing over times and disturbances: what networks learn from and are tested on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steersman.envs.grid.tasks.structure_preserving import FINE, LARGEST, SWING, Stage, rate, start, swing_trajectories

PUBLISHED = ((5, 5), (5, 9), (5, 21), (9, 9), (13, 9), (25, 41))
"""Training grids of arXiv 2106.13638: disturbances x times."""
COLLOCATION = (25, 41)
TEST = (61, 201)
_LAYER = (*range(10), *range(10, 40, 4))
"""Steps of FINE that resolve how the loads' angles fall back within milliseconds of clearing."""


@dataclass(frozen=True)
class SwingGrid:
    """States on every pair of a disturbance and a time.

    Attributes:
        t: Times after clearing, s.
        dP: Disturbances, pu.
        x: States, in rad and rad/s.
        rate: Their time derivatives, from the equations.
    """

    t: Float[Tensor, "t"]
    dP: Float[Tensor, "n"]  # noqa: N815 - the disturbance's name in the field
    x: Float[Tensor, "n t 10"]
    rate: Float[Tensor, "n t 10"]


def simulate(dP: Float[Tensor, "n"], steps: list[int]) -> SwingGrid:
    """Integrate at the disturbances and keep the times ``steps * FINE``."""
    x = swing_trajectories(dP)[:, steps]
    t = torch.tensor(steps, dtype=dP.dtype) * FINE
    return SwingGrid(t, dP, x, rate(x, dP[:, None].expand(x.shape[:2]), Stage.TRIPPED))


def uniform(disturbances: int, times: int) -> SwingGrid:
    """Equally spaced disturbances and times, both ends included.

    Raises:
        ValueError: If a number is below 2, or the times do not fall on the integrator's steps.
    """
    whole = round(SWING / FINE)
    if disturbances < 2 or times < 2 or whole % (times - 1):
        raise ValueError(f"a grid needs 2 disturbances and times - 1 must divide {whole}, got {disturbances} x {times}")
    steps = list(range(0, whole + 1, whole // (times - 1)))
    return simulate(torch.linspace(0, LARGEST, disturbances, dtype=torch.float64), steps)


def dense(disturbances: int = 121, every: int = 10) -> SwingGrid:
    """Chebyshev-Lobatto disturbances, and times that resolve the first milliseconds, then each ``every`` steps.

    Apart from the ends and the middle, no disturbance of it is one of :data:`TEST`.
    """
    nodes = LARGEST / 2 * (1 - np.cos(np.pi * np.arange(disturbances) / (disturbances - 1)))
    return simulate(torch.tensor(nodes).clamp(0, LARGEST), [*_LAYER, *range(40, round(SWING / FINE) + 1, every)])


def collocation(disturbances: int, times: int) -> tuple[Float[Tensor, "t"], Float[Tensor, "n"], Float[Tensor, "n 10"]]:
    """Times, disturbances and starts at which only the equations are asked; nothing is integrated after clearing.

    The equally spaced times are joined by those that resolve the first milliseconds.
    """
    t = torch.linspace(0, SWING, times, dtype=torch.float64)
    early = torch.tensor(_LAYER[1:], dtype=torch.float64) * FINE
    dP = torch.linspace(0, LARGEST, disturbances, dtype=torch.float64)
    return torch.cat([t, early]).sort().values, dP, start(dP)
