"""How fast PolyStep becomes stationary on piecewise-smooth losses, against the claimed rate.

The claim (Le, arXiv 2605.01928): conservative-stationary points are approached at O(log T / sqrt(T)) on losses that are
piecewise smooth; copies of the abstract that lost the root read O(log T / T). The former is what radii that fall as
1 / sqrt(t) give for the mean of the squared gradients, weighted by the steps' lengths. Losses are those of small ReLU
networks, with squared residuals, whose minima are smooth, and with absolute ones, whose minima lie on kinks. All runs
take a CPU minute.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import nnls
from torch import Tensor

from steersman.experiments.comparison.cell import Cell, Report
from steersman.optimizers.base import Search
from steersman.optimizers.polystep.frame import FrameStep
from steersman.optimizers.polystep.paper import paper
from steersman.optimizers.polystep.polytopes import Polytope
from steersman.optimizers.polystep.schedules import Schedule

STEPS, SEEDS = 5000, tuple(range(8))
INPUTS, HIDDEN, POINTS = 2, 4, 64
HEAT = 0.3
"""First temperature: the package's default radii are one and two of it, and the first steps then neither stall nor
leave the region of the data."""
SAMPLES = 48
"""Gradients around a point of which the least convex combination is taken."""


@dataclass(frozen=True)
class Loss:
    """Mean over data of a function of a ReLU network's residuals, for a whole population of parameters.

    Attributes:
        name: "squared" or "absolute".
        x: Inputs of the data.
        y: Outputs of another network of the same kind, so that zero is the least loss.
    """

    name: str
    x: Float[Tensor, "points inputs"]
    y: Float[Tensor, "points"]

    def __call__(self, vectors: Float[Tensor, "pop dim"]) -> Float[Tensor, "pop"]:
        """Losses of the members."""
        residual = network(vectors, self.x) - self.y
        return (residual.square() if self.name == "squared" else residual.abs()).mean(dim=1)

    def gradients(self, vectors: Float[Tensor, "pop dim"]) -> Float[Tensor, "pop dim"]:
        """Gradients of the pieces that the points lie on."""
        points = vectors.detach().clone().requires_grad_()
        (found,) = torch.autograd.grad(self(points).sum(), [points])
        return found


def network(vectors: Float[Tensor, "pop dim"], x: Float[Tensor, "points inputs"]) -> Float[Tensor, "pop points"]:
    """Outputs of networks with one hidden layer of ReLUs."""
    sizes = [INPUTS * HIDDEN, HIDDEN, HIDDEN, 1]
    weight, bias, last, offset = torch.split(vectors, sizes, dim=1)
    hidden = torch.relu(weight.reshape(-1, HIDDEN, INPUTS) @ x.T + bias[..., None])
    out: Tensor = (last[:, None] @ hidden)[:, 0] + offset
    return out


def dimension() -> int:
    """Parameters of a network."""
    return INPUTS * HIDDEN + 2 * HIDDEN + 1


def problem(name: str, seed: int, points: int = POINTS) -> tuple[Loss, Float[Tensor, "dim"]]:
    """A loss and a start."""
    gen = torch.Generator().manual_seed(seed)
    teacher, start = torch.randn(2, dimension(), generator=gen, dtype=torch.float64)
    x = torch.randn(points, INPUTS, generator=gen, dtype=torch.float64)
    return Loss(name, x, network(teacher[None], x)[0]), start


def falling(heat: float, steps: int) -> Schedule:
    """``heat / sqrt(1 + t)``."""
    return Schedule(heat, heat / math.sqrt(1 + steps), steps, "root")


METHODS: dict[str, Callable[[float, int], Search[Any]]] = {
    "paper, radii as 1/sqrt(t)": lambda heat, steps: paper(
        falling(heat, steps), polytope=Polytope.ORTHOPLEX, weighting="softmax"
    ),
    "paper, constant radii": lambda heat, steps: paper(heat, polytope=Polytope.ORTHOPLEX, weighting="softmax"),
    "frame_step, adaptive": lambda heat, steps: FrameStep(confirmations=0),
}


@dataclass(frozen=True)
class Run:
    """One search on one loss.

    Attributes:
        loss: Name of the loss.
        method: Key of ``METHODS``.
        seed: Seed of data, start and search.
        steps: Numbers of steps at which the point was looked at.
        gradient: Squared norm of the gradient there.
        goldstein: Squared norm of the shortest convex combination of gradients within a radius of the point.
        final: Loss at the end, over that at the start.
        evaluations: Points evaluated.
        seconds: CPU seconds.
    """

    loss: str
    method: str
    seed: int
    steps: tuple[int, ...]
    gradient: tuple[float, ...]
    goldstein: tuple[float, ...]
    final: float
    evaluations: int
    seconds: float


def least_norm(gradients: Float[Tensor, "m dim"]) -> float:
    """Squared norm of the shortest convex combination of the rows.

    Non-negative least squares with the sum of the weights as one more, heavy equation; the weights are then scaled to
    a sum of one, so that the result is that of a true combination.
    """
    rows = gradients.numpy()
    heavy = 1e3 * max(float(np.abs(rows).max()), 1e-300)
    table = np.vstack([rows.T, np.full((1, len(rows)), heavy)])
    weights, _ = nnls(table, np.append(np.zeros(rows.shape[1]), heavy))
    return float(np.square(rows.T @ (weights / weights.sum())).sum())


def goldstein(loss: Loss, x: Float[Tensor, "dim"], radius: float, gen: torch.Generator) -> float:
    """Squared distance of zero from the gradients near a point, sampled (Goldstein 1977; Burke, Lewis & Overton 2005).

    At a minimum on a kink no gradient is small, but opposite ones from both sides combine to zero.
    """
    draw = torch.randn(SAMPLES, len(x), generator=gen, dtype=x.dtype)
    length = radius * torch.rand(SAMPLES, 1, generator=gen, dtype=x.dtype) ** (1 / len(x))
    around = x + length * draw / torch.linalg.vector_norm(draw, dim=1, keepdim=True)
    return least_norm(loss.gradients(torch.cat([x[None], around])))


def grid(steps: int) -> list[int]:
    """Steps at which stationarity is looked at: all of the first twenty, then about 25 in each factor of ten."""
    tail = np.geomspace(20, steps, max(2, round(25 * math.log10(max(steps, 21) / 20)))).round().astype(int)
    return sorted({*range(1, min(20, steps) + 1), *(int(t) for t in tail if t <= steps)})


@dataclass(frozen=True)
class Solve(Cell):
    """One run; its points are looked at on the way and steer nothing."""

    row: ClassVar[type] = Run
    title: ClassVar[str] = "{loss}; {method}; seed {seed}"
    loss: str
    method: str
    seed: int
    steps: int = STEPS
    temperature: float = HEAT
    points: int = POINTS

    def run(self, report: Report) -> list[Run]:
        """See :class:`Cell`."""
        begun = time.process_time()
        loss, x = problem(self.loss, self.seed, self.points)
        radii, wanted = falling(self.temperature, self.steps), grid(self.steps)
        search = METHODS[self.method](self.temperature, self.steps).start(x, seed=self.seed)
        first, gen = float(loss(x[None])), torch.Generator().manual_seed(self.seed)
        seen: list[tuple[int, float, float]] = []
        with torch.no_grad():
            for t in range(1, self.steps + 1):
                search.tell(loss(search.ask()))
                if t in wanted:
                    report(t / self.steps, f"step {t}")
                    with torch.enable_grad():
                        at = search.incumbent
                        slope = float(loss.gradients(at[None]).square().sum())
                        seen.append((t, slope, goldstein(loss, at, radii(t), gen)))
        times = tuple(t for t, _, _ in seen)
        gradients, combinations = (tuple(float(f"{line[i]:.5g}") for line in seen) for i in (1, 2))
        final = float(loss(search.incumbent[None])) / first
        seconds = time.process_time() - begun
        return [
            Run(self.loss, self.method, self.seed, times, gradients, combinations, final, search.evaluations, seconds)
        ]


def solves(steps: int = STEPS, seeds: Sequence[int] = SEEDS) -> list[Solve]:
    """All runs."""
    return [
        Solve(loss, method, seed, steps) for loss in ("squared", "absolute") for method in METHODS for seed in seeds
    ]
