"""A multilayer perceptron in eight-bit integers, as a microcontroller would run it."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.optimizers.policies.base import Dense, LayeredPolicy, affine
from steersman.optimizers.policies.surrogate import hard_with_gradient_of

_TOP = 127
_INT32 = 2**31 - 1
_EXACT_IN_FLOAT32 = 2**24 // _TOP**2 - 1
"""Fan-in up to which every partial sum of products of two int8 numbers, and a bias, is exact in float32."""


@final
class Int8Policy(LayeredPolicy):
    """Symmetric int8 weights and activations, int32 accumulators and biases, ReLU between layers.

    The scale of each layer's weights is the power of two at or above ``max |w| / 127``, and activations are
    requantised to the power-of-two grid that covers ``reach``, rounding half to even and saturating: all scales are
    shifts. The numbers are held as floats, but every one is an integer below the float's exact range, so the results
    are those of integer arithmetic.

    The parameters are the latent floating-point weights. The output is piecewise constant in them and in the
    observation: **its gradient is zero almost everywhere**, and automatic differentiation returns exactly that unless
    the surrogate is on, the straight-through estimator: rounding passes gradients on, saturation stops them.
    """

    name: ClassVar[str] = "int8"
    surrogate: ClassVar[str] = "straight-through"
    batched: ClassVar[bool] = True

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: tuple[int, ...] = (16,),
        *,
        reach: float = 4.0,
        gen: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """Draw the latent weights from ``gen``.

        Args:
            inputs: Entries of an observation; scale them to lie within ``reach``.
            outputs: Entries of a raw action.
            hidden: Widths of the hidden layers.
            reach: Largest magnitude that observations and hidden activations can take; beyond it they saturate.
            gen: Source of the initial weights.
            dtype: Type of the latent weights.

        Raises:
            ValueError: If a size is below 1 or ``reach`` is not positive.
        """
        super().__init__(inputs, outputs, hidden, gen=gen, dtype=dtype)
        if not reach > 0:
            raise ValueError(f"reach must be positive, got {reach}")
        self.grid = float(power_of_two(torch.tensor(reach / _TOP, dtype=torch.float64)))

    def forward(
        self, obs: Float[Tensor, "... n inputs"], state: Float[Tensor, "... n memory"]
    ) -> tuple[Float[Tensor, "... n outputs"], Float[Tensor, "... n memory"]]:
        """See :class:`Policy`."""
        through = self.use_surrogate
        x = to_int8(obs / self.grid, through)
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Dense) and layer.bias is not None  # noqa: S101 - narrows what ModuleList forgets
            scale = power_of_two(layer.weight.abs().amax(dim=(-2, -1), keepdim=True).clamp(min=1e-12) / _TOP)
            bias = layer.bias / (scale.squeeze(-1) * self.grid)
            bias = hard_with_gradient_of(bias, torch.round(bias)) if through else torch.round(bias)
            total = integer_linear(x, to_int8(layer.weight / scale, through), bias)
            if i == last:
                return total.to(obs.dtype) * (scale * self.grid), state
            x = to_int8(torch.relu(total) * scale, through).to(obs.dtype)
        raise AssertionError("a policy has an output layer")


def power_of_two(x: Tensor) -> Tensor:
    """The power of two at or above each positive number; no gradient."""
    return torch.exp2(torch.ceil(torch.log2(x.detach())))


def to_int8(x: Tensor, use_surrogate: bool = False) -> Tensor:
    """Round half to even and saturate to -127..127, held as floats; straight-through if a surrogate is wanted."""
    hard = torch.round(x).clamp(-_TOP, _TOP)
    return hard_with_gradient_of(x.clamp(-_TOP, _TOP), hard) if use_surrogate else hard


def integer_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x W^T + b`` on integers held as floats, in a type in which every partial sum is exact."""
    small = x.shape[-1] <= _EXACT_IN_FLOAT32 and x.dtype == torch.float32
    dtype = torch.float32 if small else torch.float64
    products = affine(x.to(dtype), weight.to(dtype), None)
    # Biases may be as large as an accumulator: they are added where 32 bits fit.
    return products.double() + bias.double().clamp(-_INT32, _INT32).unsqueeze(-2)
