"""Costs of a population: common scenarios, risk over them, racing, and a seam for where the episodes run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from steersman.controllers.base import Training
from steersman.controllers.policy_search.compiled import CompiledSteps
from steersman.controllers.policy_search.population import Costs, GiveUp, Population, roll_out
from steersman.controllers.risk import MEAN, Risk
from steersman.envs.simulator import Simulator

JUDGED = 4
"""The last rows of a population are those that searches compare on equal terms: they run all episodes of a race."""
_KEPT = 4
"""Simulators of different sizes that are kept: environments of other packages are costly to make."""


class Episodes:
    """Episodes of a population on simulators of this process: what every executor runs in the end."""

    def __init__(
        self,
        population: Population,
        simulate: Callable[[int], Simulator],
        seed: int,
        *,
        risk: Risk = MEAN,
        floor: float | None = None,
        keep: float = 0.5,
        compiled: bool = False,
    ) -> None:
        """Store what a process needs to know; picklable if ``simulate`` and the network are.

        Args:
            population: Architecture, normalisation and actions; its vectors are not read.
            simulate: Makes a simulator with the given number of rows.
            seed: Seed of the training.
            risk: The measure by which members are compared.
            floor: Least cost of a control step, by which hopeless members are ended early; None ends none.
            keep: Share of the members whose ranks must stay exact then.
            compiled: Whether control steps are compiled, which takes a simulator of a plant.
        """
        self.population, self.simulate, self.seed = population, simulate, seed
        self.risk, self.floor, self.keep, self.compiled = risk, floor, keep, compiled
        self._steps: CompiledSteps | None = None
        self._made: dict[int, Simulator] = {}
        self._said: dict[str, None] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What its simulators have said so far, each remark once; those that are not kept any more too."""
        made = (note for simulator in self._made.values() for note in simulator.notes)
        return tuple(dict.fromkeys((*self._said, *made)))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_made": {}, "_said": {}, "_steps": None}

    def keys(self, start: int, count: int) -> Int64[Tensor, "count"]:
        """Keys of training scenarios."""
        return Training(self.simulate, self.seed, device=self.population.vectors.device).keys(count, start=start)

    def run(
        self,
        vectors: Float[Tensor, "some dim"],
        keys: Int64[Tensor, "episodes"],
        *,
        all_ranks: bool = False,
        limit: int | None = None,
    ) -> Costs:
        """Costs of members on the scenarios of these keys, the same for all; with ``all_ranks`` none ends early.

        At ``limit`` control steps all episodes are broken off.

        Raises:
            ValueError: If steps are to be compiled and there is no plant.
            RuntimeError: If they cannot be compiled.
        """
        # A start can be costly, so each scenario is drawn once and then copied to every member.
        bank = self._simulator(len(keys)).scenarios(keys).tile(len(vectors))
        p = self.population
        rule = None
        if self.floor is not None and not all_ranks:
            rule = GiveUp(self.floor, max(1, math.ceil(self.keep * len(vectors))), self.risk)
        simulator = self._simulator(len(bank))
        members = Population(p.network, vectors.to(simulator.device), p.mean, p.std, p.actions)
        return roll_out(members, simulator, bank, rule, self._compiled_for(simulator), limit)

    def _compiled_for(self, simulator: Simulator) -> CompiledSteps | None:
        if self.compiled and self._steps is None:
            if simulator.plant is None:
                raise ValueError(
                    f"compiled=True takes a plant written in torch, {type(simulator).__name__} has none; "
                    "set compiled=False"
                )
            simulator.price()  # a compiled step cannot stop to look for it
            self._steps = CompiledSteps(self.population.network, simulator.plant, simulator.problem.objective)
        return self._steps

    def _simulator(self, n: int) -> Simulator:
        if n not in self._made:
            if len(self._made) == _KEPT:
                oldest = self._made.pop(next(iter(self._made)))
                self._said |= dict.fromkeys(oldest.notes)
                oldest.close()
            self._made[n] = self.simulate(n)
        return self._made[n]


@runtime_checkable
class Executor(Protocol):
    """Where the episodes of a generation run: it is sent numbers that the random draws follow from, never weights."""

    def __call__(
        self,
        pop: Float[Tensor, "pop dim"],
        generation: int,
        rows: Int64[Tensor, "some"],
        keys: Int64[Tensor, "e"],
        limit: int | None = None,
    ) -> Costs:
        """Costs of some rows of a generation's population on the scenarios of the keys.

        Args:
            pop: The population as the search asked for it, for executors of this process.
            generation: Its number, from which a replica of the search makes the same population.
            rows: Rows to run.
            keys: Keys of the scenarios.
            limit: Control steps at which the episodes are broken off; each batch has its share of them.
        """

    def told(self, cost: Float[Tensor, "pop"]) -> None:
        """Costs that the search is about to be told, which replicas need for their next population."""

    def close(self) -> None:
        """Release what it holds."""


class InProcess:
    """Runs rows here, in ``shards`` batches: the results of as many worker processes, bit by bit."""

    def __init__(self, episodes: Episodes, shards: int = 1) -> None:
        """Store the settings."""
        self.episodes, self.shards = episodes, shards

    def __call__(
        self,
        pop: Float[Tensor, "pop dim"],
        generation: int,
        rows: Int64[Tensor, "some"],
        keys: Int64[Tensor, "e"],
        limit: int | None = None,
    ) -> Costs:
        """See :class:`Executor`."""
        if self.shards == 1 and len(rows) == len(pop):  # all, in their order: nothing to pick
            return self.episodes.run(pop, keys, limit=limit)
        parts = [part for part in rows.tensor_split(self.shards) if len(part)]
        return join([self.episodes.run(pop[part], keys, limit=share(limit, part, rows)) for part in parts])

    def told(self, cost: Float[Tensor, "pop"]) -> None:
        """Nothing to do: the search itself is here."""

    def close(self) -> None:
        """Nothing to release."""


