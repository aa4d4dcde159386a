"""DC optimal power flow with Pyomo and HiGHS: the cheapest generation that the lines can carry.

The slow layer above a grid's controllers. It minimises the cost of generation under
``f_l = b_l (angle_i - angle_j - shift_l)``, balance at every bus, limits of generators and ``low_l <= f_l <= high_l``
(see :mod:`~steersman.envs.grid.dispatch.dc`), which hold the limits on angles too.
:mod:`~steersman.envs.grid.dispatch.switching` adds lines that can be opened.

Costs given by points are held from below by the lines between them. Quadratic costs are held from below by tangents, to
which those at each solution are added until its true cost is within the gap of the bound: HiGHS takes no mixed-integer
quadratic programs, and its quadratic solver (1.15) gives up on the 500-, 2000-, 2312- and 3022-bus grids of PGLib.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import pyomo.environ as pyo
from jaxtyping import Float
from pyomo.contrib.solver.common.factory import SolverFactory

from steersman.envs.grid.dispatch.dc import DCGrid, dc_grid
from steersman.envs.grid.network.case import Case, at

ROUNDS = 30
"""Largest number of solves in the refinement of quadratic costs."""
TANGENTS = 9
"""Tangents per quadratic cost before the first solve."""


class DispatchStatus(StrEnum):
    """How an optimisation ended."""

    OPTIMAL = "optimal"
    """Optimal within the gap."""
    INCUMBENT = "incumbent"
    """A feasible dispatch; the time ran out before it was proven best."""
    INFEASIBLE = "infeasible"
    """No dispatch serves the loads within the limits."""
    NONE = "none"
    """Nothing was found in time, or HiGHS could not decide."""


@dataclass(frozen=True, eq=False)
class Dispatch:
    """Outcome of an optimisation; arrays are empty without a dispatch.

    Attributes:
        status: How it ended.
        cost: Cost of generation, $/h; infinite without a dispatch.
        bound: Proven lower bound of the optimal cost, $/h.
        p: Active power of each generator, pu.
        angle: Angle of each bus, rad.
        flow: Active power of each branch from its start to its end, pu.
        open: Branches switched off, by index.
        seconds: CPU seconds, with the building of the model.
    """

    status: DispatchStatus
    cost: float
    bound: float
    p: Float[np.ndarray, "g"]
    angle: Float[np.ndarray, "b"]
    flow: Float[np.ndarray, "l"]
    open: tuple[int, ...]
    seconds: float

    @property
    def gap(self) -> float:
        """Distance of cost and bound relative to the cost; infinite without a dispatch."""
        if not np.isfinite(self.cost) or not np.isfinite(self.bound):
            return float("inf")
        return max(0.0, self.cost - self.bound) / max(abs(self.cost), 1e-9)


def dc_opf(case: Case, *, time_limit: float | None = None, gap: float = 1e-8) -> Dispatch:
    """Cheapest generation with every line closed.

    Args:
        case: The grid.
        time_limit: Wall seconds for everything.
        gap: Relative gap that counts as optimal.

    Raises:
        ValueError: If a generator has no cost or one that is not convex, or limits that exclude each other.
    """
    begun = time.process_time()
    grid = dc_grid(case)
    model = network(case, grid, np.stack([grid.low, grid.high], axis=1))
    model.line = pyo.ConstraintList()
    for line, drop in enumerate(drops(model, case, grid)):
        model.line.add(model.f[line] == drop)
    found = refine(case, model, time_limit, gap)
    return replace(found, seconds=time.process_time() - begun)


def unit_costs(case: Case) -> tuple[Float[np.ndarray, "g 3"], list[Float[np.ndarray, "_ 2"]]]:
    """Costs of each generator for power in pu, $/h: the largest of ``slope p + constant`` plus ``c2 p^2 + c1 p + c0``.

    Returns:
        ``(c2, c1, c0)``, and the ``(slope, constant)`` of each line between its points; none without points.

    Raises:
        ValueError: If one is missing or not convex.
    """
    generators = case.generators
    points = generators.points or (np.zeros((0, 2)),) * len(generators)
    lines = []
    for g, (cost, point) in enumerate(zip(generators.cost, points, strict=True)):
        slope = np.diff(point[:, 1]) / np.diff(point[:, 0])
        # Points that lie on a line in the file do not do so to the last digit.
        bent = (np.diff(slope) < -1e-9 * np.abs(slope).max(initial=1.0)).any()
        if (not len(slope) and np.isnan(cost).any()) or cost[0] < 0 or bent:
            stated = point.tolist() if len(slope) else cost.tolist()
            raise ValueError(
                f"{_unit(case, g)} has the cost {'(MW, $/h)' if len(slope) else '(c2, c1, c0)'} = {stated}; "
                "give it a convex polynomial of degree 2, or points of rising slope"
            )
        lines.append(np.stack([slope * case.base_mva, point[:-1, 1] - slope * point[:-1, 0]], axis=1))
    has_points = np.array([len(part) > 0 for part in lines])
    scaled = np.where(has_points[:, None], 0.0, generators.cost) * np.array([case.base_mva**2, case.base_mva, 1.0])
    return scaled, lines


def _unit(case: Case, g: int) -> str:
    """A generator with its file and line, for messages."""
    generators = case.generators
    name = f"generator {generators.machine[g]} at bus {case.buses.id[generators.bus[g]]}"
    return f"{at(generators, g)}{name}"


def network(case: Case, grid: DCGrid, flows: Float[np.ndarray, "l 2"]) -> Any:
    """Pyomo model with ``p[g]``, ``angle[b]``, ``f[l]`` in pu and rad, their limits, and the balance of every bus.

    Args:
        case: The grid.
        grid: Its DC model.
        flows: Least and largest flow of each branch.

    Raises:
        ValueError: If the least power of a generator is above its largest.
    """
    generators, lines, n = case.generators, case.branches, len(case.buses)
    for g in map(int, np.flatnonzero(generators.p_min > generators.p_max)):
        raise ValueError(f"{_unit(case, g)} has the least power {generators.p_min[g]} pu above its largest")
    model = pyo.ConcreteModel()
    limits = np.stack([generators.p_min, generators.p_max], axis=1).tolist()
    model.p = pyo.Var(range(len(generators)), bounds=lambda _, g: tuple(limits[g]))
    model.f = pyo.Var(range(len(lines)), bounds=lambda _, line: tuple(flows[line].tolist()))
    model.angle = pyo.Var(range(n))
    model.angle[case.slack].fix(0.0)
    terms: list[list[Any]] = [[] for _ in range(n)]
    for g, bus in enumerate(generators.bus):
        terms[bus].append(model.p[g])
    for line, (i, j) in enumerate(zip(lines.start, lines.end, strict=True)):
        terms[i].append(-model.f[line])
        terms[j].append(model.f[line])
    model.balance = pyo.ConstraintList()
    for bus in range(n):
        model.balance.add(sum(terms[bus]) == float(grid.demand[bus]))
    return model


def drops(model: Any, case: Case, grid: DCGrid) -> list[Any]:
    """Flow that the angles drive through each branch when it is closed."""
    lines = case.branches
    return [
        float(b) * (model.angle[int(i)] - model.angle[int(j)] - float(shift))
        for b, shift, i, j in zip(grid.susceptance, grid.shift, lines.start, lines.end, strict=True)
    ]


def add_costs(model: Any, case: Case) -> dict[int, Float[np.ndarray, "3"]]:
    """Give the model its objective; costs with a square are variables above tangents, and returned by generator."""
    (costs, lines), generators = unit_costs(case), case.generators
    # Tangents at the ends of what a generator can do, or can be asked to where it has no limit.
    most = np.abs(case.buses.load).sum() + np.abs(case.buses.shunt).sum() + 1.0
    quadratic = {g: cost for g, cost in enumerate(costs) if cost[0] > 0}
    model.square = pyo.Var(list(quadratic), bounds=(0.0, None))
    model.tangents = pyo.ConstraintList()
    for g, cost in quadratic.items():
        for point in np.linspace(max(generators.p_min[g], -most), min(generators.p_max[g], most), TANGENTS):
            touch(model, g, cost, float(point))
    bent = [g for g, part in enumerate(lines) if len(part)]
    model.bent = pyo.Var(bent)
    model.pieces = pyo.ConstraintList()
    for g in bent:
        for slope, constant in lines[g].tolist():
            model.pieces.add(model.bent[g] >= slope * model.p[g] + constant)
    linear = sum(float(c1) * model.p[g] + float(c0) for g, (_, c1, c0) in enumerate(costs))
    model.total = pyo.Objective(
        expr=linear + sum(model.square[g] for g in quadratic) + sum(model.bent[g] for g in bent)
    )
    return quadratic


def touch(model: Any, g: int, cost: Float[np.ndarray, "3"], point: float) -> None:
    """Hold the square of a cost above its tangent at ``point``."""
    model.tangents.add(model.square[g] >= float(cost[0]) * point * (2 * model.p[g] - point))


def refine(case: Case, model: Any, time_limit: float | None, gap: float) -> Dispatch:
    """Solve a model of :func:`network`, with binaries ``z`` or without, until its quadratic costs are true; no seconds.

    Args:
        case: The grid.
        model: The model before its costs.
        time_limit: Wall seconds for everything.
        gap: Relative gap that counts as optimal, of each solve and of the tangents.
    """
    started, quadratic = time.perf_counter(), add_costs(model, case)
    best, bound = None, -np.inf
    for _ in range(ROUNDS):
        left = None if time_limit is None else max(0.0, time_limit - (time.perf_counter() - started))
        result = optimise(model, left, gap)
        bound = bound if result.objective_bound is None else max(bound, float(result.objective_bound))
        found = dispatch(case, model, result, bound)
        best = found if best is None or found.cost < best.cost else replace(best, bound=bound)
        if found.status is not DispatchStatus.OPTIMAL or not quadratic or best.gap <= 2 * gap:
            break
        for g, cost in quadratic.items():
            touch(model, g, cost, float(found.p[g]))
    assert best is not None  # noqa: S101 - there is at least one round
    if not np.isfinite(best.cost):
        return best
    return replace(best, status=DispatchStatus.OPTIMAL if best.gap <= 2 * gap else DispatchStatus.INCUMBENT)


def optimise(model: Any, time_limit: float | None, gap: float) -> Any:
    """Solve with HiGHS on one thread and load what was found; Pyomo's results."""
    result = SolverFactory("highs").solve(
        model, time_limit=time_limit, threads=1, rel_gap=gap,
        load_solutions=False, raise_exception_on_nonoptimal_result=False,
    )  # fmt: skip
    if result.incumbent_objective is not None:
        result.solution_loader.load_vars()
    return result


def dispatch(case: Case, model: Any, result: Any, bound: float) -> Dispatch:
    """What a solved model says, with its true cost; no seconds."""
    if result.incumbent_objective is None:
        infeasible = result.termination_condition.name in ("provenInfeasible", "infeasibleOrUnbounded")
        status = DispatchStatus.INFEASIBLE if infeasible else DispatchStatus.NONE
        none = np.zeros(0)
        return Dispatch(status, np.inf, np.inf if infeasible else bound, none, none, none, (), 0.0)
    p, angle, flow = (
        np.array([pyo.value(part[i]) for i in part], dtype=float) for part in (model.p, model.angle, model.f)
    )
    opened = () if model.component("z") is None else tuple(line for line in model.z if pyo.value(model.z[line]) < 0.5)
    done = result.termination_condition.name == "convergenceCriteriaSatisfied"
    costs, lines = unit_costs(case)
    cost = float((costs * np.stack([p**2, p, np.ones_like(p)], axis=1)).sum())
    cost += sum(float((part @ [p[g], 1.0]).max()) for g, part in enumerate(lines) if len(part))
    status = DispatchStatus.OPTIMAL if done else DispatchStatus.INCUMBENT
    return Dispatch(status, cost, bound, p, angle, flow, opened, 0.0)
