"""Sentences computed from the numbers of a comparison. They say nothing that the tables do not show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from steersman.experiments.comparison.results import Comparison
from steersman.experiments.report.texts import number, percent, percents
from steersman.experiments.statistics.evidence import Interval
from steersman.experiments.statistics.paired import GAIN, MINIMUM, Difference
from steersman.experiments.statistics.ranking import Ranking, ranking
from steersman.experiments.statistics.scores import Score

TRACKS = ("data only", "solver access")
LEAST = f"{100 * GAIN:.0f} % or more"
"""What counts as beating the baseline, in words."""


def headline(baseline: str, found: Sequence[Score]) -> str:
    """Which controllers beat the baseline on one plant, which is best in each track, and what was not shown.

    Args:
        baseline: Label of the plant's baseline.
        found: Scores of one plant.
    """
    ranks = ranking(found)
    base = next((s for s in found if s.controller == baseline), None)
    rivals = [s for s in found if s.difference is not None and s.rivals]
    if base is None:
        parts = [f"{baseline} has no result here, so no controller is compared with it."]
    elif not rivals:
        parts = [f"Only {baseline} has results here."]
    else:
        parts = [
            _against(baseline, rivals, ranks),
            *_lesser(baseline, rivals),
            *_untested(rivals),
            *_failing(baseline, rivals),
        ]
    return " ".join([*parts, *duel(ranks)])


def duel(ranks: Ranking) -> list[str]:
    """The best against the second best, as a sentence; none where there is no second."""
    if ranks.duel is None:
        return []
    (first, second), d = ranks.order[:2], ranks.duel
    one, other = (f"{s.controller} ({s.policies})" if s.policies else s.controller for s in (first, second))
    names = f"Best against second best, {one} against {other}"
    if d.interval is None:
        means = f"mean costs {number(ranks.mean[first.controller])} and {number(ranks.mean[second.controller])}"
        return [f"{names}: {means}; {d.verdict}."]
    shown = "shown to cost less" if d.verdict == "better" else d.verdict
    shown += ", of these policies but not of their methods" if d.open else ""
    but = f", but {failures(d, second.controller)}" if d.failures.more else ""
    return [f"{names}: {_amount(d, d.interval)}, {shown}{but}."]


def marked(score: Score, *, about: bool = False) -> str:
    """A controller's label with what must not be overlooked: lost seeds, and on request what a verdict speaks of."""
    remark = score.incomplete or (score.about if about else "")
    return f"{score.controller} ({remark})" if remark else score.controller


@dataclass(frozen=True)
class Choice:
    """The controller to use on a plant in one track; one row of the glance.

    Attributes:
        plant: Name of the plant.
        track: Track.
        controller: Label.
        cost: Mean cost on the scenarios that all ranked controllers of the plant met.
        gain: Share of the baseline's cost that it saves on the same scenarios; NaN where shares mean nothing.
        decision: Median time of a decision, s.
        train_steps: Plant steps of its training.
        train_seconds: CPU seconds of its training.
        remark: What the choice rests on: a tie, a test that was not made, failures, lost seeds.
    """

    plant: str
    track: str
    controller: str
    cost: float
    gain: float
    decision: float
    train_steps: float
    train_seconds: float
    remark: str


def glance(comparison: Comparison, found: Sequence[Score]) -> list[Choice]:
    """The controller to use on each plant and track.

    The lowest mean cost on common scenarios among those that are not shown to fail more often than the baseline. Where
    others cost at most 5 % more than it and a paired test does not show that they cost more, the fastest of them.
    """
    rows = []
    for plant in comparison.plants:
        ranks = ranking([s for s in found if s.plant == plant.name])
        for track in TRACKS:
            best = ranks.sound(track)
            if best is not None:
                rows.append(_choice(ranks, [s for s in ranks.order if s.track == track], best, plant.baseline))
    return rows


def findings(comparison: Comparison, found: Sequence[Score]) -> list[str]:
    """Three sentences over all plants: who wins, what learning from data costs, what deciding costs."""
    ranks = {p.name: ranking([s for s in found if s.plant == p.name]) for p in comparison.plants}
    baselines = {p.name: p.baseline for p in comparison.plants}
    return [s for s in (_winners(ranks, baselines), _price_of_data(ranks), _price_of_time(ranks)) if s]


