"""Trainings by gradient that may be killed: loops of steps whose state lies on disk, from which they go on.

A training that was interrupted and goes on ends where an uninterrupted one would have, bit by bit, as long as its
steps depend on nothing but the :class:`Descent`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from steersman.optimizers.checkpoint import (
    CheckpointError,
    Tree,
    digest,
    pack,
    read_checkpoint,
    set_aside,
    unpack,
    write_checkpoint,
)

SAVE_EVERY_S = 30.0
"""Seconds between checkpoints."""


@runtime_checkable
class Stateful(Protocol):
    """Something whose state can be taken and given back, as tensors, numbers and texts."""

    def state_dict(self) -> dict[str, Any]:
        """The state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give it back."""


@dataclass(eq=False)
class Descent:
    """All that the steps of a training change.

    Attributes:
        weights: Tensors that are trained, changed in place.
        optimiser: Their optimiser.
        schedule: Schedule of its rate.
        gen: Source of the random numbers of the steps.
        source: Whatever else makes the losses and has a state.
        notes: Whatever else must survive, such as the best weights so far.
    """

    weights: Sequence[Tensor]
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None
    gen: torch.Generator | None = None
    source: Stateful | None = None
    notes: dict[str, Tree] = field(default_factory=dict)

    def state(self) -> dict[str, Tree]:
        """The state as a tree; its tensors change with the next step."""
        own = {"weights": [t.detach() for t in self.weights], "notes": self.notes}
        drawn = {} if self.gen is None else {"gen": self.gen.get_state()}
        return own | drawn | {name: part.state_dict() for name, part in self._parts().items()}

    def load(self, state: dict[str, Tree]) -> None:
        """Go on from :meth:`state`."""
        with torch.no_grad():
            for t, value in zip(self.weights, state["weights"], strict=True):
                t.copy_(value)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        if self.gen is not None:
            self.gen.set_state(state["gen"])
        self.notes.clear()
        self.notes.update(state["notes"])

    def _parts(self) -> dict[str, Any]:
        parts = {"optimiser": self.optimiser, "schedule": self.schedule, "source": self.source}
        return {name: part for name, part in parts.items() if part is not None}


class Resumable:
    """The stages of one training, each with a file in a folder.

    A stage that is over is not run again: its end is read. A file that is damaged, or was begun from other data,
    settings or weights, is reported by a :class:`~steersman.optimizers.checkpoint.CheckpointWarning`, kept under
    another name, and its stage begins again.

    Attributes:
        seconds: CPU seconds that stages took in earlier processes.
    """

    def __init__(self, folder: Path | None, *about: Tree) -> None:
        """Name the training.

        Args:
            folder: Where the files are; None keeps nothing.
            about: What the training follows from: data, settings, seed.
        """
        self.folder, self.seconds = folder, 0.0
        self._about = "" if folder is None else digest(torch.__version__, *about)

    def run(
        self,
        stage: str,
        descent: Descent,
        steps: int,
        step: Callable[[int], bool],
        ready: Callable[[int], bool] = lambda done: True,
    ) -> None:
        """Take the steps that are still to be taken.

        Args:
            stage: Name of the stage, unique in the folder.
            descent: What the steps change, as it is before the first one.
            steps: Most steps.
            step: Takes the step of this number; True ends the stage.
            ready: Whether the state may be saved after so many steps, because the descent then holds everything.
        """
        if self.folder is None:
            for done in range(steps):
                if step(done):
                    break
            return
        file = _File(self.folder / f"{stage}.safetensors", digest(self._about, stage, steps, descent.state()))
        done, over, before = file.read(descent)
        self.seconds += before
        begun, saved = time.process_time(), time.monotonic()
        while done < steps and not over:
            over, done = step(done), done + 1
            if done == steps or over or (time.monotonic() - saved >= SAVE_EVERY_S and ready(done)):
                file.write(descent, done, over or done == steps, before + time.process_time() - begun)
                saved = time.monotonic()


class _File:
    """Checkpoint of one stage."""

    def __init__(self, path: Path, about: str) -> None:
        self._path, self._about = path, about

    def read(self, descent: Descent) -> tuple[int, bool, float]:
        """Steps that are done, whether they were all, and the CPU seconds they took; loads the state after them."""
        if not self._path.exists():
            return 0, False, 0.0
        try:
            tensors, notes = read_checkpoint(self._path)
            if notes.get("about") != self._about:
                raise CheckpointError(f"{self._path} is of a training with other data, settings or weights")
        except CheckpointError as error:
            set_aside(self._path, error)
            return 0, False, 0.0
        descent.load(unpack(tensors, notes["tree"]))
        return int(notes["done"]), bool(notes["over"]), float(notes["seconds"])

    def write(self, descent: Descent, done: int, over: bool, seconds: float) -> None:
        tensors, tree = pack(descent.state())
        notes = {"about": self._about, "done": done, "over": over, "seconds": seconds, "tree": tree}
        write_checkpoint(self._path, dict(tensors), notes)
