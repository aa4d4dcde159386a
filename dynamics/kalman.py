"""Steady-state Kalman filter of an affine model: the state behind noisy outputs."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steersman.dynamics.linear import AffineSystem
from steersman.dynamics.riccati import gain, riccati


class KalmanFilter:
    """``s- = A s + B u + c``, ``s = s- + L (y - C s- - d)``, batched, with the constant gain L of the limit.

    An episode starts from the model's own equilibrium (of least norm), corrected by the first measurement.
    """

    def __init__(self, system: AffineSystem, W: Float[Tensor, "ns ns"], V: Float[Tensor, "nk nk"]) -> None:
        """Compute the gain.

        Args:
            system: The model.
            W: Covariance of the process noise.
            V: Covariance of the measurement noise, positive definite.
        """
        self.system = system
        P = riccati(system.A.T, system.C.T, W, V)
        # L = P C' (C P C' + V)^-1; P is the covariance before the measurement, as the dual recursion gives it.
        eye = torch.eye(len(system.A), dtype=P.dtype)
        self.L = gain(eye, system.C.T, P, V).T
        self._rest = torch.linalg.lstsq(eye - system.A, system.c[:, None], driver="gelsd").solution[:, 0]
        self._s: Tensor | None = None

    def clear(self, mask: Bool[Tensor, "n"] | None = None) -> None:
        """Forget the state of all rows, or of the masked ones."""
        if mask is None or self._s is None:
            self._s = None
        else:
            self._s = torch.where(mask[:, None], torch.nan, self._s)

    def update(self, y: Float[Tensor, "n nk"], u_prev: Float[Tensor, "n m"]) -> Float[Tensor, "n ns"]:
        """State after the measurement ``y``; ``u_prev`` is the action applied since the last one."""
        sys = self.system
        rest = self._rest.expand(len(y), -1)
        if self._s is None or len(self._s) != len(y):
            before = rest
        else:
            ahead = self._s @ sys.A.T + u_prev @ sys.B.T + sys.c
            before = torch.where(self._s.isnan().any(dim=1, keepdim=True), rest, ahead)
        self._s = before + (y - before @ sys.C.T - sys.d) @ self.L.T
        return self._s
