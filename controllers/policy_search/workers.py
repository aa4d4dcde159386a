"""Processes that run parts of a population: each holds a replica of the search, so that no weights are sent."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import fields
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from steersman.controllers.policy_search.evaluation import Episodes, join, share
from steersman.controllers.policy_search.population import Costs
from steersman.envs.processes import die_with_parent
from steersman.optimizers.base import Search


class Workers:
    """Spawned processes on this machine, one torch thread each.

    A worker begins from the state of the search once. After that it is sent the number of a generation, the costs
    that the search was told of the generation before, the rows to run and the keys of their scenarios; it makes the
    rows by itself and sends back their costs. The traffic of a generation is a few bytes per row, however large the
    policy is, and the results are those of :class:`~steersman.controllers.policy_search.evaluation.InProcess` with as
    many shards, bit by bit. What its simulators have said so far comes back too.
    """

    def __init__(self, episodes: Episodes, search: Search[Any], count: int) -> None:
        """Prepare ``count`` processes; they start at the first call.

        Raises:
            ValueError: If what the processes need cannot be pickled.
        """
        try:
            # Pickled here, because torch would share tensors with other processes through open files.
            self._plan = pickle.dumps((episodes, type(search), _settings(search)))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"worker processes need simulators and policies that can be pickled: {error}; pass functions of a "
                "module (functools.partial of one is fine), or set workers=0"
            ) from error
        self._search, self._pools = search, [_pool() for _ in range(count)]
        self._said: list[tuple[str, ...]] = [()] * count
        self._told: Tensor | None = None
        self._begun = False

    def __call__(
        self,
        pop: Float[Tensor, "pop dim"],
        generation: int,
        rows: Int64[Tensor, "some"],
        keys: Int64[Tensor, "e"],
        limit: int | None = None,
    ) -> Costs:
        """See :class:`~steersman.controllers.policy_search.evaluation.Executor`."""
        state = None if self._begun else self._search.state_dict()
        parts = rows.tensor_split(len(self._pools))
        told, self._told, self._begun = self._told, None, True
        plan = self._plan if state else b""
        messages = [(plan, state, generation, told, part, keys, share(limit, part, rows)) for part in parts]
        futures: list[Future[bytes]] = [
            pool.submit(_work, pickle.dumps(message)) for pool, message in zip(self._pools, messages, strict=True)
        ]
        found = [pickle.loads(future.result()) for future in futures]  # noqa: S301 - from our own processes
        self._said = [notes for _, notes in found]
        return join([part for part, _ in found if len(part.cost)])

    @property
    def notes(self) -> tuple[str, ...]:
        """What the simulators of all processes had to say, each remark once."""
        return tuple(dict.fromkeys(note for notes in self._said for note in notes))

    def told(self, cost: Float[Tensor, "pop"]) -> None:
        """See :class:`~steersman.controllers.policy_search.evaluation.Executor`."""
        self._told = cost

    def close(self) -> None:
        """End the processes."""
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=die_with_parent)


def _settings(search: Search[Any]) -> dict[str, Any]:
    return {field.name: getattr(search, field.name) for field in fields(search)}


class _Replica:
    """A worker's copy of the search, one generation after the other."""

    def __init__(self, plan: bytes, state: dict[str, Any]) -> None:
        episodes, kind, settings = pickle.loads(plan)  # noqa: S301 - from the process that started this one
        self.episodes: Episodes = episodes
        self.search: Search[Any] = kind(**settings)
        # The state was taken while costs were awaited; the replica asks by itself.
        self.search.load_state_dict({**state, "asked": False})
        self.pop = self.search.ask()

    def follow(self, generation: int, told: Tensor | None) -> None:
        """Go on to a generation, from the costs of the one before."""
        if generation != self.search.generation:
            assert told is not None  # noqa: S101 - our own protocol
            self.search.tell(told)
            self.pop = self.search.ask()

    def run(self, rows: Tensor, keys: Tensor, limit: int | None) -> Costs:
        if not len(rows):
            return Costs(torch.zeros(0, len(keys)), torch.zeros(0, dtype=torch.int64), 0)
        return self.episodes.run(self.pop[rows], keys, limit=limit)


_REPLICA: list[_Replica] = []
"""The one replica of a worker process; empty in every other process."""


def _work(message: bytes) -> bytes:
    plan, state, generation, told, rows, keys, limit = pickle.loads(message)  # noqa: S301 - from the starting process
    torch.set_num_threads(1)
    if state is not None:
        _REPLICA[:] = [_Replica(plan, state)]
    (replica,) = _REPLICA
    replica.follow(generation, told)
    return pickle.dumps((replica.run(rows, keys, limit), replica.episodes.notes))
