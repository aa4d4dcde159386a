"""Columns of a program that its variables decide: with them any plan is a whole solution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from steersman.controllers.mip.program import Vector


@dataclass(frozen=True)
class Affine:
    """``row v + shift`` of the leading columns v."""

    row: Vector
    shift: float

    def __call__(self, x: Vector) -> float:
        """Its value."""
        return float(self.row @ x[: len(self.row)]) + self.shift

    def __rmul__(self, factor: float) -> Affine:
        return Affine(factor * self.row, factor * self.shift)

    def __add__(self, constant: float) -> Affine:
        return Affine(self.row, self.shift + constant)


class Dependent(ABC):
    """Columns that follow from earlier ones, at least cost."""

    @abstractmethod
    def fill(self, x: Vector) -> None:
        """Write their values into a solution."""


@dataclass(frozen=True)
class Switch(Dependent):
    """Binary ``d`` of a ReLU: whether its output, column ``j``, is positive."""

    j: int
    d: int

    def fill(self, x: Vector) -> None:
        """See :class:`Dependent`."""
        x[self.d] = x[self.j] > 0


@dataclass(frozen=True)
class Peak(Dependent):
    """Column ``t`` is the maximum of affine functions."""

    t: int
    lines: tuple[Affine, ...]

    def fill(self, x: Vector) -> None:
        """See :class:`Dependent`."""
        x[self.t] = max(line(x) for line in self.lines)


@dataclass(frozen=True)
class Square(Dependent):
    """A convex quadratic cost ``weight s^2``, held from below by cuts on column ``t``."""

    s: Affine
    weight: float
    t: int

    def fill(self, x: Vector) -> None:
        """See :class:`Dependent`."""
        x[self.t] = self.value(x)

    def value(self, x: Vector) -> float:
        """The cost itself."""
        s = self.s(x)
        return self.weight * s * s

    def tangent(self, point: float) -> Affine:
        """The tangent at ``s = point``."""
        slope = 2 * self.weight * point
        return slope * self.s + -self.weight * point * point


@dataclass(frozen=True)
class Segments(Dependent):
    """A range cut at ``knots``: column ``parts[i]`` holds how much of segment i lies below ``s``.

    Binary ``full[i]`` says whether segment i is full, so that the next one may be filled.
    """

    s: Affine
    knots: tuple[float, ...]
    parts: tuple[int, ...]
    full: tuple[int, ...]

    def fill(self, x: Vector) -> None:
        """See :class:`Dependent`."""
        s, knots = self.s(x), np.array(self.knots)
        x[list(self.parts)] = np.clip(s - knots[:-1], 0.0, np.diff(knots))
        x[list(self.full)] = s > knots[1:-1]
