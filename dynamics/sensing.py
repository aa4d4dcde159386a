"""What sensors and logs do to data: times that are irregular or wrong, outputs that are late or missing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from steersman.dynamics.data import Trajectories
from steersman.envs import noise
from steersman.envs.episodes import Act
from steersman.envs.simulator import Measurement

_GAPS, _MISSED, _CLOCK = 1, 2, 3
_MOST = 0.25
"""Largest error of a clock, in control periods, by which times still grow and steps can still be counted."""


@dataclass(frozen=True, kw_only=True)
class Sensing:
    """How episodes are recorded. Everything is drawn from the keys of the episodes.

    Attributes:
        irregular: Entries are up to so many control periods apart, drawn anew each time; the action is held meanwhile.
            The first and the last one of an episode are recorded in any case.
        delay: Entries that outputs come late by; between the first entry and the first late one nothing is seen.
            Performance outputs are on time.
        missing: Share of the outputs that are not measured, each for itself; of the first entry none is missing.
        jitter: Largest error of the recorded times, as a share of the control period.
    """

    irregular: int = 1
    delay: int = 0
    missing: float = 0.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.irregular < 1 or self.delay < 0:
            raise ValueError(
                f"irregular must be at least 1 control period and delay at least 0 entries, got {self.irregular} and "
                f"{self.delay}"
            )
        if not 0 <= self.missing < 1:
            raise ValueError(f"missing must lie in [0, 1), got {self.missing}")
        if not 0 <= self.jitter <= _MOST:
            raise ValueError(f"jitter must lie in [0, {_MOST}] control periods, got {self.jitter}")

    @property
    def uneven(self) -> bool:
        """Whether entries are at other times than every control period."""
        return self.irregular > 1 or self.jitter > 0

    def recorded(self, key: Int64[Tensor, "n"], steps: int) -> Bool[Tensor, "n T1"]:
        """Control steps, of ``0 .. steps``, at which an entry is recorded."""
        gaps = 1 + (noise.uniform(noise.fold(key, _GAPS), steps) * self.irregular).floor().long()
        at = gaps.cumsum(dim=1)
        found = torch.zeros(len(key), steps + 2, dtype=torch.bool, device=key.device)
        found[:, [0, steps]] = True
        return found.scatter(1, at.clamp(max=steps + 1), True)[:, : steps + 1]

    def __call__(self, data: Trajectories, key: Int64[Tensor, "n"]) -> Trajectories:
        """The data as they are recorded.

        Args:
            data: Everything, each control step; actions must have been held where nothing is recorded.
            key: Keys of the episodes.
        """
        if self.irregular > 1:
            data = _kept(data, self.recorded(key, data.u.shape[1]))
        if self.delay:
            entry = torch.arange(data.y.shape[1], device=data.y.device)
            late = (entry - self.delay).clamp(min=0)
            come = ((entry == 0) | (entry >= self.delay))[:, None]
            data = replace(data, y=data.y[:, late], seen=data.seen[:, late] & come)
        if self.missing:
            chance = noise.uniform(noise.fold(key, _MISSED), *data.y.shape[1:])
            seen = data.seen & (chance >= self.missing)
            seen[:, 0] = data.seen[:, 0]
            data = replace(data, y=_held(data.y, seen), seen=seen)
        if self.jitter:
            error = 2 * noise.uniform(noise.fold(key, _CLOCK), data.t.shape[1]) - 1
            data = replace(data, t=data.t + self.jitter * data.period * error)
        return data


class Holding:
    """A policy whose actions change only at control steps that are recorded."""

    def __init__(self, act: Act, recorded: Bool[Tensor, "n T1"]) -> None:
        """Hold the actions of ``act``."""
        self._act, self._recorded = act, recorded
        self._u: Tensor | None = None

    def __call__(self, m: Measurement) -> Float[Tensor, "n m"]:
        """The action: a new one where an entry is recorded."""
        u = self._act(m)
        if self._u is not None:
            now = self._recorded.gather(1, m.k[:, None].clamp(max=self._recorded.shape[1] - 1))
            u = torch.where(now, u, self._u)
        self._u = u
        return u


def _kept(data: Trajectories, kept: Bool[Tensor, "N T1"]) -> Trajectories:
    """The entries that were kept; a transition happened where all did that it is made of."""
    entry = torch.arange(kept.shape[1], device=kept.device)
    end = data.valid.sum(dim=1, keepdim=True)
    kept = (kept & (entry < end)) | (entry == end)
    count = kept.sum(dim=1)
    at = (~kept).to(torch.uint8).argsort(dim=1, stable=True)[:, : max(2, int(count.max()))]
    passed = torch.cat([torch.zeros_like(at[:, :1]), data.valid.cumsum(dim=1)], dim=1).gather(1, at)
    real = torch.arange(1, at.shape[1], device=at.device) < count[:, None]
    valid = real & (passed[:, 1:] - passed[:, :-1] == at[:, 1:] - at[:, :-1])
    rows = torch.arange(len(at), device=at.device)[:, None]
    before = at[:, :-1].clamp(max=data.u.shape[1] - 1)
    # Times go on after the last entry, as if nothing more were recorded.
    last = count[:, None] - 1
    beyond = (torch.arange(at.shape[1], device=at.device) - last).clamp(min=0)
    at = torch.where(beyond > 0, at.gather(1, last), at)
    return replace(
        data, y=data.y[rows, at], z=data.z[rows, at], u=data.u[rows, before], valid=valid,
        t=data.t[rows, at] + data.period * beyond, seen=data.seen[rows, at],
    )  # fmt: skip


def _held(y: Float[Tensor, "N T1 ny"], seen: Bool[Tensor, "N T1 ny"]) -> Float[Tensor, "N T1 ny"]:
    """The outputs, each as it was last seen."""
    entry = torch.arange(y.shape[1], device=y.device)[:, None]
    last = torch.where(seen, entry, 0).cummax(dim=1).values
    return y.gather(1, last)
