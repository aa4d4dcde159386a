"""Episodes that a training runs for itself: where its rollouts start, what a model can be fitted to, what they cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from steersman.dynamics.base import Hidden, Trajectories, Window
from steersman.dynamics.collect import Exciter, Recording
from steersman.dynamics.estimation.base import Windows
from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.episodes import Act, episodes
from steersman.envs.simulator import Measurement, Simulator

_SWITCH = 0x5317C4
"""Separates the moments at which decisions are excited from the excitation itself."""


@dataclass(frozen=True)
class Experience:
    """What was seen in a few episodes.

    Attributes:
        starts: The windows of all control steps, those of a step next to each other, with references ahead.
        data: The episodes.
        cost: What each of them cost.
        steps: Plant control steps.
    """

    starts: Window
    data: Trajectories
    cost: Float[Tensor, "n"]
    steps: int


def experience(simulator: Simulator, key: Int64[Tensor, "n"], act: Act, *, context: int, ahead: int) -> Experience:
    """Run the scenarios of the keys to their ends.

    Args:
        simulator: With one row per key.
        key: Keys of the scenarios.
        act: Chooses actions.
        context: Measurements of a window.
        ahead: References ahead that ``act`` is shown and windows keep.
    """
    memory, windows, recording = Windows(context), list[Window](), Recording(simulator, act)
    cost, used = torch.zeros(simulator.n, dtype=simulator.dtype, device=simulator.device), 0
    for step in episodes(simulator, simulator.scenarios(key), recording.act, ahead=ahead):
        windows.append(memory.push(step.m).rows(step.running.nonzero().flatten()))
        recording.take(step)
        cost = cost + step.result.cost
        used += int(step.running.sum())
    return Experience(joined(windows), recording.trajectories(), cost, used)


class Excited:
    """A policy with a little excitation on top, in some rows.

    Continuous actions are moved by a share of an exciter's signal, centred on the middle of the range. Integer and
    one-hot actions, which a little does not change, are replaced by the exciter's in that share of the control steps.
    """

    def __init__(
        self, act: Act, exciter: Exciter, actions: ActionSet, rows: Bool[Tensor, "n"], key: Tensor, share: float
    ) -> None:
        """Begin episodes whose excitation follows from the keys, one per row."""
        self.act, self.exciter, self.rows, self.key, self.share = act, exciter, rows, key, share
        exciter.start(actions, key, torch.float64)
        lower, upper = actions.bounds(torch.zeros(1, dtype=torch.float64))
        closed = torch.isfinite(lower) & torch.isfinite(upper)
        self._middle = torch.where(closed, (lower + upper) / 2, 0.0)
        self._discrete = torch.tensor(actions.integer)
        for group in actions.one_hot:
            self._discrete[list(group)] = True

    def __call__(self, m: Measurement) -> Float[Tensor, "n m"]:
        """Actions, to be projected."""
        u = self.act(m)
        signal = self.exciter(m).to(u)
        moved = u + self.share * (signal - self._middle.to(u))
        turned = noise.uniform(noise.fold(noise.fold(self.key, _SWITCH), m.k), dtype=u.dtype) < self.share
        other = torch.where(self._discrete.to(u.device), torch.where(turned[:, None], signal, u), moved)
        return torch.where(self.rows[:, None], other, u)


def joined(windows: list[Window]) -> Window:
    """The rows of all windows, one after the other."""
    cat = torch.cat
    first = windows[0].now
    xs, ps, futures = ([getattr(w.now, name) for w in windows] for name in ("x", "p", "hindsight"))
    x, p, hindsight = (None if trees[0] is None else _join_trees(trees) for trees in (xs, ps, futures))
    now = type(first)(
        cat([w.now.k for w in windows]), cat([w.now.y for w in windows]), cat([w.now.r for w in windows]),
        cat([w.now.u_prev for w in windows]), x, p, hindsight,  # type: ignore[arg-type]
    )  # fmt: skip
    return Window(cat([w.y for w in windows]), cat([w.u for w in windows]), now)


def _join_trees(trees: list[Hidden]) -> Hidden:
    first = trees[0]
    if isinstance(first, Tensor):
        return torch.cat([t for t in trees if isinstance(t, Tensor)])
    return {name: torch.cat([t[name] for t in trees if isinstance(t, dict)]) for name in first}
