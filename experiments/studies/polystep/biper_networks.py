"""A small convolutional network with binary weights and activations."""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steersman.optimizers.policies.base import Dense, Policy, check_least, scaled_sum
from steersman.optimizers.policies.binary import bits_of
from steersman.optimizers.policies.surrogate import binarise


@final
class BinaryConvolutions(Policy):
    """Two layers of 3 x 3 filters, the second with stride 2, and a dense layer; every weight is one bit.

    Weights and hidden activations as in :class:`~steersman.optimizers.policies.binary.BinaryPolicy`, sums divided by
    the square root of their number of terms. Inputs are the pixels of a square image with one channel, row by row.
    """

    name: ClassVar[str] = "binary-convolutions"
    surrogate: ClassVar[str] = "periodic"

    def __init__(
        self,
        side: int,
        outputs: int,
        channels: tuple[int, int] = (8, 16),
        *,
        frequency: float,
        gen: torch.Generator,
        dtype: torch.dtype,
    ) -> None:
        """Draw the latent weights from ``gen``.

        Args:
            side: Pixels along an edge of the image.
            outputs: Entries of the output.
            channels: Filters of the two layers.
            frequency: Of the wave, see ``BinaryPolicy``.
            gen: Source of the initial weights.
            dtype: Type of the latent weights.

        Raises:
            ValueError: If a size is below 1.
        """
        check_least(1, side=side, channels=min(channels))
        super().__init__(side * side, outputs, 0)
        self.side, self.frequency = side, frequency
        shapes = ((channels[0], 1, 3, 3), (channels[1], channels[0], 3, 3))
        self.filters = nn.ModuleList(_Filters(shape, gen, dtype) for shape in shapes)
        self.last = Dense(channels[1] * (-(-side // 2)) ** 2, outputs, gen, dtype)

    def forward(
        self, obs: Float[Tensor, "... n inputs"], state: Float[Tensor, "... n memory"]
    ) -> tuple[Float[Tensor, "... n outputs"], Float[Tensor, "... n memory"]]:
        """See :class:`Policy`."""
        x = obs.reshape(-1, 1, self.side, self.side)
        for stride, filters in enumerate(self.filters, start=1):
            assert isinstance(filters, _Filters)  # noqa: S101 - narrows what ModuleList forgets
            weight = bits_of(filters.weight, self.frequency, self.use_surrogate)
            sums = nn.functional.conv2d(x, weight, stride=stride, padding=1)
            x = binarise(sums / math.sqrt(weight[0].numel()) + filters.bias[:, None, None], self.use_surrogate)
        bits = bits_of(self.last.weight, self.frequency, self.use_surrogate)
        return scaled_sum(x.reshape(*obs.shape[:-1], -1), bits, self.last), state


class _Filters(nn.Module):
    """Latent weights with a deviation of one over the square root of the fan-in, and biases."""

    def __init__(self, shape: tuple[int, int, int, int], gen: torch.Generator, dtype: torch.dtype) -> None:
        super().__init__()
        fan_in = math.prod(shape[1:])
        self.weight = nn.Parameter(torch.randn(*shape, generator=gen, dtype=dtype) / math.sqrt(fan_in))
        self.bias = nn.Parameter(torch.zeros(shape[0], dtype=dtype))
