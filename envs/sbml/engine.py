"""Running an SBML model: from a state, under actions that are held, for a control period."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steersman.envs.importing import one_line
from steersman.envs.rows.base import Vector
from steersman.envs.sbml.model import SbmlModel, quiet


@dataclass(frozen=True)
class Solver:
    """Settings of CVODE.

    Attributes:
        relative: Relative tolerance.
        absolute: Absolute tolerance, of amounts.
        most_steps: Internal steps in a control period, beyond which the row has diverged.
    """

    relative: float = 1e-8
    absolute: float = 1e-12
    most_steps: int = 20_000


class Engine:
    """One libroadrunner object and how it is moved.

    Each control step restarts the solver, as an action that jumps demands: a step is a function of state, time and
    action, the same whatever the object did before.
    """

    def __init__(self, model: SbmlModel, solver: Solver, outputs: tuple[str, ...], actions: tuple[str, ...]) -> None:
        """Prepare to run.

        Args:
            model: The model.
            solver: Settings of the solver.
            outputs: What is read after a step.
            actions: What is moved: floating species are given doses, all else is set.
        """
        self._model, self._solver, self._outputs = model, solver, outputs
        self._held = [(i, name) for i, name in enumerate(actions) if name not in model.floating]
        self._doses = [(i, name) for i, name in enumerate(actions) if name in model.floating]
        self._use(model.copy())

    def _use(self, runner: Any) -> None:
        """Run on a libroadrunner object from now on."""
        solver, state = self._solver, runner.model
        self._runner, self._state, self._integrator = runner, state, runner.getIntegrator()
        for name, value in (
            ("relative_tolerance", solver.relative), ("absolute_tolerance", solver.absolute),
            ("maximum_num_steps", solver.most_steps),
        ):  # fmt: skip
            self._integrator.setValue(name, value)
        runner.selections = list(self._outputs)
        model = self._model
        # Volumes go first: where one is set, libroadrunner may move amounts.
        parts = (
            (model.compartments, state.getCompartmentVolumes, state.setCompartmentVolumes),
            (model.parameters, state.getGlobalParameterValues, state.setGlobalParameterValues),
            (model.boundary, state.getBoundarySpeciesAmounts, self._put_boundary),
            (model.floating, state.getFloatingSpeciesAmounts, state.setFloatingSpeciesAmounts),
        )
        places = ((np.array(model.independent(names), np.int32), *calls) for names, *calls in parts)
        self._parts = [part for part in places if len(part[0])]

    def start(self, values: Mapping[str, float]) -> None:
        """Begin anew, with other numbers in the place of the file's.

        Raises:
            ValueError: If libroadrunner does not take the file with these numbers.
        """
        model, document = self._model, self._model.document
        if any(document.decides_start(name.strip("[]")) for name in values):
            # Only a model that is compiled with the numbers in it has the right initial assignments.
            self._use(model.compiled(document.with_values(values), "the file with the numbers of a scenario"))
            return
        self._runner.reset(model.roadrunner.SelectionRecord.ALL)
        volumes = {name: value for name, value in values.items() if name in model.compartments}
        inside = {name: value for volume in volumes for name, value in document.dissolved(volume).items()}
        for name, value in {**volumes, **inside, **values}.items():
            self._state.setValue(name, value)

    def hold(self, u: Vector) -> None:
        """Set the actions that are not doses."""
        for i, name in self._held:
            self._state.setValue(name, float(u[i]))

    def advance(self, t: float, period: float, u: Vector) -> str:
        """One control step; why it failed, or nothing.

        Args:
            t: Time at its start.
            period: Its length.
            u: The action, finite.
        """
        self.hold(u)
        for i, name in self._doses:
            self._state.setValue(name, self._state.getValue(name) + float(u[i]))
        with quiet(self._model.roadrunner):
            try:
                self._integrator.restart(t)
                reached = self._integrator.integrate(t, period)
            except RuntimeError as error:
                return f"the integration failed ({one_line(error, bare=True).partition(';')[0]})"
        if not math.isclose(reached, t + period, rel_tol=1e-9, abs_tol=1e-9 * period):
            return "the integration stopped early"
        return ""

    def outputs(self) -> Vector:
        """The outputs now."""
        return np.array(self._runner.getSelectedValues(), dtype=np.float64)

    def state(self) -> Vector:
        """All numbers that change, but for the time and for events that wait."""
        return np.concatenate([get()[at] for at, get, _ in self._parts])

    def _put_boundary(self, at: NDArray[np.int32], amounts: Vector) -> None:
        # libroadrunner's own call for all of them takes no arrays.
        for i, amount in zip(at, amounts, strict=True):
            self._state.setValue(self._model.boundary[i], float(amount))

    def load(self, t: float, state: Vector) -> None:
        """Go to a time and a state."""
        self._state.setTime(t)
        first = 0
        for at, _, put in self._parts:
            put(at, state[first : first + len(at)])
            first += len(at)
