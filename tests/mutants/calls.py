"""A pytest plugin that writes which functions of the packages each test calls, and its processor time.

A global trace function that returns None is called once for each Python call and never for lines, so a traced suite
takes little longer than a plain one. What a test runs in another process is not seen. Bodies of modules and classes
are left out: they run once, when whichever test comes first imports them, and are the business of all.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

PACKAGES = ("envs", "dynamics", "controllers", "optimizers", "experiments")
OUT = "STEERSMAN_CALLS"
"""Name of the environment variable with the file that lines of JSON are appended to."""

_called: set[CodeType] = set()


def _note(frame: FrameType, event: str, arg: Any) -> None:
    if frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        _called.add(frame.f_code)


def inside(filename: str, root: Path) -> str | None:
    """Path of a source file relative to the root of the packages, or None if it is none of theirs."""
    path = Path(os.path.realpath(filename))
    if not path.is_relative_to(root):
        return None
    found = path.relative_to(root)
    return found.as_posix() if found.parts[0] in PACKAGES else None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Trace set-up, call and tear-down of one test."""
    _called.clear()
    start = time.process_time()
    threading.settrace(_note)
    sys.settrace(_note)
    yield
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    seconds = time.process_time() - start
    root = Path(os.path.realpath(item.config.rootpath))
    names = {f"{path}::{code.co_qualname}" for code in _called if (path := inside(code.co_filename, root))}
    line = {"test": item.nodeid, "seconds": round(seconds, 3), "calls": sorted(names)}
    with Path(os.environ[OUT]).open("a") as file:
        file.write(json.dumps(line) + "\n")
