"""What algorithms with a replay buffer share."""

from __future__ import annotations

from abc import ABC
from typing import Any

from steersman.controllers.reinforcement.base import Reinforcement
from steersman.controllers.reinforcement.budget import check_warmup, updates_of
from steersman.controllers.reinforcement.scaling import Normalize, Scheme
from steersman.envs.settings import at_least


class OffPolicy(Reinforcement, ABC):
    """Learns after each step of all copies, from mini-batches of everything that was seen."""

    def __init__(
        self,
        plant_steps: int,
        envs: int,
        hidden: tuple[int, ...],
        rate: float,
        gamma: float,
        normalise: Scheme,
        batch: int,
        updates: int,
        warmup: int,
    ) -> None:
        """Store the settings.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(plant_steps, envs, hidden, rate, gamma, normalise)
        at_least(1, batch=batch, updates=updates)
        check_warmup(warmup, plant_steps)
        self.batch, self.updates, self.warmup = batch, updates, warmup

    def _arguments(self, env: Normalize, seed: int) -> dict[str, Any]:
        """Arguments that all of stable-baselines3's algorithms of this kind take."""
        return {
            "policy": "MlpPolicy", "env": env, "learning_rate": self.rate, "buffer_size": self.plant_steps,
            "learning_starts": self.warmup, "batch_size": self.batch, "gamma": self.gamma, "train_freq": 1,
            "gradient_steps": updates_of(self.updates, env.num_envs / self.envs), "seed": seed, "device": self.device,
            "policy_kwargs": {"net_arch": list(self.hidden)},
        }  # fmt: skip
