"""PolyStep on control tasks against its rivals, for policies with and without a gradient.

The claim is that of the published package (Le, arXiv 2605.01928): polytope steps train policies that have no gradient,
where evolution strategies take longer. Every search has one setting for all tasks: nothing is tuned per task.
The package itself runs as its CartPole example sets it up, with ten times the budget and more. Runs of one task and
policy go in lockstep; each such cell is stored when it is done, and a second start goes on with the cells that are
missing. Results lie in ``results/polystep-rl`` beside this file; a page keeps the published rows of cells that were
not run again. All cells take about three quarters of a CPU hour; ``python -m
steersman.experiments.studies.polystep.rl --tasks CartPole`` runs those of one task.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console

from steersman.experiments.report.progress import bar
from steersman.experiments.spec.closure import edition
from steersman.experiments.spec.environment import Environment
from steersman.experiments.spec.plan import sources
from steersman.experiments.studies.polystep.policy_runs import Row, Task, run_cell
from steersman.experiments.studies.polystep.rl_page import CENTRE, LONG, PACKAGE, publish_rows
from steersman.optimizers.base import Search
from steersman.optimizers.bases import Uniform
from steersman.optimizers.peer import PeerPolyStep
from steersman.optimizers.polystep.polystep import PolyStep
from steersman.optimizers.polystep.polytopes import Polytope
from steersman.optimizers.polystep.schedules import Schedule
from steersman.optimizers.registry import make_search
from steersman.optimizers.subspace import SubspaceSearch

RESULTS = Path(__file__).parents[1] / "results" / "polystep-rl"
CLASSIC = (
    Task("steersman/CartPole-v1", 475.0, 300_000, stop=True),
    Task("steersman/Acrobot-v1", -100.0, 800_000, offset=1.0, scenarios=8, held_out=16),
    Task("steersman/Pendulum-v1", -200.0, 1_500_000, held_out=16),
    Task("steersman/MountainCarContinuous-v1", 90.0, 600_000, offset=100.0, held_out=16, stop=True),
)
HEAVY = (
    Task("steersman/WolfSheep-v1", None, 20_000, scenarios=2, held_out=16, final=64),
    Task("steersman/KuramotoSivashinsky-v1", None, 200_000, scenarios=2, held_out=16, final=64),
    Task("steersman/TwoArea-v1", None, 40_000, scenarios=2, held_out=16, final=64),
    Task("steersman/TwoAreaBrake-v1", None, 40_000, scenarios=2, held_out=16, final=64),
)
HARD = ("int8", "binary", "binary-activation", "spiking")
"""Policies without a gradient."""
SEARCHES = ("frame_step", "polystep", "cma_es", "openai_es", "random")
FEWER = ("frame_step", "cma_es", "openai_es")
"""Searches of the costlier cells."""
SUBSPACE = "polystep_subspace"
OWN: dict[str, Callable[[], Search[Any]]] = {
    # The package's CartPole example; its subspace is the whole space for policies as small as ours.
    PACKAGE: lambda: PeerPolyStep(
        block=8, polytope=Polytope.SIMPLEX, solver="softmax", temperature=Schedule(1.0, 0.3, 40), step_radius=0.1,
        probe_radius=0.4,
    ),
    SUBSPACE: lambda: SubspaceSearch(
        inner=PolyStep(block=4, confirmations=0), basis=Uniform(8), rotate_every=1
    ),
    LONG: PolyStep,
}  # fmt: skip
"""Searches that have settings here."""
ADVANTAGE = {"CartPole": 30}
"""Budget of the package over that of the others, 10 elsewhere: the five generations in a row that make a run solved
take it five million steps."""
LONGER = 5
"""Budget of :data:`LONG` over that of the others: a generation of 230 evaluations leaves three in the common one."""
HIDDEN = {"CartPole": (16,), "Acrobot": (16,)}
"""The published policies' width; 8 elsewhere."""


def make(name: str) -> Search[Any]:
    """A search of the study."""
    return OWN[name]() if name in OWN else make_search(name)


@dataclass(frozen=True)
class Cell:
    """Runs of one policy on one task."""

    task: Task
    policy: str
    searches: tuple[str, ...]

    def run(self, report: Callable[[float, str], None]) -> list[Row]:
        """All of them."""
        hidden = HIDDEN.get(self.task.name, (8,))
        return run_cell(self.task, self.policy, hidden, self.searches, range(self.task.seeds), report, make)

    @property
    def key(self) -> str:
        """Name of its file."""
        return f"{self.task.name}-{self.policy}-{'-'.join(self.searches)}"


def cells() -> Iterator[Cell]:
    """All cells, those that the claims rest on first."""
    yield from (Cell(task, "mlp", SEARCHES) for task in CLASSIC)
    yield from (Cell(task, "mlp", FEWER) for task in HEAVY)
    yield from (Cell(task, "mlp", (SUBSPACE,)) for task in (*CLASSIC, *HEAVY))
    yield from (Cell(published(task), "mlp", (PACKAGE,)) for task in (*CLASSIC, *HEAVY))
    yield Cell(replace(CLASSIC[0], plant_steps=LONGER * CLASSIC[0].plant_steps), "mlp", (LONG,))
    yield from (Cell(task, policy, FEWER) for policy in HARD for task in CLASSIC[:2])
    yield from (Cell(task, policy, FEWER) for policy in HARD for task in CLASSIC[2:])
    yield from (Cell(task, policy, FEWER) for policy in HARD for task in HEAVY)


