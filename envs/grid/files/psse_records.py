"""The records of a PSS/E raw file by section, with named fields and the line they stand on."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

OLDEST, NEWEST = 30, 34
"""Versions that are read."""
_RATES = " ".join(f"RATE{i}" for i in range(1, 13))
_DIRECT = ("area", "two-terminal dc", "vsc dc")
_GROUPS = ("impedance correction", "multi-terminal dc", "multi-section line", "zone", "transfer", "owner", "facts")


@dataclass(frozen=True)
class Record:
    """One record.

    Attributes:
        where: File and line, for messages.
        fields: Text by name of the field; fields that the record leaves out are missing.
    """

    where: str
    fields: dict[str, str]

    def text(self, name: str, default: str) -> str:
        """A field without quotes and blanks around it."""
        return self.fields.get(name, "").strip() or default

    def number(self, name: str, default: float | None = None) -> float:
        """A field as a number.

        Raises:
            ValueError: If it is none or not finite, or is missing without a default.
        """
        text = self.fields.get(name, "").strip()
        if not text and default is not None:
            return default
        found = _number(text)
        if not math.isfinite(found):
            raise ValueError(f"{self.where}: field {name} must be a number, got {text!r}")
        return found

    def integer(self, name: str, default: int | None = None) -> int:
        """A field as a whole number.

        Raises:
            ValueError: If it is none, or is missing without a default.
        """
        value = self.number(name, None if default is None else float(default))
        if value != int(value):
            raise ValueError(f"{self.where}: field {name} must be a whole number, got {value}")
        return int(value)


def layout(version: int) -> tuple[tuple[str, ...], dict[str, str]]:
    """Order of the sections of a version, and the leading fields of those that are read."""
    old, new = version <= 30, version >= 34
    head = ("bus", "load", *(() if old else ("fixed shunt",)), "generator", "branch")
    middle = ("system switching device", "transformer") if new else ("transformer",)
    switched = ("switched shunt",)
    tail = (*switched, *_GROUPS) if old else (*_GROUPS, *switched, "gne", "induction machine")
    rates = _RATES if new else "RATE1 RATE2 RATE3"
    fields = {
        "bus": "I NAME BASKV IDE GL BL AREA ZONE VM VA" if old else "I NAME BASKV IDE AREA ZONE OWNER VM VA",
        "load": "I ID STATUS AREA ZONE PL QL IP IQ YP YQ OWNER SCALE INTRPT DGENP DGENQ DGENM",
        "fixed shunt": "I ID STATUS GL BL",
        "generator": "I ID PG QG QT QB VS IREG MBASE ZR ZX RT XT GTAP STAT RMPCT PT PB",
        "branch": f"I J CKT R X B {'NAME ' if new else ''}{rates} GI BI GJ BJ ST",
        "transformer": "I J K CKT CW CZ CM MAG1 MAG2 NMETR NAME STAT",
        "impedances": "R X SBASE",
        "winding 1": f"WINDV1 NOMV1 ANG1 {rates} COD CONT RMA RMI VMA VMI NTP TAB",
        "winding 2": "WINDV2 NOMV2",
        "winding 3": "WINDV3 NOMV3",
        "switched shunt": "I MODSW VSWHI VSWLO SWREM RMPCT RMIDNT BL" if old
        else "I MODSW ADJM STAT VSWHI VSWLO SWREM RMPCT RMIDNT BL",
    }  # fmt: skip
    return (*(("system-wide",) if new else ()), *head, *middle, *_DIRECT, *tail), fields


WINDINGS = ("impedances", "winding 1", "winding 2", "winding 3")
"""The further lines of a transformer; the last is there where it has three windings."""


def sections(path: Path) -> tuple[float, float, dict[str, list[Record]]]:
    """System base in MVA, frequency in Hz, and the records of each section.

    Raises:
        ValueError: If the first line is no header, the version is not one that is read, or a quote has no end. The
            message names file and line.
    """
    lines = [(f"{path.name} line {i}", text) for i, text in enumerate(path.read_text(errors="replace").splitlines(), 1)]
    lines = [(where, text) for where, text in lines if not text.startswith("@!")]
    if len(lines) < 4:
        raise ValueError(f"{path.name} must be a PSS/E raw file with a header of three lines, got {len(lines)} lines")
    header = _record(*lines[0], "IC SBASE REV XFRRAT NXFRAT BASFRQ")
    base, version = header.number("SBASE", 100.0), header.integer("REV", OLDEST)
    if not OLDEST <= version <= NEWEST:
        raise ValueError(
            f"{header.where}: version must be {OLDEST} to {NEWEST}, got {version}; save it in one of these"
        )
    if not base > 0:
        raise ValueError(f"{header.where}: the base power SBASE must be positive, got {base}")
    order, fields = layout(version)
    found: dict[str, list[Record]] = {name: [] for name in (*order, *fields)}
    body, place = iter(lines[3:]), 0
    for where, text in body:
        if not text.split("/")[0].strip():
            continue
        if place >= len(order) or text.strip().upper() == "Q":
            break
        if re.match(r"\s*0\s*(?:[,/\s]|$)", text):
            place += 1
            continue
        record = _record(where, text, fields.get(order[place], ""))
        if order[place] == "transformer":
            for part in WINDINGS[: 4 if record.integer("K", 0) else 3]:
                record.fields.update(_record(*next(body, (where, "")), fields[part]).fields)
        found[order[place]].append(record)
    return base, header.number("BASFRQ", 60.0) or 60.0, found


_FIELD = re.compile(
    r"""\s*(?:(?P<end>/|$)|(?P<comma>,)|'(?P<single>(?:[^']|'')*)'(?=[\s,/]|$)|"(?P<double>(?:[^"]|"")*)"(?=[\s,/]|$)
    |(?P<bare>[^,/'"\s][^,/\s]*))""",
    re.VERBOSE,
)


def _record(where: str, text: str, names: str) -> Record:
    """Fields of a line by name."""
    return Record(where, dict(zip(names.split(), _split(where, text) if names else [], strict=False)))


def _split(where: str, text: str) -> list[str]:
    """Fields of a line, by commas or blanks; a slash outside quotes begins a comment.

    Where commas separate fields, unquoted words that are no numbers belong together.
    """
    values: list[str] = []
    place, last = 0, "comma"
    while found := _FIELD.match(text, place):
        kind, place = str(found.lastgroup), found.end()
        if kind == "end":
            return values
        value = found[kind]
        if kind == "comma":
            values += [""] if last == "comma" else []
        elif kind == last == "bare" and "," in text and math.isnan(_number(values[-1]) + _number(value)):
            values[-1] += f" {value}"
        else:
            values.append(value)
        last = kind
    raise ValueError(f"{where}: a quote has no end, or no comma or blank behind it, in {text[place:].strip()[:30]!r}")


def _number(text: str) -> float:
    """A number as Fortran writes it, with D in exponents too; NaN if it is none."""
    try:
        return math.nan if "_" in text else float(text.upper().replace("D", "E"))
    except ValueError:
        return math.nan
