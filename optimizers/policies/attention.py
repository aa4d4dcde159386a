"""Hard attention: each head looks at one part of the observation and at nothing else."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steersman.optimizers.policies.base import Dense, Policy, only_size
from steersman.optimizers.policies.surrogate import choose


@final
class AttentionPolicy(Policy):
    """Multi-head attention over tokens of the observation with argmax in place of softmax, then tanh and readout.

    The observation is cut into ``tokens`` equal parts; by default each entry is one. A head's query is affine in the
    whole observation; keys and values are affine in the token and depend on its place. A head passes on the value of
    the token whose key has the largest product with its query.

    Queries, keys and places act through the choice alone, so their gradient is zero almost everywhere; the surrogate
    is that of the softmax of the scores.
    """

    name: ClassVar[str] = "attention"
    surrogate: ClassVar[str] = "softmax"
    batched: ClassVar[bool] = True

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int = 16,
        *,
        heads: int = 2,
        tokens: int = 0,
        gen: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """Draw the weights from ``gen``.

        Args:
            inputs: Entries of an observation.
            outputs: Entries of a raw action.
            width: Entries of all heads' values together, and of their keys.
            heads: Heads; a divisor of ``width``.
            tokens: Parts of the observation, a divisor of ``inputs``; 0 makes each entry a token.
            gen: Source of the initial weights.
            dtype: Type of the weights.

        Raises:
            ValueError: If a size is below 1 or does not divide.
        """
        super().__init__(inputs, outputs, 0)
        tokens = tokens or inputs
        for name, part, total, whole in (("heads", heads, "width", width), ("tokens", tokens, "inputs", inputs)):
            if part < 1 or whole < 1 or whole % part:
                raise ValueError(f"{name} must divide {total}={whole} and both be at least 1, got {part}")
        self.heads, self.tokens = heads, tokens
        self.query = Dense(inputs, width, gen, dtype)
        self.key = Dense(inputs // tokens, width, gen, dtype, bias=False)
        self.value = Dense(inputs // tokens, width, gen, dtype, bias=False)
        self.key_place = nn.Parameter(torch.randn(tokens, width, generator=gen, dtype=dtype))
        self.value_place = nn.Parameter(0.1 * torch.randn(tokens, width, generator=gen, dtype=dtype))
        self.readout = Dense(width, outputs, gen, dtype)

    @classmethod
    def sized(
        cls, inputs: int, outputs: int, hidden: tuple[int, ...], gen: torch.Generator, dtype: torch.dtype
    ) -> Policy:
        """See :class:`Policy`; the one number is ``width``, and odd widths get a single head."""
        width = only_size(hidden, "attention", "one width")
        return cls(inputs, outputs, width, heads=2 - width % 2, gen=gen, dtype=dtype)

    def readout_parameters(self) -> tuple[nn.Parameter, ...]:
        """See :class:`~steersman.optimizers.policies.base.Policy`."""
        return tuple(self.readout.parameters())

    def forward(
        self, obs: Float[Tensor, "... n inputs"], state: Float[Tensor, "... n memory"]
    ) -> tuple[Float[Tensor, "... n outputs"], Float[Tensor, "... n memory"]]:
        """See :class:`Policy`."""
        # Keys and values are never formed: a query is carried into the space of tokens, which are common to all
        # members of a population, and the chosen token out of it.
        parts = torch.unflatten(obs, -1, (self.tokens, -1))
        query = torch.unflatten(self.query(obs), -1, (self.heads, -1))
        key, value = (self._by_head(layer.weight) for layer in (self.key, self.value))
        asked = torch.einsum("...nhd,...hdf->...nhf", query, key)
        scores = torch.einsum("...nhf,...ntf->...nht", asked, parts)
        scores = scores + torch.einsum("...nhd,...hdt->...nht", query, self._by_head(self.key_place.mT))
        choice = choose(scores, self.use_surrogate)
        token = torch.einsum("...nht,...ntf->...nhf", choice, parts)
        seen = torch.einsum("...nhf,...hdf->...nhd", token, value)
        seen = seen + torch.einsum("...nht,...hdt->...nhd", choice, self._by_head(self.value_place.mT))
        return self.readout(torch.tanh(seen.flatten(-2))), state

    def _by_head(self, rows: Tensor) -> Tensor:
        """From ``[.., width, columns]`` to ``[.., heads, width / heads, columns]``."""
        return torch.unflatten(rows, -2, (self.heads, -1))
