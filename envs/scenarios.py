"""Scenarios: everything that is drawn at random about an episode, so that controllers can be paired."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Bool, Int64
from safetensors.torch import load_file, save_file
from torch import Tensor

from steersman.envs.tree import Params, State, tree_index, tree_leaves, tree_map, tree_where


@dataclass(frozen=True)
class Scenarios:
    """A batch of scenarios.

    Attributes:
        key: One key per scenario; it determines everything else, disturbances included.
        p: Parameters drawn from the keys.
        x0: Initial states drawn from the keys; None where a simulator draws them by itself.
    """

    key: Int64[Tensor, "n"]
    p: Params = field(default_factory=dict)
    x0: State | None = None

    def __len__(self) -> int:
        return self.key.shape[0]

    def index(self, rows: Int64[Tensor, "m"] | slice) -> Scenarios:
        """The chosen scenarios."""
        x0 = None if self.x0 is None else tree_index(self.x0, rows)
        return Scenarios(self.key[rows], tree_index(self.p, rows), x0)

    def repeat(self, times: int) -> Scenarios:
        """Each scenario ``times`` times in a row: ``[s0, s0, .., s1, s1, ..]``."""
        return self.index(torch.arange(len(self), device=self.key.device).repeat_interleave(times))

    def tile(self, times: int) -> Scenarios:
        """The whole batch ``times`` times: ``[s0, s1, .., s0, s1, ..]``."""
        return self.index(torch.arange(len(self), device=self.key.device).repeat(times))

    def where(self, mask: Bool[Tensor, "n"], other: Scenarios) -> Scenarios:
        """These scenarios in the masked rows, those of ``other`` elsewhere."""
        both = self.x0 is not None and other.x0 is not None
        x0 = tree_where(mask, self.x0, other.x0) if both else None  # type: ignore[type-var]
        return Scenarios(torch.where(mask, self.key, other.key), tree_where(mask, self.p, other.p), x0)

    def to(self, device: torch.device | str) -> Scenarios:
        """The same scenarios on another device."""
        if self.key.device == torch.device(device):
            return self
        x0 = None if self.x0 is None else tree_map(lambda t: t.to(device), self.x0)
        return Scenarios(self.key.to(device), tree_map(lambda t: t.to(device), self.p), x0)

    def digest(self) -> str:
        """SHA-256 over all tensors: equal digests mean equal scenarios."""
        total = hashlib.sha256()
        for tree in (self.key, self.p, {} if self.x0 is None else self.x0):
            for leaf in tree_leaves(tree):
                total.update(leaf.detach().cpu().contiguous().numpy().tobytes())
        return total.hexdigest()

    def save(self, path: Path | str) -> None:
        """Write to a safetensors file."""
        tensors = {"key": self.key, **{f"p.{name}": t for name, t in self.p.items()}}
        if isinstance(self.x0, Tensor):
            tensors["x0"] = self.x0
        elif self.x0 is not None:
            tensors |= {f"x0.{name}": t for name, t in self.x0.items()}
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, str(path))

    @classmethod
    def load(cls, path: Path | str) -> Scenarios:
        """Read what :meth:`save` wrote."""
        tensors = load_file(str(path))
        p = {name[2:]: t for name, t in tensors.items() if name.startswith("p.")}
        parts: dict[str, Tensor] = {name[3:]: t for name, t in tensors.items() if name.startswith("x0.")}
        return cls(tensors["key"], p, tensors.get("x0", parts or None))
