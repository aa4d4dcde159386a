"""Discrete-time Riccati equations by structured doubling, which also serves systems with marginal modes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.dynamics.linear.spectrum import eigenpairs

DOUBLINGS = 14
"""The limit is taken as the solution of a horizon of ``2**DOUBLINGS`` steps."""
GROWS = 1e-6
"""What a mode gains in a step, at least, to count as one that grows; undamped ones do so by rounding."""
BLIND = 1e-10
"""Share of the norm of an input or output matrix below which a mode has no part in it."""


def riccati(
    A: Float[Tensor, "s s"],
    B: Float[Tensor, "s m"],
    Q: Float[Tensor, "s s"],
    R: Float[Tensor, "m m"],
    doublings: int = DOUBLINGS,
) -> Float[Tensor, "s s"]:
    """Cost-to-go matrix P of ``sum x'Qx + u'Ru`` over ``2**doublings`` steps, ``P = Q + A'P(I + BR^-1B'P)^-1 A``.

    Structure-preserving doubling (Chu, Fan, Lin, Wang 2004): each pass doubles the horizon. Unlike an invariant
    subspace method it needs no eigenvalue off the unit circle: an undamped mode that costs nothing keeps P = 0.

    Raises:
        ValueError: If the recursion does not stay finite: some unstable mode cannot be controlled.
    """
    G = B @ torch.linalg.solve(R, B.T)
    H, F = Q, A
    if not len(A):
        return Q
    eye = torch.eye(len(A), dtype=A.dtype, device=A.device)
    for _ in range(doublings):
        W = eye + G @ H
        V = torch.linalg.solve(W, F)
        step = F.T @ H @ V
        G = G + F @ torch.linalg.solve(W, G) @ F.T
        H, F = H + step, F @ V
        G, H = (G + G.T) / 2, (H + H.T) / 2
        if not bool(torch.isfinite(H).all()):
            raise ValueError(
                "the Riccati recursion diverges: an unstable mode of the model cannot be controlled, or, in a filter, "
                "not be seen"
            )
        if float(step.abs().max()) <= 1e-13 * float(H.abs().max()):
            break
    return H


def gain(
    A: Float[Tensor, "s s"], B: Float[Tensor, "s m"], P: Float[Tensor, "s s"], R: Float[Tensor, "m m"]
) -> Float[Tensor, "m s"]:
    """Feedback ``K = (R + B'PB)^-1 B'PA`` of ``u = -K x``, for a cost-to-go P *after* the step."""
    found: Tensor = torch.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
    return found


def require_stabilizable_and_detectable(
    A: Float[Tensor, "s s"], B: Float[Tensor, "s m"], Q: Float[Tensor, "s s"]
) -> None:
    """Refuse modes that grow and that no action reaches, or that grow and cost nothing (Popov-Belevitch-Hautus tests).

    The former cost without end, and the latter would be left to grow until numbers overflow.

    Raises:
        ValueError: Naming the growth in a step, or if A is not finite.
    """
    for matrix, port, fault, remedy in (
        (A.T, B.T, "cannot be controlled: no action reaches it", "take it out of the model, or add an action"),
        (A, Q, "costs nothing", "price an output that shows it, or give lqr an effort of its own"),
    ):
        values, vectors = eigenpairs(matrix)
        met = torch.linalg.vector_norm(port.to(vectors) @ vectors, dim=0)
        blind = (values.abs() > 1 + GROWS) & (met <= BLIND * torch.linalg.matrix_norm(port))
        if bool(blind.any()):
            worst = float(values[blind].abs().max())
            raise ValueError(
                f"a mode of the model grows {worst:.6g}-fold in each step and {fault}; {remedy}, or give lqr a horizon"
            )
