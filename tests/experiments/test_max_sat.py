"""The MAX-SAT study: clauses counted right, budgets equal, and text that follows from the numbers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from steersman.experiments.comparison.executor import InProcess
from steersman.experiments.studies.polystep.max_sat import METHODS, SCALABLE, Formula, Run, Solve, solves
from steersman.experiments.studies.polystep.max_sat_page import STUDY, slope
from steersman.experiments.studies.running import published, run_cells
from steersman.experiments.studies.study import Finished, Made, Results
from steersman.experiments.studies.writing import page


def quiet(fraction: float, text: str) -> None:
    """Progress that nobody looks at."""


def test_clauses_are_counted_as_a_loop_counts_them() -> None:
    formula = Formula(40, seed=3)
    assert formula.literals.shape == (3, 171)
    variable = formula.literals % 40
    assert all(len(set(clause)) == 3 for clause in variable.T.tolist())
    assert 0.3 < float((formula.literals >= 40).double().mean()) < 0.7
    x = torch.randn(700, 40, generator=torch.Generator().manual_seed(0))
    found = formula.unsatisfied(x)
    for row in (0, 13, 699):
        missed = 0
        for clause in formula.literals.T.tolist():
            missed += not any((x[row, v % 40] > 0) == (v < 40) for v in clause)
        assert float(found[row]) == pytest.approx(missed / 171)
    assert float(found.mean()) == pytest.approx(1 / 8, abs=0.01)
    with pytest.raises(ValueError, match="variables must be at least 3"):
        Formula(2, seed=0)


def test_a_run_keeps_its_budget_and_its_curve_never_falls() -> None:
    (run,) = Solve("PolyStep, whole vector", 50, 3000, 1).run(quiet)
    assert 3000 - 64 < run.evaluations <= 3000
    levels = [level for _, level in run.curve]
    assert levels == sorted(levels) and levels[-1] == run.satisfied > 95
    assert run.curve[-1][0] == run.evaluations


def test_study_end_to_end(tmp_path: Path) -> None:
    small = replace(STUDY, cells=lambda: solves({20: 400}, (0, 1)))
    run_cells(small, Console(quiet=True), tmp_path / "out", executor=InProcess(), results=tmp_path)
    runs = [row for done in published(small, tmp_path).values() for row in done.rows]
    assert {r.method for r in runs} == set(METHODS) and len(runs) == 2 * len(METHODS)
    text = (tmp_path / "max-sat.md").read_text()
    best = max(r.satisfied for r in runs)
    assert best > 90 and "- 20 variables, 400 evaluations: PolyStep" in text
    assert (tmp_path / "max-sat.png").stat().st_size > 10_000


def made(method: str, variables: int, seed: int, satisfied: float) -> Run:
    return Run(method, variables, seed, satisfied, 1000, 1.0, ((1000, satisfied),))


def told(runs: list[Run]) -> str:
    return page(STUDY, Results([Finished(solves()[0], tuple(runs), 1.0, Made("", "", ""))]))


def test_the_bar_asks_for_every_instance() -> None:
    runs = [made("PolyStep, whole vector", 50, seed, share) for seed, share in enumerate((99.0, 97.9))]
    text = told([*runs, made("ARS", 50, 0, 99.5)])
    assert "satisfies 98.45 % of the clauses on average and 97.900 on the worst instance, behind the best" in text
    assert "ARS (99.50) (asked for at least 98 / 98 %, on average and on every instance: the bar does not hold)" in text


def test_the_slope_is_that_of_a_line_over_factors_of_ten() -> None:
    runs = [
        made("OpenAI-ES", n, seed, 99 - 1.5 * k - 0.5 * seed * k)
        for k, n in enumerate((10, 100, 1000))
        for seed in (0, 1)
    ]
    assert slope(runs, "OpenAI-ES") == pytest.approx((-1.75, -2.0, -1.5))
    text = told(runs)
    assert "| OpenAI-ES | -1.75 (-2.00 to -1.50) | -3.50 |  |  |" in text
    assert "from 10 to 1,000 variables, in points: OpenAI-ES loses 3.50." in text
    assert "claims more than 92 % up to a million variables" in text and "- 1,000,000 variables (`--cells" in text
    published = told([made("CMA-ES", n, 0, 98.0) for n in (100, 1000, 5000)])
    assert "| CMA-ES | +0.00 (+0.00 to +0.00) | +0.00 | -2.20 | -3.8 |" in published


@pytest.mark.parametrize("size", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_cells_for_a_gpu_start_on_a_cpu(size: int) -> None:
    cells = [cell for cell in STUDY.further() if isinstance(cell, Solve) and (cell.variables, cell.seed) == (size, 0)]
    assert [cell.method for cell in cells] == list(SCALABLE) and {cell.device for cell in cells} == {"cuda"}
    for cell in cells[:2]:
        (run,) = replace(cell, device="cpu", budget=70).run(quiet)
        # Random points satisfy seven clauses in eight.
        assert run.satisfied == pytest.approx(87.5, abs=0.5) and run.evaluations <= 70 and run.variables == size
