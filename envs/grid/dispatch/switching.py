"""Optimal transmission switching in the DC model: which lines to open so that the cheap generators can run.

E. Fisher, R. O'Neill, M. Ferris, Optimal transmission switching, IEEE Trans. Power Systems 23(3), 2008. A binary
``z_l`` per branch is added to the optimal power flow of :mod:`~steersman.envs.grid.dispatch.opf`:

    low_l z_l <= f_l <= high_l z_l,
    |f_l - b_l (angle_i - angle_j - shift_l)| <= |b_l| (D_l + |shift_l|) (1 - z_l),

where ``D_l`` bounds the angle across the branch when it is open (:func:`angle_spread`). Nothing keeps the grid in one
piece: an island must balance by itself.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pyomo.environ as pyo
from jaxtyping import Float

from steersman.envs.grid.dispatch.dc import DCGrid, dc_grid
from steersman.envs.grid.dispatch.opf import Dispatch, add_costs, dispatch, drops, network, optimise, refine, touch
from steersman.envs.grid.network.case import Case
from steersman.envs.importing import needed

nx: Any = needed("networkx", "grid", "transmission switching")

DEEPEST = 4
"""Largest number of open branches for which all choices of them are gone through to bound angles."""

Ends = list[tuple[int, int]]
"""Buses of each branch."""


def dc_switching(
    case: Case, *, max_open: int | None = None, time_limit: float | None = None, gap: float = 1e-6
) -> Dispatch:
    """Cheapest generation when lines may be opened.

    Args:
        case: The grid.
        max_open: Largest number of open branches; None for no limit.
        time_limit: Wall seconds for everything.
        gap: Relative gap that counts as optimal.

    Raises:
        ValueError: If ``max_open`` is negative, a generator has no cost or one that is not convex, or there is none.
    """
    if max_open is not None and max_open < 0:
        raise ValueError(f"max_open must be at least 0, got {max_open}; use None for no limit")
    begun = time.process_time()
    model = _model(case, max_open)
    left = None if time_limit is None else time_limit - (time.process_time() - begun)
    found = refine(case, model, left, gap)
    return replace(found, seconds=time.process_time() - begun)


def reclosed(case: Case, found: Dispatch, *, worse: float = 1e-7) -> Dispatch:
    """A switched dispatch with every branch closed again, one after the other, that need not be open.

    Args:
        case: The grid.
        found: What :func:`dc_switching` found.
        worse: Relative increase of the cost that counts as none.
    """
    begun = time.process_time()
    model = _model(case, None)
    for g, cost in add_costs(model, case).items():
        touch(model, g, cost, float(found.p[g]))
    for line in model.z:
        model.z[line].fix(int(line not in found.open))
    best = found
    for line in found.open:
        model.z[line].fix(1)
        tried = dispatch(case, model, optimise(model, None, 1e-9), found.bound)
        if tried.cost <= found.cost * (1 + worse):
            best = replace(tried, status=found.status)
        else:
            model.z[line].fix(0)
    return replace(best, seconds=found.seconds + time.process_time() - begun)


def _model(case: Case, max_open: int | None) -> Any:
    """The optimal power flow with a binary per branch, before its costs."""
    grid = dc_grid(case)
    flows = np.stack([np.minimum(grid.low, 0.0), np.maximum(grid.high, 0.0)], axis=1)
    slack = np.abs(grid.susceptance) * (angle_spread(case, grid, max_open) + np.abs(grid.shift))
    model = network(case, grid, flows)
    model.z = pyo.Var(range(len(case.branches)), domain=pyo.Binary)
    model.line = pyo.ConstraintList()
    for line, drop in enumerate(drops(model, case, grid)):
        f, z, big = model.f[line], model.z[line], float(slack[line])
        model.line.add(f <= float(grid.high[line]) * z)
        model.line.add(f >= float(grid.low[line]) * z)
        model.line.add(f - drop <= big * (1 - z))
        model.line.add(f - drop >= -big * (1 - z))
    if max_open is not None:
        model.few = pyo.Constraint(expr=sum(1 - model.z[line] for line in model.z) <= max_open)
    return model


def angle_spread(case: Case, grid: DCGrid, max_open: int | None = None) -> Float[np.ndarray, "l"]:
    """Bound of the angle across each branch when it is open, rad.

    A closed branch holds its ends within ``d``, the larger of ``|low / b + shift|`` and ``|high / b + shift|``; along
    a path of closed branches the ``d`` add up. Where open branches cut the grid into islands, these can be shifted, one
    against the other, until as many of the open branches as it takes to join them (in the order of their indices) have
    no angle across: count those as branches with ``d = 0``, and any two buses are joined. Two bounds follow, of which
    the smaller is taken:

    - A simple path between two buses of a block (a biconnected part) stays inside, so with m buses it is no longer than
      the m - 1 largest ``d`` of the block.
    - With few open branches, the longest of the shortest paths over all choices of them (:class:`_Detours`).

    Args:
        case: The grid.
        grid: Its DC model.
        max_open: Largest number of open branches; None for no limit.
    """
    d = np.max([np.abs(flow / grid.susceptance + grid.shift) for flow in (grid.low, grid.high)], axis=0)
    ends = list(zip(case.branches.start.tolist(), case.branches.end.tolist(), strict=True))
    bound = _block_spread(ends, d)
    if max_open is not None and 1 <= max_open <= DEEPEST:
        graph = _Detours(len(case.buses), ends, d)
        bound = np.array([min(bound[line], graph.longest(line, max_open)) for line in range(len(ends))])
    return bound


def _block_spread(ends: Ends, d: Float[np.ndarray, "l"]) -> Float[np.ndarray, "l"]:
    widest: dict[frozenset[int], float] = {}
    for pair, width in zip(map(frozenset, ends), d.tolist(), strict=True):
        widest[pair] = max(width, widest.get(pair, 0.0))
    total: dict[frozenset[int], float] = {}
    for block in nx.biconnected_component_edges(nx.Graph([tuple(pair) for pair in widest])):
        pairs = [frozenset(edge) for edge in block]
        buses = len(frozenset().union(*pairs))
        longest = sum(sorted((widest[pair] for pair in pairs), reverse=True)[: buses - 1])
        total |= dict.fromkeys(pairs, longest)
    return np.array([total[frozenset(pair)] for pair in ends])


class _Detours:
    """Longest of the shortest paths around open branches, by branching on which branch of a path is opened next.

    A set of open branches that touches none of a shortest path's leaves it as it is, so only sets that do are tried.
    More open branches never join more islands, so a branch that joins two of them goes on to do so.
    """

    def __init__(self, buses: int, ends: Ends, d: Float[np.ndarray, "l"]) -> None:
        self.ends, self.d = ends, d.tolist()
        self.around: list[list[tuple[int, int]]] = [[] for _ in range(buses)]
        for line, (i, j) in enumerate(ends):
            self.around[i].append((j, line))
            self.around[j].append((i, line))

    def longest(self, line: int, most: int) -> float:
        """Over all sets of at most ``most`` open branches with ``line`` among them, the angle across ``line``."""
        worst, sets = 0.0, {frozenset({line})}
        for size in range(1, most + 1):
            found = [(opened, *self._shortest(line, opened)) for opened in sets]
            worst = max([worst, *(length for _, length, _ in found)])
            if size < most:
                sets = {opened | {other} for opened, _, path in found for other in path}
        return worst

    def _shortest(self, line: int, opened: frozenset[int]) -> tuple[float, list[int]]:
        """Length of the shortest path between the ends of an open branch, and the closed branches on it."""
        found = self._search(*self.ends[line], opened, frozenset())
        if found is None:
            found = self._search(*self.ends[line], opened, self._joining(opened))
        assert found is not None  # noqa: S101 - joined islands are one
        return found

    def _search(
        self, start: int, end: int, opened: frozenset[int], joining: frozenset[int]
    ) -> tuple[float, list[int]] | None:
        reached: set[int] = set()
        queue: list[tuple[float, int, tuple[int, ...]]] = [(0.0, start, ())]
        while queue:
            length, bus, path = heapq.heappop(queue)
            if bus == end:
                return length, [line for line in path if line not in joining]
            if bus in reached:
                continue
            reached.add(bus)
            for other, line in self.around[bus]:
                if other not in reached and (line not in opened or line in joining):
                    step = 0.0 if line in joining else self.d[line]
                    heapq.heappush(queue, (length + step, other, (*path, line)))
        return None

    def _joining(self, opened: frozenset[int]) -> frozenset[int]:
        """The open branches that join the islands which the closed ones leave, the first ones first."""
        islands = nx.utils.UnionFind(range(len(self.around)))
        for line, (i, j) in enumerate(self.ends):
            if line not in opened:
                islands.union(i, j)
        chosen = []
        for line in sorted(opened):
            i, j = self.ends[line]
            if islands[i] != islands[j]:
                islands.union(i, j)
                chosen.append(line)
        return frozenset(chosen)
