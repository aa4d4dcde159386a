"""The loop of an episode, once: evaluation, collection, training and films all consume its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steersman.envs.plant import Status
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import Measurement, Simulator
from steersman.envs.transition import Transition

Act = Callable[[Measurement], Tensor]
"""Actions ``[n, m]`` for a measurement of ``n`` rows."""


class Step:
    """One control step of a batch, seen right after it: what was measured, done, and came of it.

    Attributes:
        k: Number of the step in its episode, from 0.
        m: The measurement that was acted on.
        u: The actions, as they were chosen; simulators project them.
        result: What the step cost, and which rows it ended.
        running: Rows whose episode had not ended before it; the others stayed put and cost nothing.
    """

    def __init__(
        self, simulator: Simulator, k: int, m: Measurement, u: Tensor, running: Bool[Tensor, "n"], ahead: int
    ) -> None:
        """Take the step."""
        self.k, self.m, self.u, self.running = k, m, u, running
        self._simulator, self._ahead = simulator, ahead
        self.result: Transition = simulator.step(u)

    @property
    def happened(self) -> Bool[Tensor, "n"]:
        """Rows that ran and did not diverge: what they show after the step is something that was."""
        return self.running & (self.result.status != Status.DIVERGED)

    @cached_property
    def after(self) -> Measurement:
        """The measurement after the step, which the next one is taken on."""
        return self._simulator.measure(self._ahead)

    @cached_property
    def z(self) -> Float[Tensor, "n nz"]:
        """Performance outputs after the step; to be asked for before the next one."""
        return self._simulator.perform()


def episodes(
    simulator: Simulator, scenarios: Scenarios, act: Act, *, ahead: int = 0, steps: int | None = None
) -> Iterator[Step]:
    """Run every row of the scenarios, until all have ended or for some steps.

    Args:
        simulator: Where to run; it is reset.
        scenarios: One per row.
        act: Chooses actions.
        ahead: References ahead that ``act`` is shown.
        steps: Control steps at most; by default those of the problem's horizon.

    Yields:
        Each step after it was taken.

    Raises:
        ValueError: If there is not one scenario per row of the simulator.
    """
    simulator.reset(scenarios)
    running = torch.ones(simulator.n, dtype=torch.bool, device=simulator.device)
    m = simulator.measure(ahead)
    for k in range(simulator.problem.horizon if steps is None else steps):
        step = Step(simulator, k, m, act(m), running, ahead)
        yield step
        running = running & ~step.result.ended
        if not bool(running.any()):
            return
        m = step.after
