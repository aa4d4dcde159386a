"""Any simulator as a stable-baselines3 ``VecEnv``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from steersman.envs.gymnasium_adapters.vector import PlantVectorEnv
from steersman.envs.plant import Plant

Array = NDArray[Any]


class SB3VecEnv(VecEnv):
    """Adapter from :class:`PlantVectorEnv` to stable-baselines3.

    Finite boxes are scaled to [-1, 1], as its algorithms expect. ``infos`` of ended rows carry
    ``terminal_observation`` and ``TimeLimit.truncated``.
    """

    def __init__(self, env: PlantVectorEnv, *, scale_actions: bool = True) -> None:
        """Wrap the vector env.

        Raises:
            ValueError: If the action box is not finite.
        """
        self.env = env
        space = env.single_action_space
        self._low = self._high = None
        if isinstance(space, spaces.Box):
            if not space.is_bounded():
                raise ValueError(
                    "stable-baselines3 needs finite action bounds; use the bounded variant of the plant "
                    f"(they are {env.simulator.actions.lower} .. {env.simulator.actions.upper})"
                )
            if scale_actions:
                self._low, self._high = space.low, space.high
                space = spaces.Box(-1.0, 1.0, space.shape, np.float32)
        super().__init__(env.num_envs, env.single_observation_space, space)
        self._pending: Array | None = None
        self._first_seed: int | None = None

    def reset(self) -> Array:
        """Start all rows; the seed given by :meth:`seed` applies once."""
        obs, _ = self.env.reset(seed=self._first_seed)
        self._first_seed = None
        return self._numpy(obs)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the next reset."""
        self._first_seed = seed
        return [None if seed is None else seed + i for i in range(self.num_envs)]

    def step_async(self, actions: Array) -> None:
        """Store the actions for :meth:`step_wait`."""
        self._pending = actions

    def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
        """Apply the stored actions."""
        actions = self._pending
        if actions is None:
            raise RuntimeError("step_wait was called before step_async")
        if self._low is not None and self._high is not None:
            actions = self._low + (np.clip(actions, -1.0, 1.0) + 1.0) * 0.5 * (self._high - self._low)
        obs, reward, terminated, truncated, info = self.env.step(actions)
        done = (terminated | truncated).cpu().numpy()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if done.any():
            final, cut = self._numpy(info["final_obs"]), truncated.cpu().numpy()
            for i in np.flatnonzero(done):
                infos[i] = {"terminal_observation": final[i], "TimeLimit.truncated": bool(cut[i])}
        return self._numpy(obs), reward.cpu().numpy().astype(np.float32), done, infos

    def close(self) -> None:
        """Nothing to release."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the vector env, once per row."""
        return [getattr(self.env, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not supported: rows share one plant.

        Raises:
            AttributeError: Always.
        """
        raise AttributeError(f"rows share one plant; build a new environment instead of setting {attr_name!r}")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method of the vector env once and give its result to every row."""
        result = getattr(self.env, method_name)(*args, **kwargs)
        return [result] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Any = None) -> list[bool]:
        """Rows are not wrapped."""
        return [False] * len(list(self._get_indices(indices)))

    @staticmethod
    def _numpy(x: torch.Tensor) -> Array:
        array: Array = x.cpu().numpy()
        return array


def make_sb3(plant: Plant, num_envs: int, *, seed: int = 0, device: str = "cpu", bank: Any = None) -> SB3VecEnv:
    """A seeded stable-baselines3 vector env of a plant."""
    venv = SB3VecEnv(PlantVectorEnv(plant, num_envs, device=device, bank=bank))
    venv.seed(seed)
    return venv
