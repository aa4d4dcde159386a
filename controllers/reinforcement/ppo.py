"""Proximal policy optimisation."""

from __future__ import annotations

import math
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy

from steersman.controllers.reinforcement.base import Reinforcement
from steersman.controllers.reinforcement.budget import EvenPPO
from steersman.controllers.reinforcement.scaling import Normalize, Scheme
from steersman.envs.actions import ActionSet
from steersman.envs.settings import at_least, positive


class PPO(Reinforcement):
    """Proximal policy optimisation (Schulman et al. 2017).

    A policy over discrete actions may begin near the neutral one (``lean``): one that begins by using a brake half of
    the time learns to use it always. Where acting pays it only explores less: on ``steersman/CarT-v1`` two seeds cost
    280 and 281 after 50,000 plant steps without a head start, and with one of 2 learned to do nothing (440).
    """

    name = "ppo"

    def __init__(
        self,
        plant_steps: int = 100_000,
        envs: int = 32,
        hidden: tuple[int, ...] = (64, 64),
        rate: float = 3e-4,
        gamma: float = 0.99,
        normalise: Scheme = "standard",
        rollout: int = 64,
        batch: int = 256,
        epochs: int = 10,
        entropy: float = 0.0,
        spread: float = 1.0,
        lean: float = 0.0,
    ) -> None:
        """Store the settings.

        Args:
            plant_steps: Budget.
            envs: Copies of the plant.
            hidden: Widths of the hidden layers of actor and critic.
            rate: Learning rate.
            gamma: Discount.
            normalise: How observations and rewards are normalised: "standard", "robust" where a poor policy lets the
                plant run away, or "off".
            rollout: Steps of each copy between updates, at most: rollouts are made equal in length.
            batch: Mini-batch, about: those of a rollout are made equal in size.
            epochs: Passes over each rollout.
            entropy: Weight of the entropy bonus.
            spread: Standard deviation of a continuous action at the start, in halves of its range.
            lean: Head start of the neutral choice of a discrete action, in logits.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(plant_steps, envs, hidden, rate, gamma, normalise)
        at_least(1, rollout=rollout, epochs=epochs)
        at_least(2, batch=batch, plant_steps=plant_steps)
        at_least(0, entropy=entropy, lean=lean)
        positive(spread=spread)
        self.rollout, self.batch, self.epochs, self.entropy, self.spread = rollout, batch, epochs, entropy, spread
        self.lean = lean

    def _algorithm(self, env: Normalize, seed: int) -> BaseAlgorithm:
        algorithm = EvenPPO(
            "MlpPolicy", env, self.rate, self.rollout, self.rollout * env.num_envs, self.epochs, self.gamma,
            ent_coef=self.entropy, seed=seed, device=self.device, batch=self.batch,
            policy_kwargs={"net_arch": list(self.hidden), "log_std_init": math.log(self.spread)},
        )  # fmt: skip
        lean(algorithm.policy, self.problem.actions, self.lean)
        return algorithm

    def _fresh(self, observations: spaces.Box, actions: spaces.Space[Any]) -> BasePolicy:
        return ActorCriticPolicy(observations, actions, lambda _: self.rate, net_arch=list(self.hidden))


@torch.no_grad()
def lean(policy: ActorCriticPolicy, actions: ActionSet, by: float) -> None:
    """Give the neutral choices of discrete actions a head start in the policy's logits."""
    if not (by and actions.discrete):
        return
    like = torch.zeros(1, dtype=torch.float64)
    chosen = actions.encode(actions.neutral(1, like)).flatten()
    first = torch.tensor([0, *actions.levels[:-1]]).cumsum(0)
    assert isinstance(policy.action_net, torch.nn.Linear)  # noqa: S101 - what stable-baselines3 makes for logits
    policy.action_net.bias[first + chosen] += by
