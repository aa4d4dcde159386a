"""A comparison from specification to results: the function that the CLI, the tests and notebooks call."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from steersman.controllers.registry import controller_spec
from steersman.envs.registry import PLANTS
from steersman.envs.settings import missing
from steersman.envs.simulator import Simulator
from steersman.experiments.comparison.cells import CellSpec
from steersman.experiments.comparison.executor import Executor, InProcess
from steersman.experiments.comparison.files import load_result
from steersman.experiments.comparison.jobs import job_of
from steersman.experiments.comparison.machine import describe_machine
from steersman.experiments.comparison.results import Comparison, Failure, PlantSummary, RunResult
from steersman.experiments.comparison.runner import prepared
from steersman.experiments.comparison.store import Job, Store
from steersman.experiments.spec.binding import refuse, unbindable
from steersman.experiments.spec.closure import refresh
from steersman.experiments.spec.comparison import ComparisonSpec, PlantEntry, look_beside
from steersman.experiments.spec.plan import JobSpec, Planned, baseline_of, modules_of, plan
from steersman.experiments.spec.settings import SpecError

POLL_S = 0.2
ENDED = ("done", "failed")
"""States of a job that nobody is to do any more."""
FIRST, RUNS = "first rows", "runs"
"""Phases whose jobs are runs: those that take neither a fit nor a training, and the others."""
INTERIM_S = 20.0
"""Seconds between two interim results, at least."""
INTERIM_SHARE = 10.0
"""Times what telling of the last ones took: both compete with the jobs for the same cores."""


@dataclass(frozen=True)
class News:
    """How a comparison stands: the jobs of the current phase."""

    phase: str
    jobs: tuple[tuple[str, Job], ...]


def compare(
    spec: ComparisonSpec,
    out: Path | str,
    *,
    executor: Executor | None = None,
    progress: Callable[[News], None] = lambda news: None,
    interim: Callable[[Comparison], None] | None = None,
    command: str = "",
) -> Comparison:
    """Run what is not yet done and collect all results. A second call does nothing but collect.

    Args:
        spec: What to compare.
        out: Folder of the store.
        executor: Where jobs run; in this process by default, where no job can be ended (``limit_s``).
        progress: Called a few times a second with the state of the jobs.
        interim: Called now and then with the rows that are finished so far (:attr:`Comparison.waiting`), first when
            those are that take neither a fit nor a training.
        command: The command line, for the report.

    Raises:
        SpecError: If the specification cannot run; nothing has been started then.
        StoreError: If the store cannot be used.
    """
    executor = executor or InProcess()
    if spec.limit_s is not None and not executor.ends_jobs:
        raise SpecError(
            f"limit_s = {spec.limit_s:g}: a job that runs in this process cannot be ended; leave limit_s out, or give "
            "jobs processes of their own (--workers 1 or more)"
        )
    look_beside(spec.folder)
    refresh(modules_of(spec))
    planned, place = plan(spec), Path(out) / "store"
    store = Store(place) if place.exists() else None  # nothing is written before all is checked
    summaries = check_problems(spec, _answered(planned, store))
    store = store or Store(place)
    phases = _phases(planned)
    old = store.older([job_of(p.run) for p in planned])
    notes = _notes(spec, len(old))

    def collect() -> Comparison:
        return _collect(spec, planned, summaries, store, command, notes)

    interims = _Interims(interim, collect)
    store.add(job_of(spec) for jobs in phases.values() for _, spec in jobs.values())
    try:
        for name, jobs in phases.items():
            run_phase(name, store, jobs, executor, progress, spec.limit_s, interims.look)
    finally:
        executor.close()
    return collect()


def check_problems(spec: ComparisonSpec, answered: Collection[tuple[str, str]] = ()) -> tuple[PlantSummary, ...]:
    """Build every plant and bind every controller (:mod:`steersman.experiments.spec.binding`): errors come before work.

    Args:
        spec: What to compare.
        answered: Plants and labels of rows whose results exist, which are not bound again.

    Returns:
        What a report says about the plants.

    Raises:
        SpecError: Naming the first plant that cannot work, or all rows whose controller cannot.
    """
    found, faults = [], list[str]()
    for i, plant in enumerate(spec.plants):
        where = f"plants.{i}"
        simulator = _simulator(spec, plant, where)
        try:
            found.append(_summary(spec, plant, simulator, where))
            faults += unbindable(plant, simulator, where, {label for name, label in answered if name == plant.name})
        finally:
            simulator.close()
    refuse(faults)
    return tuple(found)


def _answered(planned: Sequence[Planned], store: Store | None) -> set[tuple[str, str]]:
    """Plants and labels of the rows all of whose runs a store holds."""
    done = {job.key for job in store.jobs() if job.state == "done"} if store is not None else set[str]()
    open_rows = {(p.plant, p.label) for p in planned if p.run.key not in done}
    return {(p.plant, p.label) for p in planned} - open_rows


def _simulator(spec: ComparisonSpec, plant: PlantEntry, where: str) -> Simulator:
    try:
        # What a failure costs is found later; to planners it only matters here that it costs something.
        return plant.environment.simulator(1, spec.device, price=1.0)
    except (ValueError, RuntimeError) as error:
        raise SpecError(f"{where}: {error}") from error
    except (Exception, SystemExit) as error:  # code of the user's
        raise SpecError(f"{where}: {plant.id} cannot be made ({type(error).__name__}: {error})") from error


def _summary(spec: ComparisonSpec, plant: PlantEntry, simulator: Simulator, where: str) -> PlantSummary:
    problem = simulator.problem
    for name in plant.shown:
        if name not in problem.performed:
            raise SpecError(f"{where}.shown: no output {missing(name, problem.performed)}")
    other = "model of your own" if ":" in plant.id else "gymnasium environment"
    line = next((known.summary for known in PLANTS if known.id == plant.id.removeprefix("steersman.envs:")), other)
    shown = tuple(problem.performed.index(name) for name in plant.shown) or tuple(range(min(4, problem.nz)))
    return PlantSummary(
        plant.id, plant.name, baseline_of(spec, plant, where), line, problem.period, problem.time_unit,
        problem.horizon, problem.performed, shown, problem.actions.names, problem.actions.units,
    )  # fmt: skip


class _Interims:
    """Tells of the rows that are finished so far, and not more often than it is worth."""

    def __init__(self, tell: Callable[[Comparison], None] | None, collect: Callable[[], Comparison]) -> None:
        self._tell, self._collect = tell, collect
        self._due, self._told = time.monotonic() + INTERIM_S, ("", 0)

    def look(self, phase: str, finished: int, of: int) -> None:
        """Take note that some of a phase's jobs are finished."""
        if self._tell is None or phase not in (FIRST, RUNS) or not finished or self._told == (phase, finished):
            return
        if time.monotonic() < self._due and not (phase == FIRST and finished == of):
            return
        start = time.monotonic()
        found = self._collect()
        if found.waiting and (found.results or found.failures):
            self._tell(found)
        now = time.monotonic()
        self._due, self._told = now + max(INTERIM_S, INTERIM_SHARE * (now - start)), (phase, finished)


