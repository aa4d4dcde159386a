"""Whether a step is kept, and how large the next one is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final


@dataclass(frozen=True)
class Verdict:
    """What a generation's costs say about the last step.

    Attributes:
        keep: Whether the present point stands; otherwise the search returns to the one before.
        multiplier: Factor on both radii from now on.
    """

    keep: bool
    multiplier: float


class RadiusControl(ABC):
    """A rule for the radius multiplier.

    Attributes:
        compares: Whether it needs the costs of the present and the previous point (two rows a generation).
    """

    compares: bool

    @abstractmethod
    def judge(self, multiplier: float, now: float, before: float, tied: bool) -> Verdict:
        """Decide from costs of the present and the previous point on equal terms.

        Args:
            multiplier: Present multiplier.
            now: Cost of the present point (0 without ``compares``).
            before: Cost of the previous point (0 without ``compares``).
            tied: Whether every candidate of the generation had the same cost.
        """


@final
@dataclass(frozen=True)
class Scheduled(RadiusControl):
    """Every step is kept and the schedules alone set the radii: the paper's form."""

    compares = False

    def judge(self, multiplier: float, now: float, before: float, tied: bool) -> Verdict:
        """See :class:`RadiusControl`."""
        return Verdict(True, multiplier)


@final
@dataclass(frozen=True)
class TrustRegion(RadiusControl):
    """Steps that made things worse are taken back and radii shrink; steps that helped let them grow.

    A generation in which all candidates tie lies on a plateau wider than the probes: the radii grow.

    Attributes:
        grow: Factor after a step that helped.
        shrink: Factor after a step that was taken back.
        escape: Factor on a plateau.
        smallest: Least multiplier.
        largest: Greatest multiplier.
    """

    grow: float = 1.2
    shrink: float = 0.7
    escape: float = 1.5
    smallest: float = 1e-6
    largest: float = 8.0
    compares = True

    def __post_init__(self) -> None:
        if not 0 < self.shrink < 1:
            raise ValueError(f"shrink must lie strictly between 0 and 1, got {self.shrink}")
        for name in ("grow", "escape"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.smallest <= 1 <= self.largest:
            raise ValueError(f"1 must lie between smallest and largest, got {self.smallest} and {self.largest}")

    def judge(self, multiplier: float, now: float, before: float, tied: bool) -> Verdict:
        """See :class:`RadiusControl`."""
        factor = self.shrink if now > before else self.grow if now < before else 1.0
        if tied:
            factor = self.escape
        return Verdict(now <= before, min(max(multiplier * factor, self.smallest), self.largest))
