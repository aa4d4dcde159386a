"""Small breaks of one statement: which there are in a source file, and the source with one of them made.

Left alone are docstrings, imports, annotations, asserts that narrow types, what an error says, texts, and literals so
small that they are tolerances.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

TINY = 1e-6
"""Literals up to this size are guards against rounding: twice as large they do the same."""
COMPARE: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: ("<", ("<=", ">=")),
    ast.LtE: ("<=", ("<", ">")),
    ast.Gt: (">", (">=", "<=")),
    ast.GtE: (">=", (">", "<")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: ("is not", ("is",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.Pow: ("**", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}
_PAIRS = ("min max", "amin amax", "argmin argmax", "minimum maximum", "any all", "floor ceil", "sin cos")
SWAPPED = {a: b for pair in _PAIRS for a, b in (pair.split(), reversed(pair.split()))}
QUIET = {"progress", "report", "isinstance", "warn", "cast", "TypeVar"}
"""Calls that say something, or tell a type checker something, and do nothing."""


@dataclass(frozen=True)
class Edit:
    """One break: bytes ``start .. end`` of the source give way to ``text``."""

    operator: str
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Statement:
    """A statement that can be broken.

    Attributes:
        path: File, relative to the root of the repository.
        function: Qualified name of the function around it, as code objects have it.
        line: Line on which it begins.
        text: Its header, spaces normalised.
        ordinal: How many equal statements come before it in the function.
        edits: The breaks.
    """

    path: str
    function: str
    line: int
    text: str
    ordinal: int
    edits: tuple[Edit, ...]

    def rank(self, seed: int) -> str:
        """Where it comes in a draw; depends on nothing but the seed and the statement in its function."""
        name = f"{seed}|{self.path}|{self.function}|{self.text}|{self.ordinal}"
        return hashlib.sha256(name.encode()).hexdigest()

    def choice(self, seed: int, source: bytes) -> Edit | None:
        """The one break that a draw makes: first a kind of break, then a place; None if none changes the program."""
        number = int(self.rank(seed)[-16:], 16)
        kinds = sorted({edit.operator for edit in self.edits})
        kind = kinds[number % len(kinds)]
        alike = [edit for edit in self.edits if edit.operator == kind]
        first = number // len(kinds) % len(alike)
        others = [edit for edit in self.edits if edit.operator != kind]
        return next((edit for edit in alike[first:] + alike[:first] + others if _changes(source, edit)), None)


def apply(source: bytes, edit: Edit) -> bytes:
    """The broken source."""
    return source[: edit.start] + edit.text.encode() + source[edit.end :]


def _changes(source: bytes, edit: Edit) -> bool:
    try:
        return ast.dump(ast.parse(apply(source, edit))) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


def statements(path: str, source: bytes) -> list[Statement]:
    """Statements of a file that can be broken, in their order."""
    return _Reader(path, source).read()


class _Reader:
    def __init__(self, path: str, source: bytes) -> None:
        self.path, self.source, self.tree = path, source, ast.parse(source)
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.found: list[Statement] = []
        self.seen: dict[tuple[str, str], int] = {}

    def read(self) -> list[Statement]:
        self._body(self.tree.body, "", None)
        return self.found

    # ------------------------------------------------------------------ statements

    def _body(self, body: list[ast.stmt], name: str, function: ast.FunctionDef | ast.AsyncFunctionDef | None) -> None:
        for stmt in body:
            if isinstance(stmt, ast.FunctionDef | ast.AsyncFunctionDef):
                self._body(stmt.body, self._inside(name, function) + stmt.name, stmt)
            elif isinstance(stmt, ast.ClassDef):
                self._body(stmt.body, self._inside(name, function) + stmt.name, None)
            elif not self._skipped(stmt):
                self._statement(stmt, name or "<module>", function)
                for part in ("body", "orelse", "finalbody"):
                    self._body(getattr(stmt, part, []), name, function)
                for handler in getattr(stmt, "handlers", []):
                    self._body(handler.body, name, function)

    @staticmethod
    def _inside(name: str, function: ast.AST | None) -> str:
        return "" if not name else f"{name}.<locals>." if function is not None else f"{name}."

    def _skipped(self, stmt: ast.stmt) -> bool:
        if isinstance(stmt, ast.Expr) and isinstance(stmt.value, ast.Constant):
            return True
        if isinstance(stmt, ast.If) and "TYPE_CHECKING" in ast.unparse(stmt.test):
            return True
        if isinstance(stmt, ast.If) and "__name__" in ast.unparse(stmt.test):
            return True
        return isinstance(stmt, ast.Import | ast.ImportFrom | ast.Assert | ast.Pass | ast.Global | ast.Nonlocal)

    def _statement(self, stmt: ast.stmt, name: str, function: ast.FunctionDef | ast.AsyncFunctionDef | None) -> None:
        edits = [*self._whole(stmt, function)]
        for node in self._headers(stmt):
            edits += self._expression(node)
        if not edits:
            return
        bodies: list[ast.stmt] = getattr(stmt, "body", []) if not isinstance(stmt, ast.Expr) else []
        last = self._at(bodies[0].lineno, 0) if bodies else self._end(stmt)
        text = b" ".join(self.source[self._start(stmt) : max(last, self._start(stmt) + 1)].split()).decode()
        ordinal = self.seen[(name, text)] = self.seen.get((name, text), -1) + 1
        self.found.append(Statement(self.path, name, stmt.lineno, text, ordinal, tuple(edits)))

    @staticmethod
    def _headers(stmt: ast.stmt) -> list[ast.expr]:
        """Expressions of a statement that are its own: not those of its body, no annotation, not what is raised."""
        match stmt:
            case ast.If() | ast.While():
                return [stmt.test]
            case ast.For() | ast.AsyncFor():
                return [stmt.iter]
            case ast.With() | ast.AsyncWith():
                return [item.context_expr for item in stmt.items]
            case ast.Assign() | ast.AugAssign():
                return [stmt.value]
            case ast.AnnAssign() | ast.Return() | ast.Expr():
                return [] if stmt.value is None else [stmt.value]
            case ast.Match():
                return [stmt.subject]
        return []

    def _whole(self, stmt: ast.stmt, function: ast.FunctionDef | ast.AsyncFunctionDef | None) -> Iterator[Edit]:
        """Breaks of a statement as such."""
        start, end = self._start(stmt), self._end(stmt)
        match stmt:
            case ast.If() | ast.While():
                a, b = self._start(stmt.test), self._end(stmt.test)
                yield Edit("condition negated", a, b, f"not ({self._text(stmt.test)})")
            case ast.Raise() if function is not None:
                yield Edit("raise removed", start, end, "pass")
            case ast.Continue() | ast.Break():
                yield Edit("statement removed", start, end, "pass")
            case ast.Expr(ast.Call(func=func)) if _name(func) not in QUIET and "super()" not in ast.unparse(func):
                yield Edit("statement removed", start, end, "pass")
            case ast.AugAssign():
                yield Edit("statement removed", start, end, "pass")
            case ast.Assign(targets=[ast.Subscript() | ast.Attribute()]) if function and function.name != "__init__":
                yield Edit("statement removed", start, end, "pass")
            case ast.Return() if stmt.value is not None and function is not None and function.returns is not None:
                yield from self._default(stmt.value, ast.unparse(function.returns))

    def _default(self, value: ast.expr, annotation: str) -> Iterator[Edit]:
        start, end, text = self._start(value), self._end(value), self._text(value)
        if annotation in ("int", "float"):
            yield Edit("returned default", start, end, f"{annotation}(0)")
        elif annotation == "bool":
            yield Edit("returned value negated", start, end, f"not ({text})")
        elif annotation.startswith("Bool[") and "None" not in annotation:
            yield Edit("returned value negated", start, end, f"~({text})")
        elif annotation.startswith("Float[") and "None" not in annotation:
            yield Edit("returned default", start, end, f"({text}) * 0")

    # ------------------------------------------------------------------ expressions

    def _expression(self, node: ast.expr) -> Iterator[Edit]:
        if isinstance(node, ast.JoinedStr):
            return
        if isinstance(node, ast.Call) and _name(node.func) in QUIET:
            return
        yield from self._edits(node)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                yield from self._expression(child)
            elif isinstance(child, ast.keyword):
                yield from self._expression(child.value)
            elif isinstance(child, ast.comprehension):
                yield from self._expression(child.iter)
                for test in child.ifs:
                    yield from self._expression(test)

    def _edits(self, node: ast.expr) -> Iterator[Edit]:
        match node:
            case ast.Compare():
                sides = [node.left, *node.comparators]
                for left, op, right in zip(sides, node.ops, node.comparators, strict=False):
                    old, others = COMPARE[type(op)]
                    for new in others:
                        yield from self._between(left, right, old, new, "comparison")
            case ast.BinOp() if type(node.op) in ARITHMETIC and not _is_text(node.left, node.right):
                old, new = ARITHMETIC[type(node.op)]
                yield from self._between(node.left, node.right, old, new, "arithmetic")
            case ast.BoolOp(values=[left, right]):
                old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
                yield from self._between(left, right, old, new, "and / or")
            case ast.UnaryOp() if not isinstance(node.op, ast.UAdd):
                yield self._replaced("sign or negation removed", node, f"({self._text(node.operand)})")
            case ast.Constant():
                yield from self._constant(node)
            case ast.Name(id=name) if name in SWAPPED and isinstance(node.ctx, ast.Load):
                yield self._replaced("opposite function", node, SWAPPED[name])
            case ast.Attribute(attr=name) if name in SWAPPED and isinstance(node.ctx, ast.Load):
                end = self._end(node)
                yield Edit("opposite function", end - len(name), end, SWAPPED[name])
            case ast.IfExp():
                swapped = f"({self._text(node.orelse)}) if ({self._text(node.test)}) else ({self._text(node.body)})"
                yield self._replaced("branches swapped", node, swapped)
            case ast.Call(func=func, args=[_, a, b], keywords=[]) if _name(func) in ("where", "tree_where"):
                gap = self.source[self._end(a) : self._start(b)].decode()
                text = self._text(b) + gap + self._text(a)
                yield Edit("branches swapped", self._start(a), self._end(b), text)
            case ast.Call(func=ast.Name(id="range"), args=[n]):
                yield self._replaced("off by one", n, f"({self._text(n)}) - 1")

    def _constant(self, node: ast.Constant) -> Iterator[Edit]:
        value = node.value
        if isinstance(value, bool):
            yield self._replaced("constant", node, str(not value))
        elif isinstance(value, int):
            yield self._replaced("constant", node, str(value + 1))
            if value:
                yield self._replaced("constant", node, str(value - 1))
        elif isinstance(value, float) and not 0 < abs(value) <= TINY:
            yield self._replaced("constant", node, repr(2 * value) if value else "1.0")

    def _between(self, left: ast.expr, right: ast.expr, old: str, new: str, operator: str) -> Iterator[Edit]:
        start, end = self._end(left), self._start(right)
        gap = self.source[start:end].decode()
        if "#" not in gap and gap.count(old) == 1:
            at = start + len(gap[: gap.index(old)].encode())
            yield Edit(operator, at, at + len(old), new)

    def _replaced(self, operator: str, node: ast.expr, text: str) -> Edit:
        return Edit(operator, self._start(node), self._end(node), text)

    # ------------------------------------------------------------------ text

    def _at(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column

    def _start(self, node: ast.expr | ast.stmt) -> int:
        return self._at(node.lineno, node.col_offset)

    def _end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._at(node.end_lineno, node.end_col_offset)

    def _text(self, node: ast.expr) -> str:
        return self.source[self._start(node) : self._end(node)].decode()


def _name(func: ast.expr) -> str:
    return func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""


def _is_text(*nodes: ast.expr) -> bool:
    """Whether an operand is a text or a display: their sums have no opposite."""
    return any(
        isinstance(node, ast.JoinedStr | ast.Tuple | ast.List | ast.Dict)
        or (isinstance(node, ast.Constant) and isinstance(node.value, str))
        for node in nodes
    )
