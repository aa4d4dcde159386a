"""The picture that plants on a line share: space and time, the present profile, and the actions."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from steersman.envs.picture import pixels

Array = NDArray[Any]


def draw(grid: Array, fields: Array, time: Array, actions: Array, end: float, target: Array | None = None) -> Array:
    """RGB picture ``[520, 960, 3]``.

    Args:
        grid: Positions ``[N]``.
        fields: Profile at each time so far ``[T, N]``.
        time: Times ``[T]``.
        actions: Actions so far ``[T-1, m]``; few are drawn as lines, many as a map.
        end: Time at which the episode ends.
        target: Profile that is aimed at ``[N]``, if there is one.
    """
    figure = Figure(figsize=(9.6, 5.2), dpi=100, layout="constrained")
    panels = figure.subplot_mosaic([["film", "now"], ["film", "actions"]], width_ratios=(1.3, 1))
    top = max(float(np.abs(fields).max()), 1e-9)
    image = panels["film"].pcolormesh(grid, time, fields, cmap="RdBu_r", vmin=-top, vmax=top, shading="nearest")
    figure.colorbar(image, ax=panels["film"], shrink=0.8)
    panels["film"].set(xlabel="x", ylabel="time", ylim=(0, end), title="u(x, t)")
    if target is not None:
        panels["now"].plot(grid, target, "k--", lw=1, label="target")
        panels["now"].legend(fontsize=8)
    panels["now"].plot(grid, fields[-1], color="tab:red")
    panels["now"].set(ylim=(-1.05 * top, 1.05 * top), xlabel="x", title=f"t = {time[-1]:.3g}")
    if len(actions) and actions.shape[1] > 12:
        span = max(float(np.abs(actions).max()), 1e-9)
        where = np.arange(actions.shape[1])
        panels["actions"].pcolormesh(
            where, time[: len(actions)], actions, cmap="PuOr", vmin=-span, vmax=span, shading="nearest"
        )
        panels["actions"].set(xlabel="action", ylabel="time", ylim=(0, end))
    elif len(actions):
        for column in actions.T:
            panels["actions"].step(time[: len(actions)], column, where="post", lw=1)
        panels["actions"].set(xlabel="time", ylabel="actions", xlim=(0, end))
    return pixels(figure)
