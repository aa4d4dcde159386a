"""PolyStep on networks that have no gradient: digits with five hard decisions, a hard oblique tree, and binary weights.

Results lie in ``results/polystep-supervised`` beside this file. ``python -m
steersman.experiments.studies.polystep_supervised --preset mnist --device cuda`` runs the published sizes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console

from steersman.experiments.closure import edition
from steersman.experiments.machine import describe_machine
from steersman.experiments.progress import bar
from steersman.experiments.studies import polystep_supervised_biper as biper
from steersman.experiments.studies import polystep_supervised_tree as trees
from steersman.experiments.studies.polystep_supervised_methods import METHODS, run_method
from steersman.experiments.studies.polystep_supervised_page import page, plot
from steersman.experiments.studies.polystep_supervised_tasks import Data, Preset, preset_of

RESULTS = Path(__file__).parent / "results" / "polystep-supervised"
TUNED_ON = (90, 91)
"""Seeds of tuning, which no reported run has."""

Row = dict[str, Any]


class Rows:
    """Finished runs, kept in a file so that a second run goes on where the first was stopped."""

    def __init__(self, path: Path) -> None:
        """Read what is there."""
        self.path = path
        self.found: dict[str, Row] = json.loads(path.read_text()) if path.is_file() else {}

    def get(self, key: str, make: Callable[[], Any]) -> Row:
        """The run of a key, made now if it is not there."""
        if key not in self.found:
            self.found[key] = asdict(make())
            self.path.write_text(json.dumps(self.found, indent=1) + "\n")
        return self.found[key]


@dataclass(frozen=True)
class Job:
    """A part of the study: where its rows go, its key and how to run it."""

    part: str
    key: str
    run: Callable[[], Row]


def run(console: Console, out: Path | None) -> Path:
    """Run the study at CPU scale; finished runs are kept in ``out``."""
    return run_preset("digits", console, out)


def run_preset(name: str, console: Console, out: Path | None = None, device: str = "cpu") -> Path:
    """Run the study with a preset; the folder of its results.

    Args:
        name: A preset of :mod:`polystep_supervised_tasks`.
        console: Where progress is shown.
        out: Folder for finished runs.
        device: Where networks are evaluated.

    Raises:
        ValueError: If there is no such preset.
        ModuleNotFoundError: Without the extras ``studies`` and ``peers``.
    """
    torch.set_num_threads(1)
    preset = preset_of(name)
    data = preset.load()
    data = replace(data, x=data.x.to(device), y=data.y.to(device))
    folder = edition(out or Path("results") / f"polystep-supervised-{name}", [__name__])
    rows = Rows(folder / "runs.json")
    jobs = [*tree_jobs(rows), *digit_jobs(rows, preset, data), *biper_jobs(rows, preset, data)]
    whole: dict[str, Any] = {
        "command": "steersman study polystep-supervised", "preset": name, "machine": describe_machine(),
        "budget": preset.budget, "tuning": preset.tuning, "batch": preset.batch, "seeds": list(preset.seeds),
        "tree": [], "tasks": [], "biper": [],
    }  # fmt: skip
    with bar(console, "polystep-supervised") as report:
        for i, job in enumerate(jobs):
            report(i / len(jobs), job.key)
            whole[job.part].append(job.run())
    results = RESULTS if name == "digits" else folder
    results.mkdir(parents=True, exist_ok=True)
    (results / "polystep-supervised.json").write_text(json.dumps(whole, indent=1) + "\n")
    (results / "polystep-supervised.md").write_text(page(whole, preset))
    plot(whole, results / "polystep-supervised.png")
    return results


def tree_jobs(rows: Rows) -> list[Job]:
    """The oblique tree: tuned on the training errors from two other first points, then the seeds."""
    data = trees.board()

    def job(method: trees.TreeMethod, seed: int) -> Job:
        def reached(scale: float) -> float:
            keys = {k: f"tree, {method.name}, tuning {scale}, {k}" for k in trees.TUNED_ON}
            tried = [
                rows.get(key, partial(trees.run_tree, method, data, scale, k, trees.TUNING)) for k, key in keys.items()
            ]
            return float(sum(row["train"] for row in tried))

        def make() -> Row:
            scale = max(method.scales, key=reached)
            return rows.get(f"tree, {method.name}, {seed}", lambda: trees.run_tree(method, data, scale, seed))

        return Job("tree", f"tree, {method.name}, {seed}", make)

    return [job(method, seed) for method in trees.METHODS for seed in trees.SEEDS]


def digit_jobs(rows: Rows, preset: Preset, data: Data) -> list[Job]:
    """Five networks under eight methods: tuned on the validation of two other seeds, then the seeds of the preset."""

    def job(task_index: int, method_index: int, seed: int) -> Job:
        task, method = preset.tasks[task_index], METHODS[method_index]
        key = f"{task.name}, {method.name}"

        def reached(scale: float) -> float:
            tried = [
                rows.get(
                    f"{key}, tuning {scale}, {k}",
                    partial(run_method, method, preset, task, data, scale, k, preset.tuning),
                )
                for k in TUNED_ON
            ]
            return float(sum(row["validate"] for row in tried))

        def make() -> Row:
            scale = max(method.scales, key=reached)
            return rows.get(
                f"{key}, {seed}", lambda: run_method(method, preset, task, data, scale, seed, preset.budget)
            )

        return Job("tasks", f"{key}, {seed}", make)

    return [job(i, j, seed) for i in range(len(preset.tasks)) for j in range(len(METHODS)) for seed in preset.seeds]


def biper_jobs(rows: Rows, preset: Preset, data: Data) -> list[Job]:
    """Binary networks by gradient at several frequencies, and by a search at the lowest one."""

    def job(kind: str, frequency: float, seed: int) -> Job:
        make = biper.run_gradient if kind == "gradient" else biper.run_search
        key = f"binary, {kind}, {frequency}, {seed}"
        return Job("biper", key, lambda: rows.get(key, lambda: make(preset, data, frequency, seed)))

    by_gradient = [job("gradient", frequency, seed) for frequency in biper.FREQUENCIES for seed in preset.seeds]
    return by_gradient + [job("search", 1.0, seed) for seed in preset.seeds]


def main(preset: str = "digits", device: str = "cpu", out: Path | None = None) -> None:
    """Run the study.

    Args:
        preset: ``digits`` (a CPU, minutes) or ``mnist`` (published sizes, a GPU).
        device: Where networks are evaluated.
        out: Folder for finished runs.
    """
    console = Console()
    console.print(str(run_preset(preset, console, out, device)))


if __name__ == "__main__":
    tyro.cli(main)
