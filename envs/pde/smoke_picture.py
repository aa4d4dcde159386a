"""Picture of an episode of the smoke maze."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from steersman.envs.pde.maze import EXITS, RING, SIDE, TARGET
from steersman.envs.pde.staggered import Faces
from steersman.envs.picture import pixels
from steersman.envs.plant import Trail

if TYPE_CHECKING:
    from steersman.envs.pde.smoke import Smoke


def draw(plant: Smoke, trail: Trail) -> NDArray[np.uint8]:
    """Present smoke with walls (dark), air (streamlines) and fans (arrows), and the shares of the exits."""
    x = trail.x[-1]
    assert isinstance(x, dict)  # noqa: S101 - narrows the type
    figure = Figure(figsize=(9.6, 5.2), dpi=100, layout="constrained")
    maze, shares = figure.subplots(1, 2, width_ratios=(1.2, 1))
    extent = (0, SIDE, 0, SIDE)
    solid = plant.grid.solid.numpy()
    density = x["smoke"][0].cpu().numpy() * (plant.points / SIDE) ** 2
    top = max(float(np.quantile(density[density > 0], 0.99)) if (density > 0).any() else 0.0, 1e-4)
    maze.imshow(density, origin="lower", extent=extent, cmap="Oranges", vmin=0, vmax=top, interpolation="bilinear")
    walls = np.zeros((*solid.shape, 4))
    walls[solid] = (0.25, 0.25, 0.3, 1.0)
    maze.imshow(walls, origin="lower", extent=extent, interpolation="nearest")
    u, v = plant.grid.centred(Faces(x["u"][:1], x["v"][:1]))[0].cpu().numpy()
    u, v = (np.where(solid, 0.0, part) for part in (u, v))
    grid = (np.arange(plant.points) + 0.5) * SIDE / plant.points
    if np.hypot(u, v).max() > 1e-6:
        maze.streamplot(grid, grid, u, v, color="0.6", linewidth=0.5, density=1.1, arrowsize=0.6)
    if len(trail.u):
        wish = np.asarray(trail.u[-1]).reshape(2, -1)
        places = np.asarray(plant.fans)
        maze.quiver(places[:, 0], places[:, 1], wish[0], wish[1], color="tab:blue", scale=40, width=0.004)
    for i, (_, x0, y0) in enumerate(EXITS):
        maze.text(x0, y0, str(i + 1), ha="center", va="center", fontsize=8, color="tab:green" if i == TARGET else "0.3")
    maze.add_patch(Rectangle((RING, RING), SIDE - 2 * RING, SIDE - 2 * RING, fill=False, ec="0.7", lw=0.6))
    maze.set(xlim=(0, SIDE), ylim=(0, SIDE), xticks=[], yticks=[], title=f"t = {trail.k[-1] * plant.period:.0f}")
    time = np.asarray(trail.k) * plant.period
    through = np.stack([state["through"][0].cpu().numpy() for state in trail.x if isinstance(state, dict)])
    for i, (name, _, _) in enumerate(EXITS):
        style = {"color": "tab:green", "lw": 2.2} if i == TARGET else {"lw": 1.0}
        shares.plot(time, through[:, i], label=f"{i + 1} {name}", **style)
    shares.plot(time, np.stack(trail.z)[:, 1], color="black", ls="--", label="inside")
    shares.set(xlim=(0, plant.horizon * plant.period), ylim=(0, 1.02), xlabel="time", title="shares of the smoke")
    shares.legend(frameon=False, fontsize=8, ncols=2)
    shares.grid(alpha=0.3)
    return pixels(figure)
