"""A population of policies on a batch of episodes; episodes and members that are over leave the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from steersman.controllers.neural.policy import member_actions
from steersman.controllers.policy_search.compiled import STRIDE, Batch, CompiledSteps
from steersman.controllers.risk import Risk
from steersman.controllers.rollout import keep_rows
from steersman.envs.actions import ActionSet
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import Measurement, PlantSimulator, Simulator
from steersman.envs.transition import Transition
from steersman.optimizers.policies.base import Policy
from steersman.optimizers.vectorise import bind_population, unflatten

SPARSE = 0.75
"""The batch is made smaller once that share of it is enough."""


@dataclass(frozen=True)
class Population:
    """Policies of one architecture.

    Attributes:
        network: Architecture.
        vectors: Parameters of each member.
        mean: Subtracted from outputs; one row for all members or one for each.
        std: Outputs are divided by it, likewise.
        actions: What the plant accepts.
    """

    network: Policy
    vectors: Float[Tensor, "pop dim"]
    mean: Float[Tensor, "_ ny"]
    std: Float[Tensor, "_ ny"]
    actions: ActionSet

    def members(self, index: Int64[Tensor, "some"]) -> Population:
        """Some of the members."""
        mean, std = (t if len(t) == 1 else t[index] for t in (self.mean, self.std))
        return Population(self.network, self.vectors[index], mean, std, self.actions)

    def act(
        self, y: Float[Tensor, "pop width ny"], memory: Float[Tensor, "pop width memory"]
    ) -> tuple[Float[Tensor, "rows m"], Float[Tensor, "pop width memory"]]:
        """Actions, member by member and not yet projected, and the memory after them."""
        return member_actions(self._forward, self.actions, *self._scale, y, memory)

    @cached_property
    def _scale(self) -> tuple[Tensor, Tensor]:
        return self.mean.to(self.vectors)[:, None], self.std.to(self.vectors)[:, None]

    @cached_property
    def stacked(self) -> tuple[dict[str, Tensor], Float[Tensor, "pop 1 ny"], Float[Tensor, "pop 1 ny"]]:
        """Parameters by name, mean and standard deviation, one of each for every member: what compiled steps take."""
        mean, std = (t.expand(len(self.vectors), -1, -1).contiguous() for t in self._scale)
        return {name: part.contiguous() for name, part in unflatten(self.network, self.vectors).items()}, mean, std

    @cached_property
    def _forward(self) -> Callable[..., Any]:
        return bind_population(self.network, self.vectors)


@dataclass(frozen=True)
class Costs:
    """What a population's episodes cost.

    Attributes:
        cost: Cost of each episode; of a member that was given up, a lower bound of it.
        plant_steps: Control steps each member used, of its running episodes only.
        simulated: Rows times control steps that the simulator computed, running or over.
        whole: Whether all episodes went to their ends; if not, costs are those up to where the limit was reached.
    """

    cost: Float[Tensor, "pop episodes"]
    plant_steps: Int64[Tensor, "pop"]
    simulated: int
    whole: bool = True


@dataclass(frozen=True)
class GiveUp:
    """A rule that ends hopeless members early.

    With a lower bound of what a control step can cost, a member is certain to end up behind ``keep`` others once the
    bound of its cost exceeds the finished costs of so many: ranks among the best ``keep`` stay exact.

    Attributes:
        floor: Least cost of a control step, at most 0: an episode may end and cost nothing more.
        keep: Members whose ranks matter.
        risk: The measure by which members are compared.
    """

    floor: float
    keep: int
    risk: Risk

    def hopeless(
        self, cost: Float[Tensor, "pop episodes"], left: Int64[Tensor, "pop episodes"]
    ) -> tuple[Bool[Tensor, "pop"], Float[Tensor, "pop episodes"]]:
        """Members to end, and the bounds of all costs, from costs so far and the control steps left."""
        bound = cost + self.floor * left
        value = self.risk(bound)
        running = (left > 0).any(dim=1)
        finished = value[~running]
        if len(finished) < self.keep:
            return torch.zeros_like(running), bound
        return running & (value > finished.kthvalue(self.keep).values), bound


def roll_out(
    population: Population,
    simulator: Simulator,
    scenarios: Scenarios,
    give_up: GiveUp | None = None,
    compiled: CompiledSteps | None = None,
    limit: int | None = None,
) -> Costs:
    """Run every member on its scenarios.

    Args:
        population: The members.
        simulator: With one row per scenario.
        scenarios: Those of the first member, then those of the second, and so on; equally many for each.
        give_up: When members are ended early; none are by default.
        compiled: Control steps of such policies on the simulator's plant; then rows that are over are looked for
            every few steps only.
        limit: Control steps of running episodes after which all of them are broken off; none by default.

    Raises:
        ValueError: If the scenarios cannot be dealt out evenly.
        RuntimeError: If the simulator ends no episode at the horizon.
    """
    pop = len(population.vectors)
    if len(scenarios) % pop:
        raise ValueError(f"{len(scenarios)} scenarios cannot be dealt to {pop} members; give equally many to each")
    return _Rollout(population, simulator, scenarios, give_up, compiled).run(limit)


class _Rollout:
    """The table of members times episodes that are still in the batch, and the totals of all."""

    running: Tensor
    row_cost: Tensor
    row_steps: Tensor

    def __init__(
        self,
        population: Population,
        simulator: Simulator,
        scenarios: Scenarios,
        give_up: GiveUp | None,
        compiled: CompiledSteps | None,
    ) -> None:
        self.population, self.simulator, self.give_up, self.compiled = population, simulator, give_up, compiled
        n, pop = len(scenarios), len(population.vectors)
        self.table = torch.arange(n, device=simulator.device).reshape(pop, n // pop)
        self.alive = torch.ones(n, dtype=torch.bool, device=simulator.device)
        self.cost = torch.zeros(n, dtype=simulator.dtype, device=simulator.device)
        self.steps = torch.zeros(n, dtype=torch.int64, device=simulator.device)
        fresh = population.network.initial_state(n).to(population.vectors)
        self.memory = fresh.reshape(pop, n // pop, population.network.memory)
        self.simulated, self.shape = 0, (pop, n // pop)
        self._load()
        simulator.reset(scenarios)

    @torch.no_grad()
    def run(self, limit: int | None) -> Costs:
        horizon = self.simulator.problem.horizon
        if limit is None and self._unwatched():
            return self._run_unwatched(horizon)
        for _ in range(horizon):
            if limit is not None and self._next_total() > limit:
                return self._costs(whole=False)
            fewer = self._advance()
            if fewer or self.give_up is not None:
                self._store()
                fewer |= self._end_hopeless()
            if fewer and not self._compact():
                return self._costs(whole=True)
        raise RuntimeError(f"{type(self.simulator).__name__} has episodes that go on after the horizon of {horizon}")

    def _unwatched(self) -> bool:
        """Whether all rows go on to the horizon, those that are over too.

        A GPU hardly notices them, and to look for them the host would wait for it at every step.
        """
        here = isinstance(self.simulator, PlantSimulator) and self.simulator.device.type != "cpu"
        return here and self.give_up is None and self.compiled is None

    def _run_unwatched(self, horizon: int) -> Costs:
        for _ in range(horizon):
            self.running = self.running & ~self._step().ended
        self._store()
        return self._costs(whole=True)

    def _costs(self, *, whole: bool) -> Costs:
        steps = self.steps.reshape(self.shape).sum(dim=1)
        return Costs(self.cost.reshape(self.shape), steps, self.simulated, whole)

    def _next_total(self) -> int:
        """Control steps of all episodes once the batch has gone on, at most."""
        self._store()
        ahead = 1 if self._compiled_here() is None else STRIDE
        return int(self.steps.sum()) + ahead * int(self.running.sum())

    def _compiled_here(self) -> CompiledSteps | None:
        fits = isinstance(self.simulator, PlantSimulator) and min(self.table.shape) > 1
        return self.compiled if fits else None

    def _advance(self) -> bool:
        """Go on by a control step, or by some; whether a running episode has ended."""
        if (steps := self._compiled_here()) is not None:
            return self._advance_compiled(steps)
        t = self._step()
        over = self.running & t.ended
        fewer = bool(over.any())
        if fewer:
            self.running = self.running & ~over
        return fewer

    def _step(self) -> Transition:
        t = self.simulator.step(self._act(self.simulator.measure()))
        self.row_cost = self.row_cost + torch.where(self.running, t.cost, 0.0)
        self.row_steps = self.row_steps + self.running
        self.simulated += len(t.ended)
        return t

    def _advance_compiled(self, steps: CompiledSteps) -> bool:
        simulator = self.simulator
        assert isinstance(simulator, PlantSimulator)  # noqa: S101 - _compiled_here has seen to it
        b = Batch(simulator.snapshot(), self.memory, self.running, self.row_cost, self.row_steps)
        b, fewer = steps(*self.population.stacked, b)
        simulator.restore(b.now)
        self.memory, self.running, self.row_cost, self.row_steps = b.memory, b.running, b.cost, b.steps
        self.simulated += STRIDE * len(b.steps)
        return fewer

    def _load(self) -> None:
        """Take the rows of the batch out of the totals."""
        rows = self.table.flatten()
        self.running, self.row_cost, self.row_steps = self.alive[rows], self.cost[rows], self.steps[rows]

    def _store(self) -> None:
        """Put the rows of the batch into the totals."""
        rows = self.table.flatten()
        self.alive[rows], self.cost[rows], self.steps[rows] = self.running, self.row_cost, self.row_steps

    def _act(self, m: Measurement) -> Tensor:
        u, self.memory = self.population.act(m.y.reshape(*self.table.shape, -1), self.memory)
        # A simulator that was not made smaller ends a row at an action that is no number, without stepping it.
        return u if self.give_up is None else torch.where(self.running[:, None], u, torch.nan)

    def _end_hopeless(self) -> bool:
        if self.give_up is None:
            return False
        left = torch.where(self.alive, self.simulator.problem.horizon - self.steps, 0)
        hopeless, bound = self.give_up.hopeless(self.cost.reshape(self.shape), left.reshape(self.shape))
        gone = hopeless[:, None].expand(self.shape).flatten()
        # Ended members count as finished, with a bound that is worse than those of the best.
        self.cost = torch.where(gone, bound.flatten(), self.cost)
        self.alive = self.alive & ~gone
        self._load()
        return bool(hopeless.any())

    def _compact(self) -> bool:
        """Go on with the members that have running episodes, and with as many columns as the busiest needs.

        False if no episode is running any more.
        """
        running = self.running.reshape(self.table.shape)
        width, going = int(running.sum(dim=1).max()), running.any(dim=1)
        if width == 0:
            return False
        # To the compiler a size of one is another function: some that are over may stay.
        least = 1 if self.compiled is None else 2
        width, count = min(max(width, least), running.shape[1]), max(int(going.sum()), least)
        kept = (~going).to(torch.uint8).argsort(stable=True)[:count].sort().values
        if width * len(kept) > SPARSE * running.numel():
            return True
        order = (~running[kept]).to(torch.uint8).argsort(dim=1, stable=True)[:, :width]
        local = (kept[:, None] * running.shape[1] + order).flatten()
        smaller = keep_rows(self.simulator, local)
        if smaller is None:
            return True
        self.simulator, self.population = smaller, self.population.members(kept)
        self.table = self.table.flatten()[local].reshape(len(kept), width)
        self.memory = self.memory.flatten(0, 1)[local].reshape(len(kept), width, self.memory.shape[2])
        self._load()
        return True
