"""Rules of the wolf-sheep-grass model on a ragged batch: one flat list of animals for all rows of a batch.

The rules are those of the NetLogo library model (Wilensky 1997, "Wolf Sheep Predation"). Moves do not sense
other animals, so activating the animals one after another in random order has the same distribution as the
parallel form used here: one uniformly chosen sheep eats on each green cell, and ``min(wolves, sheep)`` random
pairs meet on each cell.

Every animal carries a 64-bit identity. Its random word of a tick is a hash of the tick's key and the identity,
split into fields, so that neither its place in the list nor the other rows matter. All floating-point work is
single additions and multiplications, which round alike in vector and scalar code: a row is bitwise the same
alone and in a batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from steersman.envs.noise import fold, mix

SIDE = 51
CELLS = SIDE * SIDE
UNITS_PER_DEGREE = 180
"""Headings are integers, in units of 1/180 degree: turns by whole degrees never accumulate rounding errors."""
CIRCLE = 360 * UNITS_PER_DEGREE
_TURN_BITS, _BIRTH_BITS, _RANK_BITS = 24, 20, 20
_CHILD, _MATCH = 0x51ED270B, 0x2545F491


@dataclass(frozen=True)
class Rules:
    """Rates of the model; pairs are (sheep, wolves).

    Attributes:
        start: Animals at the setup.
        gain: Energy gained by one meal.
        reproduction: Probability of giving birth in a tick.
        regrowth: Countdown of eaten grass; the cell is green again after ``regrowth + 1`` ticks.
        side: Cells along each side of the torus.
    """

    start: tuple[int, int] = (100, 50)
    gain: tuple[float, float] = (4.0, 20.0)
    reproduction: tuple[float, float] = (0.04, 0.05)
    regrowth: int = 30
    side: int = SIDE

    def __post_init__(self) -> None:
        for i, species in enumerate(("sheep", "wolves")):
            start, gain, births = self.start[i], self.gain[i], self.reproduction[i]
            if start < 0 or start != int(start):
                raise ValueError(f"start of {species} must be a number of animals, got {start}")
            if not 0.5 <= gain < math.inf:
                raise ValueError(f"gain of {species} must be finite and at least 0.5, got {gain}")
            if not 0 <= births <= 1:
                raise ValueError(f"reproduction of {species} must be a probability, got {births}")
        if self.regrowth < 0 or self.regrowth != int(self.regrowth):
            raise ValueError(f"regrowth must be a non-negative number of ticks, got {self.regrowth}")
        # Coordinates are float32: beyond this side a step of one would lose more than 1e-4 of a cell.
        if not 2 <= self.side <= 2048 or self.side != int(self.side):
            raise ValueError(f"side must be a whole number of cells in 2..2048, got {self.side}")


@dataclass
class Flock:
    """Animals and grass of ``n`` rows, sheep first; within a row and species the order is kept.

    Attributes:
        ints: Group (row, plus n for wolves), heading and identity, int64 ``[3, N]``.
        reals: x, y and energy, float32 ``[3, N]``.
        sheep: How many of the N animals are sheep.
        grown: Local tick from which each cell is green, int32 ``[n * side * side]``.
        n: Rows.
        side: Cells along each side of the torus.
    """

    ints: Tensor
    reals: Tensor
    sheep: int
    grown: Tensor
    n: int
    side: int = SIDE

    @property
    def cells(self) -> int:
        """Cells of a row."""
        return self.side * self.side

    def counts(self) -> Tensor:
        """Animals per group, sheep of each row, then wolves of each row: int64 ``[2 n]``."""
        return torch.bincount(self.ints[0], minlength=2 * self.n)

    def select(self, keep: Tensor, sheep: int) -> None:
        """Keep the animals with these indices, the first ``sheep`` of which are sheep."""
        self.ints, self.reals, self.sheep = self.ints[:, keep], self.reals[:, keep], sheep


@cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Unit vectors of all headings, sums of a right and a left turn, and an empty index."""
    angle = torch.arange(CIRCLE, dtype=torch.float64) * (2 * math.pi / CIRCLE)
    directions = torch.stack([angle.sin(), angle.cos()]).to(torch.float32)
    right_minus_left = torch.arange(50)[:, None] - torch.arange(50)[None, :]
    turns = right_minus_left.reshape(-1) * UNITS_PER_DEGREE
    return directions.to(device), turns.to(device), torch.zeros(0, dtype=torch.int64, device=device)


def _field(word: Tensor, offset: int, width: int) -> Tensor:
    return (word >> offset) & ((1 << width) - 1)


