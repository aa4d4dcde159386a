"""Which models a mixed-integer program can contain, and the state that a plan starts from."""

from __future__ import annotations

import torch
from torch import Tensor

from steersman.dynamics.base import Dynamics, Hidden
from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.windowed.relu import ReluSystem


def relu_system(model: Dynamics) -> ReluSystem:
    """The model's equations as data.

    Raises:
        ValueError: If the model is neither linear nor a ReLU network on windows.
    """
    if isinstance(model, LinearDynamics):
        return _linear(model)
    found = getattr(model, "relu_system", None)
    if found is None:
        raise ValueError(
            f"mixed-integer MPC needs a piecewise-linear model, got {type(model).__name__}; use 'linear' or 'sparse'"
        )
    system: ReluSystem = found()
    return system


def start_state(hidden: Hidden) -> Tensor:
    """State ``s_0`` of each row, in the layout of :class:`~steersman.dynamics.windowed.relu.ReluSystem`."""
    assert isinstance(hidden, dict)  # noqa: S101 - narrows the type
    if "s" in hidden:
        return hidden["s"]
    return torch.cat([hidden["y"].flatten(1), hidden["u"].flatten(1)], dim=1)


def _linear(model: LinearDynamics) -> ReluSystem:
    """A linear model in ARX form; a linearised plant has its whole state as "output", with a context of one."""
    sys = model.state_space()
    full = bool(model.full_state_)
    nk = len(sys.A) if full else len(sys.C)
    context = 1 if full else model.context
    newest = slice((context - 1) * nk, context * nk)
    skip = torch.cat([sys.A[newest], sys.B[newest]], dim=1)
    return ReluSystem((), skip.new_zeros(nk, 0), skip, sys.c[newest], sys.Cz, sys.dz, context)
