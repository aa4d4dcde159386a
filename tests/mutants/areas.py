"""Which tests judge a mutant: those that call its function, as once traced, and new ones whose file imports its module.

``areas.json`` holds, for each function, tests that called it: first those of its own folder, of these first the ones
that call little else, up to :data:`ENOUGH` seconds of processor time. A test with many sets of parameters is kept with
a second one only where every other test has its place. ``python tests/mutants --trace-tests`` brings the map up to
date, running only the files of tests that have changed since, or whose subjects have moved.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from calls import OUT
from draw import Mutant

ENOUGH = 45.0
"""Seconds of processor time, traced, after which no further test of a function is kept."""
FEW, MOST = 3, 60
"""So many tests of a function are kept whatever they take, and no more than so many."""
UNKNOWN_S = 3.0
"""Seconds that a test is taken to need that has not been traced."""
MAP = Path(__file__).with_name("areas.json")
NEVER = ("time_limit", "killed_and_continued")
"""Tests with these words in their names look at the clock, which several processes at once disturb."""


@dataclass
class Areas:
    """The map.

    Attributes:
        files: SHA-256 of each traced file of tests.
        tests: Names of tests, their seconds, and how many functions they call.
        functions: By file and function, places in ``tests``.
    """

    files: dict[str, str] = field(default_factory=dict)
    tests: list[tuple[str, float, int]] = field(default_factory=list)
    functions: dict[str, dict[str, list[int]]] = field(default_factory=dict)

    @classmethod
    def load(cls) -> Areas:
        """The committed map, or an empty one."""
        return cls(**json.loads(MAP.read_text())) if MAP.exists() else cls()

    def fresh(self, root: Path) -> list[str]:
        """Files of tests that are not as they were traced, or called what has moved since."""
        moved = {
            self.tests[i][0].partition("::")[0]
            for path, functions in self.functions.items()
            if not (root / path).exists()
            for places in functions.values()
            for i in places
        }
        return [path for path in test_files(root) if path in moved or self.files.get(path) != digest(root / path)]

    def of(self, mutant: Mutant, root: Path, there: list[str]) -> tuple[list[str], float]:
        """Tests for a mutant among those that there are, and about how many seconds they take."""
        own = self.functions.get(mutant.path, {})
        name = mutant.statement.function
        known = {test: took for test, took, _ in self.tests}
        traced = [self.tests[i][0] for i in own.get(name, ())] or self._united(mutant.path, name)
        module, folder = module_of(mutant.path), f"tests/{mutant.path.partition('/')[0]}/"
        if sum(test.startswith(folder) for test in traced) >= FEW:
            # Whole comparisons call everything and judge little of it.
            traced = [test for test in traced if test.startswith(folder) or not test.startswith("tests/experiments/")]
        near = [test for test in there if imports(root / test.partition("::")[0], module)]
        # A module that is new, or has moved since the trace, is judged by whatever imports it.
        asked = traced or near or [test for test in there if test.startswith(folder)]
        existing, kept, seconds = set(there), [], 0.0
        for test in asked:
            took = known.get(test, UNKNOWN_S)
            usable = test in existing and not any(word in test for word in NEVER)
            if usable and (seconds + took <= ENOUGH or len(kept) < FEW):
                kept.append(test)
                seconds += took
        new = [test for test in near if test not in known and test not in kept]
        new = [test for test in new if not any(word in test for word in NEVER)]
        return kept + new, seconds + UNKNOWN_S * len(new)

    def _united(self, path: str, name: str) -> list[str]:
        """Tests of whatever is inside a class, or else of all functions of a file."""
        own = self.functions.get(path, {})
        inside = [i for f, found in own.items() if f.startswith(f"{name}.") for i in found]
        places = inside or [i for found in own.values() for i in found]
        known = {test: (took, breadth) for test, took, breadth in self.tests}
        return _best(path, [self.tests[i][0] for i in places], known)


def digest(path: Path) -> str:
    """SHA-256 of a file, shortened."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def test_files(root: Path) -> list[str]:
    """All files of tests but those of packaging, which build and install."""
    found = (path.relative_to(root).as_posix() for path in (root / "tests").rglob("test_*.py"))
    return sorted(path for path in found if not path.startswith("tests/packaging/"))


