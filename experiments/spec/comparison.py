"""What a comparison file says, as frozen dataclasses; everything is checked before anything runs."""

from __future__ import annotations

import math
import re
import sys
import tomllib
from collections.abc import Mapping
from datetime import date
from datetime import time as daytime
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from pydantic.dataclasses import dataclass

from steersman.dynamics.sensing import Sensing
from steersman.envs.failure import BANK
from steersman.envs.settings import missing
from steersman.experiments.spec.environment import STRICT, Environment
from steersman.experiments.spec.settings import SpecError, explain, refuse_flags

Spec = TypeVar("Spec")
"""The dataclass of a kind of file."""
NAME = re.compile(r"[A-Za-z0-9 ._-]+")
"""What may become the name of a file or folder."""
MOST = {"episodes": 1_000_000, "seeds": 1_000, "first_seed": 2**31 - 1, "recorded": 1_000, "bank": 2**63 - 1}
"""Upper bounds: beyond them a number is a slip of the pen."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataEntry:
    """Data that a model is fitted to: episodes under random levels, each held for a random time.

    Attributes:
        episodes: Number of episodes.
        steps: Control steps of an episode; by default the whole horizon.
        shortest: Least control steps that a level is held for.
        longest: Largest number of them.
        share: Levels are scaled by it, for plants that the full range of actions destroys.
        irregular: Entries are up to so many control periods apart (:class:`~steersman.dynamics.sensing.Sensing`).
        delay: Entries that outputs come late by.
        missing: Share of the outputs that are not measured.
        jitter: Largest error of the recorded times, as a share of the control period.
    """

    episodes: int = 32
    steps: int | None = None
    shortest: int = 1
    longest: int = 10
    share: float = 1.0
    irregular: int = 1
    delay: int = 0
    missing: float = 0.0
    jitter: float = 0.0

    @property
    def sensing(self) -> Sensing:
        """How the episodes are recorded."""
        return Sensing(irregular=self.irregular, delay=self.delay, missing=self.missing, jitter=self.jitter)

    def __post_init__(self) -> None:
        _ = self.sensing
        if not 1 <= self.episodes <= MOST["episodes"] or (self.steps is not None and self.steps < 1):
            raise ValueError(
                f"episodes and steps must be at least 1, and episodes at most {MOST['episodes']}, "
                f"got {self.episodes} and {self.steps}"
            )
        if not 1 <= self.shortest <= self.longest:
            raise ValueError(f"holds need 1 <= shortest <= longest, got {self.shortest} and {self.longest}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share must lie in (0, 1], got {self.share}")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelEntry:
    """A model of one plant, shared by all controllers that name its label."""

    use: str
    label: str = ""
    settings: dict[str, Any] = pydantic.Field(default_factory=dict)
    data: DataEntry = DataEntry()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ControllerEntry:
    """A controller on one plant.

    Attributes:
        use: Name in the registry.
        label: Name in the report; by default ``use``, with the model.
        model: Label of a model of the plant, or the name of a registered one with default settings.
        settings: Arguments of the constructor.
        episodes: Scenarios for a slow controller: the first ones of the bank; by default all.
        preview: False hides future references from a controller that would use them.
    """

    use: str
    label: str = ""
    model: str = ""
    settings: dict[str, Any] = pydantic.Field(default_factory=dict)
    episodes: int | None = None
    preview: bool = True

    @property
    def name(self) -> str:
        """Name of the controller in the report."""
        return self.label or (f"{self.use} ({self.model})" if self.model else self.use)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PlantEntry(Environment):
    """An environment and the controllers that compete on it.

    Attributes:
        controllers: The competitors; the baseline must be among them.
        label: Name in the report, where one environment takes part with several settings; by default its id.
        models: Models with settings of their own.
        shown: Performance outputs worth plotting; by default the first four.
        seeds: Training seeds on this plant; by default the comparison's.

    Raises:
        ValueError: If ``seeds`` is out of range.
    """

    controllers: tuple[ControllerEntry, ...]
    label: str = ""
    models: tuple[ModelEntry, ...] = ()
    shown: tuple[str, ...] = ()
    seeds: int | None = None

    def __post_init__(self) -> None:
        if self.seeds is not None and not 1 <= self.seeds <= MOST["seeds"]:
            raise ValueError(f"seeds must be at least 1 and at most {MOST['seeds']}, got {self.seeds}")

    @property
    def name(self) -> str:
        """Name of the plant in the report."""
        return self.label or self.id

    @property
    def environment(self) -> Environment:
        """What is run, without those who compete on it."""
        return Environment(**{name: getattr(self, name) for name in Environment.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ComparisonSpec:
    """A whole comparison file.

    Attributes:
        name: Name of the comparison, and of the folder of its results.
        summary: One line for ``steersman list``.
        plants: Plants with their controllers.
        episodes: Scenarios in the bank of each plant.
        seeds: Training seeds: runs of each controller that learns or plans with a learned model.
        first_seed: The first of them; the others follow it.
        bank: Seed of the scenario banks.
        baseline: ``use`` of the controller that the others are compared with.
        device: Where plants and models run.
        recorded: Scenarios that are recorded in full, for pictures.
        limit_s: A fit or run that takes longer is ended and reported as failed; no limit by default.
        folder: Where the file lies; modules beside it can be named in it.
    """

    name: str
    plants: tuple[PlantEntry, ...]
    summary: str = ""
    episodes: int = 64
    seeds: int = 1
    first_seed: int = 0
    bank: int = BANK
    baseline: str = "zero"
    device: str = "cpu"
    recorded: int = 2
    limit_s: float | None = None
    folder: str = ""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name) or not self.name.strip(" ."):
            raise ValueError(
                f"name becomes a folder and may hold letters, digits, blanks, '.', '_' and '-', got {self.name!r}"
            )
        for name, most in MOST.items():
            value, least = getattr(self, name), 0 if name in ("bank", "first_seed") else 1
            if not least <= value <= most:
                raise ValueError(f"{name} must be at least {least} and at most {most}, got {value}")
        if self.limit_s is not None and not 0 < self.limit_s < math.inf:
            raise ValueError(f"limit_s must be a finite positive number of seconds, got {self.limit_s}")
        if not self.plants:
            raise ValueError("a comparison needs at least one [[plants]] entry")


# ------------------------------------------------------------------ reading


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("steersman.experiments.presets")
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_spec(source: str) -> ComparisonSpec:
    """Read a preset by name, or a TOML file by path; modules beside the file can be named in it.

    A comparison file names code that will be run: treat one from a stranger as you would treat his program.

    Raises:
        SpecError: If there is no such preset or file, it is not TOML, or a key is wrong.
    """
    path = Path(source)
    if path.suffix == ".toml":
        if not path.is_file():
            raise SpecError(f"no such file: {source}; presets are {', '.join(presets())}")
        content, beside = path.read_bytes(), {"folder": str(path.resolve().parent)}
        look_beside(beside["folder"])
    elif source in presets():
        content, beside = resources.files("steersman.experiments.presets").joinpath(f"{source}.toml").read_bytes(), {}
    else:
        known = presets()
        raise SpecError(f"unknown preset {missing(source, known)}, or give a path that ends in .toml")
    return parse_spec({"name": path.stem, **beside, **toml_in(content, source)})


def toml_in(content: bytes, source: str) -> dict[str, Any]:
    """The tables and keys of a TOML file; ``source`` names it in errors.

    Raises:
        SpecError: If it is no TOML.
    """
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SpecError(f"{source} is not UTF-8 text ({error}); save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{source} is not valid TOML: {error}") from error


def look_beside(folder: str) -> None:
    """Look for modules in a comparison file's folder first, and then in the current one.

    Files of several folders may be read in one process, and two folders may hold modules of one name.
    """
    for place in (str(Path.cwd()), folder):
        if place == folder != "" and place in sys.path:
            sys.path.remove(place)
        if place and place not in sys.path:
            sys.path.insert(0, place)


def parse_spec(data: dict[str, Any]) -> ComparisonSpec:
    """A comparison from plain data.

    Raises:
        SpecError: With the path of the wrong key.
    """
    return parsed(ComparisonSpec, data)


def parsed(kind: type[Spec], data: dict[str, Any]) -> Spec:
    """A file's dataclass from plain data.

    Raises:
        SpecError: With the path of the wrong key.
    """
    _require_plain(data, "")
    refuse_flags(kind, data, "")
    try:
        return pydantic.TypeAdapter(kind).validate_python(data)
    except pydantic.ValidationError as error:
        raise SpecError(explain(error, "", kind)) from error


def _require_plain(data: Any, where: str) -> None:
    """TOML knows ``nan``, ``inf``, dates and times; no setting does."""
    if isinstance(data, date | daytime):
        raise SpecError(f"{where}: dates and times are no settings, got {data}; write a text in quotes")
    if isinstance(data, float) and not math.isfinite(data):
        raise SpecError(f"{where}: numbers must be finite, got {data}")
    if isinstance(data, Mapping):
        for name, value in data.items():
            _require_plain(value, f"{where}.{name}".strip("."))
    elif isinstance(data, list | tuple):
        for i, value in enumerate(data):
            _require_plain(value, f"{where}.{i}".strip("."))
