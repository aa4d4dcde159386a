"""A fitted model as a folder: ``model.json``, its weights, and the record that it was fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steersman.dynamics.base import Dynamics, Trajectories
from steersman.envs.plant import ControlProblem
from steersman.experiments.exported.folder import read_folder, write_folder
from steersman.experiments.exported.problem import from_plain, to_plain
from steersman.experiments.spec.members import new_model

DESCRIPTION, WEIGHTS, DATA = "model.json", "model.safetensors", "data.safetensors"
_MAKER = "steersman fit"


@dataclass(frozen=True)
class SavedModel:
    """A model and what it is a model of.

    Attributes:
        use: Its name in the registry, or ``module:Name``.
        settings: Its settings, as a file gives them.
        problem: Outputs, actions and period; the objective has no terms.
        model: The model, fitted and bound.
        data: All recorded episodes.
        about: Where it comes from and how well it predicts, for people.
    """

    use: str
    settings: Mapping[str, Any]
    problem: ControlProblem
    model: Dynamics
    data: Trajectories
    about: Mapping[str, Any] = field(default_factory=dict)


def save_model(saved: SavedModel, folder: Path) -> Path:
    """Write the folder; the path of its description."""
    plain = {
        "use": saved.use, "settings": dict(saved.settings), "problem": to_plain(saved.problem),
        "about": dict(saved.about),
    }  # fmt: skip
    return write_folder(folder, DESCRIPTION, plain, {WEIGHTS: saved.model.state_dict(), DATA: saved.data.tensors()})


def load_model(path: Path | str) -> SavedModel:
    """Read what :func:`save_model` wrote, from the folder or the description in it.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is of another format, or a file is not the one it was written with.
    """
    found, tensors = read_folder(path, DESCRIPTION, _MAKER)
    if missing := [part for part in ("use", "settings", "problem", "about") if part not in found] + [
        file for file in (WEIGHTS, DATA) if file not in tensors
    ]:
        raise ValueError(f"{path} describes no model: it lacks {', '.join(missing)}")
    problem = from_plain(found["problem"])
    model = new_model(found["use"], found["settings"], problem)
    model.load_state_dict(tensors[WEIGHTS])
    data = Trajectories.of(tensors[DATA])
    return SavedModel(found["use"], found["settings"], problem, model, data, found["about"])
