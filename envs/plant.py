"""The plant contract: physics written once, as pure batched torch functions.

A plant holds no state. Its functions take the control step ``k`` (one per row), the state ``x``, the action
``u``, a disturbance ``w`` and the parameters ``p`` of a batch of ``n`` rows, and return new tensors; rows never
see each other. All randomness comes in through counter-based keys (:mod:`steersman.envs.noise`), so a scenario
is reproducible whatever batch it is run in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective
from steersman.envs.tree import Params, State


class Status(IntEnum):
    """State of a row: only OK goes on. Failures are data, never exceptions."""

    OK = 0
    TERMINATED = 1
    """The plant reached an end of its own, such as an extinction or a loss of synchronism."""
    VIOLATED = 2
    """A hard constraint or a capacity was exceeded."""
    DIVERGED = 3
    """The state is not finite any more; it is frozen at its last finite value."""
    REACHED = 4
    """The goal is reached: an end before the horizon that is no failure."""
    ENDED = 5
    """A foreign environment ended the episode without saying whether that is good or bad: no failure either."""


Gradient = Literal["exact", "straight_through", "none"]


@dataclass(frozen=True)
class ControlProblem:
    """Everything about a plant that a controller may know without knowing the plant.

    Attributes:
        actions: Admissible actions.
        objective: Cost as data.
        period: Control period in the plant's time unit.
        horizon: Control steps in an episode.
        measured: Names of the measured outputs y.
        performed: Names of the performance outputs z.
        exogenous: Indices of y that no action influences (references, clocks); models leave them out.
        time_unit: Unit of ``period``.
        gradient: How far gradients through the plant can be trusted.
    """

    actions: ActionSet
    objective: Objective
    period: float
    horizon: int
    measured: tuple[str, ...]
    performed: tuple[str, ...]
    exogenous: tuple[int, ...] = ()
    time_unit: str = "s"
    gradient: Gradient = "none"

    @property
    def ny(self) -> int:
        """Number of measured outputs."""
        return len(self.measured)

    @property
    def nz(self) -> int:
        """Number of performance outputs."""
        return len(self.performed)


@dataclass
class Trail:
    """What one row went through, for renders: entry i belongs to control step ``k[i]``."""

    p: Params
    k: list[int] = field(default_factory=list)
    x: list[State] = field(default_factory=list)
    z: list[NDArray[Any]] = field(default_factory=list)
    r: list[NDArray[Any]] = field(default_factory=list)
    u: list[NDArray[Any]] = field(default_factory=list)
    """Actions; one shorter than the others before the first step."""


class Plant(ABC):
    """A controllable system. Subclasses are final, set the attributes below in ``__init__`` and hold no state.

    Attributes:
        dt: Integrator step, in ``time_unit``.
        hold: Integrator steps per control step (zero-order hold); the control period is ``dt * hold``.
        horizon: Control steps in an episode.
        gradient: ``exact``, ``straight_through`` (an estimator named in the docstring) or ``none``, which asks no
            controller to differentiate it.
        actions: Admissible actions.
        objective: Cost, written over ``perform``, actions and references.
        measured: Names of the outputs of :meth:`measure`.
        performed: Names of the outputs of :meth:`perform`.
        exogenous: Indices of measured outputs that no action influences.
        constrained: Names of the outputs of :meth:`constraints`.
        dtype: Floating-point type of states, outputs and costs.
        time_unit: Unit of time.
    """

    dt: float
    hold: int = 1
    horizon: int
    gradient: Gradient = "none"
    actions: ActionSet
    objective: Objective
    measured: tuple[str, ...]
    performed: tuple[str, ...]
    exogenous: tuple[int, ...] = ()
    constrained: tuple[str, ...] = ()
    dtype: torch.dtype = torch.float64
    time_unit: str = "s"

    # ------------------------------------------------------------------ physics

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """Parameters of ``n`` scenarios: a dict of tensors ``[n, ...]``, drawn from the keys; none by default.

        Quantities that belong to an episode and not to the state, such as fault data or reference
        schedules, live here as well. Leaves whose names end in ``_key`` are keys of
        measurement noise; without them :meth:`measure` must be free of noise, which linearisation relies on.
        """
        return {}

    @abstractmethod
    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """Initial states of ``n`` scenarios."""

    def known(self, k: Int64[Tensor, "n"], p: Params) -> Params:
        """Parameters as a controller that stands at step ``k`` may know them; all of them by default.

        Plants whose parameters hold events that nobody can foresee, such as faults, return those of a scenario in which
        what has not begun never comes; references are no such events. What has happened up to step ``k`` stays as it
        is, and what is known already is not hidden by a second call.
        """
        return p

    @abstractmethod
    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """State after control step ``k``: pure, batched, row by row independent; ``u`` is admissible."""

    @abstractmethod
    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n ny"]:
        """Measured output y, all that a data-only controller sees of the state."""

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n nz"]:
        """Performance output z, in which the objective is written; the measured output by default."""
        return self.measure(k, x, p)

    def disturbance(self, key: Int64[Tensor, "n"], k: Int64[Tensor, "n"]) -> Tensor:
        """Disturbance ``w`` of control step ``k``: by default the key of that step, for counter-based noise.

        Plants with little noise return a float tensor ``[n, nw]`` instead; deterministic plants may ignore w.
        """
        from steersman.envs.noise import fold

        return fold(key, k)

    def reference(self, k: Int64[Tensor, "n"], p: Params) -> Float[Tensor, "n nz"]:
        """Reference r of the performance output at step ``k``; zero by default."""
        return torch.zeros(k.shape[0], len(self.performed), dtype=self.dtype, device=k.device)

    def constraints(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], p: Params) -> Float[Tensor, "n nc"]:
        """Soft constraints ``g <= 0`` that comparisons report as a violation integral; none by default."""
        return torch.zeros(k.shape[0], len(self.constrained), dtype=self.dtype, device=k.device)

    def status(self, k: Int64[Tensor, "n"], x: State, p: Params) -> UInt8[Tensor, "n"]:
        """Status of each row at state ``x``; OK by default. Non-finite states are found by the simulator."""
        return torch.zeros(k.shape[0], dtype=torch.uint8, device=k.device)

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """An RGB picture ``[height, width, 3]`` of the last entry of the trail and how it came to it."""
        raise ValueError(f"{type(self).__name__} has no render; override Plant.render to add one")

    # ------------------------------------------------------------------ derived

    @property
    def period(self) -> float:
        """Control period."""
        return self.dt * self.hold

    @property
    def problem(self) -> ControlProblem:
        """The part of the plant that every controller may know."""
        return ControlProblem(
            actions=self.actions,
            objective=self.objective,
            period=self.period,
            horizon=self.horizon,
            measured=self.measured,
            performed=self.performed,
            exogenous=self.exogenous,
            time_unit=self.time_unit,
            gradient=self.gradient,
        )


def going(status: UInt8[Tensor, "n"]) -> Bool[Tensor, "n"]:
    """Rows that go on."""
    # As whole numbers: to torch.compile a tensor never equals a member of an enumeration.
    return status == int(Status.OK)


def failed(status: UInt8[Tensor, "n"]) -> Bool[Tensor, "n"]:
    """Rows that have ended by failure."""
    return ~going(status) & (status < int(Status.REACHED))
