"""What an SBML file says about who depends on whom, and the file with other numbers in it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping

_VALUES = {"parameter": "value", "compartment": "size"}
"""Where a number stands, by tag; a species has one of two places."""


class Document:
    """An SBML model as text (levels 2 and 3), read for the names that its equations mention."""

    def __init__(self, text: str) -> None:
        """Read the text.

        Args:
            text: The whole document.
        """
        # A model file is run as a program in any case: it is compiled.
        self._root = ET.fromstring(text)  # noqa: S314
        self._rules = {e.get("variable", ""): _mentioned(e) for e in self._of("assignmentRule")}
        self._rates = {e.get("id", ""): _mentioned(e) for e in self._of("reaction")}
        self._initial = {e.get("symbol", ""): _mentioned(e) for e in self._of("initialAssignment")}
        self._species = {e.get("id", ""): e for e in self._of("species")}

    def triggering(self, symbols: Iterable[str]) -> str:
        """The first of the symbols that decides on an event, directly or through rules and rates; empty if none."""
        found = self._behind({name for e in self._of("trigger") for name in _mentioned(e)}, self._rules | self._rates)
        return next((symbol for symbol in symbols if symbol in found), "")

    def decides_start(self, symbol: str) -> bool:
        """Whether an initial assignment, or the volume of what starts at a concentration, is computed from a symbol."""
        held = {name: {e.get("compartment", "")} for name, e in self._species.items()}
        first = {name for names in self._initial.values() for name in names}
        first |= {e.get("compartment", "") for e in self._concentrations()} & {*self._rules, *self._initial}
        # What is assigned to a species is a concentration.
        first |= {e.get("compartment", "") for name, e in self._species.items() if name in self._initial}
        return symbol in self._behind(first, self._rules | held)

    def dissolved(self, compartment: str) -> dict[str, float]:
        """Initial concentrations of the species in a compartment, of those that are given as such."""
        inside = [e for e in self._concentrations() if e.get("compartment") == compartment]
        return {f"[{e.get('id')}]": float(e.get("initialConcentration", "nan")) for e in inside}

    def _concentrations(self) -> list[ET.Element]:
        """Species whose amount at the start is a concentration times a volume."""
        return [
            e
            for name, e in self._species.items()
            if "initialConcentration" in e.attrib and name not in self._initial and name not in self._rules
        ]

    def with_values(self, values: Mapping[str, float]) -> str:
        """The document with other numbers; ``[S]`` stands for the initial concentration of species S, S for its amount.

        Raises:
            ValueError: If a symbol has no number of its own in the document.
        """
        root = ET.fromstring(ET.tostring(self._root))  # noqa: S314 - a copy
        places = {e.get("id"): e for e in root.iter() if _tag(e) in (*_VALUES, "species")}
        for symbol, value in values.items():
            name = symbol.strip("[]")
            if name not in places:
                raise ValueError(f"{symbol!r} has no value of its own in the file")
            element = places[name]
            if _tag(element) != "species":
                element.set(_VALUES[_tag(element)], repr(float(value)))
                continue
            for attribute in ("initialAmount", "initialConcentration"):
                element.attrib.pop(attribute, None)
            element.set("initialConcentration" if symbol != name else "initialAmount", repr(float(value)))
        return ET.tostring(root, encoding="unicode")

    def _of(self, tag: str) -> Iterator[ET.Element]:
        return (element for element in self._root.iter() if _tag(element) == tag)

    def _behind(self, names: set[str], needs: Mapping[str, set[str]]) -> set[str]:
        """The names, and all that they are computed from."""
        found, waiting = set(names), list(names)
        while waiting:
            new = needs.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        return found


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _mentioned(element: ET.Element) -> set[str]:
    """Names in the formulas of an element."""
    return {(e.text or "").strip() for e in element.iter() if _tag(e) == "ci"}
