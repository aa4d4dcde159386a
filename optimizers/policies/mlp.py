"""The plain multilayer perceptron."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steersman.optimizers.policies.base import Policy, check_hidden, dense_layers


@final
class MLPPolicy(Policy):
    """tanh layers and an affine output, without memory; differentiable."""

    name: ClassVar[str] = "mlp"
    batched: ClassVar[bool] = True

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
        self.layers = nn.ModuleList(dense_layers((inputs, *hidden, outputs), gen, dtype))

    def forward(
        self, obs: Float[Tensor, "... n inputs"], state: Float[Tensor, "... n memory"]
    ) -> tuple[Float[Tensor, "... n outputs"], Float[Tensor, "... n memory"]]:
        """See :class:`Policy`."""
        x = obs
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(x))
        return self.layers[-1](x), state
