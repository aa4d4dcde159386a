"""What a comparison file says about the thing that is run: a plant, a Mesa model or any gymnasium environment."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from steersman.envs.objective import L1, Linear, LInf, Objective, Quadratic, Term
from steersman.envs.registry import make_simulator
from steersman.envs.simulator import Simulator

STRICT = ConfigDict(extra="forbid")
"""An unknown key is an error."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TermEntry:
    """A stage cost for an environment that has none of its own, written in its observation or action."""

    kind: Literal["quadratic", "linear", "l1", "linf"]
    on: Literal["z", "u", "du"]
    weights: tuple[float, ...]
    name: str = ""

    def build(self, index: int) -> Term:
        """The term; without a name of its own it is told from others by its place."""
        kinds: dict[str, Any] = {"quadratic": Quadratic, "linear": Linear, "l1": L1, "linf": LInf}
        name = self.name or f"{self.kind} {self.on} {index}"
        term: Term = kinds[self.kind](name=name, on=self.on, weights=self.weights)
        return term


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Environment:
    """What is run: all that a result depends on beside controller, model, seed and scenarios.

    Attributes:
        id: Id of a plant, ``module:name`` of one of your own, or the id of any gymnasium environment.
        settings: Arguments of its constructor.
        objective: Stage cost for planners on an environment that only returns rewards.
    """

    id: str
    settings: dict[str, Any] = pydantic.Field(default_factory=dict)
    objective: tuple[TermEntry, ...] = ()

    def simulator(self, n: int, device: torch.device | str = "cpu", price: float | None = None) -> Simulator:
        """``n`` rows of it.

        Args:
            n: Rows.
            device: Where a plant runs.
            price: Price of a failure for what states none; found when it is needed, if not given.

        Raises:
            ValueError: If there is no such environment, or it does not take these settings.
        """
        objective = Objective(tuple(entry.build(i) for i, entry in enumerate(self.objective)))
        stated = objective if self.objective else None
        return make_simulator(self.id, n, device, objective=stated, price=price, **self.settings)
