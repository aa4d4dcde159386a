"""A plant or a controller as a Functional Mock-up Unit, for co-simulation in other tools.

The FMU holds a description and weights, not Steersman: its host needs a Python 3 in which ``import steersman`` works,
and so do modules of your own that it names.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steersman.envs.importing import needed
from steersman.envs.registry import make_simulator
from steersman.experiments.exported.controller import DESCRIPTION, load_controller
from steersman.experiments.exported.folder import read_folder
from steersman.experiments.exported.hosted import CONTROLLER, UNIT

_NEEDS = "Its host needs a Python 3 with the package steersman (and the extras of what it runs) and its shared library."
_PYTHON = {2: "pythonfmu", 3: "pythonfmu3"}


def export_plant(id: str, path: Path | str, settings: Mapping[str, Any] | None = None, *, version: int = 2) -> Path:
    """Write a plant, or anything that runs as one, as an FMU; its path.

    Inputs are the actions, ``u.NAME``; outputs are ``y.NAME``, ``z.NAME`` and the references ``r.NAME``. The integer
    parameter ``seed`` chooses the scenario: ``noise.keys(seed, 1)``. Steps are of one control period.

    Args:
        id: Id of a plant, or ``module:name`` (:func:`~steersman.envs.registry.make_simulator`).
        path: The ``.fmu`` to write.
        settings: Arguments of its constructor.
        version: 2 for FMI 2.0, 3 for FMI 3.0.

    Raises:
        ValueError: If there is no such plant, its settings are no JSON, or the version is another one.
        ImportError: If PythonFMU is not installed.
    """
    settings = dict(settings or {})
    make_simulator(id, 1, price=0.0, **settings).close()  # refuses what does not exist, before anything is written
    about = f"{id} of Steersman. {_NEEDS}"
    unit = {"kind": "plant", "id": id, "settings": settings, "about": about}
    return _written(Path(path), version, unit, id.rpartition("/")[2], keeps_states=True)


def export_controller(folder: Path | str, path: Path | str, *, version: int = 2) -> Path:
    """Write a controller that ``steersman export`` wrote as an FMU; its path.

    Inputs are the measured outputs ``y.NAME`` and the references ``r.NAME``; outputs are the actions ``u.NAME``. A step
    of one control period decides once, from the inputs at its beginning: step it before the plant.

    Args:
        folder: The controller's folder.
        path: The ``.fmu`` to write.
        version: 2 for FMI 2.0, 3 for FMI 3.0.

    Raises:
        FileNotFoundError: If there is no controller.
        ValueError: If it needs the plant's state, or the version is another one.
        ImportError: If PythonFMU is not installed.
    """
    folder = Path(folder)
    folder = folder if folder.is_dir() else folder.parent
    load_controller(folder)
    found, _ = read_folder(folder, DESCRIPTION, "steersman export")
    use = found["controller"]["use"]
    if found["track"] != "data only":
        raise ValueError(
            f"{use!r} needs the plant's state, which no output of an FMU is; export one with a fitted model"
        )
    unit = {
        "kind": "controller", "reference": found["reference"], "about": f"Controller {use} of Steersman. {_NEEDS}"
    }  # fmt: skip
    return _written(Path(path), version, unit, use.rpartition(":")[2], controller=folder)


def _written(
    path: Path, version: int, unit: dict[str, Any], name: str, *, controller: Path | None = None,
    keeps_states: bool = False,
) -> Path:  # fmt: skip
    if version not in _PYTHON:
        raise ValueError(f"version must be 2 or 3, got {version}")
    if path.suffix != ".fmu":
        raise ValueError(f"path must end in .fmu, got {str(path)!r}")
    builder = needed(_PYTHON[version], "fmi", "writing an FMU").FmuBuilder
    unit = {**unit, "name": re.sub(r"\W|^(?=\d)", "_", name)}
    source = (Path(__file__).parent / f"slave_fmi{version}.py").read_bytes()
    with tempfile.TemporaryDirectory(prefix="steersman-") as place:
        work = Path(place)
        # Python knows modules by their names: another version of it must have another one.
        script = work / f"steersman_fmi{version}_{hashlib.sha256(source).hexdigest()[:8]}.py"
        script.write_bytes(source)
        (work / UNIT).write_text(_json(unit), encoding="utf-8")
        (work / "documentation").mkdir()
        (work / "documentation" / "index.html").write_text(
            f"<!DOCTYPE html><title>{unit['name']}</title><p>{html.escape(unit['about'])}</p>\n", encoding="utf-8"
        )
        files = [work / UNIT]
        if controller is not None:
            shutil.copytree(controller, work / CONTROLLER)
            files.append(work / CONTROLLER)
        states = {"canGetAndSetFMUstate" if version == 2 else "canGetAndSetFMUState": keeps_states}
        before = list(sys.path)
        try:
            made = builder.build_FMU(
                script, dest=work / "made", project_files=files, documentation_folder=work / "documentation", **states
            )
        finally:
            sys.path[:] = before
            sys.modules.pop(script.stem, None)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, path)
    return path


def _json(unit: dict[str, Any]) -> str:
    try:
        return json.dumps(unit, indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"settings: an FMU keeps them as JSON ({error}); give numbers, texts, lists and tables"
        ) from error
