"""Episodes of a gymnasium environment, and the environments of one process that they run in."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import gymnasium
import numpy as np

from steersman.envs.gymnasium_adapters.outputs import ENDS, Outputs, Termination
from steersman.envs.gymnasium_adapters.spaces import Actions
from steersman.envs.plant import Status
from steersman.envs.rows.base import Episode, Source, Vector

Env = gymnasium.Env[Any, Any]


class Environments(Source):
    """Environments of one process, one for each row, made when its first episode begins."""

    def __init__(
        self,
        make: Callable[[], Env],
        outputs: Outputs,
        actions: Actions,
        termination: Termination,
        horizon: int,
        spare: Env | None = None,
    ) -> None:
        """Store what episodes need; ``spare`` is an environment that is there already, for the first row."""
        self.make, self.outputs, self.actions, self.horizon = make, outputs, actions, horizon
        self.end = ENDS[termination]
        self.shape = outputs.shape
        self.envs: dict[int, Env] = {}
        self._spare = spare

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "envs": {}, "_spare": None}

    def start(self, seed: int, row: int) -> GymEpisode:
        """See :class:`~steersman.envs.rows.base.Source`."""
        if row not in self.envs:
            env, self._spare = self._spare or self.make(), None
            self.envs[row] = with_own_spaces(env)
        return GymEpisode(self, self.envs[row], seed)

    def close(self) -> None:
        """Close all environments."""
        for env in (*self.envs.values(), *([] if self._spare is None else [self._spare])):
            env.close()
        self.envs, self._spare = {}, None


def with_own_spaces(env: Env) -> Env:
    """The environment with spaces that it shares with no other: their ``sample`` draws from a generator of theirs."""
    for name in ("action_space", "observation_space"):
        with suppress(AttributeError):  # a property of the class
            setattr(env.unwrapped, name, copy.deepcopy(getattr(env.unwrapped, name)))
    return env


class GymEpisode(Episode):
    """One episode. What is not a number, as reward or observation, ends it as diverged."""

    def __init__(self, source: Environments, env: Env, seed: int) -> None:
        """Reset the environment.

        Raises:
            ValueError: If it does not keep to gymnasium's interface, or the observation is not of its space.
        """
        super().__init__(seed)
        self._source, self.env = source, env
        for layer in {id(e): e for e in (env, env.unwrapped)}.values():
            layer.action_space.seed(seed)
            layer.observation_space.seed(seed)
        observation, info = _begun(env, seed)
        y = source.outputs.measure(observation)
        # An episode that begins with something else than numbers ends with its first step, which can be charged.
        self._lost = _fault(y, source.outputs.measured)
        self.y = np.where(np.isfinite(y), y, 0.0)
        self.z = source.outputs.perform(self.y, 0.0)
        self.r = source.outputs.refer(self.y, info)

    def step(self, u: Vector) -> None:
        """See :class:`~steersman.envs.rows.base.Episode`."""
        if self._lost:
            self._diverge(self._lost)
            return
        source = self._source
        observation, reward, terminated, truncated, info = _stepped(self.env, source.actions.decode(u))
        earned = _number(reward, self.k - 1)
        if not np.isfinite(earned):
            self._diverge(f"the reward was {earned}")
            return
        self.cost = -earned
        y = source.outputs.measure(observation)
        if fault := _fault(y, source.outputs.measured):
            self._diverge(fault)
            return
        self.y, self.z = y, source.outputs.perform(y, earned)
        self.r = source.outputs.refer(y, info)
        if terminated:
            self.status = source.end
        elif truncated:
            self.k = source.horizon

    def _diverge(self, note: str) -> None:
        self.status, self.note = Status.DIVERGED, note


def _begun(env: Env, seed: int) -> tuple[Any, Mapping[str, Any]]:
    try:
        found: Any = env.reset(seed=seed)
    except TypeError as error:
        if "seed" not in str(error):
            raise
        raise ValueError(f"reset takes no seed ({error}); define reset(self, *, seed=None, options=None)") from error
    if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[1], Mapping):
        raise ValueError(f"reset must return an observation and a dictionary, as gymnasium asks; got {found!r:.80}")
    return found


def _stepped(env: Env, action: Any) -> tuple[Any, Any, bool, bool, Mapping[str, Any]]:
    try:
        found: Any = env.step(action)
    except ValueError as error:
        if "to unpack (expected 5" not in str(error):
            raise
        found = f"what a wrapper could not read ({error})"
    if not isinstance(found, tuple) or len(found) != 5 or not isinstance(found[4], Mapping):
        raise ValueError(
            "step must return observation, reward, terminated, truncated and a dictionary, as gymnasium asks; "
            f"got {found!r:.80}"
        )
    return found[0], found[1], bool(found[2]), bool(found[3]), found[4]


def _number(reward: Any, k: int) -> float:
    """The reward of step ``k``, which may be not finite; numpy would take None and texts for numbers too."""
    try:
        array = np.asarray(reward)
        if array.size == 1 and array.dtype.kind in "buifO":
            return float(array.item())
    except (TypeError, ValueError):
        pass
    raise ValueError(f"the reward must be a finite real number, got {reward!r:.80} at step {k}")


def _fault(y: Vector, names: tuple[str, ...]) -> str:
    wrong = np.flatnonzero(~np.isfinite(y))
    return f"observation {names[wrong[0]]!r} was {y[wrong[0]]}" if len(wrong) else ""
