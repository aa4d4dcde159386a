"""What a model says of a plan: the only thing that planners and trainings through models price."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

if TYPE_CHECKING:
    from steersman.dynamics.base import Dynamics, Hidden


@dataclass(frozen=True)
class Prediction:
    """A plan's consequences. Entry j of everything belongs to action ``u_{k+j}``; particles are axis 1.

    Attributes:
        y: Measured outputs *after* each action, ``y_{k+1} .. y_{k+h}``.
        z: Performance outputs likewise.
        violation: Sum of the violated soft constraints under each action; None where the model knows of none.
        doubt: How far outside its data the model is asked (0: inside, 1: at the edge); None where unknown.
        lost: Where the plant has failed after the action; None where the model knows no failure of its own.
        reached: Where the episode has ended without a failure; None where the model knows no such end.
    """

    y: Float[Tensor, "n p h ny"]
    z: Float[Tensor, "n p h nz"]
    violation: Float[Tensor, "n p h"] | None = None
    doubt: Float[Tensor, "n p h"] | None = None
    lost: Bool[Tensor, "n p h"] | None = None
    reached: Bool[Tensor, "n p h"] | None = None


class Recorder:
    """Steps a model and keeps what a :class:`Prediction` says; for laws that choose each action on the way."""

    def __init__(self, model: Dynamics, *, violation: bool = True, doubt: bool = True) -> None:
        """Ask for violation and doubt or leave them out: in some models either costs as much as a step."""
        self.model, self._ask = model, {"violation": violation, "doubt": doubt}
        self._kept: dict[str, list[Tensor]] = {"y": [], "z": []}

    def step(
        self, h: Hidden, u: Float[Tensor, "n m"], dt: Float[Tensor, "n"] | None = None, w: Tensor | None = None
    ) -> Hidden:
        """The model's next hidden state (:meth:`~steersman.dynamics.base.Dynamics.step`)."""
        model = self.model
        self._keep("violation", model.violation(h, u) if self._ask["violation"] else None)
        self._keep("doubt", model.doubt(h, u) if self._ask["doubt"] else None)
        h = model.step(h, u) if dt is None and w is None else model.step(h, u, dt, w)
        y, z = model.output(h)
        self._keep("y", y)
        self._keep("z", z)
        self._keep("lost", model.failing(h))
        self._keep("reached", model.reached(h))
        return h

    @property
    def y(self) -> Float[Tensor, "n ny"]:
        """Measured outputs after the last step."""
        return self._kept["y"][-1]

    def prediction(self, particles: int = 1) -> Prediction:
        """What was recorded, of ``n`` rows with so many particles next to each other."""
        whole = {name: torch.stack(values, dim=1) for name, values in self._kept.items()}
        return Prediction(**{name: value.reshape(-1, particles, *value.shape[1:]) for name, value in whole.items()})

    def _keep(self, name: str, value: Tensor | None) -> None:
        if value is not None:
            self._kept.setdefault(name, []).append(value)
