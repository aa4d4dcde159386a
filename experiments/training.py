"""``steersman train``: one controller on one plant, into a folder that needs neither of the two to be loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from dataclasses import dataclass as plain
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from pydantic.dataclasses import dataclass
from rich.console import Console
from rich.markup import escape

from steersman.envs.failure import BANK
from steersman.experiments.comparison.compare import News, compare
from steersman.experiments.comparison.executor import Executor, InProcess, Processes
from steersman.experiments.comparison.results import Comparison
from steersman.experiments.comparison.runs import open_store
from steersman.experiments.exported.onnx_file import require_onnx, to_onnx
from steersman.experiments.exporting import export
from steersman.experiments.report.page import print_failures, print_results, write_report
from steersman.experiments.report.progress import live
from steersman.experiments.spec.comparison import (
    ComparisonSpec,
    ControllerEntry,
    ModelEntry,
    look_beside,
    parse_spec,
    parsed,
    toml_in,
)
from steersman.experiments.spec.environment import STRICT, Environment
from steersman.experiments.spec.plan import plan
from steersman.experiments.spec.settings import SpecError

WORK = "training"
"""Folder inside of the controller's, with all that a training leaves behind; a loop needs none of it."""
RIVALS = ("zero", "constant")
"""Controllers that a trained one is judged beside, on the same scenarios."""
_PLACES = {
    "plants.0.controllers.0": "controller", "plants.0.models.0": "model", "plants.0": "plant", "first_seed": "seed"
}  # fmt: skip
"""Where a comparison file has what a training file says."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainingSpec:
    """A whole training file.

    Attributes:
        plant: What is controlled: the keys of a comparison's ``[[plants]]`` that say what is run.
        controller: What is trained, as in a comparison's ``[[plants.controllers]]``.
        model: Its model, fitted first, as in a comparison's ``[[plants.models]]``; a registered one with default
            settings can be named in ``controller`` instead.
        seed: Training seed, of data, fit and training.
        episodes: Scenarios that the trained controller is judged on.
        bank: Seed of those.
        device: Where plant and models run.
        limit_s: A fit or a training that takes longer is ended, and fails; no limit by default.
        name: Of the folder in ``results``; by default that of the file.
        folder: Where the file lies; modules beside it can be named in it.
    """

    plant: Environment
    controller: ControllerEntry
    model: ModelEntry | None = None
    seed: int = 0
    episodes: int = ComparisonSpec.episodes
    bank: int = BANK
    device: str = "cpu"
    limit_s: float | None = None
    name: str
    folder: str = ""

    @property
    def own(self) -> ControllerEntry:
        """The controller with the name of its model.

        Raises:
            SpecError: If two models are named.
        """
        if self.model is None:
            return self.controller
        name = self.model.label or self.model.use
        if self.controller.model not in ("", name):
            raise SpecError(
                f"controller.model: the file describes the model {name!r}, and names {self.controller.model!r} here; "
                "leave one of them out"
            )
        return replace(self.controller, model=name)

    @property
    def comparison(self) -> ComparisonSpec:
        """The controller in a comparison with its rivals.

        Raises:
            SpecError: If a key is wrong.
        """
        rivals = [ControllerEntry(use=use) for use in RIVALS if use != self.own.name]
        models = [] if self.model is None else [asdict(self.model)]
        plant = asdict(self.plant) | {"controllers": list(map(asdict, [self.own, *rivals])), "models": models}
        kept = {name: getattr(self, name) for name in ("name", "episodes", "bank", "device", "limit_s", "folder")}
        try:
            return parse_spec({**kept, "plants": [plant], "first_seed": self.seed})
        except SpecError as error:
            raise SpecError(_told(str(error))) from error


def read_training(source: Path | str) -> TrainingSpec:
    """Read a TOML file; modules beside it can be named in it. It names code that will be run.

    Raises:
        SpecError: If there is no such file, it is not TOML, or a key is wrong.
    """
    path = Path(source)
    if not path.is_file():
        raise SpecError(f"no such file: {source}; a training file is TOML with [plant], [controller] and maybe [model]")
    folder = str(path.resolve().parent)
    look_beside(folder)
    return parsed(TrainingSpec, {"name": path.stem, "folder": folder, **toml_in(path.read_bytes(), str(source))})


def train(
    spec: TrainingSpec,
    out: Path,
    *,
    executor: Executor | None = None,
    progress: Callable[[News], None] = lambda news: None,
) -> tuple[Comparison, Path | None]:
    """Fit, train and judge what is not yet done, and write the controller's folder.

    A fit or a training that was interrupted goes on from its last checkpoint, as in a comparison.

    Args:
        spec: What to train.
        out: Folder of the controller.
        executor: Where jobs run; in this process by default.
        progress: Called a few times a second with the state of the jobs.

    Returns:
        How it compares with its rivals, and the path of its description; None if its fit or training failed.

    Raises:
        SpecError: If the file cannot run; nothing has been started then.
        ValueError: If the objective holds code without a name.
    """
    comparison = spec.comparison
    try:
        found = compare(comparison, out / WORK, executor=executor, progress=progress)
    except SpecError as error:
        raise SpecError(_told(str(error))) from error
    (mine,) = [planned.run for planned in plan(comparison) if planned.label == spec.own.name]
    if not any(result.key == mine.key for result in found.results):
        return found, None
    costs = {result.controller: _finite(float(np.mean(result.cost))) for result in found.results}
    return found, export(open_store(out / WORK), mine, out, {"validation": {"episodes": spec.episodes, "cost": costs}})


@plain(frozen=True)
class Train:
    """Train one controller on one plant, its model first, into a folder for a loop of your own; run again to continue.

    In Python: load_controller(DIR) of steersman.experiments.exported, then controller(observation).
    """

    source: Annotated[str, tyro.conf.Positional]
    """A TOML file with [plant], [controller] and, if it needs one, [model]."""
    out: Path | None = None
    """Folder of the controller; by default results/NAME."""
    seed: int | None = None
    """Training seed, instead of the file's."""
    device: str | None = None
    """Where plant and models run, such as cuda, instead of the file's."""
    workers: int | None = None
    """Processes; by default one per core; 0 runs everything in this one, without a sign of progress."""
    onnx: bool = False
    """Also write controller.onnx, for trained policies; takes the extra 'export'."""

    def run(self, console: Console) -> int:
        """Train, and print its costs beside its rivals' and where it lies; the status is 1 if something failed."""
        if self.workers is not None and self.workers < 0:
            raise SpecError(f"--workers must be 1 or more, or 0 to run everything in this process, got {self.workers}")
        if self.onnx:
            require_onnx()  # before hours of training
        spec = read_training(self.source)
        given = {"seed": self.seed, "device": self.device}
        spec = replace(spec, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
        out = self.out or Path("results") / spec.name
        with live(console) as progress:
            executor = InProcess() if self.workers == 0 else Processes(self.workers)
            found, path = train(spec, out, executor=executor, progress=progress)
        write_report(found, out / WORK / "report.html")
        print_results(console, found)
        file = to_onnx(path) if self.onnx and path is not None else None
        for what, place in (("Report", out / WORK / "report.html"), ("Controller", path), ("ONNX", file)):
            if place is not None:
                console.print(f"{what}: [bold]{escape(str(place))}[/bold]", soft_wrap=True)
        print_failures(found)
        return 1 if found.failures else 0


def _told(text: str) -> str:
    """An error of the comparison in the words of the training file."""
    for place, name in _PLACES.items():
        text = text.replace(place, name)
    return text


def _finite(value: float) -> float | None:
    """The number, None where JSON has none."""
    return value if np.isfinite(value) else None
