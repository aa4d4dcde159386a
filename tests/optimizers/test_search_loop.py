"""The training loop: budgets, targets, checkpoints; and what `best` means under noise."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from steersman.optimizers.base import Search
from steersman.optimizers.checkpoint import CheckpointWarning, read_checkpoint, write_checkpoint
from steersman.optimizers.evolution import OpenAIES
from steersman.optimizers.peer import PeerPolyStep
from steersman.optimizers.random_search import RandomSearch
from steersman.optimizers.registry import SEARCHES
from steersman.optimizers.search import minimise


def cost_of(x: Tensor, generation: int) -> Tensor:
    shift = torch.randn(x.shape[1], generator=torch.Generator().manual_seed(generation), dtype=x.dtype)
    return (x - 1 + 0.1 * shift).square().sum(1)


def start() -> Tensor:
    return torch.zeros(5, dtype=torch.float64)


def test_budget_is_exact() -> None:
    seen = []

    def evaluate(x: Tensor, generation: int) -> Tensor:
        seen.append((len(x), generation))
        return cost_of(x, generation)

    said: list[float] = []
    search = OpenAIES(size=10).start(start())
    result = minimise(search, evaluate, budget_evaluations=100, progress=lambda fraction, text: said.append(fraction))
    assert sum(n for n, _ in seen) == result.evaluations == 96
    assert [g for _, g in seen] == list(range(8))
    assert [line.evaluations for line in result.history] == [12 * (i + 1) for i in range(8)]
    assert result.stopped == "budget" and said == pytest.approx([0.12 * (i + 1) for i in range(8)])


def test_target_ends_early() -> None:
    search = OpenAIES(confirmations=0).start(start())
    result = minimise(search, lambda x, g: (x - 1).square().sum(1), budget_evaluations=100_000, target=0.1)
    assert result.stopped == "target" and result.best is not None
    assert result.best.cost <= 0.1 < result.history[-2].best


@pytest.mark.parametrize("kind", [kind for kind in SEARCHES if kind is not PeerPolyStep])
def test_interrupted_run_ends_like_an_uninterrupted_one(kind: type[Search], tmp_path: Path) -> None:
    class InterruptedRunError(Exception):
        pass

    def broken(x: Tensor, generation: int) -> Tensor:
        if generation == 7:
            raise InterruptedRunError
        return cost_of(x, generation)

    budget, file = 500, tmp_path / "deep" / "run.safetensors"
    whole = minimise(kind().start(start(), seed=1), cost_of, budget_evaluations=budget)
    with pytest.raises(InterruptedRunError):
        minimise(kind().start(start(), seed=1), broken, budget_evaluations=budget, checkpoint=file, checkpoint_every=3)
    again = minimise(kind(), cost_of, budget_evaluations=budget, checkpoint=file)
    assert again.history == whole.history and again.evaluations == whole.evaluations
    assert torch.equal(again.incumbent, whole.incumbent)
    assert again.best is not None and whole.best is not None and torch.equal(again.best.x, whole.best.x)
    finished = minimise(kind(), broken, budget_evaluations=budget, checkpoint=file)
    assert finished.history == whole.history
    assert [path.name for path in file.parent.iterdir()] == ["run.safetensors"]


def spoil(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def begin_elsewhere(file: Path) -> None:
    file.unlink()
    minimise(OpenAIES().start(start(), seed=2), cost_of, budget_evaluations=100, checkpoint=file)


def search_otherwise(file: Path) -> None:
    file.unlink()
    minimise(RandomSearch(size=8).start(start(), seed=1), cost_of, budget_evaluations=100, checkpoint=file)


def forget_history(file: Path) -> None:
    state, _ = read_checkpoint(file)
    write_checkpoint(file, state, {})


@pytest.mark.parametrize("harm", [spoil, begin_elsewhere, search_otherwise, forget_history])
def test_a_checkpoint_of_no_use_is_reported_and_begun_again(harm: Callable[[Path], None], tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    whole = minimise(OpenAIES().start(start(), seed=1), cost_of, budget_evaluations=100, checkpoint=file)
    harm(file)
    with pytest.warns(CheckpointWarning, match=r"run.safetensors is of no use.*kept as run.safetensors.unusable"):
        again = minimise(OpenAIES().start(start(), seed=1), cost_of, budget_evaluations=100, checkpoint=file)
    assert again.history == whole.history and torch.equal(again.incumbent, whole.incumbent)
    spoil(file)
    with pytest.raises(ValueError, match="start the search"):
        minimise(OpenAIES(), cost_of, budget_evaluations=100, checkpoint=file)


def test_errors_name_the_remedy() -> None:
    with pytest.raises(ValueError, match="budget_evaluations is 5"):
        minimise(OpenAIES().start(start()), cost_of, budget_evaluations=5)
    with pytest.raises(RuntimeError, match="start"):
        minimise(OpenAIES(), cost_of, budget_evaluations=500)
    for every in (0, -3):
        with pytest.raises(ValueError, match=f"checkpoint_every must be at least 1, got {every}"):
            minimise(OpenAIES().start(start()), cost_of, budget_evaluations=500, checkpoint_every=every)


def test_checkpoints_come_at_their_interval(tmp_path: Path) -> None:
    """How many generations a kill would cost, asked before each; the end is saved whatever the interval."""
    for every, lags in ((1, [0] * 8), (3, [0, 1, 2, 0, 1, 2, 0, 1])):
        file, seen = tmp_path / f"{every}.safetensors", []

        def evaluate(x: Tensor, generation: int, file: Path = file, seen: list[int] = seen) -> Tensor:
            kept = len(read_checkpoint(file)[1]["history"]) if file.exists() else 0
            seen.append(generation - kept)
            return cost_of(x, generation)

        search = OpenAIES(size=10).start(start())
        result = minimise(search, evaluate, budget_evaluations=100, checkpoint=file, checkpoint_every=every)
        assert seen == lags and len(read_checkpoint(file)[1]["history"]) == len(result.history) == 8


def test_no_finite_cost_has_no_best() -> None:
    result = minimise(
        OpenAIES(size=2).start(start()), lambda x, g: x.new_full((len(x),), float("nan")), budget_evaluations=20
    )
    assert result.best is None and result.history[-1].failed == 4


def test_best_is_not_the_luckiest_draw() -> None:
    """Pure noise: the lowest of 1,000 standard normal costs is near -3, and no honest result."""

    def noise(x: Tensor, generation: int) -> Tensor:
        gen = torch.Generator().manual_seed(generation)
        return torch.randn(len(x), generator=gen, dtype=torch.float64)

    honest, trusting = (
        minimise(RandomSearch(size=30, confirmations=c).start(start()), noise, budget_evaluations=1000).best
        for c in (3, 0)
    )
    assert honest is not None and trusting is not None
    assert trusting.cost < -2.5 and trusting.evaluations == 0
    assert honest.cost > -1.5 and honest.evaluations >= 3
