"""What an unknown name of an environment was meant for: files beside the user, and names inside of modules."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import gymnasium

from steersman.envs.importing import meant_in
from steersman.envs.settings import meant


def not_in(module: ModuleType, name: str) -> str:
    """That a module has no such name, and no environment that it registers is called so."""
    near = meant_in(module, name) or meant(name, gymnasium.registry)
    return f"module {module.__name__!r} has no {name!r}{near}, and registers no environment of that name"


def beside(id: str) -> str:
    """Which ``module:name`` may be meant by an id without a module, from the files beside the user; empty if none."""
    for path in _files():
        if path.stem == id:
            names = _defined(path)
            which = f"such as {id}:{names[0]}" if names else f"such as {id}:Env-v0"
            return f"; {path.name} lies beside you: name what it holds as module:name, {which}"
    for path in _files():
        if id in _text(path):
            return f"; {path.name} beside you names it: write {path.stem}:{id}"
    return ""


def _files() -> Iterator[Path]:
    """Python files of the current folder and of the folders that are searched first, where files are read from."""
    for folder in dict.fromkeys([Path.cwd(), *(Path(place).resolve() for place in sys.path[:2] if place)]):
        yield from sorted(folder.glob("*.py"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # it is only a hint
        return ""


def _defined(path: Path) -> list[str]:
    """Classes and functions of a file, without running it; classes with bases first."""
    try:
        body = ast.parse(_text(path)).body
    except (SyntaxError, ValueError):
        return []
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    functions = [node.name for node in body if isinstance(node, ast.FunctionDef)]
    ordered = [node.name for node in sorted(classes, key=lambda node: not node.bases)]
    return [name for name in ordered + functions if not name.startswith("_")]
