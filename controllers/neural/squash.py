"""From what a network returns to what a plant accepts: a smooth map onto the bounds, and decisions with gradients."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot, softplus

from steersman.envs.actions import ActionSet
from steersman.envs.placement import constant

INSIDE = 0.05
"""Raw 0 stays so far inside a bound: a share of the range, or so much itself beside an open side."""
TEMPERATURE = 0.5
"""Of relaxed decisions: warmer ones have smoother gradients and are further from what is applied."""
_SURE = 1e-6
"""Least probability of either side of a relaxed decision."""


def to_action(actions: ActionSet, raw: Float[Tensor, "*b m"]) -> Float[Tensor, "*b m"]:
    """Continuous actions from raw ones, strictly increasing and smooth: no raw action is without a gradient.

    Between two bounds it is ``mid + half tanh(raw + b)``, with one bound ``softplus(raw + b)`` away from it, without
    bounds the raw action itself. ``b`` is such that raw 0 gives the action nearest to zero, or one :data:`INSIDE` the
    bound where that is a bound. Integer actions are left to be rounded by a projection.
    """
    s = _shape(actions.lower, actions.upper, raw.dtype, raw.device)
    # Each half of tanh is measured from its own bound: as a difference from the middle its slope would round to zero.
    x = 2 * (raw + s.shift)
    boxed = torch.where(x < 0, s.lower + s.width * torch.sigmoid(x), s.upper - s.width * torch.sigmoid(-x))
    if s.all_boxed:
        return boxed
    above, below = s.lower + softplus(raw + s.above), s.upper - softplus(s.below - raw)
    return torch.where(s.boxed, boxed, torch.where(s.has_lower, above, torch.where(s.has_upper, below, raw)))


def scored_action(actions: ActionSet, raw: Float[Tensor, "*b m"]) -> Float[Tensor, "*b m"]:
    """As :func:`to_action`, but raw entries of one-hot groups are scores as they are.

    A projection takes the largest score; squashing would make ties of the large ones.
    """
    if sum(map(len, actions.one_hot)) == actions.m:
        return raw
    chosen = to_action(actions, raw)
    for group in actions.one_hot:
        chosen[..., list(group)] = raw[..., list(group)]
    return chosen


def widths(actions: ActionSet, like: Tensor) -> Float[Tensor, "m"]:
    """The range of each action, 1 where it is open or has none."""
    width = _shape(actions.lower, actions.upper, like.dtype, like.device).width
    return torch.where(width > 0, width, 1.0)


def spread_of(actions: ActionSet, raw: Float[Tensor, "k m"]) -> float:
    """The largest spread of an action over some rows, relative to its range."""
    u = to_action(actions, raw)
    return float(((u.amax(dim=0) - u.amin(dim=0)) / widths(actions, raw)).max())


def decided(actions: ActionSet, u: Float[Tensor, "n m"], gen: torch.Generator | None = None) -> Float[Tensor, "n m"]:
    """Admissible actions with a useful gradient, from what :func:`scored_action` gives.

    With a generator, integers are drawn instead of rounded: the part beyond the integer below is the probability of
    the one above, and one-hot groups are drawn by their scores. The gradient is that of the concrete distribution
    (Maddison et al. 2017, Jang et al. 2017) at :data:`TEMPERATURE`: it says which way decisions would turn, also where
    rounding alone is flat. Without one, gradients pass straight through (Bengio et al. 2013).
    """
    if actions.continuous:
        return u
    if gen is None:
        return _valued(actions.project(u), u)
    u = torch.where(constant(actions.integer, u, torch.bool), _drawn(actions, u, gen), u)
    for group in actions.one_hot:
        u = u.clone()
        u[:, list(group)] = _chosen(u[:, list(group)], gen)
    return u


def _drawn(actions: ActionSet, u: Float[Tensor, "n m"], gen: torch.Generator) -> Float[Tensor, "n m"]:
    lower, upper = actions.bounds(u)
    below = torch.minimum(u.detach().floor(), upper - 1)
    share = (u - below).clamp(_SURE, 1 - _SURE)
    soft = torch.sigmoid((torch.logit(share) + torch.logit(_unit(u, gen))) / TEMPERATURE)
    return _valued(torch.maximum(torch.minimum(below + (soft > 0.5), upper), lower), soft)


def _chosen(scores: Float[Tensor, "n k"], gen: torch.Generator) -> Float[Tensor, "n k"]:
    gumbel = -(-_unit(scores, gen).log()).log()
    soft = torch.softmax((scores + gumbel) / TEMPERATURE, dim=1)
    return _valued(one_hot(soft.argmax(dim=1), scores.shape[1]).to(soft), soft)


def _valued(value: Tensor, slope: Tensor) -> Tensor:
    """The value of one tensor, to the bit, with the gradient of the other."""
    return value.detach() + (slope - slope.detach())


def _unit(like: Tensor, gen: torch.Generator) -> Tensor:
    unit = torch.rand(like.shape, generator=gen, dtype=torch.float64, device=gen.device)
    return unit.clamp(1e-12, 1 - 1e-12).to(like.device)


class _Shape(NamedTuple):
    """What :func:`to_action` needs of the bounds; open ones are replaced by 0."""

    lower: Tensor
    upper: Tensor
    width: Tensor
    shift: Tensor
    above: Tensor
    below: Tensor
    has_lower: Tensor
    has_upper: Tensor
    boxed: Tensor
    all_boxed: bool


@lru_cache(maxsize=256)
def _shape(lower: tuple[float, ...], upper: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> _Shape:
    rows = [_one(low, high) for low, high in zip(lower, upper, strict=True)]
    low, high, width, shift, above, below = (
        torch.tensor(column, dtype=dtype, device=device) for column in zip(*rows, strict=True)
    )
    has_lower, has_upper = (
        torch.tensor([math.isfinite(bound) for bound in bounds], device=device) for bounds in (lower, upper)
    )
    boxed = has_lower & has_upper
    return _Shape(low, high, width, shift, above, below, has_lower, has_upper, boxed, bool(boxed.all()))


def _one(lower: float, upper: float) -> tuple[float, float, float, float, float, float]:
    """Bounds, width and shifts of one action."""
    neutral = min(max(0.0, lower), upper)
    low, high = (bound if math.isfinite(bound) else 0.0 for bound in (lower, upper))
    width = high - low if math.isfinite(lower) and math.isfinite(upper) else 0.0
    share = min(max((neutral - lower) / width, INSIDE), 1 - INSIDE) if width else 0.5
    above, below = (_softplus_inverse(max(abs(neutral - bound), INSIDE)) for bound in (low, high))
    return low, high, width, math.log(share / (1 - share)) / 2, above, below


def _softplus_inverse(y: float) -> float:
    return y + math.log(-math.expm1(-y))
