"""Which statements are broken: the same number from each folder, by a seed, from the tree as it stands.

A statement's place in the draw depends on the seed, its function and its text alone: what is edited elsewhere does not
move it, so that scores of different days are about mostly the same mutants.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

from calls import PACKAGES
from mutations import Edit, Statement, apply, statements

LEFT_OUT = ("*picture*", "experiments/report/figures.py", "experiments/benchmarks/*", "experiments/studies/*")
"""Pictures, benchmarks, and studies, whose scripts make pages: judged by what they show, not by tests."""
EQUIVALENTS = Path(__file__).with_name("equivalents.json")


@dataclass(frozen=True)
class Mutant:
    """One break of one statement."""

    statement: Statement
    edit: Edit
    source: bytes

    @property
    def path(self) -> str:
        """File that is broken."""
        return self.statement.path

    @cached_property
    def name(self) -> str:
        """Short name, equal as long as statement and break are."""
        s, e = self.statement, self.edit
        old = self.source[e.start : e.end].decode()
        text = f"{s.path}|{s.function}|{s.text}|{s.ordinal}|{e.operator}|{old}|{e.text}"
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def mutated(self) -> bytes:
        """The whole broken file."""
        return apply(self.source, self.edit)

    @property
    def diff(self) -> str:
        """Lines before and after."""
        before, after = (text.decode().splitlines() for text in (self.source, self.mutated))
        lines = difflib.unified_diff(before, after, lineterm="", n=0)
        return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def equivalents() -> dict[str, str]:
    """Names of mutants that do the same as the program, each with the reason."""
    found: dict[str, dict[str, str]] = json.loads(EQUIVALENTS.read_text())
    return {name: entry["reason"] for name, entry in found.items()}


def ordered(root: Path, folder: str, seed: int) -> Iterator[Mutant]:
    """All mutants of a folder, one for each statement, in the order of the draw."""
    found: list[tuple[Statement, bytes]] = []
    for file in sorted((root / folder).rglob("*.py")):
        path = file.relative_to(root).as_posix()
        if not any(fnmatch(path, pattern) for pattern in LEFT_OUT):
            source = file.read_bytes()
            found += [(statement, source) for statement in statements(path, source)]
    for statement, source in sorted(found, key=lambda pair: pair[0].rank(seed)):
        if (edit := statement.choice(seed, source)) is not None:
            yield Mutant(statement, edit, source)


def draw(root: Path, seed: int, count: int, known: dict[str, str]) -> tuple[list[Mutant], list[Mutant]]:
    """``count`` mutants, as many from each folder as from every other, and the equivalents that were passed over.

    Args:
        root: Root of the repository.
        seed: Seed of the draw.
        count: How many are to be judged.
        known: Names of equivalents.
    """
    judged: list[Mutant] = []
    passed: list[Mutant] = []
    for i, folder in enumerate(PACKAGES):
        share = count // len(PACKAGES) + (i < count % len(PACKAGES))
        own = 0
        for mutant in ordered(root, folder, seed):
            if own == share:
                break
            if mutant.name in known:
                passed.append(mutant)
            else:
                judged.append(mutant)
                own += 1
    return judged, passed
