"""Running studies: cells are jobs of a store, finished ones are not run again, and one writer makes the pages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pydantic
from rich.console import Console

from steersman.experiments.comparison.cell import Cell
from steersman.experiments.comparison.cells import ROWS, CellSpec
from steersman.experiments.comparison.compare import run_phase
from steersman.experiments.comparison.executor import Executor, Processes
from steersman.experiments.comparison.jobs import job_of
from steersman.experiments.comparison.store import Store
from steersman.experiments.report.progress import live
from steersman.experiments.studies.study import Finished, Made, Results, Study
from steersman.experiments.studies.writing import RESULTS, write


def run_cells(
    study: Study,
    console: Console,
    out: Path | None = None,
    *,
    names: Sequence[str] = (),
    executor: Executor | None = None,
    results: Path | None = None,
) -> Path:
    """Run what is missing of a study and write its page; the folder that it is in.

    A cell whose code is what it was when it was published, or when the store kept it, is not run again. A cell that is
    not asked for keeps the rows that it was published with.

    Args:
        study: The study.
        console: Where progress is shown.
        out: Folder of the store; by default results/NAME.
        names: Patterns of the names of the cells to run; by default all but the further ones.
        executor: Where cells run; by default in processes.
        results: Folder of the page; by default that of the study's published results.

    Raises:
        ValueError: If no cell has such a name.
        RuntimeError: If a cell failed; what is finished is kept.
    """
    folder = results or RESULTS / study.name
    kept = published(study, folder)
    waiting = {
        spec.key: (spec.name, spec)
        for spec in CellSpec.of(study.name, _chosen(study, names))
        if spec.name not in kept or kept[spec.name].made.code != spec.code
    }
    store = Store((out or Path("results") / study.name) / "store")
    store.add(job_of(spec) for _, spec in waiting.values())
    executor = executor or Processes(study.workers)
    try:
        with live(console) as progress:
            run_phase("cells", store, waiting, executor, progress)
    finally:
        executor.close()
    cells = {cell.name: cell for cell in study.every()}
    fresh = {name: key for key, (name, _) in waiting.items() if store.sound(key)}
    for name, key in fresh.items():
        kept[name] = _finished(cells[name], json.loads(store.file(key, ROWS).read_text(encoding="utf-8")))
    publish_cells(study, kept.values(), folder)
    if failed := [f"{waiting[job.key][0]}: {job.error}" for job in store.jobs(list(waiting)) if job.state == "failed"]:
        raise RuntimeError(f"{len(failed)} of {len(waiting)} cells failed, first {failed[0]}")
    return folder


def publish_cells(study: Study, finished: Iterable[Finished], folder: Path) -> Path:
    """Write JSON, page and picture of finished cells; the folder."""
    by_name = {done.cell.name: done for done in finished}
    names = [cell.name for cell in study.every()]
    write(study, Results(by_name[name] for name in names if name in by_name), folder)
    return folder


def published(study: Study, folder: Path | None = None) -> dict[str, Finished]:
    """Cells that a study has published, by name, as far as their settings are still those of the study."""
    lines = {(line["name"], json.dumps(line["settings"])): line for line in published_lines(study.name, folder)}
    known = {cell.name: (cell, lines.get((cell.name, json.dumps(cell.settings)))) for cell in study.every()}
    return {name: _finished(cell, line) for name, (cell, line) in known.items() if line is not None}


def published_lines(name: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """Cells that a study of this name has published, whatever their settings, as plain data."""
    path = (folder or RESULTS / name) / f"{name}.json"
    whole = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"made": []}
    return [{**made, **line} for made in whole["made"] for line in made["cells"]]


def _finished(cell: Cell, found: dict[str, Any]) -> Finished:
    rows = pydantic.TypeAdapter(tuple[cell.row, ...]).validate_python(found["rows"])
    return Finished(cell, rows, float(found["seconds"]), Made(found["code"], found["commit"], found["machine"]))


def _chosen(study: Study, patterns: Sequence[str]) -> list[Cell]:
    if not patterns:
        return list(study.cells())
    every = study.every()
    for pattern in patterns:
        if not any(fnmatch(cell.name, pattern) for cell in every):
            raise ValueError(f"no cell of {study.name} is named {pattern!r}; it has {'; '.join(c.name for c in every)}")
    return [cell for cell in every if any(fnmatch(cell.name, pattern) for pattern in patterns)]
