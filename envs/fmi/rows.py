"""Episodes of an FMU, one instance each, and the states that lead back to where they were."""

from __future__ import annotations

import copy
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from steersman.envs.fmi.description import fmpy
from steersman.envs.fmi.instance import EXTRACTED, FmuError, Instance, leave
from steersman.envs.fmi.task import FmuTask
from steersman.envs.plant import Status
from steersman.envs.rows.base import Episode, History, Report, Rows, Source, Vector
from steersman.envs.rows.isolation import Globals, lent


class Instances(Source):
    """Instances of one process; the FMU is extracted when the first one begins."""

    def __init__(self, task: FmuTask) -> None:
        """Store the task."""
        self.task = task
        self.shape = len(task.measured), len(task.performed)
        self._place: tempfile.TemporaryDirectory[str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_place": None}

    def start(self, seed: int, row: int) -> FmuEpisode:
        """See :class:`~steersman.envs.rows.base.Source`."""
        if self._place is None:
            self._place = tempfile.TemporaryDirectory(prefix=EXTRACTED)
            fmpy().extract(self.task.description.path, self._place.name)
        name = f"{self.task.description.identifier} {row}"
        return FmuEpisode(self.task, Instance(self.task.description, self._place.name, name), seed)

    def free(self, episodes: list[Episode]) -> None:
        """Free the instances."""
        for episode in episodes:
            if isinstance(episode, FmuEpisode):
                episode.instance.close()

    def close(self) -> None:
        """Remove what was extracted."""
        if self._place is not None:
            leave(self._place.name)
            self._place.cleanup()
            self._place = None


class FmuEpisode(Episode):
    """One episode. A call that fails, or an output that is no number, ends it as diverged."""

    def __init__(self, task: FmuTask, instance: Instance, seed: int) -> None:
        """Initialize the instance with the start values of the scenario."""
        super().__init__(seed)
        self.task, self.instance = task, instance
        ny, nz = len(task.measured), len(task.performed)
        # What cannot begin ends with its first step, which can be charged.
        self._lost = ""
        self.y, self.z = np.zeros(ny), np.zeros(nz)
        try:
            instance.begin({given.variable: given.drawn(seed) for given in task.start})
            self._lost = self._read()
        except FmuError as error:
            self._lost = f"its start was refused ({error})"
        self.r = self._references()

    def step(self, u: Vector) -> None:
        """See :class:`~steersman.envs.rows.base.Episode`."""
        over, fault = False, self._lost
        if not fault:
            try:
                over = self._advanced(u)
                fault = self._read()
            except FmuError as error:
                fault = str(error)
        if fault:
            self.status, self.note = Status.DIVERGED, fault
            return
        self.r = self._references()
        if any(not low <= self.z[i] <= high for i, low, high in self.task.limits):
            self.status = Status.TERMINATED
        elif over:
            self.status = self.task.end

    def _advanced(self, u: Vector) -> bool:
        """Hold the action for a control step; whether the FMU ended the simulation."""
        task = self.task
        self.instance.set({a.variable: a.neutral + float(v) for a, v in zip(task.actions, u, strict=True)})
        first = (self.k - 1) * task.count
        for i in range(first, first + task.count):
            if self.instance.step(task.description.start + i * task.step, task.step):
                return True
        return False

    def _read(self) -> str:
        """Take the outputs over if all are finite; else what is wrong with them."""
        values = self.instance.get((*self.task.measured, *self.task.performed))
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            return f"{(*self.task.measured, *self.task.performed)[wrong[0]].name!r} was {values[wrong[0]]}"
        self.y, self.z = values[: len(self.y)], values[len(self.y) :]
        return ""

    def _references(self) -> Vector:
        ahead = max((len(places) for _, places in self.task.led), default=1)
        r = np.tile(np.asarray(self.task.references), (ahead, 1))
        for at, places in self.task.led:
            r[: len(places), at] = self.y[list(places)]
            r[len(places) :, at] = self.y[places[-1]]
        return r


@dataclass(frozen=True)
class _Kept:
    """A state of an episode: that of its FMU, all else about it, and its random generators."""

    episode: FmuEpisode
    state: Any
    rest: dict[str, Any]
    generators: Globals


class FmuRows(Rows):
    """Rows that go back to a state which their FMU has kept, or else repeat their actions."""

    def __init__(self, source: Source, n: int) -> None:
        """Reserve ``n`` rows."""
        super().__init__(source, n)
        self._kept: dict[str, _Kept] = {}

    def keep(self, dropped: Sequence[str]) -> list[str | None]:
        """Keep the present states; names of them, None where there is none to be had.

        Args:
            dropped: Names of states that are needed no longer.
        """
        for name in dropped:
            self._forget(name)
        return [self._keep(row) for row in range(len(self._rows))]

    def resume(self, histories: Sequence[History | None], names: Sequence[str | None]) -> Report:
        """Go back: to the named states where this process has them, by repeating the actions elsewhere."""
        with lent():
            for row, (history, name) in enumerate(zip(histories, names, strict=True)):
                if history is None:
                    self._drop([row])
                elif not self._returned(row, name):
                    self._drop([row])
                    self._start(row, history[0])
                    for u in history[1]:
                        self._advance(row, u)
        return self._report()

    def _keep(self, row: int) -> str | None:
        now = self._rows[row]
        if now is None or not isinstance(now[0], FmuEpisode) or (state := now[0].instance.keep()) is None:
            return None
        name = secrets.token_hex(8)
        self._kept[name] = _Kept(now[0], state, _copied(vars(now[0])), _apart(now[1]))
        return name

    def _returned(self, row: int, name: str | None) -> bool:
        now, kept = self._rows[row], self._kept.get(name or "")
        if now is None or kept is None or kept.episode is not now[0]:
            return False
        try:
            kept.episode.instance.go_back(kept.state)
        except FmuError:
            return False
        vars(kept.episode).update(_copied(kept.rest))
        self._rows[row] = kept.episode, _apart(kept.generators)
        return True

    def _forget(self, name: str) -> None:
        if (kept := self._kept.pop(name, None)) is not None:
            kept.episode.instance.forget(kept.state)

    def _drop(self, chosen: Sequence[int]) -> None:
        gone = [now[0] for row in chosen if (now := self._rows[row]) is not None]
        for name in [name for name, kept in self._kept.items() if kept.episode in gone]:
            self._forget(name)
        super()._drop(chosen)


def _copied(rest: dict[str, Any]) -> dict[str, Any]:
    # Outputs are replaced by every step, the list of actions grows.
    return {**rest, "actions": list(rest["actions"])}


def _apart(generators: Globals) -> Globals:
    return replace(generators, numpy=copy.deepcopy(generators.numpy))
