"""The controller that a population search trains."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steersman.controllers.base import Training, TrainingCost
from steersman.controllers.kinds import search_kind
from steersman.controllers.neural.policy import Scaling, TrainedPolicy, build_policy
from steersman.controllers.policy_search.evaluation import (
    Episodes,
    Evaluation,
    Executor,
    InProcess,
    OutOfStepsError,
)
from steersman.controllers.policy_search.population import Population
from steersman.controllers.policy_search.workers import Workers
from steersman.controllers.risk import RiskName, risk_measure
from steersman.controllers.verdict import judge
from steersman.dynamics.base import Dynamics
from steersman.envs import noise
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import at_least
from steersman.optimizers.base import Search
from steersman.optimizers.registry import make_search
from steersman.optimizers.search import minimise
from steersman.optimizers.vectorise import assign, flatten

_VALIDATE = 0x5A11D
"""Separates the scenarios that choose between the best and the last policy from those of the search."""
_DUEL = 4
"""The choice between them is made on so many times the scenarios of a generation, or on as many as the budget holds."""


class PolicySearch(TrainedPolicy):
    """A policy found by a population search on the cost of whole episodes; nothing needs a gradient.

    All members of a generation meet the same scenarios (common random numbers), which change from generation to
    generation. At the end the search's best and its last policy meet fresh scenarios, and the better one stays.
    Only the steps of running episodes count, and episodes that are over leave the batch. The budget is never exceeded;
    what stays unspent is less than another generation would take. Where episodes have become longer from one generation
    to the next, the last one may have to be broken off: its steps count, but nothing is learnt from them.
    """

    name = "policy-search"

    def __init__(
        self,
        search: str = "cma_es",
        policy: str = "mlp",
        hidden: tuple[int, ...] = (8,),
        plant_steps: int = 200_000,
        scenarios: int = 4,
        explore: int = 8,
        options: dict[str, Any] | None = None,
        module: nn.Module | None = None,
        risk: RiskName = "mean",
        tail: float = 0.25,
        race: int = 0,
        keep: float = 0.5,
        floor: float | None = None,
        workers: int = 0,
        compiled: bool = False,
        normalise: Scaling = "standard",
    ) -> None:
        """Store the settings.

        Args:
            search: Name of a search, or ``module:Name`` of your own.
            policy: Architecture, or ``module:Name`` of your own; ``int8`` and ``spiking`` have no useful gradient.
            hidden: Widths of the hidden layers.
            plant_steps: Budget of the whole training, exploration and the choice at its end included; its verdict at
                the end (:mod:`steersman.controllers.verdict`) is not part of it, but is counted.
            scenarios: Scenarios of each generation.
            explore: Episodes from which observations are normalised.
            options: Settings of the search.
            module: A network of your own instead, ``obs -> raw action`` or a
                :class:`~steersman.optimizers.policies.base.Policy`. Raw actions are mapped smoothly onto the bounds:
                0 is the action nearest to zero, +-4 are the bounds to 1 %; those of one-hot groups are scores.
            risk: What is minimised over the scenarios: the ``mean`` cost, the mean of its worst part (``cvar``), or
                the ``worst``.
            tail: Share of the scenarios that ``cvar`` averages.
            race: Scenarios that every member runs; the better part of them runs the others too. 0 is no race.
            keep: The better part, in a race and where ``floor`` ends members.
            floor: Least cost of a control step, the terminal cost included, such as 0. With it, members that are
                certain not to be in the better part end early; their ranks among each other are then approximate.
            workers: Processes that run episodes; 0 runs them here.
            compiled: Whether control steps are compiled (``torch.compile``): two to three times as fast for small
                plants and policies, after seconds to minutes once, equal up to rounding. Takes a C++ compiler.
            normalise: ``standard`` observations are normalised by mean and deviation, ``robust`` ones by median and
                quartiles: for plants that run away under exploration.

        Raises:
            ValueError: If a number is out of range or the search has no such option.
        """
        super().__init__(policy, hidden, explore, module, normalise)
        at_least(1, plant_steps=plant_steps, scenarios=scenarios)
        if not 0 <= race <= scenarios:
            raise ValueError(f"race must lie between 0 and scenarios ({scenarios}), got {race}")
        if not 0 < keep <= 1:
            raise ValueError(f"keep must lie in (0, 1], got {keep}")
        if floor is not None and not -math.inf < floor <= 0:
            raise ValueError(f"floor must be finite and not positive, got {floor}: an episode may end and cost no more")
        at_least(0, workers=workers)
        make_search(search_kind(search), **(options or {}))
        self._risk = risk_measure(risk, tail)
        self.search, self.plant_steps, self.scenarios = search, plant_steps, scenarios
        self.options = dict(options or {})
        self.race, self.keep, self.floor, self.workers, self.compiled = race, keep, floor, workers, compiled

    def bind(self, problem: ControlProblem, model: Dynamics | None = None) -> PolicySearch:
        """Build the policy for the problem's outputs and actions.

        Raises:
            ValueError: If the budget does not hold exploration, one generation and the choice at the end, for episodes
                that last to the horizon.
        """
        super().bind(problem, model)
        members = self._started(0).population
        episodes = self.explore + members * self.scenarios + 2
        if self.plant_steps < (need := episodes * problem.horizon):
            raise ValueError(
                f"plant_steps={self.plant_steps} does not cover one generation; it takes up to {need:,}: "
                f"{self.explore} episodes of exploration, {members} members times {self.scenarios} scenarios and 2 at "
                f"the end, {problem.horizon} steps each; raise it, or lower scenarios or explore"
            )
        return self

    def train(self, training: Training) -> TrainingCost:
        """Search within the budget; with a folder, from the last checkpoint on.

        Raises:
            ValueError: If workers are asked for and the training's simulators cannot be pickled, or compiled steps and
                there is no plant.
            RuntimeError: If steps are to be compiled and cannot be.
        """
        start = time.process_time()
        used = self._normalise(training)
        if self.module is None:
            m, ny = self.problem.actions.m, self.problem.ny
            self._policy = build_policy(self.policy, ny, m, self.hidden, training.seed).to(self.device)
            self._policy.rest()
        search, episodes = self._started(training.seed), self._episodes(training)
        workers = Workers(episodes, search, self.workers) if self.workers else None
        executor: Executor = workers or InProcess(episodes)
        ledger = None if training.folder is None else training.folder / "plant-steps.jsonl"
        evaluation = Evaluation(episodes, executor, self.scenarios, self.race, self.keep, ledger)
        try:
            rivals, used = self._search(search, evaluation, training, used)
        finally:
            executor.close()
        for note in workers.notes if workers else ():
            training.note(note)
        better, steps = self._duel(rivals, episodes, training, self.plant_steps - used)
        assign(self._policy, rivals[better])
        used += steps
        verdict = judge(self, training)
        self.notes = verdict.notes
        return TrainingCost(used + verdict.plant_steps, time.process_time() - start, ((used, verdict.cost),))

    def _started(self, seed: int) -> Search[Any]:
        return make_search(search_kind(self.search), **self.options).start(flatten(self._policy), seed=seed)

    def _search(
        self, search: Search[Any], evaluation: Evaluation, training: Training, used: int
    ) -> tuple[Float[Tensor, "2 dim"], int]:
        """The search's last and best points, and the plant steps up to then."""
        ran = 0

        def spent() -> int:
            return used + evaluation.plant_steps(search.generation + ran)

        def progress(fraction: float, text: str) -> None:
            training.progress(min(spent() / self.plant_steps, 1.0), text)

        checkpoint = _checkpoint(training)
        while (count := self._generations(search, evaluation, self.plant_steps - spent())) > 0:
            try:
                minimise(
                    search, evaluation, budget_evaluations=search.evaluations + count * search.population,
                    progress=progress, checkpoint=checkpoint,
                )  # fmt: skip
            except OutOfStepsError:
                ran = 1  # the generation that was broken off
                break
        best = search.champion.best
        return torch.stack([search.incumbent, search.incumbent if best is None else best.x]), spent()

    def _generations(self, search: Search[Any], evaluation: Evaluation, left: int) -> int:
        """How many generations to run next with so many control steps left; also sets the evaluation's limit.

        As many as surely fit, whose episodes may all last to the horizon. Then one at a time, as long as the one before
        would fit again; such a one is broken off where it would take what the choice at the end needs.
        """
        evaluation.limit, horizon = None, self.problem.horizon
        episodes, duel = search.population * self.scenarios, 2 * _DUEL * self.scenarios
        if (sure := (left - duel * horizon) // (episodes * horizon)) > 0:
            return sure
        if search.generation == 0:
            return 1  # bind has seen to it that the first one fits
        last = evaluation.of_generation(search.generation - 1)
        if last is None or left - max(2 * horizon, duel * math.ceil(last / episodes)) < last:
            return 0
        evaluation.limit = left - 2 * horizon
        return 1

    def _duel(self, rivals: Tensor, episodes: Episodes, training: Training, left: int) -> tuple[int, int]:
        """Which of two policies is better on fresh scenarios, and the control steps that this took."""
        keys = noise.fold(training.keys(_DUEL * self.scenarios), _VALIDATE)
        costs, used, horizon = [], 0, self.problem.horizon
        while len(keys) and (fits := (left - used) // (2 * horizon)) > 0:
            found = episodes.run(rivals, keys[:fits], all_ranks=True)
            costs.append(found.cost)
            used, keys = used + int(found.plant_steps.sum()), keys[fits:]
        # A training that goes on with a smaller budget than it had may have nothing left.
        return int(self._risk(torch.cat(costs, dim=1)).argmin()) if costs else 1, used

    def _episodes(self, training: Training) -> Episodes:
        like = flatten(self._policy)
        population = Population(self._policy, like[None], self._mean[None], self._std[None], self.problem.actions)
        return Episodes(
            population, training.simulate, training.seed, risk=self._risk, floor=self.floor, keep=self.keep,
            compiled=self.compiled,
        )  # fmt: skip


def _checkpoint(training: Training) -> Path | None:
    if training.folder is None:
        return None
    training.folder.mkdir(parents=True, exist_ok=True)
    return training.folder / "search.safetensors"
