"""What a result was made on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import torch


def describe_machine() -> str:
    """CPU, cores that this process may use, accelerator, and the versions that matter, as one line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("steersman", "torch", "numpy"))
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores{gpu}; Python {platform.python_version()}, {packages}"


def describe_commit() -> str:
    """Commit of the checkout that holds this code, with ``+`` where files differ from it; empty outside a checkout."""
    git, here = shutil.which("git"), Path(__file__)
    # An installed copy may lie in a checkout of something else.
    if git is None or not _answer([git, "-C", str(here.parent), "ls-files", here.name]):
        return ""
    return _answer([git, "-C", str(here.parent), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"])


def _answer(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
