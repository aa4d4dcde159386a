"""A control loop at a fixed rate, beside whatever else a program does, and how well it kept its times."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steersman.controllers.base import Outcome
from steersman.experiments.exported.deployed import DeployedController, Vector

Measure = Callable[[], Vector | Awaitable[Vector]]
"""Measured outputs ``[ny]``."""
Apply = Callable[[Vector], object]
"""Takes an action ``[m]``; may be a coroutine function."""


@dataclass(frozen=True)
class LoopReport:
    """How a loop kept its times.

    Attributes:
        period: Wanted time between two actions in s.
        began: When each step began, in s since the first.
        decided: How long each decision took, in s.
        fallbacks: Steps in which the controller fell back on something else than it is meant to return.
    """

    period: float
    began: NDArray[np.float64]
    decided: NDArray[np.float64]
    fallbacks: int

    @property
    def jitter(self) -> NDArray[np.float64]:
        """How much later than wanted each step began, in s."""
        late: NDArray[np.float64] = self.began - self.period * np.arange(len(self.began))
        return late

    def __str__(self) -> str:
        late, decided = 1e3 * self.jitter, 1e3 * self.decided
        return (
            f"{len(late)} steps of {1e3 * self.period:g} ms: late by {np.median(late):.2f} ms (median), "
            f"{np.percentile(late, 99):.2f} (99 %), {late.max():.2f} (worst); decided in {np.median(decided):.2f} ms "
            f"(median), {decided.max():.2f} (worst); {self.fallbacks} fallbacks"
        )


async def control_loop(
    controller: DeployedController,
    measure: Measure,
    apply: Apply,
    *,
    period: float,
    steps: int,
    refer: Measure | None = None,
) -> LoopReport:
    """Measure, decide and act once a period. Times are counted from the first step, so that delays do not add up.

    A step that comes late is taken at once; none is left out.

    Args:
        controller: The controller.
        measure: Measured outputs; a function or a coroutine function.
        apply: What is done with an action; likewise.
        period: Time between two steps in s, positive.
        steps: Steps to take, at least 1.
        refer: References of the performance outputs ``[nz]``, or ``[h + 1, nz]``; by default those of the controller.

    Raises:
        ValueError: If a number is out of range.
    """
    if not period > 0 or steps < 1:
        raise ValueError(f"a loop needs a positive period and at least one step, got {period} and {steps}")
    began, decided, fallbacks = [], [], 0
    start = time.perf_counter()
    for i in range(steps):
        await asyncio.sleep(max(0.0, start + i * period - time.perf_counter()))
        began.append(time.perf_counter() - start)
        y = await _taken(measure())
        await _taken(apply(controller(y, None if refer is None else await _taken(refer()))))
        decided.append(controller.seconds)
        fallbacks += controller.outcome != Outcome.OPTIMAL
    return LoopReport(period, np.array(began), np.array(decided), fallbacks)


async def _taken(value: Any) -> Any:
    """What a function gave, or a coroutine function in the end."""
    return await value if inspect.isawaitable(value) else value
