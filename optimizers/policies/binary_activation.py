"""A network of real weights whose hidden units say one bit each."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.optimizers.policies.base import LayeredPolicy, check_hidden
from steersman.optimizers.policies.surrogate import binarise

BITS = ("sign", "step")
"""What a hidden unit can say: -1 or 1, or 0 or 1."""


@final
class BinaryActivationPolicy(LayeredPolicy):
    """Full-precision weights and biases, hidden activations of one bit, an affine output.

    The binary policies of PolyStep's published control results (Le, arXiv 2605.01928) are of this kind;
    :class:`~steersman.optimizers.policies.binary.BinaryPolicy` has binary weights as well. Up to an affine change of
    the next layer both kinds of bit are the same network, but a search meets them at different scales.

    All layers but the last have a gradient of zero almost everywhere. The surrogate is the straight-through
    estimator, stopped where a unit's sum lies outside [-1, 1] (Hubara et al. 2016); for steps half of that of signs.
    """

    name: ClassVar[str] = "binary-activation"
    surrogate: ClassVar[str] = "straight-through"
    batched: ClassVar[bool] = True

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: tuple[int, ...] = (16,),
        *,
        bit: str = "sign",
        gen: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """Draw the weights from ``gen``.

        Args:
            inputs: Entries of an observation.
            outputs: Entries of a raw action.
            hidden: Widths of the hidden layers, at least one.
            bit: What a hidden unit says, one of :data:`BITS`.
            gen: Source of the initial weights.
            dtype: Type of the weights.

        Raises:
            ValueError: If a size is below 1 or there is no such bit.
        """
        check_hidden(hidden, 1)
        super().__init__(inputs, outputs, hidden, gen=gen, dtype=dtype)
        if bit not in BITS:
            raise ValueError(f"bit must be 'sign' or 'step', got {bit!r}")
        self.bit = bit

    def forward(
        self, obs: Float[Tensor, "... n inputs"], state: Float[Tensor, "... n memory"]
    ) -> tuple[Float[Tensor, "... n outputs"], Float[Tensor, "... n memory"]]:
        """See :class:`Policy`."""
        x = obs
        for layer in self.layers[:-1]:
            x = binarise(layer(x), self.use_surrogate)
            if self.bit == "step":
                x = (x + 1) / 2
        return self.layers[-1](x), state
