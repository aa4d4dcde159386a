"""Oscillations: eigenvalues and damping ratios of a linearised grid, and of a measured ringdown."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from steersman.envs.grid.network.admittance import real_form
from steersman.envs.grid.system import GridSystem, Network, OperatingPoint, Orders


@dataclass(frozen=True)
class Modes:
    """Eigenvalues of a linear system, slowest oscillation first, then what does not oscillate.

    Attributes:
        eigenvalues: In rad/s; of a pair the one with a positive imaginary part.
        shapes: Right eigenvectors as columns.
        participation: Shares of the states in the modes (Perez-Arriaga et al., IEEE Trans. PAS 101 (1982) 3117).
    """

    eigenvalues: Complex[Tensor, "k"]
    shapes: Complex[Tensor, "states k"]
    participation: Float[Tensor, "states k"]

    @property
    def frequency(self) -> Float[Tensor, "k"]:
        """Hz."""
        hertz: Tensor = self.eigenvalues.imag / (2 * math.pi)
        return hertz

    @property
    def damping(self) -> Float[Tensor, "k"]:
        """Damping ratio."""
        ratio: Tensor = -self.eigenvalues.real / self.eigenvalues.abs()
        return ratio


def state_matrix(system: GridSystem, point: OperatingPoint, Y: Complex[Tensor, "1 q q"]) -> Float[Tensor, "x x"]:
    """Jacobian of the rates of all states in the equilibrium of a batch of one, limits left aside."""
    network = Network(real_form(Y[0]), system.demand(point))
    orders = Orders(point.voltage.T, point.power.T, point.held.T)

    def f(x: Tensor) -> Tensor:
        rates: Tensor = system.flow(x[:, None], network, orders)[:, 0]
        return rates

    jacobian: Tensor = torch.func.jacrev(f)(point.x[0])
    return jacobian


def modes(A: Float[Tensor, "x x"]) -> Modes:
    """Modes of ``x' = A x``."""
    values, right = torch.linalg.eig(A)
    share = (right * torch.linalg.inv(right).T).abs()
    share = share / share.sum(dim=0)
    kept = (values.imag > -1e-9).nonzero()[:, 0]
    still = values.imag[kept] <= 1e-6
    kept = kept[torch.argsort(torch.where(still, 1e9, values.imag[kept]))]
    return Modes(values[kept], right[:, kept], share[:, kept])


def ringdown(signal: Float[np.ndarray, "samples"], period: float, order: int = 8) -> Complex[np.ndarray, "k"]:
    """Eigenvalues that make up a decaying signal, largest amplitude first, by the matrix pencil method.

    Hua and Sarkar, IEEE Trans. Acoust. Speech Signal Process. 38 (1990) 814. Of a pair the one with a positive
    imaginary part is given.

    Args:
        signal: Samples of one signal around its end value.
        period: Time between samples, s.
        order: Largest number of exponentials.

    Raises:
        ValueError: If there are fewer than ``3 order`` samples.
    """
    n = len(signal)
    if n < 3 * order:
        raise ValueError(f"signal needs at least {3 * order} samples for order {order}, got {n}; lower the order")
    pencil = n // 3
    hankel = np.lib.stride_tricks.sliding_window_view(signal, pencil + 1)
    _, sizes, rows = np.linalg.svd(hankel, full_matrices=False)
    kept = int(min(order, np.sum(sizes > 1e-8 * sizes[0])))
    basis = rows[:kept].T
    z = np.linalg.eigvals(np.linalg.pinv(basis[:-1]) @ basis[1:])
    z = z[np.abs(z) > 1e-12]
    amplitude = np.linalg.lstsq(z[None] ** np.arange(n)[:, None], signal.astype(complex), rcond=None)[0]
    # What is large only in the first sample is no mode but a fit to its noise.
    weight = np.abs(amplitude) * np.sqrt(np.sum(np.abs(z[None] ** np.arange(n)[:, None]) ** 2, axis=0))
    found = (np.log(z) / period)[np.argsort(-weight)]
    result: Complex[np.ndarray, "k"] = found[found.imag >= 0]
    return result
