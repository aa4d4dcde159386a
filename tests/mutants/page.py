"""What a run found: a table, a JSON file and a page."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from arena import Verdict
from calls import PACKAGES
from draw import Mutant
from rich.table import Table

NEEDED, OF = 55, 60
"""At least so many of so many that are not equivalent must be noticed."""


@dataclass(frozen=True)
class Score:
    """A draw and its verdicts."""

    seed: int
    digest: str
    minutes: float
    processes: int
    mutants: list[Mutant]
    verdicts: list[Verdict]
    passed: list[tuple[Mutant, str]]

    @property
    def killed(self) -> int:
        """Mutants that a test noticed."""
        return sum(verdict.killed for verdict in self.verdicts)

    @property
    def enough(self) -> bool:
        """Whether 55 of 60, or as large a share of another number, were noticed."""
        return self.killed * OF >= NEEDED * len(self.verdicts)

    def rows(self) -> list[tuple[str, int, int, int]]:
        """By folder: equivalents passed over, judged, killed."""
        found = []
        for folder in PACKAGES:
            own = [v for m, v in zip(self.mutants, self.verdicts, strict=True) if m.path.startswith(f"{folder}/")]
            equal = sum(m.path.startswith(f"{folder}/") for m, _ in self.passed)
            found.append((folder, equal, len(own), sum(v.killed for v in own)))
        return found


def table(score: Score) -> Table:
    """The score by folder."""
    found = Table("folder", "equivalent", "judged", "killed", title=f"Mutants of seed {score.seed}")
    for folder, *numbers in score.rows():
        found.add_row(folder, *map(str, numbers))
    found.add_section()
    found.add_row("all", str(len(score.passed)), str(len(score.verdicts)), str(score.killed))
    return found


def write(score: Score, folder: Path) -> None:
    """Write ``score.json`` and ``score.md``."""
    pairs = list(zip(score.mutants, score.verdicts, strict=True))
    whole = {
        "seed": score.seed, "tree": score.digest, "killed": score.killed, "judged": len(pairs),
        "minutes": round(score.minutes, 1), "processes": score.processes, "python": platform.python_version(),
        "mutants": [_entry(m) | asdict(v) for m, v in pairs],
        "equivalents": [_entry(m) | {"name": m.name, "reason": reason} for m, reason in score.passed],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "score.json").write_text(json.dumps(whole, indent=1) + "\n")
    (folder / "score.md").write_text("\n".join(_page(score, pairs)) + "\n")


def _entry(mutant: Mutant) -> dict[str, object]:
    s = mutant.statement
    return {"path": s.path, "line": s.line, "function": s.function, "break": mutant.edit.operator, "diff": mutant.diff}


def _page(score: Score, pairs: list[tuple[Mutant, Verdict]]) -> list[str]:
    lines = [
        "# Mutants",
        "",
        f"{score.killed} of {len(pairs)} breaks of one statement were noticed by the tests of their area (`make mutants`,"
        f" seed {score.seed}, {score.minutes:.0f} minutes in {score.processes} processes, sources and tests"
        f" `{score.digest}`). Needed are {NEEDED} of {OF}. Survivors of earlier runs of a seed have tests by now: what share"
        " of breaks goes unnoticed elsewhere, only a new seed tells.",
        "",
        "| folder | equivalent | judged | killed |",
        "|---|---|---|---|",
        *(f"| {folder} | {equal} | {judged} | {killed} |" for folder, equal, judged, killed in score.rows()),
        "",
        "## Survivors",
        "",
    ]
    for mutant, verdict in pairs:
        if not verdict.killed:
            lines += [*_shown(mutant), f"{verdict.tests} tests or files of tests did not notice.", ""]
    lines += [] if score.killed < len(pairs) else ["None.", ""]
    lines += ["## Equivalents that were drawn and passed over", ""]
    for mutant, reason in score.passed:
        lines += [*_shown(mutant), reason, ""]
    lines += [] if score.passed else ["None.", ""]
    lines += ["## Killed", "", "| where | break | by |", "|---|---|---|"]
    for mutant, verdict in pairs:
        if verdict.killed:
            where = f"`{mutant.path}` {mutant.statement.function.replace('<', '&lt;')}"
            lines.append(f"| {where} | {mutant.edit.operator} | `{verdict.by.replace('|', ' ')}` |")
    return lines


def _shown(mutant: Mutant) -> list[str]:
    s = mutant.statement
    head = f"`{mutant.name}` {s.path}:{s.line}, {s.function.replace('<', '&lt;')}: {mutant.edit.operator}"
    return [head, "", "```diff", mutant.diff, "```", ""]
