"""Progress bars of a comparison, from the news of its jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from steersman.experiments.compare import News


@contextmanager
def bar(console: Console, title: str, *, enabled: bool = True) -> Iterator[Callable[[float, str], None]]:
    """One bar, moved by a fraction in 0..1 and a short text, while the context lasts."""
    with _progress(console, enabled) as bars:
        task = bars.add_task(title, total=1.0, note="")
        yield lambda fraction, text: bars.update(task, completed=fraction, note=text)


@contextmanager
def live(console: Console, *, enabled: bool = True) -> Iterator[Callable[[News], None]]:
    """Bars for the whole phase and for each job at work, while the context lasts."""
    with _progress(console, enabled) as bars:
        yield _Bars(bars)


def _progress(console: Console, enabled: bool) -> Progress:
    # Names and messages are the user's own: brackets in them are no markup.
    name, note = (TextColumn(what, markup=False) for what in ("{task.description}", "{task.fields[note]}"))
    columns = (SpinnerColumn(), name, BarColumn(30), TimeElapsedColumn(), note)
    return Progress(*columns, console=console, transient=not console.is_terminal, disable=not enabled)


class _Bars:
    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, news: News) -> None:
        done = sum(job.state in ("done", "failed") for _, job in news.jobs)
        parts = sum(1.0 if job.state in ("done", "failed") else job.fraction for _, job in news.jobs)
        if news.jobs:
            self._show(news.phase, parts / len(news.jobs), f"{done} of {len(news.jobs)}")
        for name, job in news.jobs:
            if job.state == "running":
                self._show(f"  {name}", job.fraction, job.message)
            elif f"  {name}" in self._tasks:
                self._bars.remove_task(self._tasks.pop(f"  {name}"))

    def _show(self, name: str, fraction: float, note: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=1.0, note=note)
        self._bars.update(self._tasks[name], completed=fraction, note=note)
