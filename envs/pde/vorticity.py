"""Two-dimensional incompressible flow on a periodic square, as vorticity on a Fourier grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import torch
from jaxtyping import Complex, Float
from torch import Tensor

Scheme = Literal["ab2cn", "rk4if"]
Slope = Callable[[Tensor], Tensor]
LARGEST_COURANT: dict[str, float] = {"ab2cn": 0.2, "rk4if": 1.1}
"""Largest ``speed dt / spacing``. Along a diagonal RK4 is stable up to 0.95; AB2 grows slowly without viscosity."""


@dataclass(frozen=True)
class VorticityFlow:
    """``omega_t + u . grad omega = nu lap omega - drag omega + g`` on a square of side 2 pi; the mean flow is zero.

    ``u = psi_y, v = -psi_x, lap psi = -omega``. The advection is written as ``(d_xx - d_yy)(u v) + d_xy (v^2 - u^2)``
    (Basdevant, J. Comput. Phys. 50 (1983) 209), four transforms an evaluation; the upper third of the modes is cut
    off (2/3 rule), so that energy and enstrophy are conserved where viscosity and drag are zero.

    Attributes:
        points: Grid points along a side, even.
        viscosity: nu.
        dt: Step of the integrator.
        speed: Largest speed that is expected; it decides whether grid and step resolve the flow.
        drag: Linear drag, 1 / time.
        scheme: ``ab2cn``: Adams-Bashforth of order 2 for advection and force, Crank-Nicolson for the rest, started
            by Heun's step in each run; ``rk4if``: Runge-Kutta of order 4 with the linear part integrated exactly.

    Raises:
        ValueError: If a number is out of range, the step violates the CFL condition at ``speed``, or the grid does not
            resolve the layers that a strain of ``speed`` per unit of length leaves: its cut-off lies below half the
            wavenumber ``sqrt(speed / nu)`` at which viscosity balances the strain.
    """

    points: int
    viscosity: float
    dt: float
    speed: float
    drag: float = 0.0
    scheme: Scheme = "ab2cn"

    def __post_init__(self) -> None:
        """Check that the flow is resolved."""
        if self.points < 8 or self.points % 2:
            raise ValueError(f"points must be even and at least 8, got {self.points}")
        for name, value in (("viscosity", self.viscosity), ("drag", self.drag)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a non-negative number, got {value}")
        for name, value in (("dt", self.dt), ("speed", self.speed)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, got {value}")
        if self.scheme not in LARGEST_COURANT:
            raise ValueError(f"scheme must be one of {', '.join(LARGEST_COURANT)}, got {self.scheme!r}")
        courant, largest = self.speed * self.dt / self.spacing, LARGEST_COURANT[self.scheme]
        if courant > largest:
            raise ValueError(
                f"dt={self.dt} has a Courant number of {courant:.3g} at speed {self.speed}, {self.scheme} takes up to "
                f"{largest}: choose dt <= {largest * self.spacing / self.speed:.3g}"
            )
        if 0 < self.viscosity < 0.25 * self.speed / self.largest_mode**2:
            needed = 3 * math.ceil(0.5 * math.sqrt(self.speed / self.viscosity)) + 1
            raise ValueError(
                f"{self.points} points do not resolve viscosity {self.viscosity} at speed {self.speed}; "
                f"take {needed + needed % 2} points or a larger viscosity"
            )

    @property
    def spacing(self) -> float:
        """Distance of grid points."""
        return 2 * math.pi / self.points

    @property
    def largest_mode(self) -> int:
        """Largest wavenumber that is kept."""
        return (self.points - 1) // 3

    @cached_property
    def axis(self) -> Float[Tensor, "N"]:
        """Coordinates of the grid points along either side; fields are indexed ``[row of y, column of x]``."""
        return self.spacing * torch.arange(self.points, dtype=torch.float64)

    def velocity(self, omega: Float[Tensor, "n N N"]) -> Float[Tensor, "n 2 N N"]:
        """Velocities along x and y."""
        to_velocity = _tables(self, omega.dtype, omega.device)[1]
        size = (self.points, self.points)
        v: Tensor = torch.fft.irfft2(to_velocity * spectrum(omega)[:, None], s=size)
        return v

    def run(self, omega: Float[Tensor, "n N N"], source: Float[Tensor, "#n N N"], steps: int) -> Float[Tensor, "n N N"]:
        """Vorticity after ``steps`` steps under a source g (the curl of the force) that stays."""
        mask, to_velocity, back, linear = _tables(self, omega.dtype, omega.device)
        size = (self.points, self.points)
        g = mask * spectrum(source)

        def slope(w: Complex[Tensor, "n N M"]) -> Complex[Tensor, "n N M"]:
            u, v = torch.fft.irfft2(to_velocity * w[:, None], s=size).unbind(dim=1)
            products = torch.fft.rfft2(torch.stack([u * v, v.square() - u.square()], dim=1))
            after: Tensor = g + (back * products).sum(dim=1)
            return after

        w = mask * spectrum(omega)
        w = self._multistep(w, slope, linear, steps) if self.scheme == "ab2cn" else self._rk4(w, slope, linear, steps)
        after: Tensor = torch.fft.irfft2(w, s=size)
        return after

    def _multistep(self, w: Tensor, slope: Slope, linear: Tensor, steps: int) -> Tensor:
        half = 0.5 * self.dt * linear
        explicit, implicit = (1 + half) / (1 - half), self.dt / (1 - half)
        before = slope(w)
        guess = explicit * w + implicit * before
        w = explicit * w + 0.5 * implicit * (before + slope(guess))
        for _ in range(steps - 1):
            now = slope(w)
            w = explicit * w + implicit * (1.5 * now - 0.5 * before)
            before = now
        return w

    def _rk4(self, w: Tensor, slope: Slope, linear: Tensor, steps: int) -> Tensor:
        dt, half = self.dt, torch.exp(0.5 * self.dt * linear)
        whole = half * half
        for _ in range(steps):
            k1 = slope(w)
            k2 = slope(half * (w + 0.5 * dt * k1))
            k3 = slope(half * w + 0.5 * dt * k2)
            k4 = slope(whole * w + dt * half * k3)
            w = whole * (w + dt / 6 * k1) + dt / 3 * half * (k2 + k3) + dt / 6 * k4
        return w


def spectrum(field: Float[Tensor, "n N N"]) -> Complex[Tensor, "n N M"]:
    """Fourier coefficients of real fields, those of ``torch.fft.rfft2``."""
    # One axis at a time: a library's transform of a single plane may round unlike that of several.
    found: Tensor = torch.fft.fft(torch.fft.rfft(field), dim=-2)
    return found


@lru_cache(maxsize=16)
def _tables(flow: VorticityFlow, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Kept modes; from vorticity to velocities; from the products to the slope; the linear part."""
    n = flow.points
    ky = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)[:, None]
    kx = torch.fft.rfftfreq(n, 1 / n, dtype=torch.float64)[None]
    square = kx**2 + ky**2
    mask = ((kx.abs() <= flow.largest_mode) & (ky.abs() <= flow.largest_mode) & (square > 0)).double()
    inverse = mask / square.clamp(min=1)
    to_velocity = torch.stack([1j * ky * inverse, -1j * kx * inverse])
    back = torch.stack([mask * (kx**2 - ky**2), mask * kx * ky])
    linear = -mask * (flow.viscosity * square + flow.drag)
    flat = (mask.to(dtype), back.to(dtype), linear.to(dtype))
    wave = to_velocity.to(torch.complex64 if dtype == torch.float32 else torch.complex128)
    return flat[0].to(device), wave.to(device), flat[1].to(device), flat[2].to(device)
