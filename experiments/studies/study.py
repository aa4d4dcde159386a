"""What a study is: cells that are done, claims that their rows are held against, tables, and a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from matplotlib.figure import Figure

from steersman.experiments.comparison.cell import Cell
from steersman.experiments.comparison.cells import codes_of

R = TypeVar("R")


@dataclass(frozen=True)
class Bar:
    """What is asked for.

    Attributes:
        values: One for each value measured.
        unit: Of the values.
        most: Whether they are the most that is allowed, rather than the least.
    """

    values: tuple[float | int, ...]
    unit: str = ""
    most: bool = False

    def __str__(self) -> str:
        values = f"{' / '.join(f'{value:,g}' for value in self.values)} {self.unit}".strip()
        return f"at {'most' if self.most else 'least'} {values}"


@dataclass(frozen=True)
class Claim:
    """One statement about the rows.

    Attributes:
        text: The statement, without the full stop.
        measured: Its figures.
        bar: What is asked of them.
        source: Who asks for that or claims it.
    """

    text: str
    measured: tuple[float | int, ...] = ()
    bar: Bar | None = None
    source: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the figures meet the bar; None without one."""
        if self.bar is None:
            return None
        sign = -1 if self.bar.most else 1
        return all(sign * value >= sign * bar for value, bar in zip(self.measured, self.bar.values, strict=True))

    def __str__(self) -> str:
        told = (
            [] if self.bar is None else [f"asked for {self.bar}: the bar {'holds' if self.holds else 'does not hold'}"]
        )
        told += [self.source] if self.source else []
        return f"{self.text} ({'; '.join(told)})." if told else f"{self.text}."


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        head: Titles of the columns.
        rows: Cells, as text.
        title: Heading; none if empty.
        about: Paragraph before the table.
        remarks: Points below it.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    about: str = ""
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Made:
    """What rows were made with.

    Attributes:
        code: Digest of the code that they depend on.
        commit: Its commit; "+" at the end where files differed from it.
        machine: Machine and versions.
    """

    code: str
    commit: str
    machine: str


@dataclass(frozen=True)
class Finished:
    """A cell with its rows.

    Attributes:
        cell: The cell.
        rows: What it found.
        seconds: CPU seconds that it took.
        made: What it was made with.
    """

    cell: Cell
    rows: tuple[Any, ...]
    seconds: float
    made: Made


class Results:
    """Finished cells of a study, in the order in which the study names them."""

    def __init__(self, finished: Iterable[Finished]) -> None:
        """Hold them."""
        self.finished = tuple(finished)

    def older(self) -> list[bool]:
        """Whether the code of each has changed since."""
        codes = codes_of(done.cell for done in self.finished)
        return [done.made.code != code for done, code in zip(self.finished, codes, strict=True)]

    def of(self, kind: type[R]) -> list[R]:
        """All rows of one class."""
        return [row for done in self.finished for row in done.rows if isinstance(row, kind)]

    @property
    def minutes(self) -> float:
        """CPU minutes of all cells."""
        return sum(done.seconds for done in self.finished) / 60

    def __iter__(self) -> Iterator[Finished]:
        return iter(self.finished)


def _nothing(results: Results) -> Sequence[Any]:
    return ()


@dataclass(frozen=True)
class Study:
    """A study as data; :func:`~steersman.experiments.studies.running.run_cells` runs it and writes its page.

    Attributes:
        name: Name on the command line and of the folder of its results.
        about: Paragraphs of the page: what was done and what the columns mean.
        cells: Its cells, in the order of the page.
        cheap: One of them, which the tests do again.
        claims: Statements about the rows.
        tables: Tables.
        figure: The picture.
        notes: Paragraphs at the end.
        further: Cells that are run only when they are named.
        tolerance: Relative difference that the numbers of the cheap cell may have on another machine.
        workers: Processes; None for one per CPU, 1 where they would disturb the times of each other.
    """

    name: str
    about: Callable[[Results], Sequence[str]]
    cells: Callable[[], Sequence[Cell]]
    cheap: Callable[[], Cell]
    claims: Callable[[Results], Sequence[Claim]]
    tables: Callable[[Results], Sequence[Table]]
    figure: Callable[[Results], Figure]
    notes: Callable[[Results], Sequence[str]] = _nothing
    further: Callable[[], Sequence[Cell]] = lambda: ()
    tolerance: float = 1e-9
    workers: int | None = None

    def every(self) -> list[Cell]:
        """All cells, further ones at the end."""
        return [*self.cells(), *self.further()]
