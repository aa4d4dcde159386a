"""The price of a failure: what each control step that is left costs when an episode ends by failure.

One rule, for episodes, searches, environments and reports alike: a plant's own price
(:attr:`~steersman.envs.objective.Objective.failure`), or else the largest finite cost of a control step that constant
actions meet on the bank's scenarios. Without a price breaking would be free, and the controller that breaks the plant
first would win. The price does not depend on the row that fails (its own worst step would reward an early death) nor
on its batch (whose worst would tie rows together).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.plant import Status

if TYPE_CHECKING:
    from steersman.envs.simulator import Simulator

BANK = 2026
"""Seed of the bank whose scenarios set the price, unless a comparison names another."""
SCENARIOS = 32
"""The first so many scenarios of the bank set the price, however many a comparison runs."""


def failure_price(make: Callable[[int], Simulator], bank: int = BANK) -> float:
    """The price of each control step that remains when an episode fails; the same for every row and every use.

    Args:
        make: Makes a simulator with the given number of rows that charges nothing for failures.
        bank: Seed of the scenarios.

    Returns:
        The plant's own price where it states one. Otherwise the largest finite cost of a control step, terminal cost
        included, under constant actions: the neutral one, the lower and the upper bounds (1 beyond zero where there is
        none). It is never below 0, since ending would otherwise earn what living earns.

    Raises:
        ValueError: If no such step has a finite cost.
    """
    own = make(1).problem.objective.failure
    if own:
        return own
    simulator = make(3 * SCENARIOS)
    simulator.reset(simulator.scenarios(noise.keys(bank, SCENARIOS).repeat(3)))
    u = _constants(simulator.actions, simulator.perform().new_zeros(1)).repeat_interleave(SCENARIOS, dim=0)
    running, worst = torch.ones(simulator.n, dtype=torch.bool, device=u.device), -torch.inf
    try:
        while bool(running.any()):
            t = simulator.step(u)
            counts = running & (t.status != int(Status.DIVERGED))
            worst = max(worst, float(t.cost[counts].max()) if bool(counts.any()) else worst)
            running = running & ~t.ended
    finally:
        simulator.close()
    if worst == -torch.inf:
        raise ValueError(
            "a failure has no price: no control step has a finite cost under the neutral, lower or upper constant "
            "action; check the model's outputs and the objective's weights, or state Objective(failure=...)"
        )
    return max(worst, 0.0)


def _constants(actions: ActionSet, like: Tensor) -> Float[Tensor, "3 m"]:
    lower, upper = (torch.nan_to_num(b, neginf=-1.0, posinf=1.0) for b in actions.bounds(like))
    for group in actions.one_hot:  # its last member; the first one is the neutral action's
        upper[list(group)] = like.new_tensor([0.0] * (len(group) - 1) + [1.0])
    return torch.cat([actions.neutral(1, like), actions.project(lower[None]), actions.project(upper[None])])
