"""A network of weights and activations in {-1, 0, 1}: additions, subtractions and omissions."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steersman.optimizers.policies.base import Dense, LayeredPolicy, scaled_sum
from steersman.optimizers.policies.surrogate import hard_with_gradient_of


@final
class TernaryPolicy(LayeredPolicy):
    """Ternary weights with a threshold relative to their layer, ternary hidden activations, full-precision biases.

    A weight is 0 where its latent value lies below ``0.7`` of the layer's mean magnitude, else its sign (Li, Zhang &
    Liu, "Ternary Weight Networks", 2016); sums are divided by the square root of the fan-in, a constant. A hidden
    activation is 0 below 1/2 in magnitude, else its sign.

    The output is piecewise constant in latent weights and in the observation beyond the first layer. The surrogate is
    the straight-through estimator, stopped where a latent value lies outside [-1, 1].
    """

    name: ClassVar[str] = "ternary"
    surrogate: ClassVar[str] = "straight-through"
    batched: ClassVar[bool] = True

    def readout_parameters(self) -> tuple[nn.Parameter, ...]:
        """See :class:`~steersman.optimizers.policies.base.Policy`: latent weights of zero are no actions of zero."""
        return ()

    def forward(
        self, obs: Float[Tensor, "... n inputs"], state: Float[Tensor, "... n memory"]
    ) -> tuple[Float[Tensor, "... n outputs"], Float[Tensor, "... n memory"]]:
        """See :class:`Policy`."""
        x = obs
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Dense)  # noqa: S101 - narrows what ModuleList forgets
            if i:
                x = self._ternary(x, 0.5)
            weight = self._ternary(layer.weight, 0.7 * layer.weight.detach().abs().mean(dim=(-2, -1), keepdim=True))
            x = scaled_sum(x, weight, layer)
        return x, state

    def _ternary(self, x: Tensor, threshold: Tensor | float) -> Tensor:
        hard = torch.where(x.abs() >= threshold, torch.sign(x), 0.0)
        return hard_with_gradient_of(nn.functional.hardtanh(x), hard) if self.use_surrogate else hard
