"""How well an objective that a user states speaks for the reward that is charged."""

from __future__ import annotations

import torch
from torch import Tensor

from steersman.envs import noise
from steersman.envs.episodes import episodes
from steersman.envs.failure import BANK
from steersman.envs.simulator import Measurement, Simulator

EPISODES = 8
"""Episodes of random actions that are looked at."""
_STREAM = 0xA62EE


def agreement(simulator: Simulator, bank: int = BANK) -> float | None:
    """Correlation between the stated stage cost and what is charged, over steps of random episodes of the bank.

    The stated cost is that of the outputs after the step, as plans count it. A planner pursues the reward as far as
    this number is near 1; below 0 it works against it.

    Args:
        simulator: A simulator that charges something else than its objective; all of its rows are used.
        bank: Seed of the scenarios.

    Returns:
        Pearson's correlation in -1..1; None where one of the two never changes.
    """
    n, objective = simulator.n, simulator.problem.objective
    key = noise.keys(bank, n, device=simulator.device)
    stated, charged = [], []

    def act(m: Measurement) -> Tensor:
        unit = noise.uniform(noise.fold(noise.fold(key, _STREAM), m.k), simulator.actions.m, dtype=simulator.dtype)
        return simulator.actions.sample(unit)

    for step in episodes(simulator, simulator.scenarios(key), act):
        counts, u = step.happened, step.u
        cost = objective.stage_cost(step.z, u, u - step.m.u_prev, step.after.r[:, 0])
        stated.append(cost[counts])
        charged.append(step.result.terms.get("cost", step.result.cost)[counts])  # without the price of failures
    pairs = torch.stack([torch.cat(stated), torch.cat(charged)]).double()
    if pairs.shape[1] < 2 or bool((pairs.std(dim=1) <= 1e-12 * (1 + pairs.abs().amax(dim=1))).any()):
        return None
    return float(torch.corrcoef(pairs)[0, 1])


def in_words(found: float | None) -> str:
    """A sentence for a report."""
    if found is None:
        return (
            "The stated objective cannot be compared with the reward: one of them never changed under random actions."
        )
    verdict = "; planners work against the reward" if found < 0 else "; planners hardly see it" if found < 0.3 else ""
    return (
        "Planners minimise the stated objective; what is charged is minus the reward. Over random actions the two "
        f"correlate by {found:.2f}{verdict}."
    )
