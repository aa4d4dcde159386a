"""Logs: what a table says, and which of its rows make a transition."""

import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from steersman.dynamics.recorded.log import Log
from steersman.dynamics.recorded.tables import read_table, seconds

TEXT = "run,time,level,pump\na,0,1.0,0.5\na,10,2.0,0.25\na,20,4.0,1\nb,100,7.0,0\nb,110,8.0,0.5\n"


def log(path: Path, **more: object) -> Log:
    given = {"outputs": ("level",), "actions": {"pump": (0.0, 1.0)}, "time": "time", "episode": "run"}
    return Log(file=str(path), **(given | more))  # type: ignore[arg-type]


def table(tmp_path: Path, text: str, name: str = "log.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


# ------------------------------------------------------------------ tables


@pytest.mark.parametrize(
    "text", ["a,b\n1.5,x\n,y\n", "a;b\n1,5;x\n ;y\n", "a\tb\n1.5\tx\nNaN\ty\n", "\ufeffa,b\r\n1.5,x\r\n\r\nn/a,y\r\n"]
)
def test_csv_of_every_kind_is_the_same_table(tmp_path: Path, text: str) -> None:
    found = read_table(table(tmp_path, text))
    assert list(found) == ["a", "b"] and found["b"].tolist() == ["x", "y"]
    np.testing.assert_array_equal(found["a"], [1.5, np.nan])


def test_parquet_and_npz_hold_what_csv_holds(tmp_path: Path) -> None:
    times = ["2026-11-30T08:00:00+00:00", "2026-11-30T08:00:30+00:00"]
    pq.write_table(
        pa.table({"t": pa.array([0, 30_000], pa.timestamp("ms", "UTC")), "y": [1, None], "name": ["a", None]}),
        tmp_path / "x.parquet",
    )
    found = read_table(tmp_path / "x.parquet")
    assert found["name"].tolist() == ["a", ""] and np.diff(found["t"]).tolist() == [30.0]
    np.testing.assert_array_equal(found["y"], [1.0, np.nan])
    np.savez(tmp_path / "x.npz", y=np.arange(6).reshape(3, 2), t=np.arange(3), n=np.array(["a", "b", "c"]))
    arrays = read_table(tmp_path / "x.npz")
    assert arrays["y[1]"].tolist() == [1.0, 3.0, 5.0] and arrays["n"].tolist() == ["a", "b", "c"]
    assert np.diff(seconds(np.array(times, dtype=object), "t")).tolist() == [30.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n3,4\n", "begin with a line of column names"),
        ("a,a\n1,2\n", "a name of its own"),
        ("a,b\n1,2\n3\n", "row 2: 1 cells under 2 names"),
        ("", "is empty"),
        ("a,b\n", "no rows"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_table(table(tmp_path, text))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.csv, \.tsv, \.txt, \.parquet, \.npz"):
        read_table(tmp_path / "log.xlsx")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_table(tmp_path / "log.csv")
    (tmp_path / "bad.npz").write_bytes(b"no")
    (tmp_path / "bad.parquet").write_bytes(b"no")
    for name in ("bad.npz", "bad.parquet"):
        with pytest.raises(ValueError, match=name):
            read_table(tmp_path / name)
    np.savez(tmp_path / "cube.npz", y=np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="one or two dimensions"):
        read_table(tmp_path / "cube.npz")
    np.savez(tmp_path / "ragged.npz", y=np.zeros(2), u=np.zeros(3))
    with pytest.raises(ValueError, match="y has 2, u has 3"):
        read_table(tmp_path / "ragged.npz")


# ------------------------------------------------------------------ logs


def test_rows_become_episodes(tmp_path: Path) -> None:
    found = log(table(tmp_path, TEXT)).read()
    assert found.problem.period == 10.0 and found.problem.measured == ("level",) and not found.notes
    assert (found.problem.actions.lower, found.problem.actions.upper) == ((0.0,), (1.0,))
    data = found.data
    assert data.y[..., 0].tolist() == [[1.0, 2.0, 4.0], [7.0, 8.0, 8.0]]
    assert data.u[0, :, 0].tolist() == [0.5, 0.25] and data.u[1, 0, 0] == 0.0
    assert data.valid.tolist() == [[True, True], [True, False]] and torch.equal(data.y, data.z)


def test_interleaved_rows_of_two_episodes_are_told_apart(tmp_path: Path) -> None:
    lines = TEXT.splitlines()
    mixed = "\n".join([lines[0], lines[4], lines[1], lines[5], lines[2], lines[3]])
    found = log(table(tmp_path, mixed)).read().data
    assert found.y[:, 0, 0].tolist() == [7.0, 1.0] and found.steps == 3


def test_gaps_and_missing_values_make_no_transition(tmp_path: Path) -> None:
    rows = [(0, 1.0, 0.0), (10, 2.0, 0.0), (35, 3.0, 0.0), (45, "", 0.0), (55, 5.0, 0.0), (65, 6.0, ""), (75, 7.0, 0.0)]
    text = "time,level,pump\n" + "\n".join(",".join(map(str, row)) for row in rows)
    found = log(table(tmp_path, text), episode="").read()
    assert found.data.complete[0].tolist() == [True, False, False, False, True, False]
    assert torch.isfinite(found.data.y).all() and torch.isfinite(found.data.u).all()
    assert found.notes == (
        "4 of 6 steps are gaps in time or touch a missing value; nothing is learnt of it",
        "2 of 14 recorded values are missing",
    )


@given(jitter=st.lists(st.floats(0.6, 1.4), min_size=8, max_size=30), slope=st.floats(-3, 3))
@settings(max_examples=25, deadline=None, derandomize=True)
@example(jitter=[1.0, 1.125, 0.75, 0.796875, 0.734375, 0.7578125, 0.9609375, 0.8671875], slope=1.0)  # ends at 6.992
def test_a_ramp_is_resampled_exactly(
    jitter: list[float], slope: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    t = np.concatenate([[0.0], np.cumsum(jitter)])
    lines = [f"{time!r},{2 + slope * time!r},{float(k % 2)!r}" for k, time in enumerate(t.tolist())]
    path = table(tmp_path_factory.mktemp("ramp"), "time,level,pump\n" + "\n".join(lines))
    data = log(path, episode="", period=1.0, resample=True).read().data
    grid = torch.arange(data.y.shape[1], dtype=torch.float64)
    torch.testing.assert_close(data.y[0, :, 0], 2 + slope * grid, rtol=1e-9, atol=1e-9)
    held = [k % 2 for k in (np.searchsorted(t, grid[:-1].numpy() + 0.01, side="right") - 1).tolist()]
    assert data.u[0, :, 0].tolist() == held and bool(data.valid.all())


def test_nothing_is_interpolated_over_a_long_gap(tmp_path: Path) -> None:
    text = "time,level,pump\n" + "\n".join(f"{t},{t},0" for t in (0.0, 1.1, 2.0, 3.0, 7.0, 8.1, 9.0))
    data = log(table(tmp_path, text), episode="", period=1.0, resample=True).read().data
    assert data.complete[0].tolist() == [True] * 3 + [False] * 4 + [True] * 2
    assert data.y[0, [1, 2, 3, 7, 8, 9], 0].tolist() == pytest.approx([1, 2, 3, 7, 8, 9])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"outputs": ("levl",)}, r"no column 'levl' \(did you mean 'level'\?\)"),
        ({"outputs": ("run",)}, "column 'run' of .* must hold numbers, got 'a'"),
        ({"actions": {"pump": (0.0, 0.4)}}, r"action 'pump' is 0.5 in row 1, beyond its bounds \[0.0, 0.4\]"),
        ({"episode": ""}, "give the period, or resample|are irregular|times between rows"),
        ({"period": 3.0}, "only 0% of the times between rows are 3 s"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, more: dict[str, object], message: str) -> None:
    text = (
        TEXT if more != {"episode": ""} else "run,time,level,pump\na,0,1,0\na,1,1,0\na,11,1,0\na,12.5,1,0\na,30,1,0\n"
    )
    with pytest.raises(ValueError, match=message):
        log(table(tmp_path, text), **more).read()


def test_times_must_grow(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="row 3: times must grow"):
        log(table(tmp_path, TEXT.replace("a,20", "a,5"))).read()
    with pytest.raises(ValueError, match="row 2: 'noon' is no time"):
        log(table(tmp_path, "time,level,pump\n2026-01-01T00:00:00,1,0\nnoon,2,0\n"), episode="").read()
    with pytest.raises(ValueError, match="no two rows without gaps"):
        log(table(tmp_path, "time,level,pump\n0,1,0\n1,,0\n2,3,0\n"), episode="").read()


def test_settings_are_checked_when_they_are_stated() -> None:
    good = Log(file="x.csv", outputs=("y",), actions={"u": (0.0, 1.0)})
    for change, message in (
        ({"outputs": ()}, "at least one column of outputs"),
        ({"actions": {"y": (0.0, 1.0)}}, "'y' is named twice"),
        ({"integer": ("v",)}, "integer: 'v'"),
        ({"exogenous": ("u",)}, "exogenous: 'u'"),
        ({"resample": True}, "name their column in time"),
        ({"period": -1.0}, "period must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(good, **change)  # type: ignore[arg-type]


def test_times_without_a_zone_are_utc_whatever_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour is missing in Berlin on that day, and no log of a machine in UTC may break there."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        found = seconds(np.array(["2026-03-29T01:30:00", "2026-03-29T02:00:00", "2026-03-29T02:30"], dtype=object), "t")
        assert np.diff(found).tolist() == [1800.0, 1800.0] and found[0] == 1774747800.0
        with pytest.raises(ValueError, match=r"row 2: .* give all times a time zone, or none"):
            seconds(np.array(["2026-03-29T01:30:00", "2026-03-29T02:00:00+00:00"], dtype=object), "t")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_numbers_that_are_written_as_texts_are_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "log.npz", level=np.array(["1.5", "2", "2.5"]), pump=np.array([Decimal("0.5")] * 3, dtype=str))
    data = Log(file=str(tmp_path / "log.npz"), outputs=("level",), actions={"pump": (0.0, 1.0)}).read().data
    assert data.y[0, :, 0].tolist() == [1.5, 2.0, 2.5]
    table_of = pa.table({"level": [Decimal("1.5"), Decimal("2.0")], "pump": [0.0, 0.5]})
    pq.write_table(table_of, tmp_path / "log.parquet")
    assert read_table(tmp_path / "log.parquet")["level"].tolist() == [1.5, 2.0]


@pytest.mark.parametrize(("cells", "told"), [(["", "bad"], "bad"), (["1,5", "bad"], "bad"), (["1,5", "2,5"], "1,5")])
def test_the_text_that_is_no_number_is_named(tmp_path: Path, cells: list[str], told: str) -> None:
    text = "level\tpump\n" + "".join(f"{cell}\t0\n" for cell in cells)
    with pytest.raises(ValueError, match=f"must hold numbers, got '{told}'"):
        log(table(tmp_path, text), time="", episode="").read()


@pytest.mark.parametrize("name", ["empty.npz", "garbage.npz"])
def test_broken_npz_files_are_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"" if name == "empty.npz" else b"PK\x03\x04 nothing of the kind")
    with pytest.raises(ValueError, match="no npz file of plain arrays"):
        read_table(tmp_path / name)


def test_episodes_are_told_apart_by_what_is_written(tmp_path: Path) -> None:
    text = "run,time,level,pump\n01,0,1,0\n01,10,2,0\n1,0,3,0\n1,10,4,0\n"
    assert log(table(tmp_path, text)).read().data.y[:, :, 0].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    with pytest.raises(ValueError, match="row 2: column 'run' names no episode"):
        log(table(tmp_path, text.replace("01,10", ",10"))).read()


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        ("0,1,0\n,2,0\n20,3,0", {}, "row 2: column 'time' holds no time"),
        ("0,1,0", {}, "no episode has two rows"),
        ("20,1,0\n10,2,0\n0,3,0", {}, "row 2: times must grow"),
        ("0,,0\n10,,0", {}, "column 'level' of .* holds no number"),
        ("0,1,0\n10,2,1.0000001", {}, "is 1.0000001 in row 2"),
        ("0,1,0\n1,2,0\n1e9,2,0", {"resample": True, "period": 1.0}, "3 rows last 1e.09 periods of 1, with a gap of"),
    ],
)
def test_what_is_wrong_with_times_and_values_is_said(
    tmp_path: Path, rows: str, more: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        log(table(tmp_path, "time,level,pump\n" + rows), episode="", **more).read()


def test_a_header_over_two_lines_is_read(tmp_path: Path) -> None:
    found = read_table(table(tmp_path, '"t\n(s, since noon)";y\n0;1,5\n1;2,5\n'))
    assert list(found) == ["t\n(s, since noon)", "y"] and found["y"].tolist() == [1.5, 2.5]


def test_something_must_be_left_to_predict() -> None:
    with pytest.raises(ValueError, match="every output is exogenous"):
        Log(file="x.csv", outputs=("y",), actions={"u": (0.0, 1.0)}, exogenous=("y",))


def test_rows_may_stay_at_their_own_times(tmp_path: Path) -> None:
    text = "run,time,level,pump\na,0,1.0,0.5\na,4,2.0,0.25\na,14,,1\na,15,4.0,1\nb,100,7.0,0\nb,130,8.0,0.5\n"
    found = log(table(tmp_path, text), irregular=True, period=5.0).read()
    data = found.data
    assert data.t.tolist() == [[0, 4, 14, 15], [0, 30, 35, 40]] and data.valid.tolist()[0] == [True, True, True]
    assert data.seen[0, :, 0].tolist() == [True, True, False, True] and data.steps == 4 + 6
    assert data.complete.tolist() == [[True, False, False], [True, False, False]]
    with pytest.raises(ValueError, match="the period 100 is far from 7, the median time between rows"):
        log(tmp_path / "log.csv", irregular=True, period=100.0).read()
    gap = log(table(tmp_path, text.replace("15,4.0", "1500,4.0"), "gap.csv"), irregular=True, period=5.0).read().data
    assert gap.valid.tolist()[0] == [True, True, False]
    with pytest.raises(ValueError, match="resample makes times regular and irregular keeps them"):
        log(tmp_path / "log.csv", irregular=True, resample=True)
    with pytest.raises(ValueError, match="resample and irregular need the times"):
        log(tmp_path / "log.csv", irregular=True, time="")
