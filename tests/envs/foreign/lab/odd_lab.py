"""Small gymnasium environments with habits of their own."""

import os
import random
import sys
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

Info = dict[str, Any]


class Base(gymnasium.Env[Any, Any]):
    """Counts its steps; the reward is 1."""

    observation_space: spaces.Space[Any] = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space: spaces.Space[Any] = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), self.info()

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Info]:
        assert self.action_space.contains(action), action
        self.t += 1
        return self.observe(), self.reward(action), self.over(action), False, self.info()

    def observe(self) -> Any:
        return np.array([self.t, 0.0], np.float32)

    def reward(self, action: Any) -> Any:
        return 1.0

    def over(self, action: Any) -> bool:
        return False

    def info(self) -> Info:
        return {}


class Tank(Base):
    """A level that follows a set point in the observation, and another one in ``info`` with two steps ahead."""

    observation_space = spaces.Dict({"level": spaces.Box(-10, 10, (1,)), "target": spaces.Box(-10, 10, (2,))})

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        self.level = 0.0
        return super().reset(seed=seed)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Info]:
        self.level += float(action[0])
        return super().step(action)

    def observe(self) -> Any:
        return {"level": np.array([self.level], np.float32), "target": np.array([self.t, self.t + 1], np.float32)}

    def reward(self, action: Any) -> Any:
        return -((self.level - self.t) ** 2)

    def info(self) -> Info:
        return {"plan": np.array([[self.t, -self.t], [self.t + 1, -self.t - 1], [self.t + 2, -self.t - 2]])}


class Goal(Base):
    """Pushing to the right reaches the goal, which pays 10; every other step costs 1."""

    def reward(self, action: Any) -> Any:
        return 10.0 if action[0] > 0.5 else -1.0

    def over(self, action: Any) -> bool:
        return bool(action[0] > 0.5)


class Gambler(Base):
    """Draws from every global generator and from the generator of its own space."""

    def observe(self) -> Any:
        drawn = random.random() + np.random.normal() + float(torch.randn(()))
        return np.array([drawn, self.observation_space.sample()[0]], np.float32)


class Sieve(Base):
    """A generator that no seed reaches."""

    def __init__(self) -> None:
        self.secret = np.random.default_rng()

    def observe(self) -> Any:
        return self.secret.random(2).astype(np.float32)


class Shared(Base):
    """Rows that share what changes."""

    total = 0

    def observe(self) -> Any:
        type(self).total += 1
        return np.array([self.total, 0], np.float32)


class Broken(Base):
    """A reward or an observation that is no number, from the start or later."""

    def __init__(self, reward: float = 1.0, observation: float = 0.0, at: int = 2) -> None:
        self.paid, self.seen, self.at = reward, observation, at

    def observe(self) -> Any:
        return np.array([self.t, self.seen if self.t >= self.at else 0.0], np.float32)

    def reward(self, action: Any) -> Any:
        return self.paid if self.t >= self.at else 1.0


class Any_(Base):  # noqa: N801
    """Spaces given by name."""

    def __init__(self, observation_space: Any = None, action_space: Any = None) -> None:
        self.observation_space = observation_space or self.observation_space
        self.action_space = action_space or self.action_space

    def observe(self) -> Any:
        return self.observation_space.sample()


class Killer(Base):
    """Ends its process at the second step."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Info]:
        if self.t == 1:
            sys.stdout.flush()
            os._exit(7)
        return super().step(action)


class Crash(Base):
    """Raises at the first step."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Info]:
        raise RuntimeError("the solver [x] gave up")


class Seedless(Base):
    """The interface of the package gym."""

    def reset(self) -> Any:  # type: ignore[override]
        return np.zeros(2, np.float32)


class Old(Base):
    """The same, with a seed."""

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> Any:
        return np.zeros(2, np.float32)


class Four(Base):
    """The same, at a step."""

    def step(self, action: Any) -> Any:
        return self.observe(), 1.0, False, {}


class Double(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A wrapper that multiplies the reward."""

    def __init__(self, env: gymnasium.Env[Any, Any], factor: float = 2.0) -> None:
        super().__init__(env)
        self.factor = factor

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Info]:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, self.factor * float(reward), terminated, truncated, info


def factory(limit: int = 4) -> gymnasium.Env[Any, Any]:
    return gymnasium.wrappers.TimeLimit(Base(), limit)


def not_an_environment() -> object:
    return object()


instance = Base()
number = 3

gymnasium.register("Lab/Counter-v0", entry_point="odd_lab:Base", max_episode_steps=5)
