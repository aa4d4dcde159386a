"""The runner that keeps score of the tests: what it breaks, what it leaves alone, and that a draw can be repeated."""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "mutants"

SOURCE = b'''"""A module."""
from typing import TYPE_CHECKING

LIMIT: int = 3

if TYPE_CHECKING:
    import torch


class Thing:
    """A thing of size 1 + 1."""

    def size(self, x: float) -> float:
        """Size."""
        assert x > 0
        if x >= LIMIT and x != 5:
            raise ValueError(f"x must be {1 + 1}")
        self.last = max(x, 1e-9)
        progress(1, 2)
        return 2.0 if x < 1 else where(x, 1, -x)
'''


@pytest.fixture(scope="module")
def modules() -> Iterator[tuple[ModuleType, ModuleType]]:
    sys.path.insert(0, str(FOLDER))
    try:
        import draw
        import mutations

        yield mutations, draw
    finally:
        sys.path.remove(str(FOLDER))


def test_breaks_of_a_small_module(modules: tuple[ModuleType, ModuleType]) -> None:
    mutations, _ = modules
    found = mutations.statements("a/b.py", SOURCE)
    broken = {
        (s.function, SOURCE[e.start : e.end].decode(), e.text)
        for s in found
        for e in s.edits
        if e.operator != "constant"
    }
    inside = "Thing.size"
    assert broken == {
        (inside, ">=", ">"), (inside, ">=", "<"), (inside, "and", "or"), (inside, "!=", "=="),
        (inside, "x >= LIMIT and x != 5", "not (x >= LIMIT and x != 5)"),
        (inside, 'raise ValueError(f"x must be {1 + 1}")', "pass"),
        (inside, "self.last = max(x, 1e-9)", "pass"), (inside, "max", "min"),
        (inside, "<", "<="), (inside, "<", ">="), (inside, "-x", "(x)"), (inside, "1, -x", "-x, 1"),
        (inside, "2.0 if x < 1 else where(x, 1, -x)", "(where(x, 1, -x)) if (x < 1) else (2.0)"),
        (inside, "2.0 if x < 1 else where(x, 1, -x)", "float(0)"),
    }  # fmt: skip
    constants = {(s.text, e.text) for s in found for e in s.edits if e.operator == "constant"}
    assert ("LIMIT: int = 3", "4") in constants and ("LIMIT: int = 3", "2") in constants
    assert not any("1e-9" in text or "progress" in text or "must" in text for text, _ in constants)
    for statement in found:
        for edit in statement.edits:
            assert ast.dump(ast.parse(mutations.apply(SOURCE, edit))) != ast.dump(ast.parse(SOURCE))


def test_a_draw_is_spread_repeated_and_does_not_move_with_edits_elsewhere(
    modules: tuple[ModuleType, ModuleType], tmp_path: Path
) -> None:
    _, draw = modules
    for folder in draw.PACKAGES:
        (tmp_path / folder / "benchmarks").mkdir(parents=True)
        (tmp_path / folder / "things.py").write_bytes(SOURCE)
    (tmp_path / "experiments" / "benchmarks" / "slow.py").write_bytes(SOURCE)
    judged, passed = draw.draw(tmp_path, 1, 15, {})
    assert [m.path for m in judged] == [f"{folder}/things.py" for folder in draw.PACKAGES for _ in range(3)]
    assert not passed and len({m.name for m in judged}) == 15
    again, _ = draw.draw(tmp_path, 1, 15, {})
    other, _ = draw.draw(tmp_path, 2, 15, {})
    assert [m.name for m in again] == [m.name for m in judged] != [m.name for m in other]
    (tmp_path / "envs" / "things.py").write_bytes(b"import os\n\nOTHER = os.sep\n\n\n" + SOURCE)
    assert [m.name for m in draw.draw(tmp_path, 1, 15, {})[0]] == [m.name for m in judged]
    known = {judged[0].name: "does the same"}
    without, passed = draw.draw(tmp_path, 1, 15, known)
    assert [m.name for m in passed] == [judged[0].name] and len(without) == 15 and judged[0] not in without
    assert all(m.diff.count("\n") >= 1 and m.mutated != m.source for m in judged)


