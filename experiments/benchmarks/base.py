"""The frame of all benchmarks: ours and the peer, interleaved in one run, in CPU time, on one thread."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import torch
from rich import box
from rich.table import Table

from steersman.envs.settings import missing
from steersman.experiments.comparison.machine import describe_machine

Progress = Callable[[float, str], None]
"""Called with a fraction in 0..1 and a short text."""


@dataclass(frozen=True)
class Row:
    """One measurement; more is better for both sides.

    Attributes:
        case: What was measured.
        metric: Quantity and unit.
        ours: Our value.
        peer: The peer's value.
        peer_name: The peer, with its version where it is a package.
        bar: Smallest ratio that we promise.
    """

    case: str
    metric: str
    ours: float
    peer: float
    peer_name: str
    bar: float

    @property
    def ratio(self) -> float:
        """Ours over the peer's."""
        return self.ours / self.peer

    @property
    def holds(self) -> bool:
        """Whether the ratio reaches the bar."""
        return self.ratio >= self.bar


@dataclass(frozen=True)
class Benchmark:
    """An enrolled benchmark: ``target`` is ``module:function``, a function of a progress callback that yields rows."""

    name: str
    target: str
    summary: str


BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark("envs", "steersman.experiments.benchmarks.envs:rows", "batched environments against gymnasium's"),
    Benchmark(
        "families", "steersman.experiments.benchmarks.families:rows", "MPC, sampling and mixed-integer, against peers"
    ),
    Benchmark(
        "polystep", "steersman.experiments.benchmarks.polystep:rows", "PolyStep against polystep, and its memory"
    ),
    Benchmark("pde", "steersman.experiments.benchmarks.pde:rows", "PDE plants against controlgym (needs 'make peers')"),
    Benchmark("grid", "steersman.experiments.benchmarks.grid:rows", "grids against ANDES and scipy ('make peers')"),
    Benchmark("gpu", "steersman.experiments.benchmarks.gpu:rows", "policies trained on a GPU against one CPU core"),
    Benchmark(
        "statistics", "steersman.experiments.benchmarks.statistics:rows", "false winners that verdicts name, and power"
    ),
    Benchmark("abm", "steersman.experiments.benchmarks.abm:rows", "agent-based twins against Mesa"),
)


def run_benchmark(name: str, progress: Progress = lambda fraction, text: None) -> list[Row]:
    """Run a benchmark on one torch thread.

    Raises:
        ValueError: If there is none of that name; the message lists those that exist.
    """
    for entry in BENCHMARKS:
        if entry.name == name:
            module, _, function = entry.target.partition(":")
            rows: Callable[[Progress], Iterator[Row]] = getattr(importlib.import_module(module), function)
            torch.set_num_threads(1)
            return list(rows(progress))
    known = [entry.name for entry in BENCHMARKS]
    raise ValueError(f"unknown benchmark {missing(name, known)}")


def throughput(ours: Callable[[], int], peer: Callable[[], int], *, repeats: int = 3) -> tuple[float, float]:
    """Work per CPU-second of both sides, the best of ``repeats`` alternating turns after one turn to warm up.

    Each callable does some work and returns how many units it did. On a shared machine the best turn is the one
    that was disturbed least.
    """
    best = [0.0, 0.0]
    for turn in range(repeats + 1):
        for side, work in enumerate((ours, peer)):
            start = time.process_time()
            units = work()
            rate = units / max(time.process_time() - start, 1e-9)
            if turn:
                best[side] = max(best[side], rate)
    return best[0], best[1]


def rate(work: Callable[[], int], *, turns: int = 4) -> float:
    """Work per CPU-second, the best of ``turns`` turns; ``work`` returns how many units it did."""
    best = 0.0
    for _ in range(turns):
        start = time.process_time()
        units = work()
        best = max(best, units / max(time.process_time() - start, 1e-9))
    return best


def bench_table(rows: list[Row]) -> Table:
    """The rows for a terminal."""
    table = Table("case", "metric", "ours", "peer", "peer's name", "ratio", "bar", "holds", box=box.SIMPLE_HEAD)
    for row in rows:
        cells = (row.case, row.metric, f"{_short(row.ours)}", f"{_short(row.peer)}", row.peer_name, f"{row.ratio:.3g}")
        table.add_row(*cells, f"{row.bar:g}", "yes" if row.holds else "NO", style="" if row.holds else "bold red")
    return table


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def peer(package: str) -> str:
    """Name and version of a peer's package.

    Raises:
        ModuleNotFoundError: If it is not installed; the message names the extra.
    """
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        raise ModuleNotFoundError(f"this benchmark compares with {package}: pip install steersman[peers]") from None


def write_rows(rows: list[Row], path: Path, command: str) -> None:
    """Write rows, machine and command as JSON."""
    plain = [asdict(row) | {"ratio": row.ratio, "holds": row.holds} for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"command": command, "machine": describe_machine(), "rows": plain}
    path.write_text(json.dumps(whole, indent=2) + "\n")
