"""PolyStep for many coordinates: one polytope in a fresh random subspace moves the whole vector."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from steersman.optimizers.polystep.driver import PolytopeSearch
from steersman.optimizers.polystep.polytopes import Polytope
from steersman.optimizers.polystep.rotations import aimed, haar_frame
from steersman.optimizers.polystep.schedules import Schedule
from steersman.optimizers.polystep.weighting import ExponentialRanks, Weighting


@final
@dataclass(eq=False, kw_only=True)
class FrameStep(PolytopeSearch):
    """One particle: ``directions`` orthonormal directions of the whole space, uniform and new each generation.

    The cost of a generation does not depend on the number of coordinates: ``2 directions`` evaluations per shell on
    an orthoplex. The small-signal step is the gradient projected on the frame, which is on average
    ``directions / D`` of it.

    Radii are per coordinate: a radius r means a length of ``r sqrt(D)``, so that one setting suits few coordinates
    and many. The defaults, ranks and cumulative adaptation of the radii, are one setting for all tasks, chosen on
    policy search with seeds that no published number uses.

    Attributes:
        directions: Size of the frame; at most the number of coordinates, smaller problems take all of them.
    """

    name: ClassVar[str] = "frame_step"

    probe_radius: float | Schedule = 0.6
    step_radius: float | Schedule = 0.4
    weighting: Weighting = field(default_factory=lambda: ExponentialRanks(0.12))
    directions: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.directions < 1:
            raise ValueError(f"directions must be at least 1, got {self.directions}")

    def _prepare(self, x0: Tensor) -> tuple[int, int]:
        k = min(self.directions, len(x0))
        self._template = self.polytope.vertices(k).to(x0.device, x0.dtype)
        self._unit, self._share = math.sqrt(len(x0)), k / len(x0)
        return 1, self.polytope.size(k)

    def _turn(self, x: Tensor) -> None:
        self._frame = haar_frame(len(x), self._template.shape[1], self.gen, x)
        if self.biased:
            self._frame = aimed(self._frame, self.memory.velocity)

    def _probe(self, x: Tensor, length: float, out: Tensor) -> None:
        length *= self._unit
        if self.polytope is Polytope.ORTHOPLEX:
            torch.add(x, self._frame, alpha=length, out=out[: len(self._frame)])
            torch.sub(x, self._frame, alpha=length, out=out[len(self._frame) :])
        else:
            torch.addmm(x, self._template, self._frame, alpha=length, out=out)

    def _mean(self, weight: Tensor) -> Tensor:
        return self._unit * (weight[0] @ self._template @ self._frame)
