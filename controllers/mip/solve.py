"""Solving plans with HiGHS: status, incumbent and bound are always read, and the time limit is obeyed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import IntEnum

import highspy
import numpy as np
from scipy import sparse

from steersman.controllers.mip.encode import Arrays, Square, tangent
from steersman.controllers.mip.program import Vector


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
    start: Vector | None = None,
    gap: float = 1e-4,
    rounds: int = 8,
) -> Solution:
    """Minimise a program; quadratic costs are approached from below by tangents at each solution found.

    Args:
        arrays: The program.
        time_limit: Wall seconds for everything.
        start: Values of the leading columns of a feasible plan, such as the variables of a rollout.
        gap: Relative gap that counts as optimal, of each solve and of the quadratic terms.
        rounds: Largest number of solves.
    """
    begun = time.perf_counter()
    solver = load(arrays, gap)
    if start is not None:
        _cut(solver, arrays.squares, start)
        _set_start(solver, start)
    best_x, best_value, bound, proven = np.zeros(0), np.inf, -np.inf, False
    done = 0
    while done < rounds:
        done += 1
        left = None if time_limit is None else time_limit - (time.perf_counter() - begun)
        if left is not None and left <= 0.0:
            break
        x, lower, proven = _run(solver, left)
        bound = max(bound, lower + arrays.constant)
        if not len(x):
            break
        value = exact_value(arrays, x)
        if value < best_value:
            best_x, best_value = x, value
        if not proven or not arrays.squares or best_value - bound <= gap * max(abs(best_value), 1e-6):
            break
        _cut(solver, arrays.squares, x)
        _set_start(solver, x)
    closed = proven and best_value - bound <= 10 * gap * max(abs(best_value), 1e-6)
    result = Result.NONE if not len(best_x) else Result.OPTIMAL if closed else Result.INCUMBENT
    return Solution(result, best_x, best_value, bound, time.perf_counter() - begun, done)


def exact_value(arrays: Arrays, x: Vector) -> float:
    """Cost of a solution with every quadratic term evaluated instead of its cuts."""
    total = float(arrays.cost @ x) + arrays.constant
    for square in arrays.squares:
        s = float(square.row @ x[: len(square.row)]) + square.shift
        total += square.weight * s * s - arrays.cost[square.t] * float(x[square.t])
    return total


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
    # With an incumbent from shooting, heuristics that solve smaller programs and restarts cost more than they find.
    for option in ("run_rins", "run_rens", "run_root_reduced_cost"):
        solver.setOptionValue(f"mip_heuristic_{option}", False)
    solver.setOptionValue("mip_allow_restart", False)
    if solver.passModel(lp) == highspy.HighsStatus.kError:
        raise ValueError("HiGHS refused the program; check the model's weights and the objective for NaN")
    return solver


def _run(solver: highspy.Highs, seconds: float | None) -> tuple[Vector, float, bool]:
    """Values (empty without a feasible point), lower bound, and whether the solve was finished."""
    if seconds is not None:
        # HiGHS adds up the time of repeated solves.
        solver.setOptionValue("time_limit", solver.getRunTime() + seconds)
    solver.run()
    info, status = solver.getInfo(), solver.getModelStatus()
    proven = status == highspy.HighsModelStatus.kOptimal
    feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    integer = solver.getLp().integrality_
    lower = info.mip_dual_bound if len(integer) else (info.objective_function_value if proven else -np.inf)
    if not feasible:
        return np.zeros(0), float(lower), False
    return np.asarray(solver.getSolution().col_value, dtype=float), float(lower), proven


def _set_start(solver: highspy.Highs, values: Vector) -> None:
    """Offer the leading columns; HiGHS completes the others and drops what is infeasible."""
    index = np.arange(len(values), dtype=np.int32)
    solver.setSolution(len(values), index, np.asarray(values, dtype=float))


def _cut(solver: highspy.Highs, squares: tuple[Square, ...], x: Vector) -> None:
    """Tangents of all quadratic terms at a solution, or at the leading columns of one."""
    rows, low = [], []
    width = solver.getLp().num_col_
    for square in squares:
        point = float(square.row @ x[: len(square.row)]) + square.shift
        if square.t >= len(x) or square.weight * point**2 - x[square.t] > 1e-9:
            slope, shift = tangent(square, point)
            row = np.zeros(width)
            row[: len(slope)] = -slope
            row[square.t] = 1.0
            rows.append(row)
            low.append(shift)
    if rows:
        A = sparse.csr_matrix(np.array(rows))
        high = np.full(len(rows), np.inf)
        solver.addRows(len(rows), np.array(low), high, A.nnz, A.indptr[:-1], A.indices, A.data)
