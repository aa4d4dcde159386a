"""What code and which files a result depends on, as digests: the static import closure of what a run names.

A module's digest is that of its syntax tree without docstrings, so that comments and formatting change nothing. The
closure follows the imports written in a module, those inside functions included, into Steersman and into modules of
the user's own, which are those that lie outside the Python installation. Lists of the registries (``PLANTS`` and the
like) hold strings and are left out: enrolling a member does not touch the results of others. What is not followed:
imports by a name that is made at run time, data files that own code opens by itself, and installed packages, whose
versions are recorded beside results instead.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from steersman.experiments.settings import SpecError

OURS = "steersman"
_DATA = (".npz", ".j2")
"""Files beside Steersman's modules that they read."""
_NAMED = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):.+")
"""``module:name``, in a setting."""


def code_digest(roots: Iterable[str]) -> str:
    """Digest of the code of some modules and of all they import, with the data files of their packages.

    Args:
        roots: Names of modules; those that are installed packages, or cannot be found, add nothing.
    """
    found = closure(roots)
    total = hashlib.sha256()
    for name in sorted(found):
        total.update(f"{name} {_module(*_stamp(found[name]))[0]}\n".encode())
    folders = {path.parent for name, path in found.items() if _is(name, OURS)}
    for path in sorted(path for folder in folders for path in folder.iterdir() if path.suffix in _DATA):
        total.update(f"{path.name} {_content(*_stamp(path))}\n".encode())
    return total.hexdigest()[:16]


def closure(roots: Iterable[str]) -> dict[str, Path]:
    """Modules that the roots need, the roots and the packages around them included, with their source files."""
    found: dict[str, Path] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in found or (path := _source(name)) is None:
            continue
        found[name] = path
        waiting += [name.rpartition(".")[0]] if "." in name else []
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting += _absolute(_module(*_stamp(path))[1], package)
    return found


def edition(folder: Path, roots: Iterable[str]) -> Path:
    """A folder inside ``folder`` for what the code as it is now makes: what older code made lies beside it."""
    path = folder / code_digest(roots)
    path.mkdir(parents=True, exist_ok=True)
    return path


def files_in(settings: Any) -> dict[str, str]:
    """SHA-256 of every file that a value of the settings names, by that value."""
    found = {}
    for text in _strings(settings):
        try:
            if Path(text).is_file():
                found[text] = _content(*_stamp(Path(text)))
        except (OSError, ValueError):  # too long, or a character that no path has: it names no file
            continue
    return found


def modules_in(settings: Any) -> list[str]:
    """Modules that the settings name as ``module:name``."""
    return [match[1] for text in _strings(settings) if (match := _NAMED.fullmatch(text))]


_BEGAN = time.time()
_SEEN: dict[str, str] = {}
"""Digests of the user's modules as this process has imported them, or is about to."""


def refresh(roots: Iterable[str]) -> None:
    """Let the user's modules that were edited after this process imported them be imported anew.

    Raises:
        SpecError: If Steersman itself was edited, whose modules cannot be exchanged in a running process.
    """
    importlib.invalidate_caches()
    _source.cache_clear()
    found = closure(roots)
    edited = [name for name, path in found.items() if name in sys.modules and _edited(name, path)]
    ours = [name for name in edited if _is(name, OURS)]
    if ours:
        raise SpecError(f"{', '.join(sorted(ours))} was edited while this process runs; start Python again")
    for name in found if edited else ():
        if not _is(name, OURS):
            sys.modules.pop(name, None)
    _SEEN.update({name: _module(*_stamp(path))[0] for name, path in found.items()})


def _edited(name: str, path: Path) -> bool:
    """Whether a module was written anew after it was imported, as far as that can be told."""
    if name in _SEEN:
        return _SEEN[name] != _module(*_stamp(path))[0]
    return not _is(name, OURS) and path.stat().st_mtime > _BEGAN


# ------------------------------------------------------------------ modules


def _is(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@lru_cache(maxsize=4096)
def _installed(path: Path) -> bool:
    folders = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(path.is_relative_to(folder) for folder in folders if folder) or "site-packages" in path.parts


@lru_cache(maxsize=65536)
def _source(name: str) -> Path | None:
    """Source file of a module that is ours or the user's; None for others and for names that are no modules.

    Only the outermost package is looked up as Python does it; below it files tell, so that nothing is imported.
    """
    ours = _is(name, OURS)
    parts = name.split(".")
    head, rest = ".".join(parts[: 2 if ours else 1]), parts[2 if ours else 1 :]
    path = _outermost(head)
    for part in rest:
        if path is None or path.name != "__init__.py":
            return None
        path = next((p for p in (path.parent / part / "__init__.py", path.parent / f"{part}.py") if p.is_file()), None)
    return None if path is None or (not ours and _installed(path)) else path


def _outermost(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name) if name else None
    except (ImportError, AttributeError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin).resolve()


def _stamp(path: Path) -> tuple[Path, int, int]:
    """A file as it is now: files are read again when they have changed."""
    stat = path.stat()
    return path, stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=4096)
def _content(path: Path, _mtime: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=4096)
def _module(path: Path, _mtime: int, _size: int) -> tuple[str, tuple[tuple[str, int, tuple[str, ...]], ...]]:
    """Digest of a module, and its imports as (module, level, names)."""
    content = path.read_bytes()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # whoever imports it says so
        return hashlib.sha256(content).hexdigest(), ()
    imports = tuple(_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]
    tree.body = [part for part in tree.body if not _is_catalogue(part)]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports


def _imports(tree: ast.AST) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level, tuple(alias.name for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from (found for part in node.orelse for found in _imports(part))
        else:
            yield from _imports(node)


def _absolute(imports: Iterable[tuple[str, int, tuple[str, ...]]], package: str) -> Iterator[str]:
    for module, level, names in imports:
        base = ".".join(package.split(".")[: len(package.split(".")) + 1 - level]) if level else ""
        whole = ".".join(part for part in (base, module) if part)
        yield whole
        yield from (f"{whole}.{name}" for name in names)


def _is_text(node: ast.stmt) -> bool:
    """Docstrings, of attributes too."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_catalogue(node: ast.stmt) -> bool:
    """``NAME: tuple[SomethingSpec, ...] = (...)``: a registry's list."""
    return isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation).endswith("Spec, ...]")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _strings(part)
