"""What a controller is allowed to know of a plant: the model contract, and the data models are fitted to."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from steersman.dynamics.prediction import Prediction as Prediction
from steersman.dynamics.prediction import Recorder as Recorder
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import at_least
from steersman.envs.simulator import Measurement
from steersman.envs.tree import State, tree_map

Model = TypeVar("Model", bound="Dynamics")
"""The class of a model, for methods that return self (beartype cannot check typing.Self in plain methods)."""

Hidden = State
"""Internal state of a model: a tensor or a flat dict of tensors with leading axis n."""


@dataclass(frozen=True)
class Trajectories:
    """Episodes of equal length. Entry t of y and z comes before action t; both have one more entry than u.

    Tensors that are views of something larger are copied, so that equal data give equal fits, bit by bit: products of
    matrices round by the layout and the alignment of their memory.

    Attributes:
        y: Measured outputs.
        z: Performance outputs.
        u: Actions.
        valid: Transitions ``t -> t+1`` that really happened; False after an episode ended early.
        period: Control period.
    """

    y: Float[Tensor, "N T1 ny"]
    z: Float[Tensor, "N T1 nz"]
    u: Float[Tensor, "N T m"]
    valid: Bool[Tensor, "N T"]
    period: float

    def __post_init__(self) -> None:
        for name in ("y", "z", "u", "valid"):
            object.__setattr__(self, name, _canonical(getattr(self, name)))
        n, t, _ = self.u.shape
        for name, want in (("y", t + 1), ("z", t + 1)):
            got = getattr(self, name).shape[:2]
            if tuple(got) != (n, want):
                raise ValueError(
                    f"{name} must have {n} episodes of {want} entries for u {tuple(self.u.shape)}, got {tuple(got)}"
                )
        if tuple(self.valid.shape) != (n, t):
            raise ValueError(f"valid must have shape {(n, t)}, got {tuple(self.valid.shape)}")

    def __len__(self) -> int:
        return self.u.shape[0]

    @property
    def steps(self) -> int:
        """Number of real transitions."""
        return int(self.valid.sum())

    def index(self, rows: Int[Tensor, "k"] | slice) -> Trajectories:
        """The chosen episodes."""
        return Trajectories(self.y[rows], self.z[rows], self.u[rows], self.valid[rows], self.period)

    def split(self, fraction: float) -> tuple[Trajectories, Trajectories]:
        """The first part and the rest; episodes are independent, so no shuffle is needed."""
        cut = max(1, min(len(self) - 1, round(fraction * len(self))))
        return self.index(slice(0, cut)), self.index(slice(cut, None))

    @classmethod
    def join(cls, parts: Sequence[Trajectories]) -> Trajectories:
        """All episodes of some data, one after the other; shorter ones end in transitions that never happened.

        Raises:
            ValueError: If there is none, or the periods differ.
        """
        if len(periods := {part.period for part in parts}) != 1:
            raise ValueError(f"joined data need one control period, got {sorted(periods)}")
        length = max(part.u.shape[1] for part in parts)
        whole = [part.padded(length) for part in parts]
        y, z, u, valid = (torch.cat([getattr(part, name) for part in whole]) for name in ("y", "z", "u", "valid"))
        return cls(y, z, u, valid, parts[0].period)

    def padded(self, length: int) -> Trajectories:
        """The same episodes with so many transitions; those that never happened repeat the last outputs."""
        more = length - self.u.shape[1]
        y, z = (torch.cat([x, x[:, -1:].expand(-1, more, -1)], dim=1) for x in (self.y, self.z))
        u = torch.cat([self.u, self.u.new_zeros(len(self), more, self.u.shape[2])], dim=1)
        return Trajectories(y, z, u, torch.cat([self.valid, self.valid.new_zeros(len(self), more)], 1), self.period)

    def to(self, device: torch.device | str) -> Trajectories:
        """The same data on a device."""
        y, z, u, valid = (part.to(device) for part in (self.y, self.z, self.u, self.valid))
        return Trajectories(y, z, u, valid, self.period)

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name, for files."""
        parts = {name: getattr(self, name).detach().cpu().contiguous() for name in ("y", "z", "u", "valid")}
        return parts | {"period": torch.tensor(self.period, dtype=torch.float64)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Trajectories:
        """What :meth:`tensors` gave."""
        y, z, u, valid = (tensors[name] for name in ("y", "z", "u", "valid"))
        return cls(y, z, u, valid, float(tensors["period"]))

    def save(self, path: Path | str) -> None:
        """Write to a safetensors file."""
        save_file(self.tensors(), str(path))

    @classmethod
    def load(cls, path: Path | str) -> Trajectories:
        """Read what :meth:`save` wrote."""
        return cls.of(load_file(str(path)))


_ALIGNMENT = 64
"""Alignment in bytes of what torch allocates on a CPU."""


def _canonical(x: Tensor) -> Tensor:
    """The tensor itself if it is laid out row by row from an aligned address, else such a copy."""
    plain = x.is_contiguous() and (x.device.type != "cpu" or x.data_ptr() % _ALIGNMENT == 0)
    return x if plain else x.clone(memory_format=torch.contiguous_format)


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
    """A state-space model ``h+ = f(h, u)``, ``(y, z) = g(h)``, batched over rows.

    The constructor stores; :meth:`fit` forgets the previous fit, returns self and leaves learned names that
    end in ``_``. Tensors with such names are saved and restored, whatever their shapes; nothing else of a fit is.
    Everything is differentiable with respect to h, u and the weights.

    Attributes:
        context: Number of measurements that :meth:`init` needs (1: only the newest).
        needs_state: Whether :meth:`init` reads ``window.now.x`` ("solver access").
        needs_future: Whether it reads ``window.now.hindsight``: what it makes possible is a bound and no rival.
        progress: Called during a fit with a fraction in 0..1 and a short text.
        checkpoint: Folder in which a fit by gradient leaves its state every so many seconds; a fit that was killed goes
            on from there and ends with the bits of one that was not. None keeps nothing.
    """

    context: int = 1
    needs_state: bool = False
    needs_future: bool = False
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
    def step(self, h: Hidden, u: Float[Tensor, "n m"]) -> Hidden:
        """Hidden state one control period later."""

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
        violation: bool = True,
        doubt: bool = True,
        until: float | None = None,
    ) -> Prediction:
        """What follows from the actions ``U``. Models of whole trajectories override it.

        Args:
            h: Hidden state to start from.
            U: Actions, one per control step.
            particles: Draws of the noise for each row (:meth:`branch`); models without noise need one.
            violation: Whether to ask for :meth:`violation`.
            doubt: Whether to ask for :meth:`doubt`.
            until: Time of ``time.perf_counter`` at which the answer is of no use any more.

        Raises:
            ValueError: If ``particles`` or the number of actions is below 1.
            TimeoutError: If it is later than ``until`` before the last step is predicted.
        """
        at_least(1, particles=particles, actions=U.shape[1])
        if particles > 1:
            h, U = self.branch(h, particles), U.repeat_interleave(particles, dim=0)
        recorder = Recorder(self, violation=violation, doubt=doubt)
        for j in range(U.shape[1]):
            if until is not None and time.perf_counter() > until:
                raise TimeoutError(f"{j} of {U.shape[1]} steps were predicted in time")
            h = recorder.step(h, U[:, j])
        return recorder.prediction(particles)

    def rollout(self, h: Hidden, U: Float[Tensor, "n h m"]) -> tuple[Float[Tensor, "n h ny"], Float[Tensor, "n h nz"]]:
        """Outputs *after* each action of ``U``: ``y_{k+1} .. y_{k+h}`` and ``z`` likewise."""
        found = self.predict(h, U, violation=False, doubt=False)
        return found.y[:, 0], found.z[:, 0]
