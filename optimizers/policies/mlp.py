"""The plain multilayer perceptron."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.optimizers.policies.base import LayeredPolicy


@final
class MLPPolicy(LayeredPolicy):
    """tanh layers and an affine output, without memory; differentiable."""

    name: ClassVar[str] = "mlp"
    batched: ClassVar[bool] = True

    def forward(
        self, obs: Float[Tensor, "... n inputs"], state: Float[Tensor, "... n memory"]
    ) -> tuple[Float[Tensor, "... n outputs"], Float[Tensor, "... n memory"]]:
        """See :class:`Policy`."""
        x = obs
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(x))
        return self.layers[-1](x), state
