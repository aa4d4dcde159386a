"""The mixed-integer program of a plan, as plain arrays."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from steersman.controllers.mip.bounds import Bounds
from steersman.controllers.mip.program import Matrix, Program, Vector
from steersman.envs.actions import ActionSet
from steersman.envs.objective import L1, Linear, LInf, Objective, PiecewiseLinear, Quadratic, Term

INF = float("inf")
Numbers = Sequence[float | np.floating[Any]]
Indices = Sequence[int | np.integer[Any]]


@dataclass(frozen=True)
class Square:
    """A convex quadratic cost ``weight s^2`` of ``s = row v + shift``, held from below by cuts on column ``t``."""

    row: Vector
    shift: float
    weight: float
    t: int


@dataclass(frozen=True)
class Arrays:
    """``min cost'x + constant`` over ``row_lower <= A x <= row_upper``, ``lower <= x <= upper``, some x integer.

    The first columns are the variables of the program, in its order.
    """

    cost: Vector
    constant: float
    A: sparse.csr_matrix
    row_lower: Vector
    row_upper: Vector
    lower: Vector
    upper: Vector
    integer: NDArray[np.bool_]
    squares: tuple[Square, ...]
    binaries: int


class Encoder:
    """Collects columns and rows; :meth:`arrays` gives the program."""

    def __init__(self, program: Program, bounds: Bounds) -> None:
        """Start with the variables of the program and their bounds."""
        self.program = program
        low, high = bounds.after(program)
        self._lower, self._upper = [low], [high]
        self._cost = [np.zeros(program.size)]
        self._integer = [np.zeros(program.size, dtype=bool)]
        self._columns = program.size
        self._rows: list[tuple[NDArray[np.int64], Vector, float, float]] = []
        self._constant = 0.0
        self._squares: list[Square] = []
        self._binaries = 0

    # ------------------------------------------------------------------ the model

    def network(self, bounds: Bounds) -> None:
        """Affine variables as equations; ReLUs by their sign where the bounds decide it, else by big-M."""
        for block in self.program.blocks:
            for i in range(block.stop - block.start):
                j, a, c = block.start + i, block.A[i], float(block.c[i])
                low, high = float(bounds.lower[j]), float(bounds.upper[j])
                if not block.relu[i] or low >= 0:
                    self._equation(a, j, c)
                elif high <= 0:
                    self._lower[0][j] = self._upper[0][j] = 0.0
                else:
                    self._switch(a, j, c, low, high)

    def _equation(self, a: Vector, j: int, c: float) -> None:
        """``v_j - a v = c``."""
        self._row([*-a, 1.0], [*range(len(a)), j], c, c)

    def _switch(self, a: Vector, j: int, c: float, low: float, high: float) -> None:
        """Big-M form of ``p = max(0, a v + c)``: ``p >= a v + c``, ``p <= a v + c - low (1 - d)``, ``p <= high d``."""
        d = self.column(0.0, 1.0, integer=True)
        columns = [*range(len(a)), j]
        self._row([*-a, 1.0], columns, c, INF)
        self._row([*-a, 1.0, -low], [*columns, d], -INF, c - low)
        self._row([1.0, -high], [j, d], -INF, 0.0)

    def actions(self, actions: ActionSet) -> None:
        """Integer and one-hot actions."""
        grouped = {i for group in actions.one_hot for i in group}
        for j in range(self.program.horizon):
            base = j * self.program.m
            for i in range(self.program.m):
                self._integer[0][base + i] = actions.integer[i] or i in grouped
            for group in actions.one_hot:
                self._row([1.0] * len(group), [base + i for i in group], 1.0, 1.0)
        self._binaries += int(self._integer[0].sum())

    # ------------------------------------------------------------------ the cost

    def objective(self, objective: Objective, reference: Matrix, u_prev: Vector) -> None:
        """Stage costs of ``z_1 .. z_H``, of the actions and of their changes, as sampling MPC plans them.

        Args:
            objective: Terms of the stage cost.
            reference: ``r_1 .. r_H``.
            u_prev: Action before the plan.

        Raises:
            ValueError: If a term has no mixed-integer form; the message names it.
        """
        for j in range(self.program.horizon):
            for term in objective.stage:
                rows, shift = self._signal(term, j, reference, u_prev)
                self._term(term, rows, shift)

    def _signal(self, term: Term, j: int, reference: Matrix, u_prev: Vector) -> tuple[Matrix, Vector]:
        program, m = self.program, self.program.m
        if term.on in ("z", "e"):
            return program.Z[j], program.z0[j] - (reference[j] if term.on == "e" else 0.0)
        rows, shift = np.eye(m, program.size, j * m), np.zeros(m)
        if term.on == "du":
            if j:
                rows = rows - np.eye(m, program.size, (j - 1) * m)
            else:
                shift = -u_prev
        return rows, shift

    def _term(self, term: Term, rows: Matrix, shift: Vector) -> None:
        match term:
            case Linear():
                for w, row, s in zip(term.weights, rows, shift, strict=True):
                    self._cost[0] += w * row
                    self._constant += w * s
            case L1() | LInf() | Quadratic() if min(term.weights) < 0:
                raise ValueError(f"term {term.name!r} has a negative weight and is not convex; use sampling MPC")
            case L1():
                for w, row, s in zip(term.weights, rows, shift, strict=True):
                    if w:
                        self._above([(w * row, w * s), (-w * row, -w * s)])
            case LInf():
                parts = [(w * row, w * s) for w, row, s in zip(term.weights, rows, shift, strict=True)]
                self._above([(sign * row, sign * s) for row, s in parts for sign in (1.0, -1.0)])
            case PiecewiseLinear():
                self._piecewise(term, rows[term.index], float(shift[term.index]))
            case Quadratic():
                for w, row, s in zip(term.weights, rows, shift, strict=True):
                    if w:
                        self._square(w, row, float(s))
            case _:
                raise ValueError(
                    f"term {term.name!r} is {type(term).__name__}: mixed-integer MPC reads linear, L1, L-infinity, "
                    "piecewise-linear and convex quadratic terms; use sampling MPC or rewrite the term"
                )

    def _above(self, lines: list[tuple[Vector, float]]) -> None:
        """A cost that is the maximum of affine functions."""
        t = self.column(-INF, INF, cost=1.0)
        for row, shift in lines:
            self._at_least(t, row, shift)

    def _at_least(self, t: int, row: Vector, shift: float) -> None:
        used = np.flatnonzero(row)
        self._row([1.0, *-row[used]], [t, *used], shift, INF)

    def _square(self, weight: float, row: Vector, shift: float) -> None:
        low, high = self._range(row, shift)
        t = self.column(0.0, INF, cost=1.0)
        self._squares.append(Square(row, shift, weight, t))
        for point in np.unique(np.append(np.linspace(low, high, 5), np.clip(0.0, low, high))):
            self._at_least(t, *tangent(self._squares[-1], float(point)))

    def _piecewise(self, term: PiecewiseLinear, row: Vector, shift: float) -> None:
        if term.convex:
            points = zip(term.points, term.slopes, strict=False)
            self._above([(slope * row, slope * (shift - x) + y) for (x, y), slope in points])
            return
        low, high = self._range(row, shift)
        self._increments(term, row, shift, low, high)

    def _increments(self, term: PiecewiseLinear, row: Vector, shift: float, low: float, high: float) -> None:
        """Incremental form (Markowitz, Manne 1957): segments are filled one after the other, by binaries."""
        slopes = term.slopes
        inner = [x for x, _ in term.points[1:-1]]
        knots = [min(low, inner[0] if inner else low) - 1e-6, *inner, max(high, inner[-1] if inner else high) + 1e-6]
        parts = []
        for (a, b), slope in zip(itertools.pairwise(knots), slopes, strict=True):
            parts.append(self.column(0.0, b - a, cost=slope))
        used = np.flatnonzero(row)
        self._row([1.0] * len(parts) + list(-row[used]), [*parts, *used], shift - knots[0], shift - knots[0])
        for i, (before, after) in enumerate(itertools.pairwise(parts)):
            d = self.column(0.0, 1.0, integer=True)
            self._row([1.0, -(knots[i + 1] - knots[i])], [before, d], 0.0, INF)
            self._row([1.0, -(knots[i + 2] - knots[i + 1])], [after, d], -INF, 0.0)
        x0, y0 = term.points[0]
        self._constant += y0 + slopes[0] * (knots[0] - x0)

    def _range(self, row: Vector, shift: float) -> tuple[float, float]:
        low, high = self._lower[0], self._upper[0]
        plus, minus = np.maximum(row, 0.0), np.minimum(row, 0.0)
        return float(plus @ low + minus @ high + shift), float(plus @ high + minus @ low + shift)

    # ------------------------------------------------------------------ columns and rows

    def column(self, lower: float, upper: float, *, cost: float = 0.0, integer: bool = False) -> int:
        """A new column; its index."""
        self._lower.append(np.array([lower]))
        self._upper.append(np.array([upper]))
        self._cost.append(np.array([cost]))
        self._integer.append(np.array([integer]))
        self._binaries += integer
        self._columns += 1
        return self._columns - 1

    def _row(self, values: Numbers, columns: Indices, lower: float, upper: float) -> None:
        self._rows.append((np.asarray(columns, dtype=np.int64), np.asarray(values, dtype=float), lower, upper))

    def arrays(self) -> Arrays:
        """The program."""
        counts = [len(index) for index, _, _, _ in self._rows]
        indptr = np.concatenate([[0], np.cumsum(counts)])
        columns = np.concatenate([index for index, _, _, _ in self._rows])
        values = np.concatenate([value for _, value, _, _ in self._rows])
        A = sparse.csr_matrix((values, columns, indptr), shape=(len(self._rows), self._columns))
        A.eliminate_zeros()
        return Arrays(
            np.concatenate(self._cost), self._constant, A,
            np.array([low for _, _, low, _ in self._rows]), np.array([high for _, _, _, high in self._rows]),
            np.concatenate(self._lower), np.concatenate(self._upper), np.concatenate(self._integer),
            tuple(self._squares), self._binaries,
        )  # fmt: skip


def tangent(square: Square, point: float) -> tuple[Vector, float]:
    """Row and constant of the tangent of ``weight s^2`` at ``s = point``, as an affine function of the variables."""
    slope = 2 * square.weight * point
    return slope * square.row, slope * square.shift - square.weight * point**2
