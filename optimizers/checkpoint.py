"""States of searches on disk: one safetensors file, numbers as JSON in its header, no pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from steersman.optimizers.base import State


def write_checkpoint(path: Path, state: State, notes: dict[str, Any]) -> None:
    """Write atomically: readers and crashes see the old file or the new one.

    Args:
        path: Target file; its folder is made if missing.
        state: State of a search.
        notes: Anything JSON can hold, to be kept beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous().cpu() for name, value in state.items() if isinstance(value, Tensor)}
    numbers = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
    part = path.with_name(path.name + ".part")
    save_file(tensors, part, metadata={"numbers": json.dumps(numbers), "notes": json.dumps(notes)})
    os.replace(part, path)


def read_checkpoint(path: Path) -> tuple[State, dict[str, Any]]:
    """State and notes.

    Raises:
        ValueError: If the file is not a checkpoint of a search.
    """
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        if "numbers" not in header or "notes" not in header:
            raise ValueError(f"{path} is not a checkpoint of a search; choose another path")
        state: State = json.loads(header["numbers"])
        state |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        return state, json.loads(header["notes"])
