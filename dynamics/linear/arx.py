"""Linear models of windows (ARX)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steersman.dynamics.base import Trajectories
from steersman.dynamics.linear.regression import AffineRidge
from steersman.dynamics.linear.spectrum import eigenvalues
from steersman.dynamics.windowed.windows import cut, starts


@dataclass(frozen=True)
class ARX:
    """``y+ = W'(y window, u window) + b`` and ``z = V'(y window, u window but the newest) + d``, oldest first.

    Attributes:
        context: Measurements in the window.
        W: Coefficients of the outputs.
        b: Their offset.
        V: Coefficients of the performance outputs, at the time of the window's newest measurement.
        d: Their offset.
        covariance: Of the one-step prediction error of y.
    """

    context: int
    W: Float[Tensor, "d nk"]
    b: Float[Tensor, "nk"]
    V: Float[Tensor, "s nz"]
    d: Float[Tensor, "nz"]
    covariance: Float[Tensor, "nk nk"]

    def predict(
        self, y: Float[Tensor, "k L nk"], u: Float[Tensor, "k L1 m"], U: Float[Tensor, "k h m"]
    ) -> tuple[Float[Tensor, "k h nk"], Float[Tensor, "k h nz"]]:
        """Outputs after each action of ``U``, from windows of at least ``context`` measurements."""
        length = self.context
        ys, us = list(y[:, y.shape[1] - length :].unbind(1)), list(u[:, u.shape[1] - length + 1 :].unbind(1))
        zs = []
        for action in U.unbind(1):
            us.append(action)
            window = us[len(us) - length :]
            ys.append(torch.cat([*ys[-length:], *window], dim=1) @ self.W + self.b)
            zs.append(torch.cat([*ys[-length:], *window[1:]], dim=1) @ self.V + self.d)
        return torch.stack(ys[length:], dim=1), torch.stack(zs, dim=1)

    @property
    def finite(self) -> bool:
        """Whether all coefficients are; those of data whose squares overflow are not."""
        return all(bool(torch.isfinite(part).all()) for part in (self.W, self.b, self.V, self.d, self.covariance))

    @property
    def radius(self) -> float:
        """Spectral radius: what the fastest mode grows by in a step; of a model that is not finite, infinity."""
        if not self.finite:
            return torch.inf
        nk, past = len(self.b), self.context * len(self.b)
        A = self.W.new_zeros(past, past)
        A[: past - nk, nk:] = torch.eye(past - nk, dtype=A.dtype)
        A[past - nk :] = self.W[:past].T
        return float(eigenvalues(A).abs().max())


class Fit:
    """Regressions of one context, for any ridge."""

    def __init__(self, kept: Tensor, data: Trajectories, valid: Bool[Tensor, "N T"], context: int) -> None:
        """Factorise."""
        rows = starts(valid, context, 1)
        self._context = context
        y, u = (cut(part, rows, 1 - context, context).flatten(1) for part in (kept, data.u))
        self._phi = torch.cat([y, u], dim=1)
        # Outputs are regressed, not their changes: what windows leave open would become modes at 1 which no action
        # reaches, and a little error makes modes of them that grow. Drawn to zero they decay.
        self._next = cut(kept, rows, 1, 1).flatten(1)
        self._outputs = AffineRidge(self._phi, self._next)
        # Outputs are read after the step, since z may hold what the step itself brought, such as a reward.
        y, u = cut(kept, rows, 2 - context, context).flatten(1), cut(data.u, rows, 2 - context, context - 1).flatten(1)
        self._read_out = AffineRidge(torch.cat([y, u], dim=1), cut(data.z, rows, 1, 1).flatten(1))

    def __call__(self, ridge: float) -> ARX:
        """The model for a ridge."""
        W, b = self._outputs(ridge)
        residual = self._next - self._phi @ W - b
        return ARX(self._context, W, b, *self._read_out(ridge), residual.T @ residual / len(residual))
