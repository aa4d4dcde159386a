"""Eigenvalues of matrices that may have overflowed: LAPACK's answer to a number that is not one can be a crash."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def eigenvalues(A: Float[Tensor, "s s"]) -> Complex[Tensor, "s"]:
    """Eigenvalues of a matrix.

    Raises:
        ValueError: If A is not finite.
    """
    _require_finite(A)
    values: Tensor = torch.linalg.eigvals(A)
    return values


def eigenpairs(A: Float[Tensor, "s s"]) -> tuple[Complex[Tensor, "s"], Complex[Tensor, "s s"]]:
    """Eigenvalues of a matrix, and its right eigenvectors as columns.

    Raises:
        ValueError: If A is not finite.
    """
    _require_finite(A)
    values, vectors = torch.linalg.eig(A)
    return values, vectors


def _require_finite(A: Tensor) -> None:
    bad = (~torch.isfinite(A)).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise ValueError(
            f"a matrix of a linear model is not finite ({float(A[row, column])} in row {row}, column {column}), so it "
            "has no modes; fit the model to data of moderate size, or linearise where the plant has derivatives"
        )
