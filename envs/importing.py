"""What ``module:name`` names: code of the user's own, found beside him, with errors that say what to do."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from steersman.envs.settings import meant


def imported(id: str) -> Any:
    """What ``module:name`` names, or None if the module has no such name; modules beside you are found.

    Raises:
        ValueError: If the module cannot be imported.
    """
    module, _, name = id.partition(":")
    if remedy := without_suffix(id):
        raise ValueError(f"{id!r} names a file; {remedy}")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if not module or not name:
        raise ValueError(f"{id!r} is not module:Name; name the module before the colon and what it holds after it")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        return found
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module == missing or module.startswith(f"{missing}."):
            raise ValueError(f"{id!r}: {error}; run steersman in the folder of that module, or install it") from error
        raise ValueError(f"{id!r} needs {missing!r}, which is not installed: pip install {missing}") from error
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        raise ValueError(f"{id!r}: its module cannot be imported ({one_line(error)})") from error


def needed(module: str, extra: str, what: str) -> Any:
    """An optional package, imported when it is needed.

    Args:
        module: What to import.
        extra: The extra of Steersman that brings it.
        what: What it is needed for, as the beginning of a sentence.

    Raises:
        ImportError: If it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:
            raise
        raise ImportError(f"{what} needs {package}: pip install 'steersman[{extra}]'") from None


def meant_in(module: ModuleType, name: str) -> str:
    """Which public name of a module another one was probably meant for; empty if none is near."""
    return meant(name, (found for found in vars(module) if not found.startswith("_")))


def without_suffix(id: str) -> str:
    """What to write instead of ``tank.py:Tank``; empty if the id names no file."""
    place, colon, name = id.partition(":")
    if not (place.endswith(".py") or "/" in place) or not colon:
        return ""
    return f"write {Path(place).stem}:{name}, and run steersman in the folder of {Path(place).name}"


def one_line(error: BaseException, *, bare: bool = False) -> str:
    """An error as one line, with its type unless ``bare``."""
    text = " ".join(str(error).split())
    return text if bare else f"{type(error).__name__}: {text}"
