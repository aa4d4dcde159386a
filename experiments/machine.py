"""What a result was made on."""

from __future__ import annotations

import os
import platform
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
