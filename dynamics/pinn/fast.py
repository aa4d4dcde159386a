"""The forward pass of a separable operator in numpy: a tenth of torch's time for single queries."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from steersman.dynamics.pinn.network import HARD, POLYNOMIALS, RELAXATION, WAVES, Separable
from steersman.dynamics.pinn.operator import SwingOperator
from steersman.envs.grid.structure_preserving import LARGEST, SWING, start_series

Array = NDArray[np.float32]
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
        """States ``[10]`` at one time."""
        times = np.array([t], dtype=np.float32)
        found: Array = self._states(self._at(times), times, dP)[0]
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
