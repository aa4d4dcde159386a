"""Whether a trained policy is worth deploying: against doing nothing, and against a few constant actions."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from steersman.controllers.base import Controller, Training
from steersman.controllers.classical.baseline import candidate_actions
from steersman.controllers.rollout import run_episodes
from steersman.envs import noise

EPISODES = 8
"""Scenarios that contenders meet."""
CANDIDATES = 5
"""Constant actions, the neutral one among them."""
_EXAM = 0x7E57ED
"""Separates the scenarios of the verdict from those of the training."""


@dataclass(frozen=True)
class Verdict:
    """Mean costs on the same fixed scenarios, which no training has seen.

    Attributes:
        cost: Of the policy.
        idle: Of doing nothing: the admissible action nearest to zero.
        constant: Of the best constant action.
        action: That action.
        episodes: Number of scenarios.
        plant_steps: Control steps that all contenders took.
    """

    cost: float
    idle: float
    constant: float
    action: tuple[float, ...]
    episodes: int
    plant_steps: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What nobody should deploy the policy without knowing; empty where it has won."""
        found = f"costs {self.cost:.4g} on {self.episodes} validation episodes"
        if not self.cost <= self.idle:
            return (f"worse than doing nothing: it {found}, doing nothing {self.idle:.4g}",)
        if not self.cost <= self.constant:
            action = ", ".join(f"{u:.3g}" for u in self.action)
            return (f"no better than a constant: it {found}, the constant action ({action}) {self.constant:.4g}",)
        return ()


def steps_at_most(horizon: int, episodes: int = EPISODES) -> int:
    """Plant steps that a verdict takes, for budgets."""
    return (1 + CANDIDATES) * episodes * horizon


def judge(controller: Controller, training: Training, episodes: int = EPISODES) -> Verdict:
    """Let a trained controller and its plainest rivals meet the same scenarios on the simulator."""
    simulator = training.simulate(episodes)
    exam = simulator.scenarios(noise.fold(training.keys(episodes), _EXAM))
    controller.reset(episodes)
    own = run_episodes(simulator, exam, lambda m: controller.act(m).u, controller.preview)
    costs, used = [], own.plant_steps
    constants = candidate_actions(controller.problem.actions, CANDIDATES)
    for u in constants:
        rows = u.to(simulator.device, simulator.dtype).expand(episodes, -1)
        found = run_episodes(simulator, exam, lambda m, rows=rows: rows)  # type: ignore[misc]
        costs.append(float(found.cost.mean()))
        used += found.plant_steps
    simulator.close()
    best = int(torch.tensor(costs).nan_to_num(nan=torch.inf).argmin())
    action = tuple(constants[best].tolist())
    return Verdict(float(own.cost.mean()), costs[0], costs[best], action, episodes, used)
