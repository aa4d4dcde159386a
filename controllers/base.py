"""The controller contract. ``act`` always returns an admissible, finite action and says when it fell back."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from steersman.dynamics.base import Dynamics, Trajectories
from steersman.dynamics.collect import Exciter, HeldLevels
from steersman.dynamics.estimation.base import Belief, Estimator, WindowEstimator
from steersman.envs import noise
from steersman.envs.placement import moved
from steersman.envs.plant import ControlProblem, Plant
from steersman.envs.settings import check_ranges
from steersman.envs.simulator import Measurement, Simulator

Track = Literal["data only", "solver access", "hindsight"]
"""What a controller may know: measured outputs, also the plant's equations and state, or even what is still to come."""

Bound = TypeVar("Bound", bound="Controller")
"""The class of a controller, for methods that return self (beartype cannot check typing.Self in plain methods)."""

_STREAM = 0x7124114
"""Separates training scenarios from those that evaluations draw from the same seed."""


class Outcome(IntEnum):
    """How a decision came about, from best to last resort."""

    OPTIMAL = 0
    """What the controller is meant to return."""
    INCUMBENT = 1
    """Best plan found when the time limit ended the search."""
    SHIFTED = 2
    """The previous plan, shifted by one step."""
    BACKUP = 3
    """A simple backup law (LQR, PID)."""
    NEUTRAL = 4
    """The admissible action nearest to zero."""


@dataclass(frozen=True)
class Decision:
    """Actions of a batch, how each came about, and the wall time of the call."""

    u: Float[Tensor, "n m"]
    outcome: UInt8[Tensor, "n"]
    seconds: float = 0.0


@dataclass(frozen=True)
class Training:
    """What a controller may use to train itself.

    Attributes:
        simulate: Makes a simulator with the given number of rows.
        seed: Seed of everything random in training; scenarios come from a stream that evaluation never uses.
        folder: Where checkpoints and logs go; None keeps nothing.
        progress: Called with a fraction in 0..1 and a short text.
        excite: Makes the signal that exploration excites the plant with: where the model has data, that of the data.
        data: What the model was fitted to, for controllers that fit it again; None where nobody knows.
        note: Called with each remark (:attr:`~steersman.envs.simulator.Simulator.notes`) of simulators that training
            made in other processes, which ``simulate`` does not see.
        device: Where the simulators are, and keys are made.
    """

    simulate: Callable[[int], Simulator]
    seed: int
    folder: Path | None = None
    progress: Callable[[float, str], None] = lambda fraction, text: None
    excite: Callable[[], Exciter] = HeldLevels
    data: Trajectories | None = None
    note: Callable[[str], None] = lambda text: None
    device: torch.device | str = "cpu"

    def keys(self, n: int, start: int = 0) -> Int64[Tensor, "n"]:
        """Keys of training scenarios ``start .. start+n-1``."""
        return noise.fold(noise.keys(self.seed, n, start=start, device=self.device), _STREAM)


@dataclass(frozen=True)
class TrainingCost:
    """Price of a training, and what it bought on the way.

    Attributes:
        plant_steps: Plant control steps used.
        cpu_seconds: CPU seconds spent.
        curve: Learning curve: plant steps up to then, and the mean cost of episodes under the policy of then.
    """

    plant_steps: int = 0
    cpu_seconds: float = 0.0
    curve: tuple[tuple[int, float], ...] = ()


