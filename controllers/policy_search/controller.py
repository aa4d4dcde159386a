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
from steersman.controllers.policy import TrainedPolicy, build_policy
from steersman.controllers.policy_search.evaluation import (
    Episodes,
    Evaluation,
    Executor,
    InProcess,
    RiskName,
    risk_measure,
)
from steersman.controllers.policy_search.population import Population
from steersman.controllers.policy_search.workers import Workers
from steersman.controllers.verdict import judge, steps_at_most
from steersman.envs import noise
from steersman.envs.settings import at_least
from steersman.optimizers.base import Search
from steersman.optimizers.registry import make_search
from steersman.optimizers.search import minimise
from steersman.optimizers.vectorise import assign, flatten

_VALIDATE = 0x5A11D
"""Separates the scenarios that choose between the best and the last policy from those of the search."""


class PolicySearch(TrainedPolicy):
    """A policy found by a population search on the cost of whole episodes; nothing needs a gradient.

    All members of a generation meet the same scenarios (common random numbers), which change from generation to
    generation. At the end the search's best and its last policy meet fresh scenarios, and the better one stays; then it
    meets doing nothing and constant actions, and :attr:`notes` say if it lost.
    Only the steps of running episodes count, and episodes that are over leave the batch.
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
    ) -> None:
        """Store the settings.

        Args:
            search: Name of a search.
            policy: Architecture; ``int8`` and ``spiking`` have no useful gradient.
            hidden: Widths of the hidden layers.
            plant_steps: Budget of the whole training, exploration and validation included.
            scenarios: Scenarios of each generation.
            explore: Episodes from which observations are normalised.
            options: Settings of the search.
            module: A network of your own instead, ``obs -> raw action`` or a
                :class:`~steersman.optimizers.policies.base.Policy`; raw actions are squashed
                (:func:`~steersman.controllers.squash.to_action`), those of one-hot groups are scores.
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

        Raises:
            ValueError: If a number is out of range or the search has no such option.
        """
        super().__init__(policy, hidden, explore, module)
        at_least(1, plant_steps=plant_steps, scenarios=scenarios)
        if not 0 <= race <= scenarios:
            raise ValueError(f"race must lie between 0 and scenarios ({scenarios}), got {race}")
        if not 0 < keep <= 1:
            raise ValueError(f"keep must lie in (0, 1], got {keep}")
        if floor is not None and not -math.inf < floor <= 0:
            raise ValueError(f"floor must be finite and not positive, got {floor}: an episode may end and cost no more")
        at_least(0, workers=workers)
        make_search(search, **(options or {}))
        self._risk = risk_measure(risk, tail)
        self.search, self.plant_steps, self.scenarios = search, plant_steps, scenarios
        self.options = dict(options or {})
        self.race, self.keep, self.floor, self.workers, self.compiled = race, keep, floor, workers, compiled

    def train(self, training: Training) -> TrainingCost:
        """Search within the budget; with a folder, from the last checkpoint on.

        Raises:
            ValueError: If the budget does not cover one generation, workers are asked for and the training's
                simulators cannot be pickled, or compiled steps and there is no plant.
            RuntimeError: If steps are to be compiled and cannot be.
        """
        start = time.process_time()
        used = self._normalise(training)
        if self.module is None:
            m, ny = self.problem.actions.m, self.problem.ny
            self._policy = build_policy(self.policy, ny, m, self.hidden, training.seed)
        search = make_search(self.search, **self.options).start(flatten(self._policy), seed=training.seed)
        episodes = self._episodes(training)
        executor: Executor = Workers(episodes, search, self.workers) if self.workers else InProcess(episodes)
        ledger = None if training.folder is None else training.folder / "plant-steps.jsonl"
        evaluation = Evaluation(episodes, executor, self.scenarios, self.race, self.keep, ledger)
        try:
            rivals, used = self._search(search, evaluation, training, used)
        finally:
            executor.close()
        last = episodes.run(rivals, noise.fold(training.keys(4 * self.scenarios), _VALIDATE), all_ranks=True)
        assign(self._policy, rivals[int(self._risk(last.cost).argmin())])
        used += int(last.plant_steps.sum())
        verdict = judge(self, training, 4 * self.scenarios)
        self.notes = verdict.notes
        return TrainingCost(used + verdict.plant_steps, time.process_time() - start, ((used, verdict.cost),))

    def _search(
        self, search: Search[Any], evaluation: Evaluation, training: Training, used: int
    ) -> tuple[Float[Tensor, "2 dim"], int]:
        """The search's last and best points, and the plant steps up to then.

        Episodes may be shorter than the horizon. So the search runs as long as the budget surely lasts, and then
        again with what is left.
        """
        each = self.scenarios * self.problem.horizon
        reserve = 8 * each + steps_at_most(self.problem.horizon, 4 * self.scenarios)
        if self.plant_steps < (need := used + reserve + search.population * each):
            raise ValueError(f"plant_steps={self.plant_steps} does not cover one generation; it takes {need:,}")

        def spent() -> int:
            return used + evaluation.plant_steps(search.generation)

        def progress(fraction: float, text: str) -> None:
            training.progress(min(spent() / self.plant_steps, 1.0), text)

        more, checkpoint = search.population, _checkpoint(training)
        while more >= search.population:
            found = minimise(
                search, evaluation, budget_evaluations=search.evaluations + more, progress=progress,
                checkpoint=checkpoint,
            )  # fmt: skip
            more = (self.plant_steps - reserve - spent()) // each
        best = found.incumbent if found.best is None else found.best.x
        return torch.stack([found.incumbent, best]), spent()

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
