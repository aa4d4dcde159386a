"""What turns a Mesa model into a control problem, and one replica of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steersman.envs.abm import _mesa
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective
from steersman.envs.plant import ControlProblem, Status
from steersman.envs.rows.base import Episode, Vector

Outputs = Sequence[int | float]


@dataclass(frozen=True, kw_only=True)
class MesaTask:
    """A Mesa model as a control problem: a factory and three small functions, and what is admissible and wanted.

    Functions must be importable (not lambdas) where replicas run in worker processes.

    Attributes:
        model: Makes the model from an integer seed; it may draw its parameters from it ("patients").
        control: Writes an action ``[m]`` into the model, at the start of every control step.
        measure: Measured outputs y of the model.
        actions: Admissible actions.
        objective: Stage cost over z, u and references.
        measured: Names of y.
        horizon: Control steps of an episode.
        hold: Ticks of the model per control step.
        perform: Performance outputs z; by default those measured.
        performed: Names of z.
        target: Reference of z; by default zero.
        failed: Whether an episode has failed; a failed one costs ``objective.failure`` each remaining step.
        warmup: Ticks without control before an episode.
        exogenous: Indices of y that no action influences.
        time_unit: Unit of a tick.
    """

    model: Callable[[int], Any]
    control: Callable[[Any, Vector], None]
    measure: Callable[[Any], Outputs]
    actions: ActionSet
    objective: Objective
    measured: tuple[str, ...]
    horizon: int
    hold: int = 1
    perform: Callable[[Any], Outputs] | None = None
    performed: tuple[str, ...] = ()
    target: tuple[float, ...] = ()
    failed: Callable[[Any], bool] | None = None
    warmup: int = 0
    exogenous: tuple[int, ...] = ()
    time_unit: str = "tick"

    def __post_init__(self) -> None:
        for name in ("model", "control", "measure"):
            if not callable(getattr(self, name)):
                raise ValueError(f"{name} must be a function, got {getattr(self, name)!r}; see MesaTask")
        for name, least in (("horizon", 1), ("hold", 1), ("warmup", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if (self.perform is None) != (not self.performed):
            raise ValueError("perform and performed belong together: give the function and its names, or neither")
        if self.target and len(self.target) != len(self.performed or self.measured):
            raise ValueError(f"target has {len(self.target)} entries but z has {len(self.performed or self.measured)}")

    @property
    def problem(self) -> ControlProblem:
        """What a controller may know."""
        return ControlProblem(
            self.actions, self.objective, float(self.hold), self.horizon, self.measured,
            self.performed or self.measured, self.exogenous, self.time_unit,
        )  # fmt: skip


class Replica(Episode):
    """One running model."""

    def __init__(self, task: MesaTask, seed: int) -> None:
        """Build the model and warm it up.

        Raises:
            TypeError: If the factory does not return a Mesa model.
            ValueError: If a function of the task returns the wrong number of values.
        """
        super().__init__(seed)
        self.task = task
        self.model = task.model(seed)
        if not hasattr(self.model, "agents") or not hasattr(self.model, "step"):
            raise TypeError(f"model(seed) must return a mesa.Model, got {type(self.model).__name__}")
        if task.warmup:
            _mesa.advance(self.model, task.warmup)
        self.y, self.z = self._outputs()

    def step(self, u: Vector) -> None:
        """One control step; a model whose outputs are no longer finite has diverged and stays as it is."""
        self.task.control(self.model, u)
        _mesa.advance(self.model, self.task.hold)
        y, z = self._outputs()
        if not (np.isfinite(y).all() and np.isfinite(z).all()):
            self.status = Status.DIVERGED
            return
        self.y, self.z = y, z
        if self.task.failed is not None and self.task.failed(self.model):
            self.status = Status.TERMINATED

    def _outputs(self) -> tuple[Vector, Vector]:
        task = self.task
        y = _vector("measure", task.measure(self.model), task.measured)
        if task.perform is None:
            return y, y
        return y, _vector("perform", task.perform(self.model), task.performed)


def _vector(name: str, values: Outputs, names: tuple[str, ...]) -> Vector:
    found = np.asarray(values, dtype=np.float64)
    if found.shape != (len(names),):
        raise ValueError(f"{name} must return {len(names)} numbers ({', '.join(names)}), got shape {found.shape}")
    return found
