"""What the tasks on swinging machines share: when their event comes, what swings cost, and angles that must not part.

Tasks have two versions. In version 1, the published one, an event comes in the first second of every episode: whoever
has seen a few episodes acts before it. In version 2 its time is uniform over the whole episode and a share
:data:`NEVER` of the episodes has none, so that no step of an episode is known to be safe or to be dangerous; an event
near the end costs little, and leaving it out would tell from which step on nothing can happen any more. Version 2 also
states the loss of synchronism in performance outputs, so that planners on any model see it.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.envs.objective import Limit, Quadratic

NEVER = 0.3
"""Share of the episodes of version 2 without an event."""
PAIRWISE = 4
"""Up to so many machines all pairs of angles are outputs, which are linear in the state; beyond, their spread is."""


def check_version(version: int) -> None:
    """Raise ValueError if there is no such version."""
    if version not in (1, 2):
        raise ValueError(f"version must be 1 (published, foreseeable event) or 2 (at any time or never), got {version}")


def begin(version: int, unit: Float[Tensor, "n"], earliest: float, width: float, seconds: float) -> Float[Tensor, "n"]:
    """Times in s at which the events of scenarios begin; infinite for never.

    Args:
        version: See the module.
        unit: Uniform numbers in (0, 1).
        earliest: First possible time in version 1, s.
        width: Length of the possible times in version 1, s.
        seconds: Length of the episode.
    """
    if version == 1:
        return earliest + width * unit
    time = unit * (seconds / (1 - NEVER))
    return time.where(time < seconds, math.inf)


def swing_cost(units: int, others: int = 0, weight: float = 5.0) -> tuple[Quadratic, Quadratic]:
    """Squares of the machines' deviations from the centre of inertia, and of the centre's from nominal, in Hz.

    Args:
        units: Machines, whose deviations are the first performance outputs; the centre's follows.
        others: Performance outputs after these, free of charge.
        weight: Weight of the machines' deviations; that of the centre's is 1.
    """
    free = (0.0,) * others
    return (
        Quadratic(name="swing", on="z", weights=(*(weight,) * units, 0.0, *free)),
        Quadratic(name="frequency", on="z", weights=(*(0.0,) * units, 1.0, *free)),
    )


def separation_names(machines: list[str]) -> tuple[str, ...]:
    """Names of :func:`separations`."""
    if len(machines) > PAIRWISE:
        return ("spread of angles",)
    return tuple(f"angle {b}-{a}" for i, a in enumerate(machines) for b in machines[i + 1 :])


def separations(angle: Float[Tensor, "n m"]) -> Float[Tensor, "n s"]:
    """Differences of angles in rad, one of which exceeds pi where the angles spread over more than pi."""
    if angle.shape[1] > PAIRWISE:
        return angle.amax(dim=1, keepdim=True) - angle.amin(dim=1, keepdim=True)
    first, second = torch.triu_indices(angle.shape[1], angle.shape[1], offset=1, device=angle.device)
    return angle[:, second] - angle[:, first]


def synchronism(performed: tuple[str, ...], names: tuple[str, ...]) -> tuple[Limit, ...]:
    """Limits of +-pi on the performance outputs of these names."""
    return tuple(Limit(name=name, index=performed.index(name), low=-math.pi, high=math.pi) for name in names)
