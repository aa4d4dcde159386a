"""A piece of a study's work. It imports nothing of ours, so that a cell's code is what its own module needs."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

Report = Callable[[float, str], None]
"""Told how far a cell is, in 0..1, and what it is doing."""


class Cell(ABC):
    """One piece of work: a frozen dataclass whose fields are its settings, seeds and budgets included.

    Attributes:
        row: Class of the rows that it returns, a dataclass.
        title: Its name, with fields in braces as in :meth:`str.format`.
    """

    row: ClassVar[type]
    title: ClassVar[str] = ""

    @property
    def name(self) -> str:
        """What people call it; no two cells of a study share a name."""
        return self.title.format(**vars(self))

    @abstractmethod
    def run(self, report: Report) -> Sequence[Any]:
        """Do the work.

        Args:
            report: Called now and then.

        Returns:
            Rows, instances of :attr:`row`.
        """

    @property
    def settings(self) -> dict[str, Any]:
        """Its fields, as JSON gives them back."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # type: ignore[call-overload]
        return found
