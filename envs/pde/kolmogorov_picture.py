"""Picture of an episode of Kolmogorov's flow."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from steersman.envs.picture import pixels
from steersman.envs.plant import Trail
from steersman.envs.tree import tree_leaves

_CREST = 10.0
"""Vorticity of developed turbulence stays within about this."""


def draw(trail: Trail, period: float, horizon: int, sensors: int, sites: int) -> NDArray[np.uint8]:
    """Present vorticity with sensors (dots) and torques (circles, as large as they are strong), and two traces."""
    side = 2 * math.pi
    omega = tree_leaves(trail.x[-1])[0][0].cpu().numpy()
    figure = Figure(figsize=(9.6, 5.2), dpi=100, layout="constrained")
    panels = figure.subplot_mosaic([["flow", "norm"], ["flow", "actions"]], width_ratios=(1.35, 1))
    flow = panels["flow"]
    image = flow.imshow(
        omega,
        origin="lower",
        extent=(0, side, 0, side),
        cmap="RdBu_r",
        vmin=-_CREST,
        vmax=_CREST,
        interpolation="bicubic",
    )
    figure.colorbar(image, ax=flow, shrink=0.8, label="vorticity")
    spots = np.arange(sensors) * side / sensors
    x, y = np.meshgrid(spots, spots)
    flow.plot(x.ravel(), y.ravel(), ".", color="0.25", ms=2)
    if len(trail.u):
        centres = (np.arange(sites) + 0.5) * side / sites
        x, y = np.meshgrid(centres, centres)
        u = np.asarray(trail.u[-1]).ravel()
        tint = ["#b2182b" if value > 0 else "#2166ac" for value in u]
        flow.scatter(x.ravel(), y.ravel(), s=20 + 150 * np.abs(u), facecolors="none", edgecolors=tint, linewidths=1.5)
    flow.set(xlim=(0, side), ylim=(0, side), xlabel="x", ylabel="y", title=f"t = {trail.k[-1] * period:.1f}")
    time, z = np.asarray(trail.k) * period, np.stack(trail.z)
    panels["norm"].plot(time, z[:, 0], color="black", label="vorticity")
    panels["norm"].plot(time, z[:, 1], color="tab:orange", label="speed")
    panels["norm"].set(xlim=(0, horizon * period), ylim=(0, None), title="root mean squares")
    panels["norm"].legend(frameon=False, fontsize=8)
    if len(trail.u):
        panels["actions"].step(
            time[: len(trail.u)], np.asarray(trail.u).reshape(len(trail.u), -1), where="post", lw=0.8
        )
    panels["actions"].set(xlim=(0, horizon * period), ylim=(-4.2, 4.2), xlabel="time", title="torques")
    for name in ("norm", "actions"):
        panels[name].grid(alpha=0.3)
    return pixels(figure)
