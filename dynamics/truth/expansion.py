"""First-order expansion of a plant: by automatic differentiation where its gradient is exact, else by differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.envs import noise
from steersman.envs.plant import Plant
from steersman.envs.tree import Params, State, tree_leaves

BLOCK = 256
"""Rows of a batch that are expanded at once, which bounds the memory."""


@dataclass(frozen=True)
class Expansion:
    """``x+ = A x + B u + c``, ``y = C x + d``, ``z = Cz x + dz`` near the point of expansion, x flattened."""

    A: Float[Tensor, "ns ns"]
    B: Float[Tensor, "ns m"]
    c: Float[Tensor, "ns"]
    C: Float[Tensor, "ny ns"]
    d: Float[Tensor, "ny"]
    Cz: Float[Tensor, "nz ns"]
    dz: Float[Tensor, "nz"]


def flatten_state(x: State) -> Float[Tensor, "n ns"]:
    """All leaves side by side, in the order of their names."""
    return torch.cat([leaf.reshape(leaf.shape[0], -1) for leaf in tree_leaves(x)], dim=1)


def unflatten_state(s: Float[Tensor, "n ns"], like: State) -> State:
    """Inverse of :func:`flatten_state` for states shaped as ``like``."""
    if isinstance(like, Tensor):
        return s.reshape(s.shape[0], *like.shape[1:])
    parts: dict[str, Tensor] = {}
    first = 0
    for name in sorted(like):
        width = like[name][0].numel()
        parts[name] = s[:, first : first + width].reshape(s.shape[0], *like[name].shape[1:])
        first += width
    return parts


def linearize(plant: Plant, x: State, u: Float[Tensor, "1 m"], p: Params) -> Expansion:
    """Expand a plant at control step 0 around one state and action.

    A disturbance given as a float tensor is set to zero, and measurements are free of noise (parameters named
    ``..._key`` are left out); process noise drawn from a key is frozen at one draw, which biases the offset.

    Raises:
        ValueError: If x is not one row of floating-point leaves, or derivatives there are not finite.
    """
    for leaf in tree_leaves(x):
        if leaf.shape[0] != 1 or not leaf.is_floating_point():
            raise ValueError(
                f"linearising {type(plant).__name__} needs one row of floating-point state, got a leaf of shape "
                f"{tuple(leaf.shape)} and {leaf.dtype}"
            )
    k = torch.zeros(1, dtype=torch.int64)
    w = plant.disturbance(noise.keys(0, 1), k)
    w = torch.zeros_like(w) if w.is_floating_point() else w
    quiet = {name: leaf for name, leaf in p.items() if not name.endswith("_key")}
    s = flatten_state(x)
    ns = s.shape[1]
    point = torch.cat([s, u], dim=1)[0]

    def rows(leaf: Tensor, n: int) -> Tensor:
        return leaf.expand(n, *leaf.shape[1:])

    def state(v: Tensor) -> State:
        return unflatten_state(v[:, :ns], x)

    def move(v: Tensor) -> Tensor:
        b = len(v)
        q = {name: rows(leaf, b) for name, leaf in p.items()}
        return flatten_state(plant.step(rows(k, b), state(v), v[:, ns:], rows(w, b), q))

    def measure(v: Tensor) -> Tensor:
        b = len(v)
        return plant.measure(rows(k, b), state(v), {name: rows(leaf, b) for name, leaf in quiet.items()})

    def perform(v: Tensor) -> Tensor:
        b = len(v)
        return plant.perform(rows(k, b), state(v), {name: rows(leaf, b) for name, leaf in p.items()})

    exact = plant.gradient == "exact"
    J, C, Cz = (_jacobian(f, v, exact) for f, v in ((move, point), (measure, s[0]), (perform, s[0])))
    if not all(bool(torch.isfinite(found).all()) for found in (J, C, Cz)):
        raise ValueError(
            f"{type(plant).__name__} has no finite derivatives at this state; linearise elsewhere, for example where "
            "an episode starts"
        )
    return Expansion(
        A=J[:, :ns], B=J[:, ns:], c=move(point[None])[0] - J @ point,
        C=C, d=measure(s)[0] - C @ s[0], Cz=Cz, dz=perform(s)[0] - Cz @ s[0],
    )  # fmt: skip


def _jacobian(f: Callable[[Tensor], Tensor], v: Tensor, exact: bool) -> Tensor:
    """Jacobian ``[out, in]`` at ``v [in]`` of a function of independent rows."""
    if exact:
        return torch.cat([_gradients(f, v, part) for part in torch.split(torch.arange(f(v[None]).shape[1]), BLOCK)])
    # Central differences: the step balances truncation (h^2) against rounding (eps / h).
    width = torch.finfo(v.dtype).eps ** (1 / 3) * v.abs().clamp(min=1.0)
    moves = torch.diag(width)
    columns = [
        (f(v + moves[part]) - f(v - moves[part])) / (2 * width[part, None])
        for part in torch.split(torch.arange(len(v)), BLOCK)
    ]
    return torch.cat(columns).T.contiguous()


def _gradients(f: Callable[[Tensor], Tensor], v: Tensor, outputs: Tensor) -> Tensor:
    """Gradients of some outputs: as rows never meet, one pass over equal rows gives a gradient from each."""
    point = v.detach().expand(len(outputs), -1).clone().requires_grad_()
    with torch.enable_grad():
        picked = f(point)[torch.arange(len(outputs)), outputs].sum()
    if not picked.requires_grad:
        return torch.zeros_like(point)
    (found,) = torch.autograd.grad(picked, point, allow_unused=True)
    return torch.zeros_like(point) if found is None else found
