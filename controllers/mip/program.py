"""A piecewise-linear model unrolled over a horizon: every quantity as an affine function of earlier ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from steersman.dynamics.windowed.relu import Kind, ReluSystem
from steersman.envs.actions import ActionSet

Vector = Float[NDArray[np.float64], "_"]
Matrix = Float[NDArray[np.float64], "_ _"]


@dataclass(frozen=True)
class Block:
    """Variables ``start .. stop-1`` of a program: ``v = A v[:start] + c``, through a ReLU where ``relu`` holds."""

    start: int
    stop: int
    A: Matrix
    c: Vector
    relu: Bool[NDArray[np.bool_], "_"]


@dataclass(frozen=True)
class Program:
    """A plan of ``horizon`` steps from one measured window.

    Attributes:
        blocks: In the order of computation; each sees all variables before it. The first variables are the planned
            actions ``u_0 .. u_{H-1}``, one after the other.
        lower: Lower bounds of the actions ``[H m]``.
        upper: Upper bounds of the actions.
        outputs: Index of the first kept output of each step ``y_1 .. y_H``.
        Z: Performance outputs ``z_1 .. z_H`` as matrices over all variables.
        z0: Their constants.
        horizon: Steps.
        m: Actions per step.
        size: Number of variables.
    """

    blocks: tuple[Block, ...]
    lower: Vector
    upper: Vector
    outputs: tuple[int, ...]
    Z: tuple[Matrix, ...]
    z0: tuple[Vector, ...]
    horizon: int
    m: int
    size: int

    @property
    def coefficients(self) -> int:
        """Numbers that are not zero in the equations."""
        return sum(int(np.count_nonzero(block.A)) for block in self.blocks)

    def evaluate(self, U: Vector) -> Vector:
        """All variables for given actions ``[H m]``."""
        v = np.zeros(self.size)
        v[: len(U)] = U
        for block in self.blocks:
            pre = block.A @ v[: block.start] + block.c
            v[block.start : block.stop] = np.where(block.relu, np.maximum(pre, 0.0), pre)
        return v


class _Affine:
    """Rows of affine functions of the variables of a program under construction."""

    def __init__(self, A: Matrix, c: Vector) -> None:
        self.A, self.c = A, c

    def through(self, W: Matrix) -> _Affine:
        return _Affine(W @ self.A, W @ self.c)

    def padded(self, size: int) -> Matrix:
        return np.pad(self.A, ((0, 0), (0, size - self.A.shape[1])))


def unroll(system: ReluSystem, s0: Vector, actions: ActionSet, horizon: int) -> Program:
    """Unroll a model from the state ``s0``.

    Neurons that are always zero are left out; the state at step 0 enters as constants.

    Raises:
        ValueError: If an action is unbounded: big-M needs finite bounds.
    """
    if not actions.bounded:
        raise ValueError("mixed-integer MPC needs finite action bounds; use the bounded variant of the plant")
    m, nk, context = system.m, system.nk, system.context
    size = horizon * m
    blocks: list[Block] = []
    outputs, Z, z0 = [], [], []
    u = [_Affine(np.eye(m, size, j * m), np.zeros(m)) for j in range(horizon)]
    y = [_constant(s0[i * nk : (i + 1) * nk]) for i in range(context)]
    past = [_constant(s0[context * nk + i * m : context * nk + (i + 1) * m]) for i in range(context - 1)]
    layers = [tuple(t.cpu().numpy() for t in (layer.weight, layer.bias, layer.kind)) for layer in system.layers]
    skip, offset, last, Cz, dz = (
        t.cpu().numpy() for t in (system.skip, system.offset, system.last, system.Cz, system.dz)
    )
    for j in range(horizon):
        x = _stack([*y, *past, u[j]], size)
        hidden = x
        for weight, bias, kind in layers:
            alive = kind != Kind.ZERO
            pre = hidden.through(weight[alive])
            # The output weights of dropped neurons are dropped with them below, by keeping full-length rows.
            block = Block(
                size, size + int(alive.sum()), pre.padded(size), pre.c + bias[alive], kind[alive] == Kind.RELU
            )
            blocks.append(block)
            spread = np.zeros((len(kind), block.stop))
            spread[np.flatnonzero(alive), np.arange(block.start, block.stop)] = 1.0
            size = block.stop
            hidden = _Affine(spread, np.zeros(len(kind)))
        after = x.through(skip)
        A, c = after.padded(size), after.c + offset
        if layers:
            tail = hidden.through(last)
            A, c = A + tail.padded(size), c + tail.c
        blocks.append(Block(size, size + nk, A, c, np.zeros(nk, dtype=bool)))
        outputs.append(size)
        y = [*y[1:], _Affine(np.eye(nk, size + nk, size), np.zeros(nk))]
        past = [*past, u[j]][1:] if context > 1 else []
        size += nk
        z = _stack([*y, *past], size).through(Cz)
        Z.append(z.A)
        z0.append(z.c + dz)
    lower, upper = (np.tile(np.asarray(b, dtype=float), horizon) for b in (actions.lower, actions.upper))
    whole = tuple(np.pad(A, ((0, 0), (0, size - A.shape[1]))) for A in Z)
    return Program(tuple(blocks), lower, upper, tuple(outputs), whole, tuple(z0), horizon, m, size)


def _constant(values: Vector) -> _Affine:
    return _Affine(np.zeros((len(values), 0)), np.asarray(values, dtype=float))


def _stack(parts: list[_Affine], size: int) -> _Affine:
    return _Affine(np.concatenate([p.padded(size) for p in parts]), np.concatenate([p.c for p in parts]))
