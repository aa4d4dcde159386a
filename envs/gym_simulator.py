"""Any gymnasium environment that we did not write, as a simulator."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective
from steersman.envs.plant import ControlProblem, Status, going
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import Measurement, Simulator, Transition


def action_set(space: spaces.Space[Any]) -> ActionSet:
    """The action set of a gymnasium space.

    Raises:
        ValueError: If the space is not a Box vector, Discrete or MultiDiscrete.
    """
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return ActionSet(tuple(map(float, space.low)), tuple(map(float, space.high)))
    if isinstance(space, spaces.Discrete):
        return ActionSet((float(space.start),), (float(space.start + space.n - 1),), (True,))
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        m = len(space.nvec)
        return ActionSet((0.0,) * m, tuple(float(v - 1) for v in space.nvec), (True,) * m)
    raise ValueError(f"action space {space} is not a Box vector, Discrete or MultiDiscrete; wrap the environment")


@dataclass(frozen=True)
class GymSnapshot:
    """State of a :class:`GymSimulator`."""

    envs: list[Any]
    y: Tensor
    k: Tensor
    status: Tensor
    u_prev: Tensor


class GymSimulator(Simulator):
    """``n`` copies of a gymnasium environment, stepped one after the other.

    The observation is both y and z, the cost is minus the reward. Sampling and mixed-integer controllers cannot
    read such a cost from the objective (it has no terms), so only controllers that learn from cost or data
    apply, unless the caller supplies an objective written in the observation.
    """

    def __init__(
        self,
        make: Callable[[], gymnasium.Env[Any, Any]],
        n: int,
        *,
        objective: Objective | None = None,
        price: float | None = None,
    ) -> None:
        """Build ``n`` environments with ``make``; the price of a failure is found when a row fails, if not given."""
        self._make = make
        if n < 1:
            raise ValueError(f"a simulator needs at least one row, got n={n}")
        self._envs = [make() for _ in range(n)]
        first = self._envs[0]
        space = first.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"observation space {space} is not a vector; wrap with FlattenObservation first")
        spec = first.spec
        if spec is None or spec.max_episode_steps is None:
            raise ValueError("the environment has no max_episode_steps; pass it to gymnasium.make")
        names = tuple(f"y{i}" for i in range(space.shape[0]))
        self.n, self.device, self.dtype = n, torch.device("cpu"), torch.float64
        self._discrete = isinstance(first.action_space, spaces.Discrete)
        self.problem = ControlProblem(
            action_set(first.action_space), objective or Objective(()), 1.0, spec.max_episode_steps, names, names,
            time_unit="step",
        )  # fmt: skip
        self._charge(price)
        self._y = torch.zeros(n, len(names), dtype=self.dtype)
        self._k = torch.zeros(n, dtype=torch.int64)
        self._status = torch.zeros(n, dtype=torch.uint8)
        self._u_prev = self.actions.neutral(n, self._y)

    def scenarios(self, key: Int64[Tensor, "n"], mask: Bool[Tensor, "n"] | None = None) -> Scenarios:
        """The keys alone: they seed the environments."""
        return Scenarios(key)

    def reset(self, scenarios: Scenarios, mask: Bool[Tensor, "n"] | None = None) -> None:
        """See :class:`Simulator`."""
        if len(scenarios) != self.n:
            raise ValueError(f"reset needs {self.n} scenarios, one per row, got {len(scenarios)}")
        for i in range(self.n):
            if mask is None or bool(mask[i]):
                obs, _ = self._envs[i].reset(seed=int(scenarios.key[i]) & 0x7FFFFFFF)
                self._y[i] = torch.as_tensor(np.asarray(obs), dtype=self.dtype)
                self._k[i], self._status[i] = 0, Status.OK
                self._u_prev[i] = self.actions.neutral(1, self._y)[0]

    def step(self, u: Float[Tensor, "n m"]) -> Transition:
        """See :class:`Simulator`."""
        if tuple(u.shape) != (self.n, self.actions.m):
            raise ValueError(f"u must have shape ({self.n}, {self.actions.m}), got {tuple(u.shape)}")
        u = self.actions.project(u.to(self.dtype))
        alive = going(self._status) & (self._k < self.problem.horizon)
        cost = torch.zeros(self.n, dtype=self.dtype)
        self._y, self._k, self._status = self._y.clone(), self._k.clone(), self._status.clone()
        for i in torch.nonzero(alive).flatten().tolist():
            if not bool(torch.isfinite(u[i]).all()):
                self._k[i] += 1
                self._status[i] = Status.DIVERGED
                continue
            obs, reward, terminated, cut, _ = self._envs[i].step(self._native(u[i]))
            y = torch.as_tensor(np.asarray(obs), dtype=self.dtype)
            cost[i] = -float(reward)
            self._k[i] = self.problem.horizon if cut else self._k[i] + 1
            if not bool(torch.isfinite(y).all()):
                self._status[i] = Status.DIVERGED
                continue
            self._y[i] = y
            self._status[i] = Status.ENDED if terminated else Status.OK
        self._u_prev = torch.where(alive[:, None] & torch.isfinite(u), u, self._u_prev)
        t = self._settle({"cost": cost}, alive, self._k, self._status, lambda: (self._y, torch.zeros_like(self._y)))
        self._status = t.status
        return t

    def unpriced(self, n: int) -> GymSimulator:
        """See :class:`Simulator`."""
        return GymSimulator(self._make, n, objective=self.problem.objective, price=0.0)

    def measure(self, preview: int = 0) -> Measurement:
        """See :class:`Simulator`; the reference is zero."""
        r = torch.zeros(self.n, preview + 1, self.problem.nz, dtype=self.dtype)
        return Measurement(self._k, self._y, r, self._u_prev)

    def perform(self) -> Float[Tensor, "n nz"]:
        """The observation."""
        return self._y

    def snapshot(self) -> GymSnapshot:
        """See :class:`Simulator`; environments are deep-copied."""
        return GymSnapshot(copy.deepcopy(self._envs), self._y, self._k, self._status, self._u_prev)

    def restore(self, snapshot: GymSnapshot) -> None:
        """See :class:`Simulator`."""
        self._envs = copy.deepcopy(snapshot.envs)
        self._y, self._k = snapshot.y.clone(), snapshot.k.clone()
        self._status, self._u_prev = snapshot.status.clone(), snapshot.u_prev.clone()

    def render(self) -> NDArray[np.uint8]:
        """RGB picture of the first row.

        Raises:
            ValueError: If the environment was not made with ``render_mode="rgb_array"``.
        """
        picture = self._envs[0].render()
        if picture is None:
            raise ValueError("this environment draws no picture; make it with render_mode='rgb_array'")
        return np.asarray(picture)

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs:
            env.close()

    def _native(self, u: Tensor) -> Any:
        space = self._envs[0].action_space
        if isinstance(space, spaces.Box):
            return u.numpy().astype(space.dtype)
        whole = u.numpy().round().astype(np.int64)
        return int(whole[0]) if self._discrete else whole
