"""Rows of foreign environments: random generators of their own, repetition, snapshots, worker processes."""

import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import odd_lab
import pytest
import torch
from torch import Tensor

from steersman.envs import make_simulator, noise
from steersman.envs.gymnasium_adapters.outputs import Reading, Reference
from steersman.envs.plant import Status
from steersman.envs.repeat import repeats
from steersman.envs.rows.isolation import Globals, lent
from steersman.envs.simulator import Simulator, Transition


def started(id: Any, n: int = 2, steps: int = 5, **settings: Any) -> Simulator:
    simulator = make_simulator(id, n, max_episode_steps=steps, **settings)
    simulator.reset(simulator.scenarios(noise.keys(0, n)))
    return simulator


def push(simulator: Simulator, value: float) -> Transition:
    return simulator.step(torch.full((simulator.n, simulator.actions.m), value, dtype=torch.float64))


def test_global_generators_belong_to_rows() -> None:
    make = partial(make_simulator, odd_lab.Gambler, max_episode_steps=5)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    assert repeats(make, noise.keys(3, 3), 5) is None
    simulator = make(3)
    simulator.reset(simulator.scenarios(noise.keys(3, 3)))
    y = simulator.measure().y
    assert len(set(y.flatten().tolist())) == 6, "rows draw numbers of their own"
    assert (np.random.get_state()[1] == before[0]).all() and torch.equal(torch.get_rng_state(), before[1])


def test_generators_are_lent_and_come_back() -> None:
    def drawn() -> tuple[float, ...]:
        return random.random(), float(np.random.rand()), float(np.random.normal()), float(torch.rand(()))

    np.random.seed(5)
    random.seed(5)
    torch.manual_seed(5)
    expected = [drawn() for _ in range(2)]
    random.seed(9)
    np.random.normal()  # leaves the second number of its pair behind
    before, numpy, ours = random.getstate(), np.random.get_state(), torch.get_rng_state()
    with lent():
        row, other = Globals.seeded(5), Globals.seeded(6)
        with row.inside():
            first = drawn()
        with other.inside():
            assert drawn() != first
        with row.inside():
            second = drawn()
    after = np.random.get_state()
    assert random.getstate() == before and torch.equal(torch.get_rng_state(), ours)
    assert all(np.array_equal(x, y) for x, y in zip(numpy, after, strict=True))
    assert first == expected[0] and second[:2] == expected[1][:2] and second[3] == expected[1][3]


def test_a_mask_starts_its_rows_again_and_leaves_the_others_ended() -> None:
    simulator = started(odd_lab.Goal, n=3, steps=6)
    u = torch.tensor([[1.0], [1.0], [-1.0]], dtype=torch.float64)
    t = simulator.step(u)
    assert t.ended.tolist() == [True, True, False]
    mask = torch.tensor([True, False, False])
    simulator.reset(simulator.scenarios(noise.keys(9, 3), mask), mask)
    assert simulator.measure().k.tolist() == [0, 1, 1]
    t = push(simulator, -1.0)
    assert t.cost.tolist() == [1.0, 0.0, 1.0], "the second row has ended and costs nothing more"
    assert t.status.tolist()[0::2] == [Status.OK] * 2 and t.status[1] != Status.OK
    simulator.reset(simulator.scenarios(noise.keys(9, 3)), torch.zeros(3, dtype=torch.bool))
    assert simulator.measure().k.tolist() == [1, 1, 2], "an empty mask starts nothing"


def test_environments_are_closed_when_their_rows_are_freed() -> None:
    closed = []

    class Closing(odd_lab.Base):
        def close(self) -> None:
            closed.append(self)

    simulator = started(Closing, n=2)
    simulator.close()
    assert len(closed) == 2


@pytest.mark.parametrize(
    ("kind", "how"), [(odd_lab.Sieve, "when it was run again"), (odd_lab.Shared, "when it was run again")]
)
def test_what_does_not_repeat_is_said(kind: Any, how: str) -> None:
    found = repeats(partial(make_simulator, kind, max_episode_steps=4), noise.keys(0, 2), 4)
    assert found is not None and "scenario 0 does not repeat: y 'y0' of step 0" in found and how in found


