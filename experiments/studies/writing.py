"""The one writer of studies: numbers as JSON, a page of text, and a picture, all in one style."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from steersman.experiments.studies.study import Finished, Made, Results, Study, Table

RESULTS = Path(__file__).parent / "results"
"""Where published results lie, a folder for each study."""
STYLE: dict[Any, Any] = {
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.titlesize": 11,
    "grid.color": "0.92", "legend.frameon": False, "legend.fontsize": 9, "savefig.dpi": 110,
}  # fmt: skip
"""Of all pictures of studies."""


def write(study: Study, results: Results, folder: Path) -> None:
    """Write ``NAME.json``, ``NAME.md`` and ``NAME.png`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{study.name}.json").write_text(to_json(study, results), encoding="utf-8")
    (folder / f"{study.name}.md").write_text(page(study, results), encoding="utf-8")
    with plt.rc_context(STYLE):
        figure = study.figure(results)
        figure.savefig(folder / f"{study.name}.png")
    plt.close(figure)


def to_json(study: Study, results: Results) -> str:
    """Everything that the page is made from, one line for each cell."""
    claims = [{**asdict(claim), "holds": claim.holds} for claim in study.claims(results)]
    blocks = []
    for made, cells in _by_made(results):
        lines = [
            json.dumps({
                "name": done.cell.name, "settings": done.cell.settings, "seconds": done.seconds,
                "rows": [asdict(row) for row in done.rows],
            })
            for done in cells
        ]  # fmt: skip
        blocks.append(f'{json.dumps(asdict(made))[:-1]}, "cells": [\n' + ",\n".join(lines) + "\n]}")
    told = ",\n".join(json.dumps(claim) for claim in claims)
    head = f'{{\n"study": {json.dumps(study.name)},\n"claims": [\n{told}\n],\n"made": [\n'
    return head + ",\n".join(blocks) + "\n]\n}\n"


def page(study: Study, results: Results) -> str:
    """The page, from the rows alone."""
    parts = [f"# {study.name}", f"`steersman study {study.name}`", "\n".join(origins(results))]
    parts += [f"![{study.name}]({study.name}.png)", *study.about(results)]
    parts += [_points([str(claim) for claim in study.claims(results)])]
    parts += [text for table in study.tables(results) for text in _told(table)]
    done = {done.cell.name for done in results}
    missing = [cell.name for cell in study.cells() if cell.name not in done]
    parts += [*study.notes(results), f"Not run: {'; '.join(missing)}." if missing else ""]
    return "\n\n".join(part for part in parts if part) + "\n"


def origins(results: Results) -> Iterator[str]:
    """One line for each commit and machine that cells were made with; whether their code has changed since."""
    groups: dict[tuple[str, str, bool], list[Finished]] = {}
    for done, older in zip(results, results.older(), strict=True):
        groups.setdefault((done.made.machine, done.made.commit, older), []).append(done)
    for (machine, commit, older), cells in groups.items():
        seconds = sum(done.seconds for done in cells)
        what = f"{len(cells)} cell{'s' * (len(cells) > 1)}{f', {seconds / 60:.1f} CPU minutes' if seconds else ''}"
        codes = ", ".join(dict.fromkeys(done.made.code for done in cells))
        yield f"- {what}: {machine}; commit {commit}, code {codes}{', which has changed since' if older else ''}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)])


def _told(table: Table) -> Iterator[str]:
    yield from (f"## {table.title}" if table.title else "", table.about, markdown(table.head, table.rows))
    yield _points(table.remarks)


def _points(texts: Sequence[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)


def _by_made(results: Results) -> list[tuple[Made, list[Finished]]]:
    made = list(dict.fromkeys(done.made for done in results))
    return [(one, [done for done in results if done.made == one]) for one in made]
