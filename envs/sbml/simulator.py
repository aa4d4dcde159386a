"""An SBML model as a simulator: parameters, boundary species or doses as actions, all that it computes as outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.gymnasium_adapters.gym_simulator import Goal
from steersman.envs.gymnasium_adapters.outputs import Reading, constant_references
from steersman.envs.plant import ControlProblem, Status
from steersman.envs.rows.base import Episode, Source, Vector
from steersman.envs.rows.target import TargetRows
from steersman.envs.sbml.engine import Engine, Solver
from steersman.envs.sbml.model import SbmlModel, read_model
from steersman.envs.settings import at_least, positive

_DRAW = 0x5B31
"""Separates the draw of parameters from what else a seed may decide."""
_MOST = 4096
"""Starts that are kept."""


class SbmlSimulator(TargetRows):
    """``n`` rows of an SBML model, each integrated for itself by CVODE (:mod:`roadrunner`, extra ``sbml``).

    Symbols are libroadrunner's: ``S`` is the amount of a species, ``[S]`` its concentration, a reaction's name its
    rate, and ``time`` the time. An action is held over the control period: a parameter, or the amount or concentration
    of a boundary species. An action on a species of the reactions is a dose: so much is added to its amount at the
    start of the control period. What is measured after a step is what holds at its end, with that action still there;
    an episode begins with the file's initial state and the neutral action.

    A scenario is the file with other numbers in the place of its own, drawn uniformly in their ranges. Where initial
    assignments depend on them, each scenario is compiled (a tenth of a second for a small model).

    One compiled model serves all rows, whose states are set before each step; models with events get an object for
    each row. A row whose integration fails has diverged, and ends there. Rows repeat bit by bit in every batch.
    """

    def __init__(
        self,
        n: int,
        model: str,
        actions: Mapping[str, Sequence[float]],
        measured: Sequence[str],
        period: float,
        horizon: int,
        performed: Sequence[str] = (),
        parameters: Mapping[str, float | Sequence[float]] | None = None,
        relative_tolerance: float = 1e-8,
        absolute_tolerance: float = 1e-12,
        most_steps: int = 20_000,
        time_unit: str = "time units",
        *,
        device: torch.device | str = "cpu",
        price: float | None = None,
        objective: Goal | None = None,
        reading: Reading | None = None,
        workers: int = 0,
    ) -> None:
        """Compile the model.

        Args:
            n: Rows.
            model: Path of the SBML file.
            actions: Least and largest value of each action, by symbol.
            measured: Symbols of the measured outputs.
            period: Control period, in the model's time.
            horizon: Control steps of an episode.
            performed: Symbols that the objective is written in; by default those measured.
            parameters: Numbers in the place of the file's, by symbol, or ranges that they are drawn from.
            relative_tolerance: Of the solver.
            absolute_tolerance: Of the solver, for amounts.
            most_steps: Internal steps of the solver in a control period, beyond which a row has diverged.
            time_unit: Unit of the model's time, for tables and pictures.
            device: Where it runs: the CPU.
            price: Price of a failure, by default found when a row fails (:mod:`steersman.envs.failure`).
            objective: What an episode costs, in outputs and actions by their symbols; where outputs leave its limits,
                the episode has failed.
            reading: Constant references of outputs, by symbol.
            workers: Processes that share the rows; 0 runs them here.

        Raises:
            ValueError: If there is no such file, libroadrunner does not take it, a symbol is unknown or cannot be what
                it is to be, a number is out of range, or there is no objective.
            ImportError: If libroadrunner is not installed.
        """
        self._given = {
            "model": model, "actions": actions, "measured": measured, "period": period, "horizon": horizon,
            "performed": performed, "parameters": parameters, "relative_tolerance": relative_tolerance,
            "absolute_tolerance": absolute_tolerance, "most_steps": most_steps, "time_unit": time_unit,
            "objective": objective, "reading": reading, "workers": workers,
        }  # fmt: skip
        at_least(1, n=n, horizon=horizon, most_steps=most_steps)
        positive(period=period, relative_tolerance=relative_tolerance, absolute_tolerance=absolute_tolerance)
        if torch.device(device).type != "cpu":
            raise ValueError(f"SBML models run on the CPU, got device {str(device)!r}")
        read, measured, performed = read_model(model), tuple(measured), tuple(performed) or tuple(measured)
        ranges = _ranges("parameters", parameters or {})
        _require(read, actions, measured, performed, ranges)
        bounds = _ranges("actions", actions)
        lower, upper = zip(*bounds.values(), strict=True)
        admissible = ActionSet(lower, upper, names=tuple(bounds))
        goal = objective(performed, admissible.names) if callable(objective) else objective
        if goal is None or not (goal.stage or goal.terminal):
            raise ValueError(
                "objective: an SBML model has no costs; state what an episode costs in outputs and actions"
            )
        exogenous = tuple(i for i, name in enumerate(measured) if name == "time")
        problem = ControlProblem(admissible, goal, period, horizon, measured, performed, exogenous, time_unit)
        solver = Solver(relative_tolerance, absolute_tolerance, most_steps)
        super().__init__(
            SbmlRows(model, problem, ranges, solver), problem, n,
            target=constant_references(reading, performed, "an SBML model"),
            workers=workers, price=price, what="the SBML simulator",
        )  # fmt: skip

    def unpriced(self, n: int) -> SbmlSimulator:
        """See :class:`~steersman.envs.simulator.Simulator`."""
        return SbmlSimulator(n, **self._given, price=0.0)  # type: ignore[arg-type]


class SbmlRows(Source):
    """Rows of one process, on one compiled model."""

    def __init__(
        self, path: str, problem: ControlProblem, ranges: dict[str, tuple[float, float]], solver: Solver
    ) -> None:
        """Store what rows need."""
        self.path, self.problem, self.ranges, self.solver = path, problem, ranges, solver
        self.shape = problem.ny, problem.nz
        self._engines: dict[int, Engine] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engines": {}}

    def start(self, seed: int, row: int) -> SbmlEpisode:
        """See :class:`~steersman.envs.rows.base.Source`."""
        return SbmlEpisode(self, seed, row)

    def engine(self, row: int) -> tuple[Engine, bool]:
        """What a row runs on, and whether other rows do too."""
        model = read_model(self.path)
        which = row if model.alone else 0
        if which not in self._engines:
            problem = self.problem
            outputs = (*problem.measured, *problem.performed)
            self._engines[which] = Engine(model, self.solver, outputs, problem.actions.names)
        return self._engines[which], not model.alone

    def begin(self, engine: Engine, shared: bool, seed: int) -> None:
        """Bring an engine to the start of a scenario."""
        key = torch.tensor([seed])
        unit = noise.uniform(noise.fold(key, _DRAW), len(self.ranges), dtype=torch.float64)[0].tolist()
        pairs = zip(self.ranges.items(), unit, strict=True)
        drawn = {name: low + share * (high - low) for (name, (low, high)), share in pairs}
        if not shared:
            engine.start(drawn)
            return
        known, which = read_model(self.path).starts, tuple(drawn.items())
        if which not in known:
            if len(known) >= _MOST:
                known.clear()
            engine.start(drawn)
            known[which] = engine.state()
        engine.load(0.0, known[which])


class SbmlEpisode(Episode):
    """One row. Outputs that are no numbers end it as diverged."""

    def __init__(self, source: SbmlRows, seed: int, row: int) -> None:
        """Begin a scenario."""
        super().__init__(seed)
        self._source = source
        self._engine, self._shared = source.engine(row)
        source.begin(self._engine, self._shared, seed)
        problem = source.problem
        self._engine.hold(problem.actions.neutral(1, torch.zeros(1, dtype=torch.float64))[0].numpy())
        found = self._engine.outputs()
        # An episode that begins with something else than numbers ends with its first step, which can be charged.
        self._lost = _fault(found, source)
        found = np.where(np.isfinite(found), found, 0.0)
        self.y, self.z = found[: problem.ny], found[problem.ny :]
        self._state = self._engine.state()

    def step(self, u: Vector) -> None:
        """See :class:`~steersman.envs.rows.base.Episode`."""
        source, engine, problem = self._source, self._engine, self._source.problem
        t = (self.k - 1) * problem.period
        if self._shared:
            engine.load(t, self._state)
        fault = self._lost or engine.advance(t, problem.period, u)
        found = engine.outputs()
        if fault := fault or _fault(found, source):
            self.status, self.note = Status.DIVERGED, fault
            return
        self._state = engine.state()
        self.y, self.z = found[: problem.ny], found[problem.ny :]
        lost = problem.objective.lost(torch.from_numpy(self.z))
        if lost is not None and bool(lost):
            self.status = Status.TERMINATED


def _fault(found: Vector, source: SbmlRows) -> str:
    wrong = np.flatnonzero(~np.isfinite(found))
    names = (*source.problem.measured, *source.problem.performed)
    return f"{names[wrong[0]]!r} was {found[wrong[0]]}" if len(wrong) else ""


def _require(
    model: SbmlModel,
    actions: Mapping[str, Sequence[float]],
    measured: tuple[str, ...],
    performed: tuple[str, ...],
    ranges: dict[str, tuple[float, float]],
) -> None:
    """Refuse symbols that cannot be what they are to be.

    Raises:
        ValueError: Naming the key, the symbol and the remedy.
    """
    if not actions or not measured:
        raise ValueError(f"{'measured' if actions else 'actions'}: name at least one symbol of the model")
    model.require_actions(actions)
    model.require_outputs(measured, "measured")
    model.require_outputs(performed, "performed")
    model.require_drawn(ranges)
    if twice := [name for name in ranges if name in actions and name not in model.floating]:
        raise ValueError(f"parameters: {twice[0]!r} is an action, which sets it at every step; leave it out here")


def _ranges(where: str, given: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Least and largest value of each symbol; a single number is both.

    Raises:
        ValueError: Naming the symbol and what was given.
    """
    found = {}
    for name, value in given.items():
        pair = value if isinstance(value, list | tuple) else (value, value)
        numbers = [x for x in pair if isinstance(x, int | float) and not isinstance(x, bool) and np.isfinite(x)]
        if len(pair) != 2 or len(numbers) != 2 or pair[0] > pair[1]:
            raise ValueError(f"{where}.{name}: give least and largest value as two finite numbers, got {value!r}")
        found[name] = float(pair[0]), float(pair[1])
    return found
