"""What is said of a plant that is registered, and the two versions of a task whose first one was published."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

NAMESPACE = "steersman"


@dataclass(frozen=True)
class PlantSpec:
    """One registered plant.

    Attributes:
        name: Versioned name, the id without the namespace.
        target: ``module:Class``, imported when the plant is first made.
        summary: One line for ``steersman list``.
        kwargs: Constructor arguments of this variant.
        control_steps: Control steps of an episode, for gymnasium's spec.
    """

    name: str
    target: str
    summary: str
    control_steps: int
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The gymnasium id."""
        return f"{NAMESPACE}/{self.name}"


FAULT = ("foreseeable fault", "fault at any time or never")
LOAD = ("foreseeable load step", "load step at any time or never")
ORDER = ("first order", "second order")


def versions(
    name: str, target: str, summary: str, steps: int, labels: tuple[str, str] = FAULT, second: Any = None, **both: Any
) -> tuple[PlantSpec, PlantSpec]:
    """A task as published and the one that replaces it, what tells them apart, and the arguments that make it."""
    return (
        PlantSpec(f"{name}-v1", target, f"{summary}; published, {labels[0]}", steps, both),
        PlantSpec(f"{name}-v2", target, f"{summary}; {labels[1]}", steps, both | (second or {"version": 2})),
    )
