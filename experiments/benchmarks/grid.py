"""Grids against ANDES in an environment of its own (``make peers``), against scipy, and what a step costs by size."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from scipy.integrate import solve_ivp

from steersman.envs.grid.events import Fault, phases
from steersman.envs.grid.simulate import integrate, intervals
from steersman.envs.grid.system import GridSystem, Orders
from steersman.envs.grid.tasks import ieee39, kundur_full
from steersman.experiments.benchmarks.base import Progress, Row, rate, throughput
from steersman.experiments.studies.grid.brake import outcomes

PEER = Path(".venv-peers/bin/python")
"""Interpreter of the peers' environment, from the root of a clone."""
_SCRIPT = Path(__file__).with_name("andes_reference.py")
STEP = 0.005
PIECE = 0.1
"""Length of a control step, s."""
METRIC = "scenario-s / CPU s"


def rows(progress: Progress) -> Iterator[Row]:
    """Simulated seconds of all scenarios per CPU-second, one thread.

    Raises:
        FileNotFoundError: Without the peers' environment; the message names the command that makes it.
    """
    if not PEER.is_file():
        raise FileNotFoundError(f"{PEER} is missing: run 'make peers' and start in the root of the clone")
    for i, (name, make, bars) in enumerate((
        ("classical", kundur_full.classical, (200.0, 2000.0)), ("full order", kundur_full.full, (100.0, 400.0)),
    )):  # fmt: skip
        progress(i / 6, name)
        case = "classical_fault" if i == 0 else "full_fault"
        for step, bar in zip((1 / 30, STEP), bars, strict=True):
            ours, theirs = _beside(faults(make(), 256), case, step)
            yield Row(f"Kundur {name}, 5 ms, 256 rows", METRIC, ours, theirs, f"ANDES, step {1000 * step:.0f} ms", bar)
    progress(0.4, "scipy")
    for n, bar in ((256, 5.0), (2048, 15.0), (1, 0.02)):
        ours, theirs = throughput(faults(kundur_full.classical(), n), scipy_work(), repeats=4)
        yield Row(f"Kundur classical, 5 ms, {n} rows", METRIC, ours, theirs, "scipy DOP853, 1e-6, one row", bar)
    progress(0.6, "brake")
    seconds = 4096 * 6 / rate(_brake, turns=1)
    yield Row("4096 brake patterns, 6 s, 5 ms", "1 / CPU s", 1 / seconds, 1 / 25.0, "target of 25 s", 1.0)
    progress(0.7, "IEEE 39")
    ours = rate(faults(ieee39.classical(), 256))
    yield Row("IEEE 39 classical, 5 ms, 256 rows", METRIC, ours, 2000.0, "target", 1.0)
    progress(0.8, "size")
    for copies in SIZES:
        system = ieee39.tiled(copies)
        ours = rate(faults(system, 20, seconds=0.1, spread=0.0), turns=2)
        label = f"{len(system.case.buses)} buses, {system.units} machines, classical, 5 ms, 20 rows"
        yield Row(label, METRIC, ours, ours, "none", 1.0)


SIZES = (1, 2, 6, 13, 26, 52)
"""Copies of the New England system that are tied together."""


def _beside(ours: Callable[[], int], case: str, step: float) -> tuple[float, float]:
    """Our rate and ANDES's, taken in turns; the best of each."""
    best, peer = 0.0, 0.0
    for _ in range(3):
        best = max(best, rate(ours, turns=2))
        peer = max(peer, _andes(case, step))
    return best, peer


def _andes(case: str, step: float) -> float:
    command = [str(PEER), str(_SCRIPT), case, str(step)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return float(done.stdout.strip().splitlines()[-1])


def faults(system: GridSystem, n: int, seconds: float = 1.0, spread: float = 0.05) -> Callable[[], int]:
    """Faults of 50 ms and up to ``spread`` s longer at one bus, equal loads; it counts seconds of all rows."""
    point = system.operate(torch.ones(1, dtype=torch.float64))
    one = phases(system, point, [Fault(int(system.case.buses.id[7]), 0.02, 0.05)])
    networks = one.network.expand(n, -1, -1, -1)
    edges = torch.stack([torch.full((n,), 0.02), torch.linspace(0.07, 0.07 + spread, n)], dim=1).double()
    orders = Orders(*(part.T.expand(-1, n).contiguous() for part in (point.voltage, point.power, point.held)))

    @torch.no_grad()
    def work() -> int:
        x = point.x.expand(n, -1).contiguous()
        for k in range(round(seconds / PIECE)):
            now = torch.full((n,), PIECE * k, dtype=torch.float64)
            x = integrate(system, x, orders, networks, intervals(now, PIECE, round(PIECE / STEP), edges))
        return round(n * seconds)

    return work


def scipy_work() -> Callable[[], int]:
    """One row of the classical system by DOP853, the fault's edges being restarts; it counts simulated seconds."""
    system = kundur_full.classical()
    point = system.operate(torch.ones(1, dtype=torch.float64))
    changes = phases(system, point, [Fault(8, 0.02, 0.075)])
    networks = changes.network[0].numpy()
    size, power = point.held[0].numpy(), point.power[0].numpy()
    omega, twice = system.omega, 2 * system.inertia

    def slope(Y: np.ndarray) -> Callable[[float, np.ndarray], np.ndarray]:
        def f(_: float, x: np.ndarray) -> np.ndarray:
            E = size * np.exp(1j * x[:4])
            return np.concatenate([omega * x[4:], (power - (E * (Y @ E).conj()).real) / twice])

        return f

    def work() -> int:
        x, start = point.x[0].numpy(), 0.0
        for Y, end in zip(networks, (0.02, 0.095, 1.0), strict=True):
            x = solve_ivp(slope(Y), (start, end), x, method="DOP853", rtol=1e-6, atol=1e-6).y[:, -1]
            start = end
        return 1

    return work


@torch.no_grad()
def _brake() -> int:
    """Every pattern of twelve decisions after a fault of 0.51 s."""
    patterns = torch.tensor(list(itertools.product((0, 1), repeat=12)))
    outcomes(0.51, patterns, STEP)
    return len(patterns) * 6
