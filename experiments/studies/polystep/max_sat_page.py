"""Page and plot of the study of MAX-SAT, from its runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from statistics import linear_regression, mean

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from steersman.experiments.studies.polystep.max_sat_runs import METHODS, PRESETS, Run

BAR = 98.0
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


def page(runs: list[Run], command: str, machine: str) -> str:
    """The study's text, computed from its numbers."""
    sizes = sorted({r.variables for r in runs})
    seeds = ", ".join(str(seed) for seed in sorted({r.seed for r in runs}))
    spent = f"{sum(r.seconds for r in runs) / 60:.1f} CPU minutes on one thread, seeds {seeds} of instance and search."
    lines = ["# max-sat", "", f"`{command}`", "", f"{machine}; {spent}", "", *_claims(runs), ""]
    if len(sizes) > 1:
        lines += [*_slopes(runs), ""]
    lines += [
        f"Clauses satisfied, %, mean (least) over {len({r.seed for r in runs})} random instances of each size:",
        "",
    ]
    lines += [f"| method | {' | '.join(f'{n:,} variables' for n in sizes)} |", "|---" * (len(sizes) + 1) + "|"]
    for method in METHODS:
        lines.append(f"| {method} | {' | '.join(_cell(runs, method, n) for n in sizes)} |")
    lines += ["", "Published, with 20 to 200 million evaluations (the PolyStep package's own table), %:", ""]
    lines += [f"| method | {' | '.join(f'{n:,}' for n in sizes)} |", "|---" * (len(sizes) + 1) + "|"]
    for name, row in PUBLISHED.items():
        lines.append(f"| {name} | {' | '.join(f'{row[n]:.1f}' if n in row else '' for n in sizes)} |")
    lines += ["", "CPU seconds of a run, evaluation included:", ""]
    lines += [f"| method | {' | '.join(f'{n:,}' for n in sizes)} |", "|---" * (len(sizes) + 1) + "|"]
    for method in METHODS:
        lines.append(f"| {method} | {' | '.join(_cell(runs, method, n, seconds=True) for n in sizes)} |")
    return "\n".join(lines) + "\n"


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


def _slopes(runs: list[Run]) -> Iterator[str]:
    """How the share falls with the size, beside what is published for the same sizes and the claim beyond them."""
    sizes = sorted({r.variables for r in runs})
    yield (
        f"Slope of the satisfied share, points for each factor of ten, from {sizes[0]:,} to {sizes[-1]:,} variables "
        "(least squares; mean of the seeds' slopes, lowest to highest), with budgets that grow with the size; beside "
        "it the change from the smallest to the largest size:"
    )
    yield ""
    yield "| method | slope | change, points | published slope | published change |"
    yield "|---|---|---|---|---|"
    for method in METHODS:
        if any(not _of(runs, method, n) for n in sizes):
            continue
        middle, low, high = slope(runs, method)
        share = {n: mean(r.satisfied for r in _of(runs, method, n)) for n in sizes}
        known = PUBLISHED.get(method.partition(",")[0], {})
        cells = ["", ""]
        if all(n in known for n in sizes):
            cells = [f"{_fit([(n, known[n]) for n in sizes]):+.2f}", f"{known[sizes[-1]] - known[sizes[0]]:+.1f}"]
        yield (
            f"| {method} | {middle:+.2f} ({low:+.2f} to {high:+.2f}) | {share[sizes[-1]] - share[sizes[0]]:+.2f} "
            f"| {' | '.join(cells)} |"
        )
    yield ""
    yield f"{CLAIM} {_of_the_claim(runs, sizes)}"
    yield ""
    yield from (
        f"- Preset `{name}`: {', '.join(f'{n:,}' for n in p.sizes)} variables, {p.cost}."
        for name, p in PRESETS.items()
        if name != "cpu"
    )


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


def _claims(runs: list[Run]) -> Iterator[str]:
    for n in sorted({r.variables for r in runs}):
        budget = max(r.evaluations for r in runs if r.variables == n)
        scores = {m: mean(v) for m in METHODS if (v := [r.satisfied for r in _of(runs, m, n)])}
        ours = {m: s for m, s in scores.items() if m.startswith("PolyStep")}
        if len(ours) in (0, len(scores)):
            continue
        rivals = {m: s for m, s in scores.items() if m not in ours}
        best, rival = max(ours, key=ours.__getitem__), max(rivals, key=rivals.__getitem__)
        least = min(r.satisfied for r in _of(runs, best, n))
        met = "meets on every instance the bar" if least >= BAR else "misses on average the bar"
        if least < BAR <= ours[best]:
            met = "meets on average but not on every instance the bar"
        order = "ahead of" if ours[best] > rivals[rival] else "behind"
        yield (
            f"- {n:,} variables, {budget:,} evaluations: {best} {met} of {BAR:g} % "
            f"(mean {ours[best]:.2f}, least {least:.3f}), {order} the best rival, {rival} ({rivals[rival]:.2f})."
        )


def _of(runs: list[Run], method: str, n: int) -> list[Run]:
    return [r for r in runs if r.method == method and r.variables == n]


def _cell(runs: list[Run], method: str, n: int, *, seconds: bool = False) -> str:
    found = _of(runs, method, n)
    if not found:
        return ""
    if seconds:
        return f"{mean(r.seconds for r in found):.1f}"
    return f"{mean(r.satisfied for r in found):.2f} ({min(r.satisfied for r in found):.2f})"


def plot(runs: list[Run], path: Path) -> None:
    """Unsatisfied clauses of the best point against evaluations, one panel per size."""
    sizes = sorted({r.variables for r in runs})
    figure, panels = plt.subplots(1, len(sizes), figsize=(3.6 * len(sizes) + 0.6, 3.9), squeeze=False, sharey=True)
    for axes, n in zip(panels.flat, sizes, strict=True):
        _panel(axes, [r for r in runs if r.variables == n])
        axes.set_title(f"{n:,} variables", fontsize=11)
        axes.set_xlabel("evaluations")
    panels[0, 0].set_ylabel("clauses not satisfied, %")
    handles = [Line2D([], [], color=tint, label=name) for name, tint in STYLES.items()]
    handles.append(Line2D([], [], color="0.3", ls=":", label=f"bar, {100 - BAR:g} %"))
    figure.legend(handles=handles, loc="lower center", ncols=4, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.13, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axes: Axes, runs: list[Run]) -> None:
    for r in runs:
        x, y = zip(*r.curve, strict=True)
        axes.loglog(x, [max(100 - v, 0.02) for v in y], color=STYLES[r.method], lw=1.2, alpha=0.85)
    axes.axhline(100 - BAR, color="0.3", ls=":", lw=1)
    axes.set_yticks([0.1, 0.2, 0.5, 1, 2, 5, 10], ["0.1", "0.2", "0.5", "1", "2", "5", "10"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
