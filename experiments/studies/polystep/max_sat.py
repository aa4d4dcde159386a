"""MAX-SAT near the threshold of satisfiability: PolyStep and rivals on relaxed variables, rounded by their signs.

Random instances of three literals a clause at 4.27 clauses a variable, where they are hardest. Results lie in
``results/max-sat`` beside this file. Larger ones, for a GPU, are presets; ``--preset 100k`` and ``--preset 1m`` write
into ``results/max-sat-100k`` and ``results/max-sat-1m`` of the working directory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console

from steersman.experiments.comparison.machine import describe_machine
from steersman.experiments.report.progress import bar
from steersman.experiments.studies.polystep.max_sat_page import PUBLISHED, page, plot
from steersman.experiments.studies.polystep.max_sat_runs import METHODS, PRESETS, RATIO, Formula, Run, Settings, solve


def run(console: Console, out: Path | None) -> Path:
    """Run the study; it keeps nothing in ``out``."""
    return execute(Settings(), console, "steersman study max-sat")


def execute(settings: Settings, console: Console, command: str) -> Path:
    """Run the study with given arguments; the folder of its results.

    Raises:
        ValueError: If there are no sizes, budgets or seeds.
    """
    for name in ("sizes", "evaluations", "seeds"):
        if not getattr(settings, name):
            raise ValueError(f"{name} is empty; give at least one number")
    if unknown := set(settings.methods) - set(METHODS):
        raise ValueError(f"methods has unknown {', '.join(sorted(unknown))}; choose of {'; '.join(METHODS)}")
    torch.set_num_threads(1)
    runs: list[Run] = []
    work = list(_work(settings))
    with bar(console, "max-sat") as report:
        for i, (size, budget, seed, method) in enumerate(work):
            report(i / len(work), f"{method}, {size:,} variables, seed {seed}")
            runs.append(solve(method, Formula(size, seed, settings.device), budget, seed))
    settings.out.mkdir(parents=True, exist_ok=True)
    whole = {
        "command": command, "machine": describe_machine(), "ratio": RATIO,
        "methods": {name: {"search": kind, **options} for name, (kind, options, _) in METHODS.items()},
        "published": PUBLISHED, "runs": [asdict(r) for r in runs],
    }  # fmt: skip
    (settings.out / "max-sat.json").write_text(json.dumps(whole, indent=1) + "\n")
    return publish(settings.out)


def publish(folder: Path) -> Path:
    """Write page and plot from the numbers in a folder; the folder."""
    whole = json.loads((folder / "max-sat.json").read_text())
    runs = [Run(**{**row, "curve": tuple((n, v) for n, v in row["curve"])}) for row in whole["runs"]]
    (folder / "max-sat.md").write_text(page(runs, whole["command"], whole["machine"]))
    plot(runs, folder / "max-sat.png")
    return folder


def _work(settings: Settings) -> Iterator[tuple[int, int, int, str]]:
    for i, size in enumerate(settings.sizes):
        budget = settings.evaluations[min(i, len(settings.evaluations) - 1)]
        for seed in settings.seeds:
            for method, (_, _, most) in METHODS.items():
                if size <= most and method in (settings.methods or METHODS):
                    yield size, budget, seed, method


def main(
    preset: str = "cpu",
    device: str | None = None,
    evaluations: int | None = None,
    methods: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (),
    out: Path | None = None,
) -> None:
    """Run a preset.

    Args:
        preset: ``cpu``, ``100k`` or ``1m``.
        device: Another device than the preset's.
        evaluations: Another budget of each run.
        methods: Other methods.
        seeds: Other instances.
        out: Another folder.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; choose one of {', '.join(PRESETS)}")
    given: dict[str, Any] = {
        "device": device, "evaluations": evaluations and (evaluations,), "methods": methods, "seeds": seeds, "out": out
    }  # fmt: skip
    settings = replace(PRESETS[preset], **{name: value for name, value in given.items() if value})
    command = f"python -m steersman.experiments.studies.polystep.max_sat --preset {preset}"
    if evaluations:
        command += f" --evaluations {evaluations}"
    execute(settings, Console(), command)


if __name__ == "__main__":
    tyro.cli(main)
