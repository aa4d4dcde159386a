"""The study of MAX-SAT: its claims, tables and picture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import linear_regression, mean

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from steersman.experiments.studies.polystep.max_sat import LARGE, METHODS, RATIO, Run, large, solves
from steersman.experiments.studies.study import Bar, Claim, Results, Study, Table

LEAST = 98.0
BAR = Bar((LEAST, LEAST), "%, on average and on every instance")
PUBLISHED = {
    "PolyStep": {100: 98.0, 1000: 98.1, 5000: 98.1, 100_000: 98.1},
    "CMA-ES": {100: 99.0, 1000: 97.3, 5000: 95.2, 100_000: 90.7},
    "OpenAI-ES": {100: 99.4, 1000: 96.9, 5000: 92.9, 100_000: 88.9},
    "probSAT": {100: 99.8, 1000: 100.0, 5000: 99.9, 100_000: 99.6},
}
"""Clauses satisfied, %, by variables: the PolyStep package's own table, 20 to 200 million evaluations on a GPU."""

CLAIM = (
    "The paper (arXiv 2605.01928) claims more than 92 % up to a million variables, where evolution strategies lose 8 "
    "to 12 points."
)

STRATEGIES = ("PolyStep", "CMA-ES", "OpenAI-ES")
"""Methods that the claim speaks of."""
STYLES = dict(zip(METHODS, ("#4c72b0", "#55a868", "#c44e52", "#8172b2", "#ccb974", "#64b5cd", "#8c8c8c"), strict=True))


def about(results: Results) -> list[str]:
    """What was done."""
    seeds = ", ".join(str(seed) for seed in sorted({r.seed for r in results.of(Run)}))
    return [
        f"Random instances of three literals a clause, {RATIO} clauses a variable; one thread, seeds {seeds} of "
        "instance and search."
    ]


def tables(results: Results) -> list[Table]:
    """Shares by size, what is published, CPU seconds, and slopes."""
    runs = results.of(Run)
    sizes = sorted({r.variables for r in runs})
    head = ["method", *(f"{n:,} variables" for n in sizes)]
    text = f"Clauses satisfied, %, mean (least) over {len({r.seed for r in runs})} random instances of each size:"
    shares = Table(head, [[m, *(_cell(runs, m, n) for n in sizes)] for m in METHODS], about=text)
    rows = [[name, *(f"{row[n]:.1f}" if n in row else "" for n in sizes)] for name, row in PUBLISHED.items()]
    text = "Published, with 20 to 200 million evaluations (the PolyStep package's own table), %:"
    published = Table(head, rows, about=text)
    rows = [[m, *(_cell(runs, m, n, seconds=True) for n in sizes)] for m in METHODS]
    seconds = Table(head, rows, about="CPU seconds of a run, evaluation included:")
    return [*(_slopes(runs) if len(sizes) > 1 else ()), shares, published, seconds]


def slope(runs: list[Run], method: str) -> tuple[float, float, float]:
    """Points of satisfied clauses that a method gains for each factor of ten in variables: fit, least and greatest.

    Least squares over the logarithm of the size: of the means over seeds, and of each seed's own runs.
    """
    by_seed = [
        _fit([(r.variables, r.satisfied) for r in runs if r.method == method and r.seed == seed])
        for seed in sorted({r.seed for r in runs})
    ]
    return mean(by_seed), min(by_seed), max(by_seed)


def _fit(points: list[tuple[int, float]]) -> float:
    return linear_regression([math.log10(n) for n, _ in points], [share for _, share in points]).slope


def _slopes(runs: list[Run]) -> Iterator[Table]:
    """How the share falls with the size, beside what is published for the same sizes and the claim beyond them."""
    sizes = sorted({r.variables for r in runs})
    text = (
        f"Slope of the satisfied share, points for each factor of ten, from {sizes[0]:,} to {sizes[-1]:,} variables "
        "(least squares; mean of the seeds' slopes, lowest to highest), with budgets that grow with the size; beside "
        "it the change from the smallest to the largest size:"
    )
    rows = []
    for method in METHODS:
        if any(not _of(runs, method, n) for n in sizes):
            continue
        middle, low, high = slope(runs, method)
        share = {n: mean(r.satisfied for r in _of(runs, method, n)) for n in sizes}
        known = PUBLISHED.get(method.partition(",")[0], {})
        cells = ["", ""]
        if all(n in known for n in sizes):
            cells = [f"{_fit([(n, known[n]) for n in sizes]):+.2f}", f"{known[sizes[-1]] - known[sizes[0]]:+.1f}"]
        change = f"{share[sizes[-1]] - share[sizes[0]]:+.2f}"
        rows.append([method, f"{middle:+.2f} ({low:+.2f} to {high:+.2f})", change, *cells])
    head = ("method", "slope", "change, points", "published slope", "published change")
    large = [f"{n:,} variables (`--cells '* {n:,} variables*'`): {cost}." for n, cost in LARGE.items()]
    yield Table(head, rows, about=text, remarks=[f"{CLAIM} {_of_the_claim(runs, sizes)}", *large])


