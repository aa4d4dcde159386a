"""A rule list: if ... then ..., else if ... then ..., else ...; a person can read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steersman.optimizers.policies.base import Dense, Policy, check_least
from steersman.optimizers.policies.surrogate import choose, exceeds


@final
class RuleListPolicy(Policy):
    """Ordered rules; the first whose condition holds acts, and a last action covers the rest.

    A condition is a conjunction of ``terms`` comparisons of one entry of the observation with a threshold. Which
    entry is the argmax of latent scores; which side, the sign of a latent number. Everything but the actions has a
    gradient of zero almost everywhere. The surrogate takes softmax for the entry and logistic functions for the
    comparison and the side, all with hard values.
    """

    name: ClassVar[str] = "rules"
    surrogate: ClassVar[str] = "logistic"
    sized_by: ClassVar[str] = "one number of rules"
    batched: ClassVar[bool] = True

    def __init__(
        self,
        inputs: int,
        outputs: int,
        rules: int = 8,
        *,
        terms: int = 2,
        gen: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """Draw the rules from ``gen``.

        Args:
            inputs: Entries of an observation.
            outputs: Entries of a raw action.
            rules: Number of rules before the last action.
            terms: Comparisons per condition.
            gen: Source of the initial rules.
            dtype: Type of the latent numbers.

        Raises:
            ValueError: If a size is below 1.
        """
        super().__init__(inputs, outputs, 0)
        check_least(1, rules=rules, terms=terms)
        self.terms = terms

        def draw(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=gen, dtype=dtype))

        self.entry, self.threshold, self.side = draw(rules * terms, inputs), draw(rules * terms), draw(rules * terms)
        self.action = Dense(rules + 1, outputs, gen, dtype, bias=False)

    def forward(
        self, obs: Float[Tensor, "... n inputs"], state: Float[Tensor, "... n memory"]
    ) -> tuple[Float[Tensor, "... n outputs"], Float[Tensor, "... n memory"]]:
        """See :class:`Policy`."""
        return self.action(self.fired(obs)), state

    def fired(self, obs: Float[Tensor, "... n inputs"]) -> Float[Tensor, "... n fates"]:
        """One-hot rules in their order, then the case that none applies."""
        through = self.use_surrogate
        seen = torch.matmul(obs, choose(self.entry, through).mT)
        above = exceeds(seen - self.threshold.unsqueeze(-2), through)
        side = exceeds(self.side, through).unsqueeze(-2)
        literals = above * side + (1 - above) * (1 - side)
        holds = torch.unflatten(literals, -1, (-1, self.terms)).prod(dim=-1)
        left = torch.cumprod(1 - holds, dim=-1)
        before = torch.cat([torch.ones_like(left[..., :1]), left[..., :-1]], dim=-1)
        return torch.cat([holds * before, left[..., -1:]], dim=-1)

    def describe(self, names: Sequence[str] | None = None) -> list[str]:
        """The rules as text, one line each, with the actions' numbers.

        Raises:
            ValueError: If there is not one name per entry of the observation.
        """
        names = [f"x[{i}]" for i in range(self.inputs)] if names is None else list(names)
        if len(names) != self.inputs:
            raise ValueError(f"names must be {self.inputs}, one per entry of an observation, got {len(names)}")
        entries = self.entry.argmax(dim=1).tolist()
        signs = [">" if side > 0 else "<=" for side in self.side.tolist()]
        thresholds = self.threshold.tolist()
        parts = [f"{names[e]} {s} {t:.3g}" for e, s, t in zip(entries, signs, thresholds, strict=True)]
        acts = [", ".join(f"{value:.3g}" for value in column) for column in self.action.weight.T.tolist()]
        conditions = [" and ".join(parts[i : i + self.terms]) for i in range(0, len(parts), self.terms)]
        lines = [f"if {c} then {a}" for c, a in zip(conditions, acts, strict=False)]
        return [*lines, f"otherwise {acts[-1]}"]
