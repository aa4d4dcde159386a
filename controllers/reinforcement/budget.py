"""How reinforcement learning spends a budget of plant steps: all of it, in equal parts."""

from __future__ import annotations

import math
from typing import Any

import stable_baselines3 as sb3
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from steersman.envs.settings import at_least


def copies(plant_steps: int, most: int) -> int:
    """Copies of the plant that divide a budget: the largest number above half of ``most``, or ``most`` if none does."""
    most = max(1, min(most, plant_steps))
    return next((n for n in range(most, most // 2, -1) if plant_steps % n == 0), most)


def updates_of(updates: int, share: float) -> int:
    """Gradient steps after each step of a share of the copies."""
    return max(1, round(updates * share))


def check_warmup(warmup: int, plant_steps: int) -> None:
    """Refuse a budget that the random actions before the first gradient step use up.

    Raises:
        ValueError: If they do, or ``warmup`` is negative.
    """
    at_least(0, warmup=warmup)
    if warmup >= plant_steps:
        raise ValueError(
            f"plant_steps={plant_steps} are over before anything is learnt from: warmup={warmup}; raise plant_steps to "
            f"more than {warmup}, or lower warmup"
        )


class EvenPPO(sb3.PPO):
    """Proximal policy optimisation in rollouts and mini-batches that divide the budget, as equal in size as can be."""

    def __init__(self, *args: Any, batch: int, **kwargs: Any) -> None:
        """As stable-baselines3's, with the size that mini-batches should have about."""
        super().__init__(*args, **kwargs)
        self._batch = batch

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """The next rollout, of at most ``n_rollout_steps`` steps of each copy."""
        left = (self._total_timesteps - self.num_timesteps) // env.num_envs
        length = math.ceil(left / math.ceil(left / n_rollout_steps))
        size = length * env.num_envs
        rollout_buffer.buffer_size = length
        self.batch_size = math.ceil(size / max(1, round(size / self._batch)))
        return super().collect_rollouts(env, callback, rollout_buffer, length)
