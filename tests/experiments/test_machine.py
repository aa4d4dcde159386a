"""Where a result was made: the commit of the code, and only of the code."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from steersman.experiments.comparison import machine


def commit(folder: Path, file: str) -> None:
    """A repository with one commit of one file."""
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", file], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the module in a folder of its own."""
    folder = tmp_path / "inside"
    folder.mkdir()
    file = folder / "machine.py"
    shutil.copy(machine.__file__, file)
    monkeypatch.setattr(machine, "__file__", str(file))
    return file


def test_the_commit_of_the_code_and_whether_files_differ(copy: Path) -> None:
    commit(copy.parent, copy.name)
    told = machine.describe_commit()
    assert re.fullmatch(r"[0-9a-f]{12}", told)
    copy.write_text("# edited")
    assert machine.describe_commit() == f"{told}+"


def test_no_commit_outside_a_checkout_or_inside_that_of_something_else(copy: Path) -> None:
    assert machine.describe_commit() == ""
    (copy.parent.parent / "other.txt").write_text("a project of the user's")
    commit(copy.parent.parent, "other.txt")
    assert machine.describe_commit() == ""
