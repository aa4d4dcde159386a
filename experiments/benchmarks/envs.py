"""Batched environments against ``SyncVectorEnv`` over the single ones, and the cost of the SB3 adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import metadata

import gymnasium
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv

from steersman.envs.registry import make_plant
from steersman.envs.sb3 import make_sb3
from steersman.envs.vector import PlantVectorEnv
from steersman.experiments.benchmarks.base import Progress, Row, throughput

CASES = (
    # plant, copies, steps per turn of ours and of the peer, bar
    ("Pendulum-v1", 64, 200, 10, 50.0),
    ("Pendulum-v1", 1024, 200, 10, 300.0),
    ("KuramotoSivashinsky-v1", 64, 100, 3, 15.0),
    ("WolfSheep-v1", 64, 10, 2, 6.0),
    ("TwoArea-v1", 64, 50, 3, 15.0),
)
"""The peer always runs 64 copies: its time per step of an environment does not depend on their number."""
PEER_COPIES = 64
ADAPTER_BAR = 1 / 2.5
ADAPTED = "Pendulum-v1"


def rows(progress: Progress) -> Iterator[Row]:
    """Steps of an environment per CPU-second."""
    peer_name = f"gymnasium {metadata.version('gymnasium')} SyncVectorEnv of the single env"
    for i, (name, copies, ours_steps, peer_steps, bar) in enumerate(CASES):
        progress(i / (len(CASES) + 1), f"{name} x {copies}")
        ours, peer = throughput(_batched(name, copies, ours_steps), _synced(name, peer_steps))
        yield Row(f"{name} x {copies}", "env steps / CPU s", ours, peer, peer_name, bar)
    progress(len(CASES) / (len(CASES) + 1), "stable-baselines3 adapter")
    for copies in (64, 1024):
        ours, peer = throughput(_adapted(copies, 200), _batched(ADAPTED, copies, 200))
        yield Row(f"SB3 adapter, {ADAPTED} x {copies}", "env steps / CPU s", ours, peer, "PlantVectorEnv", ADAPTER_BAR)


def _batched(name: str, copies: int, steps: int) -> Callable[[], int]:
    plant = make_plant(name)
    env = PlantVectorEnv(plant, copies)
    env.reset(seed=0)
    unit = torch.rand(copies, plant.actions.m, dtype=plant.dtype, generator=torch.Generator().manual_seed(0))
    actions = plant.actions.encode(plant.actions.sample(unit))

    def work() -> int:
        for _ in range(steps):
            env.step(actions)
        return steps * copies

    return work


def _synced(name: str, steps: int) -> Callable[[], int]:
    env = SyncVectorEnv([lambda: gymnasium.make(f"steersman/{name}")] * PEER_COPIES)
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = env.action_space.sample()

    def work() -> int:
        for _ in range(steps):
            env.step(actions)
        return steps * PEER_COPIES

    return work


def _adapted(copies: int, steps: int) -> Callable[[], int]:
    env = make_sb3(make_plant(ADAPTED), copies, seed=0)
    env.reset()
    actions = np.zeros((copies, *env.action_space.shape), np.float32)  # type: ignore[misc]

    def work() -> int:
        for _ in range(steps):
            env.step(actions)
        return steps * copies

    return work
