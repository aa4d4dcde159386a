"""The study of transmission switching: its claims, table and picture."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from steersman.experiments.studies.grid.switching import (
    SWITCHINGS,
    Agreement,
    Diagram,
    Line,
    PowerFlows,
    Row,
    nx,
)
from steersman.experiments.studies.study import Bar, Claim, Results, Study, Table

LARGEST = 500
"""Buses of the largest grid whose power flow is compared with the published table."""
CONVENTIONS = (
    "DC model without losses: flow `x / (r^2 + x^2) * (angle_i - angle_j)`, ratios and shifts of transformers ignored, "
    "shunt conductances at 1 pu, rating A and limits on angles (those only while a line is closed). No rule keeps the "
    "grid in one piece. Quadratic costs (24 buses) by tangents until the true cost is within 2e-6. HiGHS, one thread. "
    "'Open' lists the lines left open once those that need not be are closed again. 'Independent' is another model of "
    "ours, written apart from this one and also solved by HiGHS; for three open lines of 118 buses it had found "
    "217,426.24 with a gap of 20 % after 90 s.",
)


def claims(results: Results) -> list[Claim]:
    """Agreement with what is known, savings, and what was not proven."""
    found, rows = [], results.of(Row)
    for flows in results.of(Agreement):
        text = (
            f"Power flow with all lines closed: {flows.agreeing} of {flows.compared} DC costs in PGLib's table "
            f"(v23.07, up to {LARGEST} buses, three operating conditions) come out the same to all printed digits, "
            "infeasible included"
        )
        found.append(Claim(text, (flows.agreeing,), Bar((flows.compared,)), "PGLib"))
    known = [row for row in rows if row.reference]
    same = [row for row in known if round(row.cost, 2) == row.reference]
    text = (
        f"Switching: {len(same)} of {len(known)} optima of an independent model come out the same to the cent; "
        "14991.25 for 5 buses is also what PowerModels' test states (14991.3)"
    )
    found.append(Claim(text, (len(same),), Bar((len(known),)), "independent model"))
    best = max(rows, key=lambda row: row.saving)
    found.append(Claim(f"Largest saving: {100 * best.saving:.1f} % ({best.label})", (100 * best.saving,)))
    return found + [
        Claim(
            f"Not proven in its limit of wall time: {row.label}; found {row.cost:,.2f}, bound {row.bound:,.2f}, "
            f"gap {100 * row.gap:.1f} %",
            (100 * row.gap,),
        )
        for row in rows
        if row.status != "optimal"
    ]


def tables(results: Results) -> list[Table]:
    """Costs, savings and open lines."""
    head = (
        "grid", "all closed, $/h", "switched, $/h", "independent", "saving, %", "gap, %", "CPU s", "open", "islands",
    )  # fmt: skip
    rows = [
        [
            r.label, f"{r.closed:,.2f}", f"{r.cost:,.2f}", f"{r.reference:,.2f}" if r.reference else "",
            f"{100 * r.saving:.2f}", f"{100 * r.gap:.2g}", f"{r.seconds:.2f}",
            ", ".join(name.removesuffix(" circuit 1") for name in r.open), str(r.islands),
        ]
        for r in results.of(Row)
    ]  # fmt: skip
    return [Table(head, rows)]


def figure(results: Results) -> Figure:
    """Savings with what could still be saved, and the 39-bus grid with its open lines."""
    drawn, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), width_ratios=(1, 1.15), layout="constrained")
    order = list(reversed(results.of(Row)))
    left.barh([r.label for r in order], [100 * (r.bound / r.closed < 1) * (1 - r.bound / r.closed) for r in order],
              color="#dddddd", label="not ruled out")  # fmt: skip
    left.barh([r.label for r in order], [100 * r.saving for r in order], color="#4c72b0", label="found")
    left.set_xlabel("saving, % of the cost with all lines closed")
    left.legend(loc="center right")
    _diagram(right, results.of(Line))
    return drawn


def _diagram(axes: Axes, lines: list[Line]) -> None:
    place = nx.kamada_kawai_layout(nx.Graph(sorted(line.ends for line in lines))) if lines else {}
    for line in lines:
        (xi, yi), (xj, yj) = (place[end] for end in line.ends)
        axes.plot([xi, xj], [yi, yj], ":" if line.opened else "-", color="#c44e52" if line.opened else "#888888",
                  lw=2.0 if line.opened else 0.6 + 3 * line.share, zorder=1)  # fmt: skip
    generators = {bus for line in lines for bus, has in zip(line.ends, line.generates, strict=True) if has}
    for bus, (x, y) in place.items():
        tint = "#55a868" if bus in generators else "white"
        axes.scatter([x], [y], s=150, color=tint, edgecolor="#444444", zorder=2)
        axes.annotate(str(bus), (x, y), ha="center", va="center", fontsize=7, zorder=3)
    axes.set_title("39 buses, api: open lines dotted, width by loading, generators green", fontsize=10)
    axes.axis("off")


STUDY = Study(
    "transmission-switching", lambda results: CONVENTIONS,
    lambda: [PowerFlows(LARGEST), *SWITCHINGS, Diagram("case39_epri", "api")], lambda: SWITCHINGS[0], claims, tables,
    figure,
)  # fmt: skip
