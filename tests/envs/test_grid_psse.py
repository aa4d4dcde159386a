"""PSS/E files: every version's layout, units of transformers, and what is refused with its line."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from steersman.envs.grid.dispatch.dc import dc_grid
from steersman.envs.grid.files import psse
from steersman.envs.grid.files.psse_dyr import MODELS, Exdc2, Gencls, Genrou, Ieeest, Tgov1, parameters
from steersman.envs.grid.network.case import Case
from steersman.envs.grid.tasks import kundur

DATA = Path(__file__).parent / "data"
HEADER = "0, 100, {version}, 0, 1, 50 / comment\nfirst title\nsecond title\n"
BUSES = {
    30: "1, 'A', 20, 3, 0, 0, 1, 1, 1.02, 10, 1\n2, 'B, C', 110, 1, 5, -20, 1, 1, 1.0, 0, 1\n3, 'D', 110, 4\n",
    33: "1, 'A', 20, 3, 1, 1, 1, 1.02, 10, 1.1, 0.9\n2, 'B, C', 110, 1, 1, 1, 1, 1.0, 0\n3, 'D', 110, 4\n",
}
LOADS = "2, '1', 1, 1, 1, 50, 20, 10, 5, 4, -3, 1\n2, '2', 0, 1, 1, 500, 20\n3, 1, 1, 1, 1, 7, 7\n"
SHUNTS = "2, '1', 1, 5, -20\n"
GENERATORS = "1, '1', 70, 3, 60, -60, 1.02, 0, 80, 0.01, 0.2, 0, 0, 1, 1, 100, 75, 5, 1, 1\n1, '2', 9, 3, 60, -60, 1, 0, 80, 0, 1, 0, 0, 1, 0\n"
LINES = {
    30: "1, -2, '1', 0.01, 0.1, 0.02, 150, 0, 0, 0.001, 0.002, 0.003, 0.004, 1\n1, 2, '2', 0.01, 0.1,, 0, 0, 0, 0, 0, 0, 0, 0\n1, 3, '1', 0.01, 0.1\n",
    34: "1, -2, '1', 0.01, 0.1, 0.02, 'NAME', 150, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.001, 0.002, 0.003, 0.004, 1\n"
    "1, 2, '2', 0.01, 0.1,, 'X', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0\n1, 3, '1', 0.01, 0.1\n",
}
TRANSFORMER = (
    "1, 2, 0, 'T1', 2, 2, 2, 20000, 0.0005, 2, 'T', 1\n0.002, 0.08, 50\n21, 20, 30, 60, 0, 0\n104.5, 110\n"
    "1, 2, 3, '9', 1, 1, 1, 0, 0, 2, 'OFF', 0\n0, 0.1, 100\n1\n1\n1\n"
)
SWITCHED = {30: "2, 1, 1.1, 0.9, 0, 100, '', 30\n", 33: "2, 1, 0, 1, 1.1, 0.9, 0, 100, '', 30\n"}


def raw(version: int, **changes: str) -> str:
    """A grid of two buses in the layout of a version, with sections replaced."""
    old, new = version == 30, version == 34
    text = {
        "bus": BUSES[30 if old else 33], "load": LOADS, "fixed shunt": SHUNTS, "generator": GENERATORS,
        "line": LINES[34 if new else 30], "transformer": TRANSFORMER, "switched": SWITCHED[30 if old else 33],
    } | changes  # fmt: skip
    names = ["bus", "load", *([] if old else ["fixed shunt"]), "generator", "line", *(["switch"] if new else [])]
    names += ["transformer", "area", "two-terminal", "vsc"]
    middle = ["correction", "multi-terminal", "section", "zone", "transfer", "owner", "facts"]
    names += ["switched", *middle] if old else [*middle, "switched", "gne", "motor"]
    head = HEADER.format(version=version) + ("GENERAL, THRSHZ=0.0001\n0 / END\n" if new else "")
    return head + "".join(text.get(name, "") + f"0 / END OF {name}\n" for name in names) + "Q\n"


def read(folder: Path, text: str) -> Case:
    path = folder / "small.raw"
    path.write_text(text)
    return psse.read_raw(path)


@pytest.mark.parametrize("version", [30, 31, 32, 33, 34])
def test_every_version_gives_the_same_grid(tmp_path: Path, version: int) -> None:
    case = read(tmp_path, raw(version))
    assert (case.name, case.base_mva, case.frequency) == ("small", 100.0, 50.0)
    assert case.buses.id.tolist() == [1, 2] and case.buses.kind.tolist() == [3, 1]
    assert case.buses.v_mag[0] == 1.02 and case.buses.v_ang[0] == pytest.approx(np.deg2rad(10))
    assert case.buses.base_kv.tolist() == [20, 110]
    np.testing.assert_allclose(case.buses.load, [0, 0.6 + 0.25j])
    iron = 0.0002 - 0.00015j
    np.testing.assert_allclose(case.buses.shunt, [0.001 + 0.002j + iron, 0.093 - 0.23j + 0.3j + 0.004j])
    machines = case.generators
    assert machines.p.tolist() == [0.7] and machines.p_max.tolist() == [0.75] and machines.q_min.tolist() == [-0.6]
    assert (
        machines.z_source.tolist() == [0.01 + 0.2j] and machines.mva.tolist() == [80.0] and machines.machine == ("1",)
    )
    assert np.isnan(machines.cost).all()


def test_transformer_in_kv_and_on_its_own_base(tmp_path: Path) -> None:
    """Ratios 21/20 and 104.5/110; ``z = (0.002 + 0.08j) * 100/50`` seen from bus 2 through its own ratio."""
    lines = read(tmp_path, raw(33)).branches
    assert lines.circuit == ("1", "T1") and lines.rate.tolist() == [1.5, 0.6]
    assert lines.tap[1] == pytest.approx(1.05 / 0.95) and lines.shift[1] == pytest.approx(np.pi / 6)
    assert lines.x[1] == pytest.approx(0.16 * 0.95**2) and lines.r[1] == pytest.approx(0.004 * 0.95**2)
    assert lines.b.tolist() == [0.02, 0.0]
    assert dc_grid(read(tmp_path, raw(33))).shift.tolist() == lines.shift.tolist()
    nominal = TRANSFORMER.replace("2, 2, 2, 20000, 0.0005", "3, 3, 1, 0.01, -0.02").replace(
        "0.002, 0.08", "90000, 0.08"
    )
    nominal = nominal.replace("21, 20, 30", "1.05, 22, 0").replace("104.5, 110", "0.95, 0")
    case = read(tmp_path, raw(33, transformer=nominal))
    assert case.branches.tap[1] == pytest.approx(1.05 * 22 / 20 / 0.95)
    assert case.branches.r[1] == pytest.approx(0.0018 * 2 * 0.95**2)
    assert abs(case.branches.r[1] + 1j * case.branches.x[1]) == pytest.approx(0.16 * 0.95**2)
    assert case.buses.shunt[0] == pytest.approx(0.011 - 0.018j)


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    notes = read(tmp_path, raw(33)).notes
    assert notes == (
        "bus 3 is isolated and left out",
        "generator 1 2 is out of service and left out",
        "branch 1-2 2 is out of service and left out",
        "branch 1-3 1 is out of service and left out",
        "transformer 1-2 9 is out of service and left out",
        "load 2 2 is out of service and left out",
        "load 3 1 is out of service and left out",
        "load of constant current at bus 2 counts with its power at 1 pu",
        "the switched shunt at bus 2 keeps its initial value",
    )
    held = read(tmp_path, raw(33, transformer=TRANSFORMER.replace("60, 0, 0", "60, 0, 0, 3, 0, 30, -30")))
    assert held.notes[-1] == "transformer 1-2 T1 keeps its ratio and phase shift"
    assert read(tmp_path, raw(33, switched="2, 0, 0, 1, 1.1, 0.9, 0, 100, '', 30\n")).notes == notes[:-1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0, 100, 33", "0, 100, 35", "small.raw line 1: version must be 30 to 34, got 35"),
        ("0, 100, 33", "0, 0, 33", "small.raw line 1: the base power SBASE must be positive"),
        ("2, '1', 1, 1, 1, 50", "2, '1', 1, 1, 1, fifty", "line 8: field PL must be a number, got 'fifty'"),
        ("2, '1', 1, 1, 1, 50", "2, '1', 1, 1, 1, nan", "line 8: field PL must be a number, got 'nan'"),
        ("2, '1', 1, 1, 1, 50", "7, '1', 1, 1, 1, 50", "line 8: load at bus 7, but there is no such bus"),
        ("2, '2', 0", "2, '1', 1", "line 9: ID 1 is given twice, first at small.raw line 8"),
        ("110, 1, 1, 1, 1", "110, 7, 1, 1, 1", "line 5: bus 2 must be of kind 1, 2 or 3, got 7"),
        ("2, 'B, C'", "1, 'B, C'", r"line 5: bus numbers must differ, got \[1\]"),
        ("2, 'B, C'", "2, 'B, C", "line 5: a quote has no end"),
        ("2, '1', 1, 5, -20", "5, '1', 1, 5, -20", "line 12: shunt at bus 5, but there is no such bus"),
        ("1, '1', 70", "4, '1', 70", "line 14: generator at bus 4, but there is no such bus"),
        ("1.02, 0, 80", "1.02, 2, 80", "line 14: the machine at bus 1 regulates bus 2, which is not modelled"),
        ("0, 1, 0, 0, 1, 0", "0, 1, 0, 0, 1, 1", "line 15: generators 1 and 2 at bus 1 hold the voltages 1.02 and 1.0"),
        ("0, 0, 1, 1, 100", "0, 0, 1, 0, 100", "line 4: slack bus 1 has no generator in service"),
        ("0.01, 0.1, 0.02", "0.01, 0, 0.02", "line 17: branch 1-2 circuit 1 has no reactance"),
        ("1, -2, '1'", "1, -7, '1'", "line 17: branch at bus 7, but there is no such bus"),
        ("60, 0, 0", "60, 0, 0, 0, 0, 0, 0, 0, 0, 33, 2", "line 21: transformer 1-2 T1 has a table of impedance"),
        ("0.01, 0.1, 0.02", "0.01, , 0.02", "line 17: field X must be a number, got ''"),
        ("1, 2, 3, '9', 1, 1, 1, 0, 0, 2, 'OFF', 0", "1, 2, 3, '9', 1, 1, 1, 0, 0, 2, 'OFF', 1", "has three windings"),
        (
            "0 / END OF two-terminal",
            "'DC', 1\n0 / END OF two-terminal",
            "line 32: two-terminal dc data is not modelled",
        ),
        ("0, 0, 1, 1, 100", "0, 0.1, 1, 1, 100", "line 14: a generator with a transformer of its own"),
        ("0, 0, 1, 1, 100", "0.1, 0, 1, 1, 100", "line 14: a generator with a transformer of its own"),
        ("20, 3, 1", "20, 1, 1", "line 14: the machine at bus 1 runs at a bus of type 1, which has no machines"),
        ("20, 3, 1", "20, 2, 1", r"line 4: a case needs exactly one slack bus \(kind 3\), got \[\]"),
        ("'A', 20", "'A', 0", r"windings in kV \(CW = 2\) need the nominal voltages"),
    ],
)
def test_bad_files_name_the_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = raw(33)
    assert old in text
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, text.replace(old, new, 1))
    assert str(caught.value).startswith("small.raw line ")


def test_distributed_generation_of_loads_is_refused(tmp_path: Path) -> None:
    with_it = LOADS.replace("4, -3, 1", "4, -3, 1, 1, 0, 20, 5, {on}", 1)
    assert read(tmp_path, raw(34, load=with_it.format(on=0))).buses.load[1] == pytest.approx(0.6 + 0.25j)
    with pytest.raises(ValueError, match=r"small.raw line 10: distributed generation of a load is not modelled"):
        read(tmp_path, raw(34, load=with_it.format(on=1)))


def test_machines_without_reactive_room_make_a_bus_pq(tmp_path: Path) -> None:
    buses = BUSES[33].replace("'B, C', 110, 1", "'B, C', 110, 2")
    machine = "2, '1', 30, 3, {top}, 9, 1.05, 2, 80, 0, 0.2, 0, 0, 1, 1, 100, 75, 5, 1, 1\n"
    case = read(tmp_path, raw(33, bus=buses, generator=GENERATORS + machine.format(top=9)))
    assert case.buses.kind.tolist() == [3, 1] and case.generators.q[1] == 0.09
    assert case.notes[-1] == "the machines at bus 2 have QT = QB, and the bus is made PQ"
    case = read(tmp_path, raw(33, bus=buses, generator=GENERATORS + machine.format(top=10)))
    assert case.buses.kind.tolist() == [3, 2] and case.generators.q[1] == 0.03


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("'B, C'", '"B/ C, O\'NEIL"'), ("'B, C'", "'B'' C'"), ("'B, C', 110", "BUS C, 110"), ("0.01, 0.1", "1.0D-2 , .1"),
        ("1, -2, '1', 0.01, 0.1, 0.02, 150", "1 -2 '1' 0.01 0.1 0.02, 150"), ("'A', 20, 3, 1, 1", "'A' 20 3 1 1"),
        ("50, 20, 10, 5", "50 20 10 5"), ("1, 1, 1.02", "1,, 1.02"), ("\n0 / END OF load", "\n 0\t/ END, OF load"),
        ("0 / END OF owner", "1, 'O'BRIEN'\n0 / END OF owner"), ("\nQ\n", "\nQ\n9, 9, 9\n"),
        ("0 / END OF bus", "\n/ note\n@! note\n0 / END OF bus"), ("1, 1.02, 10, 1.1", "1, 1.02, 10, / 1.1"),
    ],
)  # fmt: skip
def test_spellings_of_a_record_read_equal(tmp_path: Path, old: str, new: str) -> None:
    text = raw(33)
    assert old in text
    plain, other = read(tmp_path, text), read(tmp_path, text.replace(old, new, 1))
    assert other.notes == plain.notes
    for part in ("buses", "branches", "generators"):
        for field in fields(getattr(plain, part)):
            ours, theirs = (getattr(getattr(case, part), field.name) for case in (plain, other))
            if field.name != "where":
                np.testing.assert_array_equal(ours, theirs)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such PSS/E raw file"):
        psse.read_raw(tmp_path / "none.raw")
    with pytest.raises(ValueError, match="no such PSS/E machine data file"):
        psse.read_dyr(tmp_path / "none.dyr")
    with pytest.raises(ValueError, match="header of three lines, got 1 lines"):
        read(tmp_path, "0, 100, 33\n")


def test_two_areas() -> None:
    case = psse.read_raw(DATA / "kundur.raw")
    found = {(case.label(k), case.branches.r[k], case.branches.x[k], case.branches.b[k]) for k in range(15)}
    count: dict[tuple[int, int], int] = {}
    for start, end, r, x, b in kundur.BRANCHES:
        count[start, end] = count.get((start, end), 0) + 1
        assert (f"{start}-{end} circuit {count[start, end]}", r, x, b) in found
    assert {int(case.buses.id[k]): case.buses.load[k] for k in (6, 7)} == pytest.approx(kundur.LOADS)
    assert case.generators.p[1:].tolist() == [7.0] * 3 and (case.generators.z_source * 100 / 900)[0] == pytest.approx(
        1j * kundur.TRANSIENT_REACTANCE
    )


def test_machines_of_the_two_areas() -> None:
    classical = psse.read_dyr(DATA / "kundur_gencls.dyr")
    assert [r.h * 9 for r in classical if isinstance(r, Gencls)] == list(kundur.INERTIA)
    full = psse.read_dyr(DATA / "kundur_full.dyr")
    assert [r.model for r in full] == ["GENROU", "EXDC2", "TGOV1"] * 4 and [r.bus for r in full][::3] == [1, 2, 3, 4]
    machine, exciter, governor = full[9:]
    assert isinstance(machine, Genrou) and isinstance(exciter, Exdc2) and isinstance(governor, Tgov1)
    assert (machine.tpdo, machine.h, machine.xppd, machine.xl, machine.where) == (
        8.0,
        6.175,
        0.25,
        0.06,
        "kundur_full.dyr line 16",
    )
    assert (exciter.ka, exciter.vrmin, exciter.kf, exciter.tf1) == (20.0, -4.16, 0.0754, 1.246)
    assert (governor.vmax, governor.vmin, governor.t3) == (33.0, 0.4, 7.0)


def test_every_model_in_the_order_of_its_parameters(tmp_path: Path) -> None:
    path = tmp_path / "all.dyr"
    rows = []
    for name, kind in MODELS.items():
        values = " ".join(str(float(k + 1)) for k in range(len(parameters(kind))))
        rows.append(f"{' ' * 4}7, '{name} ', '2 ', {values} / comment 'X' 1 /\n\n")
    path.write_text("".join(rows))
    for record, kind in zip(psse.read_dyr(path), MODELS.values(), strict=True):
        assert type(record) is kind and (record.bus, record.machine) == (7, "2")
        assert [getattr(record, name) for name in parameters(kind)] == [
            float(k + 1) for k in range(len(parameters(kind)))
        ]
    assert parameters(Ieeest)[:3] == ("ics", "ib", "a1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "1 'GENCLS' 1 3.0 0.0 /\n2 'GENSAL' 1\n 5.0 /",
            "bad.dyr line 2: model 'GENSAL' at bus 2 is not supported; .*GENROU",
        ),
        ("1 'GENCLS' 1 3.0 /", "line 1: GENCLS at bus 1 has 2 parameters, got 1"),
        ("1 'GENCLS' 1 three 0 /", "line 1: GENCLS at bus 1 holds what is no number"),
        ("one 'GENCLS' 1 3 0 /", "line 1: GENCLS at bus one holds what is no number"),
        ("1 'GENCLS' 1 0.0 0.0 /", "line 1: GENCLS at bus 1 needs a positive h, got 0.0"),
        ("1 'GENCLS' 1 3.0 nan /", "line 1: GENCLS at bus 1 needs a finite d, got nan"),
        ("1 'GENCLS' 1 3.0 0.0", "line 1: the record has no end"),
        ("1 'GENCLS' /", "line 1: a record needs a bus, a model and a machine"),
        ("1 'GENCLS' 1 3 0 /\n1 'GENCLS' 1 3 0 /", "line 2: machine 1 at bus 1 has two GENCLSs"),
    ],
)
def test_bad_machine_data_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.dyr"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        psse.read_dyr(path)
