"""Rows of the score tables, as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steersman.controllers.base import Outcome
from steersman.experiments.report.texts import DASH, number, numbers, percent, seconds
from steersman.experiments.statistics.ranking import regret, regret_scenarios
from steersman.experiments.statistics.scores import Score


@dataclass(frozen=True)
class Line:
    """A row of the score table, as text."""

    controller: str
    beats: bool
    cost: str
    interval: str
    iqm: str
    difference: str
    difference_interval: str
    gain: str
    gain_interval: str
    verdict: str
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


def table_lines(found: Sequence[Score], baseline: str) -> tuple[Line, ...]:
    """The rows of a plant's table."""
    most = max((len(score.scenario) for score in found), default=0)
    lines = []
    for score in found:
        lost, n = regret(score, found, baseline), regret_scenarios(score, found, baseline)
        told = "" if lost is None else f"{lost:.3f}" + (f" (n = {n})" if n < most else "")
        lines.append(line(score, told, score.controller, "*" if len(score.scenario) < most else ""))
    return tuple(lines)


def line(score: Score, lost: str | None, name: str, mark: str = "") -> Line:
    """One row; ``lost`` is its regret, ``mark`` stands behind its mean cost."""
    d, runs, mean = score.difference, score.runs, score.over_runs
    failed = score.failed(score.scenario)
    return Line(
        controller=name,
        beats=d is not None and d.beats and score.rivals,
        cost=number(score.mean) + mark,
        interval=numbers(score.interval),
        iqm=number(score.iqm),
        difference=DASH if d is None else number(d.mean),
        difference_interval=DASH if d is None else numbers(d.interval),
        gain=DASH if d is None else percent(d.gain, 1),
        gain_interval=gain_range(score),
        verdict=verdict(score),
        wins=DASH if d is None else f"{percent(d.wins)} %",
        regret=lost or "",
        decision=seconds(mean(lambda r: r.latency.p50)),
        tail=f"{seconds(mean(lambda r: r.latency.p95))} / {seconds(mean(lambda r: r.latency.max))}",
        train_steps=f"{mean(lambda r: r.train_steps):,.0f}",
        train_seconds=f"{mean(lambda r: r.train_seconds):.1f}",
        failures=f"{failed.sum()} of {failed.size}",
        fallbacks=_fallbacks(score),
        inadmissible=str(sum(r.inadmissible for r in runs)),
        violation=number(mean(lambda r: float(np.mean(r.violation)))),
        track=score.track,
        preview=str(runs[0].preview or DASH),
        scenarios=scenarios(score),
    )


def verdict(score: Score) -> str:
    """The verdict of a row, what it speaks of, and failures that forbid to call it better."""
    d = score.difference
    if not score.rivals:
        return "a bound: it knows what is still to come"
    if d is None:
        return DASH
    told = f"{d.verdict}: {score.about}" if score.about and d.interval is not None else d.verdict
    return f"{told}; fails more often" if d.failures.more else told


def scenarios(score: Score) -> str:
    """Number of scenarios and of training seeds."""
    seeds = score.incomplete or (f"{len(score.runs)} seeds" if len(score.runs) > 1 else "")
    return f"{len(score.scenario)}" + (f" x {seeds}" if seeds else "")


def _fallbacks(score: Score) -> str:
    found = {kind: share for kind, share in outcomes(score).items() if share > 0 and kind != "optimal"}
    return ", ".join(f"{kind} {100 * share:.1f} %" for kind, share in found.items()) or "none"


def gain_range(score: Score) -> str:
    """Interval of the gain in percent."""
    ends = None if score.difference is None else score.difference.gain_interval
    return DASH if ends is None else f"{percent(ends.low, 1)} .. {percent(ends.high, 1)}"


def outcomes(score: Score) -> dict[str, float]:
    """Share of the decisions that came about in each way."""
    return {kind.name.lower(): float(np.mean([r.share(kind) for r in score.runs])) for kind in Outcome}
