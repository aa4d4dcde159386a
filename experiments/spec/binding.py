"""Whether the controllers of a comparison can serve their plants, found out before anything is collected or trained.

What a run will bind is bound here. Models that need no fit are the real ones. A learned one has no weights yet; in its
place stands a small one of its kind, fitted in a moment to invented numbers. Those are of a stable system that they
determine, so that no refusal rests on them; what hangs on the numbers of the real fit is found by the run.
"""

from __future__ import annotations

from collections.abc import Container
from functools import cached_property

import torch
from torch import Tensor

from steersman.dynamics.base import REMEDY, Dynamics, Trajectories
from steersman.dynamics.collect import episode_steps
from steersman.dynamics.registry import model_spec
from steersman.envs.plant import ControlProblem
from steersman.envs.simulator import Simulator
from steersman.experiments.comparison.runner import build_controller, build_model
from steersman.experiments.spec.comparison import ControllerEntry, ModelEntry, PlantEntry
from steersman.experiments.spec.plan import model_of
from steersman.experiments.spec.settings import SpecError

MOST = 500
"""Outputs and actions together, beyond which a stand-in is not fitted: that would take longer than a moment."""
REFUSALS = (ValueError, SpecError)
"""What contracts refuse by; their descendants, such as that of a singular matrix, are accidents."""
STEPS, DECAY = 2, 0.5
"""Steps of an invented episode, and what is left of an output after each."""


def unbindable(plant: PlantEntry, simulator: Simulator, where: str, answered: Container[str] = ()) -> list[str]:
    """What is wrong with the rows of a plant that cannot run.

    Args:
        plant: The plant with its controllers.
        simulator: A row of it, on which failures have a price, as in a run.
        where: Path of the plant in the comparison file.
        answered: Labels of rows whose results exist: they can run.

    Returns:
        A line for each row: key, reason with its remedy, label and plant.
    """
    models, found = _Models(simulator), []
    for j, entry in enumerate(plant.controllers):
        key = f"{where}.controllers.{j}"
        if entry.name not in answered and (reason := _fault(entry, model_of(plant, entry, key), simulator, models)):
            found.append(f"{key}: {reason} (row {entry.name!r} of {plant.name})")
    return found


def refuse(faults: list[str]) -> None:
    """Raises: SpecError: With all of them, if there are any."""
    if faults:
        raise SpecError("\n".join(faults if len(faults) == 1 else [f"{len(faults)} rows cannot run:", *faults]))


def _fault(entry: ControllerEntry, model: ModelEntry | None, simulator: Simulator, models: _Models) -> str | None:
    """Why a row cannot run; None if nothing is known against it."""
    try:
        controller = build_controller(entry)
    except Exception as error:
        return _told(error)
    try:
        controller.bind(simulator.problem, None if model is None else models(entry.model, model))
    except (Exception, SystemExit) as error:  # a plant's code may be the user's, and raise anything
        # Contracts refuse by ValueError; whatever else a stand-in breaks says nothing of the fitted model.
        return _told(error) if type(error) in REFUSALS or model is None or not _learned(model) else None
    return None


def _told(error: BaseException) -> str:
    return str(error) if type(error) in REFUSALS else f"{type(error).__name__}: {error}"


def _learned(model: ModelEntry) -> bool:
    return not model_spec(model.use).needs_plant


class _Models:
    """Models of one plant by what its controllers call them: the plant's own, and stand-ins of learned ones."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._made: dict[str, Dynamics] = {}

    def __call__(self, name: str, entry: ModelEntry) -> Dynamics:
        if name not in self._made:
            self._made[name] = self._make(entry)
        return self._made[name]

    def _make(self, entry: ModelEntry) -> Dynamics:
        model = build_model(entry.use, entry.settings, self._simulator)  # refuses settings that are out of range
        if not _learned(entry):
            return model
        if model.uniform_only and entry.data.sensing.uneven:
            raise ValueError(f"{type(model).__name__} knows steps of one control period only; {REMEDY}")
        problem = self._simulator.problem
        steps = episode_steps(entry.data.steps, problem.horizon)
        # All episodes are planned to be as long: what two of them do not hold, more do not.
        model.require_transitions(torch.ones(min(entry.data.episodes, 2), steps, dtype=torch.bool))
        hasty = model_spec(entry.use).hasty
        if hasty is None or problem.ny + problem.actions.m > MOST:
            return model  # enough for controllers that refuse its kind, or do not look inside when they are bound
        small = build_model(entry.use, {**entry.settings, **hasty}, self._simulator)
        small.fit(self._data)
        return small

    @cached_property
    def _data(self) -> Trajectories:
        return invented(self._simulator.problem)


def invented(problem: ControlProblem) -> Trajectories:
    """Episodes of a system in which every output halves in each step, whatever the actions: twice what determines it.

    Outputs are positive, since models of quantities take no others; performance outputs repeat measured ones.
    """
    gen = torch.Generator().manual_seed(0)
    ny, m = problem.ny, problem.actions.m
    n = 2 * (ny + m + 1)  # episodes, not steps: outputs that fade together stay on one line

    def draw(width: int) -> Tensor:
        return torch.rand(n * STEPS, width, generator=gen, dtype=torch.float64).clamp(min=1e-9)

    start = 0.5 + draw(ny)[:n, None]
    y = start * DECAY ** torch.arange(STEPS + 1, dtype=torch.float64)[:, None]
    u = problem.actions.sample(draw(m)).reshape(n, STEPS, m)
    z = y[..., torch.arange(problem.nz) % ny] if ny else y.new_zeros(n, STEPS + 1, problem.nz)
    return Trajectories(y, z, u, torch.ones(n, STEPS, dtype=torch.bool), problem.period)
