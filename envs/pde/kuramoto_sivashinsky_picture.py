"""Picture of an episode of the Kuramoto-Sivashinsky equation."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from steersman.envs.actions import ActionSet
from steersman.envs.picture import pixels
from steersman.envs.plant import Trail
from steersman.envs.tree import tree_leaves

_CREST = 3.0
"""Values of u on the attractor stay within about this."""


def draw(trail: Trail, period: float, horizon: int, length: float, actions: ActionSet) -> NDArray[np.uint8]:
    """Space-time picture, present profile, actions and norm.

    Args:
        trail: What the row went through.
        period: Control period.
        horizon: Control steps in an episode.
        length: Circumference of the ring.
        actions: Action set; the actuators are equally spaced from 0.
    """
    grid = np.stack([tree_leaves(state)[0][0].numpy() for state in trail.x])
    u = np.asarray(trail.u).reshape(-1, actions.m)
    scale = actions.upper[0] if actions.bounded else max(1.0, float(np.abs(u).max(initial=0.0)))
    gap = length / actions.m
    places = np.arange(actions.m) * gap

    figure = Figure(figsize=(9.2, 6.6), dpi=100, layout="constrained")
    cells = figure.add_gridspec(3, 2, width_ratios=(3.2, 1), height_ratios=(1.6, 1, 0.9))
    space = figure.add_subplot(cells[0, 0])
    _map(space, grid, period, length, _CREST, "RdBu_r", "u(x, t)")
    space.plot(np.zeros(actions.m), places, ">", color="black", ms=7, clip_on=False)
    space.set(ylim=(0, length), ylabel="x", title="u over space and time (triangles: sensors and actuators)")
    forces = figure.add_subplot(cells[1, 0], sharex=space)
    # One band per actuator, centred on its place.
    _map(forces, u, period, length, scale, "PuOr_r", "force", shift=-gap / 2)
    forces.set(ylim=(-gap / 2, length - gap / 2), yticks=places, ylabel="x of actuator", title="actions")
    forces.tick_params(axis="y", labelsize=7)
    norm = figure.add_subplot(cells[2, 0], sharex=space)
    norm.semilogy(np.asarray(trail.k) * period, np.maximum([z[-1] for z in trail.z], 1e-9), color="black")
    norm.set(xlim=(0, horizon * period), xlabel="time", ylabel="||u||", title="norm of u; the target is 0")
    norm.grid(alpha=0.4)
    low = min(1e-2, *(float(z[-1]) for z in trail.z))
    norm.set_ylim(max(low / 2, 1e-9), 30)
    for axes in (space, forces):
        axes.tick_params(labelbottom=False)
        axes.set_facecolor("0.88")  # what is still to come
    _profile(figure.add_subplot(cells[0, 1], sharey=space), grid[-1], length)
    _now(figure.add_subplot(cells[1, 1], sharey=forces), u, places, scale)
    figure.suptitle(f"t = {trail.k[-1] * period:.2f}, ||u|| = {float(trail.z[-1][-1]):.3g}", fontsize=11)
    return pixels(figure)


def _map(
    axes: Any, values: Any, period: float, length: float, scale: float, colours: str, label: str, shift: float = 0.0
) -> None:
    """Values ``[T, places]`` as colours over time (right) and space (up)."""
    if not len(values):
        return
    extent = (0, len(values) * period, shift, length + shift)
    image = axes.imshow(
        values.T, origin="lower", aspect="auto", extent=extent, cmap=colours, vmin=-scale, vmax=scale,
        interpolation="nearest",
    )  # fmt: skip
    axes.figure.colorbar(image, ax=axes, label=label, pad=0.01)


def _profile(axes: Any, u: NDArray[Any], length: float) -> None:
    """The present u, drawn upwards beside the space-time picture."""
    x = np.arange(len(u) + 1) * length / len(u)
    axes.plot(np.append(u, u[0]), x, color="black")
    axes.axvline(0, color="0.6", lw=0.8)
    axes.set(xlim=(-1.2 * _CREST, 1.2 * _CREST), xlabel="u", title="u now")
    axes.tick_params(labelleft=False)


def _now(axes: Any, u: NDArray[Any], places: NDArray[Any], scale: float) -> None:
    """The last action as bars beside the actions so far."""
    if len(u):
        axes.barh(places, u[-1], height=0.6 * (places[1] - places[0]), color="tab:purple")
    axes.axvline(0, color="0.6", lw=0.8)
    axes.set(xlim=(-1.1 * scale, 1.1 * scale), xlabel="force", title="action now")
    axes.tick_params(labelleft=False)
