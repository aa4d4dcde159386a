"""Between the static capacity slots of a state and the ragged flock that the rules work on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from steersman.envs.abm._flock import UNITS_PER_DEGREE, Flock, Rules, run
from steersman.envs.noise import bits, fold, integers, uniform

SPECIES = ("sheep", "wolf")
_GRASS, _COUNTDOWN, _PLACE, _HEADING, _ENERGY, _IDENTITY = range(6)


def setup(key: Tensor, rules: Rules, capacity: tuple[int, int]) -> dict[str, Tensor]:
    """The setup of the model for keys ``[n]``: random grass, animals at random places with random energies."""
    n, device, cells = key.shape[0], key.device, rules.side * rules.side
    brown = uniform(fold(key, _GRASS), cells) < 0.5
    countdown = integers(fold(key, _COUNTDOWN), 0, rules.regrowth, cells)
    x: dict[str, Tensor] = {"grown": torch.where(brown, countdown + 1, 0).to(torch.int32)}
    for i, name in enumerate(SPECIES):
        own, start = fold(key, 16 + i), rules.start[i]
        place = uniform(fold(own, _PLACE), start, 2, dtype=torch.float32) * rules.side
        heading = integers(fold(own, _HEADING), 0, 360, start) * UNITS_PER_DEGREE
        energy = integers(fold(own, _ENERGY), 0, int(2 * rules.gain[i]), start).to(torch.float32)
        spare = (0, capacity[i] - start)
        pad = torch.nn.functional.pad
        x |= {
            f"{name}_alive": (torch.arange(capacity[i], device=device) < start).expand(n, -1).clone(),
            f"{name}_x": pad(place[..., 0], spare),
            f"{name}_y": pad(place[..., 1], spare),
            f"{name}_energy": pad(energy, spare),
            f"{name}_heading": pad(heading, spare),
            f"{name}_identity": pad(bits(fold(own, _IDENTITY), start), spare),
        }
    x["tick"] = torch.zeros(n, dtype=torch.int64, device=device)
    x["overflow"] = torch.zeros(n, dtype=torch.bool, device=device)
    return x


def unpack(x: dict[str, Tensor]) -> Flock:
    """The living animals of all rows that are on the torus; the clock of the grass starts at 0."""
    n, side = x["tick"].shape[0], math.isqrt(x["grown"].shape[1])
    ints, reals = [], []
    for i, name in enumerate(SPECIES):
        here = x[f"{name}_alive"]
        for axis in "xy":
            here = here & (x[f"{name}_{axis}"] >= 0) & (x[f"{name}_{axis}"] < side)
        row, slot = here.nonzero(as_tuple=True)
        at = row * x[f"{name}_alive"].shape[1] + slot
        own = [x[f"{name}_{part}"].reshape(-1).index_select(0, at) for part in ("x", "y", "energy")]
        marks = [x[f"{name}_{part}"].reshape(-1).index_select(0, at) for part in ("heading", "identity")]
        ints.append(torch.stack([row + i * n, *marks]))
        reals.append(torch.stack(own))
    # Cells that have been green for long must not underflow, so their time is cut at the present.
    grown = (x["grown"] - x["tick"][:, None]).clamp(min=0).to(torch.int32).reshape(-1)
    return Flock(torch.cat(ints, dim=1), torch.cat(reals, dim=1), ints[0].shape[1], grown, n, side)


def pack(flock: Flock, ticks: int, before: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state ``ticks`` ticks after ``before``; animals beyond the capacity are dropped and flagged."""
    n = flock.n
    tick = before["tick"]
    grown = flock.grown.reshape(n, flock.cells) + tick[:, None]
    x = {"grown": grown.to(torch.int32), "tick": tick + ticks, "overflow": before["overflow"]}
    group = flock.ints[0].sort(stable=True)
    counts = flock.counts()
    slot = torch.arange(len(group.values), device=tick.device) - (counts.cumsum(0) - counts)[group.values]
    values, real = flock.ints[1:, group.indices], flock.reals[:, group.indices]
    for i, name in enumerate(SPECIES):
        capacity = before[f"{name}_alive"].shape[1]
        own = slice(0, flock.sheep) if i == 0 else slice(flock.sheep, None)
        fits = slot[own] < capacity
        at = ((group.values[own] - i * n) * capacity + slot[own])[fits]
        count = counts[i * n : (i + 1) * n]
        x["overflow"] = x["overflow"] | (count > capacity)
        x[f"{name}_alive"] = torch.arange(capacity, device=tick.device) < count[:, None]
        parts = dict(zip(("x", "y", "energy", "heading", "identity"), (*real, *values), strict=True))
        for part, value in parts.items():
            slots = torch.zeros(n * capacity, dtype=value.dtype, device=tick.device)
            slots[at] = value[own][fits]
            x[f"{name}_{part}"] = slots.reshape(n, capacity)
    return x


def advance(
    x: dict[str, Tensor], key: Tensor, ticks: int, rules: Rules, theta: Tensor | None, binomial: bool
) -> dict[str, Tensor]:
    """State ``ticks`` ticks later, on any device.

    Args:
        x: State.
        key: Noise key of each row.
        ticks: Ticks to run.
        rules: Rates.
        theta: Fractions removed each tick, sheep of all rows and then wolves, float64 ``[2 n]``; None removes nothing.
        binomial: Whether animals are removed independently of each other.
    """
    flock = unpack(x)
    run(flock, key, ticks, rules, theta, binomial)
    return pack(flock, ticks, x)
