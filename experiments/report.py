"""The outcome of a comparison for people and programs: terminal tables, one HTML file, JSON and parquet."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich import box
from rich.table import Table

from steersman.controllers.base import Outcome
from steersman.experiments import figures
from steersman.experiments.findings import findings, glance, headline
from steersman.experiments.results import Comparison, PlantSummary
from steersman.experiments.stats import Score, regret, scores

DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Line:
    """A row of the score table, as text."""

    controller: str
    beats: bool
    cost: str
    interval: str
    iqm: str
    difference: str
    gain: str
    gain_interval: str
    wins: str
    regret: str
    decision: str
    tail: str
    train_steps: str
    train_seconds: str
    failures: str
    fallbacks: str
    inadmissible: str
    violation: str
    track: str
    preview: str
    scenarios: str


@dataclass(frozen=True)
class Section:
    """What the page shows of one plant."""

    plant: PlantSummary
    headline: str
    lines: tuple[Line, ...]
    differences: str
    trajectories: str
    pictures: tuple[tuple[str, str], ...]


def write_report(comparison: Comparison, path: Path) -> None:
    """Write one self-contained HTML page."""
    found = scores(comparison)
    sections = [_section(comparison, plant, [s for s in found if s.plant == plant.name]) for plant in comparison.plants]
    loader = jinja2.PackageLoader("steersman.experiments", ".")
    page = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    text = page.get_template("report.html.j2").render(
        comparison=comparison,
        sections=sections,
        findings=findings(comparison, found),
        dash=DASH,
        glance=glance(comparison, found),
        seconds=seconds,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def terminal_tables(comparison: Comparison) -> list[Table]:
    """One table per plant, narrow enough for a terminal of 80 columns where labels are short."""
    tables = []
    found = scores(comparison)
    for plant in comparison.plants:
        title = f"{plant.name}: {plant.summary}"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        rows = [_line(s, regret(s, found, plant.baseline)) for s in found if s.plant == plant.name]
        shown = ("regret",) if any(line.regret for line in rows) else ()
        for name in ("controller", "cost", "gain %", "95 %", *shown, "fails", "decision", "track", "n"):
            table.add_column(name, justify="left" if name in ("controller", "track") else "right", no_wrap=True)
        for line in rows:
            track = line.track.replace(" only", "").replace(" access", "")
            lost = (line.regret for _ in shown)
            cells = (line.controller, line.cost, line.gain, line.gain_interval, *lost, line.failures, line.decision)
            table.add_row(*cells, track, line.scenarios, style="bold green" if line.beats else "")
        tables.append(table)
    return tables


def to_json(comparison: Comparison) -> str:
    """Scores of all controllers; numbers that do not exist are null."""
    rows = []
    found = scores(comparison)
    for score in found:
        d = score.difference
        rows.append({
            "plant": score.plant, "controller": score.controller, "model": score.runs[0].model,
            "track": score.runs[0].track, "preview": score.runs[0].preview, "scenarios": len(score.scenario),
            "seeds": len(score.runs), "cost": score.mean, "iqm": score.iqm,
            "interval": score.interval and [score.interval.low, score.interval.high],
            "difference": d and d.mean, "difference_interval": d and d.interval and [d.interval.low, d.interval.high],
            "gain": d and d.gain,
            "gain_interval": d and d.gain_interval and [d.gain_interval.low, d.gain_interval.high],
            "regret": regret(score, found, comparison.baseline),
            "wins": d and d.wins, "verdict": d and d.verdict, "beats": d and d.beats,
            "failures": score.over_runs(lambda r: r.failures),
            "fallbacks": score.over_runs(lambda r: float(np.mean(r.fallbacks))),
            "outcomes": _outcomes(score),
            "inadmissible": sum(r.inadmissible for r in score.runs),
            "decision_s": [score.over_runs(lambda r: r.latency.p50), score.over_runs(lambda r: r.latency.p95),
                           score.over_runs(lambda r: r.latency.max)],
            "train_steps": score.over_runs(lambda r: r.train_steps),
            "train_seconds": score.over_runs(lambda r: r.train_seconds),
        })  # fmt: skip
    whole = {
        "name": comparison.name, "baseline": comparison.baseline, "command": comparison.command,
        "machine": comparison.machine, "notes": list(comparison.notes), "scores": rows,
        "failures": [{"plant": f.plant, "controller": f.controller, "error": f.error} for f in comparison.failures],
    }  # fmt: skip
    return json.dumps(_clean(whole), indent=2, allow_nan=False)


def write_parquet(comparison: Comparison, path: Path) -> None:
    """One row per plant, controller, training seed and scenario."""
    columns: dict[str, list[Any]] = {}
    for r in comparison.results:
        n = len(r.scenario)
        same = {
            "plant": r.plant, "controller": r.controller, "model": r.model, "seed": r.seed, "track": r.track,
            "preview": r.preview, "decision_p50_s": r.latency.p50, "decision_p95_s": r.latency.p95,
            "decision_max_s": r.latency.max, "train_steps": r.train_steps, "train_seconds": r.train_seconds,
        }  # fmt: skip
        for name, value in same.items():
            columns.setdefault(name, []).extend([value] * n)
        for name in ("scenario", "cost", "violation", "status", "steps", "fallbacks"):
            columns.setdefault(name, []).extend(getattr(r, name).tolist())
    pq.write_table(pa.table(columns), path)


# ------------------------------------------------------------------ texts


def _section(comparison: Comparison, plant: PlantSummary, found: Sequence[Score]) -> Section:
    if not found:
        return Section(plant, "No run on this plant has finished.", (), "", "", ())
    colour = figures.colours([score.controller for score in found], plant.baseline)
    compared = any(score.difference is not None for score in found)
    return Section(
        plant,
        headline(plant.baseline, found),
        tuple(_line(score, regret(score, found, plant.baseline)) for score in found),
        figures.differences(found, colour, plant.baseline) if compared else "",
        figures.trajectories(plant, [score.runs[0] for score in found], colour),
        _pictures(plant.baseline, found),
    )


def _pictures(baseline: str, found: Sequence[Score]) -> tuple[tuple[str, str], ...]:
    """The plant's own picture of the first scenario under the baseline and under the best controller."""
    best = min(found, key=lambda s: s.relative)
    shown = [s for s in found if s.controller == baseline] + ([best] if best.controller != baseline else [])
    return tuple((s.controller, base64.b64encode(s.runs[0].picture).decode()) for s in shown if s.runs[0].picture)


