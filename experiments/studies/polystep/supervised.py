"""PolyStep on networks that have no gradient: digits with five hard decisions, and a hard oblique tree.

Results lie in ``results/polystep-supervised`` beside this file. Other presets say what they take: ``python -m
steersman.experiments.studies.polystep.supervised --preset million`` gives the same networks a hundred times the
evaluations at the settings tuned before (``100k`` ten times), ``--preset lif-20m`` the spiking one two thousand times,
and ``--preset mnist --device cuda`` runs the published sizes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console

from steersman.experiments.comparison.machine import describe_machine
from steersman.experiments.report.progress import bar
from steersman.experiments.spec.closure import edition
from steersman.experiments.studies.polystep import supervised_tree as trees
from steersman.experiments.studies.polystep.supervised_methods import LONG, METHODS, Method, run_method
from steersman.experiments.studies.polystep.supervised_page import page, plot
from steersman.experiments.studies.polystep.supervised_tasks import PRESETS, Data, Preset, Task, preset_of

RESULTS = Path(__file__).parents[1] / "results" / "polystep-supervised"
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
    """Run the study at CPU scale, 25 CPU minutes; finished runs are kept in ``out``."""
    return run_preset("digits", console, out)


def run_preset(
    name: str,
    console: Console,
    out: Path | None = None,
    device: str = "cpu",
    tasks: Sequence[str] = (),
    methods: Sequence[str] = (),
) -> Path:
    """Run the study with a preset; the folder of its results.

    Args:
        name: A preset of :mod:`polystep_supervised_tasks`.
        console: Where progress is shown.
        out: Folder for finished runs.
        device: Where networks are evaluated.
        tasks: Networks, by default all of the preset.
        methods: Methods, by default all. What earlier runs of a preset with given settings found stays on its page.

    Raises:
        ValueError: If there is no such preset, network or method, or the preset's settings have not been tuned.
        ModuleNotFoundError: Without the extras ``studies`` and ``peers``.
    """
    torch.set_num_threads(1)
    preset = preset_of(name)
    chosen = _chosen("tasks", preset.tasks, tasks), _chosen("methods", LONG if preset.settings else METHODS, methods)
    data = preset.load()
    data = replace(data, x=data.x.to(device), y=data.y.to(device))
    folder = edition(out or Path("results") / f"polystep-supervised-{name}", [__name__])
    rows = Rows(folder / "runs.json")
    jobs = digit_jobs(rows, preset, data, *chosen, _settled(preset))
    if not preset.settings:
        jobs = [*tree_jobs(rows), *jobs]
    command = "steersman study polystep-supervised" if name == "digits" else _command(name, tasks, methods)
    whole: dict[str, Any] = {
        "command": command, "preset": name, "machine": describe_machine(),
        "budget": preset.budget, "tuning": preset.tuning, "batch": preset.batch, "seeds": list(preset.seeds),
        "tree": [], "tasks": [],
    }  # fmt: skip
    results = folder if name == "mnist" else RESULTS
    with bar(console, "polystep-supervised") as report:
        for i, job in enumerate(jobs):
            report(i / len(jobs), job.key)
            whole[job.part].append(job.run())
            if preset.settings:
                _merge(whole, results / f"{name}.json")
    if not preset.settings:
        results.mkdir(parents=True, exist_ok=True)
        _write(whole, results / "polystep-supervised.json")
    return publish(results)


def publish(results: Path) -> Path:
    """Write page and plot from the numbers in a folder; the folder."""
    whole = json.loads((results / "polystep-supervised.json").read_text())
    files = [results / f"{preset.name}.json" for preset in PRESETS if preset.settings]
    longer = [json.loads(file.read_text()) for file in files if file.is_file()]
    (results / "polystep-supervised.md").write_text(page(whole, preset_of(whole["preset"]), longer))
    plot(whole, longer, results / "polystep-supervised.png")
    return results


def _merge(whole: dict[str, Any], path: Path) -> None:
    """Store a preset's rows beside those of networks and methods that were run before."""
    before = json.loads(path.read_text()) if path.is_file() else {"tasks": [], "commands": []}
    new = {(row["task"], row["method"], row["seed"]) for row in whole["tasks"]}
    kept = [row for row in before["tasks"] if (row["task"], row["method"], row["seed"]) not in new]
    commands = list(dict.fromkeys([*before["commands"], whole["command"]]))
    _write({**whole, "commands": commands, "tasks": [*kept, *whole["tasks"]]}, path)


def _write(whole: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(whole, indent=1) + "\n")


def _command(preset: str, tasks: Sequence[str], methods: Sequence[str]) -> str:
    words = ["python -m steersman.experiments.studies.polystep.supervised --preset", preset]
    for option, names in (("--tasks", tasks), ("--methods", methods)):
        words += [option, *(f'"{name}"' for name in names)] if names else []
    return " ".join(words)


def _chosen(what: str, known: Sequence[Any], names: Sequence[str]) -> list[Any]:
    by_name = {one.name: one for one in known}
    if unknown := [name for name in names if name not in by_name]:
        raise ValueError(f"{what} has unknown {', '.join(unknown)}; choose of {', '.join(by_name)}")
    return [by_name[name] for name in names] or list(known)


def _settled(preset: Preset) -> dict[tuple[str, str], float]:
    """Settings by network and method that a preset takes over from another's published results."""
    if not preset.settings:
        return {}
    path = RESULTS / "polystep-supervised.json"
    whole: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"preset": None}
    if whole["preset"] != preset.settings:
        raise ValueError(f"preset {preset.name} takes the settings of {preset.settings}; run that preset first")
    return {(row["task"], row["method"]): row["scale"] for row in whole["tasks"]}


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


def digit_jobs(
    rows: Rows,
    preset: Preset,
    data: Data,
    tasks: Sequence[Task],
    methods: Sequence[Method],
    settled: Mapping[tuple[str, str], float],
) -> list[Job]:
    """Networks under methods: tuned on the validation of other seeds where no setting is given, then the seeds."""
    seeds = TUNED_ON[:1] if preset.settings else TUNED_ON

    def job(task: Task, method: Method, seed: int) -> Job:
        key = f"{task.name}, {method.name}"

        def reached(scale: float) -> float:
            tried = [
                rows.get(
                    f"{key}, tuning {scale}, {k}",
                    partial(run_method, method, preset, task, data, scale, k, preset.tuning),
                )
                for k in seeds
            ]
            return float(sum(row["validate"] for row in tried))

        def make() -> Row:
            known = settled.get((task.name, method.name))
            scale = max(method.scales, key=reached) if known is None else known
            return rows.get(
                f"{key}, {seed}", lambda: run_method(method, preset, task, data, scale, seed, preset.budget)
            )

        return Job("tasks", f"{key}, {seed}", make)

    return [job(task, method, seed) for task in tasks for method in methods for seed in preset.seeds]


def main(
    preset: str = "digits",
    device: str = "cpu",
    out: Path | None = None,
    tasks: tuple[str, ...] = (),
    methods: tuple[str, ...] = (),
) -> None:
    """Run the study.

    Args:
        preset: ``digits`` (a CPU, minutes), ``100k`` (minutes), ``million`` (an hour), ``lif-20m`` (45 minutes
            for each method), or ``mnist`` (published sizes, a GPU).
        device: Where networks are evaluated.
        out: Folder for finished runs.
        tasks: Names of networks, all by default.
        methods: Names of methods, all by default.
    """
    console = Console()
    console.print(str(run_preset(preset, console, out, device, tasks, methods)))


if __name__ == "__main__":
    tyro.cli(main)
