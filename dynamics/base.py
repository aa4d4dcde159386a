"""What a controller is allowed to know of a plant: the model contract, and the data models are fitted to."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from steersman.dynamics.data import EVEN
from steersman.dynamics.data import Trajectories as Trajectories
from steersman.dynamics.prediction import Prediction as Prediction
from steersman.dynamics.prediction import Recorder as Recorder
from steersman.envs import noise
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import at_least
from steersman.envs.simulator import Measurement
from steersman.envs.tree import State, tree_map

Model = TypeVar("Model", bound="Dynamics")
"""The class of a model, for methods that return self (beartype cannot check typing.Self in plain methods)."""

Hidden = State
"""Internal state of a model: a tensor or a flat dict of tensors with leading axis n."""

REMEDY = "use a model in continuous time (neural-ode or reactions), or data at equal times"
"""What to do where times are irregular and a model knows the control period only."""
_PARTICLES = 0x9A27
"""Seed of the noise that predictions draw for their particles."""


@dataclass(frozen=True)
class Window:
    """What a model may start from: the last measurements and the actions between them.

    Attributes:
        y: Measured outputs, the newest last; ``y[:, -1]`` equals ``now.y``.
        u: Actions between those measurements.
        now: The newest measurement, with the true state where the track gives it.
    """

    y: Float[Tensor, "n L ny"]
    u: Float[Tensor, "n L1 m"]
    now: Measurement

    def rows(self, index: Int[Tensor, "k"]) -> Window:
        """The windows of some rows."""
        return Window(self.y[index], self.u[index], self.now.rows(index))


class Dynamics(nn.Module, ABC):
    """A state-space model ``h+ = f(h, u, dt, w)``, ``(y, z) = g(h)``, batched over rows.

    The constructor stores; :meth:`fit` forgets the previous fit, returns self and leaves learned names that
    end in ``_``. Tensors with such names are saved and restored, whatever their shapes; nothing else of a fit is.
    Everything is differentiable with respect to h, u and the weights.

    Attributes:
        context: Number of measurements that :meth:`init` needs (1: only the newest).
        needs_state: Whether :meth:`init` reads ``window.now.x`` ("solver access").
        needs_future: Whether it reads ``window.now.hindsight``: what it makes possible is a bound and no rival.
        uniform_only: Whether it knows no step but the control period: fits refuse data at other times, and steps too.
        noises: Numbers ``w`` that a step of a stochastic model takes; 0 for one that says a single thing.
        progress: Called during a fit with a fraction in 0..1 and a short text.
        checkpoint: Folder in which a fit by gradient leaves its state every so many seconds; a fit that was killed goes
            on from there and ends with the bits of one that was not. None keeps nothing.
    """

    context: int = 1
    needs_state: bool = False
    needs_future: bool = False
    uniform_only: bool = True
    noises: int = 0
    progress: Callable[[float, str], None] = staticmethod(lambda fraction, text: None)
    checkpoint: Path | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep tensors whose names end in an underscore: they are what a fit has learned."""
        if name.endswith("_") and isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            self._learn(name, value)
        else:
            super().__setattr__(name, value)

    def _learn(self, name: str, value: Tensor, *, trainable: bool = False) -> None:
        """Set a learned tensor, whatever shape it had before; a copy, laid out as a file would give it back."""
        value = value.detach().clone(memory_format=torch.contiguous_format)
        for store in (self._parameters, self._buffers):
            store.pop(name, None)
        if trainable:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for full, value in state_dict.items():
            name = full.removeprefix(prefix)
            if full.startswith(prefix) and "." not in name and name.endswith("_"):
                self._learn(name, value, trainable=self._trainable(name))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _trainable(self, name: str) -> bool:
        """Whether a learned tensor is a parameter rather than a buffer."""
        return False

    @property
    def longest(self) -> int:
        """Most measurements that :meth:`init` may need after another fit: the context, where a fit does not choose."""
        return self.context

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results that rest on the fit should know, in whole sentences."""
        return ()

    @property
    def earlier_seconds(self) -> float:
        """CPU seconds that the last fit had taken in processes before this one."""
        return 0.0

    def bind(self: Model, problem: ControlProblem) -> Model:
        """Take the names, the exogenous outputs and the period from the problem, before :meth:`fit`."""
        self.problem = problem
        return self

    def require_transitions(self, valid: Bool[Tensor, "N T"]) -> None:
        """Refuse data that hold too few transitions, which is known before they are collected.

        Args:
            valid: Whether each transition happens.

        Raises:
            ValueError: If a fit with the model's settings needs more, or more of them in a row.
        """

    @abstractmethod
    def fit(self: Model, data: Trajectories) -> Model:
        """Learn from data."""

    @abstractmethod
    def init(self, window: Window) -> Hidden:
        """Hidden state at the newest measurement."""

    @abstractmethod
    def step(
        self, h: Hidden, u: Float[Tensor, "n m"], dt: Float[Tensor, "n"] | None = None, w: Tensor | None = None
    ) -> Hidden:
        """Hidden state after an action.

        Args:
            h: Hidden state.
            u: Action, held.
            dt: How long, in the unit of the control period; None is one period. :meth:`one_period` refuses others.
            w: Standard normal numbers ``[n, noises]`` of a stochastic model; None says what is expected. Models that
                draw their noise themselves, such as the plant, and deterministic ones take none.

        Raises:
            ValueError: If the model knows the control period only, and ``dt`` is another.
        """

    def one_period(self, dt: Float[Tensor, "n"] | None) -> None:
        """Refuse any step but the control period.

        Raises:
            ValueError: Naming the step and what to do.
        """
        if dt is not None and bool(((dt - self.problem.period).abs() > EVEN * self.problem.period).any()):
            raise ValueError(
                f"{type(self).__name__} knows steps of one control period ({self.problem.period:g}) only, asked for "
                f"{float(dt.min()):g} to {float(dt.max()):g}; {REMEDY}"
            )

    @abstractmethod
    def output(self, h: Hidden) -> tuple[Float[Tensor, "n ny"], Float[Tensor, "n nz"]]:
        """Predicted measured and performance outputs; exogenous outputs repeat their last value."""

    def violation(self, h: Hidden, u: Float[Tensor, "n m"]) -> Float[Tensor, "n"] | None:
        """Sum of the plant's violated soft constraints; None where the model knows of none."""
        return None

    def failing(self, h: Hidden) -> Bool[Tensor, "n"] | None:
        """Rows that have failed, or None if the model knows no failure of its own (the objective may state limits)."""
        return None

    def reached(self, h: Hidden) -> Bool[Tensor, "n"] | None:
        """Rows whose episode has ended without a failure, or None if the model knows no such end."""
        return None

    def doubt(self, h: Hidden, u: Float[Tensor, "n m"]) -> Float[Tensor, "n"] | None:
        """How far outside its data the model is asked (0: inside, 1: at the edge), or None if unknown."""
        return None

    def in_training(self) -> Dynamics:
        """The model that policies are trained through which see outputs only, and so may live through all there is."""
        return self

    def branch(self, h: Hidden, count: int) -> Hidden:
        """``count`` copies of each row, next to each other; in models with noise each has noise of its own."""
        return tree_map(lambda leaf: leaf.repeat_interleave(count, dim=0), h)

    def predict(
        self,
        h: Hidden,
        U: Float[Tensor, "n h m"],
        particles: int = 1,
        *,
        dt: Float[Tensor, "n h"] | None = None,
        violation: bool = True,
        doubt: bool = True,
        until: float | None = None,
    ) -> Prediction:
        """What follows from the actions ``U``. Models of whole trajectories override it.

        Args:
            h: Hidden state to start from.
            U: Actions, one per control step.
            particles: Draws of the noise for each row; one of a stochastic model is what it expects. Their mean is 0,
                their deviation 1 at each step, and they are the same for all rows, so that plans differ by what they do
                and not by luck; a model that draws its noise itself keeps the rows' own (:meth:`branch`).
            dt: How long each action is held; by default the control period.
            violation: Whether to ask for :meth:`violation`.
            doubt: Whether to ask for :meth:`doubt`.
            until: Time of ``time.perf_counter`` at which the answer is of no use any more.

        Raises:
            ValueError: If ``particles`` or the number of actions is below 1, or a step is none of the model's.
            TimeoutError: If it is later than ``until`` before the last step is predicted.
        """
        n, length = U.shape[:2]
        at_least(1, particles=particles, actions=length)
        if particles > 1:
            h, U = self.branch(h, particles), U.repeat_interleave(particles, dim=0)
            dt = None if dt is None else dt.repeat_interleave(particles, dim=0)
        recorder = Recorder(self, violation=violation, doubt=doubt)
        draw = self.noises > 0 and particles > 1
        for j in range(length):
            if until is not None and time.perf_counter() > until:
                raise TimeoutError(f"{j} of {length} steps were predicted in time")
            w = self._drawn(particles, j, U).repeat(n, 1) if draw else None
            h = recorder.step(h, U[:, j], None if dt is None else dt[:, j], w)
        return recorder.prediction(particles)

    def _drawn(self, particles: int, j: int, like: Tensor) -> Float[Tensor, "p nw"]:
        """The noise of each particle in the step j."""
        key = noise.fold(noise.keys(_PARTICLES, particles, device=like.device), j)
        w = noise.normal(key, self.noises, dtype=like.dtype)
        # A mean that a few draws happen to have would push every plan to the same side, step after step.
        w = w - w.mean(dim=0)
        return w / w.std(dim=0, correction=0).clamp(min=1e-9)

    def rollout(
        self, h: Hidden, U: Float[Tensor, "n h m"], dt: Float[Tensor, "n h"] | None = None
    ) -> tuple[Float[Tensor, "n h ny"], Float[Tensor, "n h nz"]]:
        """Outputs *after* each action of ``U``: ``y_{k+1} .. y_{k+h}`` and ``z`` likewise."""
        found = self.predict(h, U, dt=dt, violation=False, doubt=False)
        return found.y[:, 0], found.z[:, 0]