class Controller(ABC):
    """A control law, batched over independent rows. Subclasses are final and implement :meth:`decide`.

    The constructor stores configuration only, which may be the fields of a dataclass (``@dataclass(eq=False)``);
    :meth:`bind` gives the problem and the model; :meth:`train` is a no-op unless the controller learns; :meth:`reset`
    starts episodes; :meth:`act` is called once a control step.

    Attributes:
        name: Short name for tables; that of the class by default.
        needs_model: Whether :meth:`bind` refuses to do without a model. Comparisons ask, and so it is said early.
        learns: Whether the training depends on its seed, so that several seeds are worth running; by default, whether
            there is a :meth:`train`.
        preview: Reference steps ahead that the controller asks for; 0 means none.
        uses_state: Whether it reads ``m.x``; it then runs in the "solver access" track.
        resumed: Whether its training went on from a checkpoint that does not hold everything, so that the result is not
            that of an uninterrupted training.
        estimator: What makes the model's hidden state of the measurements, where there is a model; by default the model
            itself, of the last ones. Another one may take its place after :meth:`bind`.
        device: Where it trains and decides (:meth:`to`); the CPU after :meth:`bind`.
        notes: What a reader of the results should know, such as what a training found that nobody should deploy the
            controller without knowing, in whole sentences (:meth:`note`).
    """

    name: ClassVar[str]
    needs_model: ClassVar[bool] = False
    learns: ClassVar[bool | None] = None
    preview: int = 0
    uses_state: bool = False
    resumed: bool = False
    notes: tuple[str, ...] = ()
    _last_y: Tensor | None = None
    _failures: Mapping[str, tuple[str, int]] = {}

    problem: ControlProblem
    model: Dynamics | None = None
    estimator: Estimator | None = None
    device: torch.device = torch.device("cpu")

    def __post_init__(self) -> None:
        """Where the settings are fields of a dataclass, refuse those out of the ranges that their annotations state."""
        check_ranges(self)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Name the class."""
        super().__init_subclass__(**kwargs)
        if not hasattr(cls, "name"):
            cls.name = cls.__name__

    @property
    def track(self) -> Track:
        """Track of the comparison that the controller runs in."""
        if self.model is not None and self.model.needs_future:
            return "hindsight"
        inside = self.model is not None and self.model.needs_state
        return "solver access" if self.uses_state or inside else "data only"

    def bind(self: Bound, problem: ControlProblem, model: Dynamics | None = None) -> Bound:
        """Attach the problem and, for model-based controllers, the model.

        Where the plant states no price of a failure, find it first (``simulator.price()``, then ``simulator.problem``):
        a plan made without it is free to fail.

        Raises:
            ValueError: If the controller cannot serve this problem; the message names the remedy.
        """
        self.problem, self.model, self.notes, self._failures = problem, model, (), {}
        self.estimator = None if model is None else WindowEstimator(model)
        self.device = torch.device("cpu")
        return self

    def to(self: Bound, device: torch.device | str) -> Bound:
        """Move model, learned tensors, belief and memory to a device, where simulators and training then are too.

        Looked through are attributes, containers, and objects of Steersman's classes or of the controller's own module;
        plants stay, whose constants follow the tensors they meet.
        """
        self.device = torch.device(device)
        modules = {kind.__module__ for kind in type(self).__mro__}

        def own(kind: type) -> bool:
            inside = kind.__module__.startswith("steersman.") or kind.__module__ in modules - {"builtins", "abc"}
            return inside and not issubclass(kind, Plant | Simulator | ControlProblem)

        seen: dict[int, Any] = {id(part): (part, part) for part in (self, self.problem)}
        vars(self).update({name: moved(value, self.device, own, seen) for name, value in vars(self).items()})
        return self

    def train(self, training: Training) -> TrainingCost:
        """Learn on simulators; a no-op for controllers that do not learn."""
        return TrainingCost()

    def reset(self, n: int, mask: Bool[Tensor, "n"] | None = None, *, gen: torch.Generator | None = None) -> None:
        """Start ``n`` episodes, or restart the masked rows. Subclasses with memory extend this."""
        if self.estimator is not None:
            self.estimator.reset(mask)
        if mask is None:
            self._gen = gen if gen is not None else torch.Generator().manual_seed(0)
            self._last_y = None
        elif self._last_y is not None:
            self._last_y = torch.where(mask[:, None], 0.0, self._last_y)

    @abstractmethod
    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        """The control law. ``m`` is finite; need not be admissible: :meth:`act` sees to that."""

    def act(self, m: Measurement, budget_s: float | None = None) -> Decision:
        """Admissible, finite actions for every row, within ``budget_s`` seconds where it is given.

        Rows with a non-finite measurement, and rows for which the law returned a non-finite action, get the
        neutral action and :attr:`Outcome.NEUTRAL`; the other rows are not affected. Outputs that are not finite reach
        the law as the last ones that were, and are marked in ``m.seen``; so are all outputs of a row whose reference is
        not finite, since no plan should be made for it. Where the law raises, or gives what is no
        decision, all rows get the neutral action, and :attr:`notes` say why and how often, once for each type of error.

        Raises:
            ValueError: If the measurement does not have the shapes of the problem, or its tensors are of a wrong type.
        """
        start = time.perf_counter()
        self._check_measurement(m)
        seen = torch.isfinite(m.y) & torch.isfinite(m.r).flatten(1).all(dim=1, keepdim=True)
        good = seen.all(dim=1)
        whole = None if bool(seen.all()) else seen
        self._last_y = self._held(m.y, seen)
        wide = torch.promote_types(m.y.dtype, m.u_prev.dtype)  # laws compute with all of them
        t = self.problem.period * m.k.to(wide) if m.t is None else m.t
        safe = replace(
            m, y=self._last_y.to(wide), r=m.r.nan_to_num(0.0, 0.0, 0.0).to(wide), u_prev=m.u_prev.to(wide), seen=whole,
            t=t,
        )  # fmt: skip
        actions, neutral = self.problem.actions, self.problem.actions.neutral(m.n, m.y)
        try:
            decision = _checked(self.decide(safe, budget_s), m.n, actions.m)
            u, outcome = decision.u.to(m.y), decision.outcome
        except Exception as error:
            self._note_failure(error)
            u, outcome = neutral, torch.full_like(m.k, int(Outcome.NEUTRAL))
        good = good & torch.isfinite(u).all(dim=1)
        u = torch.where(good[:, None], u, neutral)
        outcome = torch.where(good, outcome, int(Outcome.NEUTRAL)).to(torch.uint8)
        return Decision(actions.project(u).detach(), outcome, time.perf_counter() - start)

    @property
    def failed_decisions(self) -> int:
        """How often the law raised instead of deciding, since :meth:`bind`."""
        return sum(count for _, count in self._failures.values())

    def note(self, text: str) -> None:
        """Keep what a reader of the results should know, once."""
        if text not in self.notes:
            self.notes = (*self.notes, text)

    def _note_failure(self, error: Exception) -> None:
        """One note for each type of error, with the first message: later ones may differ in a number only."""
        kind = type(error).__name__
        text, count = self._failures.get(kind, (str(error), 0))
        said = f"{self.name} failed to decide: {kind}: {text} (the first of "
        self._failures = {**self._failures, kind: (text, count + 1)}
        self.notes = (*(note for note in self.notes if note != f"{said}{count})"), f"{said}{count + 1})")

    def believe(self, m: Measurement) -> Belief:
        """The belief after a measurement; called once in a :meth:`decide`.

        Raises:
            RuntimeError: If the controller has no model.
        """
        if self.estimator is None:
            raise RuntimeError(f"{self.name} has no model, and so no belief of its hidden state; bind it to one")
        return self.estimator.update(m)

    def _check_measurement(self, m: Measurement) -> None:
        """Refuse a measurement of another problem.

        Raises:
            ValueError: If a shape or a type is wrong.
        """
        n, problem = len(m.y), self.problem
        ahead = m.r.shape[1] if len(m.r.shape) == 3 else 1
        if ahead < 1:
            raise ValueError(
                f"m.r must begin with the present reference, got shape {tuple(m.r.shape)}; measure(0) has it"
            )
        _check_tensor("m.y", m.y, (n, problem.ny), "floating")
        _check_tensor("m.r", m.r, (n, ahead, problem.nz), "floating")
        _check_tensor("m.u_prev", m.u_prev, (n, problem.actions.m), "floating")
        _check_tensor("m.k", m.k, (n,), "integer")

    def _held(self, y: Float[Tensor, "n ny"], seen: Bool[Tensor, "n ny"]) -> Float[Tensor, "n ny"]:
        """The outputs, those that were not seen as they last were; 0 where they never were."""
        old = self._last_y
        if old is None or old.shape != y.shape:
            old = torch.zeros_like(y)
        return torch.where(seen, y, old.to(y))

    def state_dict(self) -> dict[str, Tensor]:
        """Learned tensors, for checkpoints; empty for controllers that do not learn."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:  # noqa: B027 - optional hook
        """Restore what :meth:`state_dict` gave."""

    def optimal(self, u: Float[Tensor, "n m"]) -> Decision:
        """The decision for these actions, each of them what the law is meant to return."""
        return Decision(u, torch.zeros(u.shape[0], dtype=torch.uint8, device=u.device))


