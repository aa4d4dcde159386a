"""Cells of studies as jobs of a store: the key that their rows are stored under, and what does the work."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pydantic

from steersman.envs.importing import imported
from steersman.envs.registry import PLANTS
from steersman.experiments.comparison.cell import Cell, Report
from steersman.experiments.comparison.machine import describe_commit, describe_machine
from steersman.experiments.spec.closure import code_digest, strings_in
from steersman.experiments.spec.plan import digest

ROWS = ".json"
"""File of what a finished cell found."""


def codes_of(cells: Iterable[Cell]) -> list[str]:
    """Digests of the code that cells' rows depend on: that of their module, and of the plants that settings name."""
    known: dict[tuple[str, ...], str] = {}
    for cell in (cells := list(cells)):
        if (roots := _roots(cell)) not in known:
            known[roots] = code_digest(roots)
    return [known[_roots(cell)] for cell in cells]


def _roots(cell: Cell) -> tuple[str, ...]:
    named = set(strings_in(cell.settings))
    return (type(cell).__module__, *(spec.target.partition(":")[0] for spec in PLANTS if spec.id in named))


@dataclass(frozen=True)
class CellSpec:
    """A cell as a job.

    Attributes:
        study: Name of the study.
        name: Name of the cell.
        target: ``module:Name`` of its class.
        settings: Its fields.
        code: Digest of the code that its rows depend on.
    """

    study: str
    name: str
    target: str
    settings: dict[str, Any]
    code: str

    @classmethod
    def of(cls, study: str, cells: Sequence[Cell]) -> list[CellSpec]:
        """The jobs of cells."""
        return [
            cls(study, cell.name, f"{type(cell).__module__}:{type(cell).__qualname__}", cell.settings, code)
            for cell, code in zip(cells, codes_of(cells), strict=True)
        ]

    @property
    def identity(self) -> str:
        """Hash of what is asked for, whatever code answers it, and wherever that code lies."""
        return digest([self.study, self.target.rpartition(":")[2], self.settings])

    @property
    def key(self) -> str:
        """Hash of everything that the rows depend on."""
        return digest([self.identity, self.code])

    def work(self, path: Path, report: Report) -> None:
        """Do the work and write its rows; a crash in between leaves no file.

        Raises:
            RuntimeError: If code was edited since the study began, so that the key is not this code's.
        """
        cell: Cell = pydantic.TypeAdapter(imported(self.target)).validate_python(self.settings)
        if codes_of([cell]) != [self.code]:
            raise RuntimeError("code that it depends on was edited while the study ran; run it again")
        begun = time.process_time()
        rows = [asdict(row) for row in cell.run(report)]
        seconds = round(time.process_time() - begun, 3)
        found = {"code": self.code, "commit": describe_commit(), "machine": describe_machine(), "seconds": seconds}
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps({**found, "rows": rows}), encoding="utf-8")
        draft.replace(path)
