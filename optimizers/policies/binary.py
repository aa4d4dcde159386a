"""A network of weights and activations in {-1, 1}: one bit each, products are comparisons of bits."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steersman.optimizers.policies.base import Dense, LayeredPolicy, scaled_sum
from steersman.optimizers.policies.surrogate import binarise, hard_with_gradient_of, sign


@final
class BinaryPolicy(LayeredPolicy):
    """Binary weights and hidden activations, full-precision biases.

    A weight is ``sign(sin(frequency w))`` of its latent value w, a square wave; its surrogate gradient is that of
    ``sin(frequency w)``, ``frequency cos(frequency w)``, which has the period of the wave and never dies out (Vargas
    et al., "BiPer: Binary Neural Networks using a Periodic Function", CVPR 2024). With ``frequency = 0`` a weight is
    ``sign(w)`` and its surrogate the straight-through estimator, stopped outside [-1, 1] (Hubara et al. 2016).
    Activations are signs with the latter. Sums are divided by the square root of the fan-in, a constant.
    """

    name: ClassVar[str] = "binary"
    surrogate: ClassVar[str] = "periodic"
    batched: ClassVar[bool] = True

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: tuple[int, ...] = (16,),
        *,
        frequency: float = 1.0,
        gen: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """Draw the latent weights from ``gen``.

        Args:
            inputs: Entries of an observation.
            outputs: Entries of a raw action.
            hidden: Widths of the hidden layers.
            frequency: Radians of the wave per unit of a latent weight. Low frequencies give wide plateaus, which
                suit a search; gradients were published with 20.
            gen: Source of the initial weights.
            dtype: Type of the latent weights.

        Raises:
            ValueError: If a size is below 1 or ``frequency`` is negative.
        """
        super().__init__(inputs, outputs, hidden, gen=gen, dtype=dtype)
        if not frequency >= 0:
            raise ValueError(f"frequency must not be negative, got {frequency}; 0 takes the sign of the weight itself")
        self.frequency = frequency

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
                x = binarise(x, self.use_surrogate)
            x = scaled_sum(x, bits_of(layer.weight, self.frequency, self.use_surrogate), layer)
        return x, state


def wave_of(weight: Tensor, frequency: float) -> Tensor:
    """What bits stand for: the sine of latent weights, or the weights themselves at frequency 0."""
    return torch.sin(frequency * weight) if frequency else weight


def bits_of(weight: Tensor, frequency: float, use_surrogate: bool) -> Tensor:
    """Signs of the wave, with the gradient of the sine, or of ``clamp(w, -1, 1)`` at frequency 0, if wanted."""
    if frequency == 0:
        return binarise(weight, use_surrogate)
    wave = wave_of(weight, frequency)
    return hard_with_gradient_of(wave, sign(wave)) if use_surrogate else sign(wave)


def quantisation_error(wave: Tensor) -> tuple[float, float]:
    """Least mean squared error of ``wave`` by bits and one common factor: absolute, and relative to its mean square.

    The factor is ``mean |wave|`` (Rastegari et al., "XNOR-Net", 2016), so the error is
    ``mean wave^2 - (mean |wave|)^2``.
    """
    power, level = float(wave.square().mean()), float(wave.abs().mean())
    return power - level**2, 1 - level**2 / power if power > 0 else 0.0
