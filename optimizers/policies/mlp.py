"""The plain multilayer perceptron."""

from __future__ import annotations

import itertools
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steersman.optimizers.policies.base import Dense, Policy, check_hidden


@final
class MLPPolicy(Policy):
    """tanh layers and an affine output, without memory; differentiable."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: tuple[int, ...] = (16,),
        *,
        gen: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """Draw the weights from ``gen``."""
        super().__init__(inputs, outputs, 0)
        check_hidden(hidden, 0)
        sizes = (inputs, *hidden, outputs)
        self.layers = nn.ModuleList(Dense(a, b, gen, dtype) for a, b in itertools.pairwise(sizes))

    def forward(
        self, obs: Float[Tensor, "n inputs"], state: Float[Tensor, "n memory"]
    ) -> tuple[Float[Tensor, "n outputs"], Float[Tensor, "n memory"]]:
        """See :class:`Policy`."""
        x = obs
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(x))
        return self.layers[-1](x), state
