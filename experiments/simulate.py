"""One episode of one controller, with a film of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from steersman.controllers.base import Training
from steersman.controllers.registry import controller_spec
from steersman.dynamics.registry import make_model, model_spec
from steersman.envs import noise
from steersman.envs.episodes import episodes
from steersman.envs.gymnasium_adapters.gym_simulator import GymSimulator
from steersman.envs.plant import Plant, Status, Trail
from steersman.envs.registry import make_simulator
from steersman.envs.simulator import Measurement, PlantSimulator, Simulator
from steersman.experiments.spec.settings import SpecError, validated

FRAMES = 200
"""A film has at most so many frames; longer episodes skip steps."""
FRAME_MS = 70
"""Time of a frame."""


@dataclass(frozen=True)
class Simulated:
    """Result of an episode: total cost, control steps, final status by name, fallbacks, and what is to be said."""

    cost: float
    steps: int
    status: str
    fallbacks: int
    notes: tuple[str, ...] = ()


def simulate(
    env: str,
    controller: str,
    *,
    model: str = "",
    settings: dict[str, Any] | None = None,
    seed: int = 0,
    steps: int | None = None,
    gif: Path | None = None,
    progress: Callable[[float, str], None] = lambda fraction, text: None,
) -> Simulated:
    """Run one episode, training the controller first if it learns.

    Raises:
        SpecError: If a name or a setting is wrong, or the controller needs a model that has to be fitted.
    """
    sim = _simulator(env, film=gif is not None)
    if steps is not None and not 1 <= steps <= sim.problem.horizon:
        raise SpecError(f"--steps must be between 1 and the horizon {sim.problem.horizon}, got {steps}")
    known = controller_spec(controller)
    law = known.make(**validated(known.make, settings or {}, "--settings"))
    name = model or ("truth" if known.needs_model else "")
    if name and not model_spec(name).needs_plant:
        raise SpecError(f"--model {name} has to be fitted to data; 'steersman compare' does that")
    # Who plans or learns must know what a failure costs, before there is one.
    price = sim.price() if known.needs_model or known.learns else None
    law.bind(sim.problem, make_model(name, sim.plant) if name else None)
    law.train(Training(lambda n: make_simulator(env, n, price=price), seed, progress=progress))
    law.reset(1)
    total, fallbacks = 0.0, 0
    length = steps or sim.problem.horizon
    film = _Film(sim, gif, -(-length // FRAMES))

    def act(m: Measurement) -> Tensor:
        nonlocal fallbacks
        if int(m.k[0]) == 0:
            film.frame(0, None)
        decision = law.act(m)
        fallbacks += int(decision.outcome[0] != 0)
        return decision.u

    for step in episodes(sim, sim.scenarios(noise.keys(seed, 1)), act, ahead=law.preview, steps=length):
        film.frame(step.k + 1, step.u)
        total += float(step.result.cost)
        progress((step.k + 1) / length, f"step {step.k + 1} of {length}, cost {total:.4g}")
    film.close()
    sim.close()
    return Simulated(total, step.k + 1, Status(int(step.result.status)).name, fallbacks, sim.notes)


def _simulator(env: str, *, film: bool) -> Simulator:
    sim = make_simulator(env, 1)
    if not film or (isinstance(sim, PlantSimulator) and type(sim.plant).render is not Plant.render):
        return sim
    sim.close()
    if isinstance(sim, GymSimulator) and sim.draws:
        return make_simulator(env, 1, render_mode="rgb_array")
    raise SpecError(f"--gif: this environment draws no pictures ({env}); leave --gif out")


class _Film:
    """Collects pictures of the plant, or of the gymnasium environment, every few steps."""

    def __init__(self, sim: Simulator, path: Path | None, every: int) -> None:
        self._sim, self._path, self._every = sim, path, every
        self._pictures: list[NDArray[Any]] = []
        if path is not None:
            if path.suffix != ".gif":
                raise SpecError(f"--gif must name a .gif file, got {path}")
            path.parent.mkdir(parents=True, exist_ok=True)
        self._trail: Trail | None = None

    def frame(self, k: int, u: Tensor | None) -> None:
        if self._path is None:
            return
        sim, due = self._sim, k % self._every == 0
        if isinstance(sim, PlantSimulator):
            self._trail = sim.record(self._trail, u)
            if due:
                self._pictures.append(sim.plant.render(self._trail))
        elif isinstance(sim, GymSimulator) and due:
            self._pictures.append(sim.render())

    def close(self) -> None:
        if self._path is not None:
            first, *others = (Image.fromarray(np.asarray(p)) for p in self._pictures)
            first.save(self._path, save_all=True, append_images=others, duration=FRAME_MS, loop=0)
