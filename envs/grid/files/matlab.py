"""Files of MATLAB assignments, run line by line: matrices, texts, cells, arithmetic, assignments to parts of a matrix.

That is what data files such as MATPOWER's cases are made of, with the conversions of units at their end. A statement
outside this subset (a loop, a condition, a function that is not known) is refused with its line, never skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from steersman.envs.grid.files.matlab_algebra import matrix, replaced
from steersman.envs.grid.files.matlab_expressions import Expressions
from steersman.envs.grid.files.matlab_tokens import Kind, LineError, Token, tokens

CONTROL = (
    "if", "for", "while", "switch", "try", "parfor", "else", "elseif", "global", "persistent", "break", "continue",
)  # fmt: skip
UNKNOWN = "a statement must be an assignment; this one is not known"


class MatlabFile(Expressions):
    """What a file assigns.

    Attributes:
        file: Its name, for messages.
        name: Name of its function, else of the file.
        output: Name of the structure that its function returns.
        values: Values by name; fields of structures as ``structure.field``.
        lines: Line of each row of the matrices among them; of others the line where they are assigned.

    Args:
        path: The file.
        names: Commands that name numbers, in order: as a statement one gives all of them, and ``[A, B] = command`` the
            first two.

    Raises:
        ValueError: If a statement cannot be read or is outside the subset; the message names file, line and statement.
    """

    def __init__(self, path: Path, names: Mapping[str, Mapping[str, float]]) -> None:
        """Run the file."""
        self.file, self.name, self.output, self.names = path.name, path.stem, "mpc", names
        source = path.read_text(encoding="utf-8-sig", errors="replace")
        try:
            super().__init__(list(tokens(source)))
            while self._separators().kind is not Kind.END:
                self._statement()
        except LineError as error:
            text = source.split("\n")[error.line - 1].strip()
            raise ValueError(f"{self.file} line {error.line}: {error} (in {text[:80]!r})") from None

    def _separators(self) -> Token:
        while self._token.kind is Kind.NEWLINE or self._at(";", ","):
            self._take()
        return self._token

    def _statement(self) -> None:
        first = self._token
        try:
            self._run(first)
            if self._token.kind not in (Kind.NEWLINE, Kind.END) and not self._at(";", ","):
                raise ValueError(f"nothing may follow but a new statement, got {self._token.text!r}")
        except LineError:
            raise
        except ValueError as error:
            raise LineError(first.line, str(error)) from None

    def _run(self, first: Token) -> None:
        if self._at("["):
            self._several()
        elif first.kind is not Kind.NAME:
            raise ValueError(UNKNOWN)
        elif first.text == "function":
            self._signature()
        elif first.text in ("end", "endfunction", "return"):
            self._take()
            if self._separators().kind is not Kind.END:
                raise ValueError(f"statements after {first.text!r} are not supported; remove them")
        elif first.text in CONTROL:
            raise ValueError(f"{first.text!r} is not supported; write out what it does")
        elif first.text in self.names:
            self._take()
            self.values |= self.names[first.text]
        else:
            self._assign()

    def _signature(self) -> None:
        """``function out = name(...)``; inputs have no value."""
        if self._place and any(token.text == "function" for token in self._tokens[: self._place]):
            raise ValueError("a second function is not supported; remove it")
        self._take()
        words: list[str] = []
        while self._token.kind not in (Kind.NEWLINE, Kind.END) and not self._at(";"):
            words.append(self._take().text)
        split = words.index("=") if "=" in words else -1
        outputs = [word for word in words[: max(split, 0)] if word not in ("[", "]", ",")]
        if len(outputs) > 1:
            raise ValueError("a function of several outputs is version 1 of the format; save the case in version 2")
        self.output = outputs[0] if outputs else self.output
        self.name = words[split + 1] if len(words) > split + 1 else self.name

    def _several(self) -> None:
        """``[A, B, ...] = command``; ``~`` leaves one out."""
        self._take()
        wanted: list[str] = []
        while not self._at("]"):
            token = self._take()
            if self._is_output(token):
                wanted.append(token.text)
            elif token.text != ",":
                raise ValueError(UNKNOWN)
        self._take()
        self._expect("=")
        command = self._take().text
        if command not in self.names or len(wanted) > len(self.names[command]):
            raise ValueError(f"{command!r} with {len(wanted)} outputs is not known; known: {', '.join(self.names)}")
        found = dict(zip(wanted, self.names[command].values(), strict=False))
        found.pop("~", None)
        self.values |= found

    @staticmethod
    def _is_output(token: Token) -> bool:
        return (token.kind is Kind.NAME and "." not in token.text) or token.text == "~"

    def _assign(self) -> None:
        target, index, array = self._take(), None, np.zeros((0, 0))
        if self._at("("):
            array = matrix(self._known(target.text))
            index = self._index(array)
        if not self._at("="):
            raise ValueError(f"{target.text!r} is no assignment, and not known as a command")
        self._take()
        self._literal = []
        value = self._expression()
        self.values[target.text] = value if index is None else replaced(array, index, value)
        if index is None:
            rows = len(value) if isinstance(value, np.ndarray) else 1
            self.lines[target.text] = self._literal if len(self._literal) == rows else [target.line] * rows
