"""The forward pass of a separable operator without torch, whose overhead outweighs single queries."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from torch import nn

from steersman.dynamics.pinn.network import HARD, POLYNOMIALS, RELAXATION, WAVES, Separable
from steersman.dynamics.pinn.operator import SwingOperator
from steersman.envs.grid.tasks.structure_preserving import LARGEST, SWING, start_series

Array = NDArray[Any]
_AREAS = np.array([0.5, 0.5, -0.5, -0.5, 0, 0, 0, 0, 0, 0], dtype=np.float32)


class FastSwing:
    """Weights of a fitted operator as numpy arrays in single precision.

    Disturbances and times must lie inside 0 .. 6 pu and 0 .. 2 s; they are not checked here.

    Args:
        operator: A fitted operator of the separable form.
        times: Times of :meth:`trajectory` and :meth:`peak`, s; the trunk is evaluated there once.

    Raises:
        ValueError: If the form of the operator is another one.
    """

    def __init__(self, operator: SwingOperator, times: NDArray[np.float64]) -> None:
        """Copy the weights."""
        network = operator.network
        if not isinstance(network, Separable):
            raise ValueError(f"form must be 'separable' to be exported, got {operator.settings.form!r}")
        self.rank = network.rank
        self._trunk, self._branch = _layers(network.trunk), _layers(network.branch)
        self._scale = network.get_buffer("scale").numpy().astype(np.float32)
        self._drift = network.get_buffer("drift").numpy().astype(np.float32)
        self._degrees = np.arange(max(POLYNOMIALS + 1, len(start_series())), dtype=np.float64)
        self._start = start_series().astype(np.float32)
        self._relaxation = -np.array(RELAXATION, dtype=np.float32)
        self._phase = np.arange(1, WAVES + 1, dtype=np.float32) * np.float32(np.pi / SWING)
        # Flat, since compiled functions are slow to take lists apart.
        self._flat = tuple(part for layer in (*self._trunk, *self._branch) for part in layer)
        self.times = times.astype(np.float32)
        self._modes = self._at(self.times)
        # The angle between the areas needs one row of the branch's last layer per mode instead of ten.
        weights, bias = self._branch[-1]
        between = _AREAS * self._scale
        self._area = (weights.reshape(-1, self.rank, 10) @ between, bias.reshape(self.rank, 10) @ between)

    def _at(self, t: Array) -> Array:
        """Modes ``[t, r]``."""
        fast, phase = np.exp(t[:, None] * self._relaxation), t[:, None] * self._phase
        features = np.concatenate([2 * t[:, None] / SWING - 1, fast, np.sin(phase), np.cos(phase)], axis=1)
        faded: Array = (1 - np.exp(-HARD * t))[:, None] * _forward(self._trunk, features.astype(np.float32))
        return faded

    def _polynomials(self, dP: NDArray[np.float64]) -> Array:
        """Chebyshev polynomials ``[n, 40]``, shared by the start and the branch."""
        turned = np.arccos(np.clip(2 * dP / LARGEST - 1, -1.0, 1.0))[:, None]
        found: Array = np.cos(turned * self._degrees).astype(np.float32)
        return found

    def _states(self, modes: Array, t: Array, dP: float) -> Array:
        polynomials = self._polynomials(np.array([dP]))
        weights = _forward(self._branch, polynomials[:, 1 : POLYNOMIALS + 1]).reshape(self.rank, 10)
        x0 = polynomials[:, : len(self._start)] @ self._start
        found: Array = x0 + (t * np.float32(dP))[:, None] * self._drift + modes @ (weights * self._scale)
        return found

    def point(self, t: float, dP: float) -> Array:
        """States ``[10]`` at one time, by compiled loops: a call of numpy costs more than a layer of this size."""
        found: Array = _point(t, dP, self._start, self._scale, self._drift, *self._flat)
        return found

    def along(self, t: Array, dP: float) -> Array:
        """States ``[t, 10]`` at any times."""
        return self._states(self._at(t), t, dP)

    def trajectory(self, dP: float) -> Array:
        """States ``[t, 10]`` at :attr:`times`."""
        return self._states(self._modes, self.times, dP)

    def peak(self, dP: NDArray[np.float64]) -> Array:
        """Largest angle between the areas ``[n]`` over :attr:`times`, rad, of many disturbances at once."""
        polynomials = self._polynomials(dP)
        hidden = polynomials[:, 1 : POLYNOMIALS + 1]
        for weights, bias in self._branch[:-1]:
            hidden = np.tanh(hidden @ weights + bias)
        modal = hidden @ self._area[0] + self._area[1]
        x0 = polynomials[:, : len(self._start)] @ (self._start @ _AREAS)
        found: Array = x0 + (modal @ self._modes.T).max(axis=1)
        return found


def compiled(**options: Any) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """``njit`` of the bare function: what an import hook has wrapped around it cannot be compiled."""

    def compile_bare(function: Callable[..., Array]) -> Callable[..., Array]:
        bare: Callable[..., Array] = numba.njit(**options)(inspect.unwrap(function))
        return bare

    return compile_bare


@compiled(fastmath=True)
def _layer(x: Array, weights: Array, bias: Array, bend: bool) -> Array:
    out = bias.copy()
    for i in range(weights.shape[0]):
        held = x[i]
        for j in range(weights.shape[1]):
            out[j] += held * weights[i, j]
    if bend:
        for j in range(out.shape[0]):
            # tanh by one exponential, which the compiler turns into vector instructions.
            out[j] = np.float32(1.0) - np.float32(2.0) / (np.exp(np.float32(2.0) * out[j]) + np.float32(1.0))
    return out


@compiled(fastmath=True)
def _point(
    t: float, dP: float, series: Array, scale: Array, drift: Array,
    w0: Array, b0: Array, w1: Array, b1: Array, w2: Array, b2: Array,
    v0: Array, a0: Array, v1: Array, a1: Array, v2: Array, a2: Array,
) -> Array:  # fmt: skip
    """States at one time and disturbance, from the weights of trunk (w, b) and branch (v, a)."""
    features = np.empty(1 + len(RELAXATION) + 2 * WAVES, dtype=np.float32)
    features[0] = 2 * t / SWING - 1
    for i in range(len(RELAXATION)):
        features[1 + i] = np.exp(-RELAXATION[i] * t)
    for i in range(WAVES):
        features[1 + len(RELAXATION) + i] = np.sin((i + 1) * np.pi / SWING * t)
        features[1 + len(RELAXATION) + WAVES + i] = np.cos((i + 1) * np.pi / SWING * t)
    modes = _layer(_layer(_layer(features, w0, b0, True), w1, b1, True), w2, b2, False)
    v = 2 * dP / LARGEST - 1
    polynomials = np.empty(series.shape[0], dtype=np.float32)
    last, now = 1.0, v
    polynomials[0] = last
    for k in range(1, series.shape[0]):
        polynomials[k] = now
        last, now = now, 2 * v * now - last
    weights = _layer(_layer(_layer(polynomials[1 : POLYNOMIALS + 1], v0, a0, True), v1, a1, True), v2, a2, False)
    found = drift * np.float32(t * dP)
    for k in range(series.shape[0]):
        for s in range(10):
            found[s] += polynomials[k] * series[k, s]
    faded = np.float32(1 - np.exp(-HARD * t))
    for r in range(modes.shape[0]):
        for s in range(10):
            found[s] += faded * modes[r] * weights[10 * r + s] * scale[s]
    return found


def _layers(network: nn.Sequential) -> list[tuple[Array, Array]]:
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    return [
        (
            layer.weight.detach().T.contiguous().numpy().astype(np.float32),
            layer.bias.detach().numpy().astype(np.float32),
        )
        for layer in linear
    ]


def _forward(layers: list[tuple[Array, Array]], x: Array) -> Array:
    for weights, bias in layers[:-1]:
        x = np.tanh(x @ weights + bias)
    weights, bias = layers[-1]
    found: Array = x @ weights + bias
    return found
