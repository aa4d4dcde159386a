"""The ``steersman`` command: each subcommand is a dataclass, which is also its help."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape

from steersman.envs import noise
from steersman.envs.registry import make_simulator
from steersman.experiments.benchmarks.base import bench_table, run_benchmark, write_rows
from steersman.experiments.checking import Check
from steersman.experiments.comparison.compare import compare
from steersman.experiments.comparison.executor import InProcess, Processes
from steersman.experiments.comparison.results import Comparison
from steersman.experiments.comparison.runs import job_table, jobs_named, open_store, whole
from steersman.experiments.comparison.store import StoreError, disk_full
from steersman.experiments.exporting import Export
from steersman.experiments.fitted import page as fitting_page
from steersman.experiments.fitted.fit import fit
from steersman.experiments.fitted.spec import read_fitting
from steersman.experiments.linearising import Linearise
from steersman.experiments.listing import List
from steersman.experiments.report.page import print_failures, print_results, to_json, write_parquet, write_report
from steersman.experiments.report.progress import bar, live
from steersman.experiments.report.texts import counted
from steersman.experiments.simulate import simulate
from steersman.experiments.spec.comparison import ComparisonSpec, parse_spec, read_spec
from steersman.experiments.spec.settings import SpecError
from steersman.experiments.studies.registry import run_study
from steersman.experiments.training import Train


@dataclass(frozen=True)
class Compare:
    """Compare controllers on shared scenarios; ends in a table and DIR/report.html. Run again to continue.

    A comparison file names code that is run: treat a stranger's file as a stranger's program.
    """

    source: Annotated[str, tyro.conf.Positional]
    """A preset (see 'steersman list'), or the path of a TOML file."""
    out: Path | None = None
    """Folder of the results; by default results/NAME."""
    episodes: int | None = None
    """Scenarios per plant, instead of the file's."""
    seeds: int | None = None
    """Training seeds on every plant, instead of the file's."""
    device: str | None = None
    """Where plants and models run, such as cuda, instead of the file's."""
    workers: int | None = None
    """Processes; by default one per core; 0 runs everything in this one."""
    limit_s: float | None = None
    """Seconds that a fit or a run may take before it is ended and reported as failed; not with --workers 0."""
    json: bool = False
    """Print the scores as JSON instead of a table."""

    def run(self, console: Console) -> int:
        """Run, and print where the report lies; the status is 1 if a run failed."""
        if self.workers is not None and self.workers < 0:
            raise SpecError(f"--workers must be 1 or more, or 0 to run everything in this process, got {self.workers}")
        spec = read_spec(self.source)
        given = {name: getattr(self, name) for name in ("episodes", "seeds", "device", "limit_s")}
        if self.seeds is not None:
            spec = replace(spec, plants=tuple(replace(plant, seeds=None) for plant in spec.plants))
        spec = parse_spec(asdict(spec) | {name: value for name, value in given.items() if value is not None})
        out = self.out or Path("results") / spec.name
        executor = InProcess() if self.workers == 0 else Processes(self.workers)
        page = out / "report.html"
        with live(console, enabled=not self.json) as progress:
            found = compare(
                spec, out, executor=executor, progress=progress, interim=_interim(console, page, self.json),
                command=_command(),
            )  # fmt: skip
        write_report(found, page)
        try:
            write_parquet(found, out / "results.parquet")
        except ImportError as lacking:
            Console(stderr=True).print(escape(f"no results.parquet: {lacking}"), soft_wrap=True)
        if self.json:
            _print(to_json(found))
        else:
            print_results(console, found)
            _say_where(console, "Report", page)
        print_failures(found)
        return 1 if found.failures else 0


@dataclass(frozen=True)
class Fit:
    """Fit models to a recorded log and score them; ends in a table, DIR/fit.png and a folder for each model.

    Controllers are compared on such a model with id = "steersman.experiments.fitted:FittedSimulator".
    """

    source: Annotated[str, tyro.conf.Positional]
    """A TOML file with [log] and [[models]]."""
    out: Path | None = None
    """Folder of the models; by default results/NAME."""

    def run(self, console: Console) -> int:
        """Fit, score, and print where the models lie; the status is 1 if a fit failed."""
        spec = read_fitting(self.source)
        out = self.out or Path("results") / spec.name
        out.mkdir(parents=True, exist_ok=True)
        with bar(console, spec.name) as progress:
            found = fit(spec, out, progress)
        for note in found.recording.notes:
            console.print(escape(f"{spec.log.file}: {note}."), soft_wrap=True)
        console.print(fitting_page.table(found))
        picture = fitting_page.write(found, out)
        if (best := fitting_page.best(found)) is not None:
            _say_where(console, f"Best model, {best.name}", out / best.name / "model.json")
        if picture is not None:
            _say_where(console, "Predictions", picture)
        return 1 if any(model.failure for model in found.models) else 0


@dataclass(frozen=True)
class Simulate:
    """Run one episode of an environment under a controller, and film it."""

    env: Annotated[str, tyro.conf.Positional]
    """Id of a plant, or of any gymnasium environment."""
    controller: str = "zero"
    """Name of a controller."""
    model: str = ""
    """Name of a model, for controllers that plan; by default the true plant."""
    settings: str = "{}"
    """Settings of the controller, as JSON."""
    seed: int = 0
    """Scenario."""
    steps: int | None = None
    """Control steps; by default the whole episode."""
    gif: Path | None = None
    """Film to write."""
    json: bool = False
    """Print the result as JSON."""

    def run(self, console: Console) -> int:
        """Run and print cost and status."""
        try:
            settings: dict[str, Any] = json.loads(self.settings)
        except json.JSONDecodeError as error:
            raise SpecError(f"--settings is not JSON ({error}); write for example '{{\"horizon\": 8}}'") from error
        with bar(console, self.env, enabled=not self.json) as progress:
            found = simulate(
                self.env, self.controller, model=self.model, settings=settings, seed=self.seed, steps=self.steps,
                gif=self.gif, progress=progress,
            )  # fmt: skip
        if self.json:
            _print(json.dumps(asdict(found)))
        else:
            console.print(f"cost {found.cost:.6g} over {found.steps} control steps, status {found.status}")
            for note in found.notes:
                console.print(escape(f"{note}."), soft_wrap=True)
            if self.gif is not None:
                _say_where(console, "Film", self.gif)
        return 0


