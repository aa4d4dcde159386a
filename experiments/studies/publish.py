"""Publish a comparison as a study: scores as JSON, a page of text and a plot, in ``results/NAME`` beside this file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from rich.console import Console

from steersman.experiments.compare import compare
from steersman.experiments.executor import Processes
from steersman.experiments.findings import findings, glance, headline, short
from steersman.experiments.progress import live
from steersman.experiments.report import gain_range, number, seconds, to_json
from steersman.experiments.results import Comparison
from steersman.experiments.spec import read_spec
from steersman.experiments.stats import Score, regret, scores

RESULTS = Path(__file__).parent / "results"
TRACKS = {"data only": "#dd8452", "solver access": "#4c72b0"}


COLUMNS = (
    "track", "controller", "mean cost", "gain, %", "95 %", "regret", "failures", "decision",
    "plant steps", "CPU s", "n",
)  # fmt: skip


def publish(
    source: str,
    out: Path | None,
    console: Console,
    claims: Callable[[Comparison, list[Score]], list[str]] = lambda comparison, found: [],
) -> Path:
    """Run what is not done yet of a comparison and write its page; the folder that it is in.

    Args:
        source: A preset or a TOML file.
        out: Folder of the comparison's results; by default results/NAME.
        console: Where progress is shown.
        claims: Sentences that the study adds to the findings, from the numbers.
    """
    spec = read_spec(source)
    with live(console) as progress:
        comparison = compare(
            spec, out or Path("results") / spec.name, executor=Processes(), progress=progress,
            command=f"steersman study {source}",
        )  # fmt: skip
    folder = RESULTS / spec.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{spec.name}.json").write_text(to_json(comparison) + "\n")
    (folder / f"{spec.name}.md").write_text(page(comparison, claims(comparison, scores(comparison))))
    plot(comparison, folder / f"{spec.name}.png")
    return folder


def page(comparison: Comparison, claims: Sequence[str] = ()) -> str:
    """The study's text, computed from its numbers; claims come first."""
    found = scores(comparison)
    lines = [f"# {comparison.name}", "", f"`{comparison.command}`", "", comparison.machine, ""]
    lines += [f"- {sentence}" for sentence in (*claims, *findings(comparison, found))]
    lines += [
        "",
        "| plant | track | controller | saves, % | decision | plant steps | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {short(c.plant)} | {c.track} | {c.controller} | {100 * c.gain:.0f} | {seconds(c.decision)} "
        f"| {c.train_steps:,.0f} | {c.train_seconds:.1f} |"
        for c in glance(comparison, found)
    ]
    for plant in comparison.plants:
        rows = [score for score in found if score.plant == plant.name]
        lines += ["", f"## {plant.name}", "", headline(plant.baseline, rows), ""]
        lines += [f"| {' | '.join(COLUMNS)} |"]
        lines += ["|---" * len(COLUMNS) + "|"]
        for track in TRACKS:
            lines += [_row(s, regret(s, rows, plant.baseline)) for s in rows if s.runs[0].track == track]
    lines += ["", *(f"- {note}" for note in comparison.notes)]
    lines += [f"- Failed: {f.plant}, {f.controller}: {f.error}" for f in comparison.failures]
    return "\n".join(lines) + "\n"


def _row(score: Score, lost: float | None) -> str:
    mean, d = score.over_runs, score.difference
    cells = (
        score.runs[0].track, score.controller, number(score.mean), "" if d is None else f"{100 * d.gain:.1f}",
        gain_range(score), "" if lost is None else f"{lost:.3f}", f"{mean(lambda r: r.failures):.3g}",
        seconds(mean(lambda r: r.latency.p50)),
        f"{mean(lambda r: r.train_steps):,.0f}", f"{mean(lambda r: r.train_seconds):.1f}", str(len(score.scenario)),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def plot(comparison: Comparison, path: Path) -> None:
    """Mean cost of each controller relative to the baseline, one panel per plant, by track."""
    found = scores(comparison)
    width = min(2, len(comparison.plants))
    height = -(-len(comparison.plants) // width)
    figure, panels = plt.subplots(height, width, figsize=(1 + 4.25 * width, 2.9 * height + 0.5), squeeze=False)
    for axes in panels.flat[len(comparison.plants) :]:
        axes.axis("off")
    for axes, plant in zip(panels.flat, comparison.plants, strict=False):
        _panel(axes, [s for s in found if s.plant == plant.name and s.difference is not None])
        axes.set_title(short(plant.name), fontsize=11)
    handles = [Line2D([], [], color=tint, marker="o", ls="", label=track) for track, tint in TRACKS.items()]
    figure.legend(handles=handles, loc="lower center", ncols=2, frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axes: Axes, rows: Sequence[Score]) -> None:
    rows = sorted(rows, key=lambda s: -s.relative)
    shares = all(score.relative > 0 for score in rows)
    for i, score in enumerate(rows):
        d, tint = score.difference, TRACKS[score.runs[0].track]
        assert d is not None  # noqa: S101 - filtered by the caller
        # Where costs pass zero, as returns do, a share of the baseline's on a logarithm says nothing: show the costs.
        base = 100 if shares else score.mean - d.mean
        if d.gain_interval is not None:
            axes.plot([base * (1 - v) for v in (d.gain_interval.low, d.gain_interval.high)], [i, i], color=tint, lw=3)
        axes.plot(base * (1 - d.gain), i, "o", color=tint, ms=7, mec="white")
    if shares:
        _logarithmic(axes, 100 * min((s.relative for s in rows), default=1.0))
    axes.set_yticks(range(len(rows)), [s.controller for s in rows], fontsize=9)
    axes.set_xlabel("cost, % of no control" if shares else "mean cost (minus the return)")
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
