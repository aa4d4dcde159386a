"""Whether a step is kept, and how large the next one is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

from steersman.optimizers.polystep.schedules import check_positive


@dataclass(frozen=True)
class Evidence:
    """What a generation's costs say.

    Attributes:
        now: Cost of the present point (0 without ``compares``).
        before: Cost of the previous point (0 without ``compares``).
        tied: Share of mirrored pairs of candidates with equal costs below the worst of their particle, over the
            particles whose candidates do not all tie; 1 where those of every particle do. Continuous costs give 0.
        path: Length of the evolution path, on average 1 where costs are noise alone (1 without a path).
        rate: Weight of the latest step in the path.
    """

    now: float
    before: float
    tied: float
    path: float = 1.0
    rate: float = 0.0


NOTHING = Evidence(0.0, 0.0, 0.0)
"""What a control sees that does not look."""


@dataclass(frozen=True)
class Verdict:
    """What a control makes of it.

    Attributes:
        keep: Whether the present point stands; otherwise the search returns to the one before.
        multiplier: Factor on both radii from now on.
    """

    keep: bool
    multiplier: float


class RadiusControl(ABC):
    """A rule for the radius multiplier.

    Attributes:
        adapts: Whether it reads any evidence.
        compares: Whether it needs the costs of the present and the previous point (two rows a generation).
    """

    adapts: ClassVar[bool] = True
    compares: ClassVar[bool] = False

    def rate(self, share: float) -> float:
        """Weight of the latest step in the evolution path that it reads; 0 if it reads none.

        Args:
            share: Directions polled in a generation over the dimension.
        """
        return 0.0

    @abstractmethod
    def judge(self, multiplier: float, seen: Evidence) -> Verdict:
        """Decide on the present point and the next multiplier."""


@final
@dataclass(frozen=True)
class Scheduled(RadiusControl):
    """Every step is kept and the schedules alone set the radii: the paper's form."""

    adapts = False

    def judge(self, multiplier: float, seen: Evidence) -> Verdict:
        """See :class:`RadiusControl`."""
        return Verdict(True, multiplier)


@final
@dataclass(frozen=True)
class TrustRegion(RadiusControl):
    """Steps that made things worse are taken back and radii shrink; steps that helped let them grow.

    A generation in which many mirrored pairs tie lies on plateaus wider than the probes: the radii grow.

    Attributes:
        grow: Factor after a step that helped.
        shrink: Factor after a step that was taken back.
        escape: Factor on a plateau.
        plateau: Share of tied pairs from which a generation counts as one on a plateau.
        smallest: Least multiplier.
        largest: Greatest multiplier.
    """

    grow: float = 1.2
    shrink: float = 0.7
    escape: float = 1.5
    plateau: float = 0.2
    smallest: float = 1e-6
    largest: float = 8.0
    compares = True

    def __post_init__(self) -> None:
        if not 0 < self.shrink < 1:
            raise ValueError(f"shrink must lie strictly between 0 and 1, got {self.shrink}")
        _check_growth(grow=self.grow, escape=self.escape)
        _check_share(self.plateau)
        _check_range(self.smallest, self.largest)

    def judge(self, multiplier: float, seen: Evidence) -> Verdict:
        """See :class:`RadiusControl`."""
        factor = self.shrink if seen.now > seen.before else self.grow if seen.now < seen.before else 1.0
        if seen.tied >= self.plateau:
            factor = self.escape
        return Verdict(seen.now <= seen.before, _within(multiplier * factor, self.smallest, self.largest))


@final
@dataclass(frozen=True)
class PathLength(RadiusControl):
    """Every step is kept; radii grow while successive steps agree and shrink while they undo each other.

    Cumulative step-size adaptation (Hansen & Ostermeier, "Completely Derandomized Self-Adaptation in Evolution
    Strategies", 2001). It compares no single costs, so it stands noise that misleads an acceptance test, and costs
    no evaluations. Mirrored probes sharpen it: near a minimum the two costs of a pair agree, and the step is shorter
    than one of chance. Where a cost is piecewise constant they agree exactly, and shrinking would only make more of
    them do so: a generation in which many mirrored pairs tie lets the radii grow.

    Attributes:
        rates: Weight of the latest step in the path, over the share of directions that a generation polls: it takes
            the reciprocal of that share to see all of the space, and a path must outlive that.
        fastest: Greatest weight of the latest step.
        damping: The multiplier changes by ``exp(weight / damping (path - 1))``.
        escape: Factor on a plateau.
        plateau: Share of tied pairs from which a generation counts as one on a plateau. Less sees over wider
            plateaus; but where costs come in steps the search then stays more steps above a minimum (two or three at
            0.2, ten at 0.1).
        smallest: Least multiplier.
        largest: Greatest multiplier.
    """

    rates: float = 1.25
    fastest: float = 0.3
    damping: float = 1.0
    escape: float = 1.5
    plateau: float = 0.2
    smallest: float = 1e-6
    largest: float = 32.0

    def __post_init__(self) -> None:
        if not 0 < self.fastest <= 1:
            raise ValueError(f"fastest must lie in (0, 1], got {self.fastest}")
        for name in ("rates", "damping"):
            check_positive(name, getattr(self, name))
        _check_growth(escape=self.escape)
        _check_share(self.plateau)
        _check_range(self.smallest, self.largest)

    def rate(self, share: float) -> float:
        """See :class:`RadiusControl`."""
        return min(self.rates * share, self.fastest)

    def judge(self, multiplier: float, seen: Evidence) -> Verdict:
        """See :class:`RadiusControl`."""
        factor = math.exp(min(1.0, seen.rate / self.damping * (seen.path - 1)))
        if seen.tied >= self.plateau:
            factor = self.escape
        return Verdict(True, _within(multiplier * factor, self.smallest, self.largest))


def _within(value: float, smallest: float, largest: float) -> float:
    return min(max(value, smallest), largest)


def _check_growth(**factors: float) -> None:
    for name, value in factors.items():
        if not 1 <= value < math.inf:
            raise ValueError(f"{name} must be at least 1 and finite, got {value}")


def _check_share(plateau: float) -> None:
    if not 0 < plateau <= 1:
        raise ValueError(f"plateau must lie in (0, 1], got {plateau}; 1 asks for a generation that ties altogether")


def _check_range(smallest: float, largest: float) -> None:
    if not 0 < smallest <= 1 <= largest < math.inf:
        raise ValueError(f"1 must lie between smallest and a finite largest, got {smallest} and {largest}")
