"""The contract of policies: observations and memory in, raw actions and memory out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Policy(nn.Module, ABC):
    """A network from observations to raw actions, with a memory that is one flat vector per row.

    Raw actions are unbounded or bounded as the policy says; whoever deploys it maps them to admissible ones.

    Attributes:
        inputs: Entries of an observation.
        outputs: Entries of a raw action.
        memory: Entries of the memory; 0 for policies without.
    """

    def __init__(self, inputs: int, outputs: int, memory: int) -> None:
        """Store the sizes.

        Raises:
            ValueError: If ``inputs`` or ``outputs`` is below 1.
        """
        super().__init__()
        for name, value in (("inputs", inputs), ("outputs", outputs)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.inputs, self.outputs, self.memory = inputs, outputs, memory

    def initial_state(self, n: int) -> Float[Tensor, "n memory"]:
        """Memory at the start of ``n`` episodes, in the type and on the device of the parameters."""
        return next(self.parameters()).detach().new_zeros(n, self.memory)

    @abstractmethod
    def forward(
        self, obs: Float[Tensor, "n inputs"], state: Float[Tensor, "n memory"]
    ) -> tuple[Float[Tensor, "n outputs"], Float[Tensor, "n memory"]]:
        """Raw actions and the memory after them."""


class Dense(nn.Module):
    """Affine layer with weights drawn from a generator that is passed in: no global randomness.

    Attributes:
        weight: ``[outputs, inputs]``, normal with standard deviation ``1 / sqrt(inputs)``.
        bias: ``[outputs]``, zero at first.
    """

    def __init__(self, inputs: int, outputs: int, gen: torch.Generator, dtype: torch.dtype) -> None:
        """Draw the weights."""
        super().__init__()
        draw = torch.randn(outputs, inputs, generator=gen, dtype=dtype)
        self.weight = nn.Parameter(draw / math.sqrt(inputs))
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=dtype))

    def forward(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs"]:
        """``x W^T + b``."""
        return nn.functional.linear(x, self.weight, self.bias)


def check_hidden(hidden: tuple[int, ...], least: int) -> None:
    """Refuse too few hidden layers and empty ones."""
    if len(hidden) < least or any(width < 1 for width in hidden):
        raise ValueError(f"hidden must hold at least {least} widths of at least 1, got {hidden}")
