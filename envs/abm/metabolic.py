"""A metabolic pathway of random-walking molecules with end-product inhibition, controlled by its inflow."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs.abm._grid import moved, present, vacant, winners, words
from steersman.envs.actions import ActionSet
from steersman.envs.noise import fold, integers, uniform
from steersman.envs.objective import Limit, Objective, Quadratic
from steersman.envs.picture import pixels
from steersman.envs.plant import Plant, Status, Trail
from steersman.envs.tree import Params, State

SIDE: Final = 40
CELLS: Final = SIDE * SIDE
ENZYMES: Final = 48
"""Enzymes of each of the three kinds."""
FEED: Final = 4.0
"""Largest inflow, molecules per tick."""
MEMORY: Final = 50.0
"""Time constant of the measured flows, in ticks."""
SUBSTRATE, FIRST, SECOND, PRODUCT = 1, 2, 3, 4
_RATES, _PLACES, _SWITCH, _DEMAND, _START, _WHERE, _FEED, _TICK = range(1, 9)
_MOVE, _RANK, _REACT, _LEAVE = 12, 20, 16, 16


class Metabolic(Plant):
    """Substrate -> first -> second -> product; the product blocks the first enzyme. After Boettcher et al.

    In the manner of the metabolic network of arXiv 2403.13851, with rules and numbers of our own. Molecules walk on a
    40 x 40 torus among 48 immobile enzymes of each of three kinds. A tick: ``u`` substrate molecules enter at random
    cells (the fraction as a probability); every free molecule stays or goes to one of four neighbours; every enzyme
    picks one of the free molecules on its cell that concern it, uniformly: its own substrate is converted with the
    enzyme's probability, and a product on an enzyme of the first kind binds and blocks it; then free products are
    harvested, free substrate is washed out and bound products let go, each with its probability.

    Scenarios draw the "patient" (three conversion probabilities 0.5..0.9, release 0.01..0.03, harvest 0.03..0.05,
    washing out 0.002..0.004 per tick), the places of the enzymes, 20..80 molecules of each kind, and the demand: levels
    of 0.4..1.2 products per tick which switch every 150..250 ticks, or one level with ``switching=False``.

    State: ``kind`` uint8 (0 is an empty slot), ``cell`` int64, ``bound`` bool, each ``[n, capacity]``; ``made`` and
    ``lost``, the augmented states of the ratio objective: exponential means over 50 ticks of the products
    harvested and of the substrate washed out, per tick, float64 ``[n]``; ``overflow`` bool ``[n]``. Outputs:
    y = (substrate, first, second, product, made, waste, demand), z = (made, waste, molecules) with waste =
    lost / (lost + made). A row ends as VIOLATED when its molecules outgrow the capacity.
    """

    def __init__(self, hold: int = 10, horizon: int = 60, *, switching: bool = True, capacity: int = 1024) -> None:
        """Set the task up.

        Args:
            hold: Ticks per control step.
            horizon: Control steps in an episode.
            switching: Whether the demand changes during an episode.
            capacity: Slots for molecules.

        Raises:
            ValueError: If hold or horizon is below 1 or the capacity below the 320 molecules of a start.
        """
        for name, value, least in (("hold", hold, 1), ("horizon", horizon, 1), ("capacity", capacity, 320)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.dt, self.hold, self.horizon, self.gradient, self.time_unit = 1.0, hold, horizon, "none", "tick"
        self.switching, self.capacity = switching, capacity
        self.actions = ActionSet((0.0,), (FEED,), names=("inflow",), units=("1/tick",))
        room = Limit(name="molecules", index=2, low=-1.0 * capacity, high=1.0 * capacity)
        self.objective = Objective((
            Quadratic(name="demand", on="e", weights=(4.0, 0.0, 0.0)),
            Quadratic(name="waste", on="z", weights=(0.0, 2.0, 0.0)),
        ), failure=10.0, limits=(room,))  # fmt: skip
        self.measured = ("substrate", "first", "second", "product", "made", "waste", "demand")
        self.performed = ("made", "waste", "molecules")
        self.exogenous = (6,)

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """Probabilities per tick, the enzyme of each cell (0..3), ticks of the switches and the demands."""
        unit = uniform(fold(key, _RATES), 6)
        kinds = torch.zeros(CELLS, dtype=torch.uint8, device=key.device)
        for kind in range(3):
            kinds[kind * ENZYMES : (kind + 1) * ENZYMES] = kind + 1
        switches = self.hold * self.horizon // 150 + 1
        gap = integers(fold(key, _SWITCH), 150, 251, switches)
        demand = 0.4 + 0.8 * uniform(fold(key, _DEMAND), switches + 1)
        return {
            "convert": 0.5 + 0.4 * unit[:, :3], "release": 0.01 + 0.02 * unit[:, 3],
            "harvest": 0.03 + 0.02 * unit[:, 4], "wash": 0.002 + 0.002 * unit[:, 5],
            "enzyme": kinds[uniform(fold(key, _PLACES), CELLS).argsort(dim=1)],
            "switch_tick": gap.cumsum(dim=1), "demand": demand if self.switching else demand[:, :1].expand_as(demand),
        }  # fmt: skip

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """20..80 molecules of each kind at random cells; the flows start at the demand."""
        count = integers(fold(key, _START), 20, 81, 4)
        slot = torch.arange(self.capacity, device=key.device)
        kind = (slot >= count.cumsum(dim=1)[:, :, None]).sum(dim=1) + 1
        demand = p["demand"][:, 0]
        return {
            "kind": torch.where(kind > PRODUCT, 0, kind).to(torch.uint8),
            "cell": integers(fold(key, _WHERE), 0, CELLS, self.capacity),
            "bound": torch.zeros_like(kind, dtype=torch.bool),
            "made": demand.clone(), "lost": 0.25 * demand, "overflow": torch.zeros_like(demand, dtype=torch.bool),
        }  # fmt: skip

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n 1"], w: Tensor, p: Params) -> State:
        """State ``hold`` ticks later; ``w`` holds the noise key of each row."""
        x = _dict(x)
        feed = u.detach().to(self.dtype).nan_to_num(0.0)[:, 0]
        chance = {name: (p[name] * (1 << _REACT)).round().long() for name in ("convert", "release", "harvest", "wash")}
        for tick in range(self.hold):
            key = fold(w, tick)
            x = self._enter(x, feed, fold(key, _FEED))
            x = self._tick(x, fold(key, _TICK), chance, p["enzyme"])
        return x

    def _enter(self, x: dict[str, Tensor], feed: Tensor, key: Tensor) -> dict[str, Tensor]:
        count = (feed + uniform(key)).floor().long()
        fresh, short = vacant(x["kind"] > 0, count)
        return x | {
            "kind": torch.where(fresh, SUBSTRATE, x["kind"]).to(torch.uint8),
            "cell": torch.where(fresh, integers(fold(key, 1), 0, CELLS, self.capacity), x["cell"]),
            "overflow": x["overflow"] | short,
        }

    def _tick(self, x: dict[str, Tensor], key: Tensor, chance: Params, enzyme: Tensor) -> dict[str, Tensor]:
        """Moves, enzymes, departures."""
        kind, bound = x["kind"], x["bound"]
        walk, rank, react, leave = words(key, self.capacity, _MOVE, _RANK, _REACT, _LEAVE)
        free = (kind > 0) & ~bound
        cell = torch.where(free, moved(x["cell"], walk, _MOVE, SIDE, range(5)), x["cell"])
        here = enzyme.gather(1, cell)
        blocked = present(cell, bound, CELLS).gather(1, cell)
        concerned = free & ~blocked & (here > 0) & ((kind == here) | ((here == 1) & (kind == PRODUCT)))
        picked = winners(cell, rank, concerned, CELLS)
        binds = picked & (kind == PRODUCT)
        odds = torch.cat([chance["convert"][:, :1], chance["convert"]], dim=1).gather(1, here.long())
        kind = kind + (picked & ~binds & (react < odds)).to(torch.uint8)
        odds = torch.stack([torch.zeros_like(chance["wash"]), chance["wash"], chance["harvest"]], dim=1)
        way = (kind == SUBSTRATE).long() + 2 * (kind == PRODUCT).long()
        leaves = free & ~binds & (leave < odds.gather(1, way))
        gone = [(leaves & (kind == which)).sum(dim=1).to(self.dtype) for which in (PRODUCT, SUBSTRATE)]
        bound = (bound & (leave >= chance["release"][:, None])) | binds
        flows = {name: x[name] + (flow - x[name]) / MEMORY for name, flow in zip(("made", "lost"), gone, strict=True)}
        return x | {"kind": torch.where(leaves, 0, kind).to(torch.uint8), "cell": cell, "bound": bound} | flows

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n 7"]:
        """Counts of the four kinds, the flow of product, the share of waste, the demand."""
        kind = _dict(x)["kind"]
        counts = torch.stack([(kind == i).sum(dim=1) for i in range(1, 5)], dim=1).to(self.dtype)
        return torch.cat([counts, self.perform(k, x, p)[:, :2], self.reference(k, p)[:, :1]], dim=1)

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n 3"]:
        """Flow of product per tick, the share of waste, and molecules of all kinds."""
        made, lost, kind = (_dict(x)[name] for name in ("made", "lost", "kind"))
        return torch.stack([made, lost / (lost + made).clamp(min=1e-9), (kind > 0).sum(dim=1).to(self.dtype)], dim=1)

    def reference(self, k: Int64[Tensor, "n"], p: Params) -> Float[Tensor, "n 3"]:
        """Demand and no waste; nothing is asked of the number of molecules."""
        switched = (p["switch_tick"] <= (k * self.hold)[:, None]).sum(dim=1, keepdim=True)
        demand = p["demand"].gather(1, switched.clamp(max=p["demand"].shape[1] - 1))
        return torch.nn.functional.pad(demand, (0, 2))

    def status(self, k: Int64[Tensor, "n"], x: State, p: Params) -> UInt8[Tensor, "n"]:
        """VIOLATED after an overflow of the slots."""
        return (int(Status.VIOLATED) * _dict(x)["overflow"]).to(torch.uint8)

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """The molecules among the enzymes, and flow, waste and inflow over time."""
        figure = Figure(figsize=(9.6, 5.2), dpi=100, layout="constrained")
        grid = figure.subplot_mosaic([["map", "flow"], ["map", "feed"]], width_ratios=(1, 1.1))
        x = _dict(trail.x[-1])
        kind, cell = (x[name].reshape(-1).cpu().numpy() for name in ("kind", "cell"))
        enzyme = trail.p["enzyme"].reshape(SIDE, SIDE).cpu().numpy()
        grid["map"].imshow(enzyme, cmap="Greys", vmin=0, vmax=6, origin="lower")
        for i, (name, tint) in enumerate(zip(self.measured, ("tab:blue", "tab:cyan", "tab:olive", "tab:red"))):  # noqa: B905
            at = cell[kind == i + 1]
            grid["map"].scatter(at % SIDE, at // SIDE, s=9, color=tint, label=f"{name} {len(at)}")
        grid["map"].legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2, fontsize=8)
        grid["map"].set(xticks=[], yticks=[], title="molecules; enzymes in grey")
        time = np.asarray(trail.k) * self.period
        z, r = np.asarray(trail.z), np.asarray(trail.r)
        grid["flow"].plot(time, r[:, 0], "k--", lw=1, label="demand")
        grid["flow"].plot(time, z[:, 0], label="product per tick")
        grid["flow"].plot(time, z[:, 1], color="tab:red", lw=1, label="waste")
        grid["flow"].legend(fontsize=8, loc="upper right")
        grid["flow"].set(xlim=(0, self.horizon * self.period), ylim=(0, 1.6))
        actions: NDArray[Any] = np.asarray(trail.u).reshape(-1, 1)
        grid["feed"].step(time[: len(actions)], actions[:, 0], where="post")
        grid["feed"].set(xlim=(0, self.horizon * self.period), ylim=(0, FEED), xlabel="tick", ylabel="inflow")
        return pixels(figure)


def _dict(x: State) -> dict[str, Tensor]:
    if isinstance(x, Tensor):
        raise ValueError("the state of Metabolic is a dict of tensors, got one tensor; see the class docstring")
    return x
