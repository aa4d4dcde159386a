"""Text and picture of the study of the swing's network, computed from its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from steersman.dynamics.pinn.data import COLLOCATION, PUBLISHED, TEST, SwingGrid
from steersman.dynamics.pinn.operator import SwingOperator
from steersman.envs.grid.tasks.structure_preserving import area_angle
from steersman.experiments.comparison.machine import describe_machine
from steersman.experiments.comparison.results import Comparison
from steersman.experiments.report.findings import headline
from steersman.experiments.report.lines import table_lines
from steersman.experiments.report.texts import seconds as shown
from steersman.experiments.statistics.scores import scores
from steersman.experiments.studies.grid.pinn_speed import ALLOWED, Speed, fastest

if TYPE_CHECKING:
    from steersman.experiments.studies.grid.pinn import Fit

COLOURS = {"NN": "0.5", "dtNN": "#dd8452", "PINN": "#4c72b0"}
POINT, TRAJECTORY = 300, 30
"""Bars: how many times faster than the best of scipy a point and a trajectory are asked to be."""


def page(
    fits: Sequence[Fit], accurate: Sequence[Fit], speeds: list[Speed], tabulated: float, comparison: Comparison
) -> str:
    """The study's text."""
    lines = ["# grid-pinn", "", "`steersman study grid-pinn`", "", describe_machine(), ""]
    lines += [f"- {sentence}" for sentence in claims(fits, accurate, speeds, tabulated)]
    lines += ["", "## Error by data and loss", "", _about(fits), ""]
    lines += [
        "| training grid | form | loss | rms | largest | from 0.05 s | dP <= 1.5 | residual | CPU s |",
        "|---" * 9 + "|",
    ]
    lines += [_fit_row(group) for group in _groups(fits)]
    lines += [_fit_row(list(accurate))]
    lines += [
        "",
        "## Speed",
        "",
        _about_speed(),
        "",
        "| way | query | CPU time | largest error, rad |",
        "|---|---|---|---|",
    ]
    lines += [f"| {s.name} | {s.query} | {shown(s.seconds)} | {s.error:.4f} |" for s in speeds]
    lines += ["", "## In use: steersman/PreventiveRedispatch-v1", "", *_comparison(comparison)]
    return "\n".join(lines) + "\n"


def claims(fits: Sequence[Fit], accurate: Sequence[Fit], speeds: list[Speed], tabulated: float) -> list[str]:
    """What the numbers say about the bars."""
    worst = max(fit.largest for fit in accurate)
    cost = float(np.mean([fit.seconds for fit in accurate]))
    sentences = [
        f"Trained on 121 trajectories, the separable network errs by at most {worst:.4f} rad in any angle at any of "
        f"{TEST[0]} x {TEST[1]} points over all {len(accurate)} seeds ({ALLOWED} is asked for: "
        f"{_verdict(worst <= ALLOWED)}), after {cost:.0f} CPU-seconds of training; angles reach 14 rad."
    ]
    for query, name, bar in (("point", "network", POINT), ("trajectory", "network, fixed times", TRAJECTORY),
                             ("trajectory", "network, any times", TRAJECTORY)):  # fmt: skip
        sentences.append(_ratio(speeds, query, name, bar))
    own = fastest(speeds, "trajectory", "own integrator")
    batch = next(s for s in speeds if "batch of 2048" in s.name and s.name.startswith("network"))
    rival = fastest([s for s in speeds if "odeint" not in s.name], "trajectory", "scipy", "compiled")
    ready = next(s for s in speeds if s.name == "network, fixed times")
    sentences += [
        f"Against our own batched integrator the gain is {own.seconds / batch.seconds:.1f} times per trajectory "
        f"({shown(batch.seconds)} against {shown(own.seconds)} in batches of 2048, errors {batch.error:.4f} and "
        f"{own.error:.4f} rad). Training pays after {cost / (rival.seconds - ready.seconds):,.0f} single trajectories "
        f"by the best of solve_ivp, or {cost / (own.seconds - batch.seconds):,.0f} in batches by our own integrator.",
        _physics(fits),
        "The network covers one contingency and one number, dP, in 0 .. 6 pu; from about 1.7 pu on synchronism is "
        "lost. For one number a table would do: the same 121 trajectories, interpolated by a polynomial in dP, err by "
        f"at most {tabulated:.4f} rad and need no training.",
    ]
    return sentences


def _ratio(speeds: list[Speed], query: str, name: str, bar: int) -> str:
    """How many times faster the network is than solve_ivp, plain and compiled, and than odeint."""
    ours = next(s for s in speeds if s.query == query and s.name == name)
    modern = [s for s in speeds if "odeint" not in s.name]
    plain, quick = (fastest(modern, query, "scipy", without) for without in ("compiled", "?"))
    old, bare = (
        fastest([s for s in speeds if "odeint" in s.name], query, "scipy", without) for without in ("compiled", "?")
    )
    gain, compiled, older, least = (s.seconds / ours.seconds for s in (plain, quick, old, bare))
    return (
        f"A {query} ({name}) takes {shown(ours.seconds)}: {gain:.3g} times faster than the best method of solve_ivp "
        f"with a right-hand side in numpy ({plain.name}; {bar} is asked for: {_verdict(gain >= bar)}), {compiled:.3g} "
        f"times with a compiled one. The old interface odeint to the same LSODA is quicker: {older:.3g} times in numpy "
        f"({_verdict(older >= bar)}), {least:.3g} compiled ({_verdict(least >= bar)})."
    )


