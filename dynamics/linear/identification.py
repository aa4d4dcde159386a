"""Which window and which ridge a linear model takes, found on episodes held out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steersman.dynamics.base import Trajectories
from steersman.dynamics.linear.arx import ARX, Fit
from steersman.dynamics.linear.regression import AffineRidge
from steersman.dynamics.windowed.windows import cut, folds, starts

RIDGES = (1e-14, 1e-10, 1e-8, 1e-6, 1e-4)
"""Weights that are tried. With 1e-2 predictions are nearly as good, but LQR loses: 62 instead of 229 on transport."""
HELD = 0.25
"""Share of the episodes (or, of a single one, of its time) that is held out at a time, until all have been."""
AHEAD, NEAR = 32, 8
"""Control steps that the judged predictions go ahead, where the episode lasts, and those that feedback looks at."""
WINDOWS, NUMBERS = (32, 256), 2**20
"""Least and largest number of predictions that a choice is judged on, and how many numbers they may consist of."""
WORTH = 0.05
"""What a longer window must take off the logarithm of the squared error."""
SMALLER = 0.1
"""Likewise for a smaller ridge: coefficients that are worth so little are mostly noise, which feedback acts on."""
DISAGREE = 0.05
"""Relative difference of spectral radii above 1 that is more than chance."""
BLIND = 1e-6
"""Share of an output's variance that a measurement may leave unexplained and still tell it."""
FLOOR, LOST = 1e-12, 1.0
"""Squared errors relative to persistence that count as none, and as past all hope."""


@dataclass(frozen=True)
class Choice:
    """A context and a ridge, and how a model made with them did on what was held out.

    Attributes:
        context: Measurements in the window.
        ridge: Weight of the squared coefficients.
        radius: Spectral radius.
        far: Mean logarithm of the squared errors :data:`AHEAD` steps ahead, all steps together, relative to
            persistence, of each held-out episode: mostly how fast the fastest mode grows.
        near: Mean over :data:`NEAR` steps ahead of the logarithm of the squared error of each step, likewise: how
            outputs respond to what an action does, before feedback acts again.
    """

    context: int
    ridge: float
    radius: float
    far: Float[Tensor, "e"]
    near: Float[Tensor, "e"]


def contexts(most: int) -> list[int]:
    """The windows that are tried: powers of two, and the longest one."""
    return [*(2**i for i in range(most.bit_length()) if 2**i < most), most]


