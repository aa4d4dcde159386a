"""What a finished run leaves behind: one row per scenario, a few recorded episodes, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Integer
from numpy.typing import NDArray

from steersman.controllers.base import Outcome
from steersman.envs.plant import failed


@dataclass(frozen=True)
class Latency:
    """Wall seconds of one decision at n = 1: median, 95th percentile and largest."""

    p50: float
    p95: float
    max: float


@dataclass(frozen=True)
class Episodes:
    """The first few scenarios in full, for pictures. Entries after the end of an episode are NaN.

    Attributes:
        z: Performance outputs, one entry more than actions.
        r: References, likewise.
        u: Actions.
    """

    z: Float[NDArray[Any], "s T1 nz"]
    r: Float[NDArray[Any], "s T1 nz"]
    u: Float[NDArray[Any], "s T m"]


@dataclass(frozen=True)
class RunResult:
    """One controller on one plant with one training seed, over scenarios of the shared bank.

    Attributes:
        key: Hash of the run's specification.
        plant: Name of the plant in the comparison (:attr:`PlantSummary.name`).
        controller: Label of the controller, unique within a plant.
        model: Label of the model, empty without one.
        seed: Training seed.
        track: "data only", "solver access", or "hindsight", which is a bound and no rival.
        preview: Reference steps ahead that the controller saw.
        scenario: Index of each row's scenario in the bank; equal indices are equal scenarios.
        cost: Cost of the episode.
        violation: Integral of the constraint violation.
        status: Status at the end (0: reached the horizon; else see :class:`steersman.envs.plant.Status`).
        steps: Control steps until the end.
        outcomes: Decisions of each row by :class:`~steersman.controllers.base.Outcome`.
        inadmissible: Number of actions that were not admissible; anything but 0 is a defect.
        latency: Decision time at n = 1.
        train_steps: Plant control steps used for data and training.
        train_seconds: CPU seconds used for fitting and training.
        eval_seconds: CPU seconds of the batched evaluation.
        episodes: Recorded episodes.
        bank: Hash of the scenarios' parameters and initial states; equal for equal plants and scenarios.
        picture: PNG of the first scenario at its end, empty where the environment draws none.
        price: What a failed episode was charged for each control step that was left.
        notes: Remarks on this run, such as ``resumed``, and what its simulators have to say, without full stops.
        curve: Learning curve, where the training kept one: plant steps, and the mean cost of episodes after them.
        versions: Versions of the packages that it was made with.
    """

    key: str
    plant: str
    controller: str
    model: str
    seed: int
    track: str
    preview: int
    scenario: Integer[NDArray[Any], "n"]
    cost: Float[NDArray[Any], "n"]
    violation: Float[NDArray[Any], "n"]
    status: Integer[NDArray[Any], "n"]
    steps: Integer[NDArray[Any], "n"]
    outcomes: Integer[NDArray[Any], "n kinds"]
    inadmissible: int
    latency: Latency
    train_steps: int
    train_seconds: float
    eval_seconds: float
    episodes: Episodes
    bank: str = ""
    picture: bytes = field(default=b"", repr=False)
    price: float = 0.0
    notes: tuple[str, ...] = ()
    curve: tuple[tuple[int, float], ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def failures(self) -> int:
        """Episodes that ended by a failure."""
        return int(failed(torch.as_tensor(self.status, dtype=torch.uint8)).sum())

    @property
    def fallbacks(self) -> Float[NDArray[Any], "n"]:
        """Share of each row's decisions that were not what the controller is meant to return."""
        share: Float[NDArray[Any], "n"] = 1 - self.outcomes[:, 0] / self.steps
        return share

    def share(self, kind: Outcome) -> float:
        """Share of all decisions that came about in one way."""
        return float(self.outcomes[:, kind].sum() / self.outcomes.sum())


@dataclass(frozen=True)
class PlantSummary:
    """What a report says about a plant, independent of controllers.

    Attributes:
        id: Id of the environment.
        name: Its name in the comparison, unique there.
        baseline: Label of the controller that the others on this plant are compared with.
        summary: One line.
        period: Control period.
        time_unit: Unit of the period.
        horizon: Control steps of an episode.
        performed: Names of the performance outputs.
        shown: Indices of the performance outputs worth plotting.
        actions: Names of the actions.
        units: Units of the actions.
    """

    id: str
    name: str
    baseline: str
    summary: str
    period: float
    time_unit: str
    horizon: int
    performed: tuple[str, ...]
    shown: tuple[int, ...]
    actions: tuple[str, ...]
    units: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """A run that raised an error; the other runs of the comparison are not affected."""

    key: str
    plant: str
    controller: str
    seed: int
    error: str


@dataclass(frozen=True)
class Comparison:
    """All results of a comparison.

    Attributes:
        name: Name of the preset or file.
        baseline: Name of the controller that the others are compared with; its label is the plant's.
        plants: In the order of the specification.
        results: In the order of the specification; a plant's baseline is among them.
        failures: Runs that raised an error.
        command: The command that made it.
        machine: Description of the machine.
        notes: Remarks for the reader, for example where slow controllers ran on a subset.
        waiting: Runs that are still to come; rows with such runs are left out.
    """

    name: str
    baseline: str
    plants: tuple[PlantSummary, ...]
    results: tuple[RunResult, ...]
    failures: tuple[Failure, ...]
    command: str
    machine: str
    notes: tuple[str, ...] = ()
    waiting: int = 0

    def columns(self) -> dict[str, list[Any]]:
        """A table with one row per plant, controller, training seed and scenario, as its columns.

        ``pandas.DataFrame(found.columns())`` or ``pyarrow.table(found.columns())`` make a frame of it.
        """
        columns: dict[str, list[Any]] = {}
        for r in self.results:
            n = len(r.scenario)
            same = {
                "plant": r.plant, "controller": r.controller, "model": r.model, "seed": r.seed, "track": r.track,
                "preview": r.preview, "decision_p50_s": r.latency.p50, "decision_p95_s": r.latency.p95,
                "decision_max_s": r.latency.max, "train_steps": r.train_steps, "train_seconds": r.train_seconds,
            }  # fmt: skip
            for name, value in same.items():
                columns.setdefault(name, []).extend([value] * n)
            for name in ("scenario", "cost", "violation", "status", "steps", "fallbacks"):
                columns.setdefault(name, []).extend(getattr(r, name).tolist())
        return columns


def told_failures(comparison: Comparison) -> list[tuple[str, str]]:
    """Who failed and why, in the order of the comparison; equal errors are told once, with all whom they met."""
    seeded = any(run.seed for run in comparison.results) or any(f.seed for f in comparison.failures)
    met: dict[str, dict[str, dict[str, list[int]]]] = {}
    for f in comparison.failures:
        met.setdefault(f.error, {}).setdefault(f.plant, {}).setdefault(f.controller, []).append(f.seed)
    return [
        ("; ".join(_who(plant, rows, seeded) for plant, rows in plants.items()), error) for error, plants in met.items()
    ]


def _who(plant: str, rows: dict[str, list[int]], seeded: bool) -> str:
    names = [
        f"{name} (seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))})" if seeded else name
        for name, seeds in rows.items()
    ]
    return f"{plant}, {', '.join(names)}"


def run_notes(results: Sequence[RunResult], *, plants: bool = False) -> list[str]:
    """The remarks on some runs as sentences that say whose they are; of several plants, with their names."""
    return [
        f"{f'{run.plant}, ' if plants else ''}{run.controller}, seed {run.seed}: {note}."
        for run in results
        for note in run.notes
    ]
