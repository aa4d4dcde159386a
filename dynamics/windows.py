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


def spread(x: Float[Tensor, "*k d"]) -> tuple[Float[Tensor, "d"], Float[Tensor, "d"]]:
    """Mean and standard deviation of each column; the deviation of a constant column is given as 1."""
    flat = x.reshape(-1, x.shape[-1])
    mean, std = flat.mean(dim=0), flat.std(dim=0, correction=0)
    return mean, torch.where(std > 1e-12 * (1 + mean.abs()), std, 1.0)


def ridge(phi: Float[Tensor, "k d"], target: Float[Tensor, "k o"], weight: float) -> Float[Tensor, "d o"]:
    """Minimiser of ``|phi W - target|^2 / k + weight |W|^2``.

    The tall system is first reduced by a QR factorisation: normal equations would square its condition number. Equal
    inputs give equal bits.
    """
    k, d = phi.shape
    r = torch.linalg.qr(torch.cat([phi, target], dim=1), mode="r").R
    damped = torch.cat([r[:, :d], (weight * k) ** 0.5 * torch.eye(d, dtype=phi.dtype, device=phi.device)])
    right = torch.cat([r[:, d:], phi.new_zeros(d, target.shape[1])])
    # The default driver of a CPU, gelsy, reads pivots from memory that torch does not initialise: it rounds by chance.
    driver = "gelsd" if phi.device.type == "cpu" else "gels"
    solution: Tensor = torch.linalg.lstsq(damped, right, driver=driver).solution
    return solution


def affine_fit(
    x: Float[Tensor, "k d"], target: Float[Tensor, "k o"], weight: float
) -> tuple[Float[Tensor, "d o"], Float[Tensor, "o"]]:
    """``W`` and ``b`` of ``target ~ x W + b`` by ridge regression on normalised columns of both."""
    (mx, sx), (mt, st) = spread(x), spread(target)
    w = ridge((x - mx) / sx, (target - mt) / st, weight) * st / sx[:, None]
    return w, mt - mx @ w
