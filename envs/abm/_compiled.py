"""The rules of ``_flock`` as a compiled kernel for the CPU: the same random words, the same bits, row by row.

Rows are independent, so they are shared by as many threads as torch may use. Within a row animals are visited one
by one; who eats, who meets whom and who is removed follows from the hashes of ``_flock``, so both give equal states.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numba import int64, njit
from torch import Tensor

from steersman.envs.abm._flock import _BIRTH_BITS, _CHILD, _MATCH, _RANK_BITS, _TURN_BITS, CIRCLE, Rules
from steersman.envs.abm._flock import _tables as tables
from steersman.envs.abm._slots import SPECIES
from steersman.envs.noise import _MUL1, _MUL2, GOLDEN

_G, _M1, _M2 = np.int64(GOLDEN), np.int64(_MUL1), np.int64(_MUL2)
_M30, _M27, _M31 = np.int64((1 << 34) - 1), np.int64((1 << 37) - 1), np.int64((1 << 33) - 1)
_TURN, _BIRTH, _RANK = (
    np.int64((1 << _TURN_BITS) - 1),
    np.int64((1 << _BIRTH_BITS) - 1),
    np.int64((1 << _RANK_BITS) - 1),
)
_WORD, _HALF = np.int64((1 << 32) - 1), np.int64((1 << 31) - 1)
_AT_BIRTH, _AT_RANK = np.int64(_TURN_BITS), np.int64(_TURN_BITS + _BIRTH_BITS)
_KID, _MEET = np.int64(_CHILD), np.int64(_MATCH)
_ROOM = 2
"""Slots for animals within a control step, in capacities; a row that outgrows them stops and is flagged."""


def _jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``njit`` of the bare function: what an import hook has wrapped around it cannot be compiled."""
    return lambda function: njit(**options)(inspect.unwrap(function))


@_jit(inline="always")
def _mix(x):  # type: ignore[no-untyped-def]
    x = (x ^ ((x >> 30) & _M30)) * _M1
    x = (x ^ ((x >> 27) & _M27)) * _M2
    return x ^ ((x >> 31) & _M31)


@_jit(inline="always")
def _ahead(x, y, heading, air):  # type: ignore[no-untyped-def]
    east, north, _, side = air
    span = np.float32(side)
    x, y = x + east[heading], y + north[heading]
    if x < 0:
        x += span
    if x >= span:
        x -= span
    if y < 0:
        y += span
    if y >= span:
        y -= span
    return x, y


@_jit(inline="always")
def _gather(values, index, first, count):  # type: ignore[no-untyped-def]
    # One array at a time: interleaved, the stores of one animal delay the loads of the next, at ten times the cost.
    for k in range(first, count):
        values[k] = values[index[k]]


@_jit(cache=True)
def _keep(real, whole, stay, count, index):  # type: ignore[no-untyped-def]
    """Move those who stay to the front, in order; their number. ``index`` is left as where each one was."""
    kept, first = 0, count
    for i in range(count):
        index[kept] = i
        kept += stay[i]
        first = min(first, i + count * stay[i])
    for j in range(3):
        _gather(real[j], index, first, kept)
    for j in range(2):
        _gather(whole[j], index, first, kept)
    return kept


@_jit(cache=True)
def _cull(real, whole, word, count, share, binomial, index):  # type: ignore[no-untyped-def]
    """Remove animals of the lowest ranks; the number of those who stay."""
    rank = (word[:count] >> _AT_RANK) & _RANK
    if binomial:
        stay = rank >= int64(np.rint(share * (_RANK + 1)))
    else:
        quota = int64(np.floor(share * count + 0.5))
        stay = np.ones(count, dtype=np.bool_)
        if quota > 0:
            # The index in the low bits keeps animals of equal rank in order.
            stay[np.argsort((rank << 32) | np.arange(count))[:quota]] = False
    kept = _keep(real, whole, stay, count, index)
    _gather(word, index, 0, kept)
    return kept


@_jit(cache=True)
def _walk(real, whole, word, cell, count, air):  # type: ignore[no-untyped-def]
    """Turn, go forward, lose energy."""
    _, _, turns, side = air
    for i in range(count):
        heading = whole[0, i] + turns[((word[i] & _TURN) * len(turns)) >> _TURN_BITS]
        if heading < 0:
            heading += CIRCLE
        if heading >= CIRCLE:
            heading -= CIRCLE
        whole[0, i] = heading
        real[0, i], real[1, i] = _ahead(real[0, i], real[1, i], heading, air)
        cell[i] = int64(real[1, i]) * side + int64(real[0, i])
        real[2, i] -= np.float32(1)


