"""Backstepping for linear equations on the unit interval, with kernels solved numerically."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.controllers.base import Controller, Decision
from steersman.dynamics.base import Dynamics
from steersman.dynamics.truth.plant_model import PlantModel
from steersman.envs.pde.boundary import (
    ReactionDiffusion,
    ReactionDiffusionCompat,
    TransportBoundary,
    TransportBoundaryCompat,
    reaction,
    recirculation,
)
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import at_least
from steersman.envs.simulator import Measurement


def transport_kernel(beta: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Kernel ``k(y)`` of ``U = integral k(y) u(y) dy`` for ``u_t = u_x + beta(x) u(0, t)``.

    Krstic and Smyshlyaev (Systems and Control Letters 57, 2008): ``k(y) = kappa(1 - y)`` with the Volterra equation
    ``kappa(x) = -beta(x) + integral_0^x beta(x - s) kappa(s) ds``, solved by the trapezoidal rule. In the target
    system the profile has left the interval after one time unit.

    Args:
        beta: On an equidistant grid of [0, 1], ends included.
    """
    n, h = len(beta), 1 / (len(beta) - 1)
    kappa = torch.zeros_like(beta)
    kappa[0] = -beta[0]
    for i in range(1, n):
        inner = (beta[1:i].flip(0) * kappa[1:i]).sum() if i > 1 else beta.new_zeros(())
        known = -beta[i] + h * (inner + beta[i] * kappa[0] / 2)
        kappa[i] = known / (1 - h * beta[0] / 2)
    return kappa.flip(0)


def reaction_diffusion_kernel(rate: Float[Tensor, "N"], damping: float = 0.0) -> Float[Tensor, "N"]:
    """Kernel ``k(1, y)`` of ``U = integral k(1, y) u(y) dy`` for ``u_t = u_xx + lambda(x) u``, ``u(0, t) = 0``.

    Smyshlyaev and Krstic (IEEE TAC 49, 2004): ``k_xx - k_yy = (lambda(y) + c) k``, ``k(x, 0) = 0``,
    ``k(x, x) = -1/2 integral_0^x (lambda + c)``; the target is ``w_t = w_xx - c w``. A leapfrog scheme along
    ``x`` of second order whose mesh ratio of 1 makes the wave operator exact.

    Args:
        rate: lambda on an equidistant grid of [0, 1], ends included.
        damping: c of the target system.
    """
    n, h = len(rate), 1 / (len(rate) - 1)
    a = rate + damping
    diagonal = torch.cat([a.new_zeros(1), -(h / 4 * (a[1:] + a[:-1])).cumsum(0)])
    before, now = torch.zeros_like(a), torch.zeros_like(a)
    now[1] = diagonal[1]
    for i in range(1, n - 1):
        after = torch.zeros_like(a)
        around = now[2 : i + 1] + now[: i - 1]
        after[1:i] = around * (1 + h**2 / 2 * a[1:i]) - before[1:i]
        # Next to the diagonal the stencil would need k outside the triangle; the diagonal itself closes it.
        after[i] = _near_diagonal(diagonal, a, i, h)
        after[i + 1] = diagonal[i + 1]
        before, now = now, after
    return now


def _near_diagonal(diagonal: Tensor, a: Tensor, i: int, h: float) -> Tensor:
    """``k(x_{i+1}, y_i)``: in ``s = x + y``, ``t = x - y`` the equation is ``4 k_st = a k``, from the diagonal."""
    middle = (diagonal[i] + diagonal[i + 1]) / 2
    # From t = 0 to t = h at s = 2 i + 1: k_t along s from the start, where k(x, 0) = 0 fixes k_t(s, t=s) = -k_s.
    slope = _transverse(diagonal, a, i, h)
    return middle + h * slope


def _transverse(diagonal: Tensor, a: Tensor, i: int, h: float) -> Tensor:
    """``k_t`` on the diagonal at the half point ``i + 1/2``: ``-k_s(0, 0) + 1/4 integral a k ds``."""
    start = -diagonal[1] / (2 * h)
    weights = a[: i + 1] * diagonal[: i + 1]
    return start + 0.25 * 2 * h * (weights.sum() - weights[0] / 2)


class Backstepping(Controller):
    """``U = integral k(y) u(y, t) dy`` on the true profile, with the plant's own kernel.

    It needs the plant as model ("truth") and one of the boundary-controlled plants.
    """

    name = "backstepping"
    uses_state = True

    def __init__(self, damping: float = 0.0) -> None:
        """Store the settings; ``damping`` is c of the reaction-diffusion target.

        Raises:
            ValueError: If the damping is negative.
        """
        at_least(0, damping=damping)
        self.damping = damping

    def bind(self, problem: ControlProblem, model: Dynamics | None = None) -> Backstepping:
        """Solve for the kernel.

        Raises:
            ValueError: Without one of the boundary-controlled plants as model.
        """
        plant = model.plant if isinstance(model, PlantModel) else None
        match plant:
            case TransportBoundary() | TransportBoundaryCompat():
                kernel = transport_kernel(recirculation(plant.grid))
            case ReactionDiffusion() | ReactionDiffusionCompat():
                kernel = reaction_diffusion_kernel(reaction(plant.grid), self.damping)
            case _:
                raise ValueError(
                    "backstepping knows transport and reaction-diffusion with a boundary value as action; give it such "
                    "a plant with model = 'truth', or use lqr"
                )
        super().bind(problem, model)
        weight = torch.full_like(kernel, 1 / (len(kernel) - 1))
        weight[0] = weight[0] / 2
        # The end itself is the action: its share of the integral is taken to the other side.
        last = kernel[-1] * weight[-1] / 2
        self._gain = (kernel * weight)[:-1] / (1 - last)
        return self

    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        """See :class:`~steersman.controllers.base.Controller`."""
        assert m.x is not None  # noqa: S101 - the track grants it
        profile = m.x["u"] if isinstance(m.x, dict) else m.x
        return self.optimal((profile[:, :-1] @ self._gain.to(profile))[:, None])
