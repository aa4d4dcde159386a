"""Every name in an annotation exists: nothing evaluates it, so that nothing else would notice."""

from __future__ import annotations

import ast
import builtins
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from steersman.envs import objective

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("envs", "dynamics", "controllers", "optimizers", "experiments")


def annotations(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            yield node.annotation
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            yield node.returns


def bound(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


@pytest.mark.parametrize("package", PACKAGES)
def test_names_in_annotations_exist(package: str) -> None:
    missing = []
    for path in sorted((ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text())
        known = {*bound(tree), *vars(builtins)}
        for annotation in annotations(tree):
            for node in ast.walk(annotation):
                if isinstance(node, ast.Name) and node.id not in known:
                    missing.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.id}")
    assert not missing, "\n".join(missing)


def test_hints_of_limits_can_be_read() -> None:
    assert set(typing.get_type_hints(objective.within)) == {"bounds", "names", "return"}
