"""Rows that the objective charges, with references that never change."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.envs.plant import ControlProblem
from steersman.envs.rows.base import Report, Source
from steersman.envs.rows.simulator import RowSimulator


class TargetRows(RowSimulator):
    """Rows that are charged by the objective, with references that never change."""

    def __init__(
        self,
        source: Source,
        problem: ControlProblem,
        n: int,
        *,
        target: tuple[float, ...],
        workers: int,
        price: float | None,
        what: str,
    ) -> None:
        """See :class:`RowSimulator`; ``target`` is the reference of each performance output."""
        super().__init__(source, problem, n, workers=workers, price=price, what=what)
        self._target = torch.tensor(target, dtype=self.dtype)

    def _terms(self, before: Report, after: Report, u: Tensor, du: Tensor) -> dict[str, Tensor]:
        z = torch.from_numpy(before.z)
        return self.problem.objective.stage_terms(z, u, du, self._target.expand_as(z))

    def _references(self, preview: int) -> Float[Tensor, "n h1 nz"]:
        return self._target.expand(self.n, preview + 1, -1)
