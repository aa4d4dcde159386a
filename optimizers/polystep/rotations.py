"""Random rotations and orthonormal frames, uniform in the sense of Haar."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def haar_rotations(n: int, d: int, gen: torch.Generator, like: Tensor) -> Float[Tensor, "n d d"]:
    """Independent uniform rotations of SO(d).

    Stewart (1980), Mezzadri (2007): the QR factorisation of a Gaussian matrix is uniform on O(d) once the diagonal
    of R is made positive; a negated column then turns the improper half into SO(d). In the plane the angle is drawn
    directly, and d = 1 leaves only the identity.

    Args:
        n: Number of rotations.
        d: Dimension.
        gen: Source of randomness, on the device of ``like``.
        like: Tensor whose type and device the result takes.
    """
    if d == 1:
        return like.new_ones(n, 1, 1)
    if d == 2:
        angle = torch.rand(n, generator=gen, dtype=like.dtype, device=like.device) * (2 * torch.pi)
        cos, sin = angle.cos(), angle.sin()
        return torch.stack([cos, -sin, sin, cos], dim=1).reshape(n, 2, 2)
    gauss = torch.randn(n, d, d, generator=gen, dtype=like.dtype, device=like.device)
    unsigned, r = torch.linalg.qr(gauss)
    q: Tensor = unsigned * _signs(r).unsqueeze(-2)
    improper = torch.linalg.det(q) < 0
    q[:, :, 0] = torch.where(improper[:, None], -q[:, :, 0], q[:, :, 0])
    return q


def haar_frame(d: int, k: int, gen: torch.Generator, like: Tensor) -> Float[Tensor, "k d"]:
    """``k`` orthonormal directions in ``d`` dimensions, uniform on the Stiefel manifold, as rows.

    In many dimensions ``L^-1 A`` with ``L L^T = A A^T`` for a Gaussian A is taken: its law does not change under
    rotations of the space either, which only the uniform one does, and it needs no factorisation of the long matrix.

    Raises:
        ValueError: If ``k`` exceeds ``d``.
    """
    if not 1 <= k <= d:
        raise ValueError(f"k must lie between 1 and the dimension {d}, got {k}; take fewer directions")
    gauss = torch.randn(k, d, generator=gen, dtype=like.dtype, device=like.device)
    if d < 8 * k:
        q, r = torch.linalg.qr(gauss.T)
        frame: Tensor = (q * _signs(r)).T.contiguous()
        return frame
    lower, _ = torch.linalg.cholesky_ex(gauss @ gauss.T)  # unchecked: a check makes the host wait for a GPU
    # The small inverse and one product keep the rows contiguous; a triangular solve returns them strided.
    inverse = torch.linalg.solve_triangular(lower, torch.eye(k, dtype=like.dtype, device=like.device), upper=False)
    whitened: Tensor = inverse @ gauss
    return whitened


def aimed(frames: Float[Tensor, "*batch k D"], along: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch k D"]:
    """Frames turned so that their first row points along a vector; a uniform frame stays uniform about it.

    A reflection takes the first row to the vector and a change of the last row's sign undoes the change of
    orientation. Frames stay as they are where the vector is zero or points there already.

    Args:
        frames: Orthonormal rows.
        along: Wanted direction of each first row, of any length.
    """
    first = frames[..., 0, :]
    length = torch.linalg.vector_norm(along, dim=-1, keepdim=True)
    normal = first - along / torch.where(length > 0, length, 1.0)
    square = normal.square().sum(dim=-1, keepdim=True)
    turn = (length > 0) & (square > torch.finfo(frames.dtype).eps)
    factor = torch.where(turn, 2 / torch.where(turn, square, 1.0), 0.0)
    image = frames - (frames @ normal.unsqueeze(-1)) * (factor * normal).unsqueeze(-2)
    if frames.shape[-2] > 1:
        image[..., -1, :] *= torch.where(turn, -1.0, 1.0).to(frames.dtype)
    return image


def _signs(r: Tensor) -> Tensor:
    diagonal = torch.diagonal(r, dim1=-2, dim2=-1)
    return torch.where(diagonal < 0, -1.0, 1.0).to(r.dtype)
