"""PDE plants against controlgym in an environment of its own (``make peers``), and against plain loops."""

from __future__ import annotations

import math
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from steersman.envs import noise
from steersman.envs.pde.cavity import SIDE, SPACING, CavityFlow
from steersman.envs.pde.kuramoto_sivashinsky import KuramotoSivashinsky
from steersman.envs.pde.spectral import SpectralPlant, boxes
from steersman.envs.pde.vorticity import VorticityFlow
from steersman.experiments.benchmarks.base import Progress, Row, rate, throughput

PEER = Path(".venv-peers/bin/python")
"""Interpreter of the peers' environment, from the root of a clone."""
_PEER_STEPS = """
import sys, time
import controlgym, numpy
env = controlgym.make(sys.argv[1], n_state=256, n_steps=1000, seed=0)
env.reset(seed=0)
u = numpy.zeros(env.n_action)
env.step(u)
best = 0.0
for turn in range(3):
    start = time.process_time()
    for _ in range(20):
        env.step(u)
    best = max(best, 20 / (time.process_time() - start))
print(best)
"""


def rows(progress: Progress) -> Iterator[Row]:
    """Environment steps per CPU-second, one thread.

    Raises:
        FileNotFoundError: Without the peers' environment; the message names the command that makes it.
    """
    if not PEER.is_file():
        raise FileNotFoundError(f"{PEER} is missing: run 'make peers' and start in the root of the clone")
    f64, f32 = torch.float64, torch.float32
    compared: list[tuple[str, Callable[..., SpectralPlant], tuple[tuple[int, torch.dtype, float], ...]]] = [
        ("kuramoto_sivashinsky", kuramoto, ((100, f64, 15.0), (5, f64, 300.0))),
        ("burgers", _burgers, ((50, f64, 15.0), (8, f64, 150.0), (8, f32, 300.0))),
    ]
    for i, (name, make, cases) in enumerate(compared):
        progress(i / 4, name)
        # The peer is measured around ours, since the load of a shared machine changes within minutes.
        peer, found = _peer(name), []
        for count, dtype, bar in cases:
            plant, gap = make(count, dtype=dtype), _error(make, count, dtype)
            kind = f"{count} substeps, {str(dtype).removeprefix('torch.')} (error {gap:.1e} a step)"
            found.append((f"{name}, 256 points, 64 rows, {kind}", rate(steps(plant, 64), turns=8), bar))
        peer = max(peer, _peer(name))
        for label, ours, bar in found:
            yield Row(label, "steps / CPU s", ours, peer, "controlgym 1.0.0", bar)
    progress(0.5, "cavity")
    ours, theirs = throughput(_cavity(256), _sweeps(), repeats=4)
    yield Row("cavity, 256 rows", "steps / CPU s", ours, theirs, "2000 sweeps in numpy", 1000.0)
    progress(0.7, "vorticity")
    label = "2D Navier-Stokes, 64 x 64, 16 rows, float32, AB2/CN"
    yield Row(label, "substeps of a row / CPU s", rate(_vorticity()), 10_000, "target", 1.0)
    progress(0.75, "gradient")
    seconds = _gradient()
    yield Row("gradient through 100 KS steps, 32 rows", "1 / CPU s", 1 / seconds, 1 / 2.0, "target of 2 s", 1.0)


