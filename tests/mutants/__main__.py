"""Keeps score of the tests: ``make mutants`` breaks sixty statements, one at a time, and counts what is noticed.

The draw takes as many statements from each folder, by a seed. Each mutant meets the tests of its area
(:mod:`areas`) in a copy of the tree; whatever fails there must pass without the mutant, or it does not count. A test
that never ends counts as one that noticed. An interrupted run goes on where it stopped, as long as neither sources nor
tests change. A survivor asks for a test, or for an entry in ``equivalents.json`` with the reason why it does the same.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import tyro
from areas import Areas, trace
from arena import Arena, Copy, Verdict
from draw import Mutant, draw, equivalents
from page import Score, table, write
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SEED = 20261130


def main(
    seed: int = SEED,
    count: int = 60,
    processes: int = 0,
    only: tuple[str, ...] = (),
    show: bool = False,
    trace_tests: bool = False,
    out: Path = HERE,
) -> int:
    """Break statements and count what the tests notice.

    Args:
        seed: Seed of the draw.
        count: Mutants to judge, besides equivalents.
        processes: Runs at once; 0 takes the number of cores.
        only: Names of mutants; judges these alone and writes no page. With ``trace_tests``, files of tests.
        show: Only show what would be broken.
        trace_tests: Bring the map from functions to tests up to date instead.
        out: Where the page is written.

    Returns:
        Exit status: 1 if fewer than 55 of 60 were noticed.
    """
    console, began = Console(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        if trace_tests:
            trace(ROOT, Copy(ROOT, Path(scratch) / "tree").tree, only)
            return 0
        known = equivalents()
        mutants, passed = draw(ROOT, seed, count, known)
        mutants = [m for m in mutants if m.name in only] if only else mutants
        areas = Areas.load()
        if show:
            for mutant in mutants:
                console.print(f"{_where(mutant)}\n{mutant.diff}", markup=False, soft_wrap=True)
            return 0
        if stale := areas.fresh(ROOT):
            console.print(f"{len(stale)} files of tests are not as the map knows them: --trace-tests renews it")
        arena = Arena(ROOT, Path(scratch), ROOT / "results" / "mutants" / "verdicts.jsonl", processes or _cores())
        verdicts = _judged(arena, mutants, areas, console)
        minutes = (time.monotonic() - began) / 60
        score = Score(
            seed, arena.digest, minutes, arena.processes, mutants, verdicts, [(m, known[m.name]) for m in passed]
        )  # fmt: skip
    console.print(table(score))
    for mutant, verdict in zip(mutants, verdicts, strict=True):
        if not verdict.killed:
            console.print(
                f"\nsurvived {verdict.tests} tests: {_where(mutant)}\n{mutant.diff}", markup=False, soft_wrap=True
            )
    if not only:
        write(score, out)
    console.print(f"{score.killed} of {len(verdicts)} killed in {minutes:.1f} minutes")
    return 0 if score.enough else 1


def _judged(arena: Arena, mutants: list[Mutant], areas: Areas, console: Console) -> list[Verdict]:
    there = arena.collected()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("mutants", total=len(mutants))

        def done(mutant: Mutant, verdict: Verdict) -> None:
            word = f"killed by {verdict.by}" if verdict.killed else "SURVIVED"
            line = f"{verdict.seconds:6.1f} s  {_where(mutant)}  {word}"
            progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
            progress.advance(task)

        return arena.run(mutants, lambda mutant: areas.of(mutant, ROOT, there), done)


def _where(mutant: Mutant) -> str:
    s = mutant.statement
    return f"{mutant.name} {s.path}:{s.line} {s.function} [{mutant.edit.operator}]"


def _cores() -> int:
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
