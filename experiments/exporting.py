"""``steersman export``: a controller out of the store of a comparison, into a folder that needs no store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from steersman.dynamics.registry import model_spec
from steersman.envs import noise
from steersman.experiments.comparison.files import load_result
from steersman.experiments.comparison.jobs import spec_of
from steersman.experiments.comparison.machine import describe_machine
from steersman.experiments.comparison.runner import restored
from steersman.experiments.comparison.runs import jobs_named, open_store
from steersman.experiments.comparison.store import Store
from steersman.experiments.exported.controller import Part, SavedController, save_controller
from steersman.experiments.exported.fmu import export_controller
from steersman.experiments.exported.onnx_file import to_onnx
from steersman.experiments.spec.plan import RunSpec, made_of
from steersman.experiments.spec.settings import SpecError

_SCENARIOS = 8
"""Scenarios whose references are looked at."""


@dataclass(frozen=True)
class Export:
    """Write a controller of a comparison to a folder of its own, for a loop of your own.

    In Python: load_controller(DIR) of steersman.experiments.exported, then controller(observation).
    """

    results: Annotated[Path, tyro.conf.Positional]
    """Folder of a comparison, such as results/tour."""
    key: Annotated[str, tyro.conf.Positional]
    """Key of the run, or its beginning ('steersman runs' lists them)."""
    out: Path | None = None
    """Folder to write; by default results/exported/KEY."""
    fmu: Literal[2, 3] | None = None
    """Write an FMU of this FMI version too, OUT.fmu; its host needs Python and Steersman."""
    onnx: bool = False
    """Also write controller.onnx, for trained policies; takes the extra 'export'."""

    def run(self, console: Console) -> int:
        """Write, and print where it lies and what a loop must know."""
        store = open_store(self.results)
        spec, older = found_run(store, self.key)
        folder = self.out or Path("results") / "exported" / spec.key
        path = export(store, spec, folder)
        if older:
            console.print("The code has changed since this run: its weights are of the older code.", soft_wrap=True)
        console.print(f"Controller: [bold]{escape(str(path))}[/bold]", soft_wrap=True)
        if self.fmu is not None:
            unit = export_controller(folder, folder.with_name(f"{folder.name}.fmu"), version=self.fmu)
            console.print(f"FMU: [bold]{escape(str(unit))}[/bold]", soft_wrap=True)
        if self.onnx:
            console.print(f"ONNX: [bold]{escape(str(to_onnx(path)))}[/bold]", soft_wrap=True)
        return 0


def found_run(store: Store, key: str) -> tuple[RunSpec, bool]:
    """A finished run by its key or the beginning of it, and whether other code made it.

    Raises:
        SpecError: If no finished run, or more than one job, has such a key.
    """
    (job,) = jobs_named(store, [key])
    spec = spec_of(job)
    if not isinstance(spec, RunSpec):
        raise SpecError(f"{key} is a {job.kind} and no run of a controller; 'steersman runs' lists what there is")
    if job.state != "done":
        raise SpecError(f"run {key} is {job.state}, not done; run the comparison again")
    return spec, made_of(spec.environment, spec.model, spec.controller) != spec.made


def export(store: Store, spec: RunSpec, folder: Path, more: Mapping[str, Any] | None = None) -> Path:
    """Write the controller of a finished run; the path of its description.

    Args:
        store: Where the run is.
        spec: The run.
        folder: Where the controller goes.
        more: What else the description tells people.

    Raises:
        ValueError: If it cannot be restored, or its objective holds code without a name.
    """
    law = restored(spec, lambda of, suffix: store.file(of.key, suffix))
    environment = {"id": spec.environment.id, "settings": spec.environment.settings}
    model = None
    if spec.model is not None:
        plant = environment if model_spec(spec.model.use).needs_plant else {}
        model = Part(spec.model.use, spec.model.settings, plant)
    about = {
        "environment": environment, "seed": spec.seed, "run": spec.key, "code": spec.made.code,
        "machine": describe_machine(), "notes": list(load_result(store.file(spec.key, ".npz")).notes), **(more or {}),
    }  # fmt: skip
    made = Part(spec.controller.use, spec.controller.settings)
    return save_controller(SavedController(made, law, model, constant_reference(spec), about), folder)


def constant_reference(spec: RunSpec) -> tuple[float, ...] | None:
    """References that are the same in all of a few scenarios and steps; None where they differ."""
    simulator = spec.environment.simulator(_SCENARIOS, spec.device, price=0.0)
    try:
        simulator.reset(simulator.scenarios(noise.keys(spec.bank, _SCENARIOS)))
        r = simulator.measure(simulator.problem.horizon).r.double().flatten(0, 1)
    finally:
        simulator.close()
    return tuple(r[0].tolist()) if bool((r == r[:1]).all()) else None
