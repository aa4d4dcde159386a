"""Dynamics-informed neural control: a policy trained by backpropagation through a model of the plant."""

from __future__ import annotations

import math
import time
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.controllers.base import Training, TrainingCost
from steersman.controllers.informed import ModelRollouts, PlantRollouts, Rollouts
from steersman.controllers.policy import TrainedPolicy, build_policy, to_action
from steersman.dynamics.base import Dynamics
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import at_least, one_of, positive
from steersman.optimizers.resumable import Descent, Resumable
from steersman.optimizers.vectorise import assign, flatten

CHECKS = 10
"""Times that the policy is validated during a training."""


class NeuralPolicy(TrainedPolicy):
    """A network that is trained on the objective itself, through the model that predicts it.

    Rollouts through the model start from windows of episodes under exploration and, after the first half of the
    training, under the policy. Each gradient step rolls a batch of them out for ``horizon`` steps (with
    ``curriculum``, growing from a quarter of it) and descends the mean cost: differentiable predictive control
    (Drgona et al. 2022) with a learned model, analytic policy gradients with the plant itself. Integer actions pass
    their gradient straight through the rounding. Steps with a gradient that is not finite are skipped.

    Through the plant ("truth"), every step of a rollout is counted as a plant step and the track is "solver
    access", although the trained policy reads measured outputs only.
    """

    name = "neural"

    def __init__(
        self,
        policy: Literal["mlp", "gru"] = "mlp",
        hidden: tuple[int, ...] = (32, 32),
        steps: int = 400,
        batch: int = 64,
        rate: float = 3e-3,
        horizon: int = 20,
        curriculum: bool = True,
        doubt: float = 0.0,
        penalty: float = 0.0,
        explore: int = 16,
        rollouts: Literal["model", "plant"] = "model",
    ) -> None:
        """Store the settings.

        Args:
            policy: Architecture.
            hidden: Widths of the hidden layers.
            steps: Gradient steps.
            batch: Rollouts per gradient step.
            rate: Initial learning rate of Adam, cosine schedule.
            horizon: Control steps of a rollout.
            curriculum: Whether rollouts start short and grow.
            doubt: Cost of leaving the model's data: times the model's doubt above 1, each step.
            penalty: Weight of the plant's soft constraints, through the plant ("truth"); learned models know none.
            explore: Episodes that starting points and normalisation are taken from.
            rollouts: ``model`` predicts; ``plant`` runs the plant and takes derivatives from the model
                (:class:`~steersman.controllers.informed.PlantRollouts`).

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(policy, hidden, explore, None)
        at_least(1, steps=steps, batch=batch, horizon=horizon)
        at_least(0, doubt=doubt, penalty=penalty)
        positive(rate=rate)
        one_of("model", "plant", rollouts=rollouts)
        self.steps, self.batch, self.rate, self.horizon = steps, batch, rate, horizon
        self.curriculum, self.doubt, self.penalty, self.rollouts = curriculum, doubt, penalty, rollouts

    def bind(self, problem: ControlProblem, model: Dynamics | None = None) -> NeuralPolicy:
        """Attach the model that training differentiates.

        Raises:
            ValueError: Without a model, with an objective without terms, or with a true plant without gradient.
        """
        if model is None:
            raise ValueError("neural is trained through a model; give it one, for example 'truth' or 'neural'")
        if not problem.objective.stage:
            raise ValueError("neural needs an objective written in the outputs; state one in the comparison file")
        if model.needs_state and self.rollouts == "plant":
            raise ValueError("rollouts='plant' needs a learned model, whose derivatives it uses; 'truth' has its own")
        if model.needs_state and problem.gradient == "none":
            raise ValueError("this plant has no gradient; train through a learned model such as 'neural'")
        super().bind(problem, model)
        return self

    def train(self, training: Training) -> TrainingCost:
        """Descend the cost of rollouts; the policy with the lowest validated cost stays.

        A training with a folder that was killed goes on from there, to the bits of one that was not.
        """
        start = time.process_time()
        used = self._normalise(training)
        self._policy = build_policy(self.policy, self.problem.ny, self.problem.actions.m, self.hidden, training.seed)
        source, weights = self._source(training), list(self._policy.parameters())
        optimiser = torch.optim.Adam(weights, self.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        best: dict[str, Any] = {"weights": flatten(self._policy), "cost": math.inf}

        def descend(i: int) -> bool:
            if i == self.steps // 2:
                source.renew()
                best["cost"] = math.inf
            loss = source.loss(self._length(i))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.clip_grad_norm_(weights, 1.0)
            if bool(torch.isfinite(norm)):
                optimiser.step()
            schedule.step()
            if (i + 1) % max(1, self.steps // CHECKS) == 0 or i == self.steps - 1:
                cost = source.validate(self.horizon)
                if cost < best["cost"]:
                    best["weights"], best["cost"] = flatten(self._policy), cost
                training.progress((i + 1) / self.steps, f"cost of a step {cost:.4g}")
            return False

        resumable = Resumable(training.folder, *self._about(training))
        descent = Descent(weights, optimiser, schedule, source=source, notes=best)
        resumable.run("train", descent, self.steps, descend, lambda done: source.whole(self._length(done)))
        assign(self._policy, best["weights"])
        return TrainingCost(used + source.used, time.process_time() - start + resumable.seconds)

    def _about(self, training: Training) -> tuple[Any, ...]:
        """What the training follows from, as far as it can be told apart."""
        assert self.model is not None  # noqa: S101 - a policy without model refuses to be bound
        own = (self.name, self.policy, self.hidden, self.steps, self.batch, self.rate, self.horizon, self.curriculum)
        more = (self.doubt, self.penalty, self.explore, self.rollouts, training.seed)
        model = type(self.model).__name__, dict(self.model.state_dict())
        return *own, *more, *model, self._mean, self._std, self.problem.measured, self.problem.performed

    def _source(self, training: Training) -> Rollouts:
        fresh = lambda n: self._policy.initial_state(n)  # noqa: E731
        if self.rollouts == "plant":
            return PlantRollouts(self, self.law, fresh, training, self.batch)
        return ModelRollouts(self, self.law, fresh, training, self.batch, self.explore, self.doubt, self.penalty)

    def _length(self, i: int) -> int:
        """Steps of the rollouts of gradient step i."""
        share = 0.25 + 0.75 * min(1.0, 2 * i / self.steps) if self.curriculum else 1.0
        return max(1, min(round(self.horizon * share), self.problem.horizon))

    def law(self, y: Float[Tensor, "n ny"], state: Tensor) -> tuple[Float[Tensor, "n m"], Tensor]:
        """The policy with its gradient: actions and the next memory."""
        raw, state = self._policy(self.observe(y), state)
        return self._through(to_action(self.problem.actions, raw.to(y))), state

    def _through(self, u: Tensor) -> Tensor:
        """Rounding of integer actions with the gradient of the identity (straight-through; Bengio et al. 2013)."""
        if self.problem.actions.continuous:
            return u
        return u + (self.problem.actions.project(u) - u).detach()
