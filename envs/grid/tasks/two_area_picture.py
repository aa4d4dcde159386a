"""Picture of an episode of the two-area grid."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from steersman.envs.actions import ActionSet
from steersman.envs.grid.tasks import kundur
from steersman.envs.picture import pixels
from steersman.envs.plant import Trail
from steersman.envs.tree import tree_leaves

_COLOURS = ("tab:blue", "tab:cyan", "tab:red", "tab:orange")
_PLACES: dict[int, tuple[float, float]] = {
    **{5: (1, 0), 6: (2, 0), 7: (3.2, 0), 8: (5.8, 0), 9: (7, 0), 10: (8, 0)},
    **{1: (0, 0), 2: (2, -1), 3: (7, -1), 4: (9, 0)},
}
"""Where each bus is drawn."""


def draw(trail: Trail, period: float, horizon: int, attached: tuple[int, ...], actions: ActionSet) -> NDArray[np.uint8]:
    """One-line diagram of the present state above the traces of the episode.

    Args:
        trail: What the row went through.
        period: Control period, s.
        horizon: Control steps in an episode.
        attached: Buses with a device, one per action.
        actions: Their names, units and bounds.
    """
    figure = Figure(figsize=(8.4, 6.4), dpi=100, layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=(1, 1.1))
    now = trail.k[-1] * period
    _diagram(figure.add_subplot(grid[0, :]), trail, now, attached, actions)

    time = np.asarray(trail.k) * period
    x = np.stack([tree_leaves(state)[0][0].numpy() for state in trail.x])
    angle, hertz = x[:, : kundur.MACHINES], kundur.FREQUENCY * x[:, kundur.MACHINES :]
    centre = angle @ np.asarray(kundur.INERTIA)[:, None] / sum(kundur.INERTIA)
    power = np.asarray(trail.u).reshape(-1, len(attached))
    axes = [figure.add_subplot(grid[1, i]) for i in range(3)]
    for i, colour in enumerate(_COLOURS):
        axes[0].plot(time, np.rad2deg(angle[:, i] - centre[:, 0]), color=colour, label=f"G{i + 1}")
        axes[1].plot(time, kundur.FREQUENCY + hertz[:, i], color=colour)
    for i, bus in enumerate(attached):
        axes[2].step(
            time[: len(power)], power[:, i], where="post", color=("tab:blue", "tab:red")[i], label=f"bus {bus}"
        )
    axes[0].set_title("rotor angle to centre of inertia (deg)", fontsize=9)
    axes[1].set_title("frequency (Hz)", fontsize=9)
    axes[2].set_title(_title(actions), fontsize=9)
    axes[2].set_ylim(min(actions.lower) - 0.2, max(actions.upper) + 0.2)
    for a in axes:
        if bool(trail.p["start"][0].isfinite()):
            a.axvspan(float(trail.p["start"][0]), float(trail.p["clear"][0]), color="gold", alpha=0.4, lw=0)
        a.set(xlim=(0, horizon * period), xlabel="time (s)")
        a.margins(y=0.18)
        a.ticklabel_format(useOffset=False)
    axes[0].legend(fontsize=7, ncols=4, loc="upper center", handlelength=1, columnspacing=0.8)
    axes[2].legend(fontsize=7, ncols=2, loc="upper center")
    return pixels(figure)


def _diagram(axes: Any, trail: Trail, now: float, attached: tuple[int, ...], actions: ActionSet) -> None:
    """Buses, machines coloured and labelled by frequency, arrows of the devices, and the fault while it lasts."""
    pairs = sorted({branch[:2] for branch in kundur.BRANCHES})
    for pair in pairs:
        circuits = sum(branch[:2] == pair for branch in kundur.BRANCHES)
        (x0, y0), (x1, y1) = _PLACES[pair[0]], _PLACES[pair[1]]
        for shift in (np.arange(circuits) - (circuits - 1) / 2) * 0.14:
            axes.plot([x0, x1], [y0 + shift, y1 + shift], color="0.5", lw=1)
    for bus in range(5, kundur.BUSES + 1):
        x, y = _PLACES[bus]
        axes.plot([x, x], [y - 0.3, y + 0.3], color="black", lw=3)
        axes.text(x, y + 0.36, str(bus), ha="center", fontsize=9)
    for bus in kundur.LOADS:
        axes.annotate("load", _PLACES[bus], (_PLACES[bus][0], -1.1), ha="center", arrowprops={"arrowstyle": "<-"})
    _machines(axes, trail)
    _devices(axes, trail, attached, actions)
    start, clear, bus = float(trail.p["start"][0]), float(trail.p["clear"][0]), int(trail.p["bus"][0])
    state = "before the fault" if now < start else "fault" if now < clear else "after the fault"
    if start <= now < clear:
        axes.plot(*_PLACES[bus], marker="X", ms=18, color="gold", mec="red", zorder=5)
    when = f"{state} (bus {bus}, {start:.2f} to {clear:.2f} s)" if math.isfinite(start) else "no fault"
    axes.set_title(f"t = {now:.1f} s, {when}", fontsize=10)
    axes.set(xlim=(-0.6, 9.6), ylim=(-1.5, 1.4))
    axes.axis("off")


def _machines(axes: Any, trail: Trail) -> None:
    hertz = kundur.FREQUENCY * tree_leaves(trail.x[-1])[0][0, kundur.MACHINES :].numpy()
    for i, colour in enumerate(_COLOURS):
        x, y = _PLACES[i + 1]
        axes.plot(x, y, "o", ms=30, mfc="white", mec=colour, mew=3, zorder=4)
        axes.text(x, y, f"G{i + 1}", ha="center", va="center", fontsize=10, zorder=5)
        axes.text(x, y - 0.42, f"{hertz[i]:+.3f} Hz", ha="center", va="top", fontsize=8, color=colour)


def _devices(axes: Any, trail: Trail, attached: tuple[int, ...], actions: ActionSet) -> None:
    u = trail.u[-1] if trail.u else np.zeros(len(attached))
    for bus, power, name, unit in zip(attached, u, actions.names, actions.units, strict=True):
        x, kind = _PLACES[bus][0], name.rpartition(" ")[0]
        taking = power < 0 or not unit
        style = {"arrowstyle": "<-" if taking else "->", "color": "tab:green", "lw": 2 if power else 0.5}
        axes.annotate("", (x, 0.62), (x, 1.0), arrowprops=style)
        text = f"{kind} {power:+.2f} {unit}" if unit else f"{kind} {'on' if power else 'off'}"
        axes.text(x, 1.05, text, ha="center", fontsize=8, color="tab:green")


def _title(actions: ActionSet) -> str:
    kind, unit = actions.names[0].rpartition(" ")[0], actions.units[0]
    return f"{kind} power ({unit} of 100 MVA)" if unit else f"{kind} (0: off, 1: on)"
