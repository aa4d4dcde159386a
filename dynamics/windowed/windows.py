"""Cutting trajectories into the windows that models are fitted to and scored on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steersman.dynamics.base import Trajectories, Window
from steersman.envs.plant import ControlProblem
from steersman.envs.simulator import Measurement

ROOM = 1e-4
"""Share of what a type can hold that is left to data: 1e8 squares are summed."""


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


def lasting(data: Trajectories, rows: Int[Tensor, "k 2"], count: int) -> Float[Tensor, "k count"] | None:
    """How long ``count`` transitions from each row ``(episode, t)`` take; None where all take a control period."""
    return None if data.uniform else cut(data.dt[..., None], rows, 0, count)[..., 0].to(data.y)


def divided(rows: Int[Tensor, "k 2"], share: float) -> tuple[Int[Tensor, "t 2"], Int[Tensor, "v 2"]]:
    """Windows to fit to and about a ``share`` of them, at least one of two or more, that is held back.

    Held back are whole episodes at equal distances, since windows of one episode tell of each other and data that are
    joined come one kind after the other; of a single episode, its end.
    """
    return next(folds(rows, share))


def folds(rows: Int[Tensor, "k 2"], share: float) -> Iterator[tuple[Int[Tensor, "t 2"], Int[Tensor, "v 2"]]]:
    """Divisions as by :func:`divided` that hold back other episodes each, until nearly all have been held back once."""
    episodes = rows[:, 0].bincount().nonzero().flatten()
    n = len(episodes)
    if n == 1:
        kept = len(rows) - min(max(1, round(share * len(rows))), len(rows) - 1)
        yield rows[:kept], rows[kept:]
        return
    count = min(max(1, round(share * n)), n - 1)
    spread = ((torch.arange(count) + 0.5) * n / count).long()
    for turn in range(n // count):
        back = torch.isin(rows[:, 0], episodes[(spread + turn) % n])
        yield rows[~back], rows[back]


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
    if not bool(data.valid.any()):
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


def require_moderate(data: Trajectories, problem: ControlProblem | None, *, single: bool) -> None:
    """Reject data of which the squares, whose sums scale a fit, would overflow: one run-away episode is enough.

    Args:
        data: Data, finite.
        problem: Where the columns have names.
        single: Whether the fit holds z in single precision.

    Raises:
        ValueError: Naming the column, its size, and the episode and step where it is largest.
    """
    known = {} if problem is None else {"y": problem.measured, "z": problem.performed, "u": problem.actions.names}
    end = data.valid.shape[1]
    for name, series in (("y", data.y), ("z", data.z), ("u", data.u)):
        most = ROOM * torch.finfo(series.dtype).max ** 0.5
        if single:
            most = min(most, ROOM * torch.finfo(torch.float32).max)
        touched = data.valid[..., None] & torch.ones_like(series[:, :end], dtype=torch.bool)
        sizes = torch.where(touched, series[:, :end].abs(), 0.0)
        if series.shape[1] > end:  # transitions end one entry later
            sizes = torch.maximum(sizes, torch.where(touched, series[:, 1:].abs(), 0.0))
        if float(sizes.max()) > most:
            episode, step, column = (int(i) for i in torch.unravel_index(sizes.argmax(), sizes.shape))
            label = f"{name}[{column}]" + (f" ({known[name][column]})" if known else "")
            raise ValueError(
                f"{label} reaches {float(sizes.max()):.3g} in step {step} of episode {episode}, and a fit takes sizes "
                f"up to {most:.3g}, since it squares them; mark where the episode runs away as not valid, end it there "
                "(a status of the plant), excite less (share), or scale the output"
            )
