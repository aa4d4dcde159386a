"""Normalisation of observations and rewards for reinforcement learning, by quantiles.

Where a plant runs away under a poor policy, means and variances are those of the run-aways: divided by them, all that a
good policy sees and earns is nearly zero, and nothing is learnt from it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

Array = NDArray[Any]

WINDOW = 8192
"""Rows that the statistics are of, the newest ones: scales follow a policy that gets better."""
LINEAR = 3.0
"""Scales up to which values stay in proportion; beyond, they count by their logarithm."""
CLIP = 10.0
"""Observations end there, at 31 scales."""
_NORMAL = 1.349
"""Interquartile range of the normal distribution, in standard deviations."""


def compress(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """``x`` up to :data:`LINEAR`, ``L (1 + log(|x| / L))`` with its sign beyond; smooth to the first derivative."""
    size = np.abs(x)
    found: Array = np.where(size <= LINEAR, x, np.sign(x) * LINEAR * (1 + np.log(np.maximum(size, LINEAR) / LINEAR)))
    return found


def expand(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The inverse of :func:`compress`."""
    size = np.abs(x)
    found: Array = np.where(size <= LINEAR, x, np.sign(x) * LINEAR * np.exp(np.maximum(size, LINEAR) / LINEAR - 1))
    return found


class Quartiles(RunningMeanStd):
    """Medians, and squared interquartile ranges in the place of variances, of the newest rows.

    A column whose quartiles coincide, such as a flag that is rarely set, has its mean and variance.
    """

    def __init__(self, width: int) -> None:
        """For rows of ``width`` numbers."""
        super().__init__(shape=(width,))
        self.count, self._rows, self._due = 0, np.zeros((WINDOW, width)), 1
        self._seen = 0

    def update(self, arr: Float[Array, "n *width"]) -> None:
        """Add rows; the statistics follow when an eighth more, or an eighth of the window, has come."""
        rows = arr.reshape(len(arr), -1)[-WINDOW:]
        self._rows[(self._seen + np.arange(len(rows))) % WINDOW] = rows
        self._seen += len(rows)
        self.count += len(arr)
        if self._seen >= self._due:
            self._due = self._seen + max(1, min(self._seen, WINDOW) // 8)
            self._fit(self._rows[: min(self._seen, WINDOW)])

    def restore(self, mean: Float[Array, "width"], var: Float[Array, "width"], count: int) -> None:
        """Go on from saved statistics, which stay until as many rows as they are of have come."""
        self.mean, self.var, self.count = mean, var, count
        self._seen, self._due = 0, max(1, min(count, WINDOW))

    def _fit(self, rows: Array) -> None:
        low, middle, high = np.quantile(rows, (0.25, 0.5, 0.75), axis=0)
        apart = high > low
        self.mean = np.where(apart, middle, rows.mean(axis=0))
        self.var = np.where(apart, ((high - low) / _NORMAL) ** 2, rows.var(axis=0))


class RobustNormalize(VecNormalize):
    """stable-baselines3's wrapper with :class:`Quartiles`; what lies far out is compressed."""

    obs_rms: Quartiles  # type: ignore[assignment]  # theirs may hold one for each of several observations
    ret_rms: Quartiles

    def __init__(self, venv: VecEnv, *, on: bool, gamma: float) -> None:
        """Wrap an environment; without ``on`` observations and rewards pass as they are."""
        super().__init__(venv, norm_obs=on, norm_reward=on, clip_obs=math.inf, clip_reward=math.inf, gamma=gamma)
        shape = venv.observation_space.shape
        assert shape is not None  # noqa: S101 - observations of plants are boxes
        self.obs_rms, self.ret_rms = Quartiles(shape[0]), Quartiles(1)

    def _normalize_obs(self, obs: Array, obs_rms: RunningMeanStd) -> Array:
        return np.clip(compress(super()._normalize_obs(obs, obs_rms)), -CLIP, CLIP)

    def _unnormalize_obs(self, obs: Array, obs_rms: RunningMeanStd) -> Array:
        return super()._unnormalize_obs(expand(obs), obs_rms)

    def normalize_reward(self, reward: Array) -> Array:
        """Rewards over the spread of discounted returns, compressed."""
        return compress(super().normalize_reward(reward)) if self.norm_reward else reward
