"""Deep Q-learning."""

from __future__ import annotations

from typing import Any

import stable_baselines3 as sb3
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.dqn.policies import DQNPolicy

from steersman.controllers.reinforcement.off_policy import OffPolicy
from steersman.controllers.reinforcement.scaling import Normalize, Scheme


class DQN(OffPolicy):
    """Deep Q-learning (Mnih et al. 2015), for one discrete action."""

    name = "dqn"

    def __init__(
        self,
        plant_steps: int = 50_000,
        envs: int = 16,
        hidden: tuple[int, ...] = (64, 64),
        rate: float = 1e-3,
        gamma: float = 0.99,
        normalise: Scheme = "standard",
        batch: int = 128,
        updates: int = 4,
        warmup: int = 2000,
        exploration: float = 0.3,
    ) -> None:
        """Store the settings.

        Args:
            plant_steps: Budget.
            envs: Copies of the plant.
            hidden: Widths of the hidden layers.
            rate: Learning rate.
            gamma: Discount.
            normalise: How observations and rewards are normalised: "standard", "robust" where a poor policy lets the
                plant run away, or "off".
            batch: Mini-batch.
            updates: Gradient steps after each step of all ``envs`` copies; as many as ``envs`` make one per plant step.
            warmup: Plant steps under random actions.
            exploration: Share of the budget over which random actions fade out.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(plant_steps, envs, hidden, rate, gamma, normalise, batch, updates, warmup)
        if not 0 < exploration <= 1:
            raise ValueError(f"exploration must lie in (0, 1], got {exploration}")
        self.exploration = exploration

    def _check(self, space: spaces.Space[Any]) -> None:
        if not isinstance(space, spaces.Discrete):
            raise ValueError("dqn needs one discrete action; use ppo or sac on this plant")

    def _algorithm(self, env: Normalize, seed: int) -> BaseAlgorithm:
        return sb3.DQN(**self._arguments(env, seed), target_update_interval=1000, exploration_fraction=self.exploration)

    def _fresh(self, observations: spaces.Box, actions: spaces.Space[Any]) -> BasePolicy:
        assert isinstance(actions, spaces.Discrete)  # noqa: S101 - _check has seen to it
        return DQNPolicy(observations, actions, lambda _: self.rate, net_arch=list(self.hidden))
