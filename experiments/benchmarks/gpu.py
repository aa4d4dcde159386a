"""Parallel rollouts on a GPU against one core of the CPU beside it: CartPole and a plant of each family."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch

from steersman.envs import make_simulator, noise
from steersman.envs.simulator import Simulator
from steersman.experiments.benchmarks.base import Progress, Row

PLANTS = ("CartPole-v1", "WolfSheep-v1", "KuramotoSivashinsky-v1", "TwoArea-v1")
SIZES = (2**10, 2**15, 2**20)
CORE = 2**10
"""Rows on the CPU: as many as one core steps fastest, about."""
BAR = 20.0
"""Of the largest batch that fits; smaller ones are shown."""
SECONDS = 2.0
"""Least time of a measurement."""


def rows(
    progress: Progress, device: str = "cuda", plants: Sequence[str] = PLANTS, sizes: Sequence[int] = SIZES
) -> Iterator[Row]:
    """Control steps of running or ended episodes per second of wall time.

    Raises:
        RuntimeError: If there is no GPU.
    """
    cuda = torch.device(device).type == "cuda"
    if cuda and not torch.cuda.is_available():
        raise RuntimeError("benchmark 'gpu' needs a CUDA device and there is none; run it on a machine with one")
    card = torch.cuda.get_device_name(device) if cuda else "the CPU"
    for i, plant in enumerate(plants):
        progress(i / len(plants), f"{plant} on the CPU")
        core = _rate(f"steersman/{plant}", min(CORE, *sizes), "cpu")
        found: list[tuple[int, float]] = []
        for j, n in enumerate(sizes):
            progress((i + (j + 1) / (len(sizes) + 1)) / len(plants), f"{plant} x {n:,} on {card}")
            try:
                found.append((n, _rate(f"steersman/{plant}", n, device)))
            except torch.OutOfMemoryError:
                break
        for n, rate in found:
            bar = BAR if n == found[-1][0] else 0.0
            yield Row(f"{plant} x {n:,} on {card}", "control steps / s", rate, core, "one core of the CPU", bar)


def _rate(id: str, n: int, device: str) -> float:
    """Control steps per second of all rows together, random actions held; the first few steps warm up."""
    simulator = make_simulator(id, n, device)
    simulator.reset(simulator.scenarios(noise.keys(0, n)))
    like = torch.rand(n, simulator.actions.m, generator=torch.Generator().manual_seed(0)).to(device, simulator.dtype)
    u = simulator.actions.sample(like)
    _run(simulator, u, 3)
    steps = 1
    while True:
        seconds = _run(simulator, u, steps)
        if seconds >= SECONDS:
            return n * steps / seconds
        steps = max(2 * steps, int(1.2 * SECONDS / max(seconds, 1e-6) * steps))


def _run(simulator: Simulator, u: torch.Tensor, steps: int) -> float:
    _wait(simulator.device)
    begun = time.perf_counter()
    for _ in range(steps):
        simulator.step(u)
    _wait(simulator.device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
