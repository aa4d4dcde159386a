"""Whole episodes under a policy, for controllers that tune or train themselves on a simulator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from steersman.envs.episodes import Act, episodes
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import PlantSimulator, Simulator


@dataclass(frozen=True)
class Episode:
    """Total cost of each row and the plant control steps that all rows together used."""

    cost: Float[Tensor, "n"]
    plant_steps: int


def run_episodes(simulator: Simulator, scenarios: Scenarios, policy: Act, preview: int = 0) -> Episode:
    """Run every row of ``scenarios`` to its end under ``policy``.

    Raises:
        ValueError: If there is not one scenario per row of the simulator.
    """
    cost, used = torch.zeros(simulator.n, dtype=simulator.dtype, device=simulator.device), 0
    for step in episodes(simulator, scenarios, policy, ahead=preview):
        cost = cost + step.result.cost
        used += int(step.running.sum())
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
