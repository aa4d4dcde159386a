"""A multilayer perceptron whose activations are staircases."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.optimizers.policies.base import LayeredPolicy, check_hidden
from steersman.optimizers.policies.surrogate import hard_with_gradient_of


@final
class StaircasePolicy(LayeredPolicy):
    """tanh in ``levels`` equal steps between layers, an affine output.

    The stair holds, in each of ``levels`` equal parts of [-1, 1], the middle of the part that tanh falls into. Up to
    an affine change of the next layer these are the published activations, ``floor(levels sigmoid(x)) / levels``
    (Le, arXiv 2605.01928). All layers but the last have a gradient of zero almost everywhere; the surrogate is the
    derivative of tanh.
    """

    name: ClassVar[str] = "staircase"
    surrogate: ClassVar[str] = "tanh"
    batched: ClassVar[bool] = True

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: tuple[int, ...] = (16,),
        *,
        levels: int = 5,
        gen: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """Draw the weights from ``gen``.

        Args:
            inputs: Entries of an observation.
            outputs: Entries of a raw action.
            hidden: Widths of the hidden layers, at least one.
            levels: Steps of the stair, at least two.
            gen: Source of the initial weights.
            dtype: Type of the weights.

        Raises:
            ValueError: If a size or ``levels`` is too small.
        """
        check_hidden(hidden, 1)
        super().__init__(inputs, outputs, hidden, gen=gen, dtype=dtype)
        if levels < 2:
            raise ValueError(f"levels must be at least 2, got {levels}; one level is a constant")
        self.levels = levels

    def forward(
        self, obs: Float[Tensor, "... n inputs"], state: Float[Tensor, "... n memory"]
    ) -> tuple[Float[Tensor, "... n outputs"], Float[Tensor, "... n memory"]]:
        """See :class:`Policy`."""
        x = obs
        for layer in self.layers[:-1]:
            x = self._stair(layer(x))
        return self.layers[-1](x), state

    def _stair(self, x: Tensor) -> Tensor:
        smooth = torch.tanh(x)
        half = self.levels / 2
        part = torch.floor((smooth + 1) * half).clamp(max=self.levels - 1)
        hard = (part + 0.5) / half - 1
        return hard_with_gradient_of(smooth, hard) if self.use_surrogate else hard
