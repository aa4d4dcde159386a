"""Hard mixture of experts: a router picks one network for each observation."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steersman.optimizers.policies.base import Dense, Policy, check_least
from steersman.optimizers.policies.surrogate import choose


@final
class ExpertsPolicy(Policy):
    """``experts`` networks with one hidden ReLU layer each; the expert with the largest affine score acts alone.

    All experts are evaluated and all but one are masked: on a batch, that is two products of matrices whatever the
    router decides. The output jumps where the choice changes; the router's gradient is zero almost everywhere, the
    experts' is exact. The surrogate gives the router the gradient of the softmax of its scores.
    """

    name: ClassVar[str] = "experts"
    surrogate: ClassVar[str] = "softmax"
    sized_by: ClassVar[str] = "one width"
    batched: ClassVar[bool] = True

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int = 8,
        *,
        experts: int = 4,
        gen: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """Draw the weights from ``gen``.

        Args:
            inputs: Entries of an observation.
            outputs: Entries of a raw action.
            width: Hidden units of each expert.
            experts: Number of experts, at least two.
            gen: Source of the initial weights.
            dtype: Type of the weights.

        Raises:
            ValueError: If a size is too small.
        """
        super().__init__(inputs, outputs, 0)
        check_least(1, width=width)
        check_least(2, experts=experts)
        self.width = width
        self.router = Dense(inputs, experts, gen, dtype)
        self.hidden = Dense(inputs, experts * width, gen, dtype)
        self.readout = Dense(experts * width, outputs, gen, dtype)
        self.offset = Dense(experts, outputs, gen, dtype, bias=False)

    def readout_parameters(self) -> tuple[nn.Parameter, ...]:
        """See :class:`~steersman.optimizers.policies.base.Policy`."""
        return (*self.readout.parameters(), *self.offset.parameters())

    def forward(
        self, obs: Float[Tensor, "... n inputs"], state: Float[Tensor, "... n memory"]
    ) -> tuple[Float[Tensor, "... n outputs"], Float[Tensor, "... n memory"]]:
        """See :class:`Policy`."""
        choice = choose(self.router(obs), self.use_surrogate)
        each = torch.unflatten(torch.relu(self.hidden(obs)), -1, (-1, self.width))
        active = each * choice.unsqueeze(-1)
        return self.readout(active.flatten(-2)) + self.offset(choice), state
