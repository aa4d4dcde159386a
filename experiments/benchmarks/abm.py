"""Agent-based twins against the same model in Mesa: ticks of a model per CPU-second, one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from steersman.envs import noise
from steersman.envs.abm import _compiled, _mesa, _slots
from steersman.envs.abm._flock import Rules
from steersman.experiments.benchmarks.base import Progress, Row, peer, throughput
from steersman.experiments.benchmarks.mesa_wolf_sheep import Meadow

CAPACITY = (1024, 512)
WARMUP = 200
"""Ticks before the measurement: from the setup the populations first collapse and then recover."""
Advance = Callable[..., dict[str, Tensor]]
CASES: tuple[tuple[str, Advance, int, int, float], ...] = (
    ("compiled, 64 models, control held for 10 ticks", _compiled.advance, 64, 10, 200.0),
    ("compiled, 64 models, 500 ticks at once", _compiled.advance, 64, 500, 500.0),
    ("compiled, 1 model, control held for 10 ticks", _compiled.advance, 1, 10, 100.0),
    ("tensor operations, 64 models, 10 ticks", _slots.advance, 64, 10, 60.0),
)
"""Name, implementation, models, ticks per call and smallest ratio."""


def rows(progress: Progress) -> Iterator[Row]:
    """51 x 51 cells, default rates, from the regime after the start."""
    name = peer("mesa")
    for i, (label, advance, models, ticks, bar) in enumerate(CASES):
        progress(i / len(CASES), label)
        ours, theirs = throughput(_ours(advance, models, ticks), _mesa_model())
        yield Row(f"wolf-sheep, {label}", "model ticks / CPU s", ours, theirs, f"{name}, 1 model", bar)


def _ours(advance: Advance, models: int, ticks: int) -> Callable[[], int]:
    key = noise.keys(0, models)
    x = _compiled.advance(_slots.setup(key, Rules(), CAPACITY), key, WARMUP, Rules(), None, False)
    calls = max(1, 500 // ticks)

    def work() -> int:
        state = x
        for k in range(calls):
            state = advance(state, noise.fold(key, k), ticks, Rules(), None, False)
        return calls * ticks * models

    torch.set_num_threads(1)
    return work


def _mesa_model() -> Callable[[], int]:
    model = Meadow(0)
    _mesa.advance(model, WARMUP)

    def work() -> int:
        _mesa.advance(model, 100)
        return 100

    return work
