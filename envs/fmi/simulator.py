"""A Functional Mock-up Unit as a plant of a comparison."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steersman.envs.fmi.description import Description, Variable, read_fmu
from steersman.envs.fmi.rows import FmuRows, Instances
from steersman.envs.fmi.task import (
    Bounds,
    FmuTask,
    Start,
    action_set,
    actions_of,
    divided,
    outputs_of,
    start_of,
)
from steersman.envs.gymnasium_adapters.gym_simulator import Goal
from steersman.envs.gymnasium_adapters.outputs import ENDS, Reading, index
from steersman.envs.objective import Objective
from steersman.envs.plant import ControlProblem
from steersman.envs.rows.base import Report
from steersman.envs.rows.simulator import RowSimulator, RowSnapshot
from steersman.envs.settings import at_least, positive


@dataclass(frozen=True)
class FmuSnapshot(RowSnapshot):
    """State of an :class:`FmuSimulator`.

    Attributes:
        states: Names of the states that the FMUs have kept; None where actions are to be repeated.
    """

    states: tuple[str | None, ...] = ()


class FmuSimulator(RowSimulator):
    """``n`` instances of an FMU for co-simulation, of FMI 2.0 or 3.0, here or in worker processes.

    Actions are inputs of the FMU, held for a control period; y and z are variables of it, by the names of its model
    description. Start values that are given as ``[low, high]`` are drawn for each scenario. A call that fails, or an
    output that is no number, ends its row as diverged, and :attr:`notes` say why; outputs beyond the objective's limits
    end it as failed. Snapshots are states of the FMU where it can keep them, else the actions are repeated from the
    episode's start.
    """

    def __init__(
        self,
        n: int,
        fmu: str,
        actions: Mapping[str, Bounds],
        horizon: int | None = None,
        period: float | None = None,
        step: float | None = None,
        measured: Sequence[str] = (),
        performed: Sequence[str] = (),
        start: Mapping[str, Start] | None = None,
        *,
        device: torch.device | str = "cpu",
        price: float | None = None,
        objective: Goal | None = None,
        reading: Reading | None = None,
        workers: int = 0,
    ) -> None:
        """Read the model description; instances are made when rows begin.

        Args:
            n: Rows.
            fmu: The ``.fmu``, from the current folder.
            actions: Inputs that are actions, by name: ``[low, high]``, or a table with ``low``, ``high`` (by default
                the bounds that the FMU states) and ``neutral``, which the action is then counted from. Whole numbers
                where the input takes them.
            horizon: Control steps of an episode; by default those of the FMU's default experiment.
            period: Control period in s; by default the step size of the default experiment.
            step: Communication step in s, of which the period is a multiple; by default the period.
            measured: Variables that are measured; by default all numeric outputs.
            performed: Variables that objective and limits are written in; by default those measured.
            start: What is set before the initialization, by name: parameters, inputs that are no actions, initial
                values. A number, or ``[low, high]`` that is drawn from for each scenario.
            device: Where it runs: the CPU.
            price: Price of a failure, by default found when a row fails (:mod:`steersman.envs.failure`).
            objective: What an episode costs, in variables and actions by their names.
            reading: References of performance outputs, constant or from measured variables, exogenous variables, and
                what it means when the FMU asks for the end (``termination``).
            workers: Processes that share the rows; 0 runs them here, and so does a single row.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no FMU for co-simulation on this platform, a name is unknown, or a number out of range.
            ImportError: If FMPy is not installed.
        """
        at_least(1, n=n, horizon=horizon)
        at_least(0, workers=workers)
        positive(period=period, step=step)
        if torch.device(device).type != "cpu":
            raise ValueError(f"FMUs run on the CPU, got device {str(device)!r}")
        self._given: dict[str, Any] = {
            "fmu": fmu, "actions": actions, "horizon": horizon, "period": period, "step": step, "measured": measured,
            "performed": performed, "start": start, "objective": objective, "reading": reading, "workers": workers,
        }  # fmt: skip
        description = read_fmu(fmu)
        self._only_one = description.only_one
        if description.only_one and n > 1 and workers < n:
            raise ValueError(f"workers: {fmu} allows one instance in a process; set workers to {n}, one for each row")
        chosen = actions_of(description, actions)
        y = outputs_of(description, measured, "measured")
        z = outputs_of(description, performed, "performed") if performed else y
        period, horizon = _lasting(description, period, horizon)
        task = FmuTask(
            description, chosen, y, z, start_of(description, start or {}, chosen),
            step or period, divided(period, step or period),
        )  # fmt: skip
        performed, measured = (tuple(v.name for v in variables) for variables in (z, y))
        goal = _goal(objective, performed, tuple(actions))
        task, exogenous = _read_as(task, reading or Reading())
        task = replace(task, limits=tuple((limit.index, limit.low, limit.high) for limit in goal.limits))
        problem = ControlProblem(action_set(chosen), goal, period, horizon, measured, performed, exogenous)
        super().__init__(
            Instances(task), problem, n, workers=workers, price=price, what="the FMU simulator", rows=FmuRows
        )
        self._gone: list[str] = []

    def unpriced(self, n: int) -> FmuSimulator:
        """See :class:`~steersman.envs.simulator.Simulator`.

        Raises:
            ValueError: If the FMU allows one instance in a process: a price is looked for with many.
        """
        if self._only_one and n > max(1, self.workers):
            raise ValueError(
                f"failure: {self._given['fmu']} allows one instance in a process, too few to price failures by; "
                "state failure, the price of each control step that is left"
            )
        return FmuSimulator(n, **self._given, price=0.0)

    def snapshot(self) -> FmuSnapshot:
        """See :class:`~steersman.envs.simulator.Simulator`; states of the FMU are freed when it is dropped."""
        dropped = [self._gone.pop() for _ in range(len(self._gone))]
        # A process forgets the names that it knows.
        states = [name for part in self._rows.call("keep", [(dropped,)] * len(self._split)) for name in part]
        plain = super().snapshot()
        made = FmuSnapshot(plain.histories, plain.u_prev, plain.status, tuple(states))
        weakref.finalize(made, self._gone.extend, [name for name in states if name is not None])
        return made

    def restore(self, snapshot: RowSnapshot) -> None:
        """See :class:`~steersman.envs.simulator.Simulator`."""
        states = snapshot.states if isinstance(snapshot, FmuSnapshot) else (None,) * self.n
        picked = [([snapshot.histories[row] for row in part], [states[row] for row in part]) for part in self._split]
        self._call("resume", picked)
        self._u_prev, self._status = snapshot.u_prev, snapshot.status

    def _terms(self, before: Report, after: Report, u: Tensor, du: Tensor) -> dict[str, Tensor]:
        r = np.zeros_like(before.z) if before.r is None else before.r[:, 0]
        return self.problem.objective.stage_terms(torch.from_numpy(before.z), u, du, torch.from_numpy(r))


def _lasting(description: Description, period: float | None, horizon: int | None) -> tuple[float, int]:
    """Control period and horizon, with the FMU's default experiment for what is not given."""
    period = period or description.step
    if period is None:
        raise ValueError(
            f"period: {description.path.name} states no step size of its own; give the control period in s"
        )
    if horizon is not None:
        return period, horizon
    if description.stop is None:
        raise ValueError(f"horizon: {description.path.name} states no stop time; give the control steps of an episode")
    steps = round((description.stop - description.start) / period)
    at_least(1, horizon=steps)
    return period, steps


