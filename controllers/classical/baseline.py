"""Controllers that every other one has to beat: doing nothing, and the best constant action."""

from __future__ import annotations

import itertools
import time

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.controllers.base import Controller, Decision, Training, TrainingCost
from steersman.controllers.rollout import run_episodes
from steersman.envs.actions import ActionSet
from steersman.envs.simulator import Measurement


class Zero(Controller):
    """The admissible action nearest to zero, always."""

    name = "zero"

    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        """See :class:`~steersman.controllers.base.Controller`."""
        return self.optimal(self.problem.actions.neutral(m.n, m.y))


class Constant(Controller):
    """The constant action that costs least on training scenarios.

    Candidates are a full grid over the action set where ``candidates`` allows at least 3 levels per action, and
    otherwise points of a Sobol sequence; the neutral action is always among them.
    """

    name = "constant"

    def __init__(self, candidates: int = 25, scenarios: int = 8) -> None:
        """Store the settings.

        Args:
            candidates: Largest number of actions to try.
            scenarios: Training scenarios that each is tried on, the same for all.

        Raises:
            ValueError: If a number is below 1.
        """
        for name, value in (("candidates", candidates), ("scenarios", scenarios)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.candidates, self.scenarios = candidates, scenarios
        self._u: Tensor | None = None

    def train(self, training: Training) -> TrainingCost:
        """Try all candidates on the same scenarios, as one batch."""
        start = time.process_time()
        u = candidate_actions(self.problem.actions, self.candidates)
        simulator = training.simulate(len(u) * self.scenarios)
        bank = simulator.scenarios(training.keys(self.scenarios).repeat(len(u)))
        rows = u.to(simulator.dtype).repeat_interleave(self.scenarios, dim=0)
        episode = run_episodes(simulator, bank, lambda m: rows)
        self._u = u[episode.cost.reshape(len(u), -1).mean(dim=1).argmin()]
        return TrainingCost(episode.plant_steps, time.process_time() - start)

    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        """See :class:`~steersman.controllers.base.Controller`.

        Raises:
            RuntimeError: Before :meth:`train`.
        """
        if self._u is None:
            raise RuntimeError("Constant has no action yet; call train(training) or load_state_dict first")
        return self.optimal(self._u.to(m.y).expand(m.n, -1))

    def state_dict(self) -> dict[str, Tensor]:
        """The chosen action as ``u``."""
        return {} if self._u is None else {"u": self._u}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See :class:`~steersman.controllers.base.Controller`."""
        self._u = state["u"]


def candidate_actions(actions: ActionSet, limit: int) -> Float[Tensor, "c m"]:
    """At most ``limit`` admissible actions that cover the set, the neutral one first.

    Unbounded entries are covered over [-1, 1].
    """
    levels = int(round(limit ** (1 / actions.m), 9))
    if levels >= 3:
        unit = torch.tensor(list(itertools.product(torch.linspace(0, 1, levels).tolist(), repeat=actions.m)))
    else:
        unit = torch.quasirandom.SobolEngine(actions.m).draw(max(limit - 1, 1))  # type: ignore[no-untyped-call]
    inside = unit.double().clamp(1e-9, 1 - 1e-9)
    lower, upper = (torch.nan_to_num(b, neginf=-1.0, posinf=1.0) for b in actions.bounds(inside))
    spread = actions.project(lower + unit.double() * (upper - lower)) if actions.continuous else actions.sample(inside)
    everything = torch.cat([actions.neutral(1, spread), spread])
    distinct = [i for i in range(len(everything)) if not (everything[:i] == everything[i]).all(dim=1).any()]
    return everything[distinct][:limit]