def _phases(planned: Sequence[Planned]) -> dict[str, dict[str, tuple[str, JobSpec]]]:
    """Jobs of each phase by key: what the progress display calls them, and the work."""
    banks: dict[str, tuple[str, JobSpec]] = {}
    first: dict[str, tuple[str, JobSpec]] = {}
    fits: dict[str, tuple[str, JobSpec]] = {}
    runs: dict[str, tuple[str, JobSpec]] = {}
    for p in planned:
        quick = p.run.fit is None and not controller_spec(p.run.controller.use).learns
        banks[p.run.prepared.key] = (f"{_short(p.plant)}: scenarios", p.run.prepared)
        if p.run.fit is not None:
            fits[p.run.fit.key] = (f"{_short(p.plant)}: {p.model} model, seed {p.run.fit.seed}", p.run.fit)
        (first if quick else runs)[p.run.key] = (f"{_short(p.plant)}: {p.label}, seed {p.run.seed}", p.run)
    # Who is given fewer scenarios than the others is slow, as the file says.
    most = {p.plant: max(q.run.episodes for q in planned if q.plant == p.plant) for p in planned}
    slow = {p.run.key for p in planned if p.run.episodes < most[p.plant]}
    first = dict(sorted(first.items(), key=lambda item: item[0] in slow))
    return {"scenarios": banks, FIRST: first, "models": fits, RUNS: runs}


