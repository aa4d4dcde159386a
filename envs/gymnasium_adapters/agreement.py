"""How well an objective that a user states speaks for the reward that is charged."""

from __future__ import annotations

import torch

from steersman.envs import noise
from steersman.envs.failure import BANK
from steersman.envs.plant import Status
from steersman.envs.simulator import Simulator

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
    simulator.reset(simulator.scenarios(key))
    stated, charged = [], []
    alive = torch.ones(n, dtype=torch.bool, device=simulator.device)
    for k in range(simulator.problem.horizon):
        m = simulator.measure()
        unit = noise.uniform(noise.fold(noise.fold(key, _STREAM), k), simulator.actions.m, dtype=simulator.dtype)
        u = simulator.actions.sample(unit)
        t = simulator.step(u)
        counts = alive & (t.status != int(Status.DIVERGED))
        cost = objective.stage_cost(simulator.perform(), u, u - m.u_prev, simulator.measure().r[:, 0])
        stated.append(cost[counts])
        charged.append(t.terms.get("cost", t.cost)[counts])  # without the price of failures
        alive = alive & ~t.ended
        if not bool(alive.any()):
            break
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
