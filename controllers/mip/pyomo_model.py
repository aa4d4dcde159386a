"""The plan's program as a Pyomo model, for users who want to add constraints of their own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyomo.environ as pyo
from pyomo.contrib.solver.common.factory import SolverFactory

from steersman.controllers.mip.bounds import Bounds
from steersman.controllers.mip.encode import check_steps, reached
from steersman.controllers.mip.program import Matrix, Program, Vector
from steersman.envs.actions import ActionSet
from steersman.envs.objective import L1, Linear, LInf, PiecewiseLinear, Quadratic, Term

TANGENTS = 65
"""Tangents per quadratic cost; HiGHS takes no mixed-integer quadratic programs."""


def pyomo_model(
    program: Program,
    bounds: Bounds,
    actions: ActionSet,
    charged: Sequence[Sequence[Term]],
    reference: Matrix,
    u_prev: Vector,
) -> Any:
    """A ``ConcreteModel`` with ``u[j, i]``, ``z[j, i]`` (j = 1..H), ``v[k]`` for every variable, and ``plan_cost``.

    Quadratic costs are held from below by :data:`TANGENTS` tangents over their range, so the optimum is within
    ``w (range / 64)^2 / 4`` of each one's true value.

    Args:
        program: From :func:`~steersman.controllers.mip.program.unroll`.
        bounds: Sound bounds of its variables.
        actions: Which actions are integer or one-hot.
        charged: Terms of each step, from :func:`~steersman.controllers.plan.charged_terms`.
        reference: ``r_1 .. r_H``, or more.
        u_prev: Action before the plan.

    Raises:
        ValueError: If a term has no mixed-integer form, or is not convex; if ``charged`` has not one entry for each
            step of the program.
    """
    check_steps(program, charged)
    model = pyo.ConcreteModel()
    low, high = bounds.after(program)
    m, horizon = program.m, program.horizon
    model.v = pyo.Var(range(program.size), bounds=lambda _, k: (float(low[k]), float(high[k])))
    model.rows, model.switch = pyo.ConstraintList(), pyo.VarList(domain=pyo.Binary)
    model.piece = pyo.VarList()
    model.u = pyo.Expression(range(horizon), range(m), rule=lambda b, j, i: b.v[j * m + i])
    nz = program.Z[0].shape[0]
    model.z = pyo.Expression(
        range(1, horizon + 1), range(nz),
        rule=lambda b, j, i: _affine(b, program.Z[j - 1][i], program.z0[j - 1][i]),
    )  # fmt: skip
    _network(model, program, bounds)
    _discrete(model, program, actions)
    total = 0.0
    for j, terms in enumerate(charged):
        for term in terms:
            total = total + _term(model, term, _signal(model, term, j, reference, u_prev))
    model.plan_cost = pyo.Objective(expr=total)
    return model


def solve_pyomo(model: Any, time_limit: float | None = None) -> float:
    """Solve with HiGHS and load the solution; the cost.

    Raises:
        RuntimeError: If no optimal solution was found; the message gives the status.
    """
    result = SolverFactory("highs").solve(
        model, time_limit=time_limit, load_solutions=False, raise_exception_on_nonoptimal_result=False
    )
    if result.termination_condition.name != "convergenceCriteriaSatisfied":
        raise RuntimeError(f"HiGHS ended with {result.termination_condition.name}; raise the time limit")
    result.solution_loader.load_vars()
    return float(pyo.value(model.plan_cost))


def _affine(model: Any, row: Vector, constant: float) -> Any:
    return sum((float(row[k]) * model.v[int(k)] for k in np.flatnonzero(row)), start=float(constant))


def _network(model: Any, program: Program, bounds: Bounds) -> None:
    for block in program.blocks:
        for i in range(block.stop - block.start):
            v, pre = model.v[block.start + i], _affine(model, block.A[i], block.c[i])
            low, high = float(bounds.lower[block.start + i]), float(bounds.upper[block.start + i])
            if not block.relu[i] or low >= 0:
                model.rows.add(v == pre)
            elif high <= 0:
                v.fix(0.0)
            else:
                d = model.switch.add()
                model.rows.add(v >= pre)
                model.rows.add(v <= pre - low * (1 - d))
                model.rows.add(v <= high * d)


def _discrete(model: Any, program: Program, actions: ActionSet) -> None:
    grouped = {i for group in actions.one_hot for i in group}
    for j in range(program.horizon):
        for i in range(program.m):
            if actions.integer[i] or i in grouped:
                model.v[j * program.m + i].domain = pyo.Integers
        for group in actions.one_hot:
            model.rows.add(sum(model.u[j, i] for i in group) == 1)


def _signal(model: Any, term: Term, j: int, reference: Matrix, u_prev: Vector) -> list[Any]:
    if term.on in ("z", "e"):
        nz = reference.shape[1]
        return [model.z[j + 1, i] - (float(reference[j, i]) if term.on == "e" else 0.0) for i in range(nz)]
    m = len(u_prev)
    if term.on == "u":
        return [model.u[j, i] for i in range(m)]
    return [model.u[j, i] - (model.u[j - 1, i] if j else float(u_prev[i])) for i in range(m)]


def _term(model: Any, term: Term, s: list[Any]) -> Any:
    match term:
        case Linear():
            return sum(w * x for w, x in zip(term.weights, s, strict=True))
        case L1() if min(term.weights) >= 0:
            return sum(_above(model, [w * x, -w * x]) for w, x in zip(term.weights, s, strict=True) if w)
        case LInf() if min(term.weights) >= 0:
            return _above(model, [sign * w * x for w, x in zip(term.weights, s, strict=True) for sign in (1, -1)])
        case Quadratic() if min(term.weights) >= 0:
            return sum(_square(model, w, x) for w, x in zip(term.weights, s, strict=True) if w)
        case PiecewiseLinear() if term.convex:
            points = zip(term.points, term.slopes, strict=False)
            return _above(model, [slope * (s[term.index] - x) + y for (x, y), slope in points])
        case PiecewiseLinear():
            return _filled(model, term, s[term.index])
    raise ValueError(f"term {term.name!r} ({type(term).__name__}) has no convex mixed-integer form; use sampling MPC")


def _above(model: Any, lines: list[Any]) -> Any:
    t = model.piece.add()
    for line in lines:
        model.rows.add(t >= line)
    return t


def _square(model: Any, weight: float, s: Any) -> Any:
    low, high = _range(s)
    points = np.linspace(low, high, TANGENTS)
    return _above(model, [0.0, *(weight * (2 * p * s - p * p) for p in map(float, points))])


def _filled(model: Any, term: PiecewiseLinear, s: Any) -> Any:
    """Incremental form of a piecewise-linear function that is not convex."""
    knots, slopes, first = reached(term, *_range(s))
    parts = []
    for a, b in pairwise(knots):
        part = model.piece.add()
        part.setlb(0.0)
        part.setub(b - a)
        parts.append(part)
    model.rows.add(sum(parts) + knots[0] == s)
    for (before, after), (a, b), (c, d) in zip(pairwise(parts), pairwise(knots), pairwise(knots[1:]), strict=False):
        switch = model.switch.add()
        model.rows.add(before >= (b - a) * switch)
        model.rows.add(after <= (d - c) * switch)
    return first + sum(slope * part for slope, part in zip(slopes, parts, strict=True))


def _range(s: Any) -> tuple[float, float]:
    from pyomo.contrib.fbbt.expression_bounds_walker import ExpressionBoundsVisitor

    low, high = ExpressionBoundsVisitor().walk_expression(s + 0.0)
    return float(low), float(high)
