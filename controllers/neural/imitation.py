"""A policy that imitates a planner: its decisions in microseconds, where planning through the model is good."""

from __future__ import annotations

import time
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.controllers.base import Controller, Training, TrainingCost
from steersman.controllers.classical.lqr import LQR
from steersman.controllers.neural.experience import Experience, experience
from steersman.controllers.neural.policy import LIMIT, TrainedPolicy, build_policy
from steersman.controllers.neural.squash import to_action, widths
from steersman.controllers.planning.adjoint import Adjoint
from steersman.controllers.planning.sampling import CEM, MPPI
from steersman.controllers.verdict import judge
from steersman.dynamics.base import Dynamics
from steersman.dynamics.linear.regression import spread
from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import at_least, one_of, positive
from steersman.envs.simulator import Measurement
from steersman.optimizers.resumable import Descent, Resumable

TEACHERS: dict[str, type[Controller]] = {"mppi": MPPI, "cem": CEM, "adjoint": Adjoint, "lqr": LQR}
_ROUND = 0x1417A7E
"""Separates the scenarios of imitation from those of other trainings."""


class Imitation(TrainedPolicy):
    """A network that learns what a planner with the same model would do: DAgger (Ross et al. 2011).

    In the first round the teacher acts; in the others the policy acts and the teacher says what it would have done,
    so that the policy learns where it goes itself. After each round the network is fitted to all answers. It is the
    remedy where plans through a model are good and policies trained through it are not. The teacher may see references
    ahead; the policy sees measured outputs only.
    """

    name = "imitation"

    def __init__(
        self,
        teacher: Literal["mppi", "cem", "adjoint", "lqr"] = "mppi",
        options: dict[str, Any] | None = None,
        hidden: tuple[int, ...] = (32, 32),
        rounds: int = 3,
        episodes: int = 24,
        steps: int = 1500,
        batch: int = 256,
        rate: float = 3e-3,
    ) -> None:
        """Store the settings.

        Args:
            teacher: The controller that is imitated.
            options: Its settings.
            hidden: Widths of the hidden layers.
            rounds: Rounds of episodes; the first is the teacher's.
            episodes: Episodes of a round.
            steps: Gradient steps after each round.
            batch: Answers per gradient step.
            rate: Initial learning rate of Adam, cosine schedule.

        Raises:
            ValueError: If a number is out of range or there is no such teacher.
            TypeError: If the teacher has no such setting.
        """
        one_of(*TEACHERS, teacher=teacher)
        at_least(1, rounds=rounds, episodes=episodes, steps=steps, batch=batch)
        super().__init__("mlp", hidden, episodes, None)
        positive(rate=rate)
        self.teacher, self.options = teacher, dict(options or {})
        TEACHERS[teacher](**self.options)
        self.rounds, self.episodes, self.steps, self.batch, self.rate = rounds, episodes, steps, batch, rate

    def bind(self, problem: ControlProblem, model: Dynamics | None = None) -> Imitation:
        """Bind the teacher as well.

        Raises:
            ValueError: Without a model, or if the teacher cannot serve the problem.
        """
        if model is None:
            raise ValueError(f"imitation needs the model that its teacher {self.teacher!r} plans with; name one")
        super().bind(problem, model)
        self._teacher = TEACHERS[self.teacher](**self.options).bind(problem, model)
        return self

    def train(self, training: Training) -> TrainingCost:
        """Rounds of episodes and fits; with a folder, fits go on from where they were."""
        start, earlier, used = time.process_time(), 0.0, 0
        fresh = build_policy("mlp", self.problem.ny, self.problem.actions.m, self.hidden, training.seed)
        self._policy = fresh.to(self.device)
        curve: list[tuple[int, float]] = []
        ys: list[Tensor] = []
        answers: list[Tensor] = []
        for i in range(self.rounds):
            found, answered = self._round(training, i)
            if i:
                curve.append((used, float(found.cost.mean())))
            used += found.steps
            ys.append(found.data.y[:, :-1][found.data.valid])
            answers.append(answered[found.data.valid])
            if i == 0:
                self._scale(ys[0].double())
            earlier += self._fit(training, i, torch.cat(ys), torch.cat(answers))
        verdict = judge(self, training)
        self.notes = (*self._teacher.notes, *verdict.notes)
        curve.append((used, verdict.cost))
        return TrainingCost(used + verdict.plant_steps, time.process_time() - start + earlier, tuple(curve))

    def _scale(self, y: Float[Tensor, "k ny"]) -> None:
        """Normalise by the teacher's episodes: excitation may go where no law does, and a law calms what it begins."""
        self._mean, std = spread(y)
        self._std = torch.maximum(std, (y - self._mean).abs().amax(dim=0) / LIMIT)

    def _round(self, training: Training, i: int) -> tuple[Experience, Float[Tensor, "n T m"]]:
        """Episodes, and the teacher's answers at each of their steps."""
        simulator, teacher = training.simulate(self.episodes), self._teacher
        keys = noise.fold(training.keys(self.episodes, start=i * self.episodes), _ROUND)
        teacher.reset(simulator.n, gen=torch.Generator().manual_seed(training.seed + i))
        self.reset(simulator.n)
        answers: list[Tensor] = []

        def act(m: Measurement) -> Tensor:
            answers.append(teacher.act(m).u)
            share = (i + len(answers) / self.problem.horizon) / self.rounds
            training.progress(share, f"round {i + 1} of {self.rounds}: {self.teacher} answers")
            return self.act(m).u if i else answers[-1]

        found = experience(simulator, keys, act, context=1, ahead=teacher.preview)
        return found, torch.stack(answers, dim=1)

    def _fit(self, training: Training, i: int, y: Float[Tensor, "k ny"], u: Float[Tensor, "k m"]) -> float:
        """Train on from the present weights; the CPU seconds of earlier processes."""
        obs, gen = self.observe(y), torch.Generator().manual_seed(training.seed + i)
        weights = list(self._policy.parameters())
        optimiser = torch.optim.Adam(weights, self.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)

        def descend(_: int) -> bool:
            rows = torch.randint(len(obs), (self.batch,), generator=gen)
            raw, _memory = self._policy(obs[rows], self._policy.initial_state(len(rows)))
            optimiser.zero_grad()
            unlike(self.problem.actions, raw, u[rows].to(raw)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            return False

        settings = self.name, self.teacher, self.hidden, self.steps, self.batch, self.rate, training.seed
        resumable = Resumable(training.folder, *settings, y, u)
        resumable.run(f"round-{i}", Descent(weights, optimiser, schedule, gen), self.steps, descend)
        return resumable.seconds


def unlike(actions: ActionSet, raw: Float[Tensor, "k m"], u: Float[Tensor, "k m"]) -> Float[Tensor, ""]:
    """How far raw actions are from wanted ones: squared relative to the range, cross-entropy of one-hot groups."""
    grouped = [i for group in actions.one_hot for i in group]
    alone = torch.tensor([i for i in range(actions.m) if i not in grouped], dtype=torch.int64)
    off = (to_action(actions, raw) - u) / widths(actions, raw)
    loss = off[:, alone].square().mean() if len(alone) else raw.new_zeros(())
    for group in actions.one_hot:
        loss = loss + torch.nn.functional.cross_entropy(raw[:, list(group)], u[:, list(group)])
    return loss
