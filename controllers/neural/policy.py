"""What trained policies share: how outputs become observations, and how a population acts on them."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from steersman.controllers.base import Controller, Decision, Training
from steersman.controllers.kinds import policy_kind
from steersman.controllers.neural.squash import scored_action
from steersman.dynamics.base import Dynamics
from steersman.dynamics.collect import collect
from steersman.dynamics.linear.regression import quartiles, spread
from steersman.envs.actions import ActionSet
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import at_least, one_of
from steersman.envs.simulator import Measurement
from steersman.optimizers.policies.base import Policy, check_hidden
from steersman.optimizers.policies.registry import make_policy

Scaling = Literal["standard", "robust"]
"""How observations are normalised: by mean and deviation, or by median and quartiles."""
LIMIT = 4.0
"""Observations are clipped to so many standard deviations."""


def build_policy(name: str, inputs: int, outputs: int, hidden: tuple[int, ...], seed: int) -> Policy:
    """A fresh policy with weights drawn from the seed.

    Raises:
        ValueError: If there is no such policy or it cannot have these widths.
    """
    return make_policy(policy_kind(name), inputs, outputs, hidden, gen=torch.Generator().manual_seed(seed))


class Unremembering(Policy):
    """A plain module ``obs -> raw action`` in the shape of a policy without memory."""

    def __init__(self, module: nn.Module, inputs: int, outputs: int) -> None:
        """Wrap the module."""
        super().__init__(inputs, outputs, 0)
        self.module = module

    def forward(
        self, obs: Float[Tensor, "n inputs"], state: Float[Tensor, "n memory"]
    ) -> tuple[Float[Tensor, "n outputs"], Float[Tensor, "n memory"]]:
        """See :class:`~steersman.optimizers.policies.base.Policy`."""
        return self.module(obs), state


def member_actions(
    forward: Callable[..., Any],
    actions: ActionSet,
    mean: Float[Tensor, "_ 1 ny"],
    std: Float[Tensor, "_ 1 ny"],
    y: Float[Tensor, "pop width ny"],
    memory: Float[Tensor, "pop width memory"],
) -> tuple[Float[Tensor, "rows m"], Float[Tensor, "pop width memory"]]:
    """Actions of a population, member by member and not yet projected, and the memory after them.

    Args:
        forward: Policies of all members, from observations and memory to raw actions and memory.
        actions: What the plant accepts.
        mean: Subtracted from outputs.
        std: Outputs are divided by it.
        y: Outputs.
        memory: Memory of the policies.
    """
    centred = ((y.to(mean) - mean) / std).clamp(-LIMIT, LIMIT).nan_to_num()
    raw, memory = forward(centred, memory)
    return scored_action(actions, raw.flatten(0, 1).to(y)), memory


class TrainedPolicy(Controller, ABC):
    """A policy on normalised measured outputs; subclasses say how it is trained.

    Observations are ``(y - mean) / std`` of the model's data or of exploratory episodes, clipped to :data:`LIMIT`; a
    plant that measures its references shows them to the policy as well. Where exploration makes a plant run away, its
    deviations are those of the run-aways, and a policy hardly sees what happens near its goal; robust scales are of the
    median and the quartiles. On ``steersman/TransportBoundary-v2`` 100,000 plant steps of CMA-ES cost 333,106 by
    deviations and 56.9 by quartiles (backstepping: 59.7).
    """

    def __init__(
        self,
        policy: str,
        hidden: tuple[int, ...],
        explore: int,
        module: nn.Module | None,
        normalise: Scaling = "standard",
    ) -> None:
        """Store the settings.

        Raises:
            ValueError: If ``explore`` or a width is below 1, or there is no such policy or normalisation.
        """
        policy_kind(policy)
        one_of("standard", "robust", normalise=normalise)
        at_least(1, explore=explore)
        check_hidden(hidden, 0)
        self.policy, self.hidden, self.explore, self.module = policy, tuple(hidden), explore, module
        self.normalise = normalise

    def bind(self, problem: ControlProblem, model: Dynamics | None = None) -> TrainedPolicy:
        """Build the policy for the problem's outputs and actions."""
        super().bind(problem, model)
        m = problem.actions.m
        if self.module is None:
            self._policy: Policy = build_policy(self.policy, problem.ny, m, self.hidden, 0)
        else:
            own = self.module
            self._policy = own if isinstance(own, Policy) else Unremembering(own, problem.ny, m)
        self._mean, self._std = torch.zeros(problem.ny).double(), torch.ones(problem.ny).double()
        return self

    def reset(self, n: int, mask: Bool[Tensor, "n"] | None = None, *, gen: torch.Generator | None = None) -> None:
        """Clear the memory."""
        super().reset(n, mask, gen=gen)
        fresh = self._policy.initial_state(n)
        self._state: Tensor = fresh if mask is None else torch.where(mask[:, None], fresh, self._state)

    @torch.no_grad()
    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        """See :class:`~steersman.controllers.base.Controller`."""
        if len(self._state) != m.n:
            self._state = self._policy.initial_state(m.n)
        u, self._state = self.respond(m.y, self._state)
        return self.optimal(u)

    def respond(
        self, y: Float[Tensor, "n ny"], memory: Float[Tensor, "n memory"]
    ) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n memory"]]:
        """Actions, not yet projected, and the next memory."""
        raw, memory = self._policy(self.observe(y), memory)
        return scored_action(self.problem.actions, raw.to(y)), memory

    @property
    def network(self) -> Policy:
        """The policy from normalised observations to raw actions."""
        return self._policy

    @property
    def centre(self) -> Float[Tensor, "ny"]:
        """What is subtracted from outputs."""
        return self._mean

    @property
    def scale(self) -> Float[Tensor, "ny"]:
        """What outputs are divided by."""
        return self._std

    def observe(self, y: Float[Tensor, "*b ny"]) -> Float[Tensor, "*b ny"]:
        """Normalised observations in the type of the policy's weights."""
        like = next(self._policy.parameters())
        return ((y.to(like) - self._mean.to(like)) / self._std.to(like)).clamp(-LIMIT, LIMIT)

    def _normalise(self, training: Training) -> int:
        """Take mean and spread from the model's data, or from exploratory episodes; the plant steps they used."""
        data, used = training.data, 0
        if data is None:
            simulator = training.simulate(self.explore)
            data = collect(simulator, training.excite(), episodes=self.explore, seed=training.seed + 1)
            used = data.steps
        seen = data.valid & data.seen[:, :-1].all(dim=-1)  # what was not seen repeats what was
        found = data.y[:, :-1][seen if bool(seen.any()) else data.valid].double()
        self._mean, self._std = (quartiles if self.normalise == "robust" else spread)(found)
        return used

    def state_dict(self) -> dict[str, Tensor]:
        """Weights and normalisation."""
        weights = {f"policy.{name}": t.detach() for name, t in self._policy.state_dict().items()}
        return {**weights, "mean": self._mean, "std": self._std}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See :class:`~steersman.controllers.base.Controller`."""
        weights = {name[7:]: t for name, t in state.items() if name.startswith("policy.")}
        self._policy.load_state_dict(weights)
        self._mean, self._std = state["mean"], state["std"]
