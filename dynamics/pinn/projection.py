"""Variable projection: the last layer of a separable network is a least-squares solution, so only the rest is trained.

States are linear in the branch's last layer, and on a grid its matrix is a Kronecker product of the branch's hidden
units over disturbances and the trunk's modes over times. Both factors are small, so the best last layer and the error
that it leaves are exact and cheap, and differentiable in the remaining weights (Golub and Pereyra 1973).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steersman.dynamics.pinn.data import SwingGrid
from steersman.dynamics.pinn.network import Separable
from steersman.envs.grid.tasks.structure_preserving import start

RIDGE = 1e-8
"""Relative to the mean square of a basis function."""


class Projection:
    """The error that the best last layer leaves on a grid of states.

    Args:
        network: Whose weights are trained.
        data: States to match.
    """

    def __init__(self, network: Separable, data: SwingGrid) -> None:
        """Subtract what the network knows without learning."""
        self._network, self._t, self._dP = network, data.t, data.dP
        drift = network.get_buffer("drift") * (data.t[:, None] * data.dP[:, None, None])
        self._target = (data.x - start(data.dP)[:, None] - drift) / network.get_buffer("scale")

    @property
    def trained(self) -> list[nn.Parameter]:
        """All weights but the last layer's."""
        last = {id(parameter) for parameter in self._last.parameters()}
        return [parameter for parameter in self._network.parameters() if id(parameter) not in last]

    def loss(self) -> Tensor:
        """Mean squared error of the states, in units of :data:`~steersman.dynamics.pinn.network.SCALE`."""
        hidden, modes = self._bases()
        rows, columns = _orthonormal(hidden), _orthonormal(modes)
        inner = torch.einsum("kn,nts,jt->kjs", rows, self._target, columns)
        left = self._target - torch.einsum("kn,kjs,jt->nts", rows, inner, columns)
        return left.square().mean() / self._network.rank

    @torch.no_grad()
    def solve(self) -> None:
        """Write the best last layer into the network."""
        hidden, modes = self._bases()
        best = torch.einsum("kn,nts,jt->kjs", _inverse(hidden), self._target, _inverse(modes)).flatten(1)
        self._last.weight.copy_(best[:-1].T)
        self._last.bias.copy_(best[-1])

    @property
    def _last(self) -> nn.Linear:
        layer = self._network.branch[-1]
        assert isinstance(layer, nn.Linear)  # noqa: S101 - narrows the type
        return layer

    def _bases(self) -> tuple[Float[Tensor, "n k"], Float[Tensor, "t r"]]:
        hidden = self._network.hidden(self._dP)
        return torch.cat([hidden, torch.ones_like(hidden[:, :1])], dim=1), self._network.modes(self._t)


def _gram(basis: Float[Tensor, "n k"]) -> Float[Tensor, "k k"]:
    gram = basis.T @ basis
    return gram + RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)


def _orthonormal(basis: Float[Tensor, "n k"]) -> Float[Tensor, "k n"]:
    """Rows that span the columns of the basis, orthonormal but for the ridge."""
    rows: Tensor = torch.linalg.solve_triangular(torch.linalg.cholesky(_gram(basis)), basis.T, upper=False)
    return rows


def _inverse(basis: Float[Tensor, "n k"]) -> Float[Tensor, "k n"]:
    solved: Tensor = torch.linalg.solve(_gram(basis), basis.T)
    return solved
