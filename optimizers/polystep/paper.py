"""The paper's PolyStep, in the paper's own parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from steersman.optimizers.polystep.control import Scheduled
from steersman.optimizers.polystep.polystep import PolyStep
from steersman.optimizers.polystep.polytopes import Polytope
from steersman.optimizers.polystep.schedules import Schedule
from steersman.optimizers.polystep.sinkhorn import Sinkhorn
from steersman.optimizers.polystep.weighting import Divisor, Greedy, Softmax, Weighting

Name = Literal["softmax", "sinkhorn", "greedy"]


def paper(
    temperature: float | Schedule = 0.1,
    step_radius: float | Schedule = 1.0,
    probe_radius: float | Schedule = 2.0,
    *,
    block: int = 2,
    polytope: Polytope = Polytope.SIMPLEX,
    weighting: Name = "sinkhorn",
    divisor: Divisor = 1.0,
    shells: int = 1,
    momentum: float = 0.0,
    biased: bool = False,
) -> PolyStep:
    """A block-wise search that takes the steps of ``polystep`` 1.1.0; the defaults are that package's.

    Le, "Training Non-Differentiable Networks via Optimal Transport" (arXiv 2605.01928). Every step is kept, single
    costs are trusted, and the incumbent is not evaluated. One setting differs in kind: an infinite or missing cost is
    replaced by one above the worst, at a distance of the spread, and not by twice the largest magnitude.

    Args:
        temperature: Regularisation eps of the transport.
        step_radius: A number is in units of the temperature, a schedule in units of x.
        probe_radius: Likewise; with one shell the probes lie at half of it.
        block: Coordinates of a particle.
        polytope: Template.
        weighting: "sinkhorn" with uniform marginals, "softmax" of each row, or "greedy".
        divisor: Divisor of the costs.
        shells: Probes along each direction.
        momentum: Heavy-ball coefficient.
        biased: Whether the first direction follows the velocity.

    Raises:
        ValueError: If a setting is out of range.
    """
    rules: dict[str, Weighting] = {
        "softmax": Softmax(temperature, divisor), "sinkhorn": Sinkhorn(temperature, divisor), "greedy": Greedy(),
    }  # fmt: skip
    if weighting not in rules:
        raise ValueError(f"weighting must be one of {', '.join(rules)}, got {weighting!r}")
    return PolyStep(
        probe_radius=_length(probe_radius, temperature),
        step_radius=_length(step_radius, temperature),
        polytope=polytope,
        weighting=rules[weighting],
        control=Scheduled(),
        shells=shells,
        momentum=momentum,
        biased=biased,
        confirmations=0,
        block=block,
    )


def _length(radius: float | Schedule, temperature: float | Schedule) -> float | Schedule:
    if isinstance(radius, Schedule):
        return radius
    if isinstance(temperature, Schedule):
        return replace(temperature, start=radius * temperature.start, end=radius * temperature.end)
    return radius * temperature
