"""Whole episodes under a policy, for controllers that tune or train themselves on a simulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import Measurement, PlantSimulator, Simulator

Policy = Callable[[Measurement], Tensor]
"""Actions ``[n, m]`` for a measurement of ``n`` rows."""


@dataclass(frozen=True)
class Episode:
    """Total cost of each row and the plant control steps that all rows together used."""

    cost: Float[Tensor, "n"]
    plant_steps: int


def run_episodes(simulator: Simulator, scenarios: Scenarios, policy: Policy, preview: int = 0) -> Episode:
    """Run every row of ``scenarios`` to its end under ``policy``.

    Raises:
        ValueError: If there is not one scenario per row of the simulator.
    """
    simulator.reset(scenarios)
    alive = torch.ones(simulator.n, dtype=torch.bool, device=simulator.device)
    cost = torch.zeros(simulator.n, dtype=simulator.dtype, device=simulator.device)
    used = 0
    while bool(alive.any()):
        t = simulator.step(policy(simulator.measure(preview)))
        cost = cost + t.cost
        used += int(alive.sum())
        alive = alive & ~t.ended
    return Episode(cost, used)


def keep_rows(simulator: Simulator, rows: Int64[Tensor, "m"]) -> PlantSimulator | None:
    """A simulator that goes on with the chosen rows only; the given one stays as it is.

    Returns:
        None for simulators that are not batches of one plant: those step their running rows one by one anyway.
    """
    if not isinstance(simulator, PlantSimulator):
        return None
    price = simulator.problem.objective.failure or None
    smaller = PlantSimulator(simulator.plant, len(rows), device=simulator.device, price=price)
    smaller.restore(simulator.snapshot().rows(rows))
    return smaller
