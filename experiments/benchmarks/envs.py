"""Batched environments against ``SyncVectorEnv`` over the single ones, and the cost of the SB3 adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

import gymnasium
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from torch import Tensor

from steersman.envs import noise
from steersman.envs.gymnasium_adapters.sb3 import make_sb3
from steersman.envs.gymnasium_adapters.vector import PlantVectorEnv
from steersman.envs.plant import Plant
from steersman.envs.registry import make_plant
from steersman.envs.simulator import draw_scenarios
from steersman.experiments.benchmarks.base import Progress, Row, throughput


@dataclass(frozen=True)
class Case:
    """A plant to step.

    Attributes:
        plant: Its name.
        copies: Rows of the vector env.
        steps: Steps per turn of ours and of the peer.
        bar: Smallest ratio.
        share: Actions are random in this share of their range; gentle removals keep the wolves alive, so that
            steps are timed and not restarts.
        bank: Whether restarts of ours come from a bank of scenarios (the peer has none).
    """

    plant: str
    copies: int
    steps: tuple[int, int]
    bar: float
    share: float = 1.0
    bank: bool = False

    @property
    def label(self) -> str:
        """Name in the table."""
        return f"{self.plant} x {self.copies}" + (", many restarts, from a bank" if self.bank else "")


CASES = (
    Case("Pendulum-v1", 64, (200, 10), 50.0),
    Case("Pendulum-v1", 1024, (200, 10), 300.0),
    Case("KuramotoSivashinsky-v1", 64, (100, 3), 15.0),
    Case("WolfSheep-v1", 64, (10, 2), 6.0, share=0.05),
    Case("WolfSheep-v1", 64, (10, 2), 6.0, bank=True),
    Case("TwoArea-v1", 64, (50, 3), 15.0),
)
"""The peer always runs 64 copies: its time per step of an environment does not depend on their number."""
PEER_COPIES = 64
ADAPTER_BAR = 1 / 2.5
ADAPTED = "Pendulum-v1"


def rows(progress: Progress) -> Iterator[Row]:
    """Steps of an environment per CPU-second."""
    peer_name = f"gymnasium {metadata.version('gymnasium')} SyncVectorEnv of the single env"
    for i, case in enumerate(CASES):
        progress(i / (len(CASES) + 1), case.label)
        ours, peer = throughput(_batched(case), _synced(case))
        yield Row(case.label, "env steps / CPU s", ours, peer, peer_name, case.bar)
    progress(len(CASES) / (len(CASES) + 1), "stable-baselines3 adapter")
    for copies in (64, 1024):
        ours, peer = throughput(_adapted(copies, 200), _batched(Case(ADAPTED, copies, (200, 0), ADAPTER_BAR)))
        yield Row(f"SB3 adapter, {ADAPTED} x {copies}", "env steps / CPU s", ours, peer, "PlantVectorEnv", ADAPTER_BAR)


def _batched(case: Case) -> Callable[[], int]:
    plant = make_plant(case.plant)
    bank = draw_scenarios(plant, noise.keys(1, 256)) if case.bank else None
    env = PlantVectorEnv(plant, case.copies, bank=bank)
    env.reset(seed=0)
    actions = _actions(plant, case.copies, case.share)

    def work() -> int:
        for _ in range(case.steps[0]):
            env.step(actions)
        return case.steps[0] * case.copies

    return work


def _synced(case: Case) -> Callable[[], int]:
    env = SyncVectorEnv([lambda: gymnasium.make(f"steersman/{case.plant}")] * PEER_COPIES)
    env.reset(seed=0)
    actions = _actions(make_plant(case.plant), PEER_COPIES, case.share).numpy()

    def work() -> int:
        for _ in range(case.steps[1]):
            env.step(actions)
        return case.steps[1] * PEER_COPIES

    return work


def _actions(plant: Plant, copies: int, share: float) -> Tensor:
    unit = torch.rand(copies, plant.actions.m, dtype=plant.dtype, generator=torch.Generator().manual_seed(0))
    return plant.actions.encode(plant.actions.project(share * plant.actions.sample(unit)))


def _adapted(copies: int, steps: int) -> Callable[[], int]:
    env = make_sb3(make_plant(ADAPTED), copies, seed=0)
    env.reset()
    actions = np.zeros((copies, *env.action_space.shape), np.float32)  # type: ignore[misc]

    def work() -> int:
        for _ in range(steps):
            env.step(actions)
        return steps * copies

    return work