def forward(position: Tensor, heading: Tensor, side: int) -> Tensor:
    """Positions ``[2, N]`` one unit ahead on the torus."""
    position = position + _tables(position.device)[0].index_select(1, heading)
    position += (position < 0) * float(side)
    # The second step also catches a tiny negative number that the first one rounded up to the side itself.
    position -= (position >= side) * float(side)
    return position


def cell_of(group: Tensor, position: Tensor, side: int) -> Tensor:
    """Cell index of positions, counted over all groups."""
    whole = position.to(torch.int64)
    return group * (side * side) + (whole[1] * side + whole[0])


def tick(flock: Flock, key: Tensor, now: int, rules: Rules, theta: Tensor | None, binomial: bool) -> None:
    """One tick of all rows, in place.

    Args:
        flock: The animals and the grass.
        key: Noise key of the tick, int64 ``[n]``.
        now: Local number of the tick, the clock of ``flock.grown``.
        rules: Rates.
        theta: Fraction to remove from each group first, float64 ``[2 n]``; None removes nothing.
        binomial: Whether each animal is removed independently, instead of ``floor(theta count + 1/2)`` of them.
    """
    word = mix(torch.cat([key, key]).index_select(0, flock.ints[0]) + flock.ints[2])
    if theta is not None:
        word = _remove(flock, word, theta, binomial)
    sheep, wolves = slice(0, flock.sheep), slice(flock.sheep, None)
    position, cell = _move(flock, word)
    energy = flock.reals[2] - 1.0
    _graze(flock, cell[sheep], energy[sheep], word[sheep], now, rules)
    lambs = _births(flock, sheep, position, energy, word, rules.reproduction[0])
    grown_up = energy[sheep] >= 0
    herd = torch.cat([cell[sheep], lambs.cell])
    living = torch.cat([grown_up, torch.ones_like(lambs.cell, dtype=torch.bool)])
    herd_word = torch.cat([word[sheep], lambs.ints[2]])
    killed, fed = _hunt(
        herd, living, herd_word, cell[wolves] - flock.n * flock.cells, word[wolves], flock.n * flock.cells
    )
    living[killed] = False
    energy[wolves][fed] += rules.gain[1]
    cubs = _births(flock, wolves, position, energy, word, rules.reproduction[1])
    _renew(flock, position, energy, living, lambs, cubs)


@dataclass
class _Newborn:
    ints: Tensor
    reals: Tensor
    cell: Tensor


def _move(flock: Flock, word: Tensor) -> tuple[Tensor, Tensor]:
    """Turn, go forward; the new headings are stored, positions and cells returned."""
    turns = _tables(word.device)[1]
    draw = (_field(word, 0, _TURN_BITS) * len(turns)) >> _TURN_BITS
    heading = flock.ints[1] + turns.index_select(0, draw)
    heading += (heading < 0) * CIRCLE
    heading -= (heading >= CIRCLE) * CIRCLE
    flock.ints = torch.stack([flock.ints[0], heading, flock.ints[2]])
    position = forward(flock.reals[:2], heading, flock.side)
    return position, cell_of(flock.ints[0], position, flock.side)


def _graze(flock: Flock, cell: Tensor, energy: Tensor, word: Tensor, now: int, rules: Rules) -> None:
    """One uniformly chosen sheep of each green cell eats; ``energy`` is a view and written to."""
    index = (flock.grown.index_select(0, cell) <= now).nonzero()[:, 0]
    at = cell.index_select(0, index)
    # The index breaks ties of the random rank, so that exactly one sheep wins.
    rank = (_field(word.index_select(0, index), _TURN_BITS + _BIRTH_BITS, _RANK_BITS) << 40) | (index + 1)
    best = torch.zeros_like(flock.grown, dtype=torch.int64).scatter_reduce_(0, at, rank, "amax")
    wins = best.index_select(0, at) == rank
    energy[index[wins]] += rules.gain[0]
    flock.grown[at[wins]] = now + 1 + rules.regrowth


def _births(flock: Flock, species: slice, position: Tensor, energy: Tensor, word: Tensor, p: float) -> _Newborn:
    """Halve the energy of those who give birth and return the newborn; ``energy`` is written to."""
    mine = energy[species]
    draw = _field(word[species], _TURN_BITS, _BIRTH_BITS)
    parent = ((draw < round(p * (1 << _BIRTH_BITS))) & (mine >= 0)).nonzero()[:, 0]
    mine[parent] *= 0.5
    identity = mix(word[species][parent] + _CHILD)
    heading = (_field(identity, 0, 32) * CIRCLE) >> 32
    group = flock.ints[0, species][parent]
    at = forward(position[:, species][:, parent], heading, flock.side)
    return _Newborn(
        torch.stack([group, heading, identity]), torch.cat([at, mine[parent][None]]), cell_of(group, at, flock.side)
    )


