"""Publish a comparison as a study: scores as JSON, a page of text and a plot, in ``results/NAME`` beside this file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from rich.console import Console

from steersman.experiments.comparison.compare import compare
from steersman.experiments.comparison.executor import Processes
from steersman.experiments.comparison.machine import describe_commit
from steersman.experiments.comparison.results import Comparison, run_notes, told_failures
from steersman.experiments.report.findings import findings, glance, headline, short
from steersman.experiments.report.lines import Line, table_lines
from steersman.experiments.report.page import to_json
from steersman.experiments.report.progress import live
from steersman.experiments.report.texts import number, percent, seconds
from steersman.experiments.spec.comparison import read_spec
from steersman.experiments.statistics.paired import MINIMUM
from steersman.experiments.statistics.scores import Score, scores
from steersman.experiments.studies.writing import RESULTS

TRACKS = {"data only": "#dd8452", "solver access": "#4c72b0", "hindsight": "#8c8c8c"}


COLUMNS = (
    "track", "controller", "mean cost", "difference", "interval", "gain, %", "verdict", "regret", "failures",
    "decision", "plant steps", "CPU s", "n",
)  # fmt: skip
LEGEND = (
    f"Verdicts: paired differences to the plant's baseline, tested on {MINIMUM} common scenarios or more by sign flips "
    "and a t test corrected for skewness, with five training seeds or more also by a t test with the variance of the "
    "seeds; all of a plant together hold 95 % (Holm), and an interval excludes zero exactly where the verdict is "
    "better or worse. `steersman compare` explains them at the end of its report. * marks a mean over fewer scenarios."
)


def publish(
    source: str,
    out: Path | None,
    console: Console,
    claims: Callable[[Comparison, list[Score]], list[str]] = lambda comparison, found: [],
    figure: Callable[[Comparison, Path], None] | None = None,
) -> Path:
    """Run what is not done yet of a comparison and write its page; the folder that it is in.

    A file ``changes.md`` in that folder, written by hand, becomes a part of the page: what moved the numbers since they
    were last published.

    Args:
        source: A preset or a TOML file.
        out: Folder of the comparison's results; by default results/NAME.
        console: Where progress is shown.
        claims: Sentences that the study adds to the findings, from the numbers.
        figure: Draws the study's picture into a file; by default :func:`plot`.
    """
    spec, commit = read_spec(source), describe_commit()  # before there is a page that differs from it
    with live(console) as progress:
        comparison = compare(
            spec, out or Path("results") / spec.name, executor=Processes(), progress=progress,
            command=f"steersman study {source}",
        )  # fmt: skip
    folder = RESULTS / spec.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{spec.name}.json").write_text(to_json(comparison) + "\n")
    changes = folder / "changes.md"
    told = changes.read_text() if changes.is_file() else ""
    text = page(comparison, claims(comparison, scores(comparison)), told, commit)
    (folder / f"{spec.name}.md").write_text(text)
    (figure or plot)(comparison, folder / f"{spec.name}.png")
    return folder


def page(comparison: Comparison, claims: Sequence[str] = (), changes: str = "", commit: str = "") -> str:
    """The study's text, computed from its numbers; claims come first.

    Args:
        comparison: The numbers.
        claims: Sentences about them.
        changes: What moved the numbers since they were last published.
        commit: Commit of the code.
    """
    found = scores(comparison)
    where = f"{comparison.machine}; commit {commit}" if commit else comparison.machine
    lines = [f"# {comparison.name}", "", f"`{comparison.command}`", "", where, ""]
    lines += [f"![Costs]({comparison.name}.png)", ""]
    if changes:
        lines += ["## What changed since the last publication", "", changes.strip(), "", "## Findings", ""]
    lines += [f"- {sentence}" for sentence in (*claims, *findings(comparison, found))]
    lines += [
        "",
        "| plant | track | controller | mean cost | saves, % | decision | plant steps | CPU s | remarks |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {short(c.plant)} | {c.track} | {c.controller} | {number(c.cost)} | {percent(c.gain)} "
        f"| {seconds(c.decision)} | {c.train_steps:,.0f} | {c.train_seconds:.1f} | {c.remark} |"
        for c in glance(comparison, found)
    ]
    for plant in comparison.plants:
        rows = [score for score in found if score.plant == plant.name]
        lines += ["", f"## {plant.name}", "", headline(plant.baseline, rows) if rows else "No run has finished.", ""]
        lines += [f"| {' | '.join(COLUMNS)} |"]
        lines += ["|---" * len(COLUMNS) + "|"]
        for track in TRACKS:
            lines += [_row(line) for line in table_lines(rows, plant.baseline) if line.track == track]
    lines += ["", LEGEND, "", *(f"- {note}" for note in comparison.notes)]
    lines += [f"- {note}" for note in run_notes(comparison.results, plants=True)]
    lines += [f"- Failed: {who}: {error}" for who, error in told_failures(comparison)]
    return "\n".join(lines) + "\n"


def _row(line: Line) -> str:
    cells = (
        line.track, line.controller, line.cost, line.difference, line.difference_interval, line.gain, line.verdict,
        line.regret, line.failures, line.decision, line.train_steps, line.train_seconds, line.scenarios,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def plot(comparison: Comparison, path: Path) -> None:
    """Mean cost of each controller relative to the baseline, one panel per plant, by track."""
    found = scores(comparison)
    width = min(2, len(comparison.plants))
    height = -(-len(comparison.plants) // width)
    size = (1 + 4.25 * width, 2.9 * height + 0.5)
    figure, panels = plt.subplots(height, width, figsize=size, squeeze=False, layout="constrained")
    for axes in panels.flat[len(comparison.plants) :]:
        axes.axis("off")
    for axes, plant in zip(panels.flat, comparison.plants, strict=False):
        _panel(axes, [s for s in found if s.plant == plant.name and s.difference is not None], plant.baseline)
        axes.set_title(short(plant.name), fontsize=11)
    there = {score.track for score in found}
    shown = {track: tint for track, tint in TRACKS.items() if track in there}
    handles = [Line2D([], [], color=tint, marker="o", ls="", label=track) for track, tint in shown.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axes: Axes, rows: Sequence[Score], baseline: str) -> None:
    # On a logarithm, costs are shares of the baseline's; where they are zero, or negative as returns are, differences.
    shares = all(score.relative > 0 for score in rows)
    shown = []
    for score in rows:
        d = score.difference
        assert d is not None  # noqa: S101 - filtered by the caller
        interval = d.gain_interval if shares else d.interval
        told = [d.gain if shares else d.mean, *([] if interval is None else [interval.low, interval.high])]
        scaled = [100 * (1 - v) if shares else v for v in told]
        shown.append((scaled, TRACKS[score.track], score.controller))
    shown.sort(key=lambda row: -row[0][0] if np.isfinite(row[0][0]) else -np.inf)
    for i, ((mean, *ends), tint, _) in enumerate(shown):
        if np.isfinite(ends).all() and ends:
            axes.plot(ends, [i, i], color=tint, lw=3)
        axes.plot(mean, i, "o", color=tint, ms=7, mec="white")
    if shares:
        _logarithmic(axes, min((row[0][0] for row in shown), default=100.0))
    else:
        axes.axvline(0, color="0.5", lw=1)
    axes.set_yticks(range(len(shown)), [name for _, _, name in shown], fontsize=9)
    axes.set_xlabel(f"cost, % of {baseline}'s" if shares else f"cost minus {baseline}'s (left is better)")
    axes.grid(True, axis="x", which="both", color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _logarithmic(axes: Axes, low: float) -> None:
    """Ticks at 1, 2, 5 of each decade from ``low`` to 100, or at decades alone where they are many."""
    axes.axvline(100, color="0.5", lw=1)
    axes.set_xscale("log")
    if low < 0.5:
        return
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500) if low / 2 <= t <= 100 or t == 100]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
