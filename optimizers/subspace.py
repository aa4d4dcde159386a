"""Search few coordinates of a long vector."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from steersman.optimizers.base import Search, State
from steersman.optimizers.polystep.rotations import haar_frame


@dataclass
class SubspaceMemory:
    """Origin of the affine subspace and its orthonormal rows (the inner search keeps its own memory)."""

    origin: Tensor
    basis: Tensor


@final
@dataclass(eq=False, kw_only=True)
class SubspaceSearch(Search[SubspaceMemory]):
    """Any search, in a random affine subspace through ``x0``: ``x = x0 + sqrt(D / r) z B`` with ``B B^T = I``.

    The factor makes a step of length one in z change each coordinate of x as much as a step of length one would in
    a search of all D coordinates split over r, so that radii need no retuning with r. The basis is uniform and fixed:
    what it cannot express cannot be found.

    Attributes:
        inner: Search of the r coordinates; its ``confirmations`` must be 0, confirmations happen out here.
        rank: r; smaller problems are searched in all coordinates.
    """

    name: ClassVar[str] = "subspace"
    Memory: ClassVar[type[SubspaceMemory]] = SubspaceMemory

    inner: Search[Any]
    rank: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if self.inner.confirmations:
            raise ValueError(
                f"inner has confirmations={self.inner.confirmations}; make it with 0 and give them to SubspaceSearch"
            )

    def _begin(self, x0: Tensor) -> SubspaceMemory:
        rank = min(self.rank, len(x0))
        basis = haar_frame(len(x0), rank, self.gen, x0) * math.sqrt(len(x0) / rank)
        self.inner.start(x0.new_zeros(rank), gen=self.gen)
        return SubspaceMemory(x0, basis)

    def _size(self) -> int:
        return self.inner.population

    def _ask(self, out: Tensor) -> None:
        torch.addmm(self.memory.origin, self.inner.ask(), self.memory.basis, out=out)

    def _tell(self, cost: Tensor) -> None:
        self.inner.tell(cost)

    def _extra(self) -> State:
        return {f"inner.{name}": value for name, value in self.inner.state_dict().items()}

    def _restore(self, state: State) -> None:
        inner = {name.removeprefix("inner."): value for name, value in state.items() if name.startswith("inner.")}
        # A pending population is asked for again out here, from the one generator that both searches share.
        self.inner.load_state_dict(inner | {"asked": False})
        self.inner.gen = self.gen

    @property
    def incumbent(self) -> Tensor:
        """The inner search's centre, in all coordinates."""
        return self.memory.origin + self.inner.incumbent @ self.memory.basis