def test_the_map_and_the_equivalents_are_about_what_there_is() -> None:
    areas = json.loads((FOLDER / "areas.json").read_text())
    assert {"envs/plant.py", "controllers/classical/lqr.py", "optimizers/base.py"} <= set(areas["functions"])
    assert all(0 <= i < len(areas["tests"]) for found in areas["functions"].values() for p in found.values() for i in p)
    for entry in json.loads((FOLDER / "equivalents.json").read_text()).values():
        assert (ROOT / entry["path"]).exists() and len(entry["reason"]) > 20


def test_many_parameters_of_one_test_leave_places_for_others(modules: tuple[ModuleType, ModuleType]) -> None:
    import areas

    refused = [f"tests/envs/test_a.py::test_refused[{i}]" for i in range(areas.MOST)]
    broad, abroad = "tests/envs/test_b.py::test_whole_episodes", "tests/experiments/test_c.py::test_all"
    known = dict.fromkeys(refused, (0.01, 5)) | {broad: (0.5, 200), abroad: (0.1, 2)}
    kept = areas._best("envs/a.py", [*refused, abroad, broad], known)
    assert kept == [refused[0], broad, *refused[1 : areas.MOST - 1]]


def test_files_that_have_changed_or_whose_subjects_have_moved_are_to_be_traced(
    modules: tuple[ModuleType, ModuleType], tmp_path: Path
) -> None:
    import areas

    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "here.py").touch()
    (tmp_path / "tests" / "envs").mkdir(parents=True)
    files = [f"tests/envs/test_{name}.py" for name in ("changed", "kept", "moved", "new")]
    for file in files:
        (tmp_path / file).touch()
    known = {file: areas.digest(tmp_path / file) for file in files[:3]}
    (tmp_path / files[0]).write_text("# more\n")
    tests = [(f"{file}::test_it", 0.1, 1) for file in files[:3]]
    functions = {"envs/here.py": {"one": [0, 1]}, "envs/gone.py": {"one": [2]}}
    assert areas.Areas(known, tests, functions).fresh(tmp_path) == [files[0], files[2], files[3]]


def test_a_survivor_is_judged_again_when_the_map_names_other_tests(
    modules: tuple[ModuleType, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import arena

    state, asked = tmp_path / "verdicts.jsonl", tmp_path / "areas.json"
    monkeypatch.setattr(arena, "MAP", asked)
    asked.write_text("{}")
    first = arena.Arena(ROOT, tmp_path, state, 0)
    for name, by in (("killed", "a test"), ("survivor", "")):
        first._keep(arena.Verdict(name, bool(by), by, 3, 1.0))
    assert set(arena.Arena(ROOT, tmp_path, state, 0).known()) == {"killed", "survivor"}
    asked.write_text("{ }")
    assert set(arena.Arena(ROOT, tmp_path, state, 0).known()) == {"killed"}


def test_what_runs_on_import_is_judged_by_all_tests_of_the_file_or_class(
    modules: tuple[ModuleType, ModuleType],
) -> None:
    import areas
    import calls

    one, other, far = (f"tests/envs/test_a.py::test_{name}" for name in ("one", "other", "far"))
    functions = {"envs/a.py": {"Thing.size": [0], "Thing.grow": [1, 0], "check": [2]}}
    known = areas.Areas({}, [(one, 0.1, 9), (other, 0.1, 3), (far, 0.1, 5)], functions)
    assert known._united("envs/a.py", "Thing") == [other, one]
    assert known._united("envs/a.py", "<module>") == [other, far, one]
    calls._called.clear()
    before = sys.gettrace()
    sys.settrace(calls._note)
    exec(compile("class Body:\n    def method(self): return 1\nBody().method()\n", "made.py", "exec"), {})
    sys.settrace(before)
    assert [code.co_qualname for code in calls._called if code.co_filename == "made.py"] == ["Body.method"]
    calls._called.clear()
