"""The only place that knows versions of Mesa: how a model is stepped and freed."""

from __future__ import annotations

import gc
from typing import Any

import mesa


def advance(model: Any, ticks: int) -> None:
    """Run a model for some ticks of its own clock.

    A model with an event scheduler is driven through it: its ``step`` alone would leave the clock, and every event,
    where they are (Mesa's own wolf-sheep model would never regrow grass).
    """
    scheduler = getattr(model, "simulator", None)
    if scheduler is not None and hasattr(scheduler, "run_for"):
        scheduler.run_for(ticks)
    elif hasattr(model, "run_for"):
        model.run_for(ticks)
    else:
        for _ in range(ticks):
            model.step()


def forget(models: list[Any]) -> None:
    """Remove what keeps dropped models alive: Mesa 3.3 counts agents in a class attribute and caches neighbourhoods.

    Call it before the last reference is dropped.
    """
    counters = getattr(mesa.Agent, "_ids", None)
    for model in models:
        if counters is not None:
            counters.pop(model, None)
    for name in ("get_neighborhood", "_neighborhood"):
        clear = getattr(getattr(mesa.discrete_space.Cell, name, None), "cache_clear", None)
        if clear is not None:
            clear()


def collect_garbage() -> None:
    """Free dropped models now: agents and models refer to each other."""
    gc.collect()
