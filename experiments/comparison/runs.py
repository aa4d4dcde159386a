"""What a store holds, for people: a list of its jobs, one in full, and deleting some."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from steersman.experiments.comparison.store import Job, Store
from steersman.experiments.spec.settings import SpecError

GROUPS = ("older", "failed")
"""Names for jobs whose question newer code has answered (or tried, if they failed), and for those that failed."""


def open_store(folder: Path) -> Store:
    """The store of a comparison's folder.

    Raises:
        SpecError: If there is none.
    """
    if not (folder / "store").is_dir():
        raise SpecError(f"no store in {folder}; name the folder that a comparison was run with, such as results/tour")
    return Store(folder / "store")


def jobs_named(store: Store, names: Sequence[str]) -> list[Job]:
    """Jobs by their keys, by the beginning of one, or by the name of a group.

    Raises:
        SpecError: If a name fits none or several.
    """
    everything = store.jobs()
    found: dict[str, Job] = {}
    for name in names:
        fits = _group(everything, name) if name in GROUPS else [job for job in everything if job.key.startswith(name)]
        if name not in GROUPS and len(fits) != 1:
            raise SpecError(f"{name!r} fits {len(fits)} jobs; give a key of the list, or {' or '.join(GROUPS)}")
        found |= {job.key: job for job in fits}
    return list(found.values())


def job_table(store: Store) -> Table:
    """One row per job, the oldest first."""
    everything = store.jobs()
    older = {job.key for job in _group(everything, "older")}
    found = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("key", "kind", "state", "changed", "what"):
        found.add_column(name, no_wrap=name != "what", overflow="fold")
    for job in everything:
        state = f"{job.state}, older" if job.key in older else job.state
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.changed)) if job.changed else ""
        found.add_row(*map(escape, (job.key, job.kind, state, when, _what(job))))
    return found


def whole(store: Store, job: Job) -> dict[str, Any]:
    """Everything about a job: its specification, how it ended, and its files."""
    files = sorted(path.name for path in store.folder.glob(f"{job.key}.*"))
    trace = store.file(job.key, ".error.txt")
    text = trace.read_text(encoding="utf-8") if job.state == "failed" and trace.is_file() else ""
    plain = {"key": job.key, "kind": job.kind, "state": job.state, "error": job.error, "files": files}
    return {**plain, "spec": _spec(job), "traceback": text}


def _group(jobs: Sequence[Job], name: str) -> list[Job]:
    if name == "failed":
        return [job for job in jobs if job.state == "failed"]
    # Jobs come with the oldest first. A failure of newer code takes no result of older code away.
    answer = {job.identity: job.key for job in jobs if job.state == "done"}
    attempt = {job.identity: job.key for job in jobs if job.state in ("done", "failed")}
    newest = {"done": answer, "failed": attempt}
    return [job for job in jobs if job.identity and newest.get(job.state, {}).get(job.identity, job.key) != job.key]


def _spec(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(job.spec)
    return found


def _what(job: Job) -> str:
    spec = _spec(job)
    if job.kind == "cell":
        return f"{spec['study']}: {spec['name']}"
    environment = spec.get("environment") or {"id": spec.get("plant", "?")}
    parts = [environment["id"].rpartition("/")[2]]
    parts += [(spec.get(part) or {}).get("use", "") for part in ("controller", "model")]
    parts += [f"seed {spec['seed']}"] if spec.get("seed") else []
    return ", ".join(part for part in parts if part)
