"""Algebra on arrays whose last axis is the scenario, of torch or numpy alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from steersman.envs.grid.machines.base import Array, library

LOW_VOLTAGE = 0.7
"""Voltage below which loads of constant power or current turn into impedances, pu."""


def join(parts: list[Array]) -> Array:
    """Parts one below the other; a single one as it is."""
    return parts[0] if len(parts) == 1 else library(parts[0]).concatenate(parts)


def rows_of(array: Array, rows: slice) -> Array:
    """Rows of an array; the array itself where these are all."""
    return array if rows.stop - rows.start == array.shape[0] else array[rows]


def apply(Y: Array, E: Array) -> Array:
    """Currents by a matrix common to all rows, or one per row (last axis)."""
    return Y @ E if Y.ndim == 2 else (Y * E[None]).sum(1)


def solve(A: Array, b: Array) -> Array:
    """``A x = b`` with one matrix for all rows, or one per row (last axis)."""
    lib = library(b)
    if A.ndim == 2:
        return lib.linalg.solve(A, b)
    move = np.moveaxis if lib is np else torch.movedim
    return lib.linalg.solve(move(A, -1, 0), move(b, -1, 0)[..., None])[..., 0].T


def load_currents(V: Array, demand: Array) -> tuple[Array, Array]:
    """Currents drawn ``[2l, n]`` and their derivative ``[2l, 2l, n]``: ``conj(S) V |V|^(e - 2)``, e = 0 and 1."""
    lib, half = library(V), len(V) // 2
    re, im = V[:half], V[half:]
    size = re * re + im * im
    high = size >= LOW_VOLTAGE**2
    size = lib.where(high, size, LOW_VOLTAGE**2 + 0.0 * size)
    drawn: Any = 0.0
    slopes: list[list[Any]] = [[0.0, 0.0], [0.0, 0.0]]
    for exponent, (p, q) in enumerate(demand):
        scale = size ** (exponent / 2 - 1)
        fall = lib.where(high, (2.0 - exponent) / size, 0.0 * size)
        now = (p * re + q * im) * scale, (p * im - q * re) * scale
        drawn = lib.stack(now) + drawn
        own = ((p * scale, q * scale), (-q * scale, p * scale))
        slopes = [[slopes[i][j] + own[i][j] - fall * now[i] * part for j, part in enumerate((re, im))] for i in (0, 1)]
    eye = lib.eye(half, dtype=V.dtype) if lib is np else torch.eye(half, dtype=V.dtype, device=V.device)
    whole = [lib.concatenate([eye[:, :, None] * part[None] for part in row], 1) for row in slopes]
    return drawn.reshape(V.shape), lib.concatenate(whole, 0)


def solve_salient(Y: Array, driven: Array, gap: Array, sin: Array, cos: Array) -> Array:
    """Currents when each source gains ``gap i_q`` along its d axis: ``(1 - Y S) I = driven``."""
    lib, m = library(driven), len(sin)
    Y3 = Y[:, :, None] if Y.ndim == 2 else Y
    re, im = Y3[:, :m], Y3[:, m:]
    if len(Y3) != 2 * m:
        raise ValueError("saliency needs loads that are impedances; use x1d = x1q or leave loads out")
    s, c = gap * sin, gap * cos
    push = lib.concatenate([(re * s - im * c) * cos, (re * s - im * c) * sin], 1)
    eye = (
        lib.eye(2 * m, dtype=driven.dtype) if lib is np else torch.eye(2 * m, dtype=driven.dtype, device=driven.device)
    )
    return solve(eye[:, :, None] - push, driven)