def join(parts: list[Costs]) -> Costs:
    """Costs of successive rows in one piece."""
    return Costs(
        torch.cat([part.cost for part in parts]),
        torch.cat([part.plant_steps for part in parts]),
        sum(part.simulated for part in parts),
        all(part.whole for part in parts),
    )


def share(limit: int | None, part: Int64[Tensor, "some"], rows: Int64[Tensor, "all"]) -> int | None:
    """The part of a limit that some of the rows have."""
    return None if limit is None else limit * len(part) // len(rows)


class OutOfStepsError(Exception):
    """A generation was broken off at its limit of control steps."""


class Evaluation:
    """Costs of whole populations, with the control steps they took. All members meet the same scenarios.

    With a race, all members run the first few scenarios; the better part of them runs the others as well. The costs
    of those who drop out are those of their episodes, moved by as much as the others' costs changed on average.

    Attributes:
        limit: Control steps that the next generation may take; None is no limit.
    """

    limit: int | None = None

    def __init__(
        self, episodes: Episodes, executor: Executor, scenarios: int, race: int, keep: float, ledger: Path | None = None
    ) -> None:
        """Store the settings.

        Args:
            episodes: Keys and risk.
            executor: Where episodes run.
            scenarios: Episodes per generation.
            race: Episodes that all members run, 0 for no race.
            keep: Share of the members that run the others.
            ledger: File that keeps the control steps of each generation, beside a search's checkpoint.
        """
        self.episodes, self.executor = episodes, executor
        self.scenarios, self.first, self.keep = scenarios, race or scenarios, keep
        self._ledger, self._steps = ledger, _read_ledger(ledger)
        self._open: dict[int, list[Tensor]] = {}  # control steps that have not been read yet

    def __call__(self, pop: Float[Tensor, "pop dim"], generation: int) -> Float[Tensor, "pop"]:
        """Cost of each row; episode ``e`` of generation ``g`` has the training key ``g scenarios + e``.

        Raises:
            OutOfStepsError: If the generation would take more than :attr:`limit`. What it took counts.
        """
        self._settle()
        keys = self.episodes.keys(generation * self.scenarios, self.scenarios)
        self._steps[generation], self._open[generation] = 0, []
        everyone = torch.arange(len(pop), device=pop.device)
        cost = self._run(pop, generation, everyone, keys[: self.first])
        value = self.episodes.risk(cost)
        if self.first < self.scenarios:
            value = self._finish(pop, generation, keys, cost, value)
        self.executor.told(value)
        if pop.device.type == "cpu":
            self._settle()
        return value

    def plant_steps(self, generation: int) -> int:
        """Control steps of all generations before this one, those of an earlier process included."""
        self._settle()
        return sum(steps for made, steps in self._steps.items() if made < generation)

    def of_generation(self, generation: int) -> int | None:
        """Control steps of one generation; None if it was never run."""
        self._settle()
        return self._steps.get(generation)

    def _settle(self) -> None:
        """Read and book the control steps: on a GPU only now, between generations, since the host waits for it."""
        for generation, parts in self._open.items():
            self._steps[generation] += sum(int(part) for part in parts)
            self._book(generation)
        self._open.clear()

    def _book(self, generation: int) -> None:
        if self._ledger is not None:
            with self._ledger.open("a") as file:
                file.write(json.dumps([generation, self._steps[generation]]) + "\n")

    def _finish(self, pop: Tensor, generation: int, keys: Tensor, cost: Tensor, value: Tensor) -> Tensor:
        best = value.argsort(stable=True)[: max(1, math.ceil(self.keep * len(pop)))]
        stays = torch.zeros(len(pop), dtype=torch.bool, device=pop.device)
        stays[best], stays[-JUDGED:] = True, True
        going = torch.nonzero(stays).flatten()
        more = self._run(pop, generation, going, keys[self.first :])
        whole = self.episodes.risk(torch.cat([cost[going], more], dim=1))
        moved = value + (whole - value[going]).mean()
        moved[going] = whole
        return moved

    def _run(self, pop: Tensor, generation: int, rows: Tensor, keys: Tensor) -> Tensor:
        spent = self._open[generation]
        left = None if self.limit is None else self.limit - sum(int(part) for part in spent)
        found = self.executor(pop, generation, rows, keys, left)
        spent.append(found.plant_steps.sum())
        if not found.whole:
            self._settle()
            raise OutOfStepsError
        return found.cost.to(pop.device)


def _read_ledger(path: Path | None) -> dict[int, int]:
    """Control steps by generation; of a generation that was run again after a crash the last line counts."""
    if path is None or not path.exists():
        return {}
    found, lines = {}, path.read_text(errors="replace").splitlines(keepends=True)
    for line in lines:
        try:
            made, steps = json.loads(line)
            found[int(made)] = int(steps)
        except (ValueError, TypeError):  # cut off by a crash; its generation is run again
            continue
    if lines and (len(found) < len(lines) or not lines[-1].endswith("\n")):
        path.write_text("".join(f"{json.dumps([made, steps])}\n" for made, steps in found.items()))
    return found
