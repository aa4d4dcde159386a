"""Networks from time and disturbance to the ten states of the swing, evaluated on grids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steersman.envs.grid.tasks.structure_preserving import FREQUENCY, INERTIA, LARGEST, SWING

Form = Literal["separable", "plain"]
SCALE = (1.0, 1.0, 1.0, 1.0, 4.0, 4.0, 4.0, 4.0, 1.0, 1.0)
"""Size of the states' changes: rad, rad/s, rad."""
RELAXATION = (50.0, 130.0, 264.0)
"""Rates in 1/s about which the loads' angles fall back: couplings over dampings at nodes 6 and 5, and a slow tail."""
WAVES = 6
"""Harmonics of half a wave over the swing that the trunk is shown."""
POLYNOMIALS = 4
"""Chebyshev polynomials of the disturbance that the branch is shown."""
HARD = 100.0
"""Rate in 1/s at which the network's part fades in behind the known start."""


class SwingNetwork(nn.Module, ABC):
    """States ``[n, t, 10]`` on every pair of a disturbance ``[n]`` and a time ``[t]``."""

    @abstractmethod
    def forward(
        self, t: Float[Tensor, "t"], dP: Float[Tensor, "n"], x0: Float[Tensor, "n 10"]
    ) -> Float[Tensor, "n t 10"]:
        """States; ``x0`` are those at clearing, which a form may use or not."""


class Separable(SwingNetwork):
    """``x0(dP) + dP t / M + (1 - exp(-100 t)) sum_r trunk_r(t) branch_r(dP)``, which starts at x0 by construction.

    M is the total inertia, so the second part is the drift of the mean speed. Trunk and branch are tanh networks of
    one variable each, so a whole grid costs as much as its two edges and one contraction (separable networks: Cho et
    al., arXiv 2306.15969; branch and trunk: Lu et al., arXiv 1910.03193). That works because the swings of all
    disturbances lie within 2e-3 rad of a space of 24 functions of time.

    Args:
        rank: Functions of time.
        width: Units in each of the two hidden layers of both networks.
        gen: Source of the initial weights.
    """

    def __init__(self, rank: int, width: int, gen: torch.Generator) -> None:
        """Draw weights."""
        super().__init__()
        self.rank = rank
        self.trunk = tanh_layers((1 + len(RELAXATION) + 2 * WAVES, width, width, rank), gen)
        self.branch = tanh_layers((POLYNOMIALS, width, width, 10 * rank), gen)
        drift = torch.zeros(10, dtype=torch.float64)
        drift[4:8] = FREQUENCY / (2 * sum(INERTIA))
        self.register_buffer("drift", drift)
        self.register_buffer("scale", torch.tensor(SCALE, dtype=torch.float64) / rank**0.5)

    def forward(
        self, t: Float[Tensor, "t"], dP: Float[Tensor, "n"], x0: Float[Tensor, "n 10"]
    ) -> Float[Tensor, "n t 10"]:
        """See :class:`SwingNetwork`."""
        weights = self.branch[-1](self.hidden(dP)).reshape(len(dP), self.rank, 10)
        learned = torch.einsum("tr,nrs->nts", self.modes(t), weights)
        drift, scale = self.get_buffer("drift"), self.get_buffer("scale")
        return x0[:, None] + drift * (t[:, None] * dP[:, None, None]) + scale * learned

    def modes(self, t: Float[Tensor, "t"]) -> Float[Tensor, "t r"]:
        """Functions of time, zero at clearing."""
        found: Tensor = (1 - torch.exp(-HARD * t))[:, None] * self.trunk(time_features(t))
        return found

    def hidden(self, dP: Float[Tensor, "n"]) -> Float[Tensor, "n k"]:
        """Units of the branch's last hidden layer."""
        found: Tensor = self.branch[:-1](disturbance_features(dP))
        return found


class Plain(SwingNetwork):
    """One tanh network of ``(t, dP)`` with two hidden layers, as in arXiv 2106.13638 but without batch normalisation.

    Args:
        width: Units in each hidden layer; 200 there.
        gen: Source of the initial weights.
    """

    def __init__(self, width: int, gen: torch.Generator) -> None:
        """Draw weights."""
        super().__init__()
        self.layers = tanh_layers((2, width, width, 10), gen)
        self.register_buffer("scale", torch.tensor(SCALE, dtype=torch.float64))

    def forward(
        self, t: Float[Tensor, "t"], dP: Float[Tensor, "n"], x0: Float[Tensor, "n 10"]
    ) -> Float[Tensor, "n t 10"]:
        """See :class:`SwingNetwork`; the start is not used."""
        pairs = torch.stack(
            [a.expand(len(dP), len(t)) for a in (2 * t / SWING - 1, 2 * dP[:, None] / LARGEST - 1)], dim=-1
        )
        found: Tensor = self.get_buffer("scale") * self.layers(pairs)
        return found


def time_features(t: Float[Tensor, "t"]) -> Float[Tensor, "t f"]:
    """Time itself, decays at :data:`RELAXATION` and waves."""
    fast = torch.exp(-t[:, None] * t.new_tensor(RELAXATION))
    phase = t[:, None] * torch.arange(1, WAVES + 1, dtype=t.dtype, device=t.device) * (torch.pi / SWING)
    return torch.cat([2 * t[:, None] / SWING - 1, fast, torch.sin(phase), torch.cos(phase)], dim=1)


def disturbance_features(dP: Float[Tensor, "n"]) -> Float[Tensor, "n f"]:
    """Chebyshev polynomials of degrees 1 .. :data:`POLYNOMIALS`."""
    v = (2 * dP / LARGEST - 1).clamp(-1.0, 1.0)
    return torch.cos(torch.arccos(v)[:, None] * torch.arange(1, POLYNOMIALS + 1, dtype=dP.dtype, device=dP.device))


def tanh_layers(widths: tuple[int, ...], gen: torch.Generator) -> nn.Sequential:
    """Linear layers with tanh between them, in float64, with Glorot's normal weights and zero biases."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        linear = nn.utils.skip_init(nn.Linear, before, after, dtype=torch.float64)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            linear.weight.normal_(0.0, (2 / (before + after)) ** 0.5, generator=gen)
            linear.bias.zero_()
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])
