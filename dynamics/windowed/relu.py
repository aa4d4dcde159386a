"""What an encoder needs of a piecewise-linear model: its layers with all normalisation folded in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Float, Int8
from torch import Tensor


class Kind(IntEnum):
    """What a hidden neuron does with its input."""

    ZERO = 0
    RELU = 1
    IDENTITY = 2


@dataclass(frozen=True)
class ReluLayer:
    """``out_i = kind_i(weight_i . in + bias_i)``."""

    weight: Float[Tensor, "o i"]
    bias: Float[Tensor, "o"]
    kind: Int8[Tensor, "o"]

    def __call__(self, x: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        """Outputs of the neurons."""
        pre = x @ self.weight.T + self.bias
        out = torch.where(self.kind == Kind.RELU, torch.relu(pre), pre)
        return torch.where(self.kind == Kind.ZERO, 0.0, out)


@dataclass(frozen=True)
class ReluSystem:
    """A model ``y+ = skip (s, u) + offset + last(layers(s, u))``, ``z = Cz s + dz``, in the outputs' own units.

    The state s holds the last ``context`` kept outputs, then the ``context - 1`` actions between them, oldest first,
    as in :class:`~steersman.dynamics.linear.models.LinearDynamics`.

    Attributes:
        layers: Hidden layers; the first one reads ``(s, u)``. Empty for a linear model.
        last: Weights of the output layer, which reads the last hidden layer.
        skip: Linear path from ``(s, u)``, the residual connection included.
        offset: Constant of the output.
        Cz: Performance-output matrix.
        dz: Performance-output offset.
        context: Measurements in the window.
    """

    layers: tuple[ReluLayer, ...]
    last: Float[Tensor, "nk h"]
    skip: Float[Tensor, "nk nsm"]
    offset: Float[Tensor, "nk"]
    Cz: Float[Tensor, "nz ns"]
    dz: Float[Tensor, "nz"]
    context: int

    @property
    def nk(self) -> int:
        """Number of kept outputs."""
        return self.skip.shape[0]

    @property
    def m(self) -> int:
        """Number of actions."""
        return self.skip.shape[1] - self.Cz.shape[1]

    @property
    def relus(self) -> int:
        """Number of neurons that switch."""
        return sum(int((layer.kind == Kind.RELU).sum()) for layer in self.layers)

    def next_output(self, s: Float[Tensor, "n ns"], u: Float[Tensor, "n m"]) -> Float[Tensor, "n nk"]:
        """Kept outputs one step later."""
        x = torch.cat([s, u], dim=1)
        y = x @ self.skip.T + self.offset
        hidden = x
        for layer in self.layers:
            hidden = layer(hidden)
        return y + hidden @ self.last.T if self.layers else y

    def step(self, s: Float[Tensor, "n ns"], u: Float[Tensor, "n m"]) -> Float[Tensor, "n ns"]:
        """State one step later."""
        y = self.next_output(s, u)
        past = s[:, : self.context * self.nk]
        actions = torch.cat([s[:, self.context * self.nk :], u], dim=1)[:, self.m :]
        return torch.cat([past[:, self.nk :], y, actions], dim=1)

    def perform(self, s: Float[Tensor, "n ns"]) -> Float[Tensor, "n nz"]:
        """Performance outputs of a state."""
        return s @ self.Cz.T + self.dz
