"""A gated recurrent unit: the plain policy with memory."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steersman.optimizers.policies.base import Dense, Policy, check_least


@final
class GRUPolicy(Policy):
    """One gated recurrent layer (Cho et al. 2014) and an affine output; differentiable."""

    name: ClassVar[str] = "gru"
    sized_by: ClassVar[str] = "one hidden width"
    batched: ClassVar[bool] = True

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: int = 16,
        *,
        gen: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """Draw the weights from ``gen``."""
        check_least(1, hidden=hidden)
        super().__init__(inputs, outputs, hidden)
        self.gates = Dense(inputs + hidden, 2 * hidden, gen, dtype)
        self.proposal = Dense(inputs + hidden, hidden, gen, dtype)
        self.readout = Dense(hidden, outputs, gen, dtype)

    def readout_parameters(self) -> tuple[nn.Parameter, ...]:
        """See :class:`~steersman.optimizers.policies.base.Policy`."""
        return tuple(self.readout.parameters())

    def forward(
        self, obs: Float[Tensor, "... n inputs"], state: Float[Tensor, "... n memory"]
    ) -> tuple[Float[Tensor, "... n outputs"], Float[Tensor, "... n memory"]]:
        """See :class:`Policy`."""
        obs = obs.expand(*state.shape[:-1], -1)
        update, reset = torch.sigmoid(self.gates(torch.cat([obs, state], dim=-1))).chunk(2, dim=-1)
        fresh = torch.tanh(self.proposal(torch.cat([obs, reset * state], dim=-1)))
        after = update * state + (1 - update) * fresh
        return self.readout(after), after
