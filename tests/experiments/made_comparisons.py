"""Comparisons made of given costs, and what is told of them."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from steersman.controllers.base import Outcome
from steersman.envs.plant import Status
from steersman.experiments.comparison.results import Comparison, Episodes, Failure, Latency, PlantSummary, RunResult
from steersman.experiments.report.findings import findings, glance, headline
from steersman.experiments.report.page import terminal_tables, to_json, write_parquet, write_report
from steersman.experiments.stats import scores
from steersman.experiments.studies.publish import page, plot

N = 60
HARD = 10 + np.random.default_rng(7).exponential(5, size=N)
"""How hard each scenario is."""


def noise(seed: int, scale: float = 0.1) -> NDArray[np.float64]:
    """Zero in the mean."""
    values = scale * np.random.default_rng(seed).normal(size=N)
    return values - values.mean()


def run(
    controller: str, cost: Any, *, plant: str = "p", seed: int = 0, track: str = "data only", fails: int = 0,
    speed: float = 1e-3, learnt: int = 0, **more: Any,
) -> RunResult:  # fmt: skip
    cost = np.asarray(cost, dtype=float)
    n = len(cost)
    status = np.where(np.arange(n) < fails, int(Status.TERMINATED), 0)
    outcomes = np.zeros((n, len(Outcome)), dtype=int)
    outcomes[:, 0] = 5
    shown = np.zeros((1, 6, 1))
    return RunResult(
        key=f"{controller}{seed}", plant=plant, controller=controller, model="", seed=seed, track=track, preview=0,
        scenario=np.arange(n), cost=cost, violation=np.zeros(n), status=status, steps=np.full(n, 5), outcomes=outcomes,
        inadmissible=0, latency=Latency(speed, speed, speed), train_steps=learnt, train_seconds=0.0, eval_seconds=0.0,
        episodes=Episodes(shown, shown, shown[:, :5]), **more,
    )  # fmt: skip


def comparison(*results: RunResult, failures: Sequence[Failure] = (), baseline: str = "zero") -> Comparison:
    names = list(dict.fromkeys(r.plant for r in results))
    plants = tuple(
        PlantSummary(
            id="steersman/P-v1", name=name, baseline=baseline, summary="a plant", period=1.0, time_unit="s", horizon=5,
            performed=("z",), shown=(0,), actions=("u",), units=("",),
        )
        for name in names
    )  # fmt: skip
    return Comparison("made", baseline, plants, results, tuple(failures), "steersman compare made", "a machine")


def told(made: Comparison) -> tuple[str, list[str], list[Any]]:
    """Headline of the only plant, findings, glance."""
    found = scores(made)
    return headline(made.plants[0].baseline, found), findings(made, found), glance(made, found)


def whole(made: Comparison, tmp_path: Path) -> str:
    """The page; everything else is written as well."""
    write_report(made, tmp_path / "report.html")
    write_parquet(made, tmp_path / "results.parquet")
    plot(made, tmp_path / "plot.png")
    console = Console(width=100, record=True, file=io.StringIO())
    for table in terminal_tables(made):
        console.print(table)
    return (tmp_path / "report.html").read_text() + page(made) + to_json(made) + console.export_text()


def seeds(name: str, shifts: Sequence[float], **more: Any) -> list[RunResult]:
    return [run(name, HARD + s + noise(i), seed=i, learnt=9, **more) for i, s in enumerate(shifts)]
