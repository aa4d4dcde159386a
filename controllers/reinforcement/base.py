"""Reinforcement learning by stable-baselines3 as controllers: what its algorithms share on the batched plant."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from steersman.controllers.base import Controller, Decision, Training, TrainingCost
from steersman.controllers.reinforcement.budget import copies
from steersman.controllers.reinforcement.scaling import Normalize, Scheme, seen
from steersman.controllers.verdict import judge
from steersman.dynamics.base import Dynamics
from steersman.envs.gymnasium_adapters.sb3 import SB3VecEnv
from steersman.envs.gymnasium_adapters.vector import PlantVectorEnv
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import at_least, one_of, positive
from steersman.envs.simulator import Measurement, draw_scenarios
from steersman.optimizers.checkpoint import CheckpointError, digest, read_checkpoint, set_aside, write_checkpoint
from steersman.optimizers.policies.base import check_hidden

CHECKPOINTS = 10
"""Checkpoints written during a training."""
BANK = 256
"""Scenarios that restarts are drawn from: a plant's start can cost more than many of its steps."""
LOGS = ["csv", "tensorboard"] if find_spec("tensorboard") else ["csv"]
"""Logs of a training with a folder; events for TensorBoard take the extra ``rl``."""
_FILE = "checkpoint.safetensors"


