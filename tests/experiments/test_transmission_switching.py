"""The switching study: one of its rows, and a page that says what the rows say."""

from dataclasses import replace

from steersman.envs.grid.files import matpower
from steersman.experiments.comparison.cell import Cell
from steersman.experiments.studies.grid.switching import SWITCHINGS, Agreement, PowerFlows, Row, Switching, islands
from steersman.experiments.studies.grid.switching_page import STUDY
from steersman.experiments.studies.study import Finished, Made, Results
from steersman.experiments.studies.writing import page


def results(*found: tuple[Cell, object]) -> Results:
    return Results(Finished(cell, (row,), 1.0, Made("", "", "")) for cell, row in found)


def test_a_row_and_its_page() -> None:
    (row,) = SWITCHINGS[0].run(lambda fraction, text: None)
    assert isinstance(row, Row)
    assert (row.label, round(row.cost, 2), row.open, row.status) == ("5 buses", 14991.25, ("3-4 circuit 1",), "optimal")
    flows = (PowerFlows(500), Agreement(5, 5))
    text = page(STUDY, results(flows, (SWITCHINGS[0], row)))
    assert "1 of 1 optima" in text and "| 14,991.25 | 14,991.25 | 14.24 |" in text and "Not proven" not in text
    late = replace(row, status="incumbent", bound=14000.0, gap=0.066, reference=1.0)
    text = page(STUDY, results(flows, (SWITCHINGS[0], late)))
    assert "Not proven in its limit of wall time: 5 buses; found 14,991.25, bound 14,000.00" in text
    assert "0 of 1 optima" in text and "asked for at least 1: the bar does not hold; independent model" in text


def test_names() -> None:
    names = [cell.name for cell in SWITCHINGS]
    assert len(set(names)) == len(names)
    assert Switching("case118_ieee", "api", most=3).name == "118 buses, api, 3 open"


def test_published_costs_of_the_smallest_grids() -> None:
    assert PowerFlows(5).run(lambda fraction, text: None) == [Agreement(6, 6)]


def test_islands() -> None:
    case = matpower.pglib("case14_ieee")
    assert islands(case, ()) == 1 and islands(case, [13]) == 2