def _of_the_claim(runs: list[Run], sizes: list[int]) -> str:
    """What these sizes can say about it."""
    change = {
        m: mean(r.satisfied for r in _of(runs, m, sizes[-1])) - mean(r.satisfied for r in _of(runs, m, sizes[0]))
        for m in METHODS
        if all(_of(runs, m, n) for n in sizes)
    }
    said = [f"{m} {'loses' if c < 0 else 'gains'} {abs(c):.2f}" for m, c in change.items() if m.startswith(STRATEGIES)]
    return (
        f"Measured from {sizes[0]:,} to {sizes[-1]:,} variables, in points: {'; '.join(said)}. Lines through these "
        "sizes say nothing about a million, where even random points satisfy 87.5 %."
    )


def claims(results: Results) -> list[Claim]:
    """Whether the best PolyStep meets the bar at each size, and how it stands to the best rival."""
    runs, found = results.of(Run), []
    for n in sorted({r.variables for r in runs}):
        budget = max(r.evaluations for r in runs if r.variables == n)
        scores = {m: mean(v) for m in METHODS if (v := [r.satisfied for r in _of(runs, m, n)])}
        ours = {m: s for m, s in scores.items() if m.startswith("PolyStep")}
        if len(ours) in (0, len(scores)):
            continue
        rivals = {m: s for m, s in scores.items() if m not in ours}
        best, rival = max(ours, key=ours.__getitem__), max(rivals, key=rivals.__getitem__)
        least = min(r.satisfied for r in _of(runs, best, n))
        order = "ahead of" if ours[best] > rivals[rival] else "behind"
        text = (
            f"{n:,} variables, {budget:,} evaluations: {best} satisfies {ours[best]:.2f} % of the clauses on average "
            f"and {least:.3f} on the worst instance, {order} the best rival, {rival} ({rivals[rival]:.2f})"
        )
        found.append(Claim(text, (ours[best], least), BAR))
    return found


def _of(runs: list[Run], method: str, n: int) -> list[Run]:
    return [r for r in runs if r.method == method and r.variables == n]


def _cell(runs: list[Run], method: str, n: int, *, seconds: bool = False) -> str:
    found = _of(runs, method, n)
    if not found:
        return ""
    if seconds:
        return f"{mean(r.seconds for r in found):.1f}"
    return f"{mean(r.satisfied for r in found):.2f} ({min(r.satisfied for r in found):.2f})"


def figure(results: Results) -> Figure:
    """Unsatisfied clauses of the best point against evaluations, one panel per size."""
    runs = results.of(Run)
    sizes = sorted({r.variables for r in runs})
    size = (3.6 * len(sizes) + 0.6, 3.9)
    drawn, panels = plt.subplots(1, len(sizes), figsize=size, squeeze=False, sharey=True, layout="constrained")
    for axes, n in zip(panels.flat, sizes, strict=True):
        for r in (r for r in runs if r.variables == n):
            x, y = zip(*r.curve, strict=True)
            axes.loglog(x, [max(100 - v, 0.02) for v in y], color=STYLES[r.method], lw=1.2, alpha=0.85)
        axes.axhline(100 - LEAST, color="0.3", ls=":", lw=1)
        axes.set_yticks([0.1, 0.2, 0.5, 1, 2, 5, 10], ["0.1", "0.2", "0.5", "1", "2", "5", "10"])
        axes.minorticks_off()
        axes.grid(True)
        axes.set(title=f"{n:,} variables", xlabel="evaluations")
    panels[0, 0].set_ylabel("clauses not satisfied, %")
    handles = [Line2D([], [], color=tint, label=name) for name, tint in STYLES.items()]
    handles.append(Line2D([], [], color="0.3", ls=":", label=f"bar, {100 - LEAST:g} %"))
    drawn.legend(handles=handles, loc="outside lower center", ncols=4)
    return drawn


STUDY = Study("max-sat", about, solves, lambda: solves()[0], claims, tables, figure, further=large)