@dataclass(frozen=True)
class Scenarios:
    """Write the scenarios that a comparison meets to a file, and print their SHA-256: who has it has the same task."""

    env: Annotated[str, tyro.conf.Positional]
    """Id of a plant, or of anything that a comparison takes; an environment's scenario is its seed alone."""
    episodes: int = 50
    """Number of scenarios."""
    seed: int = ComparisonSpec.bank
    """Seed of the bank; by default that of comparisons."""
    out: Path | None = None
    """File (safetensors); by default results/scenarios/ENV-SEED.safetensors."""

    def run(self, console: Console) -> int:
        """Draw, write, print."""
        if self.episodes < 1:
            raise ValueError(f"--episodes is {self.episodes}; give 1 or more")
        simulator = make_simulator(self.env, 1)
        drawn = simulator.scenarios(noise.keys(self.seed, self.episodes))
        simulator.close()
        name = self.env.rpartition("/")[2].replace(":", "-")
        path = self.out or Path("results/scenarios") / f"{name}-{self.seed}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.save(path)
        console.print(escape(f"{drawn.digest()}  {path}"), soft_wrap=True)
        if drawn.x0 is None:
            console.print("It holds seeds alone: the environment draws the rest, and its code and version decide.")
        return 0


@dataclass(frozen=True)
class Bench:
    """Measure against peers, in one run; the status is 1 if a bar does not hold."""

    name: Annotated[str, tyro.conf.Positional]
    """A benchmark (see 'steersman list')."""
    json: Path | None = None
    """File to write the rows to."""

    def run(self, console: Console) -> int:
        """Run and print the rows."""
        with bar(console, self.name) as progress:
            rows = run_benchmark(self.name, progress)
        console.print(bench_table(rows))
        if self.json is not None:
            write_rows(rows, self.json, _command())
        return 0 if all(row.holds for row in rows) else 1


@dataclass(frozen=True)
class Study:
    """Run a study: text, numbers and a plot of a published claim, or of a whole preset. Run again to continue."""

    name: Annotated[str, tyro.conf.Positional]
    """A study or a preset (see 'steersman list')."""
    out: Path | None = None
    """Folder of finished cells or runs; by default results/NAME."""
    cells: tuple[str, ...] = ()
    """Patterns of the cells to run, such as '*, seed 0'; by default all that are missing."""
    page: bool = False
    """Only write the page anew, from the published numbers."""

    def run(self, console: Console) -> int:
        """Run, and print the text and where it lies."""
        folder = run_study(self.name, self.out, console, self.cells, page=self.page)
        for page in sorted(folder.glob("*.md")):
            console.print(Markdown(page.read_text(encoding="utf-8")))
        _say_where(console, "Study", folder)
        return 0


@dataclass(frozen=True)
class Runs:
    """List what the store of a comparison holds; show one job in full; delete some."""

    out: Annotated[Path, tyro.conf.Positional]
    """Folder of a comparison, such as results/tour."""
    show: str = ""
    """Key of a job, or its beginning: print it in full."""
    delete: tuple[str, ...] = ()
    """Keys of jobs to delete, or 'older' (newer code has answered them, or tried if they failed), or 'failed'."""

    def run(self, console: Console) -> int:
        """List, show or delete."""
        store = open_store(self.out)
        if self.show:
            (job,) = jobs_named(store, [self.show])
            _print(json.dumps(whole(store, job), indent=2))
        elif self.delete:
            gone = jobs_named(store, self.delete)
            store.delete(job.key for job in gone)
            console.print(f"deleted {len(gone)} of {len(gone) + len(store.jobs())} jobs")
        else:
            console.print(job_table(store))
        return 0


def main(args: list[str] | None = None) -> int:
    """Entry point; errors of the user's making end in one clear line and status 2."""
    commands: dict[str, Callable[..., Any]] = {
        "compare": Compare, "fit": Fit, "train": Train, "list": List, "simulate": Simulate, "scenarios": Scenarios,
        "study": Study, "bench": Bench, "runs": Runs, "check": Check, "export": Export, "linearise": Linearise,
    }  # fmt: skip
    command = tyro.extras.subcommand_cli_from_dict(
        commands, prog="steersman", description="Control of simulated systems, compared honestly.", args=args
    )
    try:
        return int(command.run(Console()))
    except (SpecError, StoreError, ValueError, RuntimeError, OSError) as error:
        advice = "; free some space and run again, or choose another folder" if disk_full(error) else ""
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error) + advice)}", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; the same command continues from here")
        return 130


def _command() -> str:
    return shlex.join(["steersman", *sys.argv[1:]])


def _interim(console: Console, page: Path, quiet: bool) -> Callable[[Comparison], None]:
    """Writes a page of the rows so far; the first time it says where."""
    said = quiet

    def tell(found: Comparison) -> None:
        nonlocal said
        write_report(found, page)
        if not said:
            _say_where(console, f"First results, {counted(found.waiting, 'run')} to come", page)
        said = True

    return tell


def _say_where(console: Console, what: str, path: Path) -> None:
    console.print(f"{what}: [bold]{escape(str(path))}[/bold]", soft_wrap=True)


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
