"""Search few coordinates of a long vector."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol, final, runtime_checkable

import torch
from torch import Tensor

from steersman.optimizers.base import State
from steersman.optimizers.bases import Basis, Lift, Uniform
from steersman.optimizers.wrapper import Wrapper


@runtime_checkable
class Recentring(Protocol):
    """A search whose coordinates may be replaced under way."""

    def recentre(self) -> None:
        """Go on at zero: forget directions, keep radii."""


@dataclass
class SubspaceMemory:
    """Origin of the affine subspace, and the seed of its basis with the number of those drawn before."""

    origin: Tensor
    seed: int
    turns: int = 0
    age: int = 0


@final
@dataclass(eq=False, kw_only=True)
class SubspaceSearch(Wrapper[SubspaceMemory]):
    """Any search in a random affine subspace through ``x0``: ``x = origin + z B``.

    A fixed basis cannot express everything, and what it cannot express cannot be found. With ``rotate_every`` the
    search moves the origin to its centre, draws a fresh basis and goes on in it with the same radii. A checkpoint
    holds the seed of the basis, not the basis.

    Attributes:
        basis: Law of the basis.
        rotate_every: Generations between fresh bases; 0 keeps the first.
    """

    name: ClassVar[str] = "subspace"
    Memory: ClassVar[type[SubspaceMemory]] = SubspaceMemory

    basis: Basis = field(default_factory=Uniform)
    rotate_every: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rotate_every < 0:
            raise ValueError(f"rotate_every must not be negative, got {self.rotate_every}; 0 keeps the first basis")
        if self.rotate_every and not isinstance(self.inner, Recentring):
            raise ValueError(
                f"rotate_every needs an inner search that can go on in fresh coordinates, {self.inner.name!r} cannot; "
                "take polystep, frame_step or openai_es"
            )

    def _begin(self, x0: Tensor) -> SubspaceMemory:
        seed = int(torch.randint(1 << 48, (), generator=self.gen, device=self.gen.device))
        memory = SubspaceMemory(x0, seed)
        self._lift = self._drawn(memory)
        self.inner.start(x0.new_zeros(self._lift.rank), gen=self.gen)
        return memory

    def _drawn(self, memory: SubspaceMemory) -> Lift:
        gen = torch.Generator(memory.origin.device).manual_seed(memory.seed + memory.turns)
        return self.basis.draw(memory.origin, gen)

    def _ask(self, out: Tensor) -> None:
        self._lift.into(self.inner.ask(), self.memory.origin, out)

    def _tell(self, cost: Tensor) -> None:
        super()._tell(cost)
        m = self.memory
        m.age += 1
        if self.rotate_every and m.age % self.rotate_every == 0 and isinstance(self.inner, Recentring):
            m.origin, m.turns = self.incumbent, m.turns + 1
            self._lift = self._drawn(m)
            self.inner.recentre()

    def _restore(self, state: State) -> None:
        super()._restore(state)
        self._lift = self._drawn(self.memory)

    @property
    def incumbent(self) -> Tensor:
        """The inner search's centre, in all coordinates."""
        out = torch.empty_like(self.memory.origin)
        self._lift.into(self.inner.incumbent[None], self.memory.origin, out[None])
        return out
