"""A reduced model of sepsis: infected tissue, two kinds of cells, two signals, therapy by multipliers of them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs.abm._grid import moved, vacant, words
from steersman.envs.actions import ActionSet
from steersman.envs.noise import fold, integers, uniform
from steersman.envs.objective import Linear, Objective, Quadratic, within
from steersman.envs.picture import pixels
from steersman.envs.plant import Plant, Status, Trail
from steersman.envs.tree import Params, State

SIDE: Final = 32
CELLS: Final = SIDE * SIDE
DEATH: Final = 0.5
"""Mean damage of the tissue at which the patient is lost."""
PHAGOCYTE, REGULATOR = 1, 2
RESIDENT: Final = (60, 20)
"""Phagocytes and regulators at the start, and in health."""
LIFE: Final = 60.0
"""Mean stay of a cell in the tissue, in ticks."""
TRACE: Final = 0.02
"""Infection of a site below which it is gone."""
HALF: Final = 0.3
"""Pro-inflammatory signal at which a cell is half activated."""
_RATES, _WOUND, _PLACES, _MOVE, _ENTER = 1, 2, 3, 4, 5
_WIDTH, _CHANCE = 12, 24
_RANGES: Final = {
    "growth": (0.03, 0.15), "toxicity": (0.02, 0.05), "kill": (0.3, 0.9), "burst": (0.06, 0.18),
    "healing": (0.01, 0.02), "recruit": (8.0, 24.0), "radius": (2.0, 6.0),
}  # fmt: skip


class Sepsis(Plant):
    """Clear an infection without the inflammation killing the patient. Inspired by the innate-immune-response model.

    Inspired by An's agent-based model and its control by cytokine multipliers (Cockrell and An; Petersen et al. 2019);
    reduced, with rules and rates of our own, so no published number applies. On a 32 x 32 torus of tissue, a tick:

    - infection I grows logistically (``growth``) and spreads to neighbours; damage D grows by ``toxicity * I`` and by
      the oxidative burst of phagocytes, and heals at the rate ``healing (1 - mean D)``;
    - both signals diffuse and decay by 10 % (pro) and 5 % (anti); infected and damaged tissue gives off the pro signal;
    - a phagocyte is activated by ``a = P / (P + 0.3) / (1 + 2 A)``: it kills I on its cell by a factor
      ``exp(-kill a)``, damages by ``burst a`` and gives off ``0.3 a`` of the pro signal, times its multiplier;
    - a regulator gives off ``0.3 P / (P + 0.3)`` of the anti signal, times its multiplier;
    - cells look at two random steps and take the one with more of the pro signal; they leave with probability 1/60 and
      enter at random places at a rate that keeps 60 and 20 in health and rises by ``recruit`` and ``recruit / 4``
      times the mean pro signal.

    Actions: base-2 logarithms of the multipliers of both productions, in [-2, 2]; zero is no therapy. Patients draw
    all rates (:data:`_RANGES`) and a round wound of ``radius`` cells. Measured: mean pro and anti signal, phagocytes,
    regulators, damage; the infection is hidden. Performance: damage and infection. A row ends as TERMINATED when the
    mean damage exceeds :data:`DEATH`: death.

    State: ``infection``, ``damage``, ``pro``, ``anti`` float64 ``[n, 32, 32]``; ``kind`` uint8 (0 is an empty slot)
    and ``cell`` int64 ``[n, capacity]``. Cells that find no free slot do not enter.
    """

    def __init__(self, hold: int = 10, horizon: int = 60, *, capacity: int = 512) -> None:
        """Set the task up.

        Args:
            hold: Ticks per control step.
            horizon: Control steps in an episode.
            capacity: Slots for cells.

        Raises:
            ValueError: If hold or horizon is below 1 or the capacity below the cells of a start.
        """
        for name, value, least in (("hold", hold, 1), ("horizon", horizon, 1), ("capacity", capacity, sum(RESIDENT))):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.dt, self.hold, self.horizon, self.gradient, self.time_unit = 1.0, hold, horizon, "none", "tick"
        self.capacity = capacity
        self.actions = ActionSet((-2.0, -2.0), (2.0, 2.0), names=("pro", "anti"), units=("log2", "log2"))
        self.objective = Objective((
            Linear(name="burden", on="z", weights=(4.0, 2.0)),
            Quadratic(name="therapy", on="u", weights=(0.01, 0.01)),
        ), failure=4.0, limits=within((DEATH,), ("damage",)))  # fmt: skip
        self.measured = ("pro", "anti", "phagocytes", "regulators", "damage")
        self.performed = ("damage", "infection")

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """Rates of the patient ``[n]``."""
        unit = uniform(fold(key, _RATES), len(_RANGES))
        return {name: low + (high - low) * unit[:, i] for i, (name, (low, high)) in enumerate(_RANGES.items())}

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """Healthy tissue with resident cells and a round infected wound."""
        n, at = len(key), torch.arange(SIDE, device=key.device)
        middle = integers(fold(key, _WOUND), 0, SIDE, 2)
        gap = ((at - middle[:, :, None] + SIDE // 2) % SIDE - SIDE // 2).to(self.dtype).square()
        wound = (gap[:, 0, :, None] + gap[:, 1, None, :] <= p["radius"].square()[:, None, None]).to(self.dtype)
        slot = torch.arange(self.capacity, device=key.device)
        kind = torch.where(slot < RESIDENT[0], PHAGOCYTE, REGULATOR) * (slot < sum(RESIDENT))
        return {
            "infection": 0.5 * wound, "damage": 0.3 * wound, "pro": torch.zeros_like(wound),
            "anti": torch.zeros_like(wound), "kind": kind.expand(n, -1).to(torch.uint8).clone(),
            "cell": integers(fold(key, _PLACES), 0, CELLS, self.capacity),
        }  # fmt: skip

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n 2"], w: Tensor, p: Params) -> State:
        """State ``hold`` ticks later; ``w`` holds the noise key of each row."""
        x = _dict(x)
        times = torch.exp2(u.detach().to(self.dtype).nan_to_num(0.0))
        for tick in range(self.hold):
            key = fold(w, tick)
            x = self._traffic(self._move(x, fold(key, _MOVE)), fold(key, _ENTER), p)
            x = self._tissue(x, times, p)
        return x

    def _move(self, x: dict[str, Tensor], key: Tensor) -> dict[str, Tensor]:
        first, second = words(key, self.capacity, _WIDTH, _WIDTH)
        a, b = (moved(x["cell"], word, _WIDTH, SIDE, range(9)) for word in (first, second))
        pro = x["pro"].reshape(-1, CELLS)
        return x | {"cell": torch.where(pro.gather(1, a) >= pro.gather(1, b), a, b)}

    def _traffic(self, x: dict[str, Tensor], key: Tensor, p: Params) -> dict[str, Tensor]:
        """Departures, then arrivals at random places."""
        (draw,) = words(key, self.capacity, _CHANCE)
        kind = torch.where(draw < round((1 << _CHANCE) / LIFE), 0, x["kind"])
        call = x["pro"].mean(dim=(1, 2))
        places = integers(fold(key, 1), 0, CELLS, self.capacity)
        unit, cell = uniform(fold(key, 2), 2), x["cell"]
        for i, (who, share) in enumerate(((PHAGOCYTE, 1.0), (REGULATOR, 0.25))):
            count = (RESIDENT[i] / LIFE + share * p["recruit"] * call + unit[:, i]).floor().long()
            fresh, _ = vacant(kind > 0, count)
            kind, cell = torch.where(fresh, who, kind), torch.where(fresh, places, cell)
        return x | {"kind": kind.to(torch.uint8), "cell": cell}

    def _tissue(self, x: dict[str, Tensor], times: Tensor, p: Params) -> dict[str, Tensor]:
        """Signals, infection and damage after one tick."""
        rate = {name: value[:, None, None] for name, value in p.items()}
        count = [self._count(x, who) for who in (PHAGOCYTE, REGULATOR)]
        infection, damage, pro, anti = x["infection"], x["damage"], x["pro"], x["anti"]
        called = pro / (pro + HALF)
        active = count[0] * called / (1 + 2 * anti)
        up, down = times[:, 0, None, None], times[:, 1, None, None]
        made_pro = up * (0.3 * active + 0.1 * infection + 0.05 * damage)
        made_anti = down * 0.3 * count[1] * called
        infection = infection + rate["growth"] * infection * (1 - infection) + 0.03 * _laplacian(infection)
        infection = infection * torch.exp(-rate["kill"] * active)
        healing = rate["healing"] * (1 - damage.mean(dim=(1, 2), keepdim=True))
        hurt = (rate["toxicity"] * infection + rate["burst"] * active) * (1 - damage)
        return x | {
            # A trace is an end, or the infection would always return.
            "infection": torch.where(infection < TRACE, 0.0, infection),
            "damage": (damage + hurt - healing * damage).clamp(0.0, 1.0),
            "pro": 0.9 * (pro + 0.15 * _laplacian(pro)) + made_pro,
            "anti": 0.95 * (anti + 0.15 * _laplacian(anti)) + made_anti,
        }

    def _count(self, x: dict[str, Tensor], who: int) -> Float[Tensor, "n side side"]:
        found = torch.zeros(len(x["cell"]), CELLS, dtype=self.dtype, device=x["cell"].device)
        return found.scatter_add(1, x["cell"], (x["kind"] == who).to(self.dtype)).reshape(-1, SIDE, SIDE)

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n 5"]:
        """Mean signals, numbers of cells, mean damage."""
        s = _dict(x)
        cells = [(s["kind"] == who).sum(dim=1).to(self.dtype) for who in (PHAGOCYTE, REGULATOR)]
        pro, anti, damage = (s[name].mean(dim=(1, 2)) for name in ("pro", "anti", "damage"))
        return torch.stack([pro, anti, *cells, damage], dim=1)

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n 2"]:
        """Mean damage and infection."""
        s = _dict(x)
        return torch.stack([s[name].mean(dim=(1, 2)) for name in ("damage", "infection")], dim=1)

    def status(self, k: Int64[Tensor, "n"], x: State, p: Params) -> UInt8[Tensor, "n"]:
        """TERMINATED at death."""
        dead = _dict(x)["damage"].mean(dim=(1, 2)) > DEATH
        return (int(Status.TERMINATED) * dead).to(torch.uint8)

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """Infection, damage and both signals on the tissue; burden and therapy over time."""
        figure = Figure(figsize=(9.6, 5.2), dpi=100, layout="constrained")
        grid = figure.subplot_mosaic([["infection", "damage", "time"], ["pro", "anti", "therapy"]],
                                     width_ratios=(1, 1, 1.6))  # fmt: skip
        s = _dict(trail.x[-1])
        tints = {"infection": "Greens", "damage": "Reds", "pro": "Oranges", "anti": "Blues"}
        for name, tint in tints.items():
            field: NDArray[Any] = s[name].reshape(SIDE, SIDE).cpu().numpy()
            grid[name].imshow(field, cmap=tint, vmin=0, vmax=1 if name in self.performed else 2)
            grid[name].set(xticks=[], yticks=[], title=f"{name} {field.mean():.2f}")
        z = np.asarray(trail.z)
        for i, (name, tint) in enumerate((("damage", "tab:red"), ("infection", "tab:green"))):
            grid["time"].plot(np.asarray(trail.k) * self.period, z[:, i], color=tint, label=name)
        grid["time"].axhline(DEATH, color="k", lw=1, ls="--")
        grid["time"].legend(fontsize=8)
        grid["time"].set(xlim=(0, self.horizon * self.period), ylim=(0, 1))
        actions: NDArray[Any] = np.asarray(trail.u).reshape(-1, 2)
        time = np.asarray(trail.k)[: len(actions)] * self.period
        for i, name in enumerate(self.actions.names):
            grid["therapy"].step(time, actions[:, i], where="post", label=name)
        grid["therapy"].legend(fontsize=8)
        grid["therapy"].set(xlim=(0, self.horizon * self.period), ylim=(-2.1, 2.1))
        grid["therapy"].set(xlabel="tick", ylabel="log2 multiplier")
        return pixels(figure)


def _laplacian(field: Float[Tensor, "n side side"]) -> Float[Tensor, "n side side"]:
    """Sum of the four neighbours minus four times the value, on the torus."""
    around = sum((field.roll(by, dim) for dim in (1, 2) for by in (1, -1)), start=-4 * field)
    return around


def _dict(x: State) -> dict[str, Tensor]:
    if isinstance(x, Tensor):
        raise ValueError("the state of Sepsis is a dict of tensors, got one tensor; see the class docstring")
    return x
