"""The mapped namespace: real imports, guarded bare ones, and one direction of imports."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Container, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("envs", "dynamics", "controllers", "optimizers", "experiments")
ALLOWED = {
    "envs": {"envs"},
    "dynamics": {"envs", "dynamics", "optimizers"},
    "controllers": {"envs", "dynamics", "controllers", "optimizers"},
    "optimizers": {"optimizers"},
    "experiments": set(PACKAGES),
}


@pytest.mark.parametrize("package", PACKAGES)
def test_bare_import_names_the_right_one(package: str) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {package}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=False)
    assert run.returncode != 0
    assert f"import steersman.{package}" in run.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_import_direction(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                parts = name.split(".")
                if parts[0] == "steersman" and len(parts) > 1:
                    assert parts[1] in ALLOWED[package], f"{path} imports {name}"


def test_every_package_is_in_the_wheel() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        "steersman." + ".".join(path.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert listed == found


def test_nothing_imports_in_a_circle() -> None:
    """Imports inside functions count: what a module needs lies below it, wherever the line stands."""
    modules = {
        "steersman." + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    needs = {name: set(_imports(ast.parse(path.read_text()), modules)) - {name} for name, path in modules.items()}
    assert needs["steersman.controllers.planning.sampling"] >= {"steersman.controllers.base", "steersman.envs.noise"}
    for name in TopologicalSorter(needs).static_order():  # raises CycleError, which names the circle
        assert name in modules


def _imports(tree: ast.AST, modules: Container[str]) -> Iterator[str]:
    """Modules of ours that are imported, but for what only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in modules else node.module for name in names if node.module in modules)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        else:
            yield from _imports(node, modules)