def _line(score: Score, lost: float | None) -> Line:
    d, runs = score.difference, score.runs
    mean = score.over_runs
    return Line(
        controller=score.controller,
        beats=d is not None and d.beats,
        cost=number(score.mean),
        interval=DASH if score.interval is None else f"{number(score.interval.low)} .. {number(score.interval.high)}",
        iqm=number(score.iqm),
        difference=_difference(score),
        gain=DASH if d is None else f"{100 * d.gain + 0.0:.1f}",
        gain_interval=gain_range(score),
        wins=DASH if d is None else f"{100 * d.wins:.0f} %",
        regret="" if lost is None else f"{lost:.3f}",
        decision=seconds(mean(lambda r: r.latency.p50)),
        tail=f"{seconds(mean(lambda r: r.latency.p95))} / {seconds(mean(lambda r: r.latency.max))}",
        train_steps=f"{mean(lambda r: r.train_steps):,.0f}",
        train_seconds=f"{mean(lambda r: r.train_seconds):.1f}",
        failures=f"{mean(lambda r: r.failures):.3g}",
        fallbacks=_fallbacks(score),
        inadmissible=str(sum(r.inadmissible for r in runs)),
        violation=number(mean(lambda r: float(np.mean(r.violation)))),
        track=runs[0].track,
        preview=str(runs[0].preview or DASH),
        scenarios=f"{len(score.scenario)}" + (f" x {len(runs)} seeds" if len(runs) > 1 else ""),
    )


def _outcomes(score: Score) -> dict[str, float]:
    """Share of the decisions that came about in each way."""
    return {kind.name.lower(): float(np.mean([r.share(kind) for r in score.runs])) for kind in Outcome}


def _fallbacks(score: Score) -> str:
    found = {kind: share for kind, share in _outcomes(score).items() if share > 0 and kind != "optimal"}
    return ", ".join(f"{kind} {100 * share:.1f} %" for kind, share in found.items()) or "none"


def gain_range(score: Score) -> str:
    """Interval of the gain in percent."""
    d = score.difference
    if d is None or d.gain_interval is None:
        return DASH
    return f"{100 * d.gain_interval.low:.1f} .. {100 * d.gain_interval.high:.1f}"


def _difference(score: Score) -> str:
    d = score.difference
    if d is None:
        return DASH
    if d.interval is None:
        return f"{number(d.mean)} (n < 50)"
    return f"{number(d.interval.low)} .. {number(d.interval.high)}"


def number(value: float) -> str:
    """Four significant digits, no exponent where it can be avoided."""
    if not math.isfinite(value):
        return DASH
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    digits = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{min(digits, 4)}f}"


def seconds(value: float) -> str:
    """A duration in the unit that suits it."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.1g} s"


def _clean(value: Any) -> Any:
    """Replace numbers that JSON does not know by null."""
    if isinstance(value, dict):
        return {name: _clean(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_clean(part) for part in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
