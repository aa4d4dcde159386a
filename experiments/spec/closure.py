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
import importlib
import importlib.util
import re
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ModuleSpec
from pathlib import Path
from typing import Any

from steersman.experiments.spec.settings import SpecError

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
        total.update(f"{name} {_read(name, found[name])[0]}\n".encode())
    folders = {path.parent for name, path in found.items() if _is(name, OURS)}
    for path in sorted(path for folder in folders for path in folder.iterdir() if path.suffix in _DATA):
        total.update(f"{path.name} {_content(*_stamp(path))}\n".encode())
    return total.hexdigest()[:16]


def closure(roots: Iterable[str]) -> dict[str, Path]:
    """Modules that the roots need, the roots and the packages around them included, with their source files."""
    found: dict[str, Path] = {}
    seen: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if (path := _source(name)) is None:
            continue
        found[name] = path
        waiting += [name.rpartition(".")[0]] if "." in name else []
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting += _absolute(_read(name, path)[1], package)
    return found


def files_in(settings: Any) -> dict[str, str]:
    """SHA-256 of every file that a value of the settings names, by that value."""
    found = {}
    for text in strings_in(settings):
        try:
            if Path(text).is_file():
                found[text] = _content(*_stamp(Path(text)))
        except (OSError, ValueError):  # too long, or a character that no path has: it names no file
            continue
    return found


def modules_in(settings: Any) -> list[str]:
    """Modules that the settings name as ``module:name``."""
    return [match[1] for text in strings_in(settings) if (match := _NAMED.fullmatch(text))]


_BEGAN = time.time()
_SEEN: dict[str, str] = {}
"""Digests of modules as this process has imported them, or is about to."""
_FIXED = (OURS, "__main__")
"""What cannot be exchanged in a running process."""


def refresh(roots: Iterable[str]) -> None:
    """Let the user's modules that were edited, moved or removed since they were imported be imported anew.

    Raises:
        SpecError: If Steersman itself or the running script was edited, which cannot be exchanged.
    """
    importlib.invalidate_caches()
    _source.cache_clear()
    roots = list(roots)
    found = closure(roots)
    edited = {name for name, path in found.items() if name in sys.modules and _edited(name, path)}
    edited |= {name for name in roots if name not in found and _is_gone(name)}
    if fixed := sorted(name for name in edited if _is_fixed(name)):
        raise SpecError(f"{', '.join(fixed)} was edited while this process runs; start Python again")
    for name in edited & set(found):  # Python takes bytecode for fresh if the source is as long and of the same second
        Path(importlib.util.cache_from_source(str(found[name]))).unlink(missing_ok=True)
    heads = {name.partition(".")[0] for name in (*found, *edited) if not _is_fixed(name)} if edited else set()
    for name in [name for name in sys.modules if name.partition(".")[0] in heads and not _is_library(name)]:
        del sys.modules[name]
    _SEEN.update({name: _read(name, path)[0] for name, path in found.items()})


def _edited(name: str, path: Path) -> bool:
    """Whether a module was written anew after it was imported, or lies elsewhere now, as far as that can be told."""
    was = getattr(sys.modules[name], "__file__", None)
    if not _is_fixed(name) and was is not None and Path(was).resolve() != path.resolve():
        return not _is_library(name)
    if name in _SEEN:
        return _SEEN[name] != _read(name, path)[0]
    return _BEGAN < path.stat().st_mtime <= time.time()


def _is_gone(name: str) -> bool:
    was = getattr(sys.modules.get(name), "__file__", None)
    return was is not None and not Path(was).exists()


def _is_library(name: str) -> bool:
    was = getattr(sys.modules[name], "__file__", None)
    return was is not None and _installed(Path(was).resolve())


def _is_fixed(name: str) -> bool:
    return any(_is(name, fixed) for fixed in _FIXED)


# ------------------------------------------------------------------ modules


def _is(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@lru_cache(maxsize=4096)
def _installed(path: Path) -> bool:
    folders = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    inside = any(path.is_relative_to(Path(folder).resolve()) for folder in folders if folder)
    return inside or not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


@lru_cache(maxsize=65536)
def _source(name: str) -> Path | None:
    """Source file of a module that is ours or the user's; None for others and for names that are no modules.

    Only the outermost package is looked up as Python does it, whatever has been imported under its name; below it
    files tell, so that nothing is imported. Folders without ``__init__.py`` are packages too.
    """
    if name == "__main__":
        return _script()
    ours = _is(name, OURS)
    parts = name.split(".")
    head, rest = ".".join(parts[: 2 if ours else 1]), parts[2 if ours else 1 :]
    spec = _outermost(head)
    if spec is None:
        return None
    path = Path(spec.origin) if spec.has_location and spec.origin else None
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    if not ours and any(_installed(place.resolve()) for place in [path, *places] if place is not None):
        return None
    for part in rest:
        if not places:  # a name inside a module
            return None
        ends = SOURCE_SUFFIXES if ours else (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)
        files = (place / f"{part}{end}" for place in places for end in ("/__init__.py", *ends))
        path = next((file for file in files if file.is_file()), None)
        places = [place / part for place in places]
        if path is not None:
            places = [path.parent] if path.name == "__init__.py" else []
    return path


def _script() -> Path:
    """File of the running script.

    Raises:
        SpecError: If there is none, as in a notebook: what was typed in cannot be watched.
    """
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is None:
        raise SpecError("code in __main__ has no file, so edits would go unnoticed; put it into a module of its own")
    return Path(file)


def _outermost(name: str) -> ModuleSpec | None:
    try:
        if _is(name, OURS):
            return importlib.util.find_spec(name)
        # Not util.find_spec: it answers from sys.modules, with the file that was imported once.
        finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path) if name else ()
        return next((spec for find in finders if find and (spec := find(name, None)) is not None), None)
    except (ImportError, AttributeError, ValueError):
        return None


def _stamp(path: Path) -> tuple[Path, int, int]:
    """A file as it is now: files are read again when they have changed, or a link leads to another one."""
    stat = path.stat()
    return path, stat.st_ctime_ns ^ stat.st_ino, stat.st_size


@lru_cache(maxsize=4096)
def _content(path: Path, _change: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


Imports = tuple[tuple[str, int, tuple[str, ...]], ...]
"""Imports as they are written: module, level, names."""


def _read(name: str, path: Path) -> tuple[str, Imports]:
    """Digest of a module as it is now, and its imports."""
    return _module(_is(name, OURS), *_stamp(path))


@lru_cache(maxsize=4096)
def _module(ours: bool, path: Path, _change: int, _size: int) -> tuple[str, Imports]:
    content = path.read_bytes()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # whoever imports it says so
        return hashlib.sha256(content).hexdigest(), ()
    imports = tuple(_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]
    tree.body = [part for part in tree.body if not (ours and _is_catalogue(part))]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports


def _imports(tree: ast.AST) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level, tuple(alias.name for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from (found for part in node.orelse for found in _imports(part))
        else:
            yield from _imports(node)


def _absolute(imports: Imports, package: str) -> Iterator[str]:
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


def strings_in(value: Any) -> Iterator[str]:
    """All strings in settings, without keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from strings_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from strings_in(part)
