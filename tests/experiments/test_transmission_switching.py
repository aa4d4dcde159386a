"""The switching study: one of its rows, and a page that says what the rows say."""

from dataclasses import replace
from pathlib import Path

from steersman.envs.grid.files import matpower
from steersman.experiments.studies.grid.switching import (
    TASKS,
    Task,
    compare_published,
    islands,
    page,
    plot,
    solve,
)


def test_a_row_and_its_page(tmp_path: Path) -> None:
    row = solve(TASKS[0])
    assert (row.label, round(row.cost, 2), row.open, row.status) == ("5 buses", 14991.25, ("3-4 circuit 1",), "optimal")
    text = page([row], 5, 5)
    assert "1 of 1 optima" in text and "| 14,991.25 | 14,991.25 | 14.24 |" in text and "Not proven" not in text
    late = replace(row, status="incumbent", bound=14000.0, gap=0.066, reference=1.0)
    assert "Not proven in its limit of wall time: 5 buses; found 14,991.25, bound 14,000.00" in page([late], 4, 5)
    assert "0 of 1 optima" in page([late], 4, 5)
    plot([row, late], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_labels() -> None:
    labels = [task.label for task in TASKS]
    assert len(set(labels)) == len(labels)
    assert Task("case118_ieee", "api", most=3).label == "118 buses, api, 3 open"


def test_published_costs_of_the_smallest_grids() -> None:
    assert compare_published(5) == (6, 6)


def test_islands() -> None:
    case = matpower.pglib("case14_ieee")
    assert islands(case, ()) == 1 and islands(case, [13]) == 2