def run_phase(
    name: str,
    store: Store,
    jobs: Mapping[str, tuple[str, JobSpec | CellSpec]],
    executor: Executor,
    progress: Callable[[News], None],
    limit_s: float | None = None,
    look: Callable[[str, int, int], None] = lambda phase, finished, of: None,
) -> None:
    """Have the jobs of a phase done that are not; they are in the store already.

    Args:
        name: Of the phase.
        store: The store.
        jobs: By key what the display calls them, and their work.
        executor: Where they run.
        progress: Called a few times a second.
        limit_s: Seconds that a job may take.
        look: Called with the phase, how many of its jobs have ended, and of how many.
    """

    def tell() -> None:
        found = store.jobs(list(jobs))
        progress(News(name, tuple((jobs[job.key][0], job) for job in found)))
        look(name, sum(job.state in ENDED for job in found), len(jobs))

    waiting = [key for key in jobs if not store.sound(key)]
    while waiting:
        executor.start(store.folder, waiting, limit_s)
        while not executor.wait(POLL_S):
            tell()
        # A job that another comparison holds at this time is waited for, and taken over if its worker dies.
        waiting = [key for key in waiting if store.get(key).state not in ENDED]
        if waiting:
            time.sleep(POLL_S)
    tell()


def _collect(
    spec: ComparisonSpec,
    planned: Sequence[Planned],
    summaries: tuple[PlantSummary, ...],
    store: Store,
    command: str,
    notes: tuple[str, ...],
) -> Comparison:
    results: list[RunResult] = []
    failures: list[Failure] = []
    states = {job.key: job for job in store.jobs([p.run.key for p in planned])}
    begun = {(p.plant, p.label) for p in planned if states[p.run.key].state not in ENDED}  # no row without a seed
    for p in planned:
        job = states[p.run.key]
        if (p.plant, p.label) in begun:
            continue
        if job.state == "done":
            found = load_result(store.file(job.key, ".npz"))
            results.append(replace(found, plant=p.plant, controller=p.label, model=p.model))
        else:
            failures.append(Failure(job.key, p.plant, p.label, p.run.seed, job.error or job.state))
    results, strangers = _paired(results)
    failures += strangers
    return Comparison(
        spec.name, spec.baseline, summaries, tuple(results), tuple(failures), command, describe_machine(),
        notes + _of_banks(planned, store) + _versions(results),
        sum(job.state not in ENDED for job in states.values()),
    )  # fmt: skip


def _of_banks(planned: Sequence[Planned], store: Store) -> tuple[str, ...]:
    """Remarks that preparing the scenarios gave."""
    notes = []
    for plant, spec in {p.plant: p.run.prepared for p in planned}.items():
        if store.get(spec.key).state == "done":
            _, said = prepared(spec, lambda of, suffix: store.file(of.key, suffix))
            notes += [f"{_short(plant)}: {text}" for text in said]
    return tuple(notes)


def _paired(results: Sequence[RunResult]) -> tuple[list[RunResult], list[Failure]]:
    """Results that can be compared: equal plants and numbers of scenarios must have met equal scenarios.

    Code and files are in the keys; a package or a data file that changed between runs is not.
    """
    first: dict[tuple[str, int], RunResult] = {}
    good, strangers = [], []
    for result in results:
        other = first.setdefault((result.plant, len(result.scenario)), result)
        if other.bank == result.bank:
            good.append(result)
        else:
            text = (
                f"it met other scenarios than {other.controller}, because something that Steersman does not watch "
                "changed between their runs; start again with an empty --out folder"
            )
            strangers.append(Failure(result.key, result.plant, result.controller, result.seed, text))
    return good, strangers


def _notes(spec: ComparisonSpec, old: int) -> tuple[str, ...]:
    notes = []
    if old:
        what = "result is" if old == 1 else "results are"
        notes.append(f"{old} {what} from older code and {'was' if old == 1 else 'were'} made again.")
    for plant in spec.plants:
        for entry in plant.controllers:
            if entry.episodes is not None and entry.episodes < spec.episodes:
                notes.append(
                    f"{_short(plant.name)}: {entry.name} is slow and ran on the first {entry.episodes} of "
                    f"{spec.episodes} scenarios; its differences are paired on those."
                )
            if not entry.preview:
                notes.append(f"{_short(plant.name)}: {entry.name} was not shown future references.")
    return tuple(notes)


def _versions(results: Sequence[RunResult]) -> tuple[str, ...]:
    """A remark where results were made with different versions of a package."""
    seen: dict[str, set[str]] = {}
    for result in results:
        for name, version in result.versions.items():
            seen.setdefault(name, set()).add(version)
    mixed = [f"{name} {' and '.join(sorted(found))}" for name, found in seen.items() if len(found) > 1]
    return (f"Results were made with different versions: {', '.join(mixed)}.",) if mixed else ()


def _short(plant: str) -> str:
    return plant.rpartition("/")[2]
