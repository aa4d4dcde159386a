"""Every way in which a worker can end: the comparison goes on, and says what happened."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import Pipe
from multiprocessing.process import BaseProcess
from pathlib import Path
from textwrap import dedent

import pytest

from steersman.experiments.comparison.compare import compare
from steersman.experiments.comparison.executor import InProcess, Processes, _Worker
from steersman.experiments.comparison.results import Comparison
from steersman.experiments.report.page import write_report
from steersman.experiments.spec.comparison import read_spec

PLANT = """
    import os, signal, sys, time
    import torch
    from steersman.envs.actions import ActionSet
    from steersman.envs.objective import Objective, Quadratic
    from steersman.envs.plant import Plant

    class Tank(Plant):
        def __init__(self, how=""):
            self.dt, self.hold, self.horizon, self.gradient = 1.0, 1, 3, "exact"
            self.actions = ActionSet((-1.0,), (1.0,))
            self.objective = Objective((Quadratic(name="level", on="z", weights=(1.0,)),), failure=1.0)
            self.measured = self.performed = ("level",)
            self.how = how
        def params(self, key): return {}
        def initial(self, key, p): return torch.ones(len(key), 1, dtype=self.dtype)
        def measure(self, k, x, p): return x
        def step(self, k, x, u, w, p):
            if self.how == "segfault": os.kill(os.getpid(), signal.SIGSEGV)
            if self.how == "exit": os._exit(3)
            if self.how == "sys.exit": sys.exit(4)
            if self.how == "interrupt": raise KeyboardInterrupt
            if self.how == "hang": time.sleep(600)
            return x + 0.1 * u
"""


def write(folder: Path, *ways: str, more: str = "") -> Path:
    (folder / "tank_for_executor.py").write_text(dedent(PLANT))
    lines = ["episodes = 2", "recorded = 1", more]
    for how in ways:
        lines += ["[[plants]]", 'id = "tank_for_executor:Tank"', f'label = "{how or "sound"}"']
        lines += [f'settings = {{ how = "{how}" }}', "[[plants.controllers]]", 'use = "zero"']
    (folder / "c.toml").write_text("\n".join(lines))
    return folder / "c.toml"


def errors(found: Comparison) -> dict[str, str]:
    return {failure.plant: failure.error for failure in found.failures}


def test_workers_that_die_take_only_their_own_jobs_along(tmp_path: Path) -> None:
    file = write(tmp_path, "segfault", "sys.exit", "")
    found = compare(read_spec(str(file)), tmp_path / "out", executor=Processes(2))
    assert [result.plant for result in found.results] == ["sound"]
    said = errors(found)
    assert "worker died by signal 11 (SIGSEGV), 2 times" in said["segfault"]
    assert "the job called sys.exit(4)" in said["sys.exit"]
    write_report(found, tmp_path / "report.html")
    assert "SIGSEGV" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_hangs_and_other_ends_are_failed_jobs(tmp_path: Path) -> None:
    file = write(tmp_path, "hang", "exit", "interrupt", "", more="limit_s = 15.0")
    found = compare(read_spec(str(file)), tmp_path / "out", executor=Processes(2))
    assert [result.plant for result in found.results] == ["sound"]
    said = errors(found)
    assert "took longer than limit_s = 15 seconds, 2 times" in said["hang"]
    assert "worker ended by itself with status 3, 2 times" in said["exit"]
    assert "worker ended by itself with status 1, 2 times" in said["interrupt"]


def test_the_time_limit_of_a_job_leaves_out_the_start_of_its_worker(tmp_path: Path) -> None:
    here, there = Pipe()
    worker = _Worker(BaseProcess(), here)
    worker.take(tmp_path, "job")
    time.sleep(0.01)
    assert worker.seconds == 0.0
    there.send(None)  # Python has started and Steersman is imported
    assert not worker.has_answered()
    time.sleep(0.01)
    assert worker.seconds > 0.0
    there.send("job")
    assert worker.has_answered()


def test_an_interrupt_by_the_user_frees_the_job_that_runs_here(tmp_path: Path) -> None:
    file = write(tmp_path, "interrupt")
    for _ in range(2):  # the second call takes the job over at once
        with pytest.raises(KeyboardInterrupt):
            compare(read_spec(str(file)), tmp_path / "out", executor=InProcess())


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    file = write(tmp_path, "hang")
    command = [sys.executable, "-m", "steersman.experiments.cli", "compare", str(file), "--out", str(tmp_path / "o")]
    with subprocess.Popen([*command, "--workers", "1"], stdout=subprocess.DEVNULL) as parent:
        children: list[int] = []
        for _ in range(600):
            time.sleep(0.1)
            children = [pid for pid in _children(parent.pid) if b"spawn_main" in _command(pid)]
            if children:
                break
        time.sleep(1.0)
        parent.send_signal(signal.SIGKILL)
    assert children
    for _ in range(100):
        if not any(b"spawn_main" in _command(pid) for pid in children):
            return
        time.sleep(0.1)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    pytest.fail(f"workers {children} outlived their parent")


def _children(pid: int) -> list[int]:
    task = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in task.read_text().split()] if task.exists() else []


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
