"""Conservation laws on an interval: a flux-limited finite-volume scheme and the central one that others use."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.envs.settings import one_of

Scheme = Literal["central", "heun", "limited"]


def van_leer(a: Float[Tensor, "*b"], b: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Harmonic mean of two slopes of equal sign, else 0 (van Leer, J. Comput. Phys. 14 (1974) 361)."""
    product = a * b
    total = a + b
    safe = torch.where(total.abs() > 1e-300, total, 1.0)
    return torch.where(product > 0, 2 * product / safe, 0.0)


def godunov(left: Float[Tensor, "*b"], right: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Exact Riemann flux of ``u^2 / 2``: ``max(max(left, 0)^2, min(right, 0)^2) / 2``."""
    return torch.maximum(torch.relu(left).square(), torch.relu(-right).square()) / 2


class Burgers:
    """``u_t = -(u^2/2)_x + nu u_xx + w`` on (0, 1), zero at both ends, held force w; batched and differentiable.

    ``central``: explicit Euler with central differences on the interior points ``(j + 1) / (N + 1)``, the scheme of the
    Burgers tasks of DiffPhyCon and its family, first order in time. ``heun``: the same differences with Heun's steps,
    second order. ``limited``: cells of width 1/N, MUSCL slopes limited after van Leer,
    Godunov's flux and Heun's steps (strong-stability-preserving, order 2); total mass changes by the flux through the
    ends only.

    Args:
        points: Interior points or cells N.
        viscosity: nu.
        dt: Integrator step.
        scheme: Which of the three.
        speed: Largest ``|u|`` for which the step must be stable.

    Raises:
        ValueError: If the step is not stable; the message gives the largest that is.
    """

    def __init__(self, points: int, viscosity: float, dt: float, scheme: Scheme, speed: float = 2.5) -> None:
        """Check the step."""
        one_of("central", "heun", "limited", scheme=scheme)
        differences = scheme != "limited"
        if points < 8:
            raise ValueError(f"points must be at least 8 to resolve anything, got {points}")
        if not viscosity >= 0:
            raise ValueError(f"viscosity must be non-negative, got {viscosity}")
        self.h = 1 / (points + 1) if differences else 1 / points
        if differences and viscosity < speed * self.h / 20:
            raise ValueError(f"{points} points do not resolve fronts of viscosity {viscosity}; use scheme='limited'")
        stable = self.h**2 / (2 * viscosity) if viscosity else math.inf
        stable = min(stable, 2 * viscosity / speed**2 if differences else self.h / (2 * speed))
        if not 0 < dt <= stable:
            raise ValueError(f"dt={dt} is not stable on {points} points at |u| = {speed}; use at most {stable:.3g}")
        self.points, self.viscosity, self.dt, self.scheme = points, viscosity, dt, scheme

    @property
    def grid(self) -> Float[Tensor, "N"]:
        """Positions of the points, or of the middles of the cells."""
        j = torch.arange(self.points, dtype=torch.float64)
        return (j + (0.5 if self.scheme == "limited" else 1.0)) * self.h

    def run(self, u: Float[Tensor, "n N"], force: Float[Tensor, "n N"], steps: int) -> Float[Tensor, "n N"]:
        """Profiles after ``steps`` steps under a held force."""
        if self.scheme == "central":
            return self._central(u, force, steps)
        rate = self._limited if self.scheme == "limited" else self._differences
        for _ in range(steps):
            first = u + self.dt * (rate(u) + force)
            u = (u + first + self.dt * (rate(first) + force)) / 2
        return u

    def _central(self, u: Tensor, force: Tensor, steps: int) -> Tensor:
        a, b = self.dt * self.viscosity / self.h**2, self.dt / (4 * self.h)
        push = self.dt * force
        padded = torch.nn.functional.pad
        for _ in range(steps):
            wide = padded(u, (1, 1))
            square = wide * wide
            u = (1 - 2 * a) * u + a * (wide[:, :-2] + wide[:, 2:]) - b * (square[:, 2:] - square[:, :-2]) + push
        return u

    def _differences(self, u: Tensor) -> Tensor:
        wide = torch.nn.functional.pad(u, (1, 1))
        left, right = wide[:, :-2], wide[:, 2:]
        spread = self.viscosity / self.h**2 * (left + right - 2 * u)
        return spread - (right.square() - left.square()) / (4 * self.h)

    def _limited(self, u: Tensor) -> Tensor:
        # Odd reflection makes the value at the walls zero.
        wide = torch.cat([-u[:, 1:2], -u[:, :1], u, -u[:, -1:], -u[:, -2:-1]], dim=1)
        jump = wide[:, 1:] - wide[:, :-1]
        slope = van_leer(jump[:, :-1], jump[:, 1:])
        middle = wide[:, 1:-1]
        flux = godunov(middle[:, :-1] + slope[:, :-1] / 2, middle[:, 1:] - slope[:, 1:] / 2)
        flux = flux - self.viscosity * (middle[:, 1:] - middle[:, :-1]) / self.h
        return (flux[:, :-1] - flux[:, 1:]) / self.h
