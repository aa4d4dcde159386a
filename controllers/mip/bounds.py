"""Sound bounds of the pre-activations of an unrolled model: interval arithmetic and backward linear relaxation."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from steersman.controllers.mip.program import Block, Matrix, Program, Vector


@dataclass(frozen=True)
class Bounds:
    """Bounds of all variables *before* their ReLU; for actions and affine variables, of the variables themselves."""

    lower: Vector
    upper: Vector

    def after(self, program: Program) -> tuple[Vector, Vector]:
        """Bounds of the variables after their ReLU."""
        low, high = self.lower.copy(), self.upper.copy()
        for block in program.blocks:
            part = slice(block.start, block.stop)
            low[part] = np.where(block.relu, np.maximum(low[part], 0.0), low[part])
            high[part] = np.where(block.relu, np.maximum(high[part], 0.0), high[part])
        return low, high

    def unstable(self, program: Program) -> int:
        """ReLUs whose sign the bounds do not decide."""
        return sum(
            int((block.relu & (self.lower[s] < 0) & (self.upper[s] > 0)).sum())
            for block in program.blocks
            for s in (slice(block.start, block.stop),)
        )


def interval_bounds(program: Program) -> Bounds:
    """Bounds by interval arithmetic (Moore 1966): cheap, and looser with every layer and step."""
    found = _empty(program)
    for block in program.blocks:
        low, high = found.after(program)
        _set(found, block, *_interval(block, low, high))
    return found


def linear_bounds(program: Program, until: float | None = None) -> Bounds:
    """Bounds by backward linear relaxation through the whole horizon (CROWN; Zhang et al. 2018).

    Each pre-activation is bounded by a linear function of the actions, found by replacing every unstable ReLU
    between them by its upper chord or a line through the origin, whichever the sign of the coefficient asks for.
    Intersected with interval arithmetic, so it is never looser.

    Args:
        program: The unrolled model.
        until: Time of ``time.perf_counter`` from which on interval arithmetic has to do.
    """
    found = _empty(program)
    for i, block in enumerate(program.blocks):
        low, high = found.after(program)
        by_interval = _interval(block, low, high)
        if until is not None and time.perf_counter() > until:
            _set(found, block, *by_interval)
            continue
        upper = _backward(program, found, i, block.A, block.c)
        lower = -_backward(program, found, i, -block.A, -block.c)
        _set(found, block, np.maximum(lower, by_interval[0]), np.minimum(upper, by_interval[1]))
    return found


def _empty(program: Program) -> Bounds:
    lower, upper = np.zeros(program.size), np.zeros(program.size)
    lower[: len(program.lower)], upper[: len(program.upper)] = program.lower, program.upper
    return Bounds(lower, upper)


def _set(found: Bounds, block: Block, low: Vector, high: Vector) -> None:
    part = slice(block.start, block.stop)
    # Rounding must not cut off a feasible point.
    slack = 1e-9 * (1.0 + np.abs(low) + np.abs(high))
    found.lower[part], found.upper[part] = low - slack, high + slack


def _interval(block: Block, low: Vector, high: Vector) -> tuple[Vector, Vector]:
    plus, minus = np.maximum(block.A, 0.0), np.minimum(block.A, 0.0)
    left, right = low[: block.start], high[: block.start]
    return plus @ left + minus @ right + block.c, plus @ right + minus @ left + block.c


def _backward(program: Program, found: Bounds, i: int, A: Matrix, c: Vector) -> Vector:
    """Upper bounds of the rows ``A v + c`` over variables before block ``i``."""
    G, total = A.copy(), c.copy()
    for block in reversed(program.blocks[:i]):
        part = slice(block.start, block.stop)
        C = G[:, part]
        slope, shift, below = _lines(block, found.lower[part], found.upper[part])
        up, down = np.maximum(C, 0.0), np.minimum(C, 0.0)
        through = up * slope + down * below
        total += up @ shift + through @ block.c
        G = G[:, : block.start] + through @ block.A
    inputs = len(program.lower)
    G = G[:, :inputs]
    return total + np.maximum(G, 0.0) @ program.upper + np.minimum(G, 0.0) @ program.lower


def _lines(block: Block, low: Vector, high: Vector) -> tuple[Vector, Vector, Vector]:
    """Upper line ``slope x + shift`` and slope of the lower line through the origin, for each neuron."""
    width = np.maximum(high - low, 1e-300)
    unstable = block.relu & (low < 0) & (high > 0)
    fixed = np.where(block.relu & (high <= 0), 0.0, 1.0)
    slope = np.where(unstable, high / width, fixed)
    shift = np.where(unstable, -low * high / width, 0.0)
    below = np.where(unstable, (high > -low).astype(float), fixed)
    return slope, shift, below
