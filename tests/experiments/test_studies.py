"""Studies as data: what is finished is not run again, what is published is kept, and the page says what is older."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from steersman.experiments.comparison import cells
from steersman.experiments.comparison.cell import Cell, Report
from steersman.experiments.comparison.executor import InProcess
from steersman.experiments.studies.registry import STUDIES, run_study
from steersman.experiments.studies.running import published, run_cells
from steersman.experiments.studies.study import Bar, Claim, Results, Study, Table
from steersman.experiments.studies.writing import RESULTS, page

SINCE = ", which has changed since"
FRAMED = [spec.name for spec in STUDIES if spec.target.endswith(":STUDY")]
RUNS: list[int] = []


def framed(name: str) -> Study:
    found = next(spec.found for spec in STUDIES if spec.name == name)
    assert isinstance(found, Study)
    return found


@dataclass(frozen=True)
class Square:
    number: int
    value: float


@dataclass(frozen=True)
class Squaring(Cell):
    row: ClassVar[type] = Square
    title: ClassVar[str] = "square of {number}"
    number: int

    def run(self, report: Report) -> list[Square]:
        report(0.5, "squaring")
        if self.number < 0:
            raise ValueError("below zero")
        RUNS.append(self.number)
        return [Square(self.number, float(self.number**2))]


def picture(results: Results) -> Figure:
    figure, axes = plt.subplots()
    axes.plot([row.value for row in results.of(Square)])
    return figure


def claims(results: Results) -> list[Claim]:
    total = sum(row.value for row in results.of(Square))
    return [Claim(f"They sum to {total:g}", (total,), Bar((5.0,), "units"), "Euclid")]


def study(*numbers: int, further: Sequence[int] = ()) -> Study:
    return Study(
        "squares", lambda results: ["About."], lambda: [Squaring(n) for n in numbers], lambda: Squaring(1), claims,
        lambda results: [Table(["n"], [[str(row.number)] for row in results.of(Square)], "All", remarks=["None."])],
        picture, further=lambda: [Squaring(n) for n in further],
    )  # fmt: skip


def run(made: Study, tmp_path: Path, *names: str) -> str:
    RUNS.clear()
    folder = run_cells(
        made, Console(quiet=True), tmp_path / "out", names=names, executor=InProcess(), results=tmp_path / "page"
    )
    return (folder / "squares.md").read_text()


def test_finished_cells_are_not_run_again(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="1 of 3 cells failed, first square of -1: ValueError: below zero"):
        run(study(1, 2, -1), tmp_path)
    assert RUNS == [1, 2]
    text = run(study(1, 2, 3, further=[4]), tmp_path)
    assert RUNS == [3]
    assert "- They sum to 14 (asked for at least 5 units: the bar holds; Euclid)." in text
    assert "## All\n\n| n |\n|---|\n| 1 |\n| 2 |\n| 3 |\n\n- None." in text and "Not run" not in text
    assert (tmp_path / "page" / "squares.png").stat().st_size > 1000
    assert "sum to 30" in run(study(1, 2, 3, further=[4]), tmp_path, "*of 4") and RUNS == [4]
    with pytest.raises(ValueError, match="no cell of squares is named 'cube'; it has square of 1; square of 2"):
        run(study(1, 2), tmp_path, "cube")
    whole = json.loads((tmp_path / "page" / "squares.json").read_text())
    assert whole["claims"][0]["measured"] == [30.0] and whole["claims"][0]["holds"]
    assert [cell["settings"] for cell in whole["made"][0]["cells"]] == [{"number": n} for n in (1, 2, 3, 4)]


def test_published_cells_outlive_the_store_and_older_ones_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(study(1, 2), tmp_path)
    (tmp_path / "out").rename(tmp_path / "gone")
    assert "which has changed since" not in run(study(1, 2), tmp_path) and RUNS == []
    monkeypatch.setattr(cells, "code_digest", lambda roots: "newer")
    text = run(study(1, 2, 3), tmp_path, "square of 2")
    assert RUNS == [2] and "Not run: square of 3." in text
    older, fresh = (line for line in text.splitlines() if line.startswith("- 1 cell, "))
    assert older.endswith(", which has changed since") and fresh.endswith("code newer")
    assert [done.rows[0].value for done in published(study(1, 2), tmp_path / "page").values()] == [1.0, 4.0]


def test_another_setting_is_another_cell(tmp_path: Path) -> None:
    run(study(1, 2), tmp_path)
    found = published(replace(study(2, 3), name="squares"), tmp_path / "page")
    assert list(found) == ["square of 2"]
    keys = {s.key for name in ("squares", "others") for s in cells.CellSpec.of(name, [Squaring(1), Squaring(2)])}
    assert len(keys) == 4


def test_a_claim_holds_if_all_its_figures_do() -> None:
    assert Claim("x", (2.0, 3.0), Bar((2.0, 2.9))).holds and not Claim("x", (2.0, 2.8), Bar((2.0, 2.9))).holds
    most = Claim("It errs by 1", (1.0,), Bar((0.5,), "%", most=True))
    assert str(most) == "It errs by 1 (asked for at most 0.5 %: the bar does not hold)."
    assert Claim("x").holds is None and str(Claim("x", source="y")) == "x (y)."


def test_comparisons_have_no_cells() -> None:
    with pytest.raises(ValueError, match=r"agents is a comparison, .* leave --cells and --page out"):
        run_study("agents", None, Console(quiet=True), page=True)


@pytest.mark.parametrize("name", FRAMED)
def test_committed_pages_follow_from_their_rows(name: str) -> None:
    """Up to whether code has changed since a page was written: ``steersman study NAME --page`` says that anew."""
    found = framed(name)
    results = Results(published(found).values())
    assert len({cell.name for cell in found.every()}) == len(found.every())
    assert found.cheap().name in {done.cell.name for done in results}
    written, now = (RESULTS / name / f"{name}.md").read_text(), page(found, results)
    assert written.replace(SINCE, "") == now.replace(SINCE, "")


@pytest.mark.slow
@pytest.mark.parametrize("name", FRAMED)
def test_a_cheap_cell_comes_out_as_published(name: str) -> None:
    found = framed(name)
    cell = found.cheap()
    try:
        rows = [asdict(row) for row in cell.run(lambda fraction, text: None)]
    except ModuleNotFoundError as error:  # an extra
        pytest.skip(str(error))
    known = [asdict(row) for row in published(found)[cell.name].rows]
    assert len(rows) == len(known)
    for (path, value), (place, wanted) in zip(_leaves(rows), _leaves(known), strict=True):
        near = pytest.approx(wanted, rel=found.tolerance, nan_ok=True) if isinstance(wanted, float) else wanted
        assert path == place and value == near, path


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves by their paths, without the seconds that they took."""
    if isinstance(value, dict | list | tuple):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(part, f"{path}.{name}")
    elif not path.endswith(".seconds"):
        yield path, value
