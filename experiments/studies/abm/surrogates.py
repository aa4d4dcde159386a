"""How well surrogates predict the mean of wolf-sheep-grass herds, free and under controls they never saw."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.dynamics.base import Dynamics, Trajectories
from steersman.dynamics.collect import Exciter, HeldLevels, collect_means
from steersman.dynamics.continuous.neural_ode import NeuralODE, NeuralODESettings
from steersman.dynamics.kinetic.reactions import Process, ReactionDynamics, ReactionSettings
from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.windowed.neural import NeuralDynamics, NeuralSettings
from steersman.dynamics.windowed.windows import window_at
from steersman.envs.abm.wolf_sheep import WolfSheep
from steersman.envs.simulator import Measurement, PlantSimulator
from steersman.experiments.comparison.cell import Cell, Report

REPLICAS = 256
FREE, CONTROLLED, TESTS = 4, 24, 12
STEPS = 50
"""Control steps of ten ticks: 500 ticks."""
SHARE = 0.3
"""Removal rates up to 3 % per tick: beyond that the wolves die out and there is no mean to speak of."""
SPECIES = ("sheep", "wolves", "grass")
PROCESSES = (
    Process(("sheep", "grass"), {"sheep": 1}),
    Process(("sheep",), {"sheep": -1}),
    Process(("sheep", "wolves"), {"sheep": -1}),
    Process(("sheep", "wolves"), {"wolves": 1}),
    Process(("wolves",), {"wolves": -1}),
    Process((), {"grass": 1}),
    Process(("grass",), {"grass": -1}),
    Process(("sheep", "grass"), {"grass": -1}),
    Process(("remove_sheep", "sheep"), {"sheep": -1}),
    Process(("remove_wolves", "wolves"), {"wolves": -1}),
)
"""Meals and births, starvation, predation, regrowth of brown cells, grazing, removal."""


class Nothing(Exciter):
    """No removal."""

    def __call__(self, m: Measurement) -> Float[Tensor, "n m"]:
        """Zero."""
        return torch.zeros(m.n, self._actions.m, dtype=self._dtype)


@dataclass(frozen=True)
class Outcome:
    """Open-loop error of one surrogate over 500 ticks, in percent of the mean.

    Attributes:
        model: Kind of model.
        fitted_to: "free" means, or "all": free and controlled ones.
        free: Errors of sheep, wolves and grass on a free mean of other herds, from the setup on.
        controlled: Errors on means under controls that no fit saw.
        seconds: CPU seconds of the fit.
    """

    model: str
    fitted_to: str
    free: tuple[float, ...]
    controlled: tuple[float, ...]
    seconds: float


def kinetics(exponents: bool) -> Callable[[], Dynamics]:
    """Mass action, or generalised mass action."""
    settings = ReactionSettings(processes=PROCESSES, exponents=exponents, steps=500, rollout=25, substeps=3)
    return lambda: ReactionDynamics(settings)


MODELS: dict[str, Callable[[], Dynamics]] = {
    "mass action": kinetics(False),
    "generalised mass action": kinetics(True),
    "linear": lambda: LinearDynamics(context=4),
    "neural ODE": lambda: NeuralODE(NeuralODESettings(rollout=20, steps=2000)),
    "neural ODE, 4 measurements": lambda: NeuralODE(NeuralODESettings(context=4, rollout=20, steps=2000)),
    "neural": lambda: NeuralDynamics(NeuralSettings(context=4, hidden=(32, 32), rollout=10, steps=2000)),
}


def joined(a: Trajectories, b: Trajectories) -> Trajectories:
    """Both sets of trajectories."""
    y, z, u, valid = (torch.cat([getattr(a, name), getattr(b, name)]) for name in ("y", "z", "u", "valid"))
    return Trajectories(y, z, u, valid, a.period)


@torch.no_grad()
def predicted(model: Dynamics, data: Trajectories) -> Float[Tensor, "N T 3"]:
    """Open-loop predictions of sheep, wolves and grass; the first ``context`` entries are the data's."""
    length = model.context
    rows = torch.tensor([[i, length - 1] for i in range(len(data))])
    h, series = model.init(window_at(data, rows, length)), [data.y[:, j, :3] for j in range(length)]
    for k in range(length - 1, data.u.shape[1]):
        h = model.step(h, data.u[:, k])
        series.append(model.output(h)[0][:, :3])
    return torch.stack(series, dim=1)