class Reinforcement(Controller, ABC):
    """What the algorithms share: the batched environment, normalisation, logs, checkpoints, and the deployed policy.

    Observations and rewards are normalised in training (:mod:`steersman.controllers.reinforcement.scaling`),
    observations likewise at run time. Actions of finite boxes are scaled from [-1, 1]. A training with a folder writes
    ``progress.csv``, TensorBoard events (extra ``rl``) and a checkpoint from which it goes on after a crash: weights,
    statistics and the count of steps, but neither the optimiser's moments nor a replay buffer, so a resumed training is
    **not** equal to an uninterrupted one, bit for bit, and :attr:`resumed` says so. A checkpoint that is damaged or of
    another training is reported, and the training begins again.

    Budgets are plant steps and are spent to the last one: the copies of the plant are as many as ``envs`` says, or
    fewer, down to about half of it, so that their number divides the budget. Where none does, less than one step of all
    copies stays unspent. The verdict at the end (:mod:`steersman.controllers.verdict`) is no part of it, but is
    counted.
    """

    def __init__(
        self, plant_steps: int, envs: int, hidden: tuple[int, ...], rate: float, gamma: float, normalise: Scheme
    ) -> None:
        """Store the settings.

        Raises:
            ValueError: If a number is out of range.
        """
        at_least(1, plant_steps=plant_steps, envs=envs)
        positive(rate=rate)
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma must lie in (0, 1], got {gamma}")
        one_of("standard", "robust", "off", normalise=normalise)
        check_hidden(hidden, 0)
        self.plant_steps, self.envs, self.hidden = plant_steps, envs, tuple(hidden)
        self.rate, self.gamma, self.normalise = rate, gamma, normalise

    @abstractmethod
    def _algorithm(self, env: Normalize, seed: int) -> BaseAlgorithm:
        """The algorithm on the environment."""

    @abstractmethod
    def _fresh(self, observations: spaces.Box, actions: spaces.Space[Any]) -> BasePolicy:
        """The algorithm's policy network, untrained."""

    def bind(self, problem: ControlProblem, model: Dynamics | None = None) -> Reinforcement:
        """Build the policy for the problem's spaces.

        Raises:
            ValueError: If an action is unbounded, or the algorithm cannot serve the action set.
        """
        if not problem.actions.bounded:
            raise ValueError(f"{self.name} needs finite action bounds; use the bounded variant of the plant")
        super().bind(problem, model)
        space = problem.actions.space()
        self._scaled = isinstance(space, spaces.Box)
        if self._scaled:
            space = spaces.Box(-1.0, 1.0, (problem.actions.m,), np.float32)
        self._check(space)
        torch.manual_seed(0)  # stable-baselines3 draws weights from the global generator only
        self._policy = self._fresh(spaces.Box(-np.inf, np.inf, (problem.ny,), np.float64), space)
        self._policy.set_training_mode(False)
        self._mean, self._std = torch.zeros(problem.ny).double(), torch.ones(problem.ny).double()
        return self

    def _check(self, space: spaces.Space[Any]) -> None:
        """Refuse action spaces that the algorithm cannot serve."""

    def train(self, training: Training) -> TrainingCost:
        """Learn for the budget of plant steps; with a folder, from the last checkpoint on."""
        start = time.process_time()
        tensors, done = self._checkpoint(training)
        self.resumed = done > 0
        left = max(self.plant_steps - done, 0)
        rows = copies(left, self.envs)
        env = self._environment(training, rows)
        algorithm = self._algorithm(env, training.seed)
        algorithm.set_logger(configure(None, []))
        try:
            if training.folder is not None:
                training.folder.mkdir(parents=True, exist_ok=True)
                algorithm.set_logger(configure(str(training.folder), LOGS))
            if self.resumed:
                _restore(algorithm, env, tensors)
            if left >= rows:
                watch = _Watch(self, training, env, done)
                algorithm.learn(left // rows * rows, callback=watch)
                done += algorithm.num_timesteps
            self._take(algorithm, env)
        finally:
            algorithm.logger.close()
            env.close()
        verdict = judge(self, training)
        self.notes = verdict.notes
        return TrainingCost(done + verdict.plant_steps, time.process_time() - start, ((done, verdict.cost),))

    def _environment(self, training: Training, rows: int) -> Normalize:
        simulator = training.simulate(rows)
        plant = simulator.plant
        bank = None if plant is None else draw_scenarios(plant, training.keys(BANK))
        inner = SB3VecEnv(PlantVectorEnv(simulator, bank=bank))
        inner.seed(training.seed)
        return Normalize(inner, self.normalise, self.gamma)

    def _take(self, algorithm: BaseAlgorithm, env: Normalize) -> None:
        """Take weights and statistics over."""
        self._policy.load_state_dict(algorithm.policy.state_dict())
        self._policy.set_training_mode(False)
        if self.normalise != "off":
            statistics: Any = env.obs_rms
            self._mean = torch.as_tensor(statistics.mean).double().clone()
            self._std = torch.as_tensor(statistics.var + env.epsilon).double().sqrt()

    @torch.no_grad()
    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        """The deterministic action of the policy."""
        scaled = (m.y.to(self._mean) - self._mean) / self._std
        # The algorithms' interface is numpy's: on a GPU a decision goes by way of the CPU.
        obs = torch.as_tensor(seen(self.normalise, scaled.cpu().numpy()))
        action = torch.as_tensor(self._policy.predict(obs.numpy(), deterministic=True)[0])
        actions = self.problem.actions
        if self._scaled:
            lower, upper = actions.bounds(obs)
            u = lower + (action.double() + 1) / 2 * (upper - lower)
        else:
            u = actions.decode(action)
        return self.optimal(u.to(m.y))

    def state_dict(self) -> dict[str, Tensor]:
        """Weights and statistics of the observations."""
        weights = {f"policy.{name}": t.detach().clone() for name, t in self._policy.state_dict().items()}
        return {**weights, "mean": self._mean, "std": self._std}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See :class:`~steersman.controllers.base.Controller`."""
        self._policy.load_state_dict({name[7:]: t for name, t in state.items() if name.startswith("policy.")})
        self._mean, self._std = state["mean"], state["std"]

    # ------------------------------------------------------------------ checkpoints

    def save_checkpoint(self, algorithm: BaseAlgorithm, env: Normalize, steps: int, folder: Path) -> None:
        """Write weights, statistics and the count of steps."""
        tensors = {f"policy.{name}": t.contiguous() for name, t in algorithm.policy.state_dict().items()}
        for name, rms in (("obs", env.obs_rms), ("ret", env.ret_rms)):
            for part in ("mean", "var", "count"):
                tensors[f"{name}.{part}"] = torch.as_tensor(np.asarray(getattr(rms, part), dtype=np.float64)).clone()
        write_checkpoint(folder / _FILE, dict(tensors), {"about": self._about(algorithm.seed), "steps": steps})

    def _checkpoint(self, training: Training) -> tuple[dict[str, Tensor], int]:
        """The last checkpoint and the plant steps up to then; nothing if there is none of this training."""
        path = None if training.folder is None else training.folder / _FILE
        if path is None or not path.is_file():
            return {}, 0
        try:
            found, notes = read_checkpoint(path)
            if notes.get("about") != self._about(training.seed):
                raise CheckpointError(f"{path} is of a training with another seed, other settings or another problem")
        except CheckpointError as error:
            set_aside(path, error)
            return {}, 0
        return {name: t for name, t in found.items() if isinstance(t, Tensor)}, int(notes["steps"])

    def _about(self, seed: int | None) -> str:
        """Digest of what a training follows from, as far as it can be told apart."""
        # Not the budget: a training may go on for longer than was first meant.
        left_out = ("plant_steps", "resumed")
        numbers = {name: v for name, v in vars(self).items() if isinstance(v, int | float | str | tuple)}
        own = {name: v for name, v in numbers.items() if name[0] != "_" and name not in left_out}
        shapes = {name: list(t.shape) for name, t in self._policy.state_dict().items()}
        return digest(self.name, seed, own, shapes, self.problem.measured, self.problem.performed)


def _restore(algorithm: BaseAlgorithm, env: Normalize, tensors: dict[str, Tensor]) -> None:
    """Load what :meth:`Reinforcement.save_checkpoint` wrote."""
    algorithm.policy.load_state_dict({name[7:]: t for name, t in tensors.items() if name.startswith("policy.")})
    for name, rms in (("obs", env.obs_rms), ("ret", env.ret_rms)):
        mean, var = (tensors[f"{name}.{part}"].numpy() for part in ("mean", "var"))
        rms.restore(mean, var, int(tensors[f"{name}.count"]))


class _Watch(BaseCallback):
    """Reports progress and writes checkpoints."""

    def __init__(self, owner: Reinforcement, training: Training, env: Normalize, done: int) -> None:
        super().__init__()
        self._owner, self._training, self._env, self._done = owner, training, env, done
        self._every = max(1, owner.plant_steps // CHECKPOINTS)
        self._next = done + self._every

    def _on_step(self) -> bool:
        steps = self._done + self.num_timesteps
        self._training.progress(min(1.0, steps / self._owner.plant_steps), f"{steps:,} plant steps")
        if steps >= self._next and self._training.folder is not None:
            self._next += self._every
            self._owner.save_checkpoint(self.model, self._env, steps, self._training.folder)
        return True
