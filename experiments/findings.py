"""Sentences computed from the numbers of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steersman.experiments.results import Comparison
from steersman.experiments.stats import MINIMUM, Score


def headline(baseline: str, found: Sequence[Score]) -> str:
    """Which controllers beat the baseline on one plant, and which of them is best in each track."""
    rivals = [s for s in found if s.difference is not None]
    winners = sorted((s for s in rivals if s.difference is not None and s.difference.beats), key=lambda s: s.relative)
    if not winners:
        return f"No controller is shown to beat {baseline} by 5 % or more."
    parts = []
    for track in ("data only", "solver access"):
        best = next((s for s in winners if s.runs[0].track == track), None)
        if best is not None and best.difference is not None and best.difference.gain_interval is not None:
            d, ends = best.difference, best.difference.gain_interval
            parts.append(
                f"with {track} the best is {best.controller}, which saves {100 * d.gain:.0f} % "
                f"(95 % interval {100 * ends.low:.0f} to {100 * ends.high:.0f} %)"
            )
    return f"{len(winners)} of {len(rivals)} controllers beat {baseline}; {'; '.join(parts)}."


@dataclass(frozen=True)
class Choice:
    """The controller to use on a plant in one track; one row of the glance."""

    plant: str
    track: str
    controller: str
    gain: float
    decision: float
    train_steps: float
    train_seconds: float


def glance(comparison: Comparison, found: Sequence[Score]) -> list[Choice]:
    """Lowest cost on each plant and track, what a decision takes and what training cost; fast ones break near ties.

    Controllers whose mean cost is within one percent of the baseline's from the best count as ties.
    """
    rows = []
    for plant in comparison.plants:
        for track in ("data only", "solver access"):
            best = _best(found, plant.name, track)
            if best is None or best.difference is None:
                continue
            near = [
                s for s in found
                if s.plant == plant.name and s.runs[0].track == track and s.relative <= best.relative + 0.01
                and len(s.scenario) >= min(MINIMUM, len(best.scenario))
            ]  # fmt: skip
            s = min(near, key=lambda s: s.over_runs(lambda r: r.latency.p50))
            mean = s.over_runs
            rows.append(Choice(
                plant.name, track, s.controller, 1 - s.relative, mean(lambda r: r.latency.p50),
                mean(lambda r: r.train_steps), mean(lambda r: r.train_seconds),
            ))  # fmt: skip
    return rows


def findings(comparison: Comparison, found: Sequence[Score]) -> list[str]:
    """Three sentences over all plants: who wins, what learning from data costs, what deciding costs."""
    return [
        sentence
        for sentence in (
            _winners(comparison, found),
            _price_of_data(comparison, found),
            _price_of_time(comparison, found),
        )
        if sentence
    ]


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2f}"


def short(plant: str) -> str:
    """An id without its namespace or module."""
    return plant.rpartition("/")[2].rpartition(":")[2]


def _best(found: Sequence[Score], plant: str, track: str | None = None) -> Score | None:
    """Lowest cost relative to the baseline on common scenarios, among those that ran enough of them."""
    rows = [s for s in found if s.plant == plant and (track is None or s.runs[0].track == track)]
    enough = [s for s in rows if len(s.scenario) >= MINIMUM]
    return min(enough or rows, key=lambda s: s.relative) if rows else None


def _winners(comparison: Comparison, found: Sequence[Score]) -> str:
    parts = [
        f"{best.controller} on {short(plant.name)}"
        for plant in comparison.plants
        if (best := _best(found, plant.name)) is not None
    ]
    return f"Lowest cost: {', '.join(parts)}." if parts else ""


def _price_of_data(comparison: Comparison, found: Sequence[Score]) -> str:
    parts = []
    for plant in comparison.plants:
        data, solver = (_best(found, plant.name, track) for track in ("data only", "solver access"))
        if data is not None and solver is not None and solver.relative > 0:
            parts.append(f"{_times(data.relative / solver.relative)} times on {short(plant.name)}")
    if not parts:
        return ""
    return (
        f"Cost of the best controller that sees only data, relative to the best with solver access: {', '.join(parts)}."
    )


def _price_of_time(comparison: Comparison, found: Sequence[Score]) -> str:
    parts = []
    for plant in comparison.plants:
        best = _best(found, plant.name)
        rows = [s for s in found if s.plant == plant.name and s.difference is not None and s.difference.beats]
        if best is None or not rows:
            continue
        quick = min(rows, key=lambda s: s.over_runs(lambda r: r.latency.p50))
        ratio = best.over_runs(lambda r: r.latency.p50) / quick.over_runs(lambda r: r.latency.p50)
        if quick is best:
            parts.append(f"on {short(plant.name)} the best is also the fastest winner")
        else:
            parts.append(
                f"on {short(plant.name)} {quick.controller} decides {_times(ratio)} times faster than the best "
                f"and costs {_times(quick.relative / best.relative)} times as much"
            )
    return f"Decision time: {'; '.join(parts)}." if parts else ""
