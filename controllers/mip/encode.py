"""The mixed-integer program of a plan, as plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from steersman.controllers.mip.bounds import Bounds
from steersman.controllers.mip.columns import Affine, Dependent, Peak, Segments, Square, Switch
from steersman.controllers.mip.program import Matrix, Program, Vector
from steersman.envs.actions import ActionSet
from steersman.envs.objective import L1, Linear, LInf, PiecewiseLinear, Quadratic, Term

INF = float("inf")
LARGEST = 1e15
"""Coefficients from this on are refused by HiGHS, and costs or bounds beyond 1e20 are infinite to it."""
ENCODING = 2.5e-6
"""Seconds that encoding takes for a coefficient of the program (1.2e-6 to 2.4e-6 measured on a core of 2.6 GHz)."""
Numbers = Sequence[float | np.floating[Any]]
Indices = Sequence[int | np.integer[Any]]


@dataclass(frozen=True)
class Arrays:
    """``min cost'x + constant`` over ``row_lower <= A x <= row_upper``, ``lower <= x <= upper``, some x integer.

    The first columns are the variables of the program, in its order; ``dependents`` give the others.
    """

    cost: Vector
    constant: float
    A: sparse.csr_matrix
    row_lower: Vector
    row_upper: Vector
    lower: Vector
    upper: Vector
    integer: NDArray[np.bool_]
    dependents: tuple[Dependent, ...]
    binaries: int

    @property
    def squares(self) -> tuple[Square, ...]:
        """The quadratic costs."""
        return tuple(part for part in self.dependents if isinstance(part, Square))

    @property
    def usable(self) -> bool:
        """Whether all numbers are such that a solver computes with them; absurd states and references give others."""
        coefficients = np.concatenate([self.cost, self.A.data, [self.constant]])
        sides = np.concatenate([self.row_lower, -self.row_upper, self.lower, -self.upper])
        return bool((np.abs(coefficients) < LARGEST).all() and (sides < LARGEST).all())

    def complete(self, v: Vector) -> Vector:
        """All columns for values of the program's variables."""
        x = np.zeros(len(self.cost))
        x[: len(v)] = v
        for part in self.dependents:
            part.fill(x)
        return x

    def feasible(self, x: Vector, tolerance: float = 1e-6) -> bool:
        """Whether a solution obeys rows, bounds and integrality, up to ``tolerance`` relative to what rows add up."""
        rows, slack = self.A @ x, tolerance * (1.0 + abs(self.A) @ np.abs(x))
        near = tolerance * (1.0 + np.abs(x))
        return bool(
            ((rows >= self.row_lower - slack) & (rows <= self.row_upper + slack)).all()
            and ((x >= self.lower - near) & (x <= self.upper + near)).all()
            and (np.abs(x - np.round(x))[self.integer] <= tolerance).all()
        )


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
        self._dependents: list[Dependent] = []
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
        self._dependents.append(Switch(j, d))
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

    def objective(self, charged: Sequence[Sequence[Term]], reference: Matrix, u_prev: Vector) -> None:
        """Costs of ``z_1 .. z_H``, of the actions and of their changes.

        Args:
            charged: Terms of each step, from :func:`~steersman.controllers.plan.charged_terms`.
            reference: ``r_1 .. r_H``, or more.
            u_prev: Action before the plan.

        Raises:
            ValueError: If a term has no mixed-integer form; the message names it. If ``charged`` has not one entry for
                each step of the program.
        """
        check_steps(self.program, charged)
        for j, terms in enumerate(charged):
            for term in terms:
                self._term(term, *self._signal(term, j, reference, u_prev))

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
        signals = [Affine(row, float(c)) for row, c in zip(rows, shift, strict=True)]
        match term:
            case Linear():
                for w, s in zip(term.weights, signals, strict=True):
                    self._cost[0] += w * s.row
                    self._constant += w * s.shift
            case L1() | LInf() | Quadratic() if min(term.weights) < 0:
                raise ValueError(f"term {term.name!r} has a negative weight and is not convex; use sampling MPC")
            case L1():
                for w, s in zip(term.weights, signals, strict=True):
                    if w:
                        self._above([w * s, -w * s])
            case LInf():
                self._above([sign * w * s for w, s in zip(term.weights, signals, strict=True) for sign in (1.0, -1.0)])
            case PiecewiseLinear() if term.convex:
                points = zip(term.points, term.slopes, strict=False)
                self._above([slope * (signals[term.index] + -x) + y for (x, y), slope in points])
            case PiecewiseLinear():
                self._increments(term, signals[term.index])
            case Quadratic():
                for w, s in zip(term.weights, signals, strict=True):
                    if w:
                        self._square(w, s)
            case _:
                raise ValueError(
                    f"term {term.name!r} is {type(term).__name__}: mixed-integer MPC reads linear, L1, L-infinity, "
                    "piecewise-linear and convex quadratic terms; use sampling MPC or rewrite the term"
                )

    def _above(self, lines: list[Affine]) -> None:
        """A cost that is the maximum of affine functions."""
        t = self.column(-INF, INF, cost=1.0)
        self._dependents.append(Peak(t, tuple(lines)))
        for line in lines:
            self._at_least(t, line)

    def _at_least(self, t: int, line: Affine) -> None:
        used = np.flatnonzero(line.row)
        self._row([1.0, *-line.row[used]], [t, *used], line.shift, INF)

    def _square(self, weight: float, s: Affine) -> None:
        low, high = self._range(s)
        square = Square(s, weight, self.column(0.0, INF, cost=1.0))
        self._dependents.append(square)
        for point in np.unique(np.append(np.linspace(low, high, 5), np.clip(0.0, low, high))):
            self._at_least(square.t, square.tangent(float(point)))

    def _increments(self, term: PiecewiseLinear, s: Affine) -> None:
        """Incremental form (Markowitz, Manne 1957): segments are filled one after the other, by binaries."""
        knots, slopes, first = reached(term, *self._range(s))
        parts = [self.column(0.0, b - a, cost=slope) for (a, b), slope in zip(pairwise(knots), slopes, strict=True)]
        full = [self.column(0.0, 1.0, integer=True) for _ in knots[1:-1]]
        self._dependents.append(Segments(s, knots, tuple(parts), tuple(full)))
        used = np.flatnonzero(s.row)
        self._row([1.0] * len(parts) + list(-s.row[used]), [*parts, *used], s.shift - knots[0], s.shift - knots[0])
        for i, d in enumerate(full):
            self._row([1.0, -(knots[i + 1] - knots[i])], [parts[i], d], 0.0, INF)
            self._row([1.0, -(knots[i + 2] - knots[i + 1])], [parts[i + 1], d], -INF, 0.0)
        self._constant += first

    def _range(self, s: Affine) -> tuple[float, float]:
        low, high = self._lower[0], self._upper[0]
        plus, minus = np.maximum(s.row, 0.0), np.minimum(s.row, 0.0)
        return float(plus @ low + minus @ high) + s.shift, float(plus @ high + minus @ low) + s.shift

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
            tuple(self._dependents), self._binaries,
        )  # fmt: skip


def reached(term: PiecewiseLinear, low: float, high: float) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    """The part of a function that arguments within ``low .. high`` see: knots, slopes between them, the first value.

    The outer knots lie so far beyond the range that no segment is as narrow as a solver's tolerance.
    """
    pad = 1e-3 * max(1.0, high - low)
    inner = [x for x, _ in term.points[1:-1]]
    start = sum(x <= low for x in inner)
    knots = (low - pad, *(x for x in inner if low < x < high), high + pad)
    slopes = term.slopes[start : start + len(knots) - 1]
    x, y = term.points[start]
    return knots, slopes, y + slopes[0] * (knots[0] - x)


def check_steps(program: Program, charged: Sequence[Sequence[Term]]) -> None:
    """Refuse terms that are not those of the program's steps.

    Raises:
        ValueError: If there are more or fewer of them.
    """
    if len(charged) != program.horizon:
        raise ValueError(
            f"charged has terms of {len(charged)} steps but the program has {program.horizon}; unroll as many"
        )
