"""The outcome of a comparison for people: terminal tables and one HTML file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from steersman.experiments.comparison.results import Comparison, PlantSummary, run_notes, told_failures
from steersman.experiments.report import figures
from steersman.experiments.report.exports import to_json, write_parquet
from steersman.experiments.report.findings import findings, glance, headline
from steersman.experiments.report.lines import Line, line, table_lines
from steersman.experiments.report.texts import DASH, counted, number, percent, seconds
from steersman.experiments.statistics.evidence import FLIPS
from steersman.experiments.statistics.paired import GAIN, LEVEL, METHOD, MINIMUM
from steersman.experiments.statistics.ranking import ranking
from steersman.experiments.statistics.scores import Score, per_seed, scores

__all__ = ["run_notes", "terminal_tables", "to_json", "write_parquet", "write_report"]

UNFINISHED = "No run on this plant has finished."


@dataclass(frozen=True)
class Section:
    """What the page shows of one plant."""

    plant: PlantSummary
    headline: str
    lines: tuple[Line, ...] = ()
    shares: bool = True
    seeds: tuple[Line, ...] = ()
    remarks: tuple[str, ...] = ()
    differences: str = ""
    trajectories: str = ""
    pictures: tuple[tuple[str, str], ...] = ()


def write_report(comparison: Comparison, path: Path) -> None:
    """Write one self-contained HTML page."""
    found = scores(comparison)
    sections = [_section(plant, [s for s in found if s.plant == plant.name]) for plant in comparison.plants]
    loader = jinja2.PackageLoader("steersman.experiments.report", ".")
    page = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    text = page.get_template("report.html.j2").render(
        comparison=comparison,
        sections=sections,
        findings=findings(comparison, found),
        failures=told_failures(comparison),
        dash=DASH,
        glance=glance(comparison, found),
        seconds=seconds,
        counted=counted,
        number=number,
        percent=percent,
        numbers={"flips": FLIPS, "minimum": MINIMUM, "method": METHOD, "gain": 100 * GAIN, "level": 100 * (1 - LEVEL)},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)  # somebody may be looking at it


def print_results(console: Console, comparison: Comparison) -> None:
    """Tables for a terminal, and what there is to say about them."""
    for note in comparison.notes:
        console.print(escape(note), soft_wrap=True)
    for table in terminal_tables(comparison):
        console.print(table)
    for note in run_notes(comparison.results, plants=True):
        console.print(escape(note), soft_wrap=True)


def print_failures(comparison: Comparison) -> None:
    """Runs that failed, to the error output."""
    for who, error in told_failures(comparison):
        Console(stderr=True).print(f"[red]{escape(who)}:[/red] {escape(error)}", soft_wrap=True)


def terminal_tables(comparison: Comparison) -> list[Table | Text]:
    """One table per plant, for a terminal of 80 columns where labels are short; a sentence where nothing has run."""
    tables: list[Table | Text] = []
    found = scores(comparison)
    for plant in comparison.plants:
        mine = [s for s in found if s.plant == plant.name]
        if not mine:
            tables.append(Text(f"{plant.name}: {UNFINISHED}"))
            continue
        lines, shares = table_lines(mine, plant.baseline), shares_mean(mine)
        # Labels, summaries and errors are a user's: as Text their square brackets are no markup.
        told = Text(headline(plant.baseline, mine))
        table = Table(
            title=Text(f"{plant.name}: {plant.summary}"), title_justify="left", caption=told, caption_justify="left",
            box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0),
        )  # fmt: skip
        shown = ("regret",) if any(row.regret for row in lines) else ()
        saved = ("gain %" if shares else "difference", "interval")
        for name in ("controller", "cost", *saved, *shown, "fails", "decision", "track", "n"):
            table.add_column(name, justify="left" if name in ("controller", "track") else "right", no_wrap=True)
        for row in lines:
            track = row.track.replace(" only", "").replace(" access", "")
            lost = (row.regret.partition(" ")[0] for _ in shown)  # on how many scenarios stands on the page
            gained = (row.gain, row.gain_interval) if shares else (row.difference, row.difference_interval)
            fails = row.failures.replace(" of ", "/")
            cells = (
                row.controller,
                row.cost,
                *gained,
                *lost,
                fails,
                row.decision,
                track,
                row.scenarios.replace(" seeds", ""),
            )
            table.add_row(*map(Text, cells), style="bold green" if row.beats else "")
        tables.append(table)
    return tables


def _section(plant: PlantSummary, found: Sequence[Score]) -> Section:
    if not found:
        return Section(plant, UNFINISHED)
    colour = figures.colours([score.controller for score in found], plant.baseline)
    base = next((s for s in found if s.controller == plant.baseline), None)
    compared = any(score.difference is not None for score in found)
    trained = [score for score in found if score.asked > 1]
    return Section(
        plant=plant,
        headline=headline(plant.baseline, found),
        lines=table_lines(found, plant.baseline),
        shares=shares_mean(found),
        seeds=tuple(
            line(row, None, f"{row.controller}, seed {row.runs[0].seed}")
            for score in trained
            for row in per_seed(score, base)
        ),
        remarks=_remarks(found),
        differences=figures.differences(found, colour, plant.baseline, shares_mean(found)) if compared else "",
        trajectories=figures.trajectories(plant, [score.runs[0] for score in found], colour),
        pictures=_pictures(plant.baseline, found),
    )


def shares_mean(found: Sequence[Score]) -> bool:
    """Whether all differences of a table can be told in shares of the baseline's cost."""
    return all(s.difference is None or s.difference.shares for s in found)


def _remarks(found: Sequence[Score]) -> tuple[str, ...]:
    """What the page says below a plant's table."""
    remarks = []
    most = max(len(score.scenario) for score in found)
    if any(len(score.scenario) < most for score in found):
        remarks.append(
            f"* Mean over fewer than {most} scenarios, not comparable with the other means; its difference is paired "
            "on the scenarios that it met."
        )
    prices = sorted({run.price for score in found for run in score.runs if run.price})
    if prices:
        remarks.append(
            f"Each control step that is left when an episode fails is charged {' or '.join(map(number, prices))}."
        )
    return (*remarks, *run_notes([run for score in found for run in score.runs]))


def _pictures(baseline: str, found: Sequence[Score]) -> tuple[tuple[str, str], ...]:
    """The plant's own picture of the first scenario under the baseline and under the best that does not fail more."""
    best = ranking(found).sound()
    shown = [s for s in found if s.controller == baseline]
    shown += [best] if best is not None and best.controller != baseline else []
    return tuple((s.controller, base64.b64encode(s.runs[0].picture).decode()) for s in shown if s.runs[0].picture)
