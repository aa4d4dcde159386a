"""Oblique decision tree: hard splits by hyperplanes, constant or linear leaves."""

from __future__ import annotations

from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steersman.optimizers.policies.base import Dense, Policy, only_size
from steersman.optimizers.policies.surrogate import exceeds


@final
class TreePolicy(Policy):
    """A complete binary tree; an observation goes right where ``w x + b > 0`` and ends in one leaf.

    The output is piecewise constant in the splits, whose gradient is zero almost everywhere; leaves are exact. The
    surrogate gives each split the gradient of a logistic function, so that a leaf's gradient flows to every split on
    the way to it (a soft tree, Irsoy, Yildiz & Alpaydin 2012, with hard values).
    """

    name: ClassVar[str] = "tree"
    surrogate: ClassVar[str] = "logistic"
    batched: ClassVar[bool] = True

    def __init__(
        self,
        inputs: int,
        outputs: int,
        depth: int = 3,
        *,
        leaves: Literal["constant", "linear"] = "constant",
        gen: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """Draw the weights from ``gen``.

        Args:
            inputs: Entries of an observation.
            outputs: Entries of a raw action.
            depth: Splits on the way to a leaf, 1 to 12.
            leaves: Whether a leaf is a constant or affine in the observation.
            gen: Source of the initial weights.
            dtype: Type of the weights.

        Raises:
            ValueError: If a size is out of range or ``leaves`` unknown.
        """
        super().__init__(inputs, outputs, 0)
        if not 1 <= depth <= 12:
            raise ValueError(f"depth must lie between 1 and 12, got {depth}: a tree has 2^depth leaves")
        if leaves not in ("constant", "linear"):
            raise ValueError(f"leaves must be 'constant' or 'linear', got {leaves!r}")
        self.depth, self.linear = depth, leaves == "linear"
        count = 1 << depth
        self.splits = Dense(inputs, count - 1, gen, dtype)
        self.leaves = Dense(count * (1 + inputs * self.linear), outputs, gen, dtype, bias=False)

    @classmethod
    def sized(
        cls, inputs: int, outputs: int, hidden: tuple[int, ...], gen: torch.Generator, dtype: torch.dtype
    ) -> Policy:
        """See :class:`Policy`; the one number is that of the leaves, a power of two."""
        count = only_size(hidden, "tree", "one number of leaves")
        if count < 2 or count & (count - 1):
            raise ValueError(f"a tree policy has a power of two of leaves, got hidden={hidden}")
        return cls(inputs, outputs, count.bit_length() - 1, gen=gen, dtype=dtype)

    def readout_parameters(self) -> tuple[nn.Parameter, ...]:
        """See :class:`~steersman.optimizers.policies.base.Policy`."""
        return tuple(self.leaves.parameters())

    def forward(
        self, obs: Float[Tensor, "... n inputs"], state: Float[Tensor, "... n memory"]
    ) -> tuple[Float[Tensor, "... n outputs"], Float[Tensor, "... n memory"]]:
        """See :class:`Policy`."""
        if not self.use_surrogate:
            return self._looked_up(obs), state
        leaf = self.leaf(obs)
        if self.linear:
            leaf = torch.cat([leaf, (leaf.unsqueeze(-1) * obs.unsqueeze(-2)).flatten(-2)], dim=-1)
        return self.leaves(leaf), state

    def _looked_up(self, obs: Tensor) -> Tensor:
        """The same values by a walk from the root: a leaf's numbers are fetched, not multiplied with zeros."""
        scores = self.splits(obs)
        node = torch.zeros_like(scores[..., :1], dtype=torch.int64)
        for _ in range(self.depth):
            node = 2 * node + 1 + (torch.gather(scores, -1, node) > 0)
        count, table = 1 << self.depth, self.leaves.weight.mT
        leaf = node - (count - 1)
        found = torch.gather(table[..., :count, :], -2, leaf.expand(*leaf.shape[:-1], self.outputs))
        if not self.linear:
            return found
        slopes = torch.unflatten(table[..., count:, :], -2, (count, -1)).flatten(-2)
        chosen = torch.gather(slopes, -2, leaf.expand(*leaf.shape[:-1], slopes.shape[-1]))
        return found + (torch.unflatten(chosen, -1, (-1, self.outputs)) * obs.unsqueeze(-1)).sum(dim=-2)

    def leaf(self, obs: Float[Tensor, "... n inputs"]) -> Float[Tensor, "... n leaves"]:
        """One-hot leaves, from left to right."""
        right = exceeds(self.splits(obs), self.use_surrogate)
        reach = torch.ones_like(right[..., :1])
        for level in range(self.depth):
            # Splits are stored level by level: those of a level stand in the order of the nodes they decide.
            turn = right[..., (1 << level) - 1 : (2 << level) - 1]
            reach = torch.stack([reach * (1 - turn), reach * turn], dim=-1).flatten(-2)
        return reach
