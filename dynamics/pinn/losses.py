"""The three losses of the field: states, their time derivatives, and the residual of the equations."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp

from steersman.dynamics.pinn.data import SwingGrid
from steersman.dynamics.pinn.network import SCALE, SwingNetwork
from steersman.envs.grid.tasks.structure_preserving import Stage, rate, start

Kind = Literal["NN", "dtNN", "PINN"]
RATES = (5.0, 5.0, 5.0, 5.0, 40.0, 40.0, 40.0, 40.0, 40.0, 40.0)
"""Size of the states' time derivatives, and of residuals that are worth as much as an error of :data:`SCALE`."""
DERIVATIVES = 0.01
"""Weight of derivatives and residuals."""
Points = tuple[Float[Tensor, "t"], Float[Tensor, "n"], Float[Tensor, "n 10"]]
"""Times, disturbances and starts of collocation."""


def with_rate(
    network: SwingNetwork, t: Float[Tensor, "t"], dP: Float[Tensor, "n"], x0: Float[Tensor, "n 10"]
) -> tuple[Float[Tensor, "n t 10"], Float[Tensor, "n t 10"]]:
    """States of the network and their time derivatives, by forward differentiation."""
    with warnings.catch_warnings():
        # The first call loads derivative formulas by way of torch.jit, which warns that it is deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        states, slopes, *_ = jvp(lambda s: network(s, dP, x0), (t,), (torch.ones_like(t),))
    return states, slopes


def residual(network: SwingNetwork, points: Points) -> Float[Tensor, "n t 10"]:
    """Time derivative of the network minus that of the equations, in rad/s and rad/s^2."""
    t, dP, x0 = points
    x, slope = with_rate(network, t, dP, x0)
    return slope - rate(x, dP[:, None].expand(x.shape[:2]), Stage.TRIPPED)


def make_loss(network: SwingNetwork, data: SwingGrid, kind: Kind, points: Points | None) -> Callable[[], Tensor]:
    """The loss as a function of the weights.

    NN: squared errors of the states in units of :data:`SCALE`. dtNN: plus :data:`DERIVATIVES` times those of the time
    derivatives, in units of :data:`RATES`. PINN: plus the same of the residual at the points. Within the first 0.1 s
    derivatives and residuals count less, down to 1/21, since there they are a hundred times larger.

    Raises:
        ValueError: If the kind is PINN and there are no points.
    """
    if kind == "PINN" and points is None:
        raise ValueError("kind 'PINN' needs collocation points; pass points=collocation(25, 41)")
    x0 = start(data.dP)
    scale, rates = data.x.new_tensor(SCALE), data.x.new_tensor(RATES)

    def derivatives(error: Tensor, t: Tensor) -> Tensor:
        return DERIVATIVES * (error / rates / (1 + 20 * torch.exp(-50 * t))[:, None]).square().mean()

    def loss() -> Tensor:
        if kind == "NN":
            error: Tensor = (network(data.t, data.dP, x0) - data.x) / scale
            return error.square().mean()
        x, slope = with_rate(network, data.t, data.dP, x0)
        total = ((x - data.x) / scale).square().mean() + derivatives(slope - data.rate, data.t)
        return total if kind == "dtNN" or points is None else total + derivatives(residual(network, points), points[0])

    return loss