@_jit(cache=True)
def _graze(real, word, cell, count, grown, best, now, gain, regrowth):  # type: ignore[no-untyped-def]
    """The sheep of the highest rank eats on each green cell, the later one of equals."""
    for i in range(count):
        c = cell[i]
        if grown[c] <= now:
            b = best[c]
            if b < 0 or ((word[i] >> _AT_RANK) & _RANK) >= ((word[b] >> _AT_RANK) & _RANK):
                best[c] = i
    for i in range(count):
        c = cell[i]
        if best[c] == i:
            real[2, i] += gain
            grown[c] = now + 1 + regrowth
    for i in range(count):
        best[cell[i]] = -1


@_jit(cache=True)
def _breed(real, whole, word, cell, count, chance, air):  # type: ignore[no-untyped-def]
    """Parents halve their energy; the newborn stand behind the others. The new number, or -1 without room."""
    total = count
    for i in range(count):
        if ((word[i] >> _AT_BIRTH) & _BIRTH) < chance and real[2, i] >= 0:
            if total == len(word):
                return -1
            real[2, i] *= np.float32(0.5)
            identity = _mix(word[i] + _KID)
            heading = ((identity & _WORD) * CIRCLE) >> 32
            x, y = _ahead(real[0, i], real[1, i], heading, air)
            real[0, total], real[1, total], real[2, total] = x, y, real[2, i]
            whole[0, total], whole[1, total], word[total] = heading, identity, identity
            cell[total] = int64(y) * air[3] + int64(x)
            total += 1
    return total


@_jit(cache=True)
def _serve(word, cell, usable, count, head, link, rivals, served):  # type: ignore[no-untyped-def]
    """Which of the usable are among the first ``rivals[cell]`` of their cell, in the order of a fresh hash."""
    for i in range(count):
        if usable[i] and rivals[cell[i]] > 0:
            link[i], head[cell[i]] = head[cell[i]], i
    for i in range(count):
        served[i] = False
        c = cell[i]
        if not (usable[i] and rivals[c] > 0):
            continue
        mine = (_mix(word[i] + _MEET) >> 32) & _HALF
        place, j = 0, head[c]
        while j >= 0:
            other = (_mix(word[j] + _MEET) >> 32) & _HALF
            if other < mine or (other == mine and j < i):
                place += 1
            j = link[j]
        served[i] = place < rivals[c]
    for i in range(count):
        head[cell[i]] = -1


@_jit(cache=True)
def _row(reals, wholes, counts, grown, key, ticks, share, removing, binomial, gain, chance, regrowth, air):  # type: ignore[no-untyped-def]
    """All ticks of one row; False if it has no room."""
    words = (np.empty(reals[0].shape[1], np.int64), np.empty(reals[1].shape[1], np.int64))
    cells = (np.empty(reals[0].shape[1], np.int32), np.empty(reals[1].shape[1], np.int32))
    flags = (np.empty(reals[0].shape[1], np.bool_), np.empty(reals[1].shape[1], np.bool_))
    served = (np.empty(reals[0].shape[1], np.bool_), np.empty(reals[1].shape[1], np.bool_))
    link = np.empty(max(reals[0].shape[1], reals[1].shape[1]), np.int32)
    head = np.full(len(grown), -1, np.int32)
    prey, packs = np.zeros(len(grown), np.int16), np.zeros(len(grown), np.int16)
    for now in range(ticks):
        own = _mix(_mix(key) + (now + 1) * _G)
        for s in range(2):
            real, whole, word = reals[s], wholes[s], words[s]
            for i in range(counts[s]):
                word[i] = _mix(own + whole[1, i])
            if removing:
                counts[s] = _cull(real, whole, word, counts[s], share[s], binomial, link)
            _walk(real, whole, word, cells[s], counts[s], air)
        sheep, wolves = counts[0], counts[1]
        _graze(reals[0], words[0], cells[0], sheep, grown, head, now, gain[0], regrowth)
        herd = _breed(reals[0], wholes[0], words[0], cells[0], sheep, chance[0], air)
        if herd < 0:
            return False
        for i in range(herd):
            flags[0][i] = reals[0][2, i] >= 0
            prey[cells[0][i]] += flags[0][i]
        for i in range(wolves):
            flags[1][i] = True
            packs[cells[1][i]] += 1
        _serve(words[0], cells[0], flags[0], herd, head, link, packs, served[0])
        _serve(words[1], cells[1], flags[1], wolves, head, link, prey, served[1])
        for i in range(herd):
            prey[cells[0][i]] = 0
            flags[0][i] = flags[0][i] and not served[0][i]
        for i in range(wolves):
            packs[cells[1][i]] = 0
            if served[1][i]:
                reals[1][2, i] += gain[1]
        pack = _breed(reals[1], wholes[1], words[1], cells[1], wolves, chance[1], air)
        if pack < 0:
            return False
        for i in range(pack):
            flags[1][i] = reals[1][2, i] >= 0
        counts[0] = _keep(reals[0], wholes[0], flags[0], herd, link)
        counts[1] = _keep(reals[1], wholes[1], flags[1], pack, link)
    return True


