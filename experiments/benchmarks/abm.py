"""Agent-based twins against the same model in Mesa: ticks of a model per CPU-second, one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mesa.examples.advanced.wolf_sheep.model import WolfSheep
from mesa.experimental.devs import ABMSimulator
from torch import Tensor

from steersman.envs import noise
from steersman.envs.abm import _compiled, _mesa, _slots
from steersman.envs.abm._flock import Rules
from steersman.experiments.benchmarks.base import Progress, Row, peer, rate, throughput
from steersman.experiments.benchmarks.mesa_wolf_sheep import Meadow

CAPACITY = (1024, 512)
WARMUP = 200
"""Ticks before the measurement: from the setup the populations first collapse and then recover."""
Advance = Callable[..., dict[str, Tensor]]


@dataclass(frozen=True)
class Case:
    """One of our implementations.

    Attributes:
        label: Name in the table.
        advance: Implementation.
        models: Models in the batch.
        ticks: Ticks per call.
        bars: Smallest ratios to Mesa's own example and to the lean model.
    """

    label: str
    advance: Advance
    models: int
    ticks: int
    bars: tuple[float, float]


CASES = (
    Case("compiled, 64 models, 500 ticks at once", _compiled.advance, 64, 500, (500.0, 30.0)),
    Case("compiled, 64 models, control every 10 ticks", _compiled.advance, 64, 10, (300.0, 30.0)),
    Case("compiled, 1 model, control every 10 ticks", _compiled.advance, 1, 10, (100.0, 10.0)),
    Case("tensor operations, 64 models, control every 10 ticks", _slots.advance, 64, 10, (60.0, 8.0)),
)


def rows(progress: Progress) -> Iterator[Row]:
    """51 x 51 cells, default rates, from the regime after the start.

    Mesa twice: the example that ships with it (cells, patches as agents; a simpler walk), and :class:`Meadow`, the
    same rules as ours in as little Python as they need.
    """
    name = peer("mesa")
    for i, case in enumerate(CASES):
        progress(i / len(CASES), case.label)
        for made, label, bar in zip((_example, _lean), ("its own example", "lean model"), case.bars, strict=True):
            ours, theirs = throughput(_ours(case), made())
            yield Row(f"wolf-sheep, {case.label}", "model ticks / CPU s", ours, theirs, f"{name}, {label}", bar)
    yield from _published(progress)


def _published(progress: Progress) -> Iterator[Row]:
    """Sizes that others have published figures of, on machines of their own: a landmark, not a race in one run."""
    progress(0.9, "500 models of 100 x 100")
    ours = rate(sized(Rules(start=(600, 400), side=100), 500, 100))
    yield Row("500 models of 100 x 100, 600 / 400", "model ticks / CPU s", ours, 500 * 100 / 14.3, "ABMax, A100", 9.5)
    progress(0.95, "1000 x 1000")
    ours = rate(sized(Rules(start=(6000, 4000), side=1000), 1, 100))
    yield Row("1000 x 1000, 6000 / 4000", "ticks / CPU s", ours, 100 / 0.685, "Agents.jl", 3.4)


def sized(rules: Rules, models: int, ticks: int, advance: Advance = _compiled.advance) -> Callable[[], int]:
    """Work of ``models`` models over ``ticks`` ticks, from the start of ``rules``; it counts model ticks."""
    key = noise.keys(0, models)
    x = _slots.setup(key, rules, (8 * rules.start[0], 4 * rules.start[1]))

    def work() -> int:
        advance(x, key, ticks, rules, None, False)
        return models * ticks

    return work


def _ours(case: Case) -> Callable[[], int]:
    key = noise.keys(0, case.models)
    x = _compiled.advance(_slots.setup(key, Rules(), CAPACITY), key, WARMUP, Rules(), None, False)
    calls = max(1, 500 // case.ticks)

    def work() -> int:
        state = x
        for k in range(calls):
            state = case.advance(state, noise.fold(key, k), case.ticks, Rules(), None, False)
        return calls * case.ticks * case.models

    return work


def _lean() -> Callable[[], int]:
    model = Meadow(0)
    _mesa.advance(model, WARMUP)

    def work() -> int:
        _mesa.advance(model, 200)
        return 200

    return work


def _example() -> Callable[[], int]:
    """Kept near the numbers of animals that the regime has: its random walk alone would let them die out."""
    models = iter([
        WolfSheep(51, 51, 160, 76, seed=seed, simulator=ABMSimulator()) for seed in range(4)
    ])  # fmt: skip

    def work() -> int:
        _mesa.advance(next(models), 30)
        return 30

    return work