def kuramoto(substeps: int, points: int = 256, dtype: torch.dtype = torch.float64) -> SpectralPlant:
    """Controlgym's equation: L = 32 pi, 0.5 time units a step."""
    length = 32 * math.pi
    return SpectralPlant(
        length=length, points=points, symbol=lambda q: q**2 - q**4, flux=lambda u: u.square() / 2, start=_waves,
        actuators=boxes(length, points, tuple(length * (i + 0.5) / 8 for i in range(8)), 0.1 * length),
        sensors=tuple(range(0, points, points // 8)), dt=0.5 / substeps, hold=substeps, horizon=500,
        dtype=dtype,
    )  # fmt: skip


def _burgers(substeps: int, dtype: torch.dtype = torch.float64) -> SpectralPlant:
    """Controlgym's equation: L = 1, viscosity 0.001, 0.05 time units a step."""
    return SpectralPlant(
        length=1.0, points=256, symbol=lambda q: -0.001 * q**2, flux=lambda u: u.square() / 2, start=_waves,
        actuators=boxes(1.0, 256, tuple((i + 0.5) / 8 for i in range(8)), 0.1), sensors=tuple(range(0, 256, 32)),
        dt=0.05 / substeps, hold=substeps, horizon=100, dtype=dtype,
    )  # fmt: skip


def _waves(x: Tensor, key: Tensor) -> Tensor:
    """Sums of the first five waves with random phases."""
    phase = 2 * math.pi * noise.uniform(key, 5)
    unit = 2 * math.pi * x / (x[1] * len(x))
    return sum((0.3 * torch.sin((i + 1) * unit + phase[:, i, None]) for i in range(5)), torch.zeros(len(key), len(x)))


def _error(make: Callable[..., SpectralPlant], substeps: int, dtype: torch.dtype) -> float:
    """Largest relative error of a step against ten times as many substeps in float64, after a transient."""
    x = make(100).start(make(100).grid, noise.keys(0, 4))
    for _ in range(20):
        x = _advance(make(100), x)
    exact = _advance(make(10 * substeps), x)
    found = _advance(make(substeps, dtype=dtype), x.to(dtype)).to(exact)
    return float(((found - exact).norm(dim=1) / exact.norm(dim=1)).max())


def _advance(plant: SpectralPlant, x: Tensor) -> Tensor:
    k = torch.zeros(len(x), dtype=torch.int64)
    after = plant.step(k, x, torch.zeros(len(x), plant.actions.m, dtype=x.dtype), k, {})
    assert isinstance(after, Tensor)  # noqa: S101 - narrows the type
    return after


def steps(plant: SpectralPlant, n: int) -> Callable[[], int]:
    """Work of ten control steps of ``n`` rows without control; it counts steps of a row."""
    x = plant.start(plant.grid, noise.keys(0, n)).to(plant.dtype)

    def work() -> int:
        state = x
        for _ in range(10):
            state = _advance(plant, state)
        return 10 * n

    return work


def _peer(name: str) -> float:
    # One thread, as on our side; its linear algebra would otherwise be charged for two.
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [str(PEER), "-c", _PEER_STEPS, name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | one)  # noqa: S603
    return float(done.stdout)


def _cavity(n: int) -> Callable[[], int]:
    plant = CavityFlow()
    x = plant.initial(noise.keys(0, n), {})
    u, k = torch.zeros(n, 1, dtype=torch.float64), torch.zeros(n, dtype=torch.int64)

    def work() -> int:
        state = x
        for _ in range(50):
            state = plant.step(k, state, u, k, {})
        return 50 * n

    return work


def _sweeps() -> Callable[[], int]:
    """The pressure of one step, sweep by sweep."""
    generator = np.random.default_rng(0)
    source = generator.normal(size=(SIDE, SIDE))

    def work() -> int:
        p = np.zeros((SIDE, SIDE))
        for _ in range(2000):
            q = p.copy()
            q[1:-1, 1:-1] = (
                p[1:-1, :-2] + p[:-2, 1:-1] + p[1:-1, 2:] + p[2:, 1:-1] - SPACING**2 * source[1:-1, 1:-1]
            ) / 4
            q[:, -1], q[0] = q[:, -2], q[1]
            q[:, 0], q[-1] = q[:, 1], q[-2]
            p = q
        return 1

    return work


def _vorticity() -> Callable[[], int]:
    flow = VorticityFlow(64, 1 / 200, 0.005, 3.0)
    omega = 2 * noise.normal(noise.keys(0, 16), 64 * 64, dtype=torch.float32).reshape(16, 64, 64)
    still = torch.zeros(1, 64, 64)

    def work() -> int:
        flow.run(omega, still, 100)
        return 100 * 16

    return work


def _gradient() -> float:
    """CPU seconds of a forward and backward pass through 100 control steps of the KS plant."""
    plant = KuramotoSivashinsky()
    key = noise.keys(0, 32)
    x = plant.initial(key, {})
    best = math.inf
    for _ in range(2):
        u = torch.zeros(32, 8, dtype=torch.float64, requires_grad=True)
        start = time.process_time()
        state = x
        for j in range(100):
            state = plant.step(torch.full((32,), j), state, u, key, {})
        assert isinstance(state, Tensor)  # noqa: S101 - narrows the type
        state.square().sum().backward()  # type: ignore[no-untyped-call]
        best = min(best, time.process_time() - start)
    return best
