"""A comparison from specification to results: the function that the CLI, the tests and notebooks call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from steersman.controllers.registry import controller_spec
from steersman.envs.registry import PLANTS
from steersman.experiments.executor import Executor, InProcess
from steersman.experiments.files import load_result
from steersman.experiments.machine import describe_machine
from steersman.experiments.results import Comparison, Failure, PlantSummary, RunResult
from steersman.experiments.runner import finished, fit_job, run_job, simulator_of
from steersman.experiments.settings import SpecError, validated
from steersman.experiments.spec import ComparisonSpec, FitSpec, PlantEntry, RunSpec, expand, label_of
from steersman.experiments.store import Job, Store

POLL_S = 0.2


@dataclass(frozen=True)
class News:
    """How a comparison stands: the jobs of the current phase."""

    phase: str
    jobs: tuple[tuple[str, Job], ...]


def compare(
    spec: ComparisonSpec,
    out: Path,
    *,
    executor: Executor | None = None,
    progress: Callable[[News], None] = lambda news: None,
    command: str = "",
) -> Comparison:
    """Run what is not yet done and collect all results. A second call does nothing but collect.

    Args:
        spec: What to compare.
        out: Folder of the store.
        executor: Where jobs run; in this process by default.
        progress: Called a few times a second with the state of the jobs.
        command: The command line, for the report.

    Raises:
        SpecError: If the specification cannot run; nothing has been started then.
        StoreError: If the store cannot be used.
    """
    runs = expand(spec)
    check_problems(spec)
    store = Store(out / "store")
    executor = executor or InProcess()
    labels = _labels(spec, runs)
    fits = {fit.key: fit for run in runs if (fit := run.fit) is not None}
    names = {key: f"{_short(fit.plant)}: {_model_label(fit)} model, seed {fit.seed}" for key, fit in fits.items()}
    try:
        _phase("models", store, [fit_job(fit) for fit in fits.values()], names, executor, progress)
        names = {run.key: f"{_short(run.plant)}: {labels[run.key]}, seed {run.seed}" for run in runs}
        _phase("runs", store, [run_job(run) for run in runs], names, executor, progress)
    finally:
        executor.close()
    return _collect(spec, runs, labels, store, command)


def check_problems(spec: ComparisonSpec) -> None:
    """Build every plant and bind every controller that needs no fitted model, so that errors come before work.

    Raises:
        SpecError: Naming the plant or controller that cannot work.
    """
    for i, plant in enumerate(spec.plants):
        probe = next(run for run in expand(replace(spec, plants=(plant,))))
        try:
            problem = simulator_of(probe, 1).problem
        except (ValueError, TypeError, RuntimeError) as error:
            raise SpecError(f"plants.{i}: {error}") from error
        for name in plant.shown:
            if name not in problem.performed:
                raise SpecError(f"plants.{i}.shown: no output {name!r}; known: {', '.join(problem.performed)}")
        for j, entry in enumerate(plant.controllers):
            known = controller_spec(entry.use)
            try:
                controller = known.make(**validated(known.make, entry.settings, ""))
                if not known.needs_model:
                    controller.bind(problem)
            except ValueError as error:
                raise SpecError(f"plants.{i}.controllers.{j}: {error}") from error


def _phase(
    name: str,
    store: Store,
    jobs: Sequence[Job],
    names: dict[str, str],
    executor: Executor,
    progress: Callable[[News], None],
) -> None:
    store.add(jobs)
    kinds = {job.key: job.kind for job in jobs}

    def tell() -> None:
        progress(News(name, tuple((names[job.key], job) for job in store.jobs(list(kinds)))))

    waiting = [key for key, kind in kinds.items() if not finished(store, key, kind)]
    while waiting:
        executor.start(store.folder, waiting)
        while not executor.wait(POLL_S):
            tell()
        # A job that another comparison holds at this time is waited for, and taken over if its worker dies.
        waiting = [key for key in waiting if store.get(key).state in ("waiting", "running")]
        if waiting:
            time.sleep(POLL_S)
    tell()


def _labels(spec: ComparisonSpec, runs: Sequence[RunSpec]) -> dict[str, str]:
    found = {}
    for plant in spec.plants:
        for run in runs:
            if run.plant == plant.id:
                for entry in plant.controllers:
                    if replace(entry, episodes=None) == run.controller:
                        found[run.key] = label_of(entry)
    return found


def _collect(
    spec: ComparisonSpec, runs: Sequence[RunSpec], labels: dict[str, str], store: Store, command: str
) -> Comparison:
    results: list[RunResult] = []
    failures: list[Failure] = []
    for run in runs:
        job, label = store.get(run.key), labels[run.key]
        if job.state == "done":
            found = load_result(store.file(run.key, ".npz"))
            results.append(replace(found, controller=label, model=_model_label(run)))
        else:
            failures.append(Failure(run.key, run.plant, label, run.seed, job.error or job.state))
    _check_banks(results)
    plants = tuple(_summary(spec, plant) for plant in spec.plants)
    baseline = next(label_of(e) for p in spec.plants for e in p.controllers if e.use == spec.baseline)
    return Comparison(
        spec.name, baseline, plants, tuple(results), tuple(failures), command, describe_machine(), _notes(spec)
    )


def _check_banks(results: Sequence[RunResult]) -> None:
    """Equal plants and equal numbers of scenarios must have met equal scenarios, even across code changes."""
    seen: dict[tuple[str, int], RunResult] = {}
    for result in results:
        other = seen.setdefault((result.plant, len(result.scenario)), result)
        if other.bank != result.bank:
            raise SpecError(
                f"{result.plant}: {other.controller} and {result.controller} met different scenarios, because the "
                "plant changed between their runs; start again with an empty --out folder"
            )


def _summary(spec: ComparisonSpec, plant: PlantEntry) -> PlantSummary:
    run = next(run for run in expand(replace(spec, plants=(plant,))))
    problem = simulator_of(run, 1).problem
    other = "model of your own" if ":" in plant.id else "gymnasium environment"
    line = next((known.summary for known in PLANTS if known.id == plant.id.removeprefix("steersman.envs:")), other)
    shown = tuple(problem.performed.index(name) for name in plant.shown) or tuple(range(min(4, problem.nz)))
    return PlantSummary(
        plant.id, line, problem.period, problem.time_unit, problem.horizon,
        problem.performed, shown, problem.actions.names, problem.actions.units,
    )  # fmt: skip


def _notes(spec: ComparisonSpec) -> tuple[str, ...]:
    notes = []
    for plant in spec.plants:
        for entry in plant.controllers:
            if entry.episodes is not None and entry.episodes < spec.episodes:
                notes.append(
                    f"{_short(plant.id)}: {label_of(entry)} is slow and ran on the first {entry.episodes} of "
                    f"{spec.episodes} scenarios; its differences are paired on those."
                )
            if not entry.preview:
                notes.append(f"{_short(plant.id)}: {label_of(entry)} was not shown future references.")
    return tuple(notes)


def _model_label(spec: FitSpec | RunSpec) -> str:
    return "" if spec.model is None else spec.model.label or spec.model.use


def _short(plant: str) -> str:
    return plant.rpartition("/")[2]
