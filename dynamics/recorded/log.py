"""A recorded log as trajectories: which columns are outputs and actions, and where episodes and gaps are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from steersman.dynamics.base import Trajectories
from steersman.dynamics.recorded.tables import Column, numbers, read_table, seconds, strange
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import Positive, Settings, missing

EVEN = 0.01
"""Share of the period by which the time between two rows may differ from it."""
_FEWEST = 0.5
"""Share of the steps that must last the period; below it the times are no samples at one period."""
MOST = 1000
"""Periods for each row of an episode, beyond which interpolation is taken for a mistake."""
LONGEST = 100
"""Periods of a gap that rows at their own times may leave within a transition."""
_HORIZON = 200
"""Control steps of an episode, where recorded ones are longer."""

Rows = NDArray[np.int64]
Series = NDArray[np.float64]
Part = tuple[Series, Series, Series, NDArray[np.bool_]]
"""Times from the first row on, outputs, actions and transitions that happened."""


@dataclass(frozen=True)
class Recording:
    """What a log holds.

    Attributes:
        problem: Outputs and actions by name, with the period; the objective has no terms.
        data: Its episodes.
        notes: What a reader of fits to it should know, in whole sentences.
    """

    problem: ControlProblem
    data: Trajectories
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Log(Settings):
    """Rows of a table in the order of time: outputs as they were then, and the action from then on.

    Attributes:
        file: A csv, parquet or npz file, or ``minari:ID`` (:func:`~steersman.dynamics.recorded.tables.read_table`).
        outputs: Columns that were measured.
        actions: Columns that were set, with their lower and upper bounds.
        integer: Those of the actions that take whole numbers only.
        exogenous: Those of the outputs that no action influences.
        time: Column of the times: seconds, or ISO 8601 texts. Without one, rows are one period apart.
        episode: Column that names the episode of each row. Without one, all rows are one episode.
        period: Control period in the unit of the times; by default the median time between rows.
        resample: Whether outputs are interpolated, and actions held, at every period: for times that are irregular.
            Over more than two periods without a row nothing is interpolated.
        irregular: Whether rows stay at their own times, whatever they are, for models in continuous time.
        time_unit: Unit of the period, for tables and pictures.
    """

    file: str
    outputs: tuple[str, ...]
    actions: dict[str, tuple[float, float]]
    integer: tuple[str, ...] = ()
    exogenous: tuple[str, ...] = ()
    time: str = ""
    episode: str = ""
    period: Positive | None = None
    resample: bool = False
    irregular: bool = False
    time_unit: str = "s"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.outputs or not self.actions:
            raise ValueError("a log needs at least one column of outputs and one of actions")
        if twice := [name for name in (*self.outputs, *self.actions) if (*self.outputs, *self.actions).count(name) > 1]:
            raise ValueError(f"column {twice[0]!r} is named twice among outputs and actions")
        for what, names, known in (
            ("integer", self.integer, tuple(self.actions)), ("exogenous", self.exogenous, self.outputs)
        ):  # fmt: skip
            if unknown := [name for name in names if name not in known]:
                raise ValueError(f"{what}: {missing(unknown[0], known)}")
        if not set(self.outputs) - set(self.exogenous):
            raise ValueError("every output is exogenous: there is nothing to predict")
        if (self.resample or self.irregular) and not self.time:
            raise ValueError("resample and irregular need the times of the rows: name their column in time")
        if self.resample and self.irregular:
            raise ValueError("resample makes times regular and irregular keeps them: choose one")

    def read(self) -> Recording:
        """Read the file.

        A time between two rows that is not the period belongs to no transition, unless rows may be irregular, nor does
        an action that is missing. Outputs that are missing were not seen.

        Raises:
            ValueError: If a column is not there or holds texts, an action lies beyond its bounds, times do not grow or
                are irregular, or no two rows follow each other.
            FileNotFoundError: If there is no such file.
        """
        table = read_table(self.file, texts=(self.episode,) if self.episode else ())
        y, u = (self._numbers(table, tuple(names)) for names in (self.outputs, self.actions))
        actions = self._actions(u)
        t = self._times(table)
        episodes = self._episodes(table)
        self._require_growing(t, episodes)
        spacing = self._spacing(t, episodes)
        period = self.period or spacing
        if self.irregular and not 0.1 <= period / spacing <= 10:
            raise ValueError(
                f"{self.file}: the period {period:g} is far from {spacing:g}, the median time between rows; "
                "controllers act once a period: give one between a tenth and ten times the median"
            )
        parts = [self._part(t[rows], y[rows], u[rows], period) for rows in episodes]
        parts = [part for part in parts if len(part[2]) > 0]
        recorded = [_trajectories(*part, period) for part in parts]
        if not any(bool(part.complete.any()) for part in recorded):
            raise ValueError(f"{self.file}: no two rows without gaps are one period of {period:g} apart")
        notes, data = self._notes(recorded, y, u), Trajectories.join(recorded)
        names = self.outputs
        problem = ControlProblem(
            actions, Objective(()), period, min(_HORIZON, data.u.shape[1]), names, names,
            tuple(i for i, name in enumerate(names) if name in self.exogenous), self.time_unit,
        )  # fmt: skip
        return Recording(problem, data, notes)

    def _numbers(self, table: dict[str, Column], names: tuple[str, ...]) -> Series:
        columns = []
        for name in names:
            found = numbers(self._column(table, name))
            if found is None:
                raise ValueError(f"column {name!r} of {self.file} must hold numbers, got {strange(table[name])!r}")
            if not np.isfinite(found).any():
                raise ValueError(f"column {name!r} of {self.file} holds no number")
            columns.append(np.where(np.isfinite(found), found, np.nan))
        return np.stack(columns, axis=1)

    def _column(self, table: dict[str, Column], name: str) -> Column:
        if name not in table:
            raise ValueError(f"{self.file} has no column {missing(name, table)}")
        return table[name]

    def _actions(self, u: Series) -> ActionSet:
        names = tuple(self.actions)
        lower, upper = zip(*self.actions.values(), strict=True)
        found = ActionSet(lower, upper, tuple(name in self.integer for name in names), names=names)
        slack = 1e-9 * (1 + np.maximum(np.abs(lower), np.abs(upper)))
        beyond = (u < np.array(lower) - slack) | (u > np.array(upper) + slack)
        if beyond.any():
            row, column = np.argwhere(beyond)[0]
            raise ValueError(
                f"action {names[column]!r} is {float(u[row, column])!r} in row {row + 1}, beyond its bounds "
                f"{list(self.actions[names[column]])}; widen them, or mend the log"
            )
        return found

    def _times(self, table: dict[str, Column]) -> Series:
        if not self.time:
            return np.arange(len(next(iter(table.values()))), dtype=np.float64) * (self.period or 1.0)
        return seconds(self._column(table, self.time), self.time)

    def _episodes(self, table: dict[str, Column]) -> list[Rows]:
        """Rows of each episode, in the order of their first ones."""
        if not self.episode:
            return [np.arange(len(next(iter(table.values()))))]
        column = self._column(table, self.episode).astype(str)
        if len(nameless := np.flatnonzero(column == "")):
            raise ValueError(f"{self.file}, row {nameless[0] + 1}: column {self.episode!r} names no episode")
        names, first = np.unique(column, return_index=True)
        return [np.flatnonzero(column == name) for name in names[np.argsort(first)]]

    def _spacing(self, t: Series, episodes: list[Rows]) -> float:
        steps = np.concatenate([np.diff(t[rows]) for rows in episodes])
        if not len(steps):
            raise ValueError(f"{self.file}: no episode has two rows, so there is nothing to learn from")
        return float(np.median(steps))

    def _require_growing(self, t: Series, episodes: list[Rows]) -> None:
        for rows in episodes:
            if len(unknown := rows[~np.isfinite(t[rows])]):
                raise ValueError(f"{self.file}, row {unknown[0] + 1}: column {self.time!r} holds no time")
            if len(back := rows[1:][np.diff(t[rows]) <= 0]):
                raise ValueError(
                    f"{self.file}, row {back[0] + 1}: times must grow within an episode; sort the rows, or name the "
                    "column that tells episodes apart in episode"
                )

    def _part(self, t: Series, y: Series, u: Series, period: float) -> Part:
        """An episode at the period, or at its own times."""
        steps = np.diff(t)
        even = np.abs(steps - period) <= EVEN * period
        if self.resample:
            if len(t) and (t[-1] - t[0]) / period > MOST * len(t):
                raise ValueError(
                    f"{self.file}: {len(t)} rows last {(t[-1] - t[0]) / period:.3g} periods of {period:g}, with a gap "
                    f"of {steps.max():g}; a time is wrong, or the period"
                )
            y, u = _resampled(t, y, u, period)
            even = np.ones(len(y) - 1, dtype=bool)
        elif self.irregular:
            even = steps <= LONGEST * period
        elif len(even) and even.mean() < _FEWEST:
            raise ValueError(
                f"{self.file}: only {even.mean():.0%} of the times between rows are {period:g} {self.time_unit} "
                f"to {EVEN:.0%}; give the period, or resample = true to "
                "interpolate, or irregular = true for models in continuous time"
            )
        times: Series = np.asarray(t - t[0] if self.irregular else period * np.arange(len(y)))
        return times, y, u, even & np.isfinite(u[:-1]).all(axis=1)

    def _notes(self, parts: list[Trajectories], y: Series, u: Series) -> tuple[str, ...]:
        lost = sum(int((~part.complete).sum()) for part in parts)
        whole = sum(part.complete.numel() for part in parts)
        empty = int(np.isnan(y).sum() + np.isnan(u).sum())
        notes = []
        if lost:
            notes.append(f"{lost} of {whole} steps are gaps in time or touch a missing value; nothing is learnt of it")
        if empty:
            notes.append(f"{empty} of {y.size + u.size} recorded values are missing")
        if self.resample:
            notes.append("its rows were interpolated at equal times")
        return tuple(notes)


def _resampled(t: Series, y: Series, u: Series, period: float) -> tuple[Series, Series]:
    """Outputs, interpolated, and actions, held, at equal times; NaN where no two rows near enough surround a time."""
    grid = t[0] + period * np.arange(int((t[-1] - t[0]) / period + 1e-9) + 1)
    columns = []
    for column in y.T:
        seen = np.flatnonzero(np.isfinite(column))
        if len(seen):
            found = np.interp(grid, t[seen], column[seen])
            before = np.searchsorted(t[seen], grid, side="right") - 1
            after = np.searchsorted(t[seen], grid, side="left")
            inside = (before >= 0) & (after < len(seen))
            gap = t[seen][np.minimum(after, len(seen) - 1)] - t[seen][np.maximum(before, 0)]
            columns.append(np.where(inside & (gap <= (2 + EVEN) * period), found, np.nan))
        else:
            columns.append(np.full(len(grid), np.nan))
    held = np.maximum(np.searchsorted(t, grid + EVEN * period, side="right") - 1, 0)
    return np.stack(columns, axis=1), u[held]


def _trajectories(t: Series, y: Series, u: Series, valid: NDArray[np.bool_], period: float) -> Trajectories:
    """One episode. What is missing repeats the value before, or else the one after, and was not seen."""
    outputs, actions = (torch.from_numpy(np.stack(list(_filled(series)), axis=1))[None] for series in (y, u))
    seen, times = torch.from_numpy(np.isfinite(y))[None], torch.from_numpy(t)[None]
    valid_ = torch.from_numpy(valid)[None]
    return Trajectories(outputs, outputs.clone(), actions[:, :-1], valid_, period, times, seen)


def _filled(series: Series) -> Iterator[Series]:
    for column in series.T:
        seen = np.flatnonzero(np.isfinite(column))
        if not len(seen):
            yield np.zeros(len(column))
            continue
        last = np.searchsorted(seen, np.arange(len(column)), side="right") - 1
        yield column[seen[np.maximum(last, 0)]]
