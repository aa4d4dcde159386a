"""What agents on a torus of cells share: fields of a random word, moves, one winner per cell, births into slots.

A row holds its agents in a fixed number of slots; ``cell`` is ``side * y + x`` of each slot, living or not.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from steersman.envs.noise import bits
from steersman.envs.placement import constant

_STEPS = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
"""Staying, the four nearest neighbours, the four diagonal ones."""


def words(key: Int64[Tensor, "n"], slots: int, *widths: int) -> list[Int64[Tensor, "n slots"]]:
    """Independent uniform integers of ``widths`` bits for every slot, cut from one 64-bit word each.

    Raises:
        ValueError: If the widths add up to more than 64.
    """
    if sum(widths) > 64:
        raise ValueError(f"widths {widths} need {sum(widths)} bits, a word has 64")
    word, at, found = bits(key, slots), 0, []
    for width in widths:
        found.append((word >> at) & ((1 << width) - 1))
        at += width
    return found


def moved(
    cell: Int64[Tensor, "n slots"], word: Int64[Tensor, "n slots"], width: int, side: int, choices: range
) -> Int64[Tensor, "n slots"]:
    """The cells reached by a uniformly chosen step; ``range(5)`` may stay, ``range(1, 9)`` is Moore's neighbourhood."""
    steps = constant(_STEPS, cell)[choices.start : choices.stop]
    step = steps[(word * len(choices)) >> width]
    x, y = (cell % side + step[..., 0]) % side, (cell // side + step[..., 1]) % side
    return y * side + x


def winners(
    cell: Int64[Tensor, "n slots"], rank: Int64[Tensor, "n slots"], eligible: Bool[Tensor, "n slots"], cells: int
) -> Bool[Tensor, "n slots"]:
    """The eligible agent of the highest rank in each cell; the slot breaks ties of ranks below 2**31."""
    slots = cell.shape[1]
    key = torch.where(eligible, rank * slots + torch.arange(slots, device=cell.device), -1)
    best = key.new_full((len(cell), cells), -1).scatter_reduce(1, cell, key, "amax")
    return eligible & (best.gather(1, cell) == key)


def present(cell: Int64[Tensor, "n slots"], who: Bool[Tensor, "n slots"], cells: int) -> Bool[Tensor, "n cells"]:
    """Cells in which at least one of ``who`` is."""
    found = torch.zeros(len(cell), cells, dtype=torch.uint8, device=cell.device)
    return found.scatter_reduce(1, cell, who.to(torch.uint8), "amax").bool()


def vacant(alive: Bool[Tensor, "n slots"], count: Int64[Tensor, "n"]) -> tuple[Bool[Tensor, "n slots"], Tensor]:
    """The first ``count`` free slots of each row, and the rows that do not have so many."""
    place = (~alive).cumsum(dim=1)
    return ~alive & (place <= count[:, None]), place[:, -1] < count
