"""Batched states: a tensor, or a flat dict of tensors, all with the batch as leading axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar, cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor

State = Tensor | dict[str, Tensor]
"""State of a batch of plants: ``[n, ...]`` or a dict of such tensors."""
Params = dict[str, Tensor]
"""Parameters of a batch of plants, one row each."""

_Tree = TypeVar("_Tree", bound="Tensor | Mapping[str, Tensor]")


def tree_map(f: Callable[..., Tensor], tree: _Tree, *rest: _Tree) -> _Tree:
    """Apply ``f`` leaf by leaf to one or several trees of equal structure."""
    if isinstance(tree, Tensor):
        return cast(_Tree, f(tree, *rest))
    others = [cast(Mapping[str, Tensor], r) for r in rest]
    return cast(_Tree, {name: f(leaf, *(o[name] for o in others)) for name, leaf in tree.items()})


def tree_leaves(tree: Tensor | Mapping[str, Tensor]) -> list[Tensor]:
    """All tensors of the tree, in a fixed order."""
    return [tree] if isinstance(tree, Tensor) else [tree[name] for name in sorted(tree)]


def rows_like(mask: Tensor, leaf: Tensor) -> Tensor:
    """Reshape a row mask ``[n]`` so that it broadcasts against ``leaf`` ``[n, ...]``."""
    return mask.reshape(mask.shape + (1,) * (leaf.dim() - 1))


def tree_where(mask: Bool[Tensor, "n"], a: _Tree, b: _Tree) -> _Tree:
    """Rows of ``a`` where ``mask`` holds, rows of ``b`` elsewhere; a NaN in ``a`` never leaks into ``b``."""
    return tree_map(lambda x, y: torch.where(rows_like(mask, x), x, y), a, b)


def tree_index(tree: _Tree, rows: Int[Tensor, "m"] | Bool[Tensor, "n"] | slice) -> _Tree:
    """The chosen rows of every leaf."""
    return tree_map(lambda leaf: leaf[rows], tree)


def tree_finite(tree: Tensor | Mapping[str, Tensor], n: int) -> Bool[Tensor, "n"]:
    """Rows whose floating-point leaves are all finite."""
    ok: Tensor | None = None
    for leaf in tree_leaves(tree):
        if leaf.is_floating_point():
            # Zero times anything finite is zero: half the work of isfinite.
            row = (leaf.detach().reshape(n, -1) * 0).sum(dim=1) == 0
            ok = row if ok is None else ok & row
    return torch.ones(n, dtype=torch.bool, device=tree_leaves(tree)[0].device) if ok is None else ok
