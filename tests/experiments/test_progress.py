"""Progress where nobody looks at a terminal: lines, and not too many of them."""

import io

import pytest
from rich.console import Console

from steersman.experiments.comparison.compare import News
from steersman.experiments.comparison.store import Job
from steersman.experiments.report import progress


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def piped() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=40)


def lines(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_comparison_in_a_pipe_says_every_ten_seconds_how_it_stands(clock: Clock) -> None:
    console = piped()
    with progress.live(console) as tell:
        for second in range(36):
            clock.now = 100.0 + second
            busy = Job("k", "run", "{}", state="running", fraction=second / 100, message="step [3] of 9")
            jobs = (("p: zero, seed 0", Job("j", "run", "{}", state="done")), ("p: mppi, seed 0", busy))
            tell(News("runs", jobs))
    assert lines(console) == [
        f"runs: 1 of 2 done; at work: p: mppi, seed 0 ({at} %, step [3] of 9)" for at in (10, 20, 30)
    ]


def test_what_waits_is_at_work_at_nothing(clock: Clock) -> None:
    console = piped()
    with progress.live(console) as tell:
        clock.now += 11
        tell(News("models", (("p: linear model, seed 0", Job("j", "fit", "{}")),)))
    assert lines(console) == ["models: 0 of 1 done; at work: nothing"]


def test_one_bar_in_a_pipe_is_a_line_now_and_then(clock: Clock) -> None:
    console = piped()
    with progress.bar(console, "film") as tell:
        for second in (3, 10, 12, 25):
            clock.now = 100.0 + second
            tell(second / 25, "step")
    assert lines(console) == ["film: 40 %, step", "film: 100 %, step"]


def test_a_terminal_gets_bars_and_json_gets_nothing(clock: Clock) -> None:
    for console, enabled in ((Console(file=io.StringIO(), force_terminal=True), True), (piped(), False)):
        with progress.live(console, enabled=enabled) as tell:
            clock.now += 60
            tell(News("runs", (("p", Job("j", "run", "{}", state="running")),)))
        assert "at work" not in "".join(lines(console))
        assert bool(lines(console)) == enabled