@_jit(cache=True)
def _load(alive, real_in, whole_in, r, real, whole, side):  # type: ignore[no-untyped-def]
    """The living of a row, in order, at the front of its buffers; their number. Who is off the torus is lost."""
    count = 0
    for i in range(alive.shape[1]):
        x, y = real_in[0][r, i], real_in[1][r, i]
        if alive[r, i] and 0 <= x < side and 0 <= y < side:
            for j in range(3):
                real[j, count] = real_in[j][r, i]
            for j in range(2):
                whole[j, count] = whole_in[j][r, i]
            count += 1
    return count


@_jit(cache=True)
def _store(alive, real_out, whole_out, r, real, whole, count):  # type: ignore[no-untyped-def]
    """The first animals of the buffers into the slots; whether all fit."""
    fit = min(count, alive.shape[1])
    for i in range(fit):
        alive[r, i] = True
        for j in range(3):
            real_out[j][r, i] = real[j, i]
        for j in range(2):
            whole_out[j][r, i] = whole[j, i]
    return fit == count


@_jit(cache=True, nogil=True)
def _rows(first, last, before, after, tick, keys, ticks, share, removing, binomial, gain, chance, regrowth, air):  # type: ignore[no-untyped-def]
    alive, real, whole, grown = before
    alive_out, real_out, whole_out, grown_out, overflow = after
    sheep, wolves = _ROOM * alive[0].shape[1], _ROOM * alive[1].shape[1]
    reals = (np.empty((3, sheep), np.float32), np.empty((3, wolves), np.float32))
    wholes = (np.empty((2, sheep), np.int64), np.empty((2, wolves), np.int64))
    counts = np.zeros(2, np.int64)
    for r in range(first, last):
        for s in range(2):
            counts[s] = _load(alive[s], real[s], whole[s], r, reals[s], wholes[s], air[3])
        green = np.maximum(grown[r] - tick[r], 0).astype(np.int32)
        fits = _row(
            reals, wholes, counts, green, keys[r], ticks, share[r], removing, binomial, gain, chance, regrowth, air
        )
        for s in range(2):
            fits &= _store(alive_out[s], real_out[s], whole_out[s], r, reals[s], wholes[s], counts[s])
        grown_out[r] = green + tick[r]
        overflow[r] = overflow[r] or not fits


def advance(
    x: dict[str, Tensor], key: Tensor, ticks: int, rules: Rules, theta: Tensor | None, binomial: bool
) -> dict[str, Tensor]:
    """As :func:`steersman.envs.abm._slots.advance`, on a CPU.

    A row that outgrows twice its capacity within the call stops there and is flagged as overflown.
    """
    n = len(key)
    after = {name: torch.zeros_like(value) for name, value in x.items() if name not in ("tick", "overflow")}
    after |= {"tick": x["tick"] + ticks, "overflow": x["overflow"].clone()}
    share = np.zeros((n, 2)) if theta is None else np.ascontiguousarray(theta.reshape(2, n).t().numpy())
    directions, turns, _ = tables(torch.device("cpu"))
    air = (directions[0].contiguous().numpy(), directions[1].contiguous().numpy(), turns.numpy(), rules.side)
    chance = np.array([round(p * (1 << _BIRTH_BITS)) for p in rules.reproduction])
    given = (
        _arrays(x), (*_arrays(after), after["overflow"].numpy()), x["tick"].contiguous().numpy(),
        key.contiguous().numpy(), ticks, share, theta is not None, binomial, np.array(rules.gain, np.float32), chance,
        rules.regrowth, air,
    )  # fmt: skip
    threads = min(torch.get_num_threads(), n)
    if threads == 1:
        _rows(0, n, *given)
    else:
        ends = np.linspace(0, n, threads + 1).astype(np.int64)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda a, b: _rows(a, b, *given), ends[:-1].tolist(), ends[1:].tolist()))
    return after


def _arrays(x: dict[str, Tensor]) -> Any:
    """Of both species: living, (x, y, energy) and (heading, identity); and the grass."""

    def both(*parts: str) -> Any:
        return tuple(tuple(x[f"{name}_{part}"].contiguous().numpy() for part in parts) for name in SPECIES)

    alive = tuple(found[0] for found in both("alive"))
    return alive, both("x", "y", "energy"), both("heading", "identity"), x["grown"].contiguous().numpy()
