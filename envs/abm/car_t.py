"""Expansion of CAR T cells on a plate, controlled by adding and removing activating beads."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs.abm._grid import moved, present, vacant, winners, words
from steersman.envs.actions import ActionSet
from steersman.envs.noise import fold, integers, uniform
from steersman.envs.objective import Limit, Linear, Objective, PiecewiseLinear
from steersman.envs.picture import pixels
from steersman.envs.plant import Plant, Status, Trail
from steersman.envs.tree import Params, State

SIDE: Final = 50
CELLS: Final = SIDE * SIDE
SKIP, ADD, REMOVE = range(3)
BEADS: Final = 10
"""Beads of one addition."""
GENERATION: Final = 1600
"""Substeps of the clock that ages and losses are stated in."""
POTENT, FLOOR = 0.8, 0.05
_RATES, _PLACES, _BEADS = 1, 2, 3
_MOVE, _RANK, _DRAW = 12, 20, 16


class CarT(Plant):
    """Naive T cells must be activated by beads, and spoil on them; make many potent cells. After Ferdous et al.

    Rules of the "game of cells" (Ferdous et al.), 50 control steps of 32 substeps on a 50 x 50 torus with at most one
    cell per site; what we add or choose is marked (*). Actions, one of three: skip, add ten beads at random sites,
    remove all beads. In a substep every cell picks one of eight neighbours (*: Moore) and, if it is free, moves there
    with probability 1/2. Otherwise (*) an activated cell divides into it if its age since the last division lies in
    0.35..0.5 generations of 1600 substeps, with probability ``division`` times its potency (above 0.05). All cells act
    at once and one uniformly chosen claimant gets a site (*). On a bead a cell loses 1/25 of potency a substep, else
    1/(25 * 1600); a naive cell on a bead becomes activated with probability 0.9, with potency 1. Potency does not fall
    below 0.05; a cell is potent above 0.8.

    Patients (*): 16..24 naive cells, ``division`` between 0.6 and 1.4 times its nominal value. The published 0.001
    is the default.

    State, ``[n, capacity]`` each: ``alive``, ``active`` bool, ``cell`` int64, ``potency`` float64, ``age`` int64; and
    ``bead`` bool ``[n, 2500]``, ``last`` the last action. Measured: cells, activated share, potent share, mean
    potency of activated cells, cells on beads (*), beads, time, last action. Performance: product (the summed
    potency if at least eight cells are potent, else 0), potent cells, and all cells, which VIOLATED ends where they
    outgrow the capacity. Cost: ten for every unit of product that is missing from 40 at the end, and before it 0.02 for
    each potent cell that is missing from 40.
    """

    def __init__(self, hold: int = 32, horizon: int = 50, *, division: float = 1e-3, capacity: int = 256) -> None:
        """Set the task up.

        Args:
            hold: Substeps per control step.
            horizon: Control steps in an episode.
            division: Nominal probability of a division in a substep, for potency 1.
            capacity: Slots for cells.

        Raises:
            ValueError: If a number is out of range.
        """
        for name, value, least in (("hold", hold, 1), ("horizon", horizon, 1), ("capacity", capacity, 24)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not 0 <= division <= 0.5:
            raise ValueError(f"division must be a probability in [0, 0.5], got {division}")
        self.dt, self.hold, self.horizon, self.gradient, self.time_unit = 1.0, hold, horizon, "none", "substep"
        self.division, self.capacity = division, capacity
        self.actions = ActionSet(
            (0.0,) * 3, (1.0,) * 3, one_hot=((SKIP, ADD, REMOVE),), names=("skip", "add", "remove")
        )
        self.objective = Objective(
            (Linear(name="potent", on="e", weights=(0.0, -0.02, 0.0)),),
            (PiecewiseLinear(name="product", on="e", index=0, points=((-40.0, 400.0), (0.0, 0.0))),),
            failure=10.0,
            limits=(Limit(name="cells", index=2, low=-float(capacity), high=float(capacity)),),
        )
        self.measured = (
            "cells", "activated", "potent", "mean_potency", "on_beads", "beads", "time", "last_action",
        )  # fmt: skip
        self.performed = ("product", "potent_cells", "cells")
        self.exogenous = (6,)

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """Number of cells at the start and the probability of division."""
        unit = uniform(fold(key, _RATES), 2)
        return {"start": 16 + (9 * unit[:, 0]).floor().long(), "division": self.division * (0.6 + 0.8 * unit[:, 1])}

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """Naive cells at different sites, no beads."""
        n, slots = len(key), self.capacity
        cell = uniform(fold(key, _PLACES), CELLS).argsort(dim=1)[:, :slots]
        alive = torch.arange(slots, device=key.device) < p["start"][:, None]
        return {
            "alive": alive, "active": torch.zeros_like(alive), "cell": cell,
            "potency": torch.zeros_like(cell, dtype=self.dtype), "age": torch.zeros_like(cell),
            "bead": torch.zeros(n, CELLS, dtype=torch.bool, device=key.device),
            "last": torch.zeros(n, dtype=torch.int64, device=key.device),
            "overflow": torch.zeros(n, dtype=torch.bool, device=key.device),
        }  # fmt: skip

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n 3"], w: Tensor, p: Params) -> State:
        """State one control step later; ``w`` holds the noise key of each row."""
        choice = u.detach().nan_to_num(0.0).argmax(dim=1)
        x = dict(_dict(x))
        sites = integers(fold(w, _BEADS), 0, CELLS, BEADS)
        added = x["bead"] | present(sites, torch.ones_like(sites, dtype=torch.bool), CELLS)
        kept = torch.where((choice == ADD)[:, None], added, x["bead"])
        x |= {"bead": kept & (choice != REMOVE)[:, None], "last": choice}
        for tick in range(self.hold):
            x = self._substep(x, fold(w, 16 + tick), p["division"])
        return x

    def _substep(self, x: dict[str, Tensor], key: Tensor, division: Tensor) -> dict[str, Tensor]:
        alive, active, cell, age = x["alive"], x["active"], x["cell"], x["age"] + x["alive"]
        walk, rank, draw, toss = words(key, self.capacity, _MOVE, _RANK, _DRAW, _DRAW)
        target = moved(cell, walk, _MOVE, SIDE, range(1, 9))
        free = alive & ~present(cell, alive, CELLS).gather(1, target)
        claims = winners(target, rank, free, CELLS)
        goes = claims & (toss < 1 << (_DRAW - 1))
        ripe = active & (age >= round(0.35 * GENERATION)) & (age <= round(0.5 * GENERATION)) & (x["potency"] > FLOOR)
        divides = claims & ~goes & ripe & _happens(draw, 2 * division[:, None] * x["potency"])
        cell = torch.where(goes, target, cell)
        on_bead = alive & x["bead"].gather(1, cell)
        wakes = on_bead & ~active & _happens(draw, torch.full_like(x["potency"], 0.9))
        loss = torch.where(on_bead, 1 / 25, 1 / (25 * GENERATION))
        potency = torch.where(active & alive, (x["potency"] - loss).clamp(min=FLOOR), x["potency"])
        after = x | {
            "cell": cell, "age": torch.where(divides, 0, age), "active": active | wakes,
            "potency": torch.where(wakes, 1.0, potency),
        }  # fmt: skip
        return self._births(after, divides, target) if bool(divides.any()) else after

    def _births(self, x: dict[str, Tensor], divides: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Children at the claimed sites, with the potency of their mothers."""
        fresh, short = vacant(x["alive"], divides.sum(dim=1))
        mother = divides.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
        order = (fresh.cumsum(dim=1) - 1).clamp(min=0)
        mother = mother.gather(1, order)
        given = {"cell": target, "potency": x["potency"], "active": x["active"], "age": torch.zeros_like(x["age"])}
        born = {name: torch.where(fresh, t.gather(1, mother), x[name]) for name, t in given.items()}
        return x | born | {"alive": x["alive"] | fresh, "overflow": x["overflow"] | short}

    def _potent(self, x: State) -> tuple[dict[str, Tensor], Tensor]:
        found = _dict(x)
        return found, found["alive"] & found["active"] & (found["potency"] > POTENT)

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n 8"]:
        """The eight outputs of the class docstring; time as a share of the episode."""
        s, potent = self._potent(x)
        active = s["alive"] & s["active"]
        who = (s["alive"], active, potent, s["alive"] & s["bead"].gather(1, s["cell"]), s["bead"])
        cells, number, strong, on_beads, beads = (mask.sum(dim=1).to(self.dtype) for mask in who)
        mean = (s["potency"] * active).sum(dim=1) / number.clamp(min=1)
        time, last = k.to(self.dtype) / self.horizon, s["last"].to(self.dtype)
        return torch.stack([cells, number / cells, strong / cells, mean, on_beads, beads, time, last], dim=1)

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n 3"]:
        """Product, potent cells and cells."""
        s, potent = self._potent(x)
        number = potent.sum(dim=1).to(self.dtype)
        total = (s["potency"] * (s["alive"] & s["active"])).sum(dim=1)
        cells = s["alive"].sum(dim=1).to(self.dtype)
        return torch.stack([torch.where(number >= 8, total, 0.0), number, cells], dim=1)

    def reference(self, k: Int64[Tensor, "n"], p: Params) -> Float[Tensor, "n 3"]:
        """Forty potent cells of potency 1; nothing is asked of the number of cells."""
        return torch.nn.functional.pad(torch.full((len(k), 2), 40.0, dtype=self.dtype, device=k.device), (0, 1))

    def status(self, k: Int64[Tensor, "n"], x: State, p: Params) -> UInt8[Tensor, "n"]:
        """VIOLATED after an overflow of the slots."""
        return (int(Status.VIOLATED) * _dict(x)["overflow"]).to(torch.uint8)

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """The plate with beads and cells, tinted by potency, and the product over time."""
        figure = Figure(figsize=(9.6, 5.2), dpi=100, layout="constrained")
        plate, curve = figure.subplots(1, 2, width_ratios=(1, 1.1))
        s = {name: t.reshape(-1).cpu().numpy() for name, t in _dict(trail.x[-1]).items()}
        plate.imshow(s["bead"].reshape(SIDE, SIDE), cmap="Greys", vmin=0, vmax=2, origin="lower")
        cell, potency = s["cell"][s["alive"]], s["potency"][s["alive"]]
        dots = plate.scatter(cell % SIDE, cell // SIDE, c=potency, s=16, cmap="viridis", vmin=0, vmax=1)
        figure.colorbar(dots, ax=plate, label="potency", shrink=0.7)
        plate.set(xticks=[], yticks=[], title=f"{len(cell)} cells, {int(s['bead'].sum())} beads (grey)")
        z = np.asarray(trail.z)
        for i, name in enumerate(("product", "potent cells")):
            curve.plot(trail.k, z[:, i], label=name)
        for j, u in enumerate(trail.u):
            if (act := int(np.asarray(u).reshape(-1).argmax())) != SKIP:
                curve.axvline(trail.k[j], color="tab:green" if act == ADD else "tab:red", lw=0.8, alpha=0.6)
        curve.set(xlim=(0, self.horizon), xlabel="control step; green adds beads, red removes them")
        curve.legend(loc="upper left", fontsize=8)
        return pixels(figure)


def _happens(draw: Tensor, odds: Float[Tensor, "n slots"]) -> Tensor:
    """Bool, with these probabilities, from uniform integers of ``_DRAW`` bits."""
    return draw < (odds * (1 << _DRAW)).round().long()


def _dict(x: State) -> dict[str, Tensor]:
    if isinstance(x, Tensor):
        raise ValueError("the state of CarT is a dict of tensors, got one tensor; see the class docstring")
    return x
