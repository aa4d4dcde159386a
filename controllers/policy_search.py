"""Policies trained without gradients: a population of policies times a set of scenarios, rolled out as one batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steersman.controllers.base import Training, TrainingCost
from steersman.controllers.policy import PolicyName, TrainedPolicy, build_policy, to_action
from steersman.controllers.rollout import run_episodes
from steersman.envs import noise
from steersman.envs.simulator import Measurement
from steersman.optimizers.registry import make_search
from steersman.optimizers.search import minimise
from steersman.optimizers.vectorise import assign, flatten, population_forward

SearchName = Literal["polystep", "frame_step", "openai_es", "cma_es", "random"]
_VALIDATE = 0x5A11D
"""Separates the scenarios that choose between the best and the last policy from those of the search."""


class PolicySearch(TrainedPolicy):
    """A policy found by a population search on the cost of whole episodes; nothing needs a gradient.

    All members of a generation meet the same scenarios (common random numbers), which change from generation to
    generation. At the end the search's best and its last policy meet fresh scenarios, and the better one stays.
    """

    name = "policy-search"

    def __init__(
        self,
        search: SearchName = "cma_es",
        policy: PolicyName = "mlp",
        hidden: tuple[int, ...] = (8,),
        plant_steps: int = 200_000,
        scenarios: int = 4,
        explore: int = 8,
        options: dict[str, Any] | None = None,
        module: nn.Module | None = None,
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
                :class:`~steersman.optimizers.policies.base.Policy`; raw actions in [-1, 1] span the bounds.

        Raises:
            ValueError: If a number is out of range or the search has no such option.
        """
        super().__init__(policy, hidden, explore, module)
        for setting, value in (("plant_steps", plant_steps), ("scenarios", scenarios)):
            if value < 1:
                raise ValueError(f"{setting} must be at least 1, got {value}")
        make_search(search, **(options or {}))
        self.search, self.plant_steps, self.scenarios, self.options = (
            search,
            plant_steps,
            scenarios,
            dict(options or {}),
        )

    def train(self, training: Training) -> TrainingCost:
        """Search within the budget; with a folder, from the last checkpoint on.

        Raises:
            ValueError: If the budget does not cover one generation.
        """
        start = time.process_time()
        used = self._normalise(training)
        if self.module is None:
            m, ny = self.problem.actions.m, self.problem.ny
            self._policy = build_policy(self.policy, ny, m, self.hidden, training.seed)
        search = make_search(self.search, **self.options).start(flatten(self._policy), seed=training.seed)
        rollouts = _Rollouts(self, training, search.population)
        final = 8 * self.scenarios * self.problem.horizon
        budget = (self.plant_steps - used - final) // (self.scenarios * self.problem.horizon)
        if budget < search.population:
            need = used + final + search.population * self.scenarios * self.problem.horizon
            raise ValueError(f"plant_steps={self.plant_steps} does not cover one generation; it takes {need:,}")
        checkpoint = None
        if training.folder is not None:
            training.folder.mkdir(parents=True, exist_ok=True)
            checkpoint = training.folder / "search.safetensors"
        found = minimise(search, rollouts, budget_evaluations=budget, progress=training.progress, checkpoint=checkpoint)
        rivals = torch.stack([found.incumbent, found.incumbent if found.best is None else found.best.x])
        cost = rollouts.judge(rivals, noise.fold(training.keys(4 * self.scenarios), _VALIDATE))
        assign(self._policy, rivals[int(cost.argmin())])
        return TrainingCost(used + rollouts.plant_steps, time.process_time() - start)


class _Rollouts:
    """Evaluation of a population, and the plant steps it took."""

    def __init__(self, owner: PolicySearch, training: Training, population: int) -> None:
        self.owner, self.training, self.plant_steps = owner, training, 0
        self._simulator = training.simulate(population * owner.scenarios)
        self._small = training.simulate(owner.scenarios)

    def __call__(self, pop: Float[Tensor, "pop dim"], generation: int) -> Float[Tensor, "pop"]:
        count = self.owner.scenarios
        keys = self.training.keys(count, start=generation * count)
        if len(pop) * count != self._simulator.n:
            self._simulator = self.training.simulate(len(pop) * count)
        # A start can be costly, so each scenario is drawn once and then copied to every member.
        bank = self._small.scenarios(keys).tile(len(pop))
        return self._run(pop, self._simulator, bank, count)

    def judge(self, pop: Float[Tensor, "pop dim"], keys: Tensor) -> Float[Tensor, "pop"]:
        """Mean cost on other scenarios."""
        simulator = self.training.simulate(len(pop) * len(keys))
        return self._run(pop, simulator, simulator.scenarios(keys.repeat(len(pop))), len(keys))

    def _run(self, pop: Tensor, simulator: Any, bank: Any, count: int) -> Tensor:
        episode = run_episodes(simulator, bank, self._policy(pop, count))
        self.plant_steps += episode.plant_steps
        return episode.cost.reshape(len(pop), count).mean(dim=1).to(pop)

    def _policy(self, pop: Tensor, count: int) -> Callable[[Measurement], Tensor]:
        owner, network = self.owner, self.owner._policy
        state = network.initial_state(len(pop) * count).reshape(len(pop), count, network.memory)
        actions = owner.problem.actions

        def act(m: Measurement) -> Tensor:
            nonlocal state
            obs = owner.observe(m.y).nan_to_num().reshape(len(pop), count, -1)
            raw, state = population_forward(network, pop, obs, state)
            return actions.project(to_action(actions, raw.flatten(0, 1).to(m.y)))

        return act