def _goal(objective: Goal | None, performed: tuple[str, ...], actions: tuple[str, ...]) -> Objective:
    goal = objective(performed, actions) if callable(objective) else objective
    if goal is None or not (goal.stage or goal.terminal):
        raise ValueError("objective: an FMU holds no costs; state what an episode costs in its outputs and actions")
    return goal


def _read_as(task: FmuTask, reading: Reading) -> tuple[FmuTask, tuple[int, ...]]:
    """The task with references and the meaning of its end, and places of exogenous outputs.

    Raises:
        ValueError: If a name is unknown, or something is asked for that FMUs have not.
    """
    if reading.names or reading.outputs:
        raise ValueError("names and outputs: an FMU says what its variables are called; choose among them by measured")
    y, z = _names(task.measured), _names(task.performed)
    constant, led = [0.0] * len(z), []
    for name, reference in reading.references.items():
        at = index(z, name, "references")
        if reference.info:
            raise ValueError(
                f"references.{name}: an FMU has no info; give value, or a measured variable as observation"
            )
        if reference.value is not None:
            constant[at] = reference.value
        else:
            led.append((at, tuple(index(y, entry, f"references.{name}") for entry in reference.observation)))
    leaders = {place for _, places in led for place in places}
    exogenous = leaders | {index(y, name, "exogenous") for name in reading.exogenous}
    made = replace(task, references=tuple(constant), led=tuple(led), end=ENDS[reading.termination])
    return made, tuple(sorted(exogenous))


def _names(variables: tuple[Variable, ...]) -> tuple[str, ...]:
    return tuple(v.name for v in variables)
