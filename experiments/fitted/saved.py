"""A fitted model as a folder: ``model.json`` says what it is, safetensors hold its weights and its data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from steersman.dynamics.base import Dynamics, Trajectories
from steersman.dynamics.registry import make_model, model_spec
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective
from steersman.envs.plant import ControlProblem
from steersman.experiments.spec.settings import validated

FORMAT = 1
"""Version of the folder's layout."""
DESCRIPTION, WEIGHTS, DATA = "model.json", "model.safetensors", "data.safetensors"


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


def new_model(use: str, settings: Mapping[str, Any], problem: ControlProblem) -> Dynamics:
    """A model of that name, bound to a recorded problem and not yet fitted.

    Raises:
        ValueError: If there is no such model, a setting is wrong, or it needs the plant itself.
    """
    given = validated(model_spec(use).make, settings, f"model {use}")
    return make_model(use, None, **given).bind(problem)


def save_model(saved: SavedModel, folder: Path) -> Path:
    """Write the folder; the description comes last, so that whoever finds it finds all. Returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIPTION).unlink(missing_ok=True)
    save_file({name: t.contiguous() for name, t in saved.model.state_dict().items()}, str(folder / WEIGHTS))
    saved.data.save(folder / DATA)
    text = json.dumps(
        {
            "format": FORMAT,
            "use": saved.use,
            "settings": dict(saved.settings),
            "problem": _plain(saved.problem),
            "sha256": {name: _digest(folder / name) for name in (WEIGHTS, DATA)},
            "about": dict(saved.about),
        },
        indent=1,
    )
    draft = folder / f"{DESCRIPTION}.draft"
    draft.write_text(text + "\n", encoding="utf-8")
    return draft.replace(folder / DESCRIPTION)


def load_model(path: Path | str) -> SavedModel:
    """Read what :func:`save_model` wrote.

    Args:
        path: The folder, or the description in it.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is of another format, or a file beside the description is not the one it was written with.
    """
    path = Path(path)
    path = path / DESCRIPTION if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no model at {path}; 'steersman fit' writes one")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        version = found["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} describes no model ({error!r}); 'steersman fit' writes such files") from error
    if version != FORMAT:
        raise ValueError(f"{path} has format {version}, and this version reads {FORMAT}; fit the model again")
    for name, digest in found["sha256"].items():
        if not (path.parent / name).is_file() or _digest(path.parent / name) != digest:
            raise ValueError(f"{path.parent / name} is not the file that the model was written with; fit it again")
    problem = _problem(found["problem"])
    model = new_model(found["use"], found["settings"], problem)
    model.load_state_dict(load_file(str(path.parent / WEIGHTS)))
    data = Trajectories.load(path.parent / DATA)
    return SavedModel(found["use"], found["settings"], problem, model, data, found["about"])


def _plain(problem: ControlProblem) -> dict[str, Any]:
    a = problem.actions
    actions = {"lower": a.lower, "upper": a.upper, "integer": a.integer, "names": a.names}
    return {
        "actions": actions, "period": problem.period, "horizon": problem.horizon, "measured": problem.measured,
        "performed": problem.performed, "exogenous": problem.exogenous, "time_unit": problem.time_unit,
    }  # fmt: skip


def _problem(plain: Mapping[str, Any]) -> ControlProblem:
    found: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    actions = ActionSet(**{name: tuple(value) for name, value in plain["actions"].items()})
    found |= {"actions": actions, "objective": Objective(())}
    return ControlProblem(**found)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
