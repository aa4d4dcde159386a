"""What a comparison file says, as frozen dataclasses; everything is checked before anything runs."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, replace
from importlib import metadata, resources
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from steersman.controllers.registry import controller_spec
from steersman.dynamics.registry import MODELS, model_spec
from steersman.envs.objective import L1, Linear, LInf, Objective, Quadratic, Term
from steersman.experiments.settings import SpecError, explain, validated

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TermEntry:
    """A stage cost for an environment that has none of its own, written in its observation or action."""

    kind: Literal["quadratic", "linear", "l1", "linf"]
    on: Literal["z", "u", "du"]
    weights: tuple[float, ...]

    def build(self) -> Term:
        """The term."""
        kinds: dict[str, Any] = {"quadratic": Quadratic, "linear": Linear, "l1": L1, "linf": LInf}
        term: Term = kinds[self.kind](name=f"{self.kind} {self.on}", on=self.on, weights=self.weights)
        return term


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DataEntry:
    """Data that a model is fitted to: episodes under random levels, each held for a random time.

    Attributes:
        episodes: Number of episodes.
        steps: Control steps of an episode; by default the whole horizon.
        shortest: Least control steps that a level is held for.
        longest: Largest number of them.
        share: Levels are scaled by it, for plants that the full range of actions destroys.
    """

    episodes: int = 32
    steps: int | None = None
    shortest: int = 1
    longest: int = 10
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.episodes < 1 or (self.steps is not None and self.steps < 1):
            raise ValueError(f"episodes and steps must be at least 1, got {self.episodes} and {self.steps}")
        if not 1 <= self.shortest <= self.longest:
            raise ValueError(f"holds need 1 <= shortest <= longest, got {self.shortest} and {self.longest}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share must lie in (0, 1], got {self.share}")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ModelEntry:
    """A model of one plant, shared by all controllers that name its label."""

    use: str
    label: str = ""
    settings: dict[str, Any] = pydantic.Field(default_factory=dict)
    data: DataEntry = DataEntry()


@dataclass(frozen=True, kw_only=True, config=_STRICT)
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


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PlantEntry:
    """An environment and the controllers that compete on it.

    Attributes:
        id: Id of a plant, or of any gymnasium environment.
        settings: Arguments of its constructor.
        controllers: The competitors; the baseline must be among them.
        models: Models with settings of their own.
        shown: Performance outputs worth plotting; by default the first four.
        objective: Stage cost for planners on an environment that only returns rewards.
    """

    id: str
    controllers: tuple[ControllerEntry, ...]
    settings: dict[str, Any] = pydantic.Field(default_factory=dict)
    models: tuple[ModelEntry, ...] = ()
    shown: tuple[str, ...] = ()
    objective: tuple[TermEntry, ...] = ()

    def built_objective(self) -> Objective | None:
        """The objective of the file, if it states one."""
        return Objective(tuple(entry.build() for entry in self.objective)) if self.objective else None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ComparisonSpec:
    """A whole comparison file.

    Attributes:
        name: Name of the comparison.
        summary: One line for ``steersman list``.
        plants: Plants with their controllers.
        episodes: Scenarios in the bank of each plant.
        seeds: Training seeds: runs of each controller that learns or plans with a learned model.
        bank: Seed of the scenario banks.
        baseline: ``use`` of the controller that the others are compared with.
        device: Where plants and models run.
        recorded: Scenarios that are recorded in full, for pictures.
    """

    name: str
    plants: tuple[PlantEntry, ...]
    summary: str = ""
    episodes: int = 64
    seeds: int = 1
    bank: int = 2026
    baseline: str = "zero"
    device: str = "cpu"
    recorded: int = 2

    def __post_init__(self) -> None:
        for name, value in (("episodes", self.episodes), ("seeds", self.seeds), ("recorded", self.recorded)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.bank < 0:
            raise ValueError(f"bank must be a non-negative seed, got {self.bank}")
        if not self.plants:
            raise ValueError("a comparison needs at least one [[plants]] entry")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class FitSpec:
    """One model to fit: hashed, so that equal fits are done once."""

    plant: str
    plant_settings: dict[str, Any]
    objective: tuple[TermEntry, ...]
    model: ModelEntry
    seed: int
    device: str
    version: str = metadata.version("steersman")

    @property
    def key(self) -> str:
        """Hash of everything above; the label does not matter."""
        return _digest(replace(self, model=replace(self.model, label="")))


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RunSpec:
    """One run: a controller on a plant with a training seed, over the first scenarios of the bank."""

    plant: str
    plant_settings: dict[str, Any]
    objective: tuple[TermEntry, ...]
    controller: ControllerEntry
    model: ModelEntry | None
    seed: int
    episodes: int
    bank: int
    recorded: int
    device: str
    version: str = metadata.version("steersman")

    @property
    def key(self) -> str:
        """Hash of everything above; labels do not matter."""
        model = None if self.model is None else replace(self.model, label="")
        return _digest(replace(self, controller=replace(self.controller, label="", model=""), model=model))

    @property
    def fit(self) -> FitSpec | None:
        """The fit that the run needs first, if its model is learned."""
        if self.model is None or model_spec(self.model.use).needs_plant:
            return None
        return FitSpec(
            plant=self.plant, plant_settings=self.plant_settings, objective=self.objective, model=self.model,
            seed=self.seed, device=self.device, version=self.version,
        )  # fmt: skip


def _digest(spec: Any) -> str:
    return hashlib.sha256(json.dumps(asdict(spec), sort_keys=True).encode()).hexdigest()[:16]


# ------------------------------------------------------------------ reading


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("steersman.experiments.presets")
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_spec(source: str) -> ComparisonSpec:
    """Read a preset by name, or a TOML file by path.

    Raises:
        SpecError: If there is no such preset or file, it is not TOML, or a key is wrong.
    """
    path = Path(source)
    if path.suffix == ".toml":
        if not path.is_file():
            raise SpecError(f"no such file: {source}; presets are {', '.join(presets())}")
        text = path.read_text()
    elif source in presets():
        text = resources.files("steersman.experiments.presets").joinpath(f"{source}.toml").read_text()
    else:
        raise SpecError(f"unknown preset {source!r}; known: {', '.join(presets())}, or give a path that ends in .toml")
    try:
        return parse_spec({"name": path.stem, **tomllib.loads(text)})
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{source} is not valid TOML: {error}") from error


def parse_spec(data: dict[str, Any]) -> ComparisonSpec:
    """A comparison from plain data.

    Raises:
        SpecError: With the path of the wrong key.
    """
    try:
        return pydantic.TypeAdapter(ComparisonSpec).validate_python(data)
    except pydantic.ValidationError as error:
        raise SpecError(explain(error, "")) from error


def expand(spec: ComparisonSpec) -> list[RunSpec]:
    """All runs of a comparison, checked: names, settings, models, labels.

    Raises:
        SpecError: At the first thing that could not run.
    """
    runs: list[RunSpec] = []
    ids = [plant.id for plant in spec.plants]
    if len(set(ids)) < len(ids):
        raise SpecError(f"plants: ids must differ, got {', '.join(ids)}; give variants ids of their own")
    for i, plant in enumerate(spec.plants):
        where = f"plants.{i}"
        labels = [label_of(entry) for entry in plant.controllers]
        if len(set(labels)) < len(labels):
            raise SpecError(f"{where}.controllers: labels must differ, got {', '.join(labels)}; set label")
        if spec.baseline not in [entry.use for entry in plant.controllers]:
            raise SpecError(f"{where}.controllers: the baseline {spec.baseline!r} is not among them; add it")
        for j, entry in enumerate(plant.controllers):
            runs += _runs(spec, plant, entry, f"{where}.controllers.{j}")
    return runs


def label_of(entry: ControllerEntry) -> str:
    """Name of a controller in the report."""
    return entry.label or (f"{entry.use} ({entry.model})" if entry.model else entry.use)


def _runs(spec: ComparisonSpec, plant: PlantEntry, entry: ControllerEntry, where: str) -> list[RunSpec]:
    try:
        known = controller_spec(entry.use)
        validated(known.make, entry.settings, f"{where}.settings")
        model = _model(plant, entry, where)
    except SpecError:
        raise
    except ValueError as error:
        raise SpecError(f"{where}: {error}") from error
    if known.needs_model and model is None:
        raise SpecError(f"{where}.model: controller {entry.use!r} plans with a model; name one")
    if entry.episodes is not None and entry.episodes < 1:
        raise SpecError(f"{where}.episodes: must be at least 1, got {entry.episodes}")
    learns = known.learns or (model is not None and not model_spec(model.use).needs_plant)
    return [
        RunSpec(
            plant=plant.id, plant_settings=plant.settings, objective=plant.objective,
            controller=replace(entry, episodes=None), model=model, seed=seed,
            episodes=min(entry.episodes or spec.episodes, spec.episodes),
            bank=spec.bank, recorded=spec.recorded, device=spec.device,
        )
        for seed in range(spec.seeds if learns else 1)
    ]  # fmt: skip


def _model(plant: PlantEntry, entry: ControllerEntry, where: str) -> ModelEntry | None:
    if not entry.model:
        return None
    for i, model in enumerate(plant.models):
        if (model.label or model.use) == entry.model:
            validated(
                model_spec(model.use).make, model.settings, f"{where.split('.controllers')[0]}.models.{i}.settings"
            )
            return model
    if entry.model not in [known.name for known in MODELS]:
        own = [model.label or model.use for model in plant.models]
        raise SpecError(f"{where}.model: no model {entry.model!r}; known: {', '.join(own + [m.name for m in MODELS])}")
    return ModelEntry(use=entry.model)
