"""One PolyStep generation, whatever the particles are."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.optimizers.base import Search, State
from steersman.optimizers.polystep.control import NOTHING, Evidence, PathLength, RadiusControl
from steersman.optimizers.polystep.polytopes import Polytope
from steersman.optimizers.polystep.schedules import Schedule, check_positive, value_at
from steersman.optimizers.polystep.weighting import ExponentialRanks, Weighting


@dataclass
class PolyMemory:
    """Present and previous point, velocity, evolution path, radius multiplier."""

    x: Tensor
    before: Tensor
    velocity: Tensor
    path: Tensor
    multiplier: float = 1.0
    steps: int = 0


@dataclass(eq=False, kw_only=True)
class PolytopeSearch(Search[PolyMemory]):
    """Polls the vertices of randomly rotated polytopes and moves to their weighted mean.

    With directions ``a_pv`` (rotated vertices of particle p), probe radius ``r_p``, step radius ``r_s`` and shells
    ``s_k = k / (K + 1)``, the cost of a vertex is the mean over k at ``x + r_p s_k a_pv``, and the step is
    ``r_s sum_v w_pv a_pv`` for all particles at once (Le, "Training Non-Differentiable Networks via Optimal
    Transport", arXiv 2605.01928). With one shell the probes are at half of ``r_p``.

    Where the control takes a step back, the search goes to the best probe of the generation if that is better than
    the point before, else to the point before.

    Where costs differ by much less than the temperature times the cost divisor s, a step on an orthoplex in d
    dimensions is ``-(r_s rho / (d temperature s)) grad``, rho being the distance of the probes.

    Attributes:
        probe_radius: ``r_p``, in units of x; a number or a schedule, times the control's multiplier.
        step_radius: ``r_s``, likewise.
        polytope: Template.
        weighting: Weights from costs.
        control: Acceptance of steps and adaptation of the radii.
        shells: K, probes per vertex.
        momentum: Heavy-ball coefficient in [0, 1); 0 is none. A step that is taken back ends the motion.
        biased: Whether the first direction of every polytope follows the velocity.
    """

    Memory: ClassVar[type[PolyMemory]] = PolyMemory

    probe_radius: float | Schedule = 1.0
    step_radius: float | Schedule = 1.0
    polytope: Polytope = Polytope.ORTHOPLEX
    weighting: Weighting = field(default_factory=lambda: ExponentialRanks(0.3))
    control: RadiusControl = field(default_factory=PathLength)
    shells: int = 1
    momentum: float = 0.0
    biased: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._unit = 1.0  # length of a direction
        self._share = 1.0  # of all directions, polled in a generation
        self.polytope = Polytope(self.polytope)
        check_positive("probe_radius", self.probe_radius)
        check_positive("step_radius", self.step_radius)
        if self.shells < 1:
            raise ValueError(f"shells must be at least 1, got {self.shells}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {self.momentum}")

    # ------------------------------------------------------------------ geometry, by subclasses

    @abstractmethod
    def _prepare(self, x0: Tensor) -> tuple[int, int]:
        """Check the settings against the first point; particles P and vertices V."""

    @abstractmethod
    def _turn(self, x: Tensor) -> None:
        """Draw fresh directions."""

    @abstractmethod
    def _probe(self, x: Tensor, length: float, out: Float[Tensor, "PV dim"]) -> None:
        """Write ``x`` moved by ``length`` along each direction into ``out``, vertices within particles."""

    @abstractmethod
    def _mean(self, weight: Float[Tensor, "P V"]) -> Float[Tensor, "dim"]:
        """Weighted mean of the directions, of all particles at once."""

    # ------------------------------------------------------------------ the search

    def _begin(self, x0: Tensor) -> PolyMemory:
        self._particles, self._vertices = self._prepare(x0)
        return PolyMemory(x0, x0.clone(), torch.zeros_like(x0), torch.zeros_like(x0))

    def _restore(self, state: State) -> None:
        self._particles, self._vertices = self._prepare(self._origin)

    def _size(self) -> int:
        return self._particles * self._vertices * self.shells + (2 if self.control.compares else 0)

    def _ask(self, out: Tensor) -> None:
        m, rows = self.memory, self._particles * self._vertices
        self._turn(m.x)
        radius = value_at(self.probe_radius, self.generation) * m.multiplier
        for k in range(self.shells):
            self._probe(m.x, radius * (k + 1) / (self.shells + 1), out[k * rows : (k + 1) * rows])
        if self.control.compares:
            out[-2], out[-1] = m.x, m.before
        self._points = out

    def _tell(self, cost: Tensor) -> None:
        m = self.memory
        polled = cost[: self._particles * self._vertices * self.shells]
        table = polled.view(self.shells, self._particles, self._vertices)
        costs = table.mean(dim=0) if self.shells > 1 else table[0]
        weight = self.weighting(costs, self.generation)
        step = self._mean(weight.to(m.x.dtype))
        seen = self._evidence(cost, _tied(costs), weight, step) if self.control.adapts else NOTHING
        verdict = self.control.judge(m.multiplier, seen)
        radius = value_at(self.step_radius, self.generation) * m.multiplier
        m.multiplier = verdict.multiplier
        if not verdict.keep:
            self._take_back(polled, cost[-1:])
            return
        m.velocity = self.momentum * m.velocity + radius * step if self.momentum else radius * step
        m.before, m.x, m.steps = m.x, m.x + m.velocity, m.steps + 1

    def _evidence(self, cost: Tensor, tied: Tensor, weight: Tensor, step: Tensor) -> Evidence:
        """What the control may read; nothing is computed that it does not."""
        now_before = cost[-2:] if self.control.compares else cost.new_zeros(2)
        rate = self.control.rate(self._share)
        path = self._follow(weight, step, rate, tied < 1) if rate else torch.ones_like(tied)
        now, before, share, length = self._read(torch.cat([now_before, tied[None], path[None]]))
        return Evidence(now, before, share, length, rate)

    def _follow(self, weight: Tensor, step: Tensor, rate: float, speaks: Tensor) -> Tensor:
        """Append a step to the evolution path, if the generation speaks; the path's length, 1 if it does not.

        Weights w put on the vertices of a centred polytope in random order have a mean of squared length
        ``(V sum(w^2) - 1) / (V - 1)``, because two different vertices have the product ``-1 / (V - 1)`` on average.
        """
        m, v = self.memory, weight.shape[1]
        chance = (v * weight.square().sum() - len(weight)) / max(v - 1, 1)
        longer = torch.sqrt(rate * (2 - rate) / chance.clamp(min=1e-12)) / self._unit
        moved = (1 - rate) * m.path + longer.to(step.dtype) * step
        m.path = torch.where(speaks & (chance > 1e-12), moved, m.path)
        # The path starts at zero; divided by what chance has made of it so far it does not pretend to be short.
        length = torch.linalg.vector_norm(m.path).double() / math.sqrt(1 - (1 - rate) ** (2 * m.steps + 2))
        return torch.where(speaks, length, 1.0)

    def _take_back(self, polled: Tensor, before: Tensor) -> None:
        m, lowest = self.memory, polled.argmin()[None]
        better = torch.where(polled[lowest] < before, self._points[lowest][0], m.before)
        m.x, m.velocity = better, torch.zeros_like(m.x)

    def recentre(self) -> None:
        """Go on at zero in fresh coordinates: directions are forgotten, the radius multiplier stays."""
        m, zero = self.memory, torch.zeros_like(self.memory.x)
        self.memory = PolyMemory(zero, zero.clone(), zero.clone(), zero.clone(), m.multiplier)

    @property
    def incumbent(self) -> Tensor:
        """The point the polytopes are centred at."""
        return self.memory.x.clone()


def tied_share(cost: Float[Tensor, "P V"]) -> float:
    """Share of mirrored vertices with equal costs below their particle's worst: :attr:`Evidence.tied`.

    Ties at the worst cost do not count, because something better is in sight and steps go there. Particles whose
    vertices all tie are left out, because a coordinate without effect ties at any radius; without any other the
    share is 1. At a centre of symmetry pairs tie and steps are zero, whatever the radius. A polytope without mirrored
    vertices pairs others, half of its list apart.

    Args:
        cost: Costs by particle and vertex.
    """
    return float(_tied(cost))


def _tied(cost: Float[Tensor, "P V"]) -> Float[Tensor, ""]:
    worst = cost.amax(dim=1, keepdim=True)
    same = (cost == cost.roll(cost.shape[1] // 2, dims=1)) & (cost < worst)
    speaks = (cost < worst).any(dim=1)
    vertices, tied = speaks.sum().double() * cost.shape[1], same.sum().double()
    return torch.where(vertices > 0, tied / vertices.clamp(min=1.0), 1.0)