def short(plant: str) -> str:
    """An id without its namespace or module."""
    return plant.rpartition("/")[2].rpartition(":")[2]


# ------------------------------------------------------------------ of one plant


def _against(baseline: str, rivals: Sequence[Score], ranks: Ranking) -> str:
    """How many beat the baseline, by how much at least, and the best of them in each track."""
    tested = [s for s in rivals if s.difference is not None and s.difference.interval is not None]
    if not tested:
        reasons = ", ".join(dict.fromkeys(s.difference.untested for s in rivals if s.difference is not None))
        return f"Not tested, {reasons}: verdicts need finite costs on {MINIMUM} scenarios or more."
    winners = [s for s in ranks.order if s.difference is not None and s.difference.beats]
    if not winners:
        return f"No controller of {len(tested)} tested is shown to beat {baseline} by {LEAST}."
    parts = []
    most = max(s.difference.pairs for s in tested if s.difference is not None)
    for track in TRACKS:
        best = next((s for s in winners if s.track == track), None)
        if best is not None and best.difference is not None and best.difference.interval is not None:
            amount = _amount(best.difference, best.difference.interval)
            some = f" on its n = {best.difference.pairs}" if best.difference.pairs < most else ""
            parts.append(f"with {track} the best of them is {marked(best, about=True)}, which {amount}{some}")
    beat = "beats" if len(winners) == 1 else "beat"
    return f"{len(winners)} of {len(tested)} controllers tested {beat} {baseline} by {LEAST}; {'; '.join(parts)}."


def _lesser(baseline: str, rivals: Sequence[Score]) -> list[str]:
    """Those that are shown to cost less, but by less than what counts as beating."""
    better = [(s, s.difference) for s in rivals if s.difference is not None and s.difference.verdict == "better"]
    told = [
        f"{marked(s, about=True)} {_amount(d, d.interval)}"
        for s, d in better
        if d.interval is not None and not d.beats and not d.failures.shown
    ]
    return [f"Better than {baseline} by less: {'; '.join(told)}."] if told else []


def _amount(d: Difference, ends: Interval) -> str:
    """How much less it costs, in shares where they mean something, with the interval of the verdict."""
    share = d.gain_interval
    if share is not None:
        return f"saves {percent(d.gain)} % (interval {percents(share)} %)"
    low, high = number(0.0 - ends.high), number(0.0 - ends.low)
    return f"costs {number(0.0 - d.mean)} less in the mean (interval {low} to {high})"


def _untested(rivals: Sequence[Score]) -> list[str]:
    """Those that are not tested where others are, and why."""
    lost = [(s, s.difference.untested) for s in rivals if s.difference is not None and s.difference.interval is None]
    told = ", ".join(f"{marked(s)} ({why})" for s, why in lost)
    return [f"Not tested: {told}."] if told and len(lost) < len(rivals) else []


def _failing(baseline: str, rivals: Sequence[Score]) -> list[str]:
    """Those that cost less but fail more often: shown to, or in number."""
    cheaper = [(s, s.difference) for s in rivals if s.difference is not None and s.difference.mean < 0]
    shown = [f"{marked(s)} costs less in the mean, but {failures(d, baseline)}" for s, d in cheaper if d.failures.shown]
    more = [f"{marked(s)} {failures(d, baseline)}" for s, d in cheaper if d.failures.more and not d.failures.shown]
    parts = [f"Not counted as better: {'; '.join(shown)}."] if shown else []
    return parts + ([f"Failures beside lower costs, not shown to be more frequent: {'; '.join(more)}."] if more else [])


def failures(d: Difference, baseline: str) -> str:
    """``fails 50 of 50 episodes (zero: 0 of 50)``, on the common scenarios."""
    f = d.failures
    return f"fails {f.count} of {f.episodes} episodes ({baseline}: {f.other} of {f.other_episodes})"


