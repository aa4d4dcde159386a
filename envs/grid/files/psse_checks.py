"""What a PSS/E raw file must not hold, and what is not modelled of its controls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from steersman.envs.grid.files.psse_records import Record
from steersman.envs.grid.network.case import NO_GENERATOR, PQ, PV, SLACK, Buses, Generators


def check_once(records: list[Record], ends: str, name: str) -> None:
    """A device in service stands in the file once; of two records PSS/E takes the last."""
    first: dict[tuple[object, ...], Record] = {}
    for r in records:
        key = (*sorted(abs(r.integer(end)) for end in ends), r.text(name, "1"))
        if first.setdefault(key, r) is not r:
            raise ValueError(f"{r.where}: {name} {key[-1]} is given twice, first at {first[key].where}; remove one")


def check_slack(buses: list[Record], generators: list[Record]) -> None:
    """One of the slack buses has a machine in service: PSS/E, unlike MATPOWER, gives its place to no other."""
    slack = [r for r in buses if r.integer("IDE", 1) == SLACK]
    running = {r.integer("I") for r in generators}
    if slack and not any(r.integer("I") in running for r in slack):
        raise ValueError(f"{slack[0].where}: {NO_GENERATOR.format(slack[0].integer('I'))}")


def tell_controls(switched: list[Record], transformers: list[Record], notes: list[str]) -> None:
    """Notes on controls that are not modelled.

    Raises:
        ValueError: If the impedance of a transformer depends on its ratio or phase shift.
    """
    for r in switched:
        if r.integer("MODSW", 1):
            notes.append(f"the switched shunt at bus {r.integer('I')} keeps its initial value")
    for r in transformers:
        name = f"transformer {r.integer('I')}-{r.integer('J')} {r.text('CKT', '1')}"
        if r.integer("TAB", 0):
            raise ValueError(
                f"{r.where}: {name} has a table of impedance corrections, which is not modelled; set TAB1 = 0"
            )
        if r.integer("COD", 0) > 0:
            notes.append(f"{name} keeps its ratio and phase shift")


def fixed_reactive(buses: Buses, generators: Generators, notes: list[str]) -> Buses:
    """Buses whose machines have no reactive power to give are PQ, as PSS/E solves them."""
    kind, room = buses.kind.copy(), np.zeros(len(buses))
    np.add.at(room, generators.bus, np.abs(generators.q_max - generators.q_min))
    for i in map(int, np.flatnonzero((kind == PV) & (room == 0))):
        kind[i] = PQ
        here = generators.bus == i
        generators.q[here] = generators.q_max[here]
        notes.append(f"the machines at bus {buses.id[i]} have QT = QB, and the bus is made PQ")
    return replace(buses, kind=kind)
