"""The MAX-SAT study: clauses counted right, budgets equal, and text that follows from the numbers."""

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from steersman.experiments.studies.polystep.max_sat import execute, main
from steersman.experiments.studies.polystep.max_sat_page import page, slope
from steersman.experiments.studies.polystep.max_sat_runs import METHODS, PRESETS, Formula, Run, Settings, solve


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
    assert {r["method"] for r in whole["runs"]} == set(METHODS)
    assert len(whole["runs"]) == 2 * len(METHODS)
    text = (tmp_path / "max-sat.md").read_text()
    best = max(r["satisfied"] for r in whole["runs"])
    assert best > 90 and "- 20 variables, 400 evaluations: PolyStep" in text
    assert (tmp_path / "max-sat.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="seeds is empty"):
        execute(Settings(seeds=()), Console(quiet=True), "command")
    with pytest.raises(ValueError, match="methods has unknown annealing; choose of PolyStep, whole vector; "):
        execute(Settings(methods=("annealing",)), Console(quiet=True), "command")


def made(method: str, variables: int, seed: int, satisfied: float) -> Run:
    return Run(method, variables, seed, satisfied, 1000, 1.0, ((1000, satisfied),))


def test_the_slope_is_that_of_a_line_over_factors_of_ten() -> None:
    runs = [
        made("OpenAI-ES", n, seed, 99 - 1.5 * k - 0.5 * seed * k)
        for k, n in enumerate((10, 100, 1000))
        for seed in (0, 1)
    ]
    assert slope(runs, "OpenAI-ES") == pytest.approx((-1.75, -2.0, -1.5))
    text = page(runs, "c", "m")
    assert "| OpenAI-ES | -1.75 (-2.00 to -1.50) | -3.50 |  |  |" in text
    assert "from 10 to 1,000 variables, in points: OpenAI-ES loses 3.50." in text
    assert "claims more than 92 % up to a million variables" in text and "Preset `1m`: 1,000,000 variables" in text
    published = page([made("CMA-ES", n, 0, 98.0) for n in (100, 1000, 5000)], "c", "m")
    assert "| CMA-ES | +0.00 (+0.00 to +0.00) | +0.00 | -2.20 | -3.8 |" in published


@pytest.mark.parametrize("preset", ["100k", pytest.param("1m", marks=pytest.mark.slow)])
def test_presets_for_a_gpu_start_on_a_cpu(preset: str, tmp_path: Path) -> None:
    main(
        preset, device="cpu", evaluations=70, methods=("PolyStep, whole vector", "OpenAI-ES"), seeds=(0,), out=tmp_path
    )
    runs = json.loads((tmp_path / "max-sat.json").read_text())["runs"]
    assert [r["variables"] for r in runs] == 2 * [PRESETS[preset].sizes[0]]
    # Random points satisfy seven clauses in eight.
    assert all(r["satisfied"] == pytest.approx(87.5, abs=0.5) and r["evaluations"] <= 70 for r in runs)
    with pytest.raises(ValueError, match="unknown preset '2m'; choose one of cpu, 100k, 1m"):
        main("2m")
