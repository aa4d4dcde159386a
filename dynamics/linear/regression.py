"""Ridge regression with as little rounding as the data allow."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

COLLINEAR = 1e-9
"""Directions of the regressors with singular values below this share of the largest are held to be rounding."""


NORMAL = 1.349
"""Interquartile range of the normal distribution, in standard deviations."""


def spread(x: Float[Tensor, "*k d"]) -> tuple[Float[Tensor, "d"], Float[Tensor, "d"]]:
    """Mean and standard deviation of each column; the deviation of a constant column is given as 1."""
    flat = x.reshape(-1, x.shape[-1])
    mean, std = flat.mean(dim=0), flat.std(dim=0, correction=0)
    return mean, torch.where(std > 1e-12 * (1 + mean.abs()), std, 1.0)


def quartiles(x: Float[Tensor, "*k d"]) -> tuple[Float[Tensor, "d"], Float[Tensor, "d"]]:
    """Median and interquartile range of each column, the latter in standard deviations of a normal distribution.

    Of a column of which half the entries are equal it is the deviation, as by :func:`spread`.
    """
    flat = x.reshape(-1, x.shape[-1])
    ranked = flat.sort(dim=0).values
    low, middle, high = (ranked[len(flat) * quarter // 4] for quarter in (1, 2, 3))
    wide = (high - low) / NORMAL
    return middle, torch.where(wide > 1e-12 * (1 + middle.abs()), wide, spread(flat)[1])


class Ridge:
    """Minimisers of ``|phi W - target|^2 / k + weight |W|^2`` for any weight, at the price of one factorisation.

    The tall system is first reduced by a QR factorisation: normal equations would square its condition number. Of what
    lies along collinear directions of phi W has nothing, whatever the weight. Equal inputs give equal bits.
    """

    def __init__(self, phi: Float[Tensor, "k d"], target: Float[Tensor, "k o"]) -> None:
        """Factorise."""
        self._rows = len(phi)
        # Products of matrices round by the alignment of their memory: copies are aligned.
        phi, target = (part.clone(memory_format=torch.contiguous_format) for part in (phi, target))
        q, r = torch.linalg.qr(phi)
        U, self._s, self._Vh = torch.linalg.svd(r, full_matrices=False)
        self._kept = self._s > COLLINEAR * self._s[0]
        self._right = U.T @ (q.T @ target)

    def __call__(self, weight: float) -> Float[Tensor, "d o"]:
        """The minimiser for a weight."""
        s = torch.where(self._kept, self._s, 1.0)
        shrunk = torch.where(self._kept, s / (s.square() + weight * self._rows), 0.0)
        found: Tensor = self._Vh.T @ (shrunk[:, None] * self._right)
        return found


class AffineRidge:
    """``W`` and ``b`` of ``target ~ x W + b`` by ridge regression on normalised columns of both."""

    def __init__(self, x: Float[Tensor, "k d"], target: Float[Tensor, "k o"]) -> None:
        """Factorise."""
        (self._mx, self._sx), (self._mt, self._st) = spread(x), spread(target)
        self._ridge = Ridge((x - self._mx) / self._sx, (target - self._mt) / self._st)

    def __call__(self, weight: float) -> tuple[Float[Tensor, "d o"], Float[Tensor, "o"]]:
        """Coefficients for a weight."""
        w = self._ridge(weight) * self._st / self._sx[:, None]
        return w, self._mt - self._mx @ w


def ridge(phi: Float[Tensor, "k d"], target: Float[Tensor, "k o"], weight: float) -> Float[Tensor, "d o"]:
    """See :class:`Ridge`."""
    return Ridge(phi, target)(weight)


def affine_fit(
    x: Float[Tensor, "k d"], target: Float[Tensor, "k o"], weight: float
) -> tuple[Float[Tensor, "d o"], Float[Tensor, "o"]]:
    """See :class:`AffineRidge`."""
    return AffineRidge(x, target)(weight)
