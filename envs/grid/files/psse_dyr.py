"""PSS/E machine data (``.dyr``): records of machines, exciters, governors and stabilisers.

Parameters stand in the order of the PSS/E Model Library and are named as there, with ``p`` for a prime and ``_``
for a fraction (``T''do`` is ``tppdo``, ``TA/TB`` is ``ta_tb``). All are per unit on the machine's base, times in s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True)
class MachineData:
    """One record.

    Attributes:
        bus: Number of the bus.
        machine: Which of the machines at the bus, as in the raw file.
        where: File and line, for messages.
        model: The model's name in the file.
        part: What it is to a machine, or empty if it is read but not simulated.
        positive: Parameters that must be above zero.
    """

    bus: int
    machine: str
    where: str
    model: ClassVar[str]
    part: ClassVar[str] = ""
    positive: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for name in parameters(type(self)):
            value = getattr(self, name)
            if not math.isfinite(value) or (name in self.positive and value <= 0):
                kind = "positive" if name in self.positive else "finite"
                raise ValueError(f"{self.where}: {self.model} at bus {self.bus} needs a {kind} {name}, got {value}")


@dataclass(frozen=True)
class Gencls(MachineData):
    """Classical machine; its transient reactance is the source impedance of the raw file."""

    h: float
    d: float
    model: ClassVar[str] = "GENCLS"
    part: ClassVar[str] = "machine"
    positive: ClassVar[tuple[str, ...]] = ("h",)


@dataclass(frozen=True)
class Genrou(MachineData):
    """Round rotor with sub-transient windings on both axes; saturation at 1.0 and 1.2 pu is ``s10``, ``s12``."""

    tpdo: float
    tppdo: float
    tpqo: float
    tppqo: float
    h: float
    d: float
    xd: float
    xq: float
    xpd: float
    xpq: float
    xppd: float
    xl: float
    s10: float
    s12: float
    model: ClassVar[str] = "GENROU"
    part: ClassVar[str] = "machine"
    positive: ClassVar[tuple[str, ...]] = ("tpdo", "tppdo", "tpqo", "tppqo", "h", "xd", "xq", "xpd", "xpq", "xppd")


@dataclass(frozen=True)
class Exdc2(MachineData):
    """Commutator exciter (IEEE type DC2); saturation ``se1`` at ``e1``, ``se2`` at ``e2``."""

    tr: float
    ka: float
    ta: float
    tb: float
    tc: float
    vrmax: float
    vrmin: float
    ke: float
    te: float
    kf: float
    tf1: float
    switch: float
    e1: float
    se1: float
    e2: float
    se2: float
    model: ClassVar[str] = "EXDC2"
    part: ClassVar[str] = "exciter"
    positive: ClassVar[tuple[str, ...]] = ("ka", "te", "tf1")


@dataclass(frozen=True)
class Sexs(MachineData):
    """Simplified exciter: a lead-lag ``(1 + ta s) / (1 + tb s)`` and a gain ``k / (1 + te s)`` within limits."""

    ta_tb: float
    tb: float
    k: float
    te: float
    emin: float
    emax: float
    model: ClassVar[str] = "SEXS"
    positive: ClassVar[tuple[str, ...]] = ("k",)


@dataclass(frozen=True)
class Tgov1(MachineData):
    """Steam turbine and governor: droop ``r``, valve ``t1`` within limits, reheater ``(1 + t2 s) / (1 + t3 s)``."""

    r: float
    t1: float
    vmax: float
    vmin: float
    t2: float
    t3: float
    dt: float
    model: ClassVar[str] = "TGOV1"
    part: ClassVar[str] = "governor"
    positive: ClassVar[tuple[str, ...]] = ("r", "t1", "t3")


@dataclass(frozen=True)
class Ieeest(MachineData):
    """Stabiliser of a filter, two lead-lags and a washout; ``ics`` 1 is the speed, ``ib`` a remote bus."""

    ics: float
    ib: float
    a1: float
    a2: float
    a3: float
    a4: float
    a5: float
    a6: float
    t1: float
    t2: float
    t3: float
    t4: float
    t5: float
    t6: float
    ks: float
    lsmax: float
    lsmin: float
    vcu: float
    vcl: float
    model: ClassVar[str] = "IEEEST"
    part: ClassVar[str] = "stabiliser"
    positive: ClassVar[tuple[str, ...]] = ("t6",)


@dataclass(frozen=True)
class Stab1(MachineData):
    """Stabiliser on speed: a washout ``k s / (1 + t s)`` and two lead-lags within plus and minus ``hlim``."""

    k_t: float
    t: float
    t1_t3: float
    t3: float
    t2_t4: float
    t4: float
    hlim: float
    model: ClassVar[str] = "STAB1"
    part: ClassVar[str] = "stabiliser"
    positive: ClassVar[tuple[str, ...]] = ("t", "t3", "t4")


MODELS: dict[str, type[MachineData]] = {
    kind.model: kind for kind in (Gencls, Genrou, Exdc2, Sexs, Tgov1, Ieeest, Stab1)
}
"""The models that are read, by their names in files."""


def simulated() -> str:
    """The models that are simulated, by what they are: ``machine GENCLS or GENROU; exciter EXDC2; ...``."""
    parts: dict[str, list[str]] = {}
    for kind in MODELS.values():
        if kind.part:
            parts.setdefault(kind.part, []).append(kind.model)
    return "; ".join(f"{part} {' or '.join(names)}" for part, names in parts.items())


def parameters(kind: type[MachineData]) -> tuple[str, ...]:
    """Names of a model's parameters, in the order of the file."""
    return tuple(field.name for field in fields(kind) if field.name not in ("bus", "machine", "where"))