def _checked(decision: object, n: int, width: int) -> Decision:
    """The decision, refused where it is none for n rows.

    Raises:
        ValueError: If a shape or a type is wrong, or an outcome unknown.
    """
    if not isinstance(decision, Decision):
        raise ValueError(f"decide must return a Decision, got {type(decision).__name__}; return self.optimal(u)")
    _check_tensor("u", decision.u, (n, width), "real")
    _check_tensor("outcome", decision.outcome, (n,), "integer")
    worst = max(Outcome)
    unknown = decision.outcome[(decision.outcome < 0) | (decision.outcome > worst)]
    if len(unknown):
        raise ValueError(f"outcome must be an Outcome, from 0 to {int(worst)}, got {int(unknown[0])}")
    return decision


def _check_tensor(
    name: str, value: object, shape: tuple[int, ...], kind: Literal["floating", "integer", "real"]
) -> None:
    """Refuse a tensor of another shape or type.

    Raises:
        ValueError: Naming the shape, or the types and how to get one.
    """
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a torch tensor, got {type(value).__name__}; torch.as_tensor makes one")
    if (got := tuple(value.shape)) != shape:
        raise ValueError(f"{name} must have shape {shape}, for {shape[0]} rows of this problem, got {got}")
    whole = not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
    if not {"floating": value.is_floating_point(), "integer": whole, "real": not value.is_complex()}[kind]:
        cast = "torch.int64" if kind == "integer" else "torch.float64"
        raise ValueError(f"{name} must hold {kind} numbers, got {value.dtype}; convert it with .to({cast})")