def _choice(ranks: Ranking, mine: Sequence[Score], best: Score, baseline: str) -> Choice:
    tied = [s for s in ranks.tied(best) if s is best or s.difference is None or not s.difference.failures.shown]
    s = min(tied, key=lambda s: s.over_runs(lambda r: r.latency.p50))
    d, mean = s.difference, s.over_runs
    remarks = [s.incomplete or s.about]
    if s is not best:
        remarks.append(f"faster than {best.controller}, and not shown to cost more")
    if len(ranks.scenario) < MINIMUM and len(ranks.order) > 1:
        remarks.append(f"not tested, n = {len(ranks.scenario)}")
    elif d is not None and d.verdict != "better":
        remarks.append(f"against {baseline}: {d.verdict}")
    if d is not None and d.failures.more:
        remarks.append(failures(d, baseline))
    cheaper = [other for other in mine if other.difference is not None and other.difference.failures.shown]
    for other in cheaper:
        if other is not s and other.difference is not None and ranks.mean[other.controller] < ranks.mean[s.controller]:
            remarks.append(f"{other.controller} costs less, but {failures(other.difference, baseline)}")
    return Choice(
        s.plant, s.track, s.controller, ranks.mean[s.controller], _gain(ranks, s, baseline),
        mean(lambda r: r.latency.p50), mean(lambda r: r.train_steps), mean(lambda r: r.train_seconds),
        "; ".join(remark for remark in remarks if remark),
    )  # fmt: skip


def _gain(ranks: Ranking, score: Score, baseline: str) -> float:
    """Share of the baseline's cost saved on the scenarios of the ranking; NaN without baseline or share."""
    d, base = score.difference, ranks.mean.get(baseline, 0.0)
    if score.controller == baseline:
        return 0.0
    return 1 - ranks.mean[score.controller] / base if d is not None and d.shares and base > 0 else float("nan")


# ------------------------------------------------------------------ over all plants


def _winners(ranks: dict[str, Ranking], baselines: dict[str, str]) -> str:
    parts = []
    for plant, found in ranks.items():
        best = found.best()
        if best is None or not math.isfinite(found.mean[best.controller]):
            continue
        remarks = [best.incomplete]
        if found.duel is not None and found.duel.verdict != "better":
            verdict = "not shown to beat" if found.duel.interval is not None else "not tested against"
            remarks.append(f"{verdict} {found.order[1].controller}")
        if best.difference is not None and best.difference.failures.more:
            remarks.append(f"but {failures(best.difference, baselines[plant])}")
        told = "; ".join(remark for remark in remarks if remark)
        parts.append(f"{best.controller} on {short(plant)}" + (f" ({told})" if told else ""))
    return f"Lowest cost: {', '.join(parts)}." if parts else ""


def _price_of_data(ranks: dict[str, Ranking]) -> str:
    parts = []
    for plant, found in ranks.items():
        data, solver = (found.sound(track) for track in TRACKS)
        if data is not None and solver is not None and (ratio := _cost_ratio(found, data, solver)):
            parts.append(f"{ratio} times on {short(plant)}")
    if not parts:
        return ""
    return (
        f"Cost of the best controller that sees only data, relative to the best with solver access: {', '.join(parts)}."
    )


def _price_of_time(ranks: dict[str, Ranking]) -> str:
    parts = []
    for plant, found in ranks.items():
        best = found.sound()
        rows = [s for s in found.order if s.difference is not None and s.difference.beats]
        if best is None or not rows:
            continue
        quick = min(rows, key=lambda s: s.over_runs(lambda r: r.latency.p50))
        times = [s.over_runs(lambda r: r.latency.p50) for s in (best, quick)]
        cost = _cost_ratio(found, quick, best)
        more = number(found.mean[quick.controller] - found.mean[best.controller])
        if quick is best:
            parts.append(f"on {short(plant)} the best is also the fastest winner")
        elif times[1] > 0:
            parts.append(
                f"on {short(plant)} {quick.controller} decides {_times(times[0] / times[1])} times as fast as the best "
                f"and costs {f'{cost} times as much' if cost else f'{more} more'}"
            )
    return f"Decision time: {'; '.join(parts)}." if parts else ""


def _cost_ratio(ranks: Ranking, one: Score, other: Score) -> str:
    """Mean cost of one as a multiple of the other's; empty where costs are negative or the other's is zero."""
    costs = [s.costs(ranks.scenario) for s in (one, other)]
    a, b = ranks.mean[one.controller], ranks.mean[other.controller]
    return _times(a / b) if all((c >= 0).all() for c in costs) and b > 0 and a < float("inf") else ""


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2f}"
