"""Dynamics-informed neural control: a policy trained by backpropagation through a model of the plant."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.controllers.base import Training, TrainingCost
from steersman.controllers.neural.descent import Spent, descend
from steersman.controllers.neural.informed import ModelRollouts, PlantRollouts, Rollouts
from steersman.controllers.neural.policy import Scaling, TrainedPolicy, build_policy
from steersman.controllers.neural.refit import paired, refitted, under_policy
from steersman.controllers.neural.squash import decided, scored_action, spread_of
from steersman.controllers.verdict import judge
from steersman.dynamics.base import Dynamics, Window
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import at_least, one_of, positive
from steersman.optimizers.resumable import Resumable
from steersman.optimizers.vectorise import assign, flatten

STARTS = 3
"""Weights that a training begins from, one after the other, as long as policies die."""
ALIVE = 1e-3
"""Least spread of an action over what a policy sees, relative to the action's range; below it the policy is dead."""


class NeuralPolicy(TrainedPolicy):
    """A network that is trained on the objective itself, through the model that predicts it.

    Rollouts through the model start from windows of episodes under exploration, later from those of fresh episodes
    under the policy. Each gradient step rolls a batch of them out for ``horizon`` steps (with ``curriculum``, growing
    from a quarter of it) and descends the mean cost: differentiable predictive control (Drgona et al. 2022) with a
    learned model, analytic policy gradients with the plant itself. Where the objective has terminal terms only,
    rollouts go to the end of the episode. Decisions (integer and one-hot actions) are drawn in training
    (:func:`~steersman.controllers.neural.squash.decided`). Steps with a gradient that is not finite are skipped.

    A model that was fitted to data errs where the policy goes. So it is fitted again, to its own data and to all
    episodes under the policy, and the policy is trained on through a copy of the model that nobody else sees. That
    takes the model's own data (:attr:`~steersman.controllers.base.Training.data`). Which of the two policies stays is
    decided on the plant: by their costs of the same episodes.

    The policy that goes into the second training is that of the renewal with the lowest cost on the plant, where that
    is lower than the last one's on the same episodes.

    A policy whose action does not depend on what it sees, or that has no gradient, is dead: the training begins again
    from other weights. At the end the policy meets doing nothing and constant actions on the simulator; :attr:`notes`
    say if it lost.

    Through the plant ("truth"), every step of a rollout is counted as a plant step and the track is "solver
    access", although the trained policy reads measured outputs only.
    """

    name = "neural"

    def __init__(
        self,
        policy: Literal["mlp", "gru"] = "mlp",
        hidden: tuple[int, ...] = (32, 32),
        steps: int = 500,
        batch: int = 64,
        rate: float = 3e-3,
        horizon: int = 40,
        curriculum: bool = True,
        doubt: float = 0.0,
        penalty: float = 0.0,
        explore: int = 16,
        rollouts: Literal["model", "plant"] = "model",
        renewals: int = 4,
        refit: int = 32,
        tune: int = 300,
        tune_rate: float = 2e-3,
        normalise: Scaling = "standard",
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
            explore: Episodes that starting points are taken from, each time.
            rollouts: ``model`` predicts; ``plant`` runs the plant and takes derivatives from the model
                (:class:`~steersman.controllers.neural.informed.PlantRollouts`).
            renewals: Times that starting points are taken from fresh episodes under the policy.
            refit: Episodes under the policy before a learned model is fitted again; 0 leaves it as it is.
            tune: Gradient steps after that.
            tune_rate: Their initial learning rate.
            normalise: ``standard`` observations are normalised by mean and deviation, ``robust`` ones by median and
                quartiles: for plants that run away under exploration.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(policy, hidden, explore, None, normalise)
        at_least(1, steps=steps, batch=batch, horizon=horizon, tune=tune)
        at_least(0, doubt=doubt, penalty=penalty, renewals=renewals, refit=refit)
        positive(rate=rate, tune_rate=tune_rate)
        one_of("model", "plant", rollouts=rollouts)
        self.steps, self.batch, self.rate, self.horizon = steps, batch, rate, horizon
        self.curriculum, self.doubt, self.penalty, self.rollouts = curriculum, doubt, penalty, rollouts
        self.renewals, self.refit, self.tune, self.tune_rate = renewals, refit, tune, tune_rate

    def bind(self, problem: ControlProblem, model: Dynamics | None = None) -> NeuralPolicy:
        """Attach the model that training differentiates.

        Raises:
            ValueError: Without a model, with an objective without terms, or with a true plant without gradient.
        """
        if model is None:
            raise ValueError("neural is trained through a model; give it one, for example 'truth' or 'neural'")
        if not problem.objective.stage and not problem.objective.terminal:
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
        self.notes = ()
        spent = Spent(self._normalise(training))
        source = self._first(training, spent)
        if self._fits_again(training, source):
            assert isinstance(source, ModelRollouts)  # noqa: S101 - _fits_again has seen to it
            self._second(training, source, spent)
        verdict = judge(self, training)
        self.notes += verdict.notes
        spent.add(verdict.plant_steps, [(0, verdict.cost)])
        return TrainingCost(spent.steps, time.process_time() - start + spent.seconds, tuple(spent.curve))

    def _first(self, training: Training, spent: Spent) -> Rollouts:
        """Train from fresh weights, from others if they die."""
        assert self.model is not None  # noqa: S101 - a policy without model refuses to be bound
        resumable, last = Resumable(training.folder, *self._about(training, self.model)), STARTS - 1
        for attempt in range(STARTS):
            seed = training.seed + 104729 * attempt
            fresh = build_policy(self.policy, self.problem.ny, self.problem.actions.m, self.hidden, seed)
            self._policy = fresh.to(self.device)
            gen = torch.Generator().manual_seed(seed)
            source = self._source(training, gen)
            dead = descend(
                self._policy, source, resumable=resumable, stage=f"train-{attempt}" if attempt else "train",
                steps=self.steps, rate=self.rate, renewals=self.renewals, length=self._length, gen=gen,
                answers=self._answers, mortal=attempt < last, progress=training.progress,
            )  # fmt: skip
            spent.add(source.used, source.curve)
            if not dead:
                break
        spent.seconds += resumable.seconds
        if dead:
            self.notes += (f"the action hardly depends on what is measured, from {STARTS} initial weights",)
        elif attempt:
            self.notes += (f"{attempt} of {attempt + 1} initial weights led to an action that did not depend on y",)
        return source

    def _fits_again(self, training: Training, source: Rollouts) -> bool:
        if not self.refit or self.model is None or self.model.needs_state or not isinstance(source, ModelRollouts):
            return False
        if training.data is None:
            self.notes += ("the model was not fitted again under the policy: nobody knows its data",)
        return training.data is not None

    def _second(self, training: Training, before: ModelRollouts, spent: Spent) -> None:
        """Fit the model to what the policy has seen, and train the policy on."""
        assert self.model is not None and training.data is not None  # noqa: S101 - _fits_again has seen to it
        found = under_policy(self, training, self.refit, context=self.model.longest, ahead=self._longest)
        cost = float(found.cost[::2].mean())
        spent.add(found.steps, [(0, cost)])
        cost = self._not_worse(training, before, cost, spent)
        weights = flatten(self._policy)
        model = refitted(self.model, training, [training.data, *before.data, found.data])
        resumable = Resumable(training.folder, *self._about(training, model))
        gen = torch.Generator().manual_seed(training.seed + 1)
        source = self._source(training, gen, (model, found.starts))
        descend(
            self._policy, source, resumable=resumable, stage="tune", steps=self.tune, rate=self.tune_rate, renewals=0,
            length=lambda share: self._longest, gen=gen, answers=self._answers, mortal=False,
            progress=training.progress,
        )  # fmt: skip
        spent.add(source.used, source.curve)
        spent.seconds += resumable.seconds + model.earlier_seconds
        again = paired(self, training, self.refit)
        tuned = float(again.cost.mean())
        spent.add(again.plant_steps, [(0, min(cost, tuned))])
        if not tuned <= cost:
            assign(self._policy, weights)
            self.notes += (f"the second fit made it worse ({tuned:.4g} after {cost:.4g}): it is as it was before",)

    def _not_worse(self, training: Training, before: ModelRollouts, cost: float, spent: Spent) -> float:
        """Go back to the policy of a renewal where that is the better one on the plant, and return its cost.

        Where the model errs, a longer descent through it leads away again from what the plant rewards.
        """
        if not before.curve:
            return cost
        costs = [found if math.isfinite(found) else math.inf for _, found in before.curve]
        best = min(range(len(costs)), key=costs.__getitem__)
        if not costs[best] < cost:
            return cost
        last = flatten(self._policy)
        self.load_state_dict(before.renewed_by[best])
        again = paired(self, training, self.refit)
        earlier = float(again.cost.mean())
        spent.add(again.plant_steps, [(0, min(cost, earlier))])
        if earlier < cost:
            self.notes += (
                f"its policy after {best + 1} of {len(before.curve) + 1} parts of the descent went on: it was better "
                f"on the plant ({earlier:.4g}) than the last ({cost:.4g})",
            )
            return earlier
        assign(self._policy, last)
        return cost

    def _about(self, training: Training, model: Dynamics) -> tuple[Any, ...]:
        """What a descent follows from, as far as it can be told apart."""
        own = (self.name, self.policy, self.hidden, self.steps, self.batch, self.rate, self.horizon, self.curriculum)
        more = (self.doubt, self.penalty, self.explore, self.rollouts, self.renewals, training.seed)
        excited = str(sorted(vars(training.excite()).items()))
        state = type(model).__name__, dict(model.state_dict())
        return *own, *more, excited, *state, self._mean, self._std, self.problem.measured, self.problem.performed

    def _source(
        self, training: Training, gen: torch.Generator, begun: tuple[Dynamics, Window] | None = None
    ) -> Rollouts:
        """Where the rollouts of a descent come from."""
        fresh = lambda n: self._policy.initial_state(n)  # noqa: E731
        drawn = partial(self.law, gen=gen)
        if self.rollouts == "plant":
            return PlantRollouts(self, drawn, fresh, training, self.batch)
        return ModelRollouts(
            self, drawn, fresh, training, self.batch, self.explore, self.doubt, self.penalty,
            deployed=self.law, ahead=self._longest, begun=begun,
        )  # fmt: skip

    @property
    def _longest(self) -> int:
        """Steps of the longest rollouts; where only the end costs something, they reach it."""
        whole = self.problem.horizon
        return min(self.horizon, whole) if self.problem.objective.stage else whole

    def _length(self, share: float) -> int:
        """Steps of the rollouts after a share of the gradient steps."""
        if not self.curriculum or not self.problem.objective.stage:
            return self._longest
        return max(1, min(round(self.horizon * (0.25 + 0.75 * min(1.0, 2 * share))), self._longest))

    def law(
        self, y: Float[Tensor, "n ny"], state: Tensor, gen: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n m"], Tensor]:
        """The policy with its gradient: actions and the next memory; with a generator, decisions are drawn."""
        raw, state = self._policy(self.observe(y), state)
        return decided(self.problem.actions, scored_action(self.problem.actions, raw.to(y)), gen), state

    @torch.no_grad()
    def _answers(self, y: Float[Tensor, "k ny"]) -> bool:
        """Whether an action depends on the outputs, as far as these show it."""
        raw, _ = self._policy(self.observe(y), self._policy.initial_state(len(y)))
        return spread_of(self.problem.actions, raw) >= ALIVE
