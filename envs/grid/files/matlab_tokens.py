"""Tokens of MATLAB source with the line they stand on: numbers, names, text, operators, ends of lines.

Comments (``%``, ``#`` and blocks in ``%{``, ``%}``) and continuations (``...``) are taken out. A quote is a transpose
where it follows what can be transposed, and begins a text elsewhere (MathWorks, MATLAB Programming Fundamentals).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

PATTERN = re.compile(
    r"""(?P<blank>[ \t\f\r]+)
    |(?P<more>\.\.\..*)
    |(?P<comment>[%#].*)
    |(?P<number>(?:[0-9]+(?:\.(?![*/\\^'.])[0-9]*)?|\.[0-9]+)(?:[eEdD][+-]?[0-9]+)?(?![A-Za-z0-9_]))
    |(?P<name>[A-Za-z]\w*(?:\.[A-Za-z]\w*)*)
    |(?P<transpose>\.')
    |(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
    |(?P<operator>==|[~!]=|<=|>=|&&|\|\||\.[*/\\^]|[-+*/\\^=<>&|~!(){}\[\],;:@])""",
    re.VERBOSE | re.ASCII,
)

ROW = re.compile(
    r"""[ \t]*(?P<row>{0}(?:(?:[ \t]*,[ \t]*|[ \t]+){0})*)[ \t]*[;,]?[ \t\r]*(?:[%#].*)?""".format(
        r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eEdD][+-]?[0-9]+)?"
    )
)
"""A line of plain numbers in a matrix, of which large tables consist; it is one token."""


class Kind(Enum):
    """Kinds of tokens."""

    NUMBER = "number"
    ROW = "row"
    NAME = "name"
    TEXT = "text"
    OPERATOR = "operator"
    TRANSPOSE = "transpose"
    NEWLINE = "end of line"
    END = "end of file"


class Token(NamedTuple):
    """One token.

    Attributes:
        kind: What it is.
        text: As in the source; a text without its quotes, a row without its semicolon.
        line: Line it stands on, 1 for the first.
        spaced: Whether a blank stands before it; blanks separate the entries of a matrix.
    """

    kind: Kind
    text: str
    line: int
    spaced: bool


class LineError(ValueError):
    """What cannot be read or run, with its line."""

    def __init__(self, line: int, message: str) -> None:
        """Keep both."""
        super().__init__(message)
        self.line = line


KINDS = {kind.value: kind for kind in Kind}


def tokens(source: str) -> Iterator[Token]:
    """Tokens of a source, with an end of file.

    Raises:
        LineError: If a character begins no token, or a block comment or a text has no end.
    """
    brackets: list[str] = []
    last, spaced, joined, number = None, False, False, 0
    for number, line in _code(source):
        row = ROW.fullmatch(line) if brackets and brackets[-1] == "[" and not joined else None
        place, joined = 0, False
        if row:
            place = len(line)
            yield Token(Kind.ROW, row["row"], number, True)
        while place < len(line):
            found = None
            if line[place] == "'" and _transposes(last, spaced, brackets):
                kind, text, place = "transpose", "'", place + 1
            else:
                found = PATTERN.match(line, place)
                if found is None:
                    raise LineError(number, f"cannot read {line[place:].strip()[:20]!r}")
                kind, text, place = str(found.lastgroup), found.group(), found.end()
            if kind in ("blank", "comment", "more"):
                spaced, joined = True, kind == "more"
                continue
            if kind == "text":
                text = text[1:-1].replace(text[0] * 2, text[0])
            elif kind == "operator" and text in "([{":
                brackets.append(text)
            elif kind == "operator" and text in ")]}" and brackets:
                brackets.pop()
            last = Token(KINDS[kind], text, number, spaced)
            spaced = False
            yield last
        if not joined:
            last = Token(Kind.NEWLINE, "", number, False)
            yield last
        spaced = True
    yield Token(Kind.END, "", number, True)


def _transposes(last: Token | None, spaced: bool, brackets: list[str]) -> bool:
    """Whether a quote after ``last`` is a transpose; after a blank it is none in a matrix."""
    if last is None or (spaced and brackets and brackets[-1] != "("):
        return False
    closed = last.kind is Kind.OPERATOR and last.text in (")", "]", "}")
    return closed or last.kind in (Kind.NUMBER, Kind.NAME, Kind.TRANSPOSE)


def _code(source: str) -> Iterator[tuple[int, str]]:
    """Lines outside block comments, whose marks stand alone on a line and nest."""
    depth, begun = 0, 0
    for number, line in enumerate(source.split("\n"), 1):
        alone = line.strip()
        if alone in ("%{", "#{"):
            begun = begun if depth else number
            depth += 1
        elif alone in ("%}", "#}") and depth:
            depth -= 1
        elif not depth:
            yield number, line
    if depth:
        raise LineError(begun, "the block comment has no end; close it with %} on a line of its own")
