"""The page on comparison files: its examples run, and it names every key with its default."""

import json
import re
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from steersman.experiments.comparison.compare import check_problems, compare
from steersman.experiments.spec.comparison import (
    ComparisonSpec,
    ControllerEntry,
    DataEntry,
    ModelEntry,
    PlantEntry,
    read_spec,
)
from steersman.experiments.spec.environment import LimitEntry, OutputEntry, ReferenceEntry, TermEntry, WrapperEntry
from steersman.experiments.spec.plan import plan

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "experiments" / "comparison-files.md").read_text()
SECTIONS = {
    "The file itself": ComparisonSpec,
    "`[[plants]]`": PlantEntry,
    "`[[plants.controllers]]`": ControllerEntry,
    "`[[plants.models]]`": ModelEntry,
    "`data` of a model": DataEntry,
    "An entry of `objective`": TermEntry,
    "An entry of `limits`": LimitEntry,
    "An entry of `outputs`": OutputEntry,
    "An entry of `references`": ReferenceEntry,
    "An entry of `wrappers`": WrapperEntry,
}
BY_READING = {"name", "folder", "data"}
"""Keys whose default is made when the file is read, or told in a section of its own."""


def block(language: str, number: int = 0) -> str:
    return str(re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)[number])


def rows(title: str) -> dict[str, str]:
    """Keys of a section's table, with their defaults as they are written."""
    section = PAGE.split(f"### {title}\n", 1)[1].split("\n### ", 1)[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section, flags=re.MULTILINE))


@pytest.mark.parametrize("title", SECTIONS)
def test_every_key_is_told_with_its_default(title: str) -> None:
    told, kind = rows(title), SECTIONS[title]
    assert set(told) == {field.name for field in fields(kind)}
    for field in fields(kind):
        default: Any = field.default
        if isinstance(default, FieldInfo):
            default = default.get_default(call_default_factory=True)
        if kind in (ComparisonSpec, ModelEntry) and field.name in BY_READING:
            continue
        if default is MISSING:
            assert told[field.name] == "required", field.name
        elif default is None:
            assert told[field.name] == "none", field.name
        else:
            plain = json.dumps(list(default) if isinstance(default, tuple) else default)
            assert told[field.name] == f"`{plain}`", field.name


def keys(data: Any) -> set[str]:
    if isinstance(data, dict):
        return set(data) | {key for part in data.values() for key in keys(part)}
    return {key for part in data for key in keys(part)} if isinstance(data, list) else set()


def test_the_example_has_every_key_and_can_run(tmp_path: Path) -> None:
    (tmp_path / "tank.py").write_text(block("python"))
    (tmp_path / "tank.toml").write_text(block("toml", 1))
    known = {field.name for kind in SECTIONS.values() for field in fields(kind)} - {"folder", "column"}
    assert known <= keys(tomllib.loads(block("toml", 1)))
    spec = read_spec(str(tmp_path / "tank.toml"))
    check_problems(spec)
    assert [p.label for p in plan(spec)] == ["zero", "mppi, short"]
    for slip, message in (("limit_s", "lmit_s"), ("shown", "show"), ("episodes = 32", "episode = 32")):
        (tmp_path / "slip.toml").write_text(block("toml", 1).replace(slip, message, 1))
        with pytest.raises(ValueError, match=rf"unknown key \(did you mean '{slip.split()[0]}'\?\)"):
            read_spec(str(tmp_path / "slip.toml"))


def test_the_example_runs_when_it_is_small(tmp_path: Path) -> None:
    text = block("toml", 1).replace("limit_s = 600.0", "").replace("max_episode_steps = 100", "max_episode_steps = 12")
    for slow, quick in (
        ("episodes = 64", "episodes = 2"),
        ("steps = 50", "steps = 12"),
        ("samples = 32", "samples = 8"),
    ):
        assert slow in text
        text = text.replace(slow, quick)
    (tmp_path / "tank.py").write_text(block("python"))
    (tmp_path / "tank.toml").write_text(text)
    found = compare(read_spec(str(tmp_path / "tank.toml")), tmp_path / "out")
    assert not found.failures and [r.controller for r in found.results] == ["zero", "mppi, short"]
    assert found.plants[0].performed == ("first", "second", "target", "gap", "reward")


def test_the_smallest_file_can_run(tmp_path: Path) -> None:
    (tmp_path / "smallest.toml").write_text(block("toml"))
    spec = read_spec(str(tmp_path / "smallest.toml"))
    check_problems(spec)
    assert spec.name == "smallest" and len(plan(spec)) == 2


def test_the_readme_links_to_the_page() -> None:
    assert "(experiments/comparison-files.md)" in (ROOT / "README.md").read_text()
