"""Expressions of MATLAB, read from tokens and evaluated at once.

How signs and operators bind, and which blanks separate the entries of a matrix, follows MathWorks, MATLAB Programming
Fundamentals.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from steersman.envs.grid.files.matlab_algebra import CONSTANTS, FUNCTIONS, Value, call, chosen, matrix, operate, span
from steersman.envs.grid.files.matlab_tokens import Kind, LineError, Token

PRECEDENCE = {
    "||": 1, "&&": 2, "|": 3, "&": 4, "<": 5, "<=": 5, ">": 5, ">=": 5, "==": 5, "~=": 5, "!=": 5, ":": 6, "+": 7,
    "-": 7, "*": 8, "/": 8, "\\": 8, ".*": 8, "./": 8, ".\\": 8,
}  # fmt: skip
"""Binary operators, the weakest first; signs and powers bind more strongly."""


class Expressions:
    """A reader of tokens that evaluates expressions.

    Attributes:
        values: Values by name; fields of structures as ``structure.field``.
        lines: Line of each row of the matrices among them; of others the line where they are assigned.

    Args:
        tokens: The whole file; reading begins at the first.
    """

    def __init__(self, tokens: Sequence[Token]) -> None:
        """Begin at the first token."""
        self.values: dict[str, Value] = {}
        self.lines: dict[str, list[int]] = {}
        self._tokens, self._place = tokens, 0
        self._inside: list[str] = []
        self._ends = [0]
        # Lines of the rows of the last matrix that was read, or of a longer variable.
        self._literal: list[int] = []

    @property
    def _token(self) -> Token:
        return self._tokens[self._place]

    def _take(self) -> Token:
        self._place += 1
        return self._tokens[self._place - 1]

    def _at(self, *texts: str) -> bool:
        return self._token.kind is Kind.OPERATOR and self._token.text in texts

    def _expect(self, text: str) -> None:
        if not self._at(text):
            raise ValueError(f"{text!r} expected, got {self._token.text or self._token.kind.value!r}")
        self._take()

    def _expression(self, least: int = 1) -> Value:
        left = self._signed()
        while self._token.kind is Kind.OPERATOR and not self._separates():
            power = PRECEDENCE.get(self._token.text, 0)
            if power < max(least, 1):
                break
            sign = self._take().text
            right = self._expression(power + 1)
            if sign != ":":
                left = operate({"&&": "&", "||": "|"}.get(sign, sign), left, right)
            elif self._at(":"):
                self._take()
                left = span(left, right, self._expression(power + 1))
            else:
                left = span(left, 1.0, right)
        return left

    def _separates(self) -> bool:
        """Whether a sign begins the next entry of a matrix: ``[1 -2]`` has two, ``[1 - 2]`` and ``[1-2]`` one."""
        in_matrix = bool(self._inside) and self._inside[-1] != "("
        return in_matrix and self._token.spaced and self._at("+", "-") and not self._tokens[self._place + 1].spaced

    def _signed(self) -> Value:
        if self._at("+", "-", "~", "!"):
            mark, signed = self._take().text, self._signed()
            if isinstance(signed, float) and mark in "+-":
                return -signed if mark == "-" else signed
            return operate("==", signed, 0.0) if mark in "~!" else operate("*", 1.0 if mark == "+" else -1.0, signed)
        value = self._operand()
        while self._at("^", ".^"):
            operator, sign = self._take().text, 1.0
            while self._at("+", "-"):
                sign = -sign if self._take().text == "-" else sign
            value = operate(operator, value, operate("*", sign, self._operand()))
        return value

    def _operand(self) -> Value:
        token = self._take()
        value: Value
        if token.kind is Kind.NUMBER:
            # Fortran's exponents are MATLAB's too.
            value = float(token.text.lower().replace("d", "e"))
        elif token.kind is Kind.TEXT:
            value = token.text
        elif token.kind is Kind.NAME:
            value = self._named(token)
        elif token.kind is Kind.OPERATOR and token.text == "(":
            self._inside.append("(")
            value = self._expression()
            self._expect(")")
            self._inside.pop()
        elif token.kind is Kind.OPERATOR and token.text in "[{":
            value = self._bracket(token)
        else:
            raise ValueError(f"a value expected, got {token.text or token.kind.value!r}")
        while self._token.kind is Kind.TRANSPOSE:
            self._take()
            value = [list(row) for row in zip(*value, strict=True)] if isinstance(value, list) else matrix(value).T
        return value

    def _named(self, token: Token) -> Value:
        if token.text == "end" and self._ends[-1]:
            return float(self._ends[-1])
        in_matrix = bool(self._inside) and self._inside[-1] != "("
        called = self._at("(") and not (in_matrix and self._token.spaced)
        if token.text not in self.values and token.text in FUNCTIONS and called:
            return call(token.text, self._index(None))
        value = self._known(token.text)
        if not called:
            return value
        array = matrix(value)
        return chosen(array, self._index(array))

    def _known(self, name: str) -> Value:
        if name in self.values:
            self._literal = max(self._literal, self.lines.get(name, []), key=len)
            return self.values[name]
        if name in CONSTANTS:
            return CONSTANTS[name]
        raise ValueError(f"{name!r} is not known; known functions: {', '.join(FUNCTIONS)}")

    def _index(self, array: np.ndarray | None) -> list[Value | None]:
        """What stands in parentheses: arguments, or indices of ``array``; None is ``:``."""
        self._take()
        self._inside.append("(")
        found: list[Value | None] = []
        two = self._two_indices()
        while not self._at(")"):
            if found:
                self._expect(",")
            self._ends.append(0 if array is None else array.shape[len(found)] if two and len(found) < 2 else array.size)
            if self._at(":") and self._tokens[self._place + 1].text in (",", ")"):
                self._take()
                found.append(None)
            else:
                found.append(self._expression())
            self._ends.pop()
        self._take()
        self._inside.pop()
        if array is not None and len(found) not in (1, 2):
            raise ValueError(f"one or two indices are supported, got {len(found)}")
        return found

    def _two_indices(self) -> bool:
        """Whether a comma of its own stands before the parenthesis that closes."""
        depth, place = 1, self._place
        while depth and self._tokens[place].kind not in (Kind.NEWLINE, Kind.END):
            text = self._tokens[place].text if self._tokens[place].kind is Kind.OPERATOR else ""
            if depth == 1 and text == ",":
                return True
            depth += (text in ("(", "[", "{")) - (text in (")", "]", "}"))
            place += 1
        return False

    # ---------------------------------------------------------------- matrices

    def _bracket(self, opening: Token) -> Value:
        """A matrix ``[...]`` or a cell array ``{...}``; entries by commas or blanks, rows by semicolons or lines."""
        closing = "]" if opening.text == "[" else "}"
        self._inside.append(opening.text)
        rows: list[list[Value]] = []
        lines: list[int] = []
        while not self._at(closing):
            if self._token.kind is Kind.END:
                raise LineError(opening.line, f"{opening.text!r} has no end")
            if self._token.kind is Kind.NEWLINE or self._at(";"):
                self._take()
                continue
            lines.append(self._token.line)
            rows.append(self._row(closing))
        self._take()
        self._inside.pop()
        if closing == "}":
            return rows
        found, self._literal = _joined(rows, lines)
        return found

    def _row(self, closing: str) -> list[Value]:
        if self._token.kind is Kind.ROW:
            return [float(number) for number in self._take().text.lower().replace("d", "e").replace(",", " ").split()]
        row: list[Value] = []
        line, apart = self._token.line, True
        try:
            while self._token.kind not in (Kind.NEWLINE, Kind.END) and not self._at(";", closing):
                if self._at(",") and not apart:
                    self._take()
                    apart = True
                    continue
                if not (apart or self._token.spaced):
                    raise ValueError(f"{self._token.text!r} cannot follow an entry of a matrix")
                row.append(self._expression())
                apart = False
        except LineError:
            raise
        except ValueError as error:
            raise LineError(line, str(error)) from None
        return row


def _joined(rows: list[list[Value]], lines: list[int]) -> tuple[np.ndarray, list[int]]:
    """Rows of numbers and matrices as one matrix, and the line of each of its rows."""
    blocks: list[np.ndarray] = []
    origin: list[int] = []
    for row, line in zip(rows, lines, strict=True):
        try:
            if all(isinstance(entry, float) for entry in row):
                block = np.array([row])
            else:
                block = np.concatenate([part for part in map(matrix, row) if part.size or len(row) == 1], axis=1)
        except ValueError as error:
            raise LineError(line, str(error)) from None
        if not block.size:
            continue
        if blocks and block.shape[1] != blocks[0].shape[1]:
            first = f"the first (line {origin[0]}) {blocks[0].shape[1]}"
            raise LineError(line, f"the row has {block.shape[1]} columns, {first}")
        blocks.append(block.astype(float))
        origin += [line] * len(block)
    return np.concatenate(blocks) if blocks else np.zeros((0, 0)), origin
