"""Fixed-step integrators for batches: explicit, exponential and symplectic, all differentiable and on any device."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from steersman.envs.tree import State, tree_map

_State = TypeVar("_State", bound=State)
_SLACK = 1e-6
"""Share of a time by which rounding may make it longer without a further step."""


def rk4(f: Callable[[_State], _State], x: _State, h: float) -> _State:
    """One step of the classical Runge-Kutta method of order 4 for ``x' = f(x)``.

    Args:
        f: Right-hand side; actions are held inside it, time is an entry of the state where it matters.
        x: A tensor or a flat dict of tensors.
        h: Step.
    """

    def ahead(slope: _State, by: float) -> _State:
        return tree_map(lambda leaf, s: torch.add(leaf, s, alpha=by), x, slope)

    k1 = f(x)
    k2 = f(ahead(k1, h / 2))
    k3 = f(ahead(k2, h / 2))
    k4 = f(ahead(k3, h))
    return ahead(tree_map(lambda a, b, c, d: a + 2 * (b + c) + d, k1, k2, k3, k4), h / 6)


def leapfrog(
    velocity: Callable[[Tensor], Tensor],
    force: Callable[[Tensor], Tensor],
    q: Float[Tensor, "*b d"],
    p: Float[Tensor, "*b d"],
    h: float,
) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]]:
    """One Stoermer-Verlet step (kick, drift, kick) for ``q' = velocity(p)``, ``p' = force(q)``.

    Symplectic, time-reversible and of order 2 for every separable Hamiltonian ``T(p) + V(q)``, with
    ``velocity = dT/dp`` and ``force = -dV/dq`` (Hairer, Lubich, Wanner, Geometric Numerical Integration, I.1.4).

    Args:
        velocity: Velocities from momenta.
        force: Forces from positions.
        q: Positions.
        p: Momenta.
        h: Step.

    Returns:
        Positions and momenta after the step.
    """
    p = p + h / 2 * force(q)
    q = q + h * velocity(p)
    return q, p + h / 2 * force(q)


class ETDRK4:
    """Exponential time differencing of order 4 for ``v' = c v + N(v)`` with a diagonal, stiff linear part c.

    Kassam and Trefethen, SIAM J. Sci. Comput. 26 (2005) 1214: the linear part is solved exactly, and the
    coefficients, whose formulas cancel near c = 0, are means over a circle of radius 1 around ``h c``. The circle
    is a full one, since half of it with the real part taken is right for real c only.

    Args:
        linear: Diagonal c, real or complex; the states must have its dtype or a wider one.
        h: Step.
        points: Points on the circle.

    Raises:
        ValueError: If the step is not positive or ``linear`` is not floating point or complex.
    """

    def __init__(self, linear: Float[Tensor, "m"] | Complex[Tensor, "m"], h: float, *, points: int = 64) -> None:
        """Compute the coefficients, once."""
        if not (math.isfinite(h) and h > 0):
            raise ValueError(f"step h must be a positive number, got {h}")
        if not (linear.is_floating_point() or linear.is_complex()):
            raise ValueError(f"linear must be floating point or complex, got {linear.dtype}; call .to(torch.float64)")
        self.h = h
        circle = [cmath.exp(2j * math.pi * (j + 0.5) / points) for j in range(points)]
        hc = h * linear.to(torch.complex128)
        z = hc[:, None] + torch.tensor(circle, dtype=torch.complex128, device=linear.device)
        e, cube = torch.exp(z), z**3
        curves = (
            torch.exp(hc)[:, None],
            torch.exp(hc / 2)[:, None],
            h * torch.expm1(z / 2) / z,
            h * (-4 - z + e * (4 - 3 * z + z**2)) / cube,
            2 * h * (2 + z + e * (z - 2)) / cube,
            h * (-4 - 3 * z - z**2 + e * (4 - z)) / cube,
        )
        means = torch.stack([curve.mean(dim=1) for curve in curves])
        # The means of conjugate points are real up to rounding where c is.
        means = means if linear.is_complex() and bool(linear.imag.any()) else means.real
        self._coefficients = means.to(linear.dtype)

    def to(self, device: torch.device | str) -> ETDRK4:
        """The same scheme on another device."""
        moved = object.__new__(ETDRK4)
        moved.h, moved._coefficients = self.h, self._coefficients.to(device)
        return moved

    def run(self, v: Tensor, nonlinear: Callable[[Tensor], Tensor], steps: int = 1) -> Tensor:
        """Advance by ``steps`` steps.

        Args:
            v: State ``[..., m]``.
            nonlinear: ``N(v)``, everything else of the right-hand side, held actions included.
            steps: Number of steps.

        Returns:
            State ``[..., m]`` after ``steps * h``.
        """
        whole, half, q, f1, f2, f3 = self._coefficients
        for _ in range(steps):
            free, n0 = half * v, nonlinear(v)
            a = torch.addcmul(free, q, n0)
            n1 = nonlinear(a)
            n2 = nonlinear(torch.addcmul(free, q, n1))
            n3 = nonlinear(torch.addcmul(half * a, q, torch.sub(2 * n2, n0)))
            v = torch.addcmul(torch.addcmul(torch.addcmul(whole * v, f1, n0), f2, n1 + n2), f3, n3)
        return v


def row_steps(dt: Float[Tensor, "*b 1"], most: float, substeps: int) -> Iterator[Float[Tensor, "*b 1"]]:
    """Steps by which each row covers its own ``dt``, whatever the others take; 0 once it is there.

    Args:
        dt: Times to cover.
        most: Time that ``substeps`` steps cover at most.
        substeps: Steps for that time.
    """
    own = substeps * torch.ceil(dt / most - _SLACK).clamp(min=1)
    for i in range(int(own.max())):
        yield torch.where(i < own, dt / own, 0.0)
