"""A plant linearised at an operating point that is named rather than computed, as comparison files ask for it."""

from __future__ import annotations

from typing import Literal

from steersman.dynamics.linear.models import LinearDynamics
from steersman.envs import noise
from steersman.envs.plant import Plant
from steersman.envs.tree import tree_map


def linearized(plant: Plant, at: Literal["start", "zero"] = "start", seed: int = 0) -> LinearDynamics:
    """First-order model around the neutral action and a state, with no event in the step that is expanded.

    Args:
        plant: The plant; its state must be floating-point numbers.
        at: ``start`` is the state in which a scenario begins, ``zero`` the state of all zeros.
        seed: Selects the scenario whose parameters (and start) are taken.

    Raises:
        ValueError: If the state has leaves that are not floating-point numbers.
    """
    key = noise.keys(seed, 1)
    p = plant.known(key * 0, plant.params(key))
    x = plant.initial(key, p)
    if at == "zero":
        x = tree_map(lambda leaf: leaf * 0, x)
    like = plant.measure(key * 0, x, p)
    return LinearDynamics.from_plant(plant, x, plant.actions.neutral(1, like), p)
