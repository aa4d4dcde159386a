"""Checkpoints of trainings: what is written is what is read, what is damaged or foreign is reported and begun again."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steersman.optimizers import resumable
from steersman.optimizers.checkpoint import (
    CheckpointError,
    CheckpointWarning,
    digest,
    pack,
    read_checkpoint,
    unpack,
    write_checkpoint,
)
from steersman.optimizers.resumable import Descent, Resumable

USUAL_S = resumable.SAVE_EVERY_S

leaves = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=5)
trees = st.recursive(
    leaves | st.lists(st.floats(-1e9, 1e9), max_size=4).map(lambda v: torch.tensor(v, dtype=torch.float64)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.integers(0, 9) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


class KilledError(Exception):
    pass


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(trees)
def test_trees_come_back_as_they_were(tree: Any) -> None:
    tensors, rest = pack(tree)
    assert same(unpack(tensors, rest), tree)
    assert digest(tree) == digest(unpack(tensors, rest))


def test_digests_tell_things_apart() -> None:
    one, view = torch.arange(6.0), torch.arange(7.0)[:6]
    assert digest(one) == digest(view) != digest(one.double()) != digest(one[None])
    assert digest(1, 2) != digest(12) and digest([one, 0]) != digest([0, one])
    with pytest.raises(TypeError, match="not PosixPath"):
        pack({"folder": Path()})


def test_files_hold_what_shares_memory(tmp_path: Path) -> None:
    x = torch.arange(4.0)
    write_checkpoint(tmp_path / "deep" / "a.safetensors", {"x": x, "y": x[:2], "n": 3}, {"history": [0.1, 1e300]})
    state, notes = read_checkpoint(tmp_path / "deep" / "a.safetensors")
    assert state["n"] == 3 and same([state["x"], state["y"]], [x, x[:2]])
    assert notes == {"history": [0.1, 1e300]}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 0x10
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "a flipped bit": flip,
    "no checkpoint": lambda path: path.write_text("hello"),
}


@pytest.mark.parametrize("harm", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_noticed(harm: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_checkpoint(path, {"x": torch.arange(4.0)}, {})
    harm(path)
    with pytest.raises(CheckpointError, match=r"a.safetensors is (damaged|not a checkpoint)"):
        read_checkpoint(path)


class Fit:
    """Noisy regression with a schedule and a best so far: everything a descent may hold."""

    def __init__(self, seed: int = 0, steps: int = 40) -> None:
        self.gen, self.steps = torch.Generator().manual_seed(seed), steps
        self.w = torch.zeros(5, dtype=torch.float64, requires_grad=True)
        self.best: dict[str, Any] = {"loss": float("inf"), "w": self.w.detach().clone()}

    def run(self, folder: Path | None, killed_at: int = -1) -> Tensor:
        adam = torch.optim.Adam([self.w], 0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, self.steps)

        def step(i: int) -> bool:
            loss = (self.w - 1 + 0.1 * torch.randn(5, generator=self.gen, dtype=torch.float64)).square().sum()
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            schedule.step()
            if i == killed_at:
                raise KilledError
            if float(loss.detach()) < self.best["loss"]:
                self.best["loss"], self.best["w"] = float(loss.detach()), self.w.detach().clone()
            return False

        training = Resumable(folder, "toy", self.steps)
        training.run("first", Descent([self.w], adam, schedule, self.gen, notes=self.best), self.steps, step)
        self.seconds = training.seconds
        return torch.cat([self.w.detach(), self.best["w"], torch.rand(1, generator=self.gen, dtype=torch.float64)])


@pytest.fixture(autouse=True)
def save_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "SAVE_EVERY_S", 0.0)


def test_a_killed_training_ends_like_one_that_was_not(tmp_path: Path) -> None:
    whole = Fit().run(None)
    for first, second in ((0, 1), (3, 20), (38, 39)):
        folder = tmp_path / str(first)
        for killed_at in (first, second):
            with pytest.raises(KilledError):
                Fit().run(folder, killed_at)
        again = Fit()
        assert torch.equal(again.run(folder), whole)
        assert again.seconds > 0
        assert [path.name for path in folder.iterdir()] == ["first.safetensors"]
        # What is over is not done again.
        assert torch.equal(Fit().run(folder, killed_at=5), whole)


def test_checkpoints_are_rare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resumable, "SAVE_EVERY_S", 1e9)
    with pytest.raises(KilledError):
        Fit().run(tmp_path / "rare", killed_at=39)
    assert not (tmp_path / "rare").exists()
    assert torch.equal(Fit().run(tmp_path / "rare"), Fit().run(None))
    assert (tmp_path / "rare" / "first.safetensors").is_file()


@pytest.mark.parametrize("killed_at", range(3, 9))
def test_a_kill_costs_half_a_minute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, killed_at: int) -> None:
    """Steps of ten seconds each: every third is saved, and no more than the two after it are to be done again."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], process_time=lambda: now[0])
    monkeypatch.setattr(resumable, "SAVE_EVERY_S", USUAL_S)
    monkeypatch.setattr(resumable, "time", clock)

    def step(i: int) -> bool:
        now[0] += 10.0
        if i == killed_at:
            raise KilledError
        return False

    w = torch.zeros(1, dtype=torch.float64)
    with pytest.raises(KilledError):
        Resumable(tmp_path).run("first", Descent([w], torch.optim.SGD([w], 0.1)), 100, step)
    kept = read_checkpoint(tmp_path / "first.safetensors")[1]
    assert kept["done"] == killed_at // 3 * 3 and kept["seconds"] == 10.0 * kept["done"]


@pytest.mark.parametrize("harm", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_reported_and_begun_again(harm: Callable[[Path], Any], tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        Fit().run(tmp_path, killed_at=20)
    harm(tmp_path / "first.safetensors")
    with pytest.warns(CheckpointWarning, match=r"first.safetensors is .*beginning again.*first.safetensors.unusable"):
        found = Fit().run(tmp_path)
    assert torch.equal(found, Fit().run(None))
    assert (tmp_path / "first.safetensors.unusable").is_file()


def test_a_checkpoint_of_another_training_is_reported_and_begun_again(tmp_path: Path) -> None:
    Fit(seed=1).run(tmp_path)
    with pytest.warns(CheckpointWarning, match="other data, settings or weights: beginning again"):
        found = Fit().run(tmp_path)
    assert torch.equal(found, Fit().run(None))
