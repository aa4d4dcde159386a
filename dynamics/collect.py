"""Data for models: episodes of any simulator under exciting inputs or a given policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from steersman.dynamics.base import Trajectories
from steersman.dynamics.sensing import Holding, Sensing
from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.episodes import Act, Step
from steersman.envs.episodes import episodes as run
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import Measurement, Simulator

_STREAM = 0xDA7A
"""Separates the scenarios of data from those that evaluations draw from the same seed."""
_SENSED = 0x5E25E
"""Separates what is recorded of an episode from what happens in it."""
SEES_ALL = Sensing()
_SWITCH, _LEVEL = 1, 2
_GROUP = 0x6209
"""Separates the excitation of groups from the scenarios of their rows."""


class Exciter(ABC):
    """An input signal that excites the plant; row i depends on its key only."""

    def start(self, actions: ActionSet, key: Int64[Tensor, "n"], dtype: torch.dtype) -> None:
        """Begin ``n`` episodes."""
        self._actions, self._key, self._dtype = actions, key, dtype

    @abstractmethod
    def __call__(self, m: Measurement) -> Float[Tensor, "n m"]:
        """Admissible actions of the next control step."""

    def _unit(self, k: Int64[Tensor, "n"], purpose: int) -> Tensor:
        return noise.uniform(noise.fold(noise.fold(self._key, purpose), k), self._actions.m, dtype=self._dtype)


class HeldLevels(Exciter):
    """Levels uniform over the action set, each action held for its own random number of steps.

    Long holds reveal slow modes and gains, short ones fast modes; random lengths excite a broad band.
    """

    def __init__(self, shortest: int = 1, longest: int = 10, share: float = 1.0) -> None:
        """Hold for ``shortest .. longest`` control steps.

        Args:
            shortest: Least number of control steps.
            longest: Largest number of control steps.
            share: Levels are scaled by it, for plants that the full range of actions destroys.

        Raises:
            ValueError: Unless ``1 <= shortest <= longest`` and ``0 < share <= 1``.
        """
        if not 0 < share <= 1:
            raise ValueError(f"share must lie in (0, 1], got {share}")
        if not 1 <= shortest <= longest:
            raise ValueError(f"holds need 1 <= shortest <= longest, got {shortest} and {longest}")
        self.shortest, self.longest, self.share = shortest, longest, share

    def start(self, actions: ActionSet, key: Int64[Tensor, "n"], dtype: torch.dtype) -> None:
        """See :class:`Exciter`."""
        super().start(actions, key, dtype)
        self._left = torch.zeros(len(key), actions.m, dtype=torch.int64, device=key.device)
        self._u = torch.zeros(len(key), actions.m, dtype=dtype, device=key.device)

    def __call__(self, m: Measurement) -> Float[Tensor, "n m"]:
        """See :class:`Exciter`."""
        switch = self._left == 0
        length = self.shortest + (self._unit(m.k, _SWITCH) * (self.longest - self.shortest + 1)).floor().long()
        self._u = torch.where(switch, self._actions.sample(self._unit(m.k, _LEVEL)), self._u)
        self._left = torch.where(switch, length, self._left) - 1
        return self._actions.project(self.share * self._u)


class RandomBinary(Exciter):
    """Each action at its lower or upper bound, redrawn every ``hold`` steps: a random binary signal.

    The like of a pseudo-random binary sequence, which has the largest power that bounds allow; it shows nothing
    of nonlinearity between the bounds, so mix it with :class:`HeldLevels`.
    """

    def __init__(self, hold: int = 2) -> None:
        """Redraw every ``hold`` control steps.

        Raises:
            ValueError: If ``hold`` is below 1.
        """
        if hold < 1:
            raise ValueError(f"hold must be at least 1 control step, got {hold}")
        self.hold = hold

    def __call__(self, m: Measurement) -> Float[Tensor, "n m"]:
        """See :class:`Exciter`."""
        tiny = torch.finfo(self._dtype).eps
        high = self._unit(m.k // self.hold, _LEVEL) > 0.5
        return self._actions.sample(torch.where(high, 1.0 - tiny, tiny).to(self._dtype))


def collect(
    simulator: Simulator,
    policy: Act,
    *,
    episodes: int,
    seed: int,
    steps: int | None = None,
    sensing: Sensing = SEES_ALL,
    progress: Callable[[float, str], None] = lambda fraction, text: None,
) -> Trajectories:
    """Run episodes and record them; the plant steps spent are ``result.steps``.

    The simulator runs in rounds of ``simulator.n`` rows; the last round is kept whole, so there may be up to
    ``simulator.n - 1`` episodes more than asked for. A row that ends early repeats its last outputs, marked not
    valid. Policies see the state where the simulator has it; use ``m.blind()`` to hide it.

    Args:
        simulator: Where to run.
        policy: An exciter, or any function of the measurement.
        episodes: Number of episodes, at least 1.
        seed: Determines scenarios and excitation; evaluations with the same seed draw others.
        steps: Control steps of an episode; the problem's horizon by default.
        sensing: What is recorded, and when; by default everything at each control step.
        progress: Called with a fraction in 0..1 and a short text after each round.

    Raises:
        ValueError: If a number is out of range, or the policy returns actions of the wrong shape.
    """
    steps = episode_steps(steps, simulator.problem.horizon)
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}")
    rounds = -(-episodes // simulator.n)
    parts = []
    for i in range(rounds):
        parts.append(_round(simulator, policy, begin(simulator, policy, seed, i), steps, sensing))
        progress((i + 1) / rounds, f"{(i + 1) * simulator.n} episodes")
    return Trajectories.join(parts)


def episode_steps(steps: int | None, horizon: int) -> int:
    """Control steps of a collected episode: those asked for, or the whole horizon.

    Raises:
        ValueError: If they are outside ``1 .. horizon``.
    """
    if steps is not None and not 1 <= steps <= horizon:
        raise ValueError(f"steps must be between 1 and the horizon {horizon}, got {steps}")
    return horizon if steps is None else steps


def collect_means(
    simulator: Simulator,
    policy: Exciter,
    *,
    groups: int,
    seed: int,
    steps: int | None = None,
    progress: Callable[[float, str], None] = lambda fraction, text: None,
) -> Trajectories:
    """Means over the rows of a simulator, all of them under the same actions: one trajectory for each group.

    A step of a group is valid while every row of it runs. Starts differ from row to row, so a mean begins at the
    mean start. The plant steps spent are ``groups * simulator.n * steps`` at most.

    Args:
        simulator: Where to run; its rows are the replicas.
        policy: Excitation, drawn anew for each group.
        groups: Number of mean trajectories.
        seed: As in :func:`collect`.
        steps: Control steps; the problem's horizon by default.
        progress: Called with a fraction in 0..1 and a short text after each group.
    """
    parts = []
    for i in range(groups):
        same = noise.fold(noise.keys(seed, 1, start=i, device=simulator.device), _GROUP).expand(simulator.n)
        follow = _Together(policy, same)
        found = collect(simulator, follow, episodes=simulator.n, seed=seed + (i + 1) * 7919, steps=steps)
        parts.append((found.y.mean(0), found.z.mean(0), found.u[0], found.valid.all(0)))
        progress((i + 1) / groups, f"{i + 1} of {groups} groups")
    y, z, u, valid = (torch.stack(part) for part in zip(*parts, strict=True))
    return Trajectories(y, z, u, valid, simulator.problem.period)


class _Together(Exciter):
    """One excitation for all rows."""

    def __init__(self, policy: Exciter, key: Tensor) -> None:
        self._policy, self._same = policy, key

    def start(self, actions: ActionSet, key: Int64[Tensor, "n"], dtype: torch.dtype) -> None:
        self._policy.start(actions, self._same, dtype)

    def __call__(self, m: Measurement) -> Float[Tensor, "n m"]:
        return self._policy(m)


def begin(simulator: Simulator, policy: Act, seed: int, number: int) -> Scenarios:
    """Scenarios of a round of data, counted from 0; a policy that is an exciter begins its signal."""
    keys = noise.keys(seed, simulator.n, start=number * simulator.n, device=simulator.device)
    key = noise.fold(keys, _STREAM)
    if isinstance(policy, Exciter):
        policy.start(simulator.actions, noise.fold(key, _STREAM), simulator.dtype)
    return Scenarios(key)


def _round(simulator: Simulator, policy: Act, scenarios: Scenarios, steps: int, sensing: Sensing) -> Trajectories:
    sensed = noise.fold(scenarios.key, _SENSED)
    act = policy if sensing.irregular == 1 else Holding(policy, sensing.recorded(sensed, steps))
    recording = Recording(simulator, act)
    for step in run(simulator, scenarios, recording.act, steps=steps):
        recording.take(step)
    return sensing(recording.trajectories(steps), sensed)


class Recording:
    """Trajectories in the making, from the steps of episodes."""

    def __init__(self, simulator: Simulator, act: Act) -> None:
        """Record what ``act`` does, projected on the admissible actions."""
        self._simulator, self._act = simulator, act
        self._y: list[Tensor] = []
        self._z: list[Tensor] = []
        self._u: list[Tensor] = []
        self._valid: list[Tensor] = []

    def act(self, m: Measurement) -> Float[Tensor, "n m"]:
        """The actions that are taken.

        Raises:
            ValueError: If they have a wrong shape.
        """
        simulator = self._simulator
        if not self._y:
            self._y, self._z = [m.y], [simulator.perform()]
        u = self._act(m).detach().to(simulator.dtype)
        if tuple(u.shape) != (simulator.n, simulator.actions.m):
            raise ValueError(f"the policy must return shape {(simulator.n, simulator.actions.m)}, got {tuple(u.shape)}")
        return simulator.actions.project(u)

    def take(self, step: Step) -> None:
        """Record a step; rows that it did not happen in repeat their last outputs."""
        happened = step.happened
        self._y.append(torch.where(happened[:, None], step.after.y, self._y[-1]))
        self._z.append(torch.where(happened[:, None], step.z, self._z[-1]))
        self._u.append(torch.where(happened[:, None], step.u, 0.0))
        self._valid.append(happened)

    def trajectories(self, steps: int | None = None) -> Trajectories:
        """What has been recorded; as if it had gone on for ``steps`` steps where that is more."""
        y, z, u, valid = (torch.stack(part, 1) for part in (self._y, self._z, self._u, self._valid))
        found = Trajectories(y, z, u, valid, self._simulator.problem.period)
        return found if steps is None else found.padded(steps)