def test_rows_that_lean_on_their_neighbours_are_found() -> None:
    class Crowd(odd_lab.Base):
        """Its state is that of whichever row stepped last, but all begin alike."""

        last = [0.0]  # noqa: RUF012

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.last[0] = 0.0
            return super().reset(seed=seed)

        def step(self, action: Any) -> Any:
            self.last[0] += float(action[0])
            return super().step(action)

        def observe(self) -> Any:
            return np.array(self.last * 2, np.float32)

    found = repeats(partial(make_simulator, Crowd, max_episode_steps=4), noise.keys(0, 2), 4)
    assert found is not None and ("another order" in found or "alone" in found)


def test_plants_repeat() -> None:
    assert repeats(partial(make_simulator, "steersman/Pendulum-v1"), noise.keys(0, 3), 5) is None
    with pytest.raises(ValueError, match="at least one scenario"):
        repeats(partial(make_simulator, "steersman/Pendulum-v1"), noise.keys(0, 0), 5)


def test_snapshots_go_on_as_the_environment_would() -> None:
    simulator = started(odd_lab.Gambler, n=3)
    push(simulator, 0.2)
    simulator.step(torch.tensor([[0.1], [torch.nan], [0.3]], dtype=torch.float64))
    kept, seen = simulator.snapshot(), []
    for _ in range(2):
        simulator.restore(kept)
        t = push(simulator, 0.5)
        seen.append(torch.cat([simulator.measure().y, t.status[:, None], t.cost[:, None]], dim=1))
    assert torch.equal(*seen) and seen[0][:, 2].tolist() == [Status.OK, Status.DIVERGED, Status.OK]


# ------------------------------------------------------------------ worker processes


def test_workers_compute_the_same() -> None:
    def whole(workers: int) -> Tensor:
        simulator = started(
            "odd_lab:Tank",
            n=3,
            reading=Reading(references={"reward": Reference(info="plan", column=1)}),
            workers=workers,
            price=1.0,
        )
        seen = []
        try:
            for k in range(5):
                push(simulator, 0.1 * k)
                m = simulator.measure(2)
                seen.append(torch.cat([m.y, m.r.flatten(1), simulator.perform()], dim=1))
            kept = simulator.snapshot()
            simulator.restore(kept)
            seen.append(torch.cat([simulator.measure().y], dim=1))
        finally:
            simulator.close()
        return torch.cat(seen, dim=1)

    assert torch.equal(whole(0), whole(2))


def test_every_way_of_a_worker_to_fail_is_said() -> None:
    simulator = started("odd_lab:Killer", workers=1)
    push(simulator, 0.0)
    for _ in range(2):  # and it stays so
        with pytest.raises(RuntimeError, match="gymnasium simulator: it died with exit code 7; run with workers=0"):
            push(simulator, 0.0)
    simulator.close()
    simulator = started("odd_lab:Crash", workers=2)
    for _ in range(2):  # the second worker's answer is not taken for that of the next call
        with pytest.raises(RuntimeError, match=r"RuntimeError: the solver \[x\] gave up"):
            push(simulator, 0.0)
    simulator.close()
    with pytest.raises(ValueError, match="name it module:name"):
        make_simulator(lambda: odd_lab.factory(), 2, workers=1)
    with pytest.raises(ValueError, match="workers >= 0"):
        make_simulator("odd_lab:factory", 1, workers=-1)


def test_workers_end_with_their_parent_however_it_dies() -> None:
    script = (
        "import os, torch\n"
        "from steersman.envs import make_simulator, noise\n"
        "if __name__ == '__main__':\n"
        "    s = make_simulator('odd_lab:factory', 2, workers=2)\n"
        "    s.reset(s.scenarios(noise.keys(0, 2)))\n"
        "    print(*(w._process.pid for w in s._rows._workers), flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    lab = str(Path(odd_lab.__file__).parent)
    path = os.pathsep.join([lab, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    workers = [int(pid) for pid in done.stdout.split()]
    deadline = time.monotonic() + 10
    while any(_runs(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(workers) == 2 and not any(_runs(pid) for pid in workers)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
