"""Reinforcement learning by stable-baselines3 as controllers: PPO, SAC and DQN on the batched plant."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import stable_baselines3 as sb3
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor

from steersman.controllers.base import Controller, Decision, Training, TrainingCost
from steersman.controllers.rl_budget import EvenPPO, check_warmup, copies, updates_of
from steersman.controllers.scaling import CLIP, RobustNormalize, compress
from steersman.controllers.verdict import judge
from steersman.dynamics.base import Dynamics
from steersman.envs.plant import ControlProblem
from steersman.envs.sb3 import SB3VecEnv
from steersman.envs.settings import at_least, positive
from steersman.envs.simulator import Measurement, draw_scenarios
from steersman.envs.vector import PlantVectorEnv
from steersman.optimizers.checkpoint import CheckpointError, digest, read_checkpoint, set_aside, write_checkpoint
from steersman.optimizers.policies.base import check_hidden

CHECKPOINTS = 10
"""Checkpoints written during a training."""
BANK = 256
"""Scenarios that restarts are drawn from: a plant's start can cost more than many of its steps."""
_FILE = "checkpoint.safetensors"


class Reinforcement(Controller, ABC):
    """What the algorithms share: the batched environment, normalisation, logs, checkpoints, and the deployed policy.

    Observations and rewards are normalised by running quartiles in training (:mod:`steersman.controllers.scaling`),
    observations with the same ones at run time. Actions of finite boxes are scaled from [-1, 1]. A training with a
    folder writes ``progress.csv``, TensorBoard events and a checkpoint from which it goes on after a crash: weights,
    statistics and the count of steps, but neither the optimiser's moments nor a replay buffer, so a resumed training is
    **not** equal to an uninterrupted one, bit for bit, and :attr:`resumed` says so. A checkpoint that is damaged or of
    another training is reported, and the training begins again.

    Budgets are plant steps and are spent to the last one: the copies of the plant are as many as ``envs`` says, or
    fewer, down to about half of it, so that their number divides the budget. Where none does, less than one step of all
    copies stays unspent. The verdict at the end (:mod:`steersman.controllers.verdict`) comes on top and is counted.
    """

    def __init__(
        self, plant_steps: int, envs: int, hidden: tuple[int, ...], rate: float, gamma: float, normalise: bool
    ) -> None:
        """Store the settings.

        Raises:
            ValueError: If a number is out of range.
        """
        at_least(1, plant_steps=plant_steps, envs=envs)
        positive(rate=rate)
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma must lie in (0, 1], got {gamma}")
        check_hidden(hidden, 0)
        self.plant_steps, self.envs, self.hidden = plant_steps, envs, tuple(hidden)
        self.rate, self.gamma, self.normalise = rate, gamma, normalise

    @abstractmethod
    def _algorithm(self, env: RobustNormalize, seed: int) -> BaseAlgorithm:
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
                algorithm.set_logger(configure(str(training.folder), ["csv", "tensorboard"]))
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

    def _environment(self, training: Training, rows: int) -> RobustNormalize:
        simulator = training.simulate(rows)
        plant = simulator.plant
        bank = None if plant is None else draw_scenarios(plant, training.keys(BANK))
        inner = SB3VecEnv(PlantVectorEnv(simulator, bank=bank))
        inner.seed(training.seed)
        return RobustNormalize(inner, on=self.normalise, gamma=self.gamma)

    def _take(self, algorithm: BaseAlgorithm, env: RobustNormalize) -> None:
        """Take weights and statistics over."""
        self._policy.load_state_dict(algorithm.policy.state_dict())
        self._policy.set_training_mode(False)
        if self.normalise:
            statistics: Any = env.obs_rms
            self._mean = torch.as_tensor(statistics.mean).double().clone()
            self._std = torch.as_tensor(statistics.var + env.epsilon).double().sqrt()

    @torch.no_grad()
    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        """The deterministic action of the policy."""
        obs = (m.y.double().cpu() - self._mean) / self._std
        if self.normalise:
            obs = torch.as_tensor(compress(obs.numpy())).clamp(-CLIP, CLIP)
        action = torch.as_tensor(self._policy.predict(obs.numpy(), deterministic=True)[0])
        actions = self.problem.actions
        if self._scaled:
            lower, upper = actions.bounds(obs)
            u = lower + (action.double() + 1) / 2 * (upper - lower)
        else:
            u = actions.decode(action)
        return self._optimal(u.to(m.y))

    def state_dict(self) -> dict[str, Tensor]:
        """Weights and statistics of the observations."""
        weights = {f"policy.{name}": t.detach().clone() for name, t in self._policy.state_dict().items()}
        return {**weights, "mean": self._mean, "std": self._std}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See :class:`~steersman.controllers.base.Controller`."""
        self._policy.load_state_dict({name[7:]: t for name, t in state.items() if name.startswith("policy.")})
        self._mean, self._std = state["mean"], state["std"]

    # ------------------------------------------------------------------ checkpoints

    def save_checkpoint(self, algorithm: BaseAlgorithm, env: RobustNormalize, steps: int, folder: Path) -> None:
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
        numbers = {name: v for name, v in vars(self).items() if isinstance(v, int | float | tuple)}
        own = {name: v for name, v in numbers.items() if name[0] != "_" and name not in left_out}
        shapes = {name: list(t.shape) for name, t in self._policy.state_dict().items()}
        return digest(self.name, seed, own, shapes, self.problem.measured, self.problem.performed)


def _restore(algorithm: BaseAlgorithm, env: RobustNormalize, tensors: dict[str, Tensor]) -> None:
    """Load what :meth:`Reinforcement.save_checkpoint` wrote."""
    algorithm.policy.load_state_dict({name[7:]: t for name, t in tensors.items() if name.startswith("policy.")})
    for name, rms in (("obs", env.obs_rms), ("ret", env.ret_rms)):
        mean, var = (tensors[f"{name}.{part}"].numpy() for part in ("mean", "var"))
        rms.restore(mean, var, int(tensors[f"{name}.count"]))


class _Watch(BaseCallback):
    """Reports progress and writes checkpoints."""

    def __init__(self, owner: Reinforcement, training: Training, env: RobustNormalize, done: int) -> None:
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


class PPO(Reinforcement):
    """Proximal policy optimisation (Schulman et al. 2017)."""

    name = "ppo"

    def __init__(
        self,
        plant_steps: int = 100_000,
        envs: int = 32,
        hidden: tuple[int, ...] = (64, 64),
        rate: float = 3e-4,
        gamma: float = 0.99,
        normalise: bool = True,
        rollout: int = 64,
        batch: int = 256,
        epochs: int = 10,
        entropy: float = 0.0,
        spread: float = 1.0,
    ) -> None:
        """Store the settings.

        Args:
            plant_steps: Budget.
            envs: Copies of the plant.
            hidden: Widths of the hidden layers of actor and critic.
            rate: Learning rate.
            gamma: Discount.
            normalise: Whether observations and rewards are normalised.
            rollout: Steps of each copy between updates, at most: rollouts are made equal in length.
            batch: Mini-batch, about: those of a rollout are made equal in size.
            epochs: Passes over each rollout.
            entropy: Weight of the entropy bonus.
            spread: Standard deviation of a continuous action at the start, in halves of its range.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(plant_steps, envs, hidden, rate, gamma, normalise)
        at_least(1, rollout=rollout, epochs=epochs)
        at_least(2, batch=batch, plant_steps=plant_steps)
        at_least(0, entropy=entropy)
        positive(spread=spread)
        self.rollout, self.batch, self.epochs, self.entropy, self.spread = rollout, batch, epochs, entropy, spread

    def _algorithm(self, env: RobustNormalize, seed: int) -> BaseAlgorithm:
        return EvenPPO(
            "MlpPolicy", env, self.rate, self.rollout, self.rollout * env.num_envs, self.epochs, self.gamma,
            ent_coef=self.entropy, seed=seed, device="cpu", batch=self.batch,
            policy_kwargs={"net_arch": list(self.hidden), "log_std_init": math.log(self.spread)},
        )  # fmt: skip

    def _fresh(self, observations: spaces.Box, actions: spaces.Space[Any]) -> BasePolicy:
        return ActorCriticPolicy(observations, actions, lambda _: self.rate, net_arch=list(self.hidden))