def identify(
    data: Trajectories,
    kept: Int[Tensor, "nk"],
    neutral: Float[Tensor, "m"],
    lengths: list[int],
    ridges: tuple[float, ...],
) -> tuple[ARX, list[Choice]]:
    """Fit the model that predicts best, several steps ahead, what it was not fitted to, without modes of its own.

    Two errors are judged, since they see different things (Gevers, Identification for Control, 2005). Far ahead, one
    growing mode decides alone: of the choices that predict well there, the one that grows least tells how fast the
    fastest mode must grow, and choices that say more, by :data:`DISAGREE`, are left out, since feedback would fight a
    mode that the plant does not have. Among the others those steps decide that feedback lives on, each with the same
    weight: what a growing mode hides far ahead, such as a delay, is what a closed loop is stable by or not.

    The shortest window is taken whose error is the least one, up to :data:`WORTH` and the standard error of their
    difference over episodes, and with it the largest ridge, up to :data:`SMALLER`. The model is then fitted to all
    data.

    Where nothing can be held out, such as of a single transition, nothing tells what a longer window or a smaller ridge
    is worth: the shortest window and the middle one of the ridges are taken. Models that are not finite are left out.

    Windows at the start of an episode are filled as in use, by repetition. Logarithms of errors are averaged, so that
    no few that miss by far decide.

    Args:
        data: Data, finite.
        kept: Columns of y that are predicted.
        neutral: The action before an episode.
        lengths: Windows to choose from, rising.
        ridges: Weights to choose from, rising.

    Returns:
        The model, and the choice taken, followed by those that predict as well far ahead; none where there was no
        choice, or nothing could be held out.

    Raises:
        ValueError: If no episode holds the longest window, or no model of the data is finite.
    """
    y = data.y[..., kept]
    starts(data.valid, lengths[-1], 1)
    choice = len(lengths) * len(ridges) > 1
    if lengths[0] == 1 < len(lengths) and not _told(y, data):
        lengths = lengths[1:]
    judged = list(_judged(data, y, neutral, lengths, ridges)) if choice else []
    good: list[Choice] = []
    context, ridge = lengths[0], ridges[len(ridges) // 2]
    if judged:
        found = _taken(judged)
        context, ridge, good = found.context, found.ridge, [found, *_as_good(judged, "far")]
    model = Fit(y, data, data.valid, context)(ridge)
    if not model.finite:
        size = float(torch.stack([y[:, :-1][data.valid], y[:, 1:][data.valid]]).abs().max())
        raise ValueError(
            f"no linear model of the data is finite: their outputs reach {size:.3g}, whose squares overflow; mark "
            "where an episode runs away as not valid, or scale the outputs"
        )
    return model, good


def _told(y: Tensor, data: Trajectories) -> bool:
    """Whether one measurement tells the performance outputs; if not, what an action brings may show in them alone.

    A window of one measurement holds no action: a model of it would be blind to rewards, for example.
    """
    rows = starts(data.valid, 1, 1)
    now, z = (cut(part, rows, 1, 1).flatten(1) for part in (y, data.z))
    V, d = AffineRidge(now, z)(RIDGES[0])
    missed = (z - now @ V - d).square().mean(dim=0)
    return bool((missed <= BLIND * z.var(dim=0, correction=0)).all())


def _taken(judged: list[Choice]) -> Choice:
    """The choice that is taken; see :func:`identify`."""
    known = min(choice.radius for choice in _as_good(judged, "far"))
    plain = [choice for choice in judged if choice.radius <= max(1.0, known) * (1 + DISAGREE)]
    good = _as_good(plain, "near")
    shortest = min(choice.context for choice in good)
    same = _as_good([choice for choice in plain if choice.context == shortest], "near", SMALLER)
    return max(same, key=lambda choice: choice.ridge)


def _best(judged: list[Choice], error: Literal["far", "near"]) -> Choice:
    """The choice with the least mean error, the first one of several."""
    return min(judged, key=lambda choice: float(getattr(choice, error).mean()))


def _as_good(judged: list[Choice], error: Literal["far", "near"], worth: float = WORTH) -> list[Choice]:
    """The choices that are not worse than the best one, beyond chance and what is worth it."""
    best = getattr(_best(judged, error), error)
    good = []
    for choice in judged:
        worse = getattr(choice, error) - best
        chance = float(worse.std()) / len(worse) ** 0.5 if len(worse) > 1 else 0.0
        if float(worse.mean()) <= max(chance, worth):
            good.append(choice)
    return good


def _judged(
    data: Trajectories, y: Tensor, neutral: Tensor, lengths: list[int], ridges: tuple[float, ...]
) -> Iterator[Choice]:
    """Choices with their errors, short windows and large ridges first.

    None for windows that the parts do not hold, and for models that are not finite. Every episode is held out once
    (cross-validation; Stone 1974): windows of one quarter alone differ by less than chance where loops differ by far.
    """
    happened = data.valid.nonzero()
    if len(happened) < 2:
        return
    parts = [(_mask(data.valid, rows), _mask(data.valid, back)) for rows, back in folds(happened, HELD)]
    longest = min(longest_window(fitted) for fitted, _ in parts)
    judges = [_Judge(data, y, neutral, held, lengths[-1]) for _, held in parts]
    for length in (length for length in lengths if length <= longest):
        whole, *fits = (Fit(y, data, fitted, length) for fitted in (data.valid, *(fitted for fitted, _ in parts)))
        for ridge in reversed(ridges):
            model, models = whole(ridge), [fit(ridge) for fit in fits]
            if model.finite and all(part.finite for part in models):
                errors = [judge(part) for judge, part in zip(judges, models, strict=True)]
                far, near = (torch.cat(error) for error in zip(*errors, strict=True))
                yield Choice(length, ridge, model.radius, far, near)


def _mask(valid: Bool[Tensor, "N T"], rows: Int[Tensor, "k 2"]) -> Bool[Tensor, "N T"]:
    """Mask of the transitions ``(episode, time)``."""
    mask = torch.zeros_like(valid)
    mask[rows[:, 0], rows[:, 1]] = True
    return mask


def longest_window(valid: Bool[Tensor, "N T"]) -> int:
    """Most measurements that a window can hold which a transition follows; at least 1."""
    run, longest = torch.zeros_like(valid[:, 0], dtype=torch.int64), 1
    for now in valid.unbind(1):
        run = torch.where(now, run + 1, 0)
        longest = max(longest, int(run.max()))
    return longest


class _Judge:
    """Errors of predictions up to :data:`AHEAD` steps ahead, or until an episode ends."""

    def __init__(
        self, data: Trajectories, y: Tensor, neutral: Tensor, valid: Bool[Tensor, "N T"], context: int
    ) -> None:
        rows = starts(valid, 1, 1)
        most = min(max(NUMBERS // (AHEAD * (y.shape[-1] + data.z.shape[-1])), WINDOWS[0]), WINDOWS[1], len(rows))
        rows = rows[torch.linspace(0, len(rows) - 1, most).long()]
        past = rows[:, 1:] + torch.arange(1 - context, 1, device=rows.device)
        begun = (past[:, :-1] >= 0)[..., None]
        u = torch.where(begun, data.u[rows[:, :1], past[:, :-1].clamp(min=0)], neutral)
        self._window = y[rows[:, :1], past.clamp(min=0)], u
        steps = rows[:, 1:] + torch.arange(AHEAD, device=rows.device)
        inside = steps.clamp(max=valid.shape[1] - 1)
        alive = valid[rows[:, :1], inside] & (steps < valid.shape[1])
        self._alive = alive.cumprod(dim=1).bool()
        self._U = data.u[rows[:, :1], inside]
        self._true = torch.cat([y, data.z], dim=-1)[rows[:, :1], inside + 1]
        now = torch.cat([y, data.z], dim=-1)[rows[:, 0], rows[:, 1]][:, None]
        change = torch.where(self._alive[..., None], (self._true - now).square(), 0.0)
        self._scale = change.sum(dim=(0, 1)) / self._alive.sum()
        self._scales = (change.sum(dim=0) / self._alive.sum(dim=0).clamp(min=1)[:, None]).clamp(min=1e-300)
        self._moves = self._scale > 1e-24 * self._true[self._alive].square().mean(dim=0)
        self._of, self._episodes = rows[:, 0], len(valid)

    def __call__(self, model: ARX) -> tuple[Float[Tensor, "e"], Float[Tensor, "e"]]:
        """Errors far and near of each held-out episode; see :class:`Choice`."""
        square = (torch.cat(model.predict(*self._window, self._U), dim=-1) - self._true).square()
        together = _digits(self._over_steps((square / self._scale)[..., self._moves].mean(dim=-1), AHEAD))
        each = _digits((square / self._scales)[..., self._moves].mean(dim=-1))
        return self._over_windows(together), self._over_windows(self._over_steps(each, NEAR))

    def _over_steps(self, value: Float[Tensor, "k h"], ahead: int) -> Float[Tensor, "k"]:
        """Mean over so many steps ahead, until an episode ends."""
        alive = self._alive[:, :ahead]
        return torch.where(alive, value[:, :ahead], 0.0).sum(dim=1) / alive.sum(dim=1)

    def _over_windows(self, value: Float[Tensor, "k"]) -> Float[Tensor, "e"]:
        """Mean over the windows of each episode."""
        total, windows = value.new_zeros(2, self._episodes)
        total.index_add_(0, self._of, value)
        windows.index_add_(0, self._of, torch.ones_like(value))
        mean: Tensor = (total / windows)[windows > 0]
        return mean


def _digits(square: Tensor) -> Tensor:
    """Logarithms of squared errors, from none to past all hope."""
    return torch.log(square.nan_to_num(LOST).clamp(FLOOR, LOST))
