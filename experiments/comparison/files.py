"""Results on disk: a result is an npz file of plain arrays and JSON, written under another name and then renamed."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from steersman.experiments.comparison.results import Episodes, Latency, RunResult

_ARRAYS = ("scenario", "cost", "violation", "status", "steps", "outcomes")


def save_result(result: RunResult, path: Path) -> None:
    """Write a result; a crash in between leaves no file."""
    arrays = {name: np.asarray(getattr(result, name)) for name in _ARRAYS}
    arrays |= {f"episodes.{name}": value for name, value in asdict(result.episodes).items()}
    plain = {
        field.name: getattr(result, field.name)
        for field in fields(result)
        if field.name not in (*_ARRAYS, "latency", "episodes", "picture")
    }
    meta = json.dumps({**plain, "latency": asdict(result.latency)})
    path.with_suffix(".png").write_bytes(result.picture)
    draft = path.with_suffix(".draft.npz")
    np.savez_compressed(draft, allow_pickle=False, meta=np.asarray(meta), **arrays)
    draft.replace(path)


def load_result(path: Path) -> RunResult:
    """Read what :func:`save_result` wrote.

    Raises:
        OSError, ValueError, KeyError: If the file is missing or damaged.
    """
    with np.load(path, allow_pickle=False) as file:
        meta = json.loads(str(file["meta"]))
        arrays = {name: file[name] for name in _ARRAYS}
        episodes = Episodes(*(file[f"episodes.{field.name}"] for field in fields(Episodes)))
    picture = path.with_suffix(".png").read_bytes()
    meta["notes"], meta["curve"] = tuple(meta["notes"]), tuple(map(tuple, meta.get("curve", ())))
    return RunResult(
        **{**meta, **arrays, "latency": Latency(**meta["latency"]), "episodes": episodes, "picture": picture}
    )