def _physics(fits: Sequence[Fit]) -> str:
    parts = []
    for grid in (PUBLISHED[0], PUBLISHED[1], PUBLISHED[-1]):
        rms = [
            np.mean([f.rms for f in fits if (f.form, f.kind, f.grid) == ("separable", kind, grid)]) for kind in COLOURS
        ]
        parts.append(f"{rms[0]:.3g}, {rms[1]:.3g} and {rms[2]:.3g} rad on {grid[0]} x {grid[1]}")
    return f"Mean rms error of NN, dtNN and PINN: {'; '.join(parts)}."


def _verdict(holds: bool) -> str:
    return "the bar holds" if holds else "the bar does not hold"


def _about(fits: Sequence[Fit]) -> str:
    return (
        f"Errors of the six angles in rad on {TEST[0]} x {TEST[1]} points: mean over {len({fit.seed for fit in fits})} "
        "seeds, and the largest of them in brackets. Grids are disturbances x times, as published; the last row is 121 "
        "Chebyshev disturbances x times that resolve the first milliseconds. Collocation is "
        f"{COLLOCATION[0]} x {COLLOCATION[1]} plus 17 early times. Budget of the table: 60 steps of Adam and 30 "
        "iterations of L-BFGS on the states with the last layer projected, then 30 with derivatives and residual; of "
        "the last row 300, 150 and 40; of `plain` 60 and 30. They are short on purpose, and the order of the losses "
        "may depend on them. The residual is a root mean square in rad/s and rad/s^2. `plain` is the published 2 x 200 "
        "tanh form without batch normalisation. Uniform grids have no time inside the first 50 ms, where node 6 falls "
        "back by two radians: see the column from 0.05 s."
    )


def _about_speed() -> str:
    return (
        "CPU time of one thread, best of eight turns, mean over dP = 0.5, 1.65, 2.4, 4 and 6 pu, from the state at "
        "clearing, which both sides are given. A point is the states after 2 s, a trajectory 201 times. Batches: time "
        "per scenario."
    )


def _groups(fits: Sequence[Fit]) -> list[list[Fit]]:
    keys = list(dict.fromkeys((fit.grid, fit.form, fit.kind) for fit in fits))
    return [[fit for fit in fits if (fit.grid, fit.form, fit.kind) == key] for key in keys]


def _fit_row(group: Sequence[Fit]) -> str:
    first = group[0]
    cells = [f"{first.grid[0]} x {first.grid[1]}", first.form, first.kind]
    for name in ("rms", "largest", "settled", "synchronous", "residual"):
        values = [getattr(fit, name) for fit in group]
        cells.append(f"{np.mean(values):.3g} ({max(values):.3g})")
    cells.append(f"{np.mean([fit.seconds for fit in group]):.1f}")
    return f"| {' | '.join(cells)} |"


def _comparison(comparison: Comparison) -> list[str]:
    found, baseline = scores(comparison), comparison.plants[0].baseline
    lines = [
        f"`steersman compare grid-pinn`: {comparison.plants[0].id} on shared scenarios; oracle is the same screening "
        "by the integrator, on fewer errors and scenarios. 13 actions x 256 errors are 3,328 what-ifs a decision.", "",
        headline(baseline, found) if found else "No run has finished.", "",
        "| track | controller | mean cost | gain, % | interval | verdict | failures | decision | plant steps | CPU s "
        "| n |",
        "|---" * 11 + "|",
    ]  # fmt: skip
    for row in table_lines(found, baseline):
        cells = (
            row.track, row.controller, row.cost, row.gain, row.gain_interval, row.verdict, row.failures, row.decision,
            row.train_steps, row.train_seconds, row.scenarios,
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- {note}" for note in comparison.notes)]
    lines += [f"- Failed: {f.controller}, seed {f.seed}: {f.error}" for f in comparison.failures]
    return lines


def plot(fits: Sequence[Fit], best: SwingOperator, test: SwingGrid, path: Path) -> None:
    """Error by training grid and loss; the angle between the areas, integrated and by the network."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    for offset, (kind, tint) in enumerate(COLOURS.items()):
        for place, grid in enumerate(PUBLISHED):
            rms = [f.rms for f in fits if (f.form, f.kind, f.grid) == ("separable", kind, grid)]
            left.plot(
                [place + 0.2 * (offset - 1)] * len(rms),
                rms,
                "o",
                color=tint,
                ms=5,
                mec="white",
                label=kind if not place else None,
            )
    left.set_yscale("log")
    left.set_xticks(range(len(PUBLISHED)), [f"{a} x {b}" for a, b in PUBLISHED])
    left.set_xlabel("training grid, disturbances x times")
    left.set_ylabel("rms error of the angles, rad")
    left.legend(frameon=False)
    shown_at = [0, 13, 17, 19, 24, 60]
    found = best.predict(test.t, test.dP[shown_at])
    for row, (i, tint) in enumerate(zip(shown_at, plt.cm.viridis(np.linspace(0, 0.9, len(shown_at))), strict=True)):
        right.plot(test.t, area_angle(test.x[i]), color=tint, lw=3, alpha=0.4)
        right.plot(test.t, area_angle(found[row]), color=tint, lw=1, ls="--", label=f"{test.dP[i].item():.1f} pu")
    right.set_ylim(0, 9)
    right.set_xlabel("time after clearing, s")
    right.set_ylabel("angle between the areas, rad")
    right.legend(frameon=False, title="dP; line integrated,\ndashes network", fontsize=8, title_fontsize=8)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
