"""Solving plans with HiGHS: status, incumbent and bound are always read, and the time limit is obeyed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import highspy
import numpy as np
from scipy import sparse

from steersman.controllers.mip.columns import Square
from steersman.controllers.mip.encode import Arrays
from steersman.controllers.mip.program import Vector

SETUP = 1.5e-6
"""Seconds for a coefficient before HiGHS looks at its clock (1.0e-6 to 1.6e-6 measured on a core of 2.6 GHz)."""


class Result(IntEnum):
    """How a solve ended."""

    OPTIMAL = 0
    """Optimal within the gap."""
    INCUMBENT = 1
    """A feasible plan; the time ran out before it was proven best."""
    NONE = 2
    """No feasible plan was found in time, or there is none."""


@dataclass(frozen=True)
class Solution:
    """Outcome of a solve.

    Attributes:
        result: How it ended.
        x: Values of all columns; empty without a plan.
        value: Cost of the plan, with quadratic terms exact; infinite without one.
        bound: Proven lower bound of the optimal cost.
        seconds: Wall time.
        rounds: Solves, one more for each refinement of the quadratic terms.
    """

    result: Result
    x: Vector
    value: float
    bound: float
    seconds: float
    rounds: int

    @property
    def gap(self) -> float:
        """Relative distance of value and bound."""
        return (self.value - self.bound) / max(abs(self.value), 1e-9)


def solve(
    arrays: Arrays,
    *,
    time_limit: float | None = None,
    starts: Sequence[Vector] = (),
    gap: float = 1e-4,
    rounds: int = 8,
) -> Solution:
    """Minimise a program; quadratic costs are approached from below by tangents at each solution found.

    HiGHS is not asked where it could not end in time, having :data:`SETUP` of time for each coefficient to pass first:
    with 0.1 s left from some 67,000 coefficients on, which is a network of two layers of 128 over eight steps.

    Args:
        arrays: The program.
        time_limit: Wall seconds for everything.
        starts: Plans to begin with, as values of the program's variables; what is found is never worse than the best
            of those that are feasible.
        gap: Relative gap that counts as optimal, of each solve and of the quadratic terms.
        rounds: Largest number of solves.
    """
    begun = time.perf_counter()
    best_x, best_value, bound, proven = *_best(arrays, starts), -np.inf, False
    solver = load(arrays, gap)
    if len(best_x):
        _cut(solver, arrays.squares, best_x)
    done = 0
    while done < rounds:
        done += 1
        left = None if time_limit is None else time_limit - (time.perf_counter() - begun)
        if left is not None and left <= SETUP * arrays.A.nnz:
            break
        if len(best_x):
            _set_start(solver, best_x)
        x, lower, proven = _run(solver, left)
        bound = max(bound, lower + arrays.constant)
        if not len(x):
            break
        value = exact_value(arrays, x)
        if value < best_value:
            best_x, best_value = x, value
        if not proven or not arrays.squares or best_value - bound <= gap * max(abs(best_value), 1e-6):
            break
        _cut(solver, [square for square in arrays.squares if square.value(x) - x[square.t] > 1e-9], x)
    closed = proven and best_value - bound <= 10 * gap * max(abs(best_value), 1e-6)
    result = Result.NONE if not len(best_x) else Result.OPTIMAL if closed else Result.INCUMBENT
    return Solution(result, best_x, best_value, bound, time.perf_counter() - begun, done)


def _best(arrays: Arrays, starts: Sequence[Vector]) -> tuple[Vector, float]:
    """The cheapest of the feasible starts as a whole solution, and its cost; empty and infinite without one."""
    best_x, best_value = np.zeros(0), np.inf
    for start in starts:
        x = arrays.complete(start)
        if arrays.feasible(x) and exact_value(arrays, x) < best_value:
            best_x, best_value = x, exact_value(arrays, x)
    return best_x, best_value


def exact_value(arrays: Arrays, x: Vector) -> float:
    """Cost of a solution with every quadratic term evaluated instead of its cuts."""
    total = float(arrays.cost @ x) + arrays.constant
    return total + sum(square.value(x) - float(arrays.cost[square.t] * x[square.t]) for square in arrays.squares)


def load(arrays: Arrays, gap: float = 1e-4) -> highspy.Highs:
    """A silent HiGHS of one thread that holds the program."""
    lp = highspy.HighsLp()
    rows, columns = arrays.A.shape
    by_column = arrays.A.tocsc()
    lp.num_col_, lp.num_row_ = columns, rows
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = arrays.cost, arrays.lower, arrays.upper
    lp.row_lower_, lp.row_upper_ = arrays.row_lower, arrays.row_upper
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_ = by_column.indptr, by_column.indices
    lp.a_matrix_.value_ = by_column.data
    if arrays.integer.any():
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        lp.integrality_ = [kinds[int(whole)] for whole in arrays.integer]
    solver = highspy.Highs()  # type: ignore[no-untyped-call]
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.setOptionValue("mip_rel_gap", gap)
    # Presolve does not look at the clock (6e-6 s for a coefficient) and makes these programs no quicker; networks have
    # no symmetries to find.
    solver.setOptionValue("presolve", "off")
    solver.setOptionValue("mip_detect_symmetry", False)
    # With an incumbent from shooting, heuristics that solve smaller programs and restarts cost more than they find.
    for option in ("run_rins", "run_rens", "run_root_reduced_cost"):
        solver.setOptionValue(f"mip_heuristic_{option}", False)
    solver.setOptionValue("mip_allow_restart", False)
    if solver.passModel(lp) == highspy.HighsStatus.kError:
        raise ValueError("HiGHS refused the program; check the model's weights and the objective for NaN")
    return solver


def _run(solver: highspy.Highs, seconds: float | None) -> tuple[Vector, float, bool]:
    """Values (empty without a feasible point), lower bound, and whether the solve was finished."""
    mixed = _mixed(solver)
    if seconds is not None:
        # HiGHS adds up the time of repeated solves, but only looks at the sum where nothing is integer.
        solver.setOptionValue("time_limit", seconds if mixed else solver.getRunTime() + seconds)
    solver.run()
    info, status = solver.getInfo(), solver.getModelStatus()
    proven = status == highspy.HighsModelStatus.kOptimal
    feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    lower = info.mip_dual_bound if mixed else (info.objective_function_value if proven else -np.inf)
    if not feasible:
        return np.zeros(0), float(lower), False
    return np.asarray(solver.getSolution().col_value, dtype=float), float(lower), proven


def _mixed(solver: highspy.Highs) -> bool:
    """Whether anything is integer."""
    return len(solver.getLp().integrality_) > 0


def _set_start(solver: highspy.Highs, x: Vector) -> None:
    """Offer a whole solution as the first incumbent; HiGHS completes a part of one in a solve with its own clock."""
    if _mixed(solver):
        solution = highspy.HighsSolution()
        solution.col_value = x
        solver.setSolution(solution)


def _cut(solver: highspy.Highs, squares: Sequence[Square], x: Vector) -> None:
    """Tangents of quadratic terms at a solution."""
    if not squares:
        return
    lines = [square.tangent(square.s(x)) for square in squares]
    A = np.zeros((len(squares), len(x)))
    for row, square, line in zip(A, squares, lines, strict=True):
        row[: len(line.row)] = -line.row
        row[square.t] = 1.0
    rows = sparse.csr_matrix(A)
    low, high = np.array([line.shift for line in lines]), np.full(len(lines), np.inf)
    solver.addRows(len(lines), low, high, rows.nnz, rows.indptr[:-1], rows.indices, rows.data)
