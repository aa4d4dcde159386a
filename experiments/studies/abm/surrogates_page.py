"""The study of surrogates of mean herds: its claims, table and picture."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from steersman.experiments.studies.abm.surrogates import (
    CONTROLLED,
    FREE,
    REPLICAS,
    SHARE,
    TESTS,
    Course,
    Courses,
    Fitting,
    Outcome,
    fittings,
)
from steersman.experiments.studies.study import Bar, Claim, Results, Study, Table

BAR = Bar((2, 4, 1), "%", most=True)
"""Errors on the free mean of sheep, wolves and grass."""
SHOWN = "generalised mass action"


def about(results: Results) -> list[str]:
    """What was done."""
    return [
        f"Open-loop error over 500 ticks in percent of the mean (sheep / wolves / grass). Means of {REPLICAS} herds: "
        f"{FREE} free ones from the setup on, {CONTROLLED} under random removal of up to {100 * SHARE * 0.1:.0f} % per "
        f"tick; tested on a free mean of other herds and on {TESTS} means under controls that no fit saw. A step "
        "counts while every herd lives."
    ]


def claims(results: Results) -> list[Claim]:
    """Which surrogates are as near as is asked for, and which is best under control."""
    outcomes = results.of(Outcome)
    found = [Claim(f"{o.model}, fitted to {o.fitted_to} means, on the free mean: {_told(o.free)}", o.free, BAR)
             for o in outcomes]  # fmt: skip
    lowest = min(outcomes, key=lambda o: sum(o.controlled))
    text = f"Best under unseen control: {lowest.model} ({lowest.fitted_to}), {_told(lowest.controlled)}"
    return [*(claim for claim in found if claim.holds), Claim(text, lowest.controlled)]


def tables(results: Results) -> list[Table]:
    """Errors by surrogate."""
    rows = [[o.model, o.fitted_to, _told(o.free), _told(o.controlled), f"{o.seconds:.0f}"] for o in results.of(Outcome)]
    return [Table(["surrogate", "fitted to", "free", "controlled, unseen", "CPU s"], rows)]


def _told(errors: tuple[float, ...]) -> str:
    return " / ".join(f"{error:.1f}" for error in errors)


def figure(results: Results) -> Figure:
    """Means and the predictions of one surrogate, free and under one unseen control."""
    drawn, panels = plt.subplots(2, 3, figsize=(10, 5), sharex=True, layout="constrained")
    for axes, course in zip(panels.flat, results.of(Course), strict=False):
        ticks = [10 * k for k in range(len(course.true))]
        axes.plot(ticks, course.true, color="0.3", lw=2, label="mean of the agents")
        axes.plot(ticks, course.guess, color="#dd8452", lw=1.5, ls="--", label=SHOWN)
        axes.set_ylim(bottom=0)
        axes.set_title(f"{course.species}, {course.data}")
    panels[0, 0].legend()
    for axes in panels[1]:
        axes.set_xlabel("tick")
    return drawn


# The published herds were drawn by older random numbers: those of today differ by as much as two samples do.
STUDY = Study(
    "abm-surrogates", about, lambda: [*fittings(), Courses(SHOWN)], lambda: Fitting("linear", "free"), claims, tables,
    figure, tolerance=0.1,
)  # fmt: skip
