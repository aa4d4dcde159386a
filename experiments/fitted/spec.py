"""What a fitting file says: the log, the models, and how they are scored."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from steersman.dynamics.recorded.log import Log
from steersman.dynamics.registry import model_spec
from steersman.envs.settings import Count, Settings, Share
from steersman.experiments.spec.comparison import NAME, look_beside
from steersman.experiments.spec.settings import SpecError, validated


@dataclass(frozen=True, kw_only=True)
class FittedModel(Settings):
    """A model to fit.

    Attributes:
        use: Its name, or ``module:Name`` of your own.
        label: Name of its folder and in the table; by default ``use``.
        settings: Its settings.
    """

    use: str
    label: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not NAME.fullmatch(self.name) or not self.name.strip(" .") or Path(self.name).suffix in (".json", ".png"):
            raise ValueError(
                f"label becomes a folder and may hold letters, digits, blanks, '.', '_' and '-', got {self.name!r}"
            )

    @property
    def name(self) -> str:
        """Name in the table."""
        return self.label or self.use.rpartition(":")[2]


@dataclass(frozen=True, kw_only=True)
class Scoring(Settings):
    """How models are scored: by predictions on episodes that none of them was fitted to.

    Attributes:
        held_back: Share of the episodes that is held back, at equal distances; of a single episode, its end.
        horizon: Largest number of control steps ahead.
    """

    held_back: Share = 0.25
    horizon: Count = 20


@dataclass(frozen=True, kw_only=True)
class FittingSpec:
    """A whole fitting file.

    Attributes:
        name: Name of the file.
        log: What was recorded.
        models: What is fitted to it.
        score: How that is judged.
    """

    name: str
    log: Log
    models: tuple[FittedModel, ...]
    score: Scoring = Scoring()


def read_fitting(source: str | Path) -> FittingSpec:
    """Read a TOML file; the log and modules of your own are looked for beside it.

    Raises:
        SpecError: If there is no such file, it is not TOML, or a key is wrong.
    """
    path = Path(source)
    if not path.is_file():
        raise SpecError(f"no such file: {source}; a fitting file is TOML with [log] and [[models]]")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpecError(f"{source} is no TOML in UTF-8: {error}") from error
    look_beside(str(path.resolve().parent))
    found = parse_fitting(path.stem, data)
    beside = path.parent / found.log.file
    return replace(found, log=replace(found.log, file=os.fspath(beside))) if beside.is_file() else found


def parse_fitting(name: str, data: Mapping[str, Any]) -> FittingSpec:
    """The same from plain data.

    Raises:
        SpecError: With the path of the wrong key.
    """
    known = ("log", "models", "score")
    if strange := [key for key in data if key not in known]:
        raise SpecError(f"{strange[0]}: unknown key; known: {', '.join(known)}")
    if "log" not in data or not data.get("models"):
        raise SpecError("a fitting file has a [log] and at least one [[models]] entry")
    log = _made(Log, data["log"], "log")
    models = tuple(_made(FittedModel, entry, f"models.{i}") for i, entry in enumerate(data["models"]))
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise SpecError(f"models: names must differ, got {', '.join(names)}; set label")
    for i, model in enumerate(models):
        _require_fit(model, f"models.{i}")
    return FittingSpec(name=name, log=log, models=models, score=_made(Scoring, data.get("score", {}), "score"))


def _made(kind: type[Any], given: Any, where: str) -> Any:
    if not isinstance(given, Mapping):
        raise SpecError(f"{where}: must be a table of keys, got {given!r}")
    try:
        return kind(**validated(kind, given, where))
    except SpecError:
        raise
    except ValueError as error:
        raise SpecError(f"{where}: {error}") from error


def _require_fit(model: FittedModel, where: str) -> None:
    try:
        spec = model_spec(model.use)
    except ValueError as error:
        raise SpecError(f"{where}.use: {error}") from error
    if spec.needs_plant:
        raise SpecError(f"{where}.use: {model.use!r} is made of a plant, and a log has none; choose a learned model")
    validated(spec.make, model.settings, f"{where}.settings")
