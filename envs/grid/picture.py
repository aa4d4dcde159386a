"""Picture of an episode of any grid: one-line diagram with angles and flows, and traces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from steersman.envs.grid.network.admittance import branch_admittance
from steersman.envs.grid.network.case import Case
from steersman.envs.grid.simulate import grid_state
from steersman.envs.grid.system import Orders
from steersman.envs.importing import needed
from steersman.envs.picture import pixels
from steersman.envs.plant import Trail

if TYPE_CHECKING:
    from steersman.envs.grid.plant import GridPlant


def draw(plant: GridPlant, trail: Trail) -> NDArray[np.uint8]:
    """One-line diagram of the present state above angles, frequencies and actions so far."""
    figure = Figure(figsize=(10, 7.6), dpi=100, layout="constrained")
    layout = figure.add_gridspec(2, 3, height_ratios=(1.35, 1))
    _diagram(figure.add_subplot(layout[0, :]), plant, trail)
    angle, hertz, actions = (figure.add_subplot(layout[1, i]) for i in range(3))
    _traces(angle, hertz, plant, trail)
    _actions(actions, plant, trail)
    for axes in (angle, hertz, actions):
        axes.set(xlim=(0, plant.horizon * plant.period), xlabel="time (s)")
        axes.grid(alpha=0.3)
        for start, end in _events(trail):
            axes.axvspan(start, min(end, plant.horizon * plant.period), color="gold", alpha=0.25, lw=0)
    return pixels(figure)


def _traces(angle: Any, hertz: Any, plant: GridPlant, trail: Trail) -> None:
    system, time = plant.system, np.asarray(trail.k) * plant.period
    x = torch.cat([grid_state(state)[:1] for state in trail.x]).T
    weight = torch.as_tensor(system.inertia)[:, None]
    angles = torch.rad2deg(system.angles(x)).cpu()
    centred = angles - (weight * angles).sum(dim=0) / weight.sum()
    rows = {name: trail.p[name][:1].T.expand(-1, x.shape[1]) for name in ("voltage", "power", "held")}
    speeds = system.speeds(x, Orders(rows["voltage"], rows["power"], rows["held"])).cpu() * system.case.frequency
    many = system.units > 6
    for i, bus in enumerate(system.case.buses.id[system.bus]):
        colour = f"C{i % 10}"
        angle.plot(time, centred[i], color=colour, lw=1.2, label=f"G{bus}")
        hertz.plot(time, system.case.frequency + speeds[i], color=colour, lw=1.2)
    angle.set_title("rotor angle to centre of inertia (deg)", fontsize=9)
    hertz.set_title("frequency (Hz)", fontsize=9)
    hertz.ticklabel_format(useOffset=False)
    angle.legend(
        fontsize=6 if many else 7, ncols=5 if many else 4, loc="upper center", handlelength=1, columnspacing=0.8
    )
    angle.margins(y=0.25)


def _actions(axes: Any, plant: GridPlant, trail: Trail) -> None:
    u = np.asarray(trail.u).reshape(len(trail.u), plant.actions.m)
    time = np.asarray(trail.k)[: len(u)] * plant.period
    for i, (name, unit) in enumerate(zip(plant.actions.names, plant.actions.units, strict=True)):
        axes.step(time, u[:, i], where="post", lw=1.1, label=f"{name} ({unit})" if unit else name)
    low, high = min(plant.actions.lower), max(plant.actions.upper)
    axes.set_ylim(low - 0.1 * (high - low), high + 0.35 * (high - low))
    axes.set_title("actions", fontsize=9)
    axes.legend(fontsize=6.5, ncols=2, loc="upper center", handlelength=1.2)


def _diagram(axes: Any, plant: GridPlant, trail: Trail) -> None:
    case, now = plant.system.case, trail.k[-1] * plant.period
    place = np.array([(plant.places or _layout(case))[int(bus)] for bus in case.buses.id])
    V = plant.voltages(now, grid_state(trail.x[-1])[:1], trail.p).cpu()
    _lines(axes, case, place, V, _out(plant, trail, now))
    degrees = np.rad2deg(np.angle(V.numpy() * np.exp(-1j * np.angle(V.numpy().sum()))))
    points = axes.scatter(*place.T, c=degrees, cmap="coolwarm", vmin=-60, vmax=60, s=150, zorder=3, edgecolor="black")
    axes.figure.colorbar(points, ax=axes, shrink=0.75, label="bus angle to the mean (deg)", pad=0.01)
    generators = set(plant.system.bus.tolist())
    for i, (x, y) in enumerate(place):
        axes.text(x, y, str(case.buses.id[i]), ha="center", va="center", fontsize=7, zorder=4)
        if i in generators:
            axes.plot(x, y, "o", ms=17, mfc="none", mec="black", mew=1.2, zorder=2)
        if case.buses.load[i]:
            axes.annotate(
                "", (x, y - 0.055 * np.ptp(place[:, 1]) - 0.12), (x, y), arrowprops={"arrowstyle": "-|>", "lw": 1}
            )
    for node in _short(plant, trail, now):
        axes.plot(*place[node], marker="X", ms=20, color="gold", mec="red", zorder=5)
    axes.set_title(f"t = {now:.2f} s; width and arrow of a line: active power", fontsize=10)
    axes.margins(0.06, 0.18)
    axes.axis("off")


def _lines(axes: Any, case: Case, place: NDArray[Any], V: torch.Tensor, out: set[tuple[int, int]]) -> None:
    """Branches with the power through them; one that is out is dashed."""
    lines, blocks = case.branches, branch_admittance(case.branches)
    flow = (V[lines.start] * (blocks[:, 0, 0] * V[lines.start] + blocks[:, 0, 1] * V[lines.end]).conj()).real.numpy()
    largest, seen = max(float(np.abs(flow).max()), 1e-9), dict[tuple[int, int], int]()
    for i, (a, b) in enumerate(zip(lines.start.tolist(), lines.end.tolist(), strict=True)):
        nth = seen[(a, b)] = seen.get((a, b), -1) + 1
        along = place[b] - place[a]
        side = np.array([-along[1], along[0]]) / (np.hypot(*along) + 1e-9) * 0.05 * np.ptp(place, axis=0).min() * nth
        start, end = place[a] + side, place[b] + side
        if (a, b) in out and nth == 0:
            axes.plot(*np.stack([start, end]).T, ls=":", color="0.6", lw=1.2, zorder=1)
            continue
        width = 0.6 + 4 * abs(flow[i]) / largest
        axes.plot(*np.stack([start, end]).T, color="0.55", lw=width, zorder=1, solid_capstyle="round")
        middle, way = (start + end) / 2, np.sign(flow[i]) * along * 0.06
        if abs(flow[i]) > 0.02 * largest:
            arrow = {"arrowstyle": "-|>", "color": "0.25", "lw": 0.8, "mutation_scale": 9}
            axes.annotate("", middle + way, middle - way, arrowprops=arrow, zorder=2)


def _events(trail: Trail) -> list[tuple[float, float]]:
    if "on" not in trail.p:
        return []
    pairs = zip(trail.p["on"][0].tolist(), trail.p["off"][0].tolist(), strict=True)
    return [(on, off) for on, off in pairs if np.isfinite(on) and np.isfinite(off)]


def _active(trail: Trail, now: float) -> list[int]:
    if "on" not in trail.p:
        return []
    on, off = trail.p["on"][0].tolist(), trail.p["off"][0].tolist()
    return [i for i in range(len(on)) if on[i] <= now < off[i]]


def _short(plant: GridPlant, trail: Trail, now: float) -> list[int]:
    """Buses with a fault."""
    nodes = trail.p["nodes"][0] if "on" in trail.p else None
    return [
        int(nodes[i, 0]) - plant.system.units
        for i in _active(trail, now)
        if nodes is not None and nodes[i, 0] == nodes[i, 1] and abs(float(trail.p["delta"][0, i, 0, 0, 1])) > 1e2
    ]


def _out(plant: GridPlant, trail: Trail, now: float) -> set[tuple[int, int]]:
    """Pairs of buses between which a branch is out."""
    if "on" not in trail.p:
        return set()
    nodes = trail.p["nodes"][0] - plant.system.units
    pairs = [tuple(nodes[i].tolist()) for i in _active(trail, now)]
    return {(a, b) for a, b in pairs if a != b and min(a, b) >= 0}


def _layout(case: Case) -> dict[int, tuple[float, float]]:
    """Places by the distances along the network.

    Raises:
        ImportError: Without networkx; the message names the extra.
    """
    networkx = needed("networkx", "grid", "drawing a grid without places")
    graph = networkx.Graph(zip(case.branches.start.tolist(), case.branches.end.tolist(), strict=True))
    found = networkx.kamada_kawai_layout(graph)
    return {int(case.buses.id[i]): (float(x), float(y)) for i, (x, y) in found.items()}
