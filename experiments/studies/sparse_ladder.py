"""How much accuracy each halving of the ReLUs costs: sparse networks of 64, 32, 16, 8 and no ReLUs on three plants.

Results lie in ``results/sparse-ladder`` beside this file.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from rich.console import Console

from steersman.dynamics.base import Dynamics, Trajectories
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.score import score
from steersman.dynamics.windowed.neural import NeuralDynamics, NeuralSettings
from steersman.dynamics.windowed.sparse import SparseNeuralDynamics, SparseSettings
from steersman.envs import make_simulator
from steersman.experiments.comparison.machine import describe_machine
from steersman.experiments.report.progress import bar

RESULTS = Path(__file__).parent / "results" / "sparse-ladder"
LADDER = (64, 32, 16, 8, 4, 0)
SEEDS = (0, 1, 2)
AHEAD = 10
EPISODES = 128


@dataclass(frozen=True)
class Task:
    """A plant and how its data are collected."""

    plant: str
    exciter: HeldLevels


TASKS = (
    Task("Pendulum-v1", HeldLevels()),
    Task("TwoAreaBrake-v1", HeldLevels(longest=6)),
    Task("WolfSheep-v1", HeldLevels(shortest=2, longest=20)),
)


@dataclass(frozen=True)
class Rung:
    """Error of one model on new episodes.

    Attributes:
        plant: Id without its namespace.
        model: Kind of model.
        relus: ReLUs left; -1 where the kind has none.
        seed: Seed of the fit.
        error: Root mean square over outputs of the ``AHEAD``-step error of z, relative to persistence's.
        seconds: CPU seconds of the fit.
    """

    plant: str
    model: str
    relus: int
    seed: int
    error: float
    seconds: float


def run(console: Console, out: Path | None) -> Path:
    """Run the study; it keeps nothing in ``out``."""
    torch.set_num_threads(1)
    rungs: list[Rung] = []
    with bar(console, "sparse-ladder") as report:
        for i, task in enumerate(TASKS):
            report(i / len(TASKS), task.plant)
            rungs += ladder(task)
    RESULTS.mkdir(parents=True, exist_ok=True)
    whole = {
        "command": "steersman study sparse-ladder", "machine": describe_machine(),
        "episodes": EPISODES, "steps ahead": AHEAD, "rungs": [asdict(rung) for rung in rungs],
    }  # fmt: skip
    (RESULTS / "sparse-ladder.json").write_text(json.dumps(whole, indent=1) + "\n")
    (RESULTS / "sparse-ladder.md").write_text(page(rungs))
    plot(rungs, RESULTS / "sparse-ladder.png")
    return RESULTS


def ladder(task: Task) -> list[Rung]:
    """All models of one plant."""
    simulator = make_simulator(f"steersman/{task.plant}", 64)
    data, test = (collect(simulator, task.exciter, episodes=EPISODES, seed=seed) for seed in (0, 1))

    def rung(name: str, relus: int, seed: int, model: Dynamics) -> Rung:
        start = time.process_time()
        model.bind(simulator.problem).fit(data)
        return Rung(task.plant, name, relus, seed, _error(model, test), time.process_time() - start)

    found = [rung("linear", -1, 0, LinearDynamics(context=2))]
    for seed in SEEDS:
        dense = NeuralSettings(context=2, hidden=(32, 32), members=1, rollout=5, seed=seed)
        found.append(rung("dense SiLU", -1, seed, NeuralDynamics(dense)))
        found += [rung("sparse", k, seed, SparseNeuralDynamics(SparseSettings(relus=k, seed=seed))) for k in LADDER]
    return found


def _error(model: Dynamics, test: Trajectories) -> float:
    found = score(model, test, AHEAD)
    return float((found.z.square().mean() / found.z_persistence.square().mean()).sqrt())


def _mean(rungs: list[Rung], plant: str, model: str, relus: int) -> tuple[float, float]:
    """Mean and largest deviation from it over the seeds, in percent of persistence."""
    errors = np.array([r.error for r in rungs if (r.plant, r.model, r.relus) == (plant, model, relus)]) * 100
    return float(errors.mean()), float(np.abs(errors - errors.mean()).max())


def page(rungs: list[Rung]) -> str:
    """The study's text, computed from its numbers."""
    plants = [task.plant for task in TASKS]
    columns = [("linear", -1), ("dense SiLU", -1), *(("sparse", k) for k in LADDER)]
    names = ["linear", "dense, 64 SiLU", "64 ReLU (all)", *(f"{k} ReLU" for k in LADDER[1:])]
    lines = [
        "# sparse-ladder", "", "`steersman study sparse-ladder`", "", describe_machine(), "",
        f"Root-mean-square error of z after {AHEAD} control steps on {EPISODES} new episodes, in percent of the error "
        f"of persistence; mean over {len(SEEDS)} seeds, +- the largest deviation. Networks of two hidden layers of 32 "
        "on windows of two measurements, beside a linear path.", "",
        f"| plant | {' | '.join(names)} |", f"|{'---|' * (len(names) + 1)}",
    ]  # fmt: skip
    for plant in plants:
        cells = ["{:.1f} +- {:.1f}".format(*_mean(rungs, plant, *column)) for column in columns]
        lines.append(f"| {plant} | {' | '.join(cells)} |")
    lines.append("")
    for plant in plants:
        linear, full, eight = (_mean(rungs, plant, *c)[0] for c in (("linear", -1), ("sparse", 64), ("sparse", 8)))
        kept = (linear - eight) / (linear - full) if linear > full else float("nan")
        lines.append(f"- {plant}: 8 of 64 ReLUs keep {100 * kept:.0f} % of what 64 of them gain over linear.")
    lines.append(
        "- On Pendulum-v1 the angle is no affine function of its cosine and sine, and sparse networks read z out "
        "affinely; the dense model has a network there. That, not the number of ReLUs, is the gap between them."
    )
    return "\n".join(lines) + "\n"


def plot(rungs: list[Rung], path: Path) -> None:
    """Error against the number of ReLUs, one panel per plant, with the linear and the dense model as lines."""
    figure, panels = plt.subplots(1, len(TASKS), figsize=(10, 3.2))
    for axes, task in zip(panels, TASKS, strict=True):
        places = range(len(LADDER))
        for place, k in zip(places, reversed(LADDER), strict=True):
            errors = [100 * r.error for r in rungs if (r.plant, r.model, r.relus) == (task.plant, "sparse", k)]
            axes.plot([place] * len(errors), errors, "o", color="#4c72b0", ms=5, mec="white")
        means = [_mean(rungs, task.plant, "sparse", k)[0] for k in reversed(LADDER)]
        axes.plot(places, means, color="#4c72b0", label="sparse ReLU")
        for name, tint in (("linear", "0.4"), ("dense SiLU", "#dd8452")):
            axes.axhline(_mean(rungs, task.plant, name, -1)[0], color=tint, ls="--", lw=1, label=name)
        axes.set_xticks(places, [str(k) for k in reversed(LADDER)])
        axes.set_title(task.plant, fontsize=11)
        axes.set_xlabel("ReLUs left")
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(f"{AHEAD}-step error, % of persistence")
    panels[0].legend(frameon=False, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
