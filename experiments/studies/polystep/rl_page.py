"""The study of policy search by PolyStep and its rivals: its claims, tables and picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from steersman.experiments.studies.polystep.policy_runs import STREAK, Row, Task
from steersman.experiments.studies.polystep.rl import CLASSIC, LONG, PACKAGE, TASKS, cells
from steersman.experiments.studies.study import Bar, Claim, Results, Study, Table

TINTS = {
    "frame_step": "#c44e52", "polystep": "#dd8452", "cma_es": "#4c72b0", "openai_es": "#55a868", "random": "0.55",
    "polystep_subspace": "#937860", "polystep_peer": "#8172b3",
}  # fmt: skip
OURS = ("frame_step", "polystep", "polystep_subspace")
"""Of these the first one, the default, is set against the rivals."""
NEAR = -0.1
"""Relative gap from which a median counts as near another."""
ACROBOT = (
    "The published package on Acrobot: -79.6 (tanh), -83.8 (int8), -76.4 (binary activations) after 9,600 evaluations "
    "of 16 episodes"
)


CENTRE = "centre"
"""See :attr:`Row.judged`."""


def about(results: Results) -> list[str]:
    """What was done, and what the columns mean."""
    rows = results.of(Row)
    return [
        f"Policies found by population searches on whole episodes, {len(rows)} runs on one thread. Every search has "
        "one setting for all tasks, ours and the rivals their defaults. All members of a "
        "generation meet the same scenarios, new ones each generation, and all searches of one seed start at the same "
        "policy and meet the same scenarios. Steps are control steps of running training episodes, the eight "
        "exploratory episodes included; a run ends with the generation that reaches its budget, so large populations "
        "exceed it.",
        "\n".join(_terms(rows)),
        "The budgets of Acrobot (200,000 at first, of 4 episodes), Pendulum (400,000), MountainCarContinuous (200,000) "
        "and KuramotoSivashinsky (100,000) were raised for all searches alike after a first look at the results, "
        "because too few runs were solved to compare. The defaults of frame_step (6 directions, ranks at 0.12, a step "
        "radius of 0.4) were chosen on these tasks with 16 seeds of their own; the rivals' settings were not touched. "
        "Ahead and behind compare medians, without a test; it is said where the ranges over seeds overlap. "
        "polystep_subspace is polystep with blocks of 4 in a subspace of 8 coordinates, drawn anew each generation; "
        f"{LONG} is polystep with five times the budget. "
        "polystep_peer is the published package, with tanh policies only, as its CartPole "
        "example sets it up (blocks of 8, softmax at a temperature from 1 to 0.3 in units of the cost), with that "
        "example's 16 episodes per evaluation on the four classic tasks, and with ten times the budget of the others, "
        "thirty times on CartPole. binary has binary weights and hidden activations, binary-activation real weights "
        "and binary hidden activations, as the published binary policies have.",
    ]


def _terms(rows: Sequence[Row]) -> list[str]:
    """What the columns mean."""
    lines = [
        "- Final: mean return on fresh episodes of the policy that a run returns, the better of the search's centre "
        "and its confirmed best on scenarios of their own; median over seeds (lowest to highest).",
        "- Solved: runs whose final return reaches the threshold.",
        f"- Held: runs whose confirmed best reached it in {STREAK} successive generations, each time on fresh "
        "episodes, with the median evaluations and steps at the end of that streak. A budget that holds fewer "
        "generations cannot hold it, whatever its policies are worth. The best is confirmed by a duel on common "
        "scenarios; judging it costs no steps of the budget. Where a run stops at its streak, its final policy is that "
        "of the moment.",
    ]
    centred = [row for row in rows if row.judged == CENTRE]
    if centred:
        mixed = {row.task for row in rows if row.judged != CENTRE}
        names = ", ".join(
            dict.fromkeys(f"{r.task} {_policy(r.policy)}" if r.task in mixed else r.task for r in centred)
        )
        lines.append(
            f"- In {len(centred)} runs Held speaks of the search's centre, on the same episodes in every generation: "
            f"{names}."
        )
    return lines


def tables(results: Results) -> list[Table]:
    """A table for each task."""
    rows = results.of(Row)
    return [_section(task, part) for task in TASKS if (part := [row for row in rows if row.task == task.name])]


def _section(task: Task, rows: Sequence[Row]) -> Table:
    ends = ", or to the end of the streak" if task.stop else ""
    text = (
        f"Threshold {rows[0].threshold:,.4g}, held on {task.held_out} episodes a generation"
        f"{' (half of the cost without control)' if task.threshold is None else ''}; {task.scenarios} episodes per "
        f"evaluation; budget {task.plant_steps:,} steps{ends}; {task.final} final episodes; {task.seeds} seeds."
    )
    lines = []
    for policy, search in dict.fromkeys((row.policy, row.search) for row in rows):
        part = _of(rows, task.name, policy, search)
        held = [row for row in part if row.held]
        final = [row.final for row in part]
        cells = (
            _policy(policy), search, f"{part[0].parameters}",
            f"{sum(row.solved for row in part)}/{len(part)}", f"{len(held)}/{len(part)}",
            f"{median(r.solved_evaluations for r in held):,.0f}" if held else "",
            f"{median(r.solved_steps for r in held):,.0f}" if held else "",
            f"{median(final):,.4g} ({min(final):,.4g} to {max(final):,.4g})",
            f"{median(r.evaluations for r in part):,.0f}", f"{median(r.plant_steps for r in part):,.0f}",
        )  # fmt: skip
        lines.append(cells)
    head = (
        "policy", "search", "parameters", "solved", "held", "evaluations to it", "steps to it", "final return",
        "evaluations", "steps",
    )  # fmt: skip
    return Table(head, lines, task.plant, text)


def _policy(name: str) -> str:
    return "tanh" if name == "mlp" else name


def _of(rows: Sequence[Row], task: str, policy: str, search: str) -> list[Row]:
    return [row for row in rows if (row.task, row.policy, row.search) == (task, policy, search)]


def claims(results: Results) -> list[Claim]:
    """What the rows say about the bars, and who is ahead where."""
    rows = results.of(Row)
    policies = {task: dict.fromkeys(row.policy for row in rows if row.task == task.name) for task in TASKS}
    pairs = [(task, policy) for task in TASKS for policy in policies[task]]
    with_package = [task for task in TASKS if _of(rows, task.name, "mlp", PACKAGE)]
    near = sum(_gap(*_contest(rows, *pair)) >= NEAR for pair in pairs)
    found = [*_cart_pole(rows), *_acrobot(rows)]
    found.append(Claim(f"Within 10 % of the best rival or ahead of it in {near} of {len(pairs)} cells", (near,)))
    if with_package:
        near = sum(_gap(*_with_package(rows, task)) >= NEAR for task in with_package)
        text = (
            f"Within 10 % of the published package or ahead of it, at about a tenth of its steps, on {near} of "
            f"{len(with_package)} tasks"
        )
        found.append(Claim(text, (near,)))
    found += [_against_rivals(rows, task, policy) for task, policy in pairs]
    return found + [_against_package(rows, task) for task in with_package]


def _cart_pole(rows: Sequence[Row]) -> list[Claim]:
    found = []
    for search in (*OURS, LONG):
        if part := _of(rows, "CartPole", "mlp", search):
            held = [row.solved_steps for row in part if row.held]
            middle = f", at a median of {median(held):,.0f} steps" if held else ""
            text = (
                f"CartPole, tanh: policies of {search} solve it in {sum(row.solved for row in part)} of {len(part)} "
                f"runs, and {len(held)} held the threshold{middle}"
            )
            steps = float(median(held)) if len(held) == len(part) else math.inf
            found.append(Claim(text, (steps,), None if search == LONG else HOLDING))
    return found


CHEAP = "CartPole, mlp: polystep_subspace"
HOLDING = Bar((150_000,), "steps, held by all of ten", most=True)


def _acrobot(rows: Sequence[Row]) -> list[Claim]:
    part = _of(rows, "Acrobot", "mlp", "frame_step")
    if not part:
        return []
    final, used = median(row.final for row in part), max(row.evaluations for row in part)
    text = f"Acrobot, tanh: frame_step reaches a median of {final:.1f}"
    spent = f"Acrobot, tanh: it takes at most {used:,} evaluations of {CLASSIC[1].scenarios} episodes"
    return [
        Claim(text, (final,), Bar((-80,))),
        Claim(spent, (used,), Bar((960,), most=True)),
        Claim(ACROBOT, (-79.6, -83.8, -76.4), source="the package's own tables"),
    ]


def _under_one_budget(rows: Sequence[Row], task: Task, policy: str) -> dict[str, list[Row]]:
    """Runs of each search but those whose budget is another."""
    others = (PACKAGE, LONG)
    part = [row for row in rows if (row.task, row.policy) == (task.name, policy) and row.search not in others]
    return {name: _of(part, task.name, policy, name) for name in dict.fromkeys(row.search for row in part)}


def _contest(rows: Sequence[Row], task: Task, policy: str) -> tuple[list[Row], list[Row]]:
    """Runs of our default and of the best rival."""
    runs = _under_one_budget(rows, task, policy)
    return runs[OURS[0]], max((runs[name] for name in runs if name not in OURS), key=_middle)


def _with_package(rows: Sequence[Row], task: Task) -> tuple[list[Row], list[Row]]:
    return _of(rows, task.name, "mlp", OURS[0]), _of(rows, task.name, "mlp", PACKAGE)


def _against_rivals(rows: Sequence[Row], task: Task, policy: str) -> Claim:
    ours, rival = _contest(rows, task, policy)
    runs = _under_one_budget(rows, task, policy)
    text = (
        f"{task.name}, {_policy(policy)}: {OURS[0]} ends at {_middle(ours):,.4g}, the best rival "
        f"{rival[0].search} at {_middle(rival):,.4g}: {_verdict(ours, rival)}{_speed(runs)}{_idle(task, runs)}"
    )
    return Claim(text, (_middle(ours), _middle(rival)))


def _against_package(rows: Sequence[Row], task: Task) -> Claim:
    ours, theirs = _with_package(rows, task)
    steps = [median(row.plant_steps for row in part) for part in (ours, theirs)]
    text = (
        f"{task.name}, tanh, against the published package run here: {OURS[0]} ends at {_middle(ours):,.4g} after "
        f"{steps[0]:,.0f} steps, the package at {_middle(theirs):,.4g} after {steps[1]:,.0f}: "
        f"{_verdict(ours, theirs)} at 1/{steps[1] / steps[0]:.0f} of its steps; it solves "
        f"{sum(r.solved for r in theirs)} of {len(theirs)}"
    )
    return Claim(text, (_middle(ours), _middle(theirs)))


def _middle(part: Sequence[Row]) -> float:
    return float(median(row.final for row in part))


def _gap(ours: Sequence[Row], theirs: Sequence[Row]) -> float:
    return (_middle(ours) - _middle(theirs)) / max(abs(_middle(theirs)), 1e-9)


def _verdict(ours: Sequence[Row], theirs: Sequence[Row]) -> str:
    gap = _gap(ours, theirs)
    verdict = "ahead" if gap > 0.001 else "equal" if gap > -0.001 else "within 10 %" if gap >= NEAR else "behind"
    return verdict + (", ranges overlap" if _overlap(ours, theirs) else "")


def _overlap(a: Sequence[Row], b: Sequence[Row]) -> bool:
    return max(min(r.final for r in part) for part in (a, b)) <= min(max(r.final for r in part) for part in (a, b))


def _idle(task: Task, runs: Mapping[str, Sequence[Row]]) -> str:
    """A warning where the budget was too small to be of any use."""
    if task.threshold is not None:
        return ""
    idle = 2 * next(iter(runs.values()))[0].threshold
    return f"; all end below the {idle:,.4g} of no control" if max(map(_middle, runs.values())) < idle else ""


def _speed(runs: Mapping[str, Sequence[Row]]) -> str:
    """Who gets there in the fewest steps, among the searches that hold the threshold in half of their runs."""
    times = {}
    for name, part in runs.items():
        held = [row.solved_steps for row in part if row.held]
        if 2 * len(held) >= len(part):
            times[name] = (median(held), f"{len(held)}/{len(part)}")
    if not times:
        return "; none holds the threshold in half of its runs"
    order = sorted(times, key=lambda name: times[name])
    return "; steps to the threshold: " + ", ".join(f"{n} {times[n][0]:,.0f} ({times[n][1]} held)" for n in order)


def figure(results: Results) -> Figure:
    """Return of the judged policy against training steps, tanh: median over seeds and the middle half."""
    # Of a longer run only the part within the common budget would be seen.
    rows = [row for row in results.of(Row) if row.search != LONG and row.policy == "mlp"]
    tasks = [task for task in TASKS if any(row.task == task.name for row in rows)]
    height = -(-len(tasks) // 4)
    size = (13, 3.1 * height + 0.4)
    drawn, panels = plt.subplots(height, 4, figsize=size, squeeze=False, layout="constrained")
    for axes in panels.flat[len(tasks) :]:
        axes.axis("off")
    for axes, task in zip(panels.flat, tasks, strict=False):
        part = [row for row in rows if row.task == task.name]
        for search in dict.fromkeys(row.search for row in part):
            _curve(axes, _of(part, task.name, "mlp", search), TINTS.get(search, "tab:purple"), task)
        axes.axhline(part[0].threshold, color="0.5", lw=0.8, ls="--")
        axes.set(title=task.name, xlabel="training steps, thousands")
    panels[0, 0].set_ylabel("return on episodes not trained on")
    handles = [Line2D([], [], color=tint, label=name) for name, tint in TINTS.items()]
    drawn.legend(handles=handles, loc="outside lower center", ncols=len(TINTS))
    return drawn


def _curve(axes: Axes, part: Sequence[Row], tint: str, task: Task) -> None:
    grid = np.linspace(0, task.plant_steps, 60)
    table = []
    for row in part:
        steps, reached = np.array([p[1] for p in row.curve]), np.array([p[2] for p in row.curve])
        # A run that stopped when it was solved keeps its last value; before its first there is none.
        table.append(np.where(grid >= steps[0], np.interp(grid, steps, reached), np.nan))
    values = np.array(table)[:, ~np.isnan(np.array(table)).any(axis=0)]
    grid = grid[-values.shape[1] :]
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
    axes.fill_between(grid / 1e3, low, high, color=tint, alpha=0.15, lw=0)
    axes.plot(grid / 1e3, middle, color=tint, lw=1.6)


STUDY = Study(
    "polystep-rl", about, cells, lambda: next(c for c in cells() if c.name == CHEAP), claims, tables, figure,
    tolerance=1e-3,
)  # fmt: skip
