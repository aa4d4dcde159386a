"""Mutants against their tests, each in a copy of the tree, several at once; what is done is not done again."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue

from areas import MAP, digest
from calls import PACKAGES
from draw import Mutant

PATIENCE = 5
"""A mutant may take so many times the processor time of its tests, and five times that on the clock."""
START_S = 120.0
"""Processor seconds that a run may take beyond its tests: imports, collection, compilation of kernels."""
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_clock = itertools.count(1)


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant.

    Attributes:
        name: Name of the mutant.
        killed: Whether a test noticed.
        by: The test that did, ``timeout``, or ``import``.
        tests: How many tests or files of tests were asked.
        seconds: Wall seconds.
    """

    name: str
    killed: bool
    by: str
    tests: int
    seconds: float


def copy_tree(root: Path, to: Path) -> Path:
    """Files of the working tree that git does not ignore, and links that make them importable, in a new folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=root, check=True, capture_output=True
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        source, target = root / name, to / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    links = to / ".typing" / "steersman"
    links.mkdir(parents=True)
    for package in PACKAGES:
        (links / package).symlink_to(Path("../..") / package)
    return to


def tree_digest(root: Path) -> str:
    """SHA-256 of all sources and tests: what a verdict holds for."""
    total = hashlib.sha256()
    for folder in (*PACKAGES, "tests"):
        for path in sorted((root / folder).rglob("*")):
            own = path.is_relative_to(root / "tests" / "mutants")
            if path.is_file() and "__pycache__" not in path.parts and not own:
                total.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return total.hexdigest()[:16]


class Copy:
    """A copy of the tree in which tests can be run."""

    def __init__(self, root: Path, to: Path) -> None:
        """Make the copy."""
        self.tree = copy_tree(root, to)
        env = {**os.environ, "PYTHONPATH": str(self.tree / ".typing"), "OMP_NUM_THREADS": "1", "COLUMNS": "1000"}
        self.env = {**env, "TMPDIR": str(to.parent), "PYTEST_DEBUG_TEMPROOT": str(to.parent)}

    def write(self, path: str, source: bytes) -> None:
        """Exchange a file; its time of change is like no other, so that no cache of its former content is used."""
        file = self.tree / path
        file.write_bytes(source)
        stamp = time.time() + 10 * next(_clock)
        os.utime(file, (stamp, stamp))

    def pytest(self, arguments: list[str], seconds: float) -> tuple[int, str]:
        """Exit status and output of a run of pytest; the status is -1 where it ran out of time."""
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-x", "--tb=no", "-rfE", *arguments]
        limit = int(PATIENCE * seconds + START_S)

        def bound() -> None:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

        with subprocess.Popen(
            command, cwd=self.tree, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=bound
        ) as process:
            try:
                out, _ = process.communicate(timeout=5 * limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                out, _ = process.communicate()
                return -1, out.decode(errors="replace")
        return (-1 if process.returncode in (-24, -9) else process.returncode), out.decode(errors="replace")

    def collected(self) -> list[str]:
        """Names of all tests of the copy but those of packaging, which build and install."""
        command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", "-o", "addopts="]
        found = subprocess.run(
            [*command, "--import-mode=importlib", "-qq", "--verbosity=-1", "-m", "not slow"],
            cwd=self.tree, env=self.env, capture_output=True, text=True,
        )  # fmt: skip
        names = [line.strip() for line in found.stdout.splitlines() if "::" in line]
        if found.returncode or not names:
            raise RuntimeError(f"the tests cannot be collected:\n{found.stdout[-2000:]}{found.stderr[-2000:]}")
        return [name for name in names if not name.startswith("tests/packaging/")]


class Arena:
    """Copies of the tree, the verdicts so far, and which tests are to be trusted."""

    def __init__(self, root: Path, scratch: Path, state: Path, processes: int) -> None:
        """Make ``processes`` copies in ``scratch`` and read verdicts of this very tree and map from ``state``."""
        self.copies: Queue[Copy] = Queue()
        for i in range(processes):
            self.copies.put(Copy(root, scratch / str(i) / "tree"))
        self.processes, self.state, self.digest, self.asked = processes, state, tree_digest(root), digest(MAP)
        self.trusted: dict[str, bool] = {}

    def collected(self) -> list[str]:
        """Names of all tests."""
        copy = self.copies.get()
        try:
            return copy.collected()
        finally:
            self.copies.put(copy)

    def known(self) -> dict[str, Verdict]:
        """Verdicts that hold for the present tree; that of a survivor only as long as the map asks the same tests."""
        if not self.state.exists():
            return {}
        found = {}
        for line in self.state.read_text().splitlines():
            entry = json.loads(line)
            tree, asked = entry.pop("digest"), entry.pop("map", "")
            if tree == self.digest and (entry["killed"] or asked == self.asked):
                found[entry["name"]] = Verdict(**entry)
        return found

    def run(
        self,
        mutants: list[Mutant],
        area: Callable[[Mutant], tuple[list[str], float]],
        done: Callable[[Mutant, Verdict], None],
    ) -> list[Verdict]:
        """Verdicts of all mutants, in their order; ``done`` is called as each comes in."""
        found = self.known()
        for mutant in mutants:
            if mutant.name in found:
                done(mutant, found[mutant.name])
        with ThreadPoolExecutor(self.processes) as pool:
            jobs = {pool.submit(self._judge, m, *area(m)): m for m in mutants if m.name not in found}
            try:
                for job in as_completed(jobs):
                    verdict = job.result()
                    self._keep(verdict)
                    found[verdict.name] = verdict
                    done(jobs[job], verdict)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return [found[mutant.name] for mutant in mutants]

    def _keep(self, verdict: Verdict) -> None:
        self.state.parent.mkdir(parents=True, exist_ok=True)
        with self.state.open("a") as file:
            file.write(json.dumps({"digest": self.digest, "map": self.asked, **asdict(verdict)}) + "\n")

    def _judge(self, mutant: Mutant, tests: list[str], seconds: float) -> Verdict:
        copy, began = self.copies.get(), time.monotonic()
        try:
            by = self._killer(copy, mutant, tests, seconds)
        finally:
            copy.write(mutant.path, mutant.source)
            self.copies.put(copy)
        return Verdict(mutant.name, bool(by), by, len(tests), round(time.monotonic() - began, 1))

    def _killer(self, copy: Copy, mutant: Mutant, tests: list[str], seconds: float) -> str:
        """The test that notices; empty if none does. A test that fails without the mutant too is not asked again."""
        wrong = [test for test in tests if self.trusted.get(test) is False]
        while True:
            copy.write(mutant.path, mutant.mutated)
            status, out = copy.pytest([*tests, *(f"--deselect={test}" for test in wrong)], seconds)
            if status in (0, 5):
                return ""
            failed = _FAILED.search(out)
            if status != -1 and (failed is None or "::" not in failed[1]):
                return "import"
            copy.write(mutant.path, mutant.source)
            if status == -1:
                # Slow tests are no judgement: they must have time to pass without the mutant.
                if copy.pytest(tests, seconds)[0] != -1:
                    return "timeout"
                seconds *= 4
            elif self._trusts(copy, failed[1]):
                return failed[1]
            else:
                wrong.append(failed[1])

    def _trusts(self, copy: Copy, test: str) -> bool:
        """Whether a test passes in the tree as it is; asked once for each."""
        if test not in self.trusted:
            self.trusted[test] = copy.pytest([test], 60.0)[0] == 0
        return self.trusted[test]
