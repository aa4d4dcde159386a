"""PolyStep in the paper's form: every few coordinates are a particle with a polytope of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from steersman.optimizers.polystep.driver import PolytopeSearch
from steersman.optimizers.polystep.rotations import aimed, haar_rotations

_LARGEST = 2**31
"""Numbers in a population above which the form is refused: 16 GiB of float64."""


@final
@dataclass(eq=False, kw_only=True)
class PolyStep(PolytopeSearch):
    """Particles are blocks of ``block`` coordinates, each polled alone while the others stand still.

    A generation costs ``2 D K`` evaluations on orthoplexes and ``(1 + 1/block) D K`` on simplices, for D
    coordinates. For more than a few thousand coordinates search a subspace
    (:class:`~steersman.optimizers.subspace.SubspaceSearch`) or use
    :class:`~steersman.optimizers.polystep.frame.FrameStep`.

    Attributes:
        block: Coordinates per particle; the last block is filled up with idle ones.
    """

    name: ClassVar[str] = "polystep"

    block: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block < 1:
            raise ValueError(f"block must be at least 1, got {self.block}")

    def _prepare(self, x0: Tensor) -> tuple[int, int]:
        d = min(self.block, len(x0))
        particles, count = -(-len(x0) // d), self.polytope.size(d)
        if particles * count * self.shells * len(x0) > _LARGEST:
            raise ValueError(
                f"x0 has {len(x0)} entries, so a generation would hold {particles * count * self.shells} points of "
                "that length; search a subspace (SubspaceSearch) or use frame_step, which moves all entries at once"
            )
        self._d = d
        return particles, count

    def _turn(self, x: Tensor) -> None:
        frames = haar_rotations(self._particles, self._d, self.gen, x)
        if self.biased:
            rows = x.new_zeros(self._particles * self._d)
            rows[: len(x)] = self.memory.velocity
            frames = aimed(frames, rows.view(self._particles, self._d))
        self._directions = self.polytope.turned(frames)

    def _probe(self, x: Tensor, length: float, out: Tensor) -> None:
        """Each row differs from ``x`` in its own block only: one fill and an addition to block diagonals."""
        p, v, d = self._directions.shape
        whole = len(x) // d
        rows = out.copy_(x).view(p, v, len(x))
        blocks = rows[:whole, :, : whole * d].view(whole, v, whole, d).diagonal(dim1=0, dim2=2)
        blocks.add_(self._directions[:whole].permute(1, 2, 0), alpha=length)
        if whole < p:
            rows[whole, :, whole * d :].add_(self._directions[whole, :, : len(x) - whole * d], alpha=length)

    def _mean(self, weight: Tensor) -> Tensor:
        return torch.bmm(weight[:, None], self._directions).flatten()[: len(self.memory.x)]
