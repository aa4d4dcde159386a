"""A controller as a folder: ``controller.json``, its weights, and those of its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steersman.controllers.base import Controller
from steersman.envs.registry import make_simulator
from steersman.experiments.exported.deployed import DeployedController
from steersman.experiments.exported.folder import read_folder, write_folder
from steersman.experiments.exported.problem import from_plain, to_plain
from steersman.experiments.spec.members import new_controller, new_model

DESCRIPTION, WEIGHTS, MODEL = "controller.json", "controller.safetensors", "model.safetensors"
_MAKER = "steersman export"


@dataclass(frozen=True)
class Part:
    """How a member is made.

    Attributes:
        use: Its name in the registry, or ``module:Name``.
        settings: Its settings, as a file gives them.
        plant: Id and settings of the plant that a model is made of; empty where it needs none.
    """

    use: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    plant: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SavedController:
    """A controller that is bound and trained, and what it is made of.

    Attributes:
        made: The controller.
        law: It, bound and trained.
        model: Its model, if it has one; its weights are those of ``law.model``.
        reference: References of the performance outputs, where they are constant.
        about: Where it comes from, for people.
    """

    made: Part
    law: Controller
    model: Part | None = None
    reference: tuple[float, ...] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


def save_controller(saved: SavedController, folder: Path) -> Path:
    """Write the folder; the path of its description.

    Raises:
        ValueError: If the objective holds code without a name.
    """
    law = saved.law
    plain = {
        "controller": vars(saved.made),
        "model": None if saved.model is None else vars(saved.model),
        "problem": to_plain(law.problem),
        "reference": saved.reference,
        "track": law.track,
        "preview": law.preview,
        "about": dict(saved.about),
    }
    parts = {WEIGHTS: law.state_dict()}
    if law.model is not None and (weights := law.model.state_dict()):
        parts[MODEL] = weights
    return write_folder(folder, DESCRIPTION, plain, parts)


def load_controller(path: Path | str, *, limit_s: float | None = None, episode: bool = False) -> DeployedController:
    """The controller that ``steersman export`` wrote, for a loop of one's own.

    Args:
        path: The folder, or the description in it.
        limit_s: Seconds that a decision may take.
        episode: Whether steps count, as in a comparison; by default every step is the first one of an episode.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is of another format, or a file is not the one it was written with.
    """
    law, reference = read_controller(path)
    return DeployedController(law, reference=reference, limit_s=limit_s, episode=episode)


def read_controller(path: Path | str) -> tuple[Controller, tuple[float, ...] | None]:
    """The controller itself, bound and trained, and its references where they are constant.

    Raises:
        FileNotFoundError, ValueError: As :func:`load_controller`.
    """
    found, tensors = read_folder(path, DESCRIPTION, _MAKER)
    problem = from_plain(found["problem"])
    try:
        made, of = Part(**found["controller"]), None if found["model"] is None else Part(**found["model"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} describes no controller ({error!r})") from error
    model = None
    if of is not None:
        plant = make_simulator(of.plant["id"], 1, **of.plant["settings"]).plant if of.plant else None
        model = new_model(of.use, of.settings, problem, plant)
    if WEIGHTS not in tensors:
        raise ValueError(f"{path} describes no controller: it names no {WEIGHTS}")
    if model is not None and MODEL in tensors:
        model.load_state_dict(tensors[MODEL])
    law = new_controller(made.use, made.settings).bind(problem, model)
    if tensors[WEIGHTS]:
        law.load_state_dict(tensors[WEIGHTS])
    reference = found["reference"]
    return law, None if reference is None else tuple(reference)