def _hunt(
    herd: Tensor, living: Tensor, herd_word: Tensor, pack: Tensor, pack_word: Tensor, cells: int
) -> tuple[Tensor, Tensor]:
    """Indices of killed sheep and of fed wolves: ``min(wolves, sheep)`` of each, chosen uniformly, per cell.

    ``cells`` counts those of all rows.
    """
    visited = torch.zeros(cells, dtype=torch.bool, device=herd.device)
    visited[pack] = True
    prey = (visited.index_select(0, herd) & living).nonzero()[:, 0]
    visited.zero_()
    visited[herd[prey]] = True
    hunter = visited.index_select(0, pack).nonzero()[:, 0]
    # A fresh hash, because winning the grass above must not tell who is caught here.
    prey, prey_cell = _shuffle(prey, herd[prey], herd_word[prey])
    hunter, hunter_cell = _shuffle(hunter, pack[hunter], pack_word[hunter])
    return prey[_served(prey_cell, hunter_cell)], hunter[_served(hunter_cell, prey_cell)]


def _shuffle(index: Tensor, cell: Tensor, word: Tensor) -> tuple[Tensor, Tensor]:
    """Sort by cell, at random within a cell."""
    order = ((cell << 32) | _field(mix(word + _MATCH), 32, 31)).sort(stable=True).indices
    return index[order], cell[order]


def _served(own: Tensor, other: Tensor) -> Tensor:
    """Which entries of the sorted cells ``own`` find a partner among the sorted cells ``other``."""
    place = torch.arange(len(own), device=own.device) - torch.searchsorted(own, own)
    partners = torch.searchsorted(other, own, right=True) - torch.searchsorted(other, own)
    return place < partners


def _remove(flock: Flock, word: Tensor, theta: Tensor, binomial: bool) -> Tensor:
    """Remove animals of the lowest ranks; returns the words of those who stay.

    The ranks are used again for grazing: those who stay are still in uniformly random order.
    """
    group = flock.ints[0]
    rank = _field(word, _TURN_BITS + _BIRTH_BITS, _RANK_BITS)
    if binomial:
        stay = rank >= (theta * (1 << _RANK_BITS)).round().to(torch.int64).index_select(0, group)
    else:
        count = flock.counts()
        quota = (theta * count + 0.5).floor().to(torch.int64)
        # Only low ranks can be among the lowest: sorting these few gives the same as sorting all.
        cut = ((2 * quota + 6) << _RANK_BITS) // count.clamp(min=1)
        low = ((rank < cut.index_select(0, group)) & (quota > 0).index_select(0, group)).nonzero()[:, 0]
        if bool((torch.bincount(group[low], minlength=len(count)) < quota).any()):
            low = torch.arange(len(group), device=group.device)
        order = ((group[low] << _RANK_BITS) | rank[low]).sort(stable=True).indices
        low = low[order]
        member = group[low]
        place = torch.arange(len(low), device=low.device) - torch.searchsorted(member, member)
        stay = torch.ones_like(group, dtype=torch.bool)
        stay[low[place < quota[member]]] = False
    keep = stay.nonzero()[:, 0]
    flock.select(keep, int(stay[: flock.sheep].sum()))
    return word[keep]


def _renew(flock: Flock, position: Tensor, energy: Tensor, living: Tensor, lambs: _Newborn, cubs: _Newborn) -> None:
    """Drop the dead and append the newborn behind their species."""
    s = flock.sheep
    reals = torch.cat([position, energy[None]])
    keep = torch.cat([living, energy[s:] >= 0, torch.ones_like(cubs.cell, dtype=torch.bool)]).nonzero()[:, 0]
    flock.ints = torch.cat([flock.ints[:, :s], lambs.ints, flock.ints[:, s:], cubs.ints], dim=1)
    flock.reals = torch.cat([reals[:, :s], lambs.reals, reals[:, s:], cubs.reals], dim=1)
    flock.select(keep, int(living.sum()))


def run(flock: Flock, key: Tensor, ticks: int, rules: Rules, theta: Tensor | None, binomial: bool = False) -> None:
    """Run ``ticks`` ticks in place with keys folded from ``key`` ``[n]``; ``theta`` as in :func:`tick`."""
    for now in range(ticks):
        tick(flock, fold(key, now), now, rules, theta, binomial)
