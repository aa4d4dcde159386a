"""Cutting trajectories into the windows that models are fitted to and scored on."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steersman.dynamics.base import Trajectories, Window
from steersman.envs.simulator import Measurement


def starts(valid: Bool[Tensor, "N T"], context: int, ahead: int) -> Int[Tensor, "k 2"]:
    """Episode and time of every window with ``context`` measurements behind and ``ahead`` transitions before it.

    Row ``(i, t)`` promises that transitions ``t-context+1 .. t+ahead-1`` of episode i really happened.

    Raises:
        ValueError: If no episode is long enough.
    """
    length = context - 1 + ahead
    if length > valid.shape[1]:
        raise ValueError(
            f"a context of {context} and {ahead} steps ahead need episodes of {length} transitions, the data have "
            f"{valid.shape[1]}; collect longer episodes or lower context or horizon"
        )
    found = valid.unfold(1, length, 1).all(dim=-1).nonzero()
    if not len(found):
        raise ValueError(
            f"no episode has {length} valid transitions in a row; collect longer episodes or lower context or horizon"
        )
    return found + found.new_tensor([0, context - 1])


def cut(series: Float[Tensor, "N T d"], rows: Int[Tensor, "k 2"], first: int, count: int) -> Float[Tensor, "k count d"]:
    """Entries ``t+first .. t+first+count-1`` of each row ``(episode, t)``."""
    time = rows[:, 1:] + torch.arange(first, first + count, device=rows.device)
    return series[rows[:, :1], time]


def window_at(data: Trajectories, rows: Int[Tensor, "k 2"], context: int) -> Window:
    """Windows that end at the given episodes and times; references are zero, the true state is unknown."""
    y = cut(data.y, rows, 1 - context, context)
    u = cut(data.u, rows, 1 - context, context - 1)
    before = data.u[rows[:, 0], (rows[:, 1] - 1).clamp(min=0)]
    u_prev = torch.where(rows[:, 1:] > 0, before, torch.zeros_like(before))
    r = data.z.new_zeros(len(rows), 1, data.z.shape[-1])
    return Window(y, u, Measurement(k=rows[:, 1].to(torch.int64), y=y[:, -1], r=r, u_prev=u_prev))


def require_finite(data: Trajectories) -> None:
    """Reject data in which a valid transition touches a number that is not finite.

    Raises:
        ValueError: Naming the array and the first episode concerned, or that there are no valid transitions.
    """
    if not data.steps:
        raise ValueError("the data hold no valid transition; collect with a simulator that runs at least one step")
    arrays = {"u": data.u}
    for name, series in (("y", data.y), ("z", data.z)):
        arrays[name], arrays[f"{name} after the step"] = series[:, :-1], series[:, 1:]
    for name, series in arrays.items():
        bad = data.valid & ~torch.isfinite(series).all(dim=-1)
        if bool(bad.any()):
            episode, t = bad.nonzero()[0].tolist()
            raise ValueError(
                f"{name} of episode {episode} is not finite at step {t}; mark such transitions as not valid"
            )