def error(model: Dynamics, data: Trajectories) -> tuple[float, ...]:
    """Root mean square over valid steps, in percent of the mean."""
    mask = data.valid.cumprod(dim=1).bool()
    found, true = predicted(model, data)[:, 1:][mask], data.y[:, 1:, :3][mask]
    return tuple((100 * (found - true).square().mean(dim=0).sqrt() / true.mean(dim=0)).tolist())


@lru_cache(maxsize=4)
def ensemble(kind: str, replicas: int) -> Trajectories:
    """Means of herds.

    Args:
        kind: "free" from the setup on, "other" ones likewise; "controlled", or "unseen" by any fit.
        replicas: Herds of a mean.
    """
    groups, seed = {"free": (FREE, 0), "controlled": (CONTROLLED, 1), "unseen": (TESTS, 2), "other": (1, 3)}[kind]
    if kind in ("free", "other"):
        return collect_means(_herds(0, replicas), Nothing(), groups=groups, seed=seed)
    return collect_means(_herds(200, replicas), HeldLevels(3, 20, SHARE), groups=groups, seed=seed)


def _herds(warmup: int, replicas: int) -> PlantSimulator:
    return PlantSimulator(WolfSheep(horizon=STEPS, warmup=warmup), replicas)


def fitted(model: str, to: str, replicas: int) -> tuple[Dynamics, float]:
    """A surrogate, fitted to "free" means or to "all", and the CPU seconds that it took."""
    data = ensemble("free", replicas)
    if to == "all":
        data = joined(data, ensemble("controlled", replicas))
    made, start = MODELS[model]().bind(_herds(0, replicas).problem), time.process_time()
    return made.fit(data), time.process_time() - start


@dataclass(frozen=True)
class Fitting(Cell):
    """A surrogate to fit.

    Attributes:
        model: Key of ``MODELS``.
        fitted_to: "free" or "all".
        replicas: Herds of a mean.
    """

    row: ClassVar[type] = Outcome
    title: ClassVar[str] = "{model} ({fitted_to})"
    model: str
    fitted_to: str
    replicas: int = REPLICAS

    def run(self, report: Report) -> list[Outcome]:
        """See :class:`Cell`."""
        report(0.0, "simulating and fitting")
        model, taken = fitted(self.model, self.fitted_to, self.replicas)
        free, unseen = (error(model, ensemble(kind, self.replicas)) for kind in ("other", "unseen"))
        return [Outcome(self.model, self.fitted_to, free, unseen, taken)]


@dataclass(frozen=True)
class Course:
    """The mean of one species and what a surrogate predicts, every ten ticks.

    Attributes:
        species: Name.
        data: "free", or "under unseen removal".
        true: Mean of the agents.
        guess: Prediction from the first measurements.
    """

    species: str
    data: str
    true: tuple[float, ...]
    guess: tuple[float, ...]


@dataclass(frozen=True)
class Courses(Cell):
    """Predictions for the picture, of a surrogate that is fitted to all means."""

    row: ClassVar[type] = Course
    title: ClassVar[str] = "courses: {model}"
    model: str
    replicas: int = REPLICAS

    def run(self, report: Report) -> list[Course]:
        """See :class:`Cell`."""
        report(0.0, "simulating and fitting")
        model, _ = fitted(self.model, "all", self.replicas)
        unseen, found = ensemble("unseen", self.replicas), []
        longest = unseen.index(unseen.valid.sum(dim=1).argmax()[None])
        for data, label in ((ensemble("other", self.replicas), "free"), (longest, "under unseen removal")):
            guess, end = predicted(model, data)[0], int(data.valid[0].sum()) + 1
            for i, species in enumerate(SPECIES):
                series = [tuple(round(float(v), 2) for v in part[:end, i]) for part in (data.y[0], guess)]
                found.append(Course(species, label, *series))
        return found


def fittings() -> list[Fitting]:
    """All surrogates."""
    return [Fitting(model, data) for model in MODELS for data in ("free", "all")]
