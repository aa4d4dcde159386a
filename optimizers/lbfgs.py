"""L-BFGS for many small problems at once: a batch of rows that never see each other, each at its own pace."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

ARMIJO = 1e-4
"""Share of the predicted decrease that a step must bring."""
FLAT = 1e-9
"""Largest entry of a gradient that counts as zero."""


class RowLBFGS:
    """Minimises one function per row by the limited-memory BFGS method (Nocedal 1980) with backtracking.

    Ask for a trial point, tell its costs and gradients, and again. At each call a row either accepts its trial and
    turns, or shortens its step, so that no row waits for another and every evaluation serves every row. A trial with a
    cost or gradient that is not finite is rejected.

    Attributes:
        x: Best points so far.
        cost: Their costs; infinite before the first finite one.
    """

    def __init__(self, x: Float[Tensor, "n d"], history: int = 20) -> None:
        """Start at ``x``; ``history`` pairs of steps and changes of the gradient are kept."""
        n, d = x.shape
        self.x, self._trial = x, x
        self.cost = x.new_full((n,), torch.inf)
        self._gradient, self._direction = torch.zeros_like(x), torch.zeros_like(x)
        self._step, self._slope = x.new_ones(n), x.new_zeros(n)
        self._s, self._y, self._rho = x.new_zeros(history, n, d), x.new_zeros(history, n, d), x.new_zeros(history, n)

    def ask(self) -> Float[Tensor, "n d"]:
        """The points to evaluate next."""
        return self._trial

    def tell(self, cost: Float[Tensor, "n"], gradient: Float[Tensor, "n d"]) -> None:
        """Costs and gradients at the points asked."""
        begun = torch.isfinite(self.cost)
        finite = torch.isfinite(cost) & torch.isfinite(gradient).all(dim=1)
        enough = cost <= self.cost + ARMIJO * self._step * self._slope
        accept = finite & (enough | ~begun)
        self._remember(accept & begun, self._trial - self.x, gradient - self._gradient)
        shorter = self._shorter(cost, finite)
        keep = accept[:, None]
        self.x = torch.where(keep, self._trial, self.x)
        self._gradient = torch.where(keep, gradient, self._gradient)
        self.cost = torch.where(accept, cost, self.cost)
        self._turn(accept)
        first = 1.0 / self._gradient.abs().sum(dim=1).clamp(min=1.0)
        whole = torch.where((self._rho != 0).any(dim=0), 1.0, first)
        self._step = torch.where(accept, whole, shorter)
        self._trial = self.x + self._step[:, None] * self._direction

    @property
    def done(self) -> Bool[Tensor, "n"]:
        """Rows that stay as they are, once told: the gradient vanishes, steps are too short, or nothing is finite."""
        flat = self._gradient.abs().amax(dim=1) <= FLAT
        return ~torch.isfinite(self.cost) | flat | (self._step < 1e-10)

    def _shorter(self, cost: Tensor, finite: Tensor) -> Tensor:
        """The minimum of the parabola through the costs of both ends, within a tenth and a half of the step."""
        rise = cost - self.cost - self._slope * self._step
        ratio = -self._slope * self._step / (2 * rise.clamp(min=1e-300))
        return self._step * torch.where(finite, ratio.nan_to_num(0.1), 0.1).clamp(0.1, 0.5)

    def _remember(self, rows: Tensor, s: Tensor, y: Tensor) -> None:
        """Append a pair in the rows whose curvature is positive; an empty place has ``rho = 0``."""
        curvature = (s * y).sum(dim=1)
        rows = rows & (curvature > 1e-10 * (y * y).sum(dim=1)) & torch.isfinite(curvature)
        rho = torch.where(rows, 1.0 / torch.where(rows, curvature, 1.0), 0.0)
        keep = rows[None, :, None]
        self._s = torch.where(keep, torch.cat([self._s[1:], torch.where(rows[:, None], s, 0.0)[None]]), self._s)
        self._y = torch.where(keep, torch.cat([self._y[1:], torch.where(rows[:, None], y, 0.0)[None]]), self._y)
        self._rho = torch.where(rows[None], torch.cat([self._rho[1:], rho[None]]), self._rho)

    def _turn(self, rows: Tensor) -> None:
        """New directions ``-H g`` by the two-loop recursion; steepest descent where that does not descend."""
        q, shares = self._gradient, []
        for s, y, rho in zip(reversed(self._s), reversed(self._y), reversed(self._rho), strict=True):
            share = rho * (s * q).sum(dim=1)
            shares.append(share)
            q = q - share[:, None] * y
        scale = 1.0 / (self._rho[-1] * (self._y[-1] * self._y[-1]).sum(dim=1))
        q = torch.where((self._rho[-1] > 0)[:, None], scale[:, None], 1.0) * q
        for s, y, rho, share in zip(self._s, self._y, self._rho, reversed(shares), strict=True):
            q = q + (share - rho * (y * q).sum(dim=1))[:, None] * s
        slope = -(q * self._gradient).sum(dim=1)
        fails = ~(slope < 0)
        self._rho = torch.where((rows & fails)[None], 0.0, self._rho)
        new = torch.where(fails[:, None], -self._gradient, -q)
        slope = torch.where(fails, -self._gradient.square().sum(dim=1), slope)
        self._direction = torch.where(rows[:, None], new, self._direction)
        self._slope = torch.where(rows, slope, self._slope)