def module_of(path: str) -> str:
    """Import name of a file of the packages."""
    return "steersman." + path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(path: Path, module: str) -> bool:
    """Whether a file imports a module, or something from it."""
    return module in _imported(path, path.stat().st_mtime_ns)


@cache
def _imported(path: Path, mtime: int) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


# ------------------------------------------------------------------ making the map


def trace(root: Path, tree: Path, only: Sequence[str] = ()) -> None:
    """Run the files of tests that have changed, note what they call, and write the map.

    Args:
        root: Root of the repository.
        tree: A copy of it in which the tests are run.
        only: Files to run; by default all that have changed.
    """
    areas = Areas.load()
    lines = tree / "calls.jsonl"
    path = os.pathsep.join((str(tree / ".typing"), str(Path(__file__).parent)))
    env = {**os.environ, "PYTHONPATH": path, OUT: str(lines), "OMP_NUM_THREADS": "1"}
    for file in only or areas.fresh(root):
        command = [sys.executable, "-m", "pytest", "-p", "calls", "-p", "no:cacheprovider", file]
        subprocess.run(command, cwd=tree, env=env)
        areas.files[file] = digest(root / file)
    merged(areas, lines.read_text().splitlines() if lines.exists() else [], root)


def merged(areas: Areas, lines: list[str], root: Path) -> None:
    """Put traced tests into the map in place of those of the same files, drop files that are gone, and write it."""
    traced = [json.loads(line) for line in lines]
    renewed = {entry["test"].partition("::")[0] for entry in traced}
    known: dict[str, tuple[float, int]] = {}
    callers: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for test, took, breadth in areas.tests:
        file = test.partition("::")[0]
        if file not in renewed and (root / file).exists():
            known[test] = (took, breadth)
    for path, functions in areas.functions.items():
        for name, places in functions.items():
            callers[path][name] += [areas.tests[i][0] for i in places if areas.tests[i][0] in known]
    for entry in traced:
        known[entry["test"]] = (entry["seconds"], len(entry["calls"]))
        for call in entry["calls"]:
            path, _, name = call.partition("::")
            callers[path][name].append(entry["test"])
    kept = {
        path: {name: _best(path, tests, known) for name, tests in sorted(functions.items())}
        for path, functions in sorted(callers.items())
    }
    place = {test: i for i, test in enumerate(sorted(known))}
    areas.tests = [(test, *known[test]) for test in place]
    areas.files = {path: sha for path, sha in sorted(areas.files.items()) if (root / path).exists()}
    areas.functions = {
        path: {name: [place[test] for test in tests] for name, tests in functions.items()}
        for path, functions in kept.items()
    }
    MAP.write_text(_json(areas))


def _best(path: str, tests: list[str], known: dict[str, tuple[float, int]]) -> list[str]:
    """Tests to keep: of the module's own folder first, of these first those that call little else."""
    folder = f"tests/{path.partition('/')[0]}/"
    usable = [test for test in dict.fromkeys(tests) if not any(word in test for word in NEVER)]
    narrow = sorted(usable, key=lambda test: (not test.startswith(folder), known[test][1], known[test][0]))
    # Errors that are refused early call the least; the many sets of parameters of one such test would fill all places.
    turns: Counter[str] = Counter()
    turn = {}
    for test in narrow:
        name = test.partition("[")[0]
        turn[test], turns[name] = turns[name], turns[name] + 1
    kept, total = [], 0.0
    for test in sorted(narrow, key=lambda test: (not test.startswith(folder), turn[test])):
        if total + known[test][0] <= ENOUGH or len(kept) < FEW:
            kept.append(test)
            total += known[test][0]
        if len(kept) == MOST:
            break
    return kept


def _json(areas: Areas) -> str:
    """One line for each test and each function, so that changes can be read."""
    functions = ",\n".join(
        f"  {json.dumps(path)}: {{\n"
        + ",\n".join(f"   {json.dumps(name)}: {json.dumps(places)}" for name, places in found.items())
        + "\n  }"
        for path, found in areas.functions.items()
    )
    tests = ",\n".join(f"  {json.dumps(list(test))}" for test in areas.tests)
    return f'{{\n "files": {json.dumps(areas.files, indent=2)},\n "tests": [\n{tests}\n ],\n "functions": {{\n{functions}\n }}\n}}\n'
