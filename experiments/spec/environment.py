"""What a comparison file says about the thing that is run: a plant, a Mesa model or any gymnasium environment."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from steersman.envs.gymnasium_adapters.outputs import Output, Reading, Reference, Termination, index
from steersman.envs.objective import L1, Limit, Linear, LInf, Objective, PiecewiseLinear, Quadratic, Term
from steersman.envs.registry import build_simulator
from steersman.envs.simulator import Simulator

STRICT = ConfigDict(extra="forbid")
"""An unknown key is an error."""
MOST_STEPS, MOST_WORKERS = 10_000_000, 1_000
"""Beyond them a number is a slip of the pen."""
Names = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TermEntry:
    """A part of what planners minimise on an environment that only returns rewards.

    Attributes:
        kind: Its form (:mod:`steersman.envs.objective`).
        on: Outputs z, tracking errors e, actions u or their changes du.
        weights: By name of the entry, or one for each: of z and e for the observation, or for all outputs.
        of: Entry that a piecewise-linear term is written in.
        points: Its corners, abscissa and cost.
        name: Its name; by default made of kind and place.
        terminal: Whether it is charged at the end of the episode instead of at every step.
    """

    kind: Literal["quadratic", "linear", "l1", "linf", "piecewise"]
    on: Literal["z", "e", "u", "du"]
    weights: tuple[float, ...] | dict[str, float] = ()
    of: str = ""
    points: tuple[tuple[float, float], ...] = ()
    name: str = ""
    terminal: bool = False

    def __post_init__(self) -> None:
        if self.kind == "piecewise":
            if not self.of or not self.points or self.weights:
                raise ValueError("a piecewise term has of and points, and no weights")
        elif not self.weights or self.of or self.points:
            raise ValueError(f"a {self.kind} term has weights, and neither of nor points")

    def build(self, place: int, outputs: Names, actions: Names) -> Term:
        """The term; without a name of its own it is told from others by its place.

        Args:
            place: Place in the objective.
            outputs: Names of the performance outputs.
            actions: Names of the actions.

        Raises:
            ValueError: If a name is unknown or a number impossible; the message begins with the key.
        """
        kinds: dict[str, Any] = {"quadratic": Quadratic, "linear": Linear, "l1": L1, "linf": LInf}
        name, known = self.name or f"{self.kind} {self.on} {place}", outputs if self.on in ("z", "e") else actions
        where = f"objective.{place}"
        if self.kind == "piecewise":
            return PiecewiseLinear(
                name=name, on=self.on, index=index(known, self.of, f"{where}.of"), points=self.points
            )
        weights = self.weights
        if isinstance(weights, dict):
            for entry in weights:
                index(known, entry, f"{where}.weights")
            weights = tuple(weights.get(entry, 0.0) for entry in known)
        term: Term = kinds[self.kind](name=name, on=self.on, weights=weights)
        return term


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LimitEntry:
    """An output that a plan must keep between two numbers: beyond them the episode counts as failed for planners."""

    output: str
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OutputEntry:
    """A performance output of one's own: the weighted sum of observation entries, such as the difference of two."""

    name: str
    of: dict[str, float]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ReferenceEntry:
    """Where an output's reference comes from; see :class:`~steersman.envs.gymnasium_adapters.outputs.Reference`."""

    value: float | None = None
    observation: str | tuple[str, ...] = ()
    info: str = ""
    column: int | None = None

    def __post_init__(self) -> None:
        self.build()

    def build(self) -> Reference:
        """The same for the simulator."""
        entries = (self.observation,) if isinstance(self.observation, str) else self.observation
        return Reference(value=self.value, observation=entries, info=self.info, column=self.column)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WrapperEntry:
    """A wrapper around a gymnasium environment: ``module:Wrapper`` or one of ``gymnasium.wrappers``."""

    use: str
    settings: dict[str, Any] = pydantic.Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Environment:
    """What is run: all that a result depends on beside controller, model, seed and scenarios.

    All but the first three apply to gymnasium environments only; a plant or a Mesa model says such things by itself.

    Attributes:
        id: Id of a plant, ``module:name`` of one of your own, or a gymnasium environment: its id, ``module:Env-v0``, or
            ``module:name`` of a class or of a function that returns one.
        settings: Arguments of its constructor.
        workers: Processes that share the rows of a Mesa model or an environment; 0 runs them in the job's own.
        max_episode_steps: Control steps of an episode, where the environment states none or others are wanted.
        wrappers: Wrappers, the innermost first.
        termination: What ``terminated`` means: an end that is neither good nor bad, a failure, or the goal.
        names: New names of the observation entries: of all, or by their old names.
        outputs: Performance outputs beside the observation and the reward.
        references: Sources of the outputs' references, by name.
        exogenous: Observation entries that no action influences.
        objective: What planners minimise; by default minus the reward.
        limits: Where plans fail.
        failure: Price of each control step that is left when an episode fails; found on the bank by default.
    """

    id: str
    settings: dict[str, Any] = pydantic.Field(default_factory=dict)
    workers: int = pydantic.Field(default=0, ge=0, le=MOST_WORKERS)
    max_episode_steps: int | None = pydantic.Field(default=None, ge=1, le=MOST_STEPS)
    wrappers: tuple[WrapperEntry, ...] = ()
    termination: Termination = "end"
    names: tuple[str, ...] | dict[str, str] = ()
    outputs: tuple[OutputEntry, ...] = ()
    references: dict[str, ReferenceEntry] = pydantic.Field(default_factory=dict)
    exogenous: tuple[str, ...] = ()
    objective: tuple[TermEntry, ...] = ()
    limits: tuple[LimitEntry, ...] = ()
    failure: float = pydantic.Field(default=0.0, ge=0.0)

    def simulator(self, n: int, device: torch.device | str = "cpu", price: float | None = None) -> Simulator:
        """``n`` rows of it.

        Args:
            n: Rows.
            device: Where a plant runs.
            price: Price of a failure for what states none; found when it is needed, if not given.

        Raises:
            ValueError: If there is no such environment, or it does not take what is said; the message begins with the
                key where one is to blame.
        """
        reading = Reading(
            termination=self.termination,
            names=self.names,
            outputs=tuple(Output(name=entry.name, of=entry.of) for entry in self.outputs),
            references={name: entry.build() for name, entry in self.references.items()},
            exogenous=self.exogenous,
        )
        return build_simulator(
            self.id, self.settings, n, device,
            objective=self._goal if self.objective or self.limits or self.failure else None,
            price=price,
            reading=None if reading == Reading() else reading,
            wrappers=tuple((entry.use, entry.settings) for entry in self.wrappers),
            max_episode_steps=self.max_episode_steps,
            workers=self.workers,
        )  # fmt: skip

    def _goal(self, outputs: Names, actions: Names) -> Objective:
        terms = [(entry.build(i, outputs, actions), entry.terminal) for i, entry in enumerate(self.objective)]
        limits = tuple(
            Limit(
                name=entry.output,
                index=index(outputs, entry.output, f"limits.{i}.output"),
                low=entry.low,
                high=entry.high,
            )
            for i, entry in enumerate(self.limits)
        )
        stage = tuple(term for term, last in terms if not last)
        return Objective(stage, tuple(term for term, last in terms if last), self.failure, limits)