class SAC(Reinforcement):
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
        normalise: bool = True,
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
            normalise: Whether observations and rewards are normalised.
            batch: Mini-batch.
            updates: Gradient steps after each step of all ``envs`` copies; as many as ``envs`` make one per plant step.
            warmup: Plant steps under random actions.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(plant_steps, envs, hidden, rate, gamma, normalise)
        at_least(1, batch=batch, updates=updates)
        check_warmup(warmup, plant_steps)
        self.batch, self.updates, self.warmup = batch, updates, warmup

    def _check(self, space: spaces.Space[Any]) -> None:
        if not isinstance(space, spaces.Box):
            raise ValueError("sac needs continuous actions; use ppo or dqn on this plant")

    def _algorithm(self, env: RobustNormalize, seed: int) -> BaseAlgorithm:
        return sb3.SAC(
            "MlpPolicy", env, self.rate, self.plant_steps, self.warmup, self.batch, gamma=self.gamma,
            gradient_steps=updates_of(self.updates, env.num_envs / self.envs), seed=seed, device="cpu",
            policy_kwargs={"net_arch": list(self.hidden)},
        )  # fmt: skip

    def _fresh(self, observations: spaces.Box, actions: spaces.Space[Any]) -> BasePolicy:
        assert isinstance(actions, spaces.Box)  # noqa: S101 - _check has seen to it
        return SACPolicy(observations, actions, lambda _: self.rate, net_arch=list(self.hidden))


