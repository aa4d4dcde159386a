"""The MAX-SAT study: clauses counted right, budgets equal, and text that follows from the numbers."""

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from steersman.experiments.studies import max_sat
from steersman.experiments.studies.max_sat import Formula, Settings, execute, solve


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
    run = solve("PolyStep, whole vector", Formula(50, seed=1), 3000, seed=1)
    assert 3000 - 64 < run.evaluations <= 3000
    levels = [level for _, level in run.curve]
    assert levels == sorted(levels) and levels[-1] == run.satisfied > 95
    assert run.curve[-1][0] == run.evaluations


def test_study_end_to_end(tmp_path: Path) -> None:
    execute(Settings((20,), (400,), (0, 1), out=tmp_path), Console(quiet=True), "command")
    whole = json.loads((tmp_path / "max-sat.json").read_text())
    assert {r["method"] for r in whole["runs"]} == set(max_sat.METHODS)
    assert len(whole["runs"]) == 2 * len(max_sat.METHODS)
    text = (tmp_path / "max-sat.md").read_text()
    best = max(r["satisfied"] for r in whole["runs"])
    assert best > 90 and "- 20 variables, 400 evaluations: PolyStep" in text
    assert (tmp_path / "max-sat.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="seeds is empty"):
        execute(Settings(seeds=()), Console(quiet=True), "command")