def published(task: Task) -> Task:
    """The terms of the package's runs: its 16 episodes of each evaluation, or fewer runs where episodes are costly."""
    budget = ADVANTAGE.get(task.name, 10) * task.plant_steps
    if task in CLASSIC:
        return replace(task, plant_steps=budget, scenarios=16)
    return replace(task, plant_steps=budget, seeds=5)


def run(console: Console, out: Path | None) -> Path:
    """Run the cells that are missing in ``out`` (by default results/polystep-rl) and write the page."""
    return run_some(console, out, (), (), "steersman study polystep-rl")


def run_some(console: Console, out: Path | None, tasks: Sequence[str], policies: Sequence[str], command: str) -> Path:
    """Run the missing cells of some tasks and policies and write the page; the folder that it is in.

    Args:
        console: Where progress is shown.
        out: Folder of finished cells.
        tasks: Names of tasks; none are all.
        policies: Names of policies, likewise.
        command: What the page names as its command.

    Raises:
        ValueError: If there is no such task or policy.
    """
    torch.set_num_threads(1)
    _check("tasks", tasks, [cell.task.name for cell in cells()])
    _check("policies", policies, [cell.policy for cell in cells()])
    whole = [
        cell
        for cell in cells()
        if cell.task.name in (tasks or [cell.task.name]) and cell.policy in (policies or [cell.policy])
    ]
    plants = [module for cell in cells() for module in sources(Environment(id=cell.task.plant))]
    folder = edition(out or Path("results") / "polystep-rl", [__name__, *plants])
    with bar(console, "polystep-rl") as report:
        for i, cell in enumerate(whole):
            done = folder / f"{cell.key}.jsonl"
            if not done.exists():
                _run(cell, done, _shifted(report, i, len(whole)))
    return publish(folder, command)


def _check(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"{what} has unknown {', '.join(unknown)}; choose of {', '.join(dict.fromkeys(known))}")


def _shifted(report: Callable[[float, str], None], place: int, total: int) -> Callable[[float, str], None]:
    return lambda fraction, text: report((place + fraction) / total, text)


def publish(folder: Path, command: str = "steersman study polystep-rl") -> Path:
    """Write the page from the cells that are done in ``folder`` and the published rows of the others."""
    fresh = read(folder)
    kept, older = _published(RESULTS / "polystep-rl.json")
    rows: list[Row] = []
    missing = []
    for cell in cells():
        found = _of(fresh, cell) or _of(kept, cell)
        rows += found
        if not found:
            missing.append(f"{cell.task.name} {cell.policy}{f' ({LONG})' if LONG in cell.searches else ''}")
    return publish_rows(rows, (*CLASSIC, *HEAVY), missing, older, RESULTS, command)


def _of(rows: Sequence[Row], cell: Cell) -> list[Row]:
    return [r for r in rows if (r.task, r.policy) == (cell.task.name, cell.policy) and r.search in cell.searches]


def _published(path: Path) -> tuple[list[Row], float]:
    """Rows of the page as it is, and the CPU seconds of the version that judged the centre."""
    if not path.exists():
        return [], 0.0
    whole = json.loads(path.read_text())
    return [_row({"judged": CENTRE, **line}) for line in whole["rows"]], float(whole["cpu_seconds"])


def _run(cell: Cell, done: Path, report: Callable[[float, str], None]) -> None:
    start = time.process_time()
    rows = cell.run(report)
    share = (time.process_time() - start) / len(rows)
    lines = [json.dumps(asdict(replace(row, seconds=share))) for row in rows]
    draft = done.with_suffix(".draft")
    draft.write_text("\n".join(lines) + "\n")
    draft.replace(done)


def read(folder: Path) -> list[Row]:
    """Rows of all finished cells."""
    files = [folder / f"{cell.key}.jsonl" for cell in cells()]
    return [_row(json.loads(line)) for file in files if file.exists() for line in file.read_text().splitlines()]


def _row(line: dict[str, Any]) -> Row:
    return Row(**{**line, "curve": [tuple(point) for point in line["curve"]]})


def main(tasks: tuple[str, ...] = (), policies: tuple[str, ...] = (), out: Path | None = None) -> None:
    """Run some cells.

    Args:
        tasks: Names of tasks, all by default.
        policies: Names of policies, likewise.
        out: Folder of finished cells.
    """
    words = ["python -m steersman.experiments.studies.polystep.rl"]
    for option, names in (("--tasks", tasks), ("--policies", policies)):
        words += [option, *names] if names else []
    console = Console()
    console.print(str(run_some(console, out, tasks, policies, " ".join(words))))


if __name__ == "__main__":
    tyro.cli(main)
