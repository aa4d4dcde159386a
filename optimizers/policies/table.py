"""Lookup tables: the observation is binned, and bins are addresses of actions."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steersman.optimizers.policies.base import Policy, check_least

_LARGEST = 2**22


@final
class TablePolicy(Policy):
    """A sum of tables, each indexed by the bins of a few successive entries of the observation.

    With ``arity`` at or above the number of entries there is one table of the whole observation. Otherwise there is
    a table for every window of ``arity`` successive entries (the last entry is followed by the first), which keeps
    the number of cells linear in the entries. Bins divide [-reach, reach] equally and the outer ones extend beyond.

    The output is constant in the observation within a bin, and **linear in the parameters**: their gradient is exact,
    and for one batch of observations at most as many cells have one as there are observations times tables.
    """

    name: ClassVar[str] = "table"
    sized_by: ClassVar[str] = "one number of bins"
    batched: ClassVar[bool] = True

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bins: int = 8,
        *,
        arity: int = 2,
        reach: float = 2.0,
        gen: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """Draw the cells from ``gen``.

        Args:
            inputs: Entries of an observation.
            outputs: Entries of a raw action.
            bins: Bins per entry, at least two.
            arity: Entries that index a table.
            reach: Half the length that the bins of an entry divide.
            gen: Source of the initial cells.
            dtype: Type of the cells.

        Raises:
            ValueError: If a number is out of range, or the tables would hold more than 4 million numbers.
        """
        super().__init__(inputs, outputs, 0)
        check_least(2, bins=bins)
        check_least(1, arity=arity)
        if not reach > 0:
            raise ValueError(f"reach must be positive, got {reach}")
        arity = min(arity, inputs)
        self.bins, self.arity, self.reach = bins, arity, reach
        self.tables = 1 if arity == inputs else inputs
        cells = self.tables * bins**arity
        if cells * outputs > _LARGEST:
            raise ValueError(
                f"{self.tables} tables of {bins}^{arity} cells with {outputs} outputs are too many; lower bins or arity"
            )
        self.cells = nn.Parameter(torch.randn(cells, outputs, generator=gen, dtype=dtype) / self.tables**0.5)

    def readout_parameters(self) -> tuple[nn.Parameter, ...]:
        """See :class:`~steersman.optimizers.policies.base.Policy`."""
        return (self.cells,)

    def forward(
        self, obs: Float[Tensor, "... n inputs"], state: Float[Tensor, "... n memory"]
    ) -> tuple[Float[Tensor, "... n outputs"], Float[Tensor, "... n memory"]]:
        """See :class:`Policy`."""
        address = self.addresses(obs).flatten(-2).unsqueeze(-1)
        address = address.expand(*self.cells.shape[:-2], -1, self.outputs)
        found = torch.gather(self.cells, -2, address)
        return torch.unflatten(found, -2, (-1, self.tables)).sum(dim=-2), state

    def addresses(self, obs: Float[Tensor, "... n inputs"]) -> Tensor:
        """Rows of ``cells`` that an observation adds up, ``[.., n, tables]``."""
        place = ((obs + self.reach) * (self.bins / (2 * self.reach))).floor().clamp(0, self.bins - 1).long()
        columns = torch.arange(self.tables, device=obs.device)[:, None] + torch.arange(self.arity, device=obs.device)
        digits = place[..., columns % self.inputs]
        power = self.bins ** torch.arange(self.arity, device=obs.device)
        start = torch.arange(self.tables, device=obs.device) * self.bins**self.arity
        rows: Tensor = (digits * power).sum(dim=-1) + start
        return rows
