"""How much accuracy each halving of the ReLUs costs: sparse networks of 64, 32, 16, 8 and no ReLUs on three plants."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from steersman.dynamics.base import Dynamics, Trajectories
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.score import score
from steersman.dynamics.windowed.neural import NeuralDynamics, NeuralSettings
from steersman.dynamics.windowed.sparse import SparseNeuralDynamics, SparseSettings
from steersman.envs import make_simulator
from steersman.experiments.comparison.cell import Cell, Report

LADDER = (64, 32, 16, 8, 4, 0)
SEEDS = (0, 1, 2)
AHEAD = 10
EPISODES = 128
HOLDS = {"Pendulum-v1": (1, 10), "TwoAreaBrake-v1": (1, 6), "WolfSheep-v1": (2, 20)}
"""Plants, and how many control steps their data hold an action, at least and at most."""


@dataclass(frozen=True)
class Rung:
    """Error of one model on new episodes.

    Attributes:
        plant: Id without its namespace.
        model: Kind of model.
        relus: ReLUs left; -1 where the kind has none.
        seed: Seed of the fit.
        error: Root mean square over outputs of the error of z some steps ahead, relative to persistence's.
        seconds: CPU seconds of the fit.
    """

    plant: str
    model: str
    relus: int
    seed: int
    error: float
    seconds: float


@dataclass(frozen=True)
class Fit(Cell):
    """A model fitted to a plant's episodes and judged on new ones."""

    row: ClassVar[type] = Rung
    plant: str
    model: str
    relus: int
    seed: int
    hold: tuple[int, int]
    episodes: int = EPISODES
    ahead: int = AHEAD

    @property
    def name(self) -> str:
        """See :class:`Cell`."""
        kind = self.model if self.relus < 0 else f"{self.relus} ReLU"
        return f"{self.plant.rpartition('/')[2]}, {kind}, seed {self.seed}"

    def run(self, report: Report) -> list[Rung]:
        """See :class:`Cell`."""
        report(0.0, "collecting")
        data, test = (_episodes(self.plant, self.hold, self.episodes, seed) for seed in (0, 1))
        report(0.5, "fitting")
        start = time.process_time()
        model = self._made().bind(make_simulator(self.plant, 64).problem).fit(data)
        seconds = time.process_time() - start
        found = score(model, test, self.ahead)
        error = float((found.z.square().mean() / found.z_persistence.square().mean()).sqrt())
        return [Rung(self.plant.rpartition("/")[2], self.model, self.relus, self.seed, error, seconds)]

    def _made(self) -> Dynamics:
        if self.model == "linear":
            return LinearDynamics(context=2)
        if self.model == "dense SiLU":
            return NeuralDynamics(NeuralSettings(context=2, hidden=(32, 32), members=1, rollout=5, seed=self.seed))
        return SparseNeuralDynamics(SparseSettings(relus=self.relus, seed=self.seed))


@lru_cache(maxsize=2)
def _episodes(plant: str, hold: tuple[int, int], episodes: int, seed: int) -> Trajectories:
    return collect(make_simulator(plant, 64), HeldLevels(*hold), episodes=episodes, seed=seed)


def cells() -> Iterator[Fit]:
    """All fits."""
    for plant, hold in HOLDS.items():
        yield Fit(f"steersman/{plant}", "linear", -1, 0, hold)
        for seed in SEEDS:
            yield Fit(f"steersman/{plant}", "dense SiLU", -1, seed, hold)
            yield from (Fit(f"steersman/{plant}", "sparse", k, seed, hold) for k in LADDER)
