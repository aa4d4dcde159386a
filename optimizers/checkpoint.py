"""States of searches and trainings on disk: one safetensors file, the rest as JSON in its header, no pickle."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from steersman.optimizers.base import State

Tree = Any
"""Dicts, lists and tuples of tensors, numbers, strings and None, nested at will."""


class CheckpointError(ValueError):
    """A file holds no checkpoint, is damaged, or belongs to something else."""


class CheckpointWarning(UserWarning):
    """A checkpoint could not be used: what it was to save begins again."""


def write_checkpoint(path: Path, state: State, notes: dict[str, Any]) -> None:
    """Write atomically: readers and crashes see the old file or the new one.

    Args:
        path: Target file; its folder is made if missing.
        state: Tensors, and numbers or short strings.
        notes: Anything JSON can hold, to be kept beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Clones, since two names may share memory, which safetensors refuses.
    tensors = {
        name: value.detach().contiguous().cpu().clone() for name, value in state.items() if torch.is_tensor(value)
    }
    numbers = {name: value for name, value in state.items() if not torch.is_tensor(value)}
    header = {"numbers": json.dumps(numbers), "notes": json.dumps(notes)}
    part = path.with_name(path.name + ".part")
    save_file(tensors, part, metadata=header | {"sha256": digest(tensors, header)})
    os.replace(part, path)


def read_checkpoint(path: Path) -> tuple[State, dict[str, Any]]:
    """State and notes.

    Raises:
        CheckpointError: If the file is damaged or not a checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or not a checkpoint ({error})") from error
    if "numbers" not in header or "notes" not in header:
        raise CheckpointError(f"{path} is not a checkpoint; choose another path")
    wanted = header.pop("sha256", None)
    # Files of earlier versions have no sum.
    if wanted is not None and wanted != digest(tensors, header):
        raise CheckpointError(f"{path} is damaged (its contents have another SHA-256 than when it was written)")
    state: State = json.loads(header["numbers"])
    return state | tensors, json.loads(header["notes"])


def set_aside(path: Path, why: object) -> None:
    """Report a checkpoint that cannot be used, and rename it so that nothing is lost.

    Warns:
        CheckpointWarning: Always; it says why, and where the file is now.
    """
    kept = path.with_name(path.name + ".unusable")
    os.replace(path, kept)
    warnings.warn(f"{why}: beginning again; the file is kept as {kept.name}", CheckpointWarning, stacklevel=3)


def digest(*things: Tree) -> str:
    """SHA-256 of trees; equal digests mean equal things. The order of a dict's entries does not count."""
    total = hashlib.sha256()
    tensors, rest = pack(_ordered(things))
    for name in sorted(tensors):
        t = tensors[name].detach().contiguous().cpu()
        total.update(f"{name} {t.dtype} {tuple(t.shape)};".encode())
        total.update(t.reshape(-1).view(torch.uint8).numpy().data)
    total.update(json.dumps(rest).encode())
    return total.hexdigest()


def _ordered(tree: Tree) -> Tree:
    if isinstance(tree, dict):
        return {key: _ordered(tree[key]) for key in sorted(tree, key=lambda key: (type(key).__name__, key))}
    return type(tree)(map(_ordered, tree)) if isinstance(tree, list | tuple) else tree


def pack(tree: Tree, name: str = "") -> tuple[dict[str, Tensor], Any]:
    """The tensors of a tree by their place in it, and the rest as something JSON can hold.

    Raises:
        TypeError: If it holds something else than a :data:`Tree` may.
    """
    if torch.is_tensor(tree):
        return {name: tree}, {"tensor": name}
    if tree is None or isinstance(tree, bool | int | float | str):
        return {}, tree
    if isinstance(tree, dict):
        kind, pairs = "dict", list(tree.items())
    elif isinstance(tree, list | tuple):
        kind, pairs = "tuple" if isinstance(tree, tuple) else "list", list(enumerate(tree))
    else:
        raise TypeError(f"a checkpoint holds tensors, numbers and texts, not {type(tree).__name__} (at {name!r})")
    tensors: dict[str, Tensor] = {}
    parts = []
    for key, value in pairs:
        found, rest = pack(value, f"{name}/{key}")
        tensors |= found
        parts.append([key, rest])
    return tensors, {kind: parts}


def unpack(tensors: dict[str, Any], rest: Any) -> Tree:
    """Inverse of :func:`pack`."""
    if not isinstance(rest, dict):
        return rest
    ((kind, parts),) = rest.items()
    if kind == "tensor":
        return tensors[parts]
    values = [(key, unpack(tensors, value)) for key, value in parts]
    return dict(values) if kind == "dict" else (tuple if kind == "tuple" else list)(value for _, value in values)
