"""A power grid of one piece, with its checks, whatever file it comes from.

Files are read by :mod:`~steersman.envs.grid.files.matpower` and :mod:`~steersman.envs.grid.files.psse`; what a grid
consists of is :mod:`~steersman.envs.grid.network.elements`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from steersman.envs.grid.network.elements import PQ, PV, SLACK, Branches, Buses, Generators, at, index_of, select

__all__ = [
    "NO_GENERATOR", "PQ", "PV", "SLACK", "Branches", "Buses", "Case", "Generators", "at", "index_of", "islanded",
    "select", "settled",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Case:
    """A grid in per unit on ``base_mva``, whole and with one slack bus.

    Attributes:
        name: Name for reports.
        base_mva: Base of all powers, MVA.
        buses: Buses.
        branches: Lines and transformers in service.
        generators: Generators in service.
        frequency: Nominal frequency, Hz.
        notes: What the reader left out or changed, a sentence each.

    Raises:
        ValueError: If arrays differ in length or hold what is not finite, a bus number occurs twice, an index points to
            no bus, a branch has no reactance or no ratio, two generators of a bus hold different voltages, buses are
            cut off from the slack bus, or there is not exactly one slack bus with a generator. The message names file
            and line where there are any. What readers make of other kinds of buses: :func:`settled`.
    """

    name: str
    base_mva: float
    buses: Buses
    branches: Branches
    generators: Generators
    frequency: float = 60.0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("base_mva", "frequency"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be a positive finite number, got {getattr(self, name)}")
        for part in (self.buses, self.branches, self.generators):
            _check_arrays(part)
        index_of(self.buses.id, (), where=self.buses.where)
        _check_indices(self)
        _check_branches(self)
        _check_kinds(self)
        _check_set_points(self)
        cut_off = islanded(self)
        if cut_off:
            first = int(np.flatnonzero(self.buses.id == cut_off[0])[0])
            raise ValueError(
                f"{at(self.buses, first)}buses {', '.join(map(str, cut_off))} are cut off from slack bus "
                f"{self.buses.id[self.slack]}; remove them, or put a branch to them in service"
            )

    @property
    def slack(self) -> int:
        """Index of the slack bus."""
        return int(np.flatnonzero(self.buses.kind == SLACK)[0])

    def label(self, i: int) -> str:
        """Name of a branch for messages: the numbers of its buses and its circuit."""
        start, end = self.buses.id[self.branches.start[i]], self.buses.id[self.branches.end[i]]
        return f"{start}-{end} circuit {self.branches.circuit[i]}"

    def with_load(self, factor: float) -> Case:
        """All loads and all scheduled powers multiplied by ``factor``; limits and set points stay.

        Raises:
            ValueError: If the factor is negative or not finite.
        """
        if not 0 <= factor < np.inf:
            raise ValueError(f"factor must be a finite number of at least 0, got {factor}")
        buses = replace(self.buses, load=self.buses.load * factor)
        p, q = self.generators.p * factor, self.generators.q * factor
        return replace(self, buses=buses, generators=replace(self.generators, p=p, q=q))

    def without_branch(self, i: int) -> Case:
        """The case with branch ``i`` (its index here) out of service.

        Raises:
            ValueError: If there is no such branch, or buses depend on it alone; the message names them.
        """
        if not 0 <= i < len(self.branches):
            raise ValueError(f"branch must be 0..{len(self.branches) - 1}, got {i}")
        keep = [j for j in range(len(self.branches)) if j != i]
        return replace(self, branches=select(self.branches, keep), notes=(*self.notes, f"{self.label(i)} taken out"))


def settled(buses: Buses, generators: Generators, notes: list[str]) -> Buses:
    """Kinds of buses that agree with the generators in service; ``notes`` tell what changed.

    As MATPOWER's ``bustypes``, a bus without a generator is PQ whatever its kind, and if no slack bus is left the first
    PV bus becomes one. Of several slack buses the first is kept and the others become PV.

    Raises:
        ValueError: If the slack bus has no generator and there is no PV bus to take its place.
    """
    kind = buses.kind.copy()
    idle = ~np.isin(np.arange(len(buses)), generators.bus)
    for i in np.flatnonzero((kind == SLACK) & ~idle)[1:]:
        kind[i] = PV
        notes.append(f"bus {buses.id[i]} is a further slack bus and made PV")
    for i in np.flatnonzero(((kind == PV) | (kind == SLACK)) & idle):
        kind[i] = PQ
        notes.append(f"bus {buses.id[i]} has no generator in service and is made PQ")
    slack, heirs = np.flatnonzero(buses.kind == SLACK), np.flatnonzero(kind == PV)
    if len(slack) and SLACK not in kind:
        if not len(heirs):
            raise ValueError(f"{at(buses, int(slack[0]))}{NO_GENERATOR.format(buses.id[slack[0]])}")
        kind[heirs[0]] = SLACK
        notes.append(f"bus {buses.id[heirs[0]]} takes the place of slack bus {buses.id[slack[0]]}")
    return replace(buses, kind=kind)


NO_GENERATOR = "slack bus {} has no generator in service; put one in service, or make a bus with one the slack bus"
"""Message on a slack bus, by its number."""


def islanded(case: Case) -> list[int]:
    """Numbers of the buses without a path to the slack bus."""
    n, lines = len(case.buses), case.branches
    graph = sparse.coo_matrix((np.ones(len(lines)), (lines.start, lines.end)), shape=(n, n))
    _, part = connected_components(graph, directed=False)
    found: list[int] = case.buses.id[part != part[case.slack]].tolist()
    return found


_LIMITS = ("rate", "angle_min", "angle_max", "p_min", "p_max", "q_min", "q_max")


def _check_arrays(part: Buses | Branches | Generators) -> None:
    for field in fields(part):
        value, label = getattr(part, field.name), f"{type(part).__name__.lower()}.{field.name}"
        optional = field.name in ("where", "points") and not value
        if len(value) != len(part) and not optional:
            raise ValueError(f"{label} must have {len(part)} entries, as the first array has, got {len(value)}")
        # Costs may be missing, and missing limits are infinite.
        if isinstance(value, tuple) or field.name == "cost":
            continue
        bad = np.flatnonzero(np.isnan(value) if field.name in _LIMITS else ~np.isfinite(value))
        if len(bad):
            rule = "must not be NaN" if field.name in _LIMITS else "must be finite"
            raise ValueError(f"{at(part, int(bad[0]))}{label} {rule}, got {value[bad[0]]} at {bad.tolist()}")


def _check_indices(case: Case) -> None:
    n = len(case.buses)
    for name, index in (
        ("branches.start", case.branches.start),
        ("branches.end", case.branches.end),
        ("generators.bus", case.generators.bus),
    ):
        wrong = index[(index < 0) | (index >= n)]
        if len(wrong):
            raise ValueError(f"{name} must be an index of the {n} buses, got {wrong.tolist()}; see index_of")


def _check_branches(case: Case) -> None:
    lines, free = case.branches, np.zeros(len(case.branches))
    for wrong, values, what in (
        (lines.x == 0, free, "has no reactance; give it one, or merge its two buses"),
        (lines.tap <= 0, lines.tap, "has the ratio {}; use 1 for a line"),
        (lines.start == lines.end, free, "starts and ends at one bus; remove it"),
        (lines.rate <= 0, lines.rate, "has the rating {}; use infinity for no limit"),
        (lines.angle_min > lines.angle_max, lines.angle_min, "has the least angle {} above its largest; exchange them"),
    ):
        for i in map(int, np.flatnonzero(wrong)):
            raise ValueError(f"{at(lines, i)}branch {case.label(i)} {what.format(values[i])}")


def _check_kinds(case: Case) -> None:
    buses = case.buses
    for i in map(int, np.flatnonzero(~np.isin(buses.kind, (PQ, PV, SLACK)))):
        raise ValueError(f"{at(buses, i)}bus {buses.id[i]} must be of kind 1, 2 or 3, got {buses.kind[i]}")
    slack = np.flatnonzero(buses.kind == SLACK)
    if len(slack) != 1:
        line = at(buses, int(slack[1])) if len(slack) else at(buses, 0) if len(buses) else ""
        raise ValueError(
            f"{line}a case needs exactly one slack bus (kind 3), got {buses.id[slack].tolist()}; choose one"
        )
    if slack[0] not in case.generators.bus:
        raise ValueError(f"{at(buses, int(slack[0]))}{NO_GENERATOR.format(buses.id[slack[0]])}")


def _check_set_points(case: Case) -> None:
    """The voltage of a bus can be held at one value only."""
    generators, buses = case.generators, case.buses
    first: dict[int, int] = {}
    for g, bus in enumerate(generators.bus.tolist()):
        if buses.kind[bus] == PQ:
            continue
        number, name, other = buses.id[bus], generators.machine[g], first.setdefault(bus, g)
        if not generators.v[g] > 0:
            raise ValueError(
                f"{at(generators, g)}generator {name} at bus {number} holds the voltage {generators.v[g]}; "
                "it must be positive"
            )
        if generators.v[g] != generators.v[other]:
            raise ValueError(
                f"{at(generators, g)}generators {generators.machine[other]} and {name} at bus {number} hold the "
                f"voltages {generators.v[other]} and {generators.v[g]}; give them one set point"
            )
