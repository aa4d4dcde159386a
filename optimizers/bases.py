"""Random bases of subspaces: uniform, low-rank by layer, and sparse for a million coordinates."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steersman.optimizers.polystep.rotations import haar_frame


class Lift(ABC):
    """A drawn basis: a linear map from r coordinates to D, with rows of squared length about ``D / r``.

    A step of length one among r coordinates then changes each of the D as much as one would in a search of all of
    them split over r, so that radii need no retuning with r.

    Attributes:
        rank: r.
    """

    rank: int

    @abstractmethod
    def into(self, z: Float[Tensor, "pop r"], origin: Float[Tensor, "D"], out: Float[Tensor, "pop D"]) -> None:
        """Write ``origin`` plus the images of ``z`` into ``out``."""


class Basis(ABC):
    """A law of random bases."""

    @abstractmethod
    def draw(self, x0: Float[Tensor, "D"], gen: torch.Generator) -> Lift:
        """A basis for points like ``x0``. Raises ValueError if the law does not suit their number of coordinates."""


@final
@dataclass(frozen=True)
class Uniform(Basis):
    """A uniform orthonormal frame of the whole space; takes D r numbers of memory.

    Attributes:
        rank: r; problems with fewer coordinates are searched in all of them.
    """

    rank: int = 32

    def __post_init__(self) -> None:
        _check_rank(self.rank)

    def draw(self, x0: Float[Tensor, "D"], gen: torch.Generator) -> Lift:
        """See :class:`Basis`."""
        rank = min(self.rank, len(x0))
        return _Dense(haar_frame(len(x0), rank, gen, x0) * math.sqrt(len(x0) / rank))


@final
@dataclass(frozen=True)
class LowRank(Basis):
    """Changes of each weight matrix ``[outputs, inputs]`` are ``A Q^T``: Q fixed, orthonormal and random, A searched.

    Vectors, biases for one, are searched whole, as are matrices with no more inputs than the rank.

    Attributes:
        shapes: Shapes of the parts of a point, in order (:func:`shapes_of` a network); axes after the first are
            taken together.
        rank: Columns of each Q.
    """

    shapes: tuple[tuple[int, ...], ...]
    rank: int = 2

    def __post_init__(self) -> None:
        _check_rank(self.rank)

    def draw(self, x0: Float[Tensor, "D"], gen: torch.Generator) -> Lift:
        """See :class:`Basis`."""
        total = sum(math.prod(shape) for shape in self.shapes)
        if total != len(x0):
            raise ValueError(
                f"shapes hold {total} entries, x0 has {len(x0)}; give the shapes of all parts (shapes_of a network)"
            )
        return _Layers([self._frame(shape, x0, gen) for shape in self.shapes], self.shapes, len(x0))

    def _frame(self, shape: tuple[int, ...], x0: Tensor, gen: torch.Generator) -> Tensor | None:
        inputs = math.prod(shape[1:])
        return haar_frame(inputs, self.rank, gen, x0) if len(shape) > 1 and inputs > self.rank else None


@final
@dataclass(frozen=True)
class SparseSigns(Basis):
    """Each coordinate follows one of r with a random sign: nine bytes of memory for each of D, whatever r is.

    The rows are orthogonal. Charikar, Chen & Farach-Colton, "Finding Frequent Items in Data Streams" (2002).

    Attributes:
        rank: r; problems with fewer coordinates take as many.
    """

    rank: int = 256

    def __post_init__(self) -> None:
        _check_rank(self.rank)

    def draw(self, x0: Float[Tensor, "D"], gen: torch.Generator) -> Lift:
        """See :class:`Basis`."""
        n, rank = len(x0), min(self.rank, len(x0))
        # A permutation of repeated numbers: every one of the r is followed, by equally many.
        index = torch.randperm(n, generator=gen, device=x0.device).remainder_(rank)
        sign = torch.randint(0, 2, (n,), generator=gen, device=x0.device, dtype=torch.int8).mul_(2).sub_(1)
        return _Signs(index, sign, rank)


def shapes_of(module: nn.Module) -> tuple[tuple[int, ...], ...]:
    """Shapes of a network's parameters in the order of :func:`~steersman.optimizers.vectorise.flatten`."""
    return tuple(tuple(p.shape) for p in module.parameters())


class _Dense(Lift):
    def __init__(self, rows: Tensor) -> None:
        self.rank, self.rows = len(rows), rows

    def into(self, z: Tensor, origin: Tensor, out: Tensor) -> None:
        torch.addmm(origin, z, self.rows, out=out)


class _Signs(Lift):
    def __init__(self, index: Tensor, sign: Tensor, rank: int) -> None:
        self.rank, self.index, self.sign = rank, index, sign

    def into(self, z: Tensor, origin: Tensor, out: Tensor) -> None:
        torch.index_select(z, 1, self.index, out=out)
        out.mul_(self.sign).add_(origin)


class _Layers(Lift):
    def __init__(self, frames: list[Tensor | None], shapes: tuple[tuple[int, ...], ...], total: int) -> None:
        self.parts = [
            (math.prod(shape), math.prod(shape) if frame is None else shape[0] * len(frame), frame)
            for shape, frame in zip(shapes, frames, strict=True)
        ]
        self.rank = sum(few for _, few, _ in self.parts)
        self.scale = math.sqrt(total / self.rank)

    def into(self, z: Tensor, origin: Tensor, out: Tensor) -> None:
        for many, few, frame in self._slices():
            low = z[:, few]
            if frame is not None:
                low = (low.reshape(len(z), -1, len(frame)) @ frame).flatten(1)
            torch.add(origin[many], low, alpha=self.scale, out=out[:, many])

    def _slices(self) -> Iterator[tuple[slice, slice, Tensor | None]]:
        i = j = 0
        for many, few, frame in self.parts:
            yield slice(i, i + many), slice(j, j + few), frame
            i, j = i + many, j + few


def _check_rank(rank: int) -> None:
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
