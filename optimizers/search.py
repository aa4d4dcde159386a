"""The loop from a search and an evaluation to a result, within an exact budget, resumable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.optimizers.base import Search
from steersman.optimizers.champion import Best
from steersman.optimizers.checkpoint import CheckpointError, read_checkpoint, set_aside, write_checkpoint

Evaluate = Callable[[Float[Tensor, "pop dim"], int], Float[Tensor, "pop"]]
"""Costs of a population at a generation's number, from which the evaluation derives its random numbers: one number,
one set of scenarios, for all rows alike. The next population takes the place of this one: clone what you keep."""


@dataclass(frozen=True)
class Generation:
    """One line of a search's history.

    Attributes:
        evaluations: Evaluations used up to and including this generation.
        best: Cost of the best point so far, as :attr:`Search.best` gives it; infinite before a finite cost.
        lowest: Lowest cost of the generation.
        median: Median of the generation's finite costs; infinite if there are none.
        failed: Rows whose cost was not finite.
    """

    evaluations: int
    best: float
    lowest: float
    median: float
    failed: int


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: The best point, or None if no cost was finite.
        incumbent: Centre of the search at its end.
        history: One entry per generation, those before a resume included.
        evaluations: Points evaluated, those before a resume included.
        seconds: Wall time, likewise.
        stopped: Why it ended: "budget", or "target" reached.
    """

    best: Best | None
    incumbent: Float[Tensor, "dim"]
    history: tuple[Generation, ...]
    evaluations: int
    seconds: float
    stopped: Literal["budget", "target"]


def minimise(
    search: Search[Any],
    evaluate: Evaluate,
    *,
    budget_evaluations: int,
    target: float | None = None,
    progress: Callable[[float, str], None] = lambda fraction, text: None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 10,
) -> SearchResult:
    """Run a search until the next generation would exceed the budget, or the target is reached.

    Args:
        search: A started search; with an existing checkpoint it need not be started.
        evaluate: Called with a population and the generation's number.
        budget_evaluations: Most points evaluated, all generations and re-evaluations counted.
        target: Stop when the cost of the best point is at most this.
        progress: Called after each generation with a fraction in 0..1 and a short text.
        checkpoint: File written every ``checkpoint_every`` generations and at the end; if it exists, the search
            goes on from it and ends where an uninterrupted one would have, bit by bit. A file that is damaged, or of
            another search, other settings or another start, is reported by a
            :class:`~steersman.optimizers.checkpoint.CheckpointWarning`, kept under another name, and a started search
            begins.
        checkpoint_every: Generations between checkpoints.

    Raises:
        ValueError: If the budget does not cover one generation, or a search that is not started cannot go on from
            the checkpoint.
        RuntimeError: If the search is not started and there is no checkpoint.
    """
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every must be at least 1, got {checkpoint_every}")
    history, spent = _resume(search, checkpoint)
    if budget_evaluations < search.population:
        raise ValueError(
            f"budget_evaluations is {budget_evaluations}, one generation of {search.name!r} takes "
            f"{search.population}; raise the budget or shrink the population"
        )
    population: Tensor | None = None
    begun, saved = time.perf_counter() - spent, search.generation

    def save() -> None:
        if checkpoint is not None:
            seconds = time.perf_counter() - begun
            write_checkpoint(
                checkpoint, search.state_dict(), {"history": [asdict(g) for g in history], "seconds": seconds}
            )

    while not (reached := target is not None and bool(history) and history[-1].best <= target):
        if search.evaluations + search.population > budget_evaluations:
            break
        population = search.waiting if search.waiting is not None else search.ask(population)
        cost = evaluate(population, search.generation)
        search.tell(cost)
        history.append(_line(search, cost))
        progress(min(search.evaluations / budget_evaluations, 1.0), f"best {history[-1].best:.6g}")
        if search.generation - saved >= checkpoint_every:
            save()
            saved = search.generation
    if saved != search.generation:
        save()
    best = search.champion.best
    seconds = time.perf_counter() - begun
    stopped: Literal["budget", "target"] = "target" if reached else "budget"
    return SearchResult(best, search.incumbent, tuple(history), search.evaluations, seconds, stopped)


def _line(search: Search[Any], cost: Tensor) -> Generation:
    good, cost, best = torch.isfinite(cost), cost.double(), search.champion.best
    lowest, middle = torch.where(good, cost, torch.inf).amin(), torch.where(good, cost, torch.nan).nanmedian()
    lowest, middle, failed = torch.stack([lowest, middle, (~good).sum()]).tolist()  # at once: a GPU is waited for
    return Generation(
        search.evaluations,
        best.cost if best is not None else float("inf"),
        lowest,
        middle if math.isfinite(lowest) else float("inf"),
        int(failed),
    )


def _resume(search: Search[Any], checkpoint: Path | None) -> tuple[list[Generation], float]:
    if checkpoint is None or not checkpoint.exists():
        search.population  # noqa: B018 - raises the error about the missing start here rather than later
        return [], 0.0
    fresh = search.state_dict() if search.started else None
    try:
        state, notes = read_checkpoint(checkpoint)
        if search.started and not search.same_start(state):
            raise CheckpointError(f"{checkpoint} began at another x0 or seed")
        search.load_state_dict(state)
        return [Generation(**line) for line in notes["history"]], float(notes["seconds"])
    except (ValueError, KeyError, TypeError) as error:
        if fresh is None:
            raise CheckpointError(f"{checkpoint} is of no use to this search: {error}; start the search") from error
        search.load_state_dict(fresh)
        set_aside(checkpoint, f"{checkpoint} is of no use to this search: {error}")
        return [], 0.0
