"""Radii and temperatures over the generations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final


@final
@dataclass(frozen=True)
class Schedule:
    """A positive number that falls (or rises) from ``start`` to ``end`` over ``generations``, then stays.

    Attributes:
        start: Value at generation 0.
        end: Value from ``generations`` on.
        generations: Length of the change.
        shape: "linear"; "cosine", half a period; "power", geometric: equal factors in equal times; "root", as
            ``1 / sqrt(1 + c t)``, the law of steps under which stochastic gradients are shown to converge.
    """

    start: float
    end: float
    generations: int
    shape: Literal["linear", "cosine", "power", "root"] = "cosine"

    def __post_init__(self) -> None:
        if not (self.start > 0 and self.end > 0 and math.isfinite(self.start + self.end)):
            raise ValueError(f"start and end must be positive and finite, got {self.start} and {self.end}")
        if self.generations < 1:
            raise ValueError(f"generations must be at least 1, got {self.generations}")
        if self.shape not in ("linear", "cosine", "power", "root"):
            raise ValueError(f"shape must be 'linear', 'cosine', 'power' or 'root', got {self.shape!r}")

    def __call__(self, generation: int) -> float:
        """Value at a generation."""
        done = min(generation / self.generations, 1.0)
        if self.shape == "power":
            return float(self.start ** (1 - done) * self.end**done)
        if self.shape == "root":
            return self.start / math.sqrt(1 + done * ((self.start / self.end) ** 2 - 1))
        if self.shape == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return self.start + (self.end - self.start) * done


def value_at(setting: float | Schedule, generation: int) -> float:
    """Value of a constant or a schedule."""
    return setting(generation) if isinstance(setting, Schedule) else float(setting)


def check_positive(name: str, setting: float | Schedule) -> None:
    """Refuse constants that are not positive and finite; schedules check themselves."""
    if not isinstance(setting, Schedule) and not (setting > 0 and math.isfinite(setting)):
        raise ValueError(f"{name} must be positive and finite, got {setting}; give a number or a Schedule")
