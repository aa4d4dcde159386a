"""Grids from files: what is read, what is refused, and by which name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from steersman.envs.grid import matpower
from steersman.envs.grid.case import SLACK, Case

SMALL = """function mpc = small
mpc.version = '2';
mpc.baseMVA = 50;
mpc.bus = [
    10 3 0 0 0 0 1 1.02 5 110 1 1.1 0.9;
    20 2 0 0 0 0 1 1 0 110 1 1.1 0.9;
    30 1 25 10 5 -20 1 1 0 110 1 1.1 0.9;
    40 3 0 0 0 0 1 1 0 110 1 1.1 0.9;
    50 4 0 0 0 0 1 1 0 110 1 1.1 0.9;
];
mpc.gen = [
    10 20 1 15 -15 1.02 0 1 40 5;
    20 10 0 15 -15 1.0 80 0 40 0;
    40 10 0 15 -15 1.0 80 1 40 0;
];
mpc.gencost = [
    2 0 0 3 0.5 10 3;
    2 0 0 3 0.0 20 0;
    2 0 0 3 0.0 20 0;
];
mpc.branch = [
    10 20 0.01 0.1 0.02 100 0 0 0    0 1 -360 360;
    20 30 0.01 0.1 0.02 0   0 0 0.95 30 1 -30 60;
    10 30 0.01 0.2 0.02 100 0 0 0    0 0 0 0;
    30 10 0.01 0.2 0.02 100 0 0 0    0 1 0 0;
    30 40 0.01 0.2 0.02 100 0 0 0    0 1 0 0;
    30 50 0.01 0.2 0.02 100 0 0 0    0 1 0 0;
];
"""


def small(folder: Path, old: str = "", new: str = "") -> Case:
    assert old in SMALL
    path = folder / "small.m"
    path.write_text(SMALL.replace(old, new, 1) if old else SMALL)
    return matpower.read(path, frequency=50.0)


def test_every_column_in_per_unit(tmp_path: Path) -> None:
    case = small(tmp_path)
    assert (case.name, case.base_mva, case.frequency) == ("small", 50.0, 50.0)
    assert case.buses.id.tolist() == [10, 20, 30, 40] and case.buses.kind.tolist() == [SLACK, 1, 1, 2]
    assert case.buses.load.tolist() == [0, 0, 0.5 + 0.2j, 0] and case.buses.shunt[2] == 0.1 - 0.4j
    assert case.buses.v_mag[0] == 1.02 and case.buses.v_ang[0] == pytest.approx(np.pi / 36)
    lines = case.branches
    assert lines.start.tolist() == [0, 1, 2, 2] and lines.end.tolist() == [1, 2, 0, 3]
    assert lines.rate.tolist() == [2.0, np.inf, 2.0, 2.0] and lines.tap.tolist() == [1.0, 0.95, 1.0, 1.0]
    assert lines.shift[1] == pytest.approx(np.pi / 6) and lines.angle_max[1] == pytest.approx(np.pi / 3)
    assert np.isinf(lines.angle_min[[0, 2]]).all() and lines.angle_min[1] == pytest.approx(-np.pi / 6)
    machines = case.generators
    assert machines.bus.tolist() == [0, 3] and machines.mva.tolist() == [50.0, 80.0]
    assert machines.p.tolist() == [0.4, 0.2] and machines.p_min[0] == 0.1 and machines.q_max[0] == 0.3
    assert machines.cost.tolist() == [[0.5, 10.0, 3.0], [0.0, 20.0, 0.0]]


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    case = small(tmp_path)
    assert case.label(2) == "30-10 circuit 2"
    assert case.notes == (
        "bus 50 is isolated and left out",
        "branch 10-30 circuit 1 is out of service and left out",
        "branch 30-50 circuit 1 is out of service and left out",
        "generator 1 at bus 20 is out of service and left out",
        "bus 40 is a further slack bus and made PV",
        "bus 20 has no generator in service and is made PQ",
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("20 30 0.01 0.1", "20 30 0.01 0", "branch 20-30 circuit 1 has no reactance"),
        ("30 40 0.01 0.2 0.02 100 0 0 0    0 1", "30 40 0.01 0.2 0.02 100 0 0 0    0 0", "buses 40 are cut off"),
        ("40 3 0 0", "30 3 0 0", r"bus numbers must differ, got \[30\]"),
        ("40 10 0 15", "41 10 0 15", "generator at bus 41, but there is no such bus"),
        ("30 40 0.01", "30 44 0.01", "branch at bus 44, but there is no such bus"),
        ("30 40 0.01", "30 30 0.01", "branch 30-30 circuit 1 starts and ends at one bus"),
        ("mpc.gen =", "mpc.other =", "small.m is not a MATPOWER case .* it needs mpc.bus, gen and branch"),
        ("mpc.baseMVA = 50", "mpc.baseMVA = 0", "small.m has the base power mpc.baseMVA = 0"),
    ],
)
def test_bad_files_name_the_element(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(tmp_path, old, new)


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be a MATPOWER case file"):
        matpower.read(tmp_path / "none.m")
    with pytest.raises(ValueError, match=r"no typical case 'case39'; it has .*case39_epri"):
        matpower.pglib("case39")
    with pytest.raises(ValueError, match="variant must be"):
        matpower.pglib("case39_epri", "heavy")
    case = small(tmp_path)
    with pytest.raises(ValueError, match="factor must be"):
        case.with_load(-1.0)
    with pytest.raises(ValueError, match=r"branch must be 0\.\.3, got 4"):
        case.without_branch(4)
    with pytest.raises(ValueError, match="exactly one slack bus"):
        replace(case, buses=replace(case.buses, kind=np.ones(4, dtype=np.int64)))
    with pytest.raises(ValueError, match=r"branches.r must not be NaN, got it at \[0"):
        replace(case, branches=replace(case.branches, r=np.full(4, np.nan)))


def test_changed_cases(tmp_path: Path) -> None:
    case = small(tmp_path)
    more = case.with_load(1.5)
    assert more.buses.load[2] == 1.5 * case.buses.load[2] and more.generators.p[0] == 1.5 * case.generators.p[0]
    assert case.buses.load[2] == 0.5 + 0.2j
    less = case.without_branch(2)
    assert [less.label(i) for i in range(3)] == ["10-20 circuit 1", "20-30 circuit 1", "30-40 circuit 1"]
    assert less.notes[-1] == "30-10 circuit 2 taken out"
    with pytest.raises(ValueError, match="buses 40 are cut off from slack bus 10"):
        case.without_branch(3)


def test_only_quadratic_costs_are_kept(tmp_path: Path) -> None:
    case = small(
        tmp_path,
        "2 0 0 3 0.5 10 3;\n    2 0 0 3 0.0 20 0;\n    2 0 0 3",
        "2 0 0 4 0.5 10 3 1;\n    2 0 0 4 0.0 0.0 20 0;\n    2 0 0 4 0",
    )
    assert np.isnan(case.generators.cost[0]).all() and case.generators.cost[1, 1] == 20


@pytest.mark.parametrize(
    ("name", "size"), [("case5_pjm", (5, 6, 5)), ("case39_epri", (39, 46, 10)), ("case118_ieee", (118, 186, 54))]
)
def test_pglib(name: str, size: tuple[int, int, int]) -> None:
    for variant in ("typical", "api", "sad"):
        case = matpower.pglib(name, variant)
        assert (len(case.buses), len(case.branches), len(case.generators)) == size
        assert case.generators.p_max.sum() > case.buses.load.real.sum()
