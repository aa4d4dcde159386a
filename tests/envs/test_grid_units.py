"""Machine data on a grid: the two areas from files equal those in code, and what cannot be simulated is named."""

from pathlib import Path

import pytest

from steersman.envs.grid.files import psse
from steersman.envs.grid.machines.regulators import Stabiliser
from steersman.envs.grid.machines.units import units
from steersman.envs.grid.tasks import kundur_full

DATA = Path(__file__).parent / "data"
IEEEST = "{bus} 'IEEEST' 1 1 0 0 0 0 0 0 0 0.05 0.02 3.0 5.4 10 10 20 0.1 -0.1 0 0 /\n"
STAB1 = "1 'STAB1' 1 20.0 10.0 2.5 0.02 0.6 5.0 0.1 /\n"


def test_two_areas_from_files() -> None:
    case = psse.read_raw(DATA / "kundur.raw")
    assert units(case, psse.read_dyr(DATA / "kundur_full.dyr")) == [kundur_full.unit(i) for i in range(4)]
    for unit, h in zip(units(case, psse.read_dyr(DATA / "kundur_gencls.dyr")), (13, 13, 12.35, 12.35), strict=True):
        assert (unit.machine.h, unit.machine.x1d, unit.exciter) == (h, 0.25, None)  # type: ignore[attr-defined]


def test_order_of_records_does_not_matter() -> None:
    case, records = psse.read_raw(DATA / "kundur.raw"), psse.read_dyr(DATA / "kundur_full.dyr")
    assert units(case, records[::-1]) == units(case, records)


def test_stabilisers(tmp_path: Path) -> None:
    case, text = psse.read_raw(DATA / "kundur.raw"), (DATA / "kundur_full.dyr").read_text()
    path = tmp_path / "stabilised.dyr"
    path.write_text(text + STAB1 + IEEEST.format(bus=2))
    first, second, third, _ = units(case, psse.read_dyr(path))
    assert first.stabiliser == Stabiliser(k=20.0, tw=10.0, t1=0.05, t2=0.02, t3=3.0, t4=5.0, vmax=0.1)
    assert second.stabiliser == Stabiliser(k=20.0, tw=10.0, t1=0.05, t2=0.02, t3=3.0, t4=5.4, vmax=0.1)
    assert third.stabiliser is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9 'GENCLS' 1 3 0 /\n", r"line 17: GENCLS of machine 1 at bus 9, which is no generator in service"),
        (
            "1 'GENROU' 1 8 .03 .4 .05 6 0 1.8 1.7 .3 .55 .25 .06 0 0 /\n",
            r"line 17: machine 1 at bus 1 has a machine already",
        ),
        ("1 'SEXS' 1 1 1 100 0.1 -5 5 /\n", r"line 17: SEXS at bus 1 is read but not simulated"),
        (IEEEST.format(bus=1).replace("1 1 0", "1 3 0"), r"line 17: IEEEST at bus 1 needs the machine's own speed"),
        (IEEEST.format(bus=1).replace("-0.1", "-0.2"), r"line 17: IEEEST at bus 1 needs equal limits"),
    ],
)
def test_what_is_not_modelled_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "more.dyr"
    path.write_text("\n".join((DATA / "kundur_gencls.dyr").read_text().splitlines()) + "\n" + "\n" * 12 + text)
    with pytest.raises(ValueError, match=message):
        units(psse.read_raw(DATA / "kundur.raw"), psse.read_dyr(path))


def test_missing_machine_data_names_the_bus(tmp_path: Path) -> None:
    records = psse.read_dyr(DATA / "kundur_full.dyr")
    with pytest.raises(ValueError, match="machine 1 at bus 3 has no machine data; add a GENCLS or GENROU record"):
        units(psse.read_raw(DATA / "kundur.raw"), [r for r in records if r.bus != 3])


def test_lead_lag_of_the_exciter_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lead.dyr"
    path.write_text((DATA / "kundur_full.dyr").read_text().replace("0.02 1.0 1.0 5.2", "0.02 1.0 2.0 5.2", 1))
    with pytest.raises(ValueError, match=r"lead.dyr line 3: EXDC2 at bus 1 needs equal TB and TC"):
        units(psse.read_raw(DATA / "kundur.raw"), psse.read_dyr(path))
