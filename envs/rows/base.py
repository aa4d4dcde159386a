"""Rows of one process: episodes of something that cannot be batched, side by side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steersman.envs.plant import Status
from steersman.envs.rows.isolation import Globals, lent

Array = NDArray[Any]
Vector = NDArray[np.float64]
History = tuple[int, tuple[Vector, ...]]
"""Seed and actions: all that is needed to get to a state again."""


class Episode(ABC):
    """One row under way.

    Attributes:
        seed: What it began from.
        k: Control steps so far.
        status: How it stands.
        y: Measured outputs, finite.
        z: Performance outputs, finite.
        r: References ``[h + 1, nz]`` of this step and, where they are known, of those ahead; None where they are zero.
        cost: What the last step cost, where the cost comes from the model itself.
        note: Why it diverged, where that needs saying.
    """

    y: Vector
    z: Vector
    r: Vector | None = None
    cost: float = 0.0
    note: str = ""

    def __init__(self, seed: int) -> None:
        """Begin; subclasses set y and z."""
        self.seed, self.k, self.status = seed, 0, Status.OK
        self.actions: list[Vector] = []

    def advance(self, u: Vector) -> None:
        """One control step; an action that is not finite ends the row as diverged."""
        self.actions.append(u.copy())
        self.k += 1
        self.cost = 0.0
        if np.isfinite(u).all():
            self.step(u)
        else:
            self.status = Status.DIVERGED

    @abstractmethod
    def step(self, u: Vector) -> None:
        """Apply a finite action: set outputs, status and cost, or leave the outputs and set DIVERGED."""

    @property
    def history(self) -> History:
        """Seed and actions so far."""
        return self.seed, tuple(self.actions)


class Source(ABC):
    """What rows are made of. Picklable before its first episode, for worker processes.

    Attributes:
        shape: Numbers of measured and of performance outputs.
    """

    shape: tuple[int, int]

    @abstractmethod
    def start(self, seed: int, row: int) -> Episode:
        """A new episode in a row of this process."""

    def free(self, episodes: list[Episode]) -> None:  # noqa: B027 - optional hook
        """Forget episodes before their last reference is dropped."""

    def close(self) -> None:  # noqa: B027 - optional hook
        """Release what it holds beside episodes."""


@dataclass(frozen=True)
class Report:
    """How some rows stand; the fields are those of :class:`Episode`, with a leading axis of rows."""

    y: Array
    z: Array
    r: Array | None
    k: Array
    status: Array
    cost: Array
    notes: tuple[tuple[int, str], ...]

    @classmethod
    def joined(cls, parts: Sequence[Report]) -> Report:
        """Several reports in one; rows of the notes count on."""
        if len(parts) == 1:
            return parts[0]
        whole = {name: np.concatenate([getattr(p, name) for p in parts]) for name in ("y", "z", "k", "status", "cost")}
        longest = max(0 if p.r is None else p.r.shape[1] for p in parts)
        r = None
        if longest:
            given = [np.zeros_like(p.z)[:, None] if p.r is None else p.r for p in parts]
            r = np.concatenate([lengthened(part, longest) for part in given])
        first = np.cumsum([0] + [len(p.k) for p in parts])
        notes = tuple((int(at) + row, note) for at, p in zip(first, parts, strict=False) for row, note in p.notes)
        return cls(r=r, notes=notes, **whole)


def lengthened(r: Array, length: int) -> Array:
    """References ``[..., h, nz]`` with the last ones repeated up to ``length``, or cut there."""
    if r.shape[-2] >= length:
        return r[..., :length, :]
    last = np.repeat(r[..., -1:, :], length - r.shape[-2], axis=-2)
    return np.concatenate([r, last], axis=-2)


class Rows:
    """Some rows of one process; each has global random generators of its own."""

    def __init__(self, source: Source, n: int) -> None:
        """Reserve ``n`` rows; their episodes are begun by :meth:`reset`."""
        self._source = source
        self._rows: list[tuple[Episode, Globals] | None] = [None] * n

    @property
    def episodes(self) -> list[Episode | None]:
        """The episodes under way."""
        return [None if row is None else row[0] for row in self._rows]

    def reset(self, seeds: Sequence[int], chosen: Sequence[int]) -> Report:
        """Begin the chosen rows anew."""
        self._drop(chosen)
        with lent():
            for row, seed in zip(chosen, seeds, strict=True):
                self._start(row, seed)
        return self._report()

    def step(self, u: Array, moving: Array) -> Report:
        """Step the moving rows."""
        with lent():
            for row in np.flatnonzero(moving).tolist():
                self._advance(row, u[row])
        return self._report()

    def histories(self) -> list[History | None]:
        """Seeds and actions of all rows."""
        return [None if episode is None else episode.history for episode in self.episodes]

    def replay(self, histories: Sequence[History | None]) -> Report:
        """Begin all rows anew and repeat their actions."""
        self._drop(range(len(self._rows)))
        with lent():
            for row, history in enumerate(histories):
                if history is not None:
                    self._start(row, history[0])
                    for u in history[1]:
                        self._advance(row, u)
        return self._report()

    def close(self) -> None:
        """Free everything."""
        self._drop(range(len(self._rows)))
        self._source.close()

    def _start(self, row: int, seed: int) -> None:
        own = Globals.seeded(seed)
        with own.inside():
            episode = self._source.start(seed, row)
        self._rows[row] = episode, own

    def _advance(self, row: int, u: Vector) -> None:
        now = self._rows[row]
        assert now is not None  # noqa: S101 - only started rows move
        with now[1].inside():
            now[0].advance(u)

    def _drop(self, chosen: Sequence[int]) -> None:
        gone = [now[0] for row in chosen if (now := self._rows[row]) is not None]
        for row in chosen:
            self._rows[row] = None
        if gone:
            self._source.free(gone)

    def _report(self) -> Report:
        n, (ny, nz) = len(self._rows), self._source.shape
        y, z, cost = np.zeros((n, ny)), np.zeros((n, nz)), np.zeros(n)
        k, status, notes = np.zeros(n, np.int64), np.zeros(n, np.uint8), []
        longest = max((len(e.r) for e in self.episodes if e is not None and e.r is not None), default=0)
        r = np.zeros((n, longest, nz)) if longest else None
        for i, e in enumerate(self.episodes):
            if e is None:
                continue
            y[i], z[i], k[i], status[i], cost[i] = e.y, e.z, e.k, e.status, e.cost
            if r is not None and e.r is not None:
                r[i] = lengthened(e.r, longest)
            if e.note:
                notes.append((i, e.note))
        return Report(y, z, r, k, status, cost, tuple(notes))
