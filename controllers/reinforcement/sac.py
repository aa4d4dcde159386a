"""Soft actor-critic."""

from __future__ import annotations

from typing import Any

import stable_baselines3 as sb3
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.sac.policies import SACPolicy

from steersman.controllers.reinforcement.off_policy import OffPolicy
from steersman.controllers.reinforcement.scaling import Normalize, Scheme


class SAC(OffPolicy):
    """Soft actor-critic (Haarnoja et al. 2018), for continuous actions.

    One gradient step per plant step by default: with a quarter of them it learnt nothing in 10,000 plant steps of
    ``steersman/TwoArea-v1`` (mean cost 220, as without control; 68 with all of them, in three times the CPU time).
    """

    name = "sac"

    def __init__(
        self,
        plant_steps: int = 20_000,
        envs: int = 16,
        hidden: tuple[int, ...] = (64, 64),
        rate: float = 7e-4,
        gamma: float = 0.97,
        normalise: Scheme = "standard",
        batch: int = 256,
        updates: int = 16,
        warmup: int = 1000,
    ) -> None:
        """Store the settings.

        Args:
            plant_steps: Budget.
            envs: Copies of the plant.
            hidden: Widths of the hidden layers of actor and critics.
            rate: Learning rate.
            gamma: Discount.
            normalise: How observations and rewards are normalised: "standard", "robust" where a poor policy lets the
                plant run away, or "off".
            batch: Mini-batch.
            updates: Gradient steps after each step of all ``envs`` copies; as many as ``envs`` make one per plant step.
            warmup: Plant steps under random actions.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(plant_steps, envs, hidden, rate, gamma, normalise, batch, updates, warmup)

    def _check(self, space: spaces.Space[Any]) -> None:
        if not isinstance(space, spaces.Box):
            raise ValueError("sac needs continuous actions; use ppo or dqn on this plant")

    def _algorithm(self, env: Normalize, seed: int) -> BaseAlgorithm:
        return sb3.SAC(**self._arguments(env, seed))

    def _fresh(self, observations: spaces.Box, actions: spaces.Space[Any]) -> BasePolicy:
        assert isinstance(actions, spaces.Box)  # noqa: S101 - _check has seen to it
        return SACPolicy(observations, actions, lambda _: self.rate, net_arch=list(self.hidden))
