"""Kalman filter of an affine model: the state behind noisy outputs."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steersman.dynamics.estimation.base import Belief, Estimator
from steersman.dynamics.linear.models import AffineSystem
from steersman.dynamics.linear.riccati import gain, riccati
from steersman.envs.simulator import Measurement


class KalmanFilter:
    """``s- = A s + B u + c``, ``s = s- + L (y - C s- - d)``, batched.

    Without a start an episode begins at the model's own equilibrium (of least norm) and L is the constant gain of the
    limit; with one, the gains follow the covariance from there, and the limit takes over after the last of them. A wide
    covariance at the start forgets the mean at the first measurements, which the constant gain takes long to do.
    """

    def __init__(
        self,
        system: AffineSystem,
        W: Float[Tensor, "ns ns"],
        V: Float[Tensor, "nk nk"],
        start: tuple[Float[Tensor, "ns"] | None, Float[Tensor, "ns ns"]] | None = None,
        steps: int = 50,
    ) -> None:
        """Compute the gains.

        Args:
            system: The model.
            W: Covariance of the process noise.
            V: Covariance of the measurement noise, positive definite.
            start: Mean and covariance of the state at the start; a mean of None is the equilibrium.
            steps: Measurements for which gains follow the covariance.
        """
        self.system = system
        P = riccati(system.A.T, system.C.T, W, V)
        # L = P C' (C P C' + V)^-1; P is the covariance before the measurement, as the dual recursion gives it.
        eye = torch.eye(len(system.A), dtype=P.dtype, device=P.device)
        self.L = gain(eye, system.C.T, P, V).T
        gains = []
        mean = None if start is None else start[0]
        if mean is None:
            # A conserved quantity makes the equation singular to rounding, which must not be inverted.
            mean = torch.linalg.lstsq(eye - system.A, system.c[:, None], rcond=1e-10, driver="gelsd").solution[:, 0]
        self._rest = mean
        if start is not None:
            P = start[1]
            for _ in range(steps):
                gains.append(gain(eye, system.C.T, P, V).T)
                P = system.A @ (P - gains[-1] @ system.C @ P) @ system.A.T + W
                P = (P + P.T) / 2
        self._gains = torch.stack([*gains, self.L])
        self._s: Tensor | None = None
        self._age = torch.zeros(0, dtype=torch.int64)

    def clear(self, mask: Bool[Tensor, "n"] | None = None) -> None:
        """Forget the state of all rows, or of the masked ones."""
        if mask is None or self._s is None:
            self._s = None
        else:
            self._s = torch.where(mask[:, None], torch.nan, self._s)

    def update(
        self, y: Float[Tensor, "n nk"], u_prev: Float[Tensor, "n m"], seen: Bool[Tensor, "n nk"] | None = None
    ) -> Float[Tensor, "n ns"]:
        """State after the measurement ``y``; ``u_prev`` is the action applied since the last one.

        Outputs that were not ``seen`` do not correct the prediction; the gains stay as if they had.
        """
        sys = self.system
        rest = self._rest.expand(len(y), -1)
        if self._s is None or len(self._s) != len(y):
            before, self._age = rest, torch.zeros(len(y), dtype=torch.int64, device=y.device)
        else:
            fresh = self._s.isnan().any(dim=1)
            ahead = self._s @ sys.A.T + u_prev @ sys.B.T + sys.c
            before = torch.where(fresh[:, None], rest, ahead)
            self._age = torch.where(fresh, 0, self._age + 1)
        surprise = (y - before @ sys.C.T - sys.d)[:, :, None]
        if seen is not None:
            surprise = torch.where(seen[:, :, None], surprise, 0.0)
        L = self._gains[self._age.clamp(max=len(self._gains) - 1)] if len(self._gains) > 1 else self.L
        self._s = before + (L @ surprise)[:, :, 0]
        return self._s


class KalmanEstimator(Estimator):
    """A Kalman filter on the outputs of a linear model; the hidden state is the ``s`` of that model."""

    def __init__(self, kalman: KalmanFilter, kept: list[int]) -> None:
        """Take a filter and the measured outputs that it reads."""
        self._filter, self._kept = kalman, kept

    def reset(self, mask: Bool[Tensor, "n"] | None = None) -> None:
        """See :class:`~steersman.dynamics.estimation.base.Estimator`."""
        self._filter.clear(mask)

    def update(self, m: Measurement) -> Belief:
        """See :class:`~steersman.dynamics.estimation.base.Estimator`."""
        seen = None if m.seen is None else m.seen[:, self._kept]
        return Belief(m, {"s": self._filter.update(m.y[:, self._kept], m.u_prev, seen)})
