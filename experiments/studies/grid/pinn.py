"""A network for the swing after a fault: its error by data and loss, its speed against solvers, and its use."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from steersman.dynamics.pinn.data import COLLOCATION, PUBLISHED, TEST, SwingGrid, collocation, dense, uniform
from steersman.dynamics.pinn.losses import Kind
from steersman.dynamics.pinn.network import Form
from steersman.dynamics.pinn.operator import SwingOperator, SwingSettings
from steersman.experiments.comparison.compare import compare
from steersman.experiments.comparison.executor import Processes
from steersman.experiments.comparison.machine import describe_machine
from steersman.experiments.report.page import to_json
from steersman.experiments.report.progress import bar, live
from steersman.experiments.spec.comparison import read_spec
from steersman.experiments.studies.grid.pinn_page import page, plot
from steersman.experiments.studies.grid.pinn_speed import batched, interpolated, solvers, surrogate
from steersman.experiments.studies.writing import RESULTS

FOLDER = RESULTS / "grid-pinn"
SEEDS = (0, 1, 2, 3, 4)
SHORT = SwingSettings(adam=60, lbfgs=30, polish=30)
"""Budget of a fit in the table, small so that 95 fits take minutes of one core."""
LONG = SwingSettings(adam=300, lbfgs=150, polish=40)
"""Budget of the accurate fits."""
KINDS: tuple[Kind, ...] = ("NN", "dtNN", "PINN")


@dataclass(frozen=True)
class Fit:
    """One trained network and its errors on the test grid.

    Attributes:
        form: Form of network.
        kind: Loss.
        grid: Training disturbances and times.
        seed: Seed of the weights.
        rms: Root-mean-square error of the angles, rad.
        largest: Largest error of an angle, rad.
        settled: The same from 0.05 s on.
        synchronous: The same at disturbances that keep synchronism.
        residual: Root mean square of the equations' residual at collocation points.
        seconds: CPU seconds of the fit.
    """

    form: Form
    kind: Kind
    grid: tuple[int, int]
    seed: int
    rms: float
    largest: float
    settled: float
    synchronous: float
    residual: float
    seconds: float


def run(console: Console, out: Path | None) -> Path:
    """Run the study; the comparison's intermediate results lie in ``out``."""
    torch.set_num_threads(1)
    spec = read_spec("grid-pinn")
    with live(console) as progress:
        comparison = compare(
            spec, out or Path("results") / spec.name, executor=Processes(), progress=progress,
            command="steersman study grid-pinn",
        )  # fmt: skip
    with bar(console, "grid-pinn") as report:
        test = uniform(*TEST)
        fits = table(test, report)
        report(0.8, "the accurate one")
        best, accurate = accurately(test)
        report(0.95, "speed")
        speeds, tabulated = [*surrogate(best), *solvers(), *batched()], interpolated(test)
    FOLDER.mkdir(parents=True, exist_ok=True)
    whole = {
        "command": "steersman study grid-pinn", "machine": describe_machine(), "budget of the table": asdict(SHORT),
        "budget of the accurate": asdict(LONG),
        "fits": [asdict(fit) for fit in fits], "accurate": [asdict(fit) for fit in accurate],
        "speeds": [asdict(speed) for speed in speeds], "largest error of a table, rad": tabulated,
        "comparison": json.loads(to_json(comparison)),
    }  # fmt: skip
    (FOLDER / "grid-pinn.json").write_text(json.dumps(whole, indent=1) + "\n")
    (FOLDER / "grid-pinn.md").write_text(page(fits, accurate, speeds, tabulated, comparison))
    plot(fits, best, test, FOLDER / "grid-pinn.png")
    return FOLDER


def table(test: SwingGrid, report: object) -> list[Fit]:
    """All losses on all published grids in the separable form, and the published form on the largest."""
    assert callable(report)  # noqa: S101 - narrows the type
    found: list[Fit] = []
    points = collocation(*COLLOCATION)
    for i, grid in enumerate(PUBLISHED):
        data = uniform(*grid)
        cases: list[tuple[Form, Kind]] = [("separable", kind) for kind in KINDS]
        cases += [("plain", "NN")] if grid == PUBLISHED[-1] else []
        for form, kind in cases:
            report(0.8 * i / len(PUBLISHED), f"{grid[0]} x {grid[1]}, {form} {kind}")
            for seed in SEEDS:
                width = 200 if form == "plain" else 64
                operator = SwingOperator(replace(SHORT, kind=kind, form=form, width=width, seed=seed))
                found.append(_scored(operator.fit(data, points), grid, test))
    return found


def accurately(test: SwingGrid) -> tuple[SwingOperator, list[Fit]]:
    """Operators from 121 trajectories that resolve the first milliseconds; the first seed's is timed."""
    data, points = dense(), collocation(*COLLOCATION)
    operators = [SwingOperator(replace(LONG, seed=seed)).fit(data, points) for seed in SEEDS]
    return operators[0], [_scored(operator, tuple(data.x.shape[:2]), test) for operator in operators]


def _scored(operator: SwingOperator, grid: tuple[int, ...], test: SwingGrid) -> Fit:
    s = operator.settings
    residual = operator.residual(collocation(TEST[0], 81))
    errors = asdict(operator.score(test))
    return Fit(s.form, s.kind, (grid[0], grid[1]), s.seed, residual=residual, seconds=operator.seconds, **errors)
