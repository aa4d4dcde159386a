"""The descent of a policy's cost over rollouts: what every training by gradient through a model shares."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from steersman.controllers.neural.informed import Rollouts
from steersman.optimizers.resumable import Descent, Resumable
from steersman.optimizers.vectorise import assign, flatten

CHECKS = 10
"""Times that the policy is validated during a descent."""
_LIFE = 0.3
"""Share of a descent after which a policy may be found dead."""
_FLAT = 1e-9
"""A gradient of this size, relative to the cost, has vanished."""


@dataclass
class Spent:
    """What a training of several parts has used up.

    Attributes:
        steps: Plant control steps.
        seconds: CPU seconds of earlier processes.
        curve: Learning curve.
    """

    steps: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)

    def add(self, steps: int, curve: list[tuple[int, float]]) -> None:
        """A part, and the points of the curve in it."""
        self.curve += [(self.steps + at, cost) for at, cost in curve]
        self.steps += steps


def descend(
    policy: nn.Module,
    source: Rollouts,
    *,
    resumable: Resumable,
    stage: str,
    steps: int,
    rate: float,
    renewals: int,
    length: Callable[[float], int],
    gen: torch.Generator,
    answers: Callable[[Tensor], bool],
    mortal: bool,
    progress: Callable[[float, str], None],
) -> bool:
    """Adam with a cosine schedule, in place; ends with the weights that validated best since the last renewal.

    Args:
        policy: What is trained.
        source: Where the costs come from.
        resumable: The training that this is a stage of.
        stage: Name of the stage.
        steps: Gradient steps.
        rate: Initial learning rate.
        renewals: Times that starting points are renewed, at equal distances.
        length: Control steps of the rollouts after a share of the gradient steps.
        gen: What decisions are drawn from.
        answers: Whether the policy's action depends on these outputs: a policy is dead by this, or by its gradient.
        mortal: Whether a policy that is found dead ends the descent.
        progress: Called with a fraction in 0..1 and a short text.

    Returns:
        Whether the policy is dead.
    """
    weights = list(policy.parameters())
    optimiser = torch.optim.Adam(weights, rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    best: dict[str, Any] = {"weights": flatten(policy), "cost": math.inf, "slope": 0.0, "dead": False}
    due = {steps * j // (renewals + 1) for j in range(1, renewals + 1)} - {0}

    def step(i: int) -> bool:
        if i in due:
            source.renew()
            best["cost"] = math.inf
        loss = source.loss(length(i / steps))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(weights, 1.0)
        if bool(torch.isfinite(norm)):
            optimiser.step()
            best["slope"] = max(best["slope"], float(norm / loss.detach().abs().clamp(min=1e-300)))
        schedule.step()
        if (i + 1) % max(1, steps // CHECKS) and i != steps - 1:
            return False
        cost = source.validate(length(1.0))
        if cost < best["cost"]:
            best["weights"], best["cost"] = flatten(policy), cost
        progress((i + 1) / steps, f"cost of a step {cost:.4g}")
        seen = source.seen()
        best["dead"] = best["slope"] < _FLAT or (seen is not None and not answers(seen))
        best["slope"] = 0.0
        return bool(mortal and best["dead"] and i + 1 >= _LIFE * steps)

    descent = Descent(weights, optimiser, schedule, gen, source=source, notes=best)
    resumable.run(stage, descent, steps, step, lambda done: source.whole(length(done / steps)))
    assign(policy, best["weights"])
    return bool(best["dead"])
