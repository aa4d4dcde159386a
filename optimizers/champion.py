"""The best point found, confirmed by evaluations that did not select it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Best:
    """The best point found so far.

    Attributes:
        x: The point.
        cost: Mean of its re-evaluated costs; with ``evaluations == 0`` the cost by which it was selected.
        evaluations: Re-evaluations in ``cost``. With zero, a noisy cost is optimistic: it is a minimum of noise.
    """

    x: Float[Tensor, "dim"]
    cost: float
    evaluations: int


@dataclass
class Champion:
    """Keeps the best point and lets one challenger at a time fight it.

    Champion and challenger are evaluated in the same generation, hence on the same random numbers where the
    evaluation shares them. The challenger takes over when its summed cost has been lower after each of
    ``confirmations`` generations, and is dropped at the first generation after which it is not. The lowest of many
    noisy costs is therefore never reported as if it were a result.

    Attributes:
        x: The champion; the start at first.
        challenger: The point that fights it.
        cost: Cost by which the champion was selected; infinite before the first finite cost.
        total: Sum of the champion's re-evaluated costs.
        count: Terms of ``total``.
        won: Generations the challenger has survived.
        duel: Sum of the challenger's costs.
        lead: Sum over the duel of the challenger's cost minus the champion's.
    """

    x: Tensor
    challenger: Tensor
    cost: float = math.inf
    total: float = 0.0
    count: int = 0
    won: int = 0
    duel: float = 0.0
    lead: float = 0.0

    @property
    def best(self) -> Best | None:
        """The champion, or None while no finite cost is known."""
        cost = self.total / self.count if self.count else self.cost
        return Best(self.x.clone(), cost, self.count) if math.isfinite(cost) else None

    def select(self, x: Tensor, cost: float) -> None:
        """Trust the cost of one evaluation: the rule for costs without noise."""
        if cost < self.cost:
            self.x, self.cost = x.clone(), cost

    def fight(self, champion: float, challenger: float, confirmations: int) -> bool:
        """Account for one generation's costs of both; True when a new challenger is wanted.

        Costs that are not finite are given as infinity.
        """
        self.total, self.count = self.total + champion, self.count + 1
        self.duel, self.won = self.duel + challenger, self.won + 1
        self.lead += challenger - champion
        if not self.lead < 0:
            return True
        if self.won < confirmations:
            return False
        self.x, self.cost, self.total, self.count = self.challenger, math.inf, self.duel, self.won
        return True

    def challenge(self, x: Tensor) -> None:
        """Let a new point fight."""
        self.challenger, self.won, self.duel, self.lead = x.clone(), 0, 0.0, 0.0

    def replace_failed(self, x: Tensor, cost: float) -> None:
        """Give way to any point with a finite cost when the champion's own is not finite."""
        if not math.isfinite(self.total) or (self.count == 0 and not math.isfinite(self.cost)):
            self.x, self.cost, self.total, self.count = x.clone(), cost, 0.0, 0
