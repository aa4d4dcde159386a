"""The list of studies: published claims with the code that tests them. A new study is enrolled here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from steersman.envs.settings import missing
from steersman.experiments.spec.comparison import presets
from steersman.experiments.studies.publish import publish
from steersman.experiments.studies.running import publish_cells, published, run_cells
from steersman.experiments.studies.study import Study
from steersman.experiments.studies.writing import RESULTS


@dataclass(frozen=True)
class StudySpec:
    """One registered study.

    Attributes:
        name: Name on the command line and of the folder of its results.
        target: ``module:STUDY``; of a comparison ``module:function`` of a console and a folder for intermediate
            results, which returns the folder in which text, numbers and plots lie.
        summary: One line for ``steersman list``.
    """

    name: str
    target: str
    summary: str

    @property
    def found(self) -> Study | Callable[[Console, Path | None], Path]:
        """What the target names."""
        module, _, name = self.target.partition(":")
        whole: Study | Callable[[Console, Path | None], Path] = getattr(importlib.import_module(module), name)
        return whole


STUDIES: tuple[StudySpec, ...] = (
    StudySpec(
        "abm-control", "steersman.experiments.studies.abm.control:run",
        "neural controllers of agents, through surrogates and along the plant, against grid search and rivals",
    ),
    StudySpec(
        "abm-surrogates", "steersman.experiments.studies.abm.surrogates_page:STUDY",
        "how well surrogates predict mean herds, free and under unseen controls",
    ),
    StudySpec(
        "biper", "steersman.experiments.studies.polystep.biper_page:STUDY",
        "binary weights as the sign of a sine against straight-through, dense and convolutional",
    ),
    StudySpec(
        "max-sat", "steersman.experiments.studies.polystep.max_sat_page:STUDY",
        "PolyStep and rivals on random MAX-SAT near the threshold of satisfiability",
    ),
    StudySpec(
        "grid-brake", "steersman.experiments.studies.grid.brake:run",
        "a dynamic brake on a grid of full order: exact optima, searches, programs on learned models, and rivals",
    ),
    StudySpec(
        "grid-control", "steersman.experiments.studies.grid.control:run",
        "damping and frequency on a grid of full order; damping ratios in closed loop",
    ),
    StudySpec(
        "grid-pinn", "steersman.experiments.studies.grid.pinn:run",
        "a network for the swing after a fault: error, speed against solvers, and its use in redispatch",
    ),
    StudySpec(
        "pde-control", "steersman.experiments.studies.pde.control:run",
        "PDE plants under every family, beside published returns",
    ),
    StudySpec(
        "pde-published", "steersman.experiments.studies.pde.control:run_published",
        "tasks with published returns under classical controllers, with the equations and from data",
    ),
    StudySpec(
        "polystep-rl", "steersman.experiments.studies.polystep.rl_page:STUDY",
        "policy search by PolyStep and rivals on control tasks, policies with and without a gradient",
    ),
    StudySpec(
        "polystep-stationarity", "steersman.experiments.studies.polystep.stationarity_page:STUDY",
        "how fast PolyStep becomes stationary on piecewise-smooth losses, against the claimed rate",
    ),
    StudySpec(
        "polystep-supervised", "steersman.experiments.studies.polystep.supervised_page:STUDY",
        "networks with hard decisions and an oblique tree: PolyStep, rivals, surrogate gradients",
    ),
    StudySpec(
        "sample-efficiency", "steersman.experiments.studies.effort.sample_efficiency:run",
        "cost over plant steps: neural policies through learned models, PPO and CMA-ES",
    ),
    StudySpec(
        "scaling", "steersman.experiments.studies.effort.scaling_page:STUDY",
        "what a step costs as replicas, grids and animals grow",
    ),
    StudySpec(
        "sparse-ladder", "steersman.experiments.studies.effort.sparse_ladder_page:STUDY",
        "error of sparse networks by their number of ReLUs",
    ),
    StudySpec(
        "transmission-switching", "steersman.experiments.studies.grid.switching_page:STUDY",
        "what opening lines of a grid saves, with proven bounds",
    ),
)  # fmt: skip


def run_study(name: str, out: Path | None, console: Console, cells: Sequence[str] = (), *, page: bool = False) -> Path:
    """Run a study, or publish the comparison of a preset as one; the folder of its results.

    Args:
        name: A study or a preset.
        out: Folder for intermediate results, which a second run continues from.
        console: Where progress is shown.
        cells: Patterns of the names of the cells to run; by default all that are missing.
        page: Only write the page anew, from the published numbers.

    Raises:
        ValueError: If there is no such study, preset or cell, or it has no cells.
    """
    found = next((study.found for study in STUDIES if study.name == name), None)
    if isinstance(found, Study):
        if page:
            return publish_cells(found, published(found).values(), RESULTS / name)
        return run_cells(found, console, out, names=cells)
    known = [study.name for study in STUDIES]
    known += [preset for preset in presets() if preset not in known]
    if name not in known:
        raise ValueError(f"unknown study {missing(name, known)}")
    if cells or page:
        raise ValueError(f"{name} is a comparison, whose page is written from its store; leave --cells and --page out")
    return publish(name, out, console) if found is None else found(console, out)
