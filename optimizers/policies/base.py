"""The contract of policies: observations and memory in, raw actions and memory out."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Policy(nn.Module, ABC):
    """A network from observations to raw actions, with a memory that is one flat vector per row.

    Raw actions are unbounded or bounded as the policy says; whoever deploys it maps them to admissible ones.

    A policy with hard decisions returns their true gradient, zero, until ``use_surrogate`` is set; then backward
    passes use the estimator named by ``surrogate`` and forward values stay what they were, bit by bit.

    Attributes:
        name: Name in the registry and on the command line.
        surrogate: Name of the estimator of gradients; empty where automatic differentiation is exact.
        sized_by: What the one number is that sizes the family; empty where a tuple of hidden widths does.
        batched: Whether ``forward`` also takes parameters, observations and memory that all lead with one more axis,
            the population: then a population needs no ``vmap``. Common observations lead with 1.
        inputs: Entries of an observation.
        outputs: Entries of a raw action.
        memory: Entries of the memory; 0 for policies without.
        use_surrogate: Whether backward passes use the surrogate.
    """

    name: ClassVar[str]
    surrogate: ClassVar[str] = ""
    sized_by: ClassVar[str] = ""
    batched: ClassVar[bool] = False

    def __init__(self, inputs: int, outputs: int, memory: int) -> None:
        """Store the sizes.

        Raises:
            ValueError: If ``inputs`` or ``outputs`` is below 1.
        """
        super().__init__()
        check_least(1, inputs=inputs, outputs=outputs)
        self.inputs, self.outputs, self.memory = inputs, outputs, memory
        self.use_surrogate = False

    @classmethod
    def sized(
        cls, inputs: int, outputs: int, hidden: tuple[int, ...], gen: torch.Generator, dtype: torch.dtype
    ) -> Policy:
        """A policy from widths alone, each family reading them in its own way.

        Raises:
            ValueError: If the family cannot have these widths.
        """
        size = only_size(hidden, cls.name, cls.sized_by) if cls.sized_by else hidden
        return cls(inputs, outputs, size, gen=gen, dtype=dtype)  # type: ignore[call-arg,arg-type]

    def initial_state(self, n: int) -> Float[Tensor, "n memory"]:
        """Memory at the start of ``n`` episodes, in the type and on the device of the parameters."""
        return next(self.parameters()).detach().new_zeros(n, self.memory)

    def readout_parameters(self) -> tuple[nn.Parameter, ...]:
        """Parameters that are zero where raw actions are to be zero whatever is seen; none where there are no such."""
        return ()

    @torch.no_grad()
    def rest(self) -> None:
        """Set raw actions to zero whatever is seen, where the policy can do that: a search begins by doing nothing."""
        for parameter in self.readout_parameters():
            parameter.zero_()

    @abstractmethod
    def forward(
        self, obs: Float[Tensor, "... n inputs"], state: Float[Tensor, "... n memory"]
    ) -> tuple[Float[Tensor, "... n outputs"], Float[Tensor, "... n memory"]]:
        """Raw actions and the memory after them."""


class LayeredPolicy(Policy):
    """A policy whose parameters are affine layers from the observation through hidden widths to the raw action.

    Attributes:
        layers: :class:`Dense` layers in their order.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: tuple[int, ...] = (16,),
        *,
        gen: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """Draw the weights from ``gen``.

        Args:
            inputs: Entries of an observation.
            outputs: Entries of a raw action.
            hidden: Widths of the hidden layers.
            gen: Source of the initial weights.
            dtype: Type of the weights.

        Raises:
            ValueError: If a size is below 1.
        """
        super().__init__(inputs, outputs, 0)
        check_hidden(hidden, 0)
        self.layers = nn.ModuleList(dense_layers((inputs, *hidden, outputs), gen, dtype))

    def readout_parameters(self) -> tuple[nn.Parameter, ...]:
        """See :class:`Policy`: the last layer."""
        return tuple(self.layers[-1].parameters())


class Dense(nn.Module):
    """Affine layer with weights drawn from a generator that is passed in: no global randomness.

    Attributes:
        weight: ``[outputs, inputs]``, normal with standard deviation ``1 / sqrt(inputs)``.
        bias: ``[outputs]``, zero at first; None without.
    """

    def __init__(
        self, inputs: int, outputs: int, gen: torch.Generator, dtype: torch.dtype, *, bias: bool = True
    ) -> None:
        """Draw the weights."""
        super().__init__()
        draw = torch.randn(outputs, inputs, generator=gen, dtype=dtype)
        self.weight = nn.Parameter(draw / math.sqrt(inputs))
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=dtype)) if bias else None

    def forward(self, x: Float[Tensor, "... n inputs"]) -> Float[Tensor, "... n outputs"]:
        """``x W^T + b``."""
        return affine(x, self.weight, self.bias)


def affine(
    x: Float[Tensor, "... n inputs"],
    weight: Float[Tensor, "... outputs inputs"],
    bias: Float[Tensor, "... outputs"] | None,
) -> Float[Tensor, "... n outputs"]:
    """``x W^T + b`` of one network, or of each member of a population in one batched product.

    A population's common ``x`` may lead with 1.
    """
    if weight.ndim == 2:
        return nn.functional.linear(x, weight, bias)
    x = x.expand(len(weight), -1, -1)
    return torch.bmm(x, weight.mT) if bias is None else torch.baddbmm(bias.unsqueeze(-2), x, weight.mT)


def scaled_sum(
    x: Float[Tensor, "... n inputs"], weight: Float[Tensor, "... outputs inputs"], layer: Dense
) -> Float[Tensor, "... n outputs"]:
    """``x W^T / sqrt(inputs) + b``: the layer's bias with other weights; whole numbers are summed before scaling."""
    assert layer.bias is not None  # noqa: S101 - narrows the type
    return torch.add(layer.bias.unsqueeze(-2), affine(x, weight, None), alpha=1 / math.sqrt(weight.shape[-1]))


def dense_layers(sizes: tuple[int, ...], gen: torch.Generator, dtype: torch.dtype) -> list[Dense]:
    """Layers between successive sizes."""
    return [Dense(a, b, gen, dtype) for a, b in itertools.pairwise(sizes)]


def only_size(hidden: tuple[int, ...], family: str, meaning: str) -> int:
    """The one number that sizes a family. Raises ValueError if there is not exactly one."""
    if len(hidden) != 1:
        raise ValueError(f"a {family} policy has {meaning}, got hidden={hidden}; give exactly one number")
    return hidden[0]


def check_least(least: int, **sizes: int) -> None:
    """Refuse sizes that are too small, by their names."""
    for name, size in sizes.items():
        if size < least:
            raise ValueError(f"{name} must be at least {least}, got {size}")


def check_hidden(hidden: tuple[int, ...], least: int) -> None:
    """Refuse too few hidden layers and empty ones."""
    if len(hidden) < least or any(width < 1 for width in hidden):
        raise ValueError(f"hidden must hold at least {least} widths of at least 1, got {hidden}")
