"""Picture of a wolf-sheep-grass run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_BROWN, _GREEN = (176, 145, 106), (96, 160, 72)
_COLOURS = (("sheep", "tab:blue"), ("wolves", "tab:red"))

Array = np.ndarray[Any, np.dtype[Any]]


def picture(x: dict[str, Array], ticks: Array, z: Array, r: Array) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """RGB picture ``[400, 900, 3]``.

    Args:
        x: One row of the state (``tick``, ``grown`` and the slots of both species).
        ticks: Time of each entry of the trail, ``[T]``.
        z: Counts of sheep and wolves, ``[T, 2]``.
        r: Their targets, ``[T, 2]``.
    """
    figure = Figure(figsize=(9, 4), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    torus, counts = figure.subplots(1, 2, width_ratios=(1, 1.2))
    side = math.isqrt(x["grown"].size)
    green = (x["grown"] <= x["tick"]).reshape(side, side)
    torus.imshow(np.where(green[..., None], _GREEN, _BROWN).astype(np.uint8), origin="lower", extent=(0, side, 0, side))
    for name, colour, size in (("sheep", "white", 10), ("wolf", "black", 16)):
        alive = x[f"{name}_alive"]
        torus.scatter(x[f"{name}_x"][alive], x[f"{name}_y"][alive], s=size, c=colour, linewidths=0)
    torus.set(xticks=[], yticks=[], title=f"tick {int(ticks[-1])}: {int(green.sum())} cells of grass")
    z, r = z.reshape(len(ticks), -1), r.reshape(len(ticks), -1)
    for i, (name, colour) in enumerate(_COLOURS):
        counts.plot(ticks, z[:, i], color=colour, label=name)
        counts.step(ticks, r[:, i], where="post", color=colour, linestyle="--", label=f"target, {name}")
    counts.set(xlabel="tick", ylabel="animals", ylim=(0, max(300.0, 1.1 * float(z.max()))))
    counts.legend(loc="upper right", ncols=2, fontsize="small")
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return pixels[..., :3].copy()