class DQN(Reinforcement):
    """Deep Q-learning (Mnih et al. 2015), for one discrete action."""

    name = "dqn"

    def __init__(
        self,
        plant_steps: int = 50_000,
        envs: int = 16,
        hidden: tuple[int, ...] = (64, 64),
        rate: float = 1e-3,
        gamma: float = 0.99,
        normalise: bool = True,
        batch: int = 128,
        updates: int = 4,
        warmup: int = 2000,
        exploration: float = 0.3,
    ) -> None:
        """Store the settings.

        Args:
            plant_steps: Budget.
            envs: Copies of the plant.
            hidden: Widths of the hidden layers.
            rate: Learning rate.
            gamma: Discount.
            normalise: Whether observations and rewards are normalised.
            batch: Mini-batch.
            updates: Gradient steps after each step of all ``envs`` copies; as many as ``envs`` make one per plant step.
            warmup: Plant steps under random actions.
            exploration: Share of the budget over which random actions fade out.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(plant_steps, envs, hidden, rate, gamma, normalise)
        at_least(1, batch=batch, updates=updates)
        check_warmup(warmup, plant_steps)
        if not 0 < exploration <= 1:
            raise ValueError(f"exploration must lie in (0, 1], got {exploration}")
        self.batch, self.updates, self.warmup, self.exploration = batch, updates, warmup, exploration

    def _check(self, space: spaces.Space[Any]) -> None:
        if not isinstance(space, spaces.Discrete):
            raise ValueError("dqn needs one discrete action; use ppo or sac on this plant")

    def _algorithm(self, env: RobustNormalize, seed: int) -> BaseAlgorithm:
        return sb3.DQN(
            "MlpPolicy", env, self.rate, self.plant_steps, self.warmup, self.batch, gamma=self.gamma, train_freq=1,
            gradient_steps=updates_of(self.updates, env.num_envs / self.envs), target_update_interval=1000,
            exploration_fraction=self.exploration, seed=seed, device="cpu",
            policy_kwargs={"net_arch": list(self.hidden)},
        )  # fmt: skip

    def _fresh(self, observations: spaces.Box, actions: spaces.Space[Any]) -> BasePolicy:
        assert isinstance(actions, spaces.Discrete)  # noqa: S101 - _check has seen to it
        return DQNPolicy(observations, actions, lambda _: self.rate, net_arch=list(self.hidden))