def read_dyr(path: str | Path) -> tuple[MachineData, ...]:
    """The records of a file, in its order.

    Args:
        path: A machine data file.

    Raises:
        ValueError: If there is no such file, a model is not one of :data:`MODELS`, its parameters are too few, too many
            or no numbers, or a machine has two records of one model. The message names the line of the file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no such PSS/E machine data file (.dyr): {path}")
    found = tuple(_record(where, words) for where, words in _statements(path))
    seen: set[tuple[int, str, str]] = set()
    for record in found:
        key = (record.bus, record.machine, record.model)
        if key in seen:
            raise ValueError(f"{record.where}: machine {record.machine} at bus {record.bus} has two {record.model}s")
        seen.add(key)
    return found


def _statements(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Words of each record, which ends with a slash, and where it begins."""
    words: list[str] = []
    where = ""
    for number, text in enumerate(path.read_text(errors="replace").splitlines(), 1):
        body, slash, _ = text.partition("/")
        more = body.replace(",", " ").replace("'", " ").split()
        if more and not words:
            where = f"{path.name} line {number}"
        words += more
        if slash and words:
            yield where, words
            words = []
    if words:
        raise ValueError(f"{where}: the record has no end; put a slash behind its last parameter")


def _record(where: str, words: list[str]) -> MachineData:
    if len(words) < 3:
        raise ValueError(f"{where}: a record needs a bus, a model and a machine, got {' '.join(words)!r}")
    bus, name, machine, *rest = words
    kind = MODELS.get(name.upper())
    if kind is None:
        raise ValueError(f"{where}: model {name!r} at bus {bus} is not supported; supported: {simulated()}")
    names = parameters(kind)
    if len(rest) != len(names):
        raise ValueError(f"{where}: {kind.model} at bus {bus} has {len(names)} parameters, got {len(rest)}")
    try:
        values = [float(word.upper().replace("D", "E")) for word in rest]
        return kind(int(bus), machine, where, *values)
    except ValueError as error:
        if str(error).startswith(where):
            raise
        raise ValueError(f"{where}: {kind.model} at bus {bus} holds what is no number: {error}") from None
