"""The study of networks without gradients: its claims, tables and picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from steersman.experiments.studies.polystep import supervised_tree as trees
from steersman.experiments.studies.polystep.supervised import Growing, Training, trainings
from steersman.experiments.studies.polystep.supervised_methods import ADAM, FULL, LONG, METHODS, PEER, Trained
from steersman.experiments.studies.polystep.supervised_tasks import PRESETS, Preset
from steersman.experiments.studies.running import published_lines
from steersman.experiments.studies.study import Claim, Results, Study, Table

DIGITS, *LONGER = PRESETS
OWN = ("polystep", "frame_step", "frame_step, cold")
PUBLISHED = {
    "hard-LIF spikes": "93.0 / 79.6 / 77.1 / 86.3", "int8": "97.0 / 94.4 / 91.6 / 97.8",
    "argmax attention": "86.6 / 80.0 / 79.5 / 88.6", "staircase": "94.3 / 88.9 / 89.2 / 97.5",
    "hard experts": "90.6 / 82.5 / 77.8 / -",
}  # fmt: skip
"""MNIST, 20 to 200 million evaluations (table of the package's 1.x releases): PolyStep / OpenAI-ES / CMA-ES / Adam."""
PAPER = (
    "Published for hard-LIF spikes on MNIST, in two versions. The paper (arXiv 2605.01928): 93.4 %, more than 60 "
    "points ahead of all gradient-free rivals and 4.4 behind Adam on a surrogate. The table of the package's 1.x "
    "releases, which corrects it: 93.0, which is 13.4 points ahead of OpenAI-ES at 79.6 and 6.7 ahead of Adam at 86.3."
)
PUBLISHED_TREE = (94.2, 90.9, 87.7, 83.3)
"""Measured before with the same budget: PolyStep of the package, IPOP-CMA-ES; train and test of each."""

Rows = Sequence[Trained] | Sequence[trees.TreeRun]


def percent(rows: Rows, value: str = "test") -> tuple[float, float]:
    """Mean and sample standard deviation over seeds, in percent; NaN where there is nothing."""
    found = np.array([getattr(row, value) for row in rows], dtype=float) * 100
    spread = float(found.std(ddof=1)) if len(found) > 1 else float("nan")
    return (float(found.mean()) if len(found) else float("nan")), spread


def of_preset(results: Results, preset: str) -> list[Trained]:
    """Rows of the networks of a preset."""
    cells = (done for done in results if isinstance(done.cell, Training) and done.cell.preset == preset)
    return [row for done in cells for row in done.rows]


def about(results: Results) -> list[str]:
    """What was done."""
    return [
        "Accuracy on images or points not used before, percent, mean +- standard deviation over "
        f"{len(DIGITS.seeds)} seeds ({len(trees.SEEDS)} for the tree). One evaluation is one network on one "
        "mini-batch or training set; all members of a generation see the same one, as one batched product. Every "
        "method has one setting, tried at five values about a factor of three apart, on two seeds that no row has.",
        PAPER,
    ]


def claims(results: Results) -> list[Claim]:
    """Who wins, in sentences, those that speak against PolyStep included."""
    found, rows = [], of_preset(results, DIGITS.name)
    for task in dict.fromkeys(row.task for row in rows):
        score = {m.name: percent(_of(rows, task=task, method=m.name)) for m in METHODS}
        searches = {name: value for name, value in score.items() if name != ADAM}
        own = max((name for name in searches if name in OWN), key=lambda name: searches[name][0])
        rival = max((name for name in searches if name not in OWN), key=lambda name: searches[name][0])
        text = (
            f"{task}: {own} at {score[own][0]:.1f} {_against(score[own], score[rival])} the best other search, "
            f"{rival} at {score[rival][0]:.1f}; the package reaches {score[PEER][0]:.1f}, Adam on the surrogate "
            f"{score[ADAM][0]:.1f}"
        )
        found.append(Claim(text, tuple(score[name][0] for name in (own, rival, PEER, ADAM))))
    longer = [claim for preset in LONGER for claim in _long_claims(preset, of_preset(results, preset.name))]
    return [*found, *_tree_claims(results.of(trees.TreeRun)), *longer]


def _against(own: tuple[float, float], rival: tuple[float, float]) -> str:
    """Whether two means differ by more than both standard deviations together."""
    difference, spread = own[0] - rival[0], float(np.hypot(own[1], rival[1]))
    if abs(difference) <= spread:
        return f"is, within the spread of seeds, {'ahead of' if difference > 0 else 'behind'}"
    return "beats" if difference > 0 else "loses to"


def _tree_claims(rows: Sequence[trees.TreeRun]) -> list[Claim]:
    names = ("frame_step, cold", trees.PEER, "frame_step", "polystep")
    score = {name: [percent(_of(rows, method=name), part) for part in ("train", "test")] for name in names}
    text = {name: f"{train[0]:.1f} / {test[0]:.1f}" for name, (train, test) in score.items()}
    stands = {name: _against(score[name][1], score[trees.PEER][1]) for name in names}
    before, before_test = PUBLISHED_TREE[:2]
    cold = (
        f"Oblique tree (train / test; compared on the test): the package's example reaches {text[trees.PEER]}; "
        f"measured before with another set of seeds, {before} / {before_test}. frame_step with the example's cold "
        f"transport, all 61 directions and radii that stay, reaches {text['frame_step, cold']} and "
        f"{stands['frame_step, cold']} it"
    )
    own = (
        f"Oblique tree: with its adaptive defaults frame_step has {text['frame_step']} and {stands['frame_step']} "
        f"the package; polystep with its own has {text['polystep']} and {stands['polystep']} it"
    )
    tests = {name: score[name][1][0] for name in names}
    return [
        Claim(cold, (tests["frame_step, cold"], tests[trees.PEER])),
        Claim(own, (tests["frame_step"], tests["polystep"], tests[trees.PEER])),
    ]


def _of(rows: Rows, **wanted: Any) -> list[Any]:
    return [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]


def tables(results: Results) -> list[Table]:
    """Five networks, the settings that were chosen, presets with more evaluations, and the tree."""
    rows = of_preset(results, DIGITS.name)
    longer = [(preset, of_preset(results, preset.name)) for preset in LONGER]
    found = [_digits(rows), _settings(rows)]
    found += [_longer(rows, preset, more) for preset, more in longer if more]
    return [*found, _tree(results.of(trees.TreeRun))]


def _digits(rows: Sequence[Trained]) -> Table:
    tasks = list(dict.fromkeys(row.task for row in rows))
    lines = [[m.name, *(_cell(_of(rows, task=task, method=m.name)) for task in tasks)] for m in METHODS]
    lines.append(
        ["CPU s of a run, mean", *(f"{np.mean([r.seconds for r in _of(rows, task=task)]):.1f}" for task in tasks)]
    )
    lines.append(["published, MNIST, 20-200 M evaluations", *(PUBLISHED.get(task, "") for task in tasks)])
    text = (
        f"{DIGITS.budget:,} evaluations on mini-batches of {DIGITS.batch} ({DIGITS.tuning:,} for each setting "
        "and seed tried; the form of each method, like its population, was set before on the staircase). A search's "
        "centre and its confirmed best point are compared on the validation images and the better one is tested. Adam "
        f"takes {DIGITS.gradient_steps:,} steps, counted as three evaluations each."
    )
    remark = "Published: PolyStep / OpenAI-ES / CMA-ES / Adam, at the sizes of the preset `mnist`."
    return Table(["method", *tasks], lines, f"Five networks, preset `{DIGITS.name}`", text, [remark])


def _settings(rows: Sequence[Trained]) -> Table:
    tasks = list(dict.fromkeys(row.task for row in rows))
    lines = []
    for method in METHODS:
        chosen = [_of(rows, task=task, method=method.name) for task in tasks]
        values = _list(found[0].scale for found in chosen if found)
        lines.append([method.name, method.meaning, _list(method.scales), values])
    return Table(["method", "setting", "values tried", "chosen, task by task"], lines, remarks=_limits(rows, tasks))


def _limits(rows: Sequence[Trained], tasks: Sequence[str]) -> list[str]:
    """What the comparison does not show."""
    edges = []
    for method in METHODS:
        chosen = [found[0].scale for task in tasks if (found := _of(rows, task=task, method=method.name))]
        if count := sum(scale in (method.scales[0], method.scales[-1]) for scale in chosen):
            edges.append(f"{method.name} on {count}")
    ends = (
        f"at an end of those tried, where more values could help, for {', '.join(edges)} of {len(tasks)} networks"
        if edges
        else "never at an end of those tried"
    )
    return [
        f"The value chosen is {ends}.",
        "Other forms of frame_step were looked at on a seed of tuning (8 or 64 directions, probes half or twice as "
        "far, warmer weights, momentum, radii that stay): none was better by more than seeds differ.",
        f"The package searches {DIGITS.coordinates} fixed coordinates (rank 4, softmax), as in "
        "the first example of its manual; its published runs have thousands of times as many evaluations.",
    ]


def _cell(rows: Rows, value: str = "test") -> str:
    mean, spread = percent(rows, value)
    return f"{mean:.1f} +- {spread:.1f}" if rows else ""


def _list(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _tree(rows: Sequence[trees.TreeRun]) -> Table:
    peer, peer_test, cma, cma_test = PUBLISHED_TREE
    text = (
        f"The package's example: {trees.POINTS} points of a 3 x 3 chessboard, a tree of depth {trees.DEPTH} with "
        f"constant leaves (61 numbers), at most {trees.BUDGET:,} evaluations of the share of errors, test on "
        f"{trees.TEST_POINTS:,} new points. Measured before: package {peer} / {peer_test}, IPOP-CMA-ES {cma} / "
        f"{cma_test}. The directions of the cold form (of 8, 16, 32, 61) and the rule for ties were chosen on other "
        "first points, the latter with a look at Acrobot; the defaults' 6 directions on policy search."
    )
    lines, ends = [], []
    for method in trees.METHODS:
        if found := _of(rows, method=method.name):
            scale, seconds = found[0].scale, float(np.mean([row.seconds for row in found]))
            tried, used = f"{scale:g} of {_list(method.scales)}", f"{found[0].evaluations:,}"
            lines.append([method.name, _cell(found, "train"), _cell(found), tried, used, f"{seconds:.1f}"])
            ends += [method.name] if scale in (method.scales[0], method.scales[-1]) else []
    remarks = [f"The setting lies at an end of those tried for {', '.join(ends)}."] if ends else []
    head = ["method", "train", "test", "setting", "evaluations", "CPU s"]
    return Table(head, lines, "Hard oblique tree", text, remarks)


def _longer(before: Sequence[Trained], preset: Preset, rows: Sequence[Trained]) -> Table:
    """The same networks with far more evaluations, at the settings tuned with few."""
    tasks = [task.name for task in preset.tasks if _of(rows, task=task.name)]
    text = (
        f"Seeds: {', '.join(map(str, preset.seeds))}. All runs of the table took "
        f"{sum(row.seconds for row in rows) / 60:.0f} CPU minutes; the whole preset takes {preset.cost}. Settings are "
        f"those tuned with {DIGITS.tuning:,} evaluations, at which more of them need not be best. One seed knows no "
        f"spread: differences of the size of the spreads above mean nothing. {_full_rank(preset, rows)}"
    )
    lines = [
        [method.name, *(_long_cell(before, rows, task, method.name) for task in tasks)]
        for method in LONG
        if _of(rows, method=method.name)
    ]
    remark = (
        f"Test accuracy, %; in brackets the mean with {DIGITS.budget:,} evaluations. Adam takes at most "
        f"{preset.gradient_steps:,} steps."
    )
    return Table(["method", *tasks], lines, f"{preset.budget:,} evaluations, preset `{preset.name}`", text, [remark])


def _full_rank(preset: Preset, rows: Sequence[Trained]) -> str:
    """How the package at full rank was tuned, and how few steps it had."""
    found, method = _of(rows, method=FULL), LONG[-1]
    if not found:
        return f"{FULL} was not run."
    return (
        f"{FULL} has no setting above: {method.meaning}, is {_list(row.scale for row in found)}, the best of "
        f"{_list(method.scales)} with {preset.tuning:,} evaluations on a seed that no row has; a step of it takes one "
        "evaluation for each parameter and an eighth more, thousands, so that it has few steps."
    )


def notes(results: Results) -> list[str]:
    """What it takes to go further than this page does."""
    lines = [
        f"- `{p.name}`: {', '.join(t.name for t in p.tasks)}, {p.budget:,} evaluations, {p.cost}"
        f"{'; in part above' if of_preset(results, p.name) else '; not run'}."
        for p in LONGER
    ]
    return ["Further presets, `steersman study polystep-supervised --cells 'PRESET: *'`:", "\n".join(lines)]


def _long_cell(before: Sequence[Trained], longer: Sequence[Trained], task: str, method: str) -> str:
    rows, few = (_of(part, task=task, method=method) for part in (longer, before))
    if not rows:
        return ""
    return f"{percent(rows)[0]:.1f}" + (f" ({percent(few)[0]:.1f})" if few else "")


def _long_claims(preset: Preset, rows: Sequence[Trained]) -> list[Claim]:
    found = []
    for task in dict.fromkeys(row.task for row in rows):
        score = {row.method: 100 * row.test for row in _of(rows, task=task)}
        own = max((n for n in score if n in OWN), key=lambda n: score[n], default=None)
        rival = max((n for n in score if n not in (*OWN, ADAM, PEER, FULL)), key=lambda n: score[n], default=None)
        if own is None or rival is None:
            continue
        gap = score[own] - score[rival]
        said = f"{task}, {preset.budget:,} evaluations: {own} {score[own]:.1f}, {abs(gap):.1f} points {_side(gap)} the "
        said += f"best rival without gradients that was run, {rival}"
        if ADAM in score:
            said += f", and {abs(score[ADAM] - score[own]):.1f} {_side(score[own] - score[ADAM])} Adam on the surrogate"
        packages = [f"{n} {score[n]:.1f}" for n in (PEER, FULL) if n in score]
        text = said + (f"; {', '.join(packages)}" if packages else "")
        found.append(Claim(text, (score[own], score[rival])))
    return found


def _side(gap: float) -> str:
    return "ahead of" if gap >= 0 else "behind"


def figure(results: Results) -> Figure:
    """Test accuracy by method on each network, with more evaluations as open marks, and of trees."""
    rows = of_preset(results, DIGITS.name)
    more = {p.budget: found for p in LONGER if (found := of_preset(results, p.name))}
    marks = dict(zip(sorted(more), _MARKS, strict=False))
    drawn, panels = plt.subplots(2, 3, figsize=(12.5, 6.8), layout="constrained")
    for axes, task in zip(panels.flat, dict.fromkeys(row.task for row in rows), strict=False):
        methods = LONG if any(_of(found, task=task, method=FULL) for found in more.values()) else METHODS
        names = [method.name for method in methods]
        _dots(axes, names, [_of(rows, task=task, method=name) for name in names])
        for i, name in enumerate(names):
            for budget, found in more.items():
                values = [100 * row.test for row in _of(found, task=task, method=name)]
                axes.plot(values, [-i] * len(values), marks[budget], mfc="none", color="0.15", ms=6)
        axes.set(title=task, xlabel="test accuracy, %")
    names = [method.name for method in trees.METHODS]
    grown = results.of(trees.TreeRun)
    _dots(panels.flat[5], names, [_of(grown, method=name) for name in names])
    panels.flat[5].set(title="hard oblique tree", xlabel="test accuracy, %")
    keys = [f"dots: seeds with {DIGITS.budget:,} evaluations, bars their means"]
    keys += [f"{_MARKS[mark]}: {budget:,}" for budget, mark in marks.items()]
    drawn.supxlabel("; ".join(keys), fontsize=10)
    return drawn


_MARKS = {"D": "diamonds", "s": "squares", "^": "triangles", "v": "other triangles"}


def _dots(axes: Axes, names: Sequence[str], rows: Sequence[Rows]) -> None:
    for i, (name, runs) in enumerate(zip(names, rows, strict=True)):
        tint = "#c44e52" if name in OWN else "#55a868" if name == ADAM else "#4c72b0"
        values = [100 * run.test for run in runs]
        axes.plot(values, [-i] * len(values), "o", color=tint, ms=4, alpha=0.5)
        if values:
            axes.plot(float(np.mean(values)), -i, "|", color=tint, ms=14, mew=2)
    axes.set_yticks([-i for i in range(len(names))], names, fontsize=8)
    axes.grid(True)


def further() -> list[Training]:
    """Cells of the presets with more evaluations, at the settings that were published with few."""
    settled = {
        (row["task"], row["method"]): row["scale"]
        for line in published_lines("polystep-supervised")
        if line["settings"].get("preset") == DIGITS.name
        for row in line["rows"]
    }
    return [cell for preset in LONGER for cell in trainings(preset, settled)]


def _cheap() -> Training:
    return next(c for c in trainings(DIGITS, {}) if (c.task, c.method) == ("staircase", ADAM))


# One image more or less of the 300 that validate.
STUDY = Study(
    "polystep-supervised", about, lambda: [*trainings(DIGITS, {}), *(Growing(m.name) for m in trees.METHODS)],
    _cheap, claims, tables, figure, notes, further, tolerance=0.005,
)  # fmt: skip
