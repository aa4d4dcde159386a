"""Progress of a comparison, from the news of its jobs: bars in a terminal, a line now and then in a file or a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from steersman.experiments.comparison.compare import News

PAUSE_S = 10.0
"""Seconds between two lines, where the output is no terminal."""


@contextmanager
def bar(console: Console, title: str, *, enabled: bool = True) -> Iterator[Callable[[float, str], None]]:
    """One bar, moved by a fraction in 0..1 and a short text, while the context lasts."""
    if enabled and not console.is_terminal:
        lines = _Lines(console)
        yield lambda fraction, text: lines.tell(f"{title}: {100 * fraction:.0f} %, {text}")
        return
    with _progress(console, enabled) as bars:
        task = bars.add_task(title, total=1.0, note="")
        yield lambda fraction, text: bars.update(task, completed=fraction, note=text)


@contextmanager
def live(console: Console, *, enabled: bool = True) -> Iterator[Callable[[News], None]]:
    """Bars for the whole phase and for each job at work, while the context lasts."""
    if enabled and not console.is_terminal:
        lines = _Lines(console)
        yield lambda news: lines.tell(_summary(news))
        return
    with _progress(console, enabled) as bars:
        yield _Bars(bars)


def _progress(console: Console, enabled: bool) -> Progress:
    # Names and messages are the user's own: brackets in them are no markup.
    name, note = (TextColumn(what, markup=False) for what in ("{task.description}", "{task.fields[note]}"))
    columns = (SpinnerColumn(), name, BarColumn(30), TimeElapsedColumn(), note)
    return Progress(*columns, console=console, transient=not console.is_terminal, disable=not enabled)


class _Lines:
    """Prints what it is told, but not more often than every :data:`PAUSE_S` seconds."""

    def __init__(self, console: Console) -> None:
        self._console, self._last = console, time.monotonic()

    def tell(self, text: str) -> None:
        if time.monotonic() - self._last >= PAUSE_S:
            self._last = time.monotonic()
            self._console.print(escape(text), soft_wrap=True, highlight=False)


def _summary(news: News) -> str:
    """``runs: 3 of 8 done; at work: Heat-v1: mppi, seed 0 (40 %, evaluating: step 80 of 200)``."""
    busy = [f"{name} ({100 * job.fraction:.0f} %, {job.message})" for name, job in news.jobs if job.state == "running"]
    return f"{news.phase}: {_done(news)} of {len(news.jobs)} done; at work: {'; '.join(busy) or 'nothing'}"


def _done(news: News) -> int:
    return sum(job.state in ("done", "failed") for _, job in news.jobs)


class _Bars:
    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, news: News) -> None:
        parts = sum(1.0 if job.state in ("done", "failed") else job.fraction for _, job in news.jobs)
        if news.jobs:
            self._show(news.phase, parts / len(news.jobs), f"{_done(news)} of {len(news.jobs)}")
        for name, job in news.jobs:
            if job.state == "running":
                self._show(f"  {name}", job.fraction, job.message)
            elif f"  {name}" in self._tasks:
                self._bars.remove_task(self._tasks.pop(f"  {name}"))

    def _show(self, name: str, fraction: float, note: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=1.0, note=note)
        self._bars.update(self._tasks[name], completed=fraction, note=note)
