"""The runs of a comparison: what each depends on, and the key that its result is stored under."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from dataclasses import dataclass as plain
from typing import Any

import gymnasium
import pydantic
from pydantic.dataclasses import dataclass

from steersman.controllers.registry import CONTROLLERS, controller_spec
from steersman.dynamics.registry import MODELS, model_spec
from steersman.envs.registry import PLANTS
from steersman.envs.settings import missing
from steersman.experiments.spec.closure import code_digest, files_in, modules_in
from steersman.experiments.spec.comparison import ComparisonSpec, ControllerEntry, ModelEntry, PlantEntry
from steersman.experiments.spec.environment import STRICT, Environment
from steersman.experiments.spec.settings import SpecError, validated

RUNNER = "steersman.experiments.comparison.runner"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Made:
    """What a job is made with beside what it is told.

    Attributes:
        code: Digest of the code that it depends on (:mod:`steersman.experiments.spec.closure`).
        files: SHA-256 of the files that its settings name, by name.
    """

    code: str
    files: dict[str, str] = pydantic.Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class JobSpec:
    """One piece of work, hashed, so that equal work is done once and different work never shares a result.

    Attributes:
        environment: What is run.
        device: Where plants and models run.
        made: Code and files.
    """

    environment: Environment
    device: str
    made: Made

    @property
    def identity(self) -> str:
        """Hash of what is asked for, whatever code answers it; labels do not matter."""
        plain = {name: value for name, value in asdict(self).items() if name not in ("made", "fit", "prepared")}
        plain["environment"].pop("workers")  # rows are the same wherever they run
        for part in ("controller", "model"):
            if plain.get(part):
                plain[part] = {name: value for name, value in plain[part].items() if name != "label"}
        if "controller" in plain:  # the model is there in full; how the file called it does not matter
            plain["controller"].pop("model")
        return digest([type(self).__name__, plain])

    @property
    def key(self) -> str:
        """Hash of everything that the result depends on."""
        return digest([self.identity, asdict(self.made)])


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BankSpec(JobSpec):
    """The scenario bank of an environment: whether scenarios repeat, and what a failure costs.

    Attributes:
        bank: Seed of the scenarios.
    """

    bank: int


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FitSpec(JobSpec):
    """One model to fit."""

    model: ModelEntry
    seed: int


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RunSpec(JobSpec):
    """One run: a controller on an environment with a training seed, over the first scenarios of the bank.

    Attributes:
        controller: The controller; :attr:`episodes` holds its number of scenarios.
        model: Its model, if it has one.
        seed: Training seed.
        episodes: Scenarios.
        bank: Seed of the scenarios.
        recorded: Scenarios that are recorded in full.
        fit: Its model's fit, if that is learned.
        prepared: Its scenario bank.
    """

    controller: ControllerEntry
    model: ModelEntry | None
    seed: int
    episodes: int
    bank: int
    recorded: int
    fit: FitSpec | None
    prepared: BankSpec


@plain(frozen=True)
class Planned:
    """A run and what the report calls it.

    Attributes:
        plant: Name of the plant in the comparison.
        label: Label of the controller.
        model: Label of its model, empty without one.
        run: The run; two labels may share one.
    """

    plant: str
    label: str
    model: str
    run: RunSpec


def plan(spec: ComparisonSpec) -> list[Planned]:
    """All runs of a comparison, checked: names, settings, models, labels.

    Raises:
        SpecError: At the first thing that could not run.
    """
    names = [plant.name for plant in spec.plants]
    if len(set(names)) < len(names):
        raise SpecError(f"plants: names must differ, got {', '.join(names)}; set label where an id comes twice")
    _require_known(spec)
    found: list[Planned] = []
    for i, plant in enumerate(spec.plants):
        where = f"plants.{i}"
        labels = [entry.name for entry in plant.controllers]
        if len(set(labels)) < len(labels):
            raise SpecError(f"{where}.controllers: labels must differ, got {', '.join(labels)}; set label")
        baseline_of(spec, plant, where)
        for j, entry in enumerate(plant.controllers):
            found += _planned(spec, plant, entry, f"{where}.controllers.{j}")
    return found


def _require_known(spec: ComparisonSpec) -> None:
    """Raises: SpecError at the first controller or model that does not exist: what follows from that comes later."""
    for i, plant in enumerate(spec.plants):
        for j, entry in enumerate(plant.controllers):
            _named(controller_spec, entry.use, f"plants.{i}.controllers.{j}.use")
        for j, model in enumerate(plant.models):
            _named(model_spec, model.use, f"plants.{i}.models.{j}.use")
    _named(controller_spec, spec.baseline, "baseline")


def _named(find: Callable[[str], object], name: str, where: str) -> None:
    try:
        find(name)
    except ValueError as error:
        raise SpecError(f"{where}: {error}") from error


def baseline_of(spec: ComparisonSpec, plant: PlantEntry, where: str = "") -> str:
    """Label of the controller that the others on a plant are compared with.

    Raises:
        SpecError: If the plant has none.
    """
    for entry in plant.controllers:
        if entry.use == spec.baseline:
            return entry.name
    raise SpecError(f"{where}.controllers: the baseline {spec.baseline!r} is not among them; add it")


def modules_of(spec: ComparisonSpec) -> list[str]:
    """Modules that the runs of a comparison name, as far as they are known."""
    found = [RUNNER]
    for plant in spec.plants:
        entries: list[ControllerEntry | ModelEntry] = [*plant.controllers, *plant.models]
        used = {entry.use for entry in entries} | {entry.model for entry in plant.controllers}
        found += sources(plant.environment) + modules_in([entry.settings for entry in entries])
        targets = {entry.name: entry.target for entry in CONTROLLERS} | {entry.name: entry.target for entry in MODELS}
        found += [target.partition(":")[0] for name, target in targets.items() if name in used]
        found += modules_in(list(used))
    return found


def sources(environment: Environment) -> list[str]:
    """Modules that an environment comes from."""
    name = environment.id.removeprefix("steersman.envs:")
    found = modules_in(asdict(environment)) + [spec.target.partition(":")[0] for spec in PLANTS if spec.id == name]
    known = gymnasium.registry.get(name.rpartition(":")[2])
    if known is not None and known.namespace != "steersman":
        entry = known.entry_point
        found.append(entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", ""))
    return found


def _planned(spec: ComparisonSpec, plant: PlantEntry, entry: ControllerEntry, where: str) -> list[Planned]:
    try:
        known = controller_spec(entry.use)
        validated(known.make, entry.settings, f"{where}.settings")
        model = model_of(plant, entry, where)
    except SpecError:
        raise
    except ValueError as error:
        raise SpecError(f"{where}: {error}") from error
    if known.needs_model and model is None:
        raise SpecError(f"{where}.model: controller {entry.use!r} plans with a model; name one")
    if entry.episodes is not None and entry.episodes < 1:
        raise SpecError(f"{where}.episodes: must be at least 1, got {entry.episodes}")
    learned = model is not None and not model_spec(model.use).needs_plant
    label = "" if model is None else model.label or model.use
    environment = plant.environment
    common: dict[str, Any] = {"environment": environment, "device": spec.device}
    prepared = BankSpec(**common, made=made_of(environment), bank=spec.bank)
    made, made_fit = made_of(environment, model, entry), made_of(environment, model)
    found = []
    for seed in seeds_of(spec, plant) if known.learns or learned else (0,):
        fit = FitSpec(**common, made=made_fit, model=model, seed=seed) if model and learned else None
        run = RunSpec(
            **common, made=made, controller=replace(entry, episodes=None), model=model, seed=seed,
            episodes=min(entry.episodes or spec.episodes, spec.episodes), bank=spec.bank, recorded=spec.recorded,
            fit=fit, prepared=prepared,
        )  # fmt: skip
        found.append(Planned(plant.name, entry.name, label, run))
    return found


def seeds_of(spec: ComparisonSpec, plant: PlantEntry) -> range:
    """Training seeds on a plant."""
    return range(spec.first_seed, spec.first_seed + (plant.seeds or spec.seeds))


def made_of(
    environment: Environment, model: ModelEntry | None = None, controller: ControllerEntry | None = None
) -> Made:
    """Code and files, as they are now, that a result of these depends on."""
    roots = [RUNNER, *sources(environment)]
    if model is not None:
        roots.append(model_spec(model.use).target.partition(":")[0])
    if controller is not None:
        roots.append(controller_spec(controller.use).target.partition(":")[0])
    name = environment.id.removeprefix("steersman.envs:")
    settings = [asdict(environment), *(entry.settings for entry in (model, controller) if entry is not None)]
    # A catalogue's list is no code, but the settings that it gives this variant of a plant are part of the question.
    variant = [json.dumps(spec.kwargs, sort_keys=True, default=str) for spec in PLANTS if spec.id == name]
    code = code_digest([*roots, *modules_in(settings)])
    return Made(code="-".join([code, *map(digest, variant)]), files=files_in(settings))


def model_of(plant: PlantEntry, entry: ControllerEntry, where: str) -> ModelEntry | None:
    """The model that a controller names, with the plant's settings or those of the registry.

    Raises:
        SpecError: If there is none of that name, or a setting is wrong.
    """
    if not entry.model:
        return None
    for i, model in enumerate(plant.models):
        if (model.label or model.use) == entry.model:
            validated(
                model_spec(model.use).make, model.settings, f"{where.split('.controllers')[0]}.models.{i}.settings"
            )
            return model
    if ":" not in entry.model and entry.model not in [known.name for known in MODELS]:
        known = [model.label or model.use for model in plant.models] + [model.name for model in MODELS]
        raise SpecError(f"{where}.model: no model {missing(entry.model, known)}")
    _named(model_spec, entry.model, f"{where}.model")
    return ModelEntry(use=entry.model)


def digest(data: Any) -> str:
    """Hash of what JSON can say."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
