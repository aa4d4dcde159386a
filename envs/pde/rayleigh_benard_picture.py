"""Picture of an episode of Rayleigh-Benard convection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from steersman.envs.pde.staggered import Faces
from steersman.envs.picture import pixels
from steersman.envs.plant import Trail

if TYPE_CHECKING:
    from steersman.envs.pde.rayleigh_benard import RayleighBenard


def draw(plant: RayleighBenard, trail: Trail) -> NDArray[np.uint8]:
    """Present temperature with streamlines above the hot plate, and Nu and heaters over time."""
    x = trail.x[-1]
    assert isinstance(x, dict)  # noqa: S101 - narrows the type
    figure = Figure(figsize=(9.6, 5.2), dpi=100, layout="constrained")
    names = [["field", "heat"], ["field", "heaters"], ["plate", "heaters"]]
    panels = figure.subplot_mosaic(names, width_ratios=(1.15, 1), height_ratios=(4, 3, 1))  # type: ignore[arg-type]
    field, plate, heat, heaters = (panels[name] for name in ("field", "plate", "heat", "heaters"))
    image = field.imshow(
        x["T"][0].cpu().numpy(),
        origin="lower",
        extent=(0, 1, 0, 1),
        cmap="RdYlBu_r",
        vmin=-0.6,
        vmax=0.6,
        interpolation="bicubic",
    )
    figure.colorbar(image, ax=field, shrink=0.8, label="temperature")
    u, v = plant.flow.grid.centred(Faces(x["u"][:1], x["v"][:1]))[0].cpu().numpy()
    places = (np.arange(plant.points) + 0.5) / plant.points
    if np.hypot(u, v).max() > 1e-6:
        field.streamplot(places, places, u, v, color="0.25", linewidth=0.6, density=0.9, arrowsize=0.7)
    field.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[], title=f"t = {trail.k[-1] * plant.period:.0f}")
    last = torch.as_tensor(np.asarray(trail.u[-1])) if len(trail.u) else torch.zeros(plant.actions.m)
    plate.step(places, plant.plate(last.reshape(1, -1))[0].numpy(), where="mid", color="tab:red")
    plate.set(xlim=(0, 1), ylim=(-0.35, 1.35), xticks=[], ylabel="hot plate")
    time = np.asarray(trail.k) * plant.period
    heat.plot(time, np.stack(trail.z)[:, 0], color="black")
    heat.axhline(1.0, color="tab:blue", ls=":", label="conduction")
    heat.set(xlim=(0, plant.horizon * plant.period), ylim=(0, None), title="Nusselt number")
    heat.legend(frameon=False, fontsize=8)
    if len(trail.u):
        heaters.step(time[: len(trail.u)], np.asarray(trail.u).reshape(len(trail.u), -1), where="post", lw=0.8)
    heaters.set(xlim=(0, plant.horizon * plant.period), ylim=(-0.8, 0.8), xlabel="free-fall times", title="heaters")
    for name in ("heat", "heaters"):
        panels[name].grid(alpha=0.3)
    return pixels(figure)
