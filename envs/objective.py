"""Objectives as data: the one place where cost is defined, read by torch and by mixed-integer encoders.

Signals of a term, all batched: ``z`` performance output, ``e = z - r`` tracking error, ``u`` action,
``du = u_k - u_{k-1}``. The stage cost of control step k is ``l(z_k, u_k, du_k, r_k)``, with ``z_k`` taken
*before* the step, and a terminal cost ``m(z_N, r_N)`` ends the episode.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steersman.envs.placement import constant

Signal = Literal["z", "e", "u", "du"]


@dataclass(frozen=True, kw_only=True)
class Term(ABC):
    """One additive part of a cost, a function of one signal.

    Attributes:
        name: Name of the part in reward terms and tables.
        on: The signal it is written in.
    """

    name: str
    on: Signal

    @abstractmethod
    def __call__(self, s: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """Value for signal ``s`` ``[..., d]``, shape ``[...]``."""


def _require_finite(term: Term, numbers: Iterable[float], what: str) -> None:
    wrong = [number for number in numbers if not math.isfinite(number)]
    if wrong:
        raise ValueError(
            f"term {term.name!r}: {what} must be finite numbers, got {wrong[0]}; "
            "say what must never happen with a Limit, or by the plant's status"
        )


def _weights(term: Term, weights: tuple[float, ...], s: Tensor) -> Tensor:
    if len(weights) != s.shape[-1]:
        raise ValueError(
            f"term {term.name!r} has {len(weights)} weights but signal {term.on!r} has {s.shape[-1]} entries"
        )
    return constant(weights, s)


@dataclass(frozen=True, kw_only=True)
class Quadratic(Term):
    """``sum_i w_i s_i^2``, convex for non-negative weights."""

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        _require_finite(self, self.weights, "weights")

    def __call__(self, s: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """See :class:`Term`."""
        return (s * s) @ _weights(self, self.weights, s)


@dataclass(frozen=True, kw_only=True)
class L1(Term):
    """``sum_i w_i |s_i|``."""

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        _require_finite(self, self.weights, "weights")

    def __call__(self, s: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """See :class:`Term`."""
        return s.abs() @ _weights(self, self.weights, s)


@dataclass(frozen=True, kw_only=True)
class LInf(Term):
    """``max_i w_i |s_i|``."""

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        _require_finite(self, self.weights, "weights")

    def __call__(self, s: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """See :class:`Term`."""
        return (s.abs() * _weights(self, self.weights, s)).amax(dim=-1)


@dataclass(frozen=True, kw_only=True)
class Linear(Term):
    """``sum_i w_i s_i``."""

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        _require_finite(self, self.weights, "weights")

    def __call__(self, s: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """See :class:`Term`."""
        return s @ _weights(self, self.weights, s)


@dataclass(frozen=True, kw_only=True)
class PiecewiseLinear(Term):
    """Continuous piecewise-linear function of entry ``index``, linear beyond its first and last point."""

    index: int
    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        xs = [x for x, _ in self.points]
        if len(xs) < 2 or any(b <= a for a, b in pairwise(xs)):
            raise ValueError(f"term {self.name!r}: points need at least two strictly increasing abscissae, got {xs}")
        _require_finite(self, [number for point in self.points for number in point], "points")

    @property
    def slopes(self) -> tuple[float, ...]:
        """Slope of each segment."""
        return tuple((y1 - y0) / (x1 - x0) for (x0, y0), (x1, y1) in pairwise(self.points))

    @property
    def convex(self) -> bool:
        """Whether the slopes never decrease."""
        return all(b >= a - 1e-12 for a, b in pairwise(self.slopes))

    def __call__(self, s: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """See :class:`Term`."""
        x = s[..., self.index]
        slopes = self.slopes
        value = self.points[0][1] + slopes[0] * (x - self.points[0][0])
        for (knot, _), before, after in zip(self.points[1:-1], slopes, slopes[1:], strict=False):
            value = value + (after - before) * torch.relu(x - knot)
        return value


@dataclass(frozen=True, kw_only=True)
class Barrier(Term):
    """``height sum_i relu(1 - d_i / width_i)^2`` of the distances d of entries from each of their two bounds.

    Distances beyond a bound are negative. Convex, 0 further inside than the widths, ``height`` at a bound, and as
    smooth as descent methods need.
    """

    index: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    width: tuple[float, ...]
    height: float

    def __call__(self, s: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """See :class:`Term`."""
        x = s[..., constant(self.index, s, torch.int64)]
        low, high, width = (constant(numbers, s) for numbers in (self.low, self.high, self.width))
        below, above = (torch.relu(1 - d / width) for d in (x - low, high - x))
        return self.height * (below.square() + above.square()).sum(dim=-1)


@dataclass(frozen=True, kw_only=True)
class Opaque(Term):
    """Any torch function of a signal; differentiable controllers can use it, mixed-integer ones refuse it."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, s: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """See :class:`Term`."""
        return self.function(s)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Performance output ``index`` outside ``low .. high`` is a failure, as far as planners are concerned.

    The plant's own status decides in an episode; a limit says the same in terms that every model predicts.

    Attributes:
        margin: Share of the half width inside the limits where softened ones cost something already; None leaves it
            to the controller. For limits that lie far apart, with the target near one of them.
    """

    name: str
    index: int
    low: float
    high: float
    margin: float | None = None

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(f"limit {self.name!r} needs finite low < high, got {self.low} and {self.high}")
        if self.margin is not None and not 0 < self.margin < 1:
            raise ValueError(f"limit {self.name!r} needs a margin strictly between 0 and 1, got {self.margin}")

    def softened(self, margin: float, failure: float) -> PiecewiseLinear:
        """A convex cost: 0 up to a share ``margin`` of the half width inside, ``failure`` at the limits, rising on.

        The limit's own margin goes first.
        """
        cut = (self.margin or margin) * (self.high - self.low) / 2
        inside = ((self.low, failure), (self.low + cut, 0.0), (self.high - cut, 0.0), (self.high, failure))
        return PiecewiseLinear(name=self.name, on="z", index=self.index, points=inside)


def within(bounds: Sequence[float], names: Sequence[str]) -> tuple[Limit, ...]:
    """Limits of plus and minus each bound on the first performance outputs, which have these names."""
    pairs = zip(names, bounds, strict=True)
    return tuple(Limit(name=name, index=i, low=-bound, high=bound) for i, (name, bound) in enumerate(pairs))


@dataclass(frozen=True)
class Objective:
    """Sum of stage terms over the control steps, of terminal terms at the end, and the price of failing.

    Attributes:
        stage: Terms of the stage cost.
        terminal: Terms of the terminal cost; they may be written in ``z`` and ``e`` only.
        failure: Cost of *each* control step that remains when an episode ends by failure (terminated,
            violated or diverged), so that an early failure never pays. With 0 the plant states no price, and
            :mod:`steersman.envs.failure` finds one.
        limits: Where a plan fails, for models that know no failure of their own.
    """

    stage: tuple[Term, ...]
    terminal: tuple[Term, ...] = ()
    failure: float = 0.0
    limits: tuple[Limit, ...] = ()

    def __post_init__(self) -> None:
        for term in self.terminal:
            if term.on not in ("z", "e"):
                raise ValueError(f"terminal term {term.name!r} is written in {term.on!r}; only 'z' and 'e' exist then")
        if not 0 <= self.failure < math.inf:
            raise ValueError(f"failure cost must be a finite non-negative number, got {self.failure}")
        for names in ([term.name for term in self.stage], [term.name for term in self.terminal]):
            if len(set(names)) < len(names):
                raise ValueError(f"terms need names of their own, got {', '.join(names)}")

    def lost(self, z: Float[Tensor, "*b nz"]) -> Bool[Tensor, "*b"] | None:
        """Where outputs leave their limits; None without limits."""
        if not self.limits:
            return None
        seen = z[..., [t.index for t in self.limits]]
        low, high = (constant(tuple(getattr(t, end) for t in self.limits), seen) for end in ("low", "high"))
        return ((seen < low) | (seen > high)).any(dim=-1)

    def softened(self, margin: float, *, smooth: bool = False) -> Objective:
        """The same with limits as terms of the stage cost, ``margin`` in (0, 1), for planners that need slopes.

        The terms (:meth:`Limit.softened`, or one :class:`Barrier` if they must be smooth) take the place of the price
        of failures, which is left out.
        """
        terms: tuple[Term, ...] = tuple(limit.softened(margin, self.failure) for limit in self.limits)
        if smooth and self.limits:
            terms = (self._barrier(margin),)
        return replace(self, stage=self.stage + terms, limits=(), failure=0.0)

    def _barrier(self, margin: float) -> Barrier:
        index, low, high = (tuple(getattr(t, name) for t in self.limits) for name in ("index", "low", "high"))
        width = tuple((t.margin or margin) * (t.high - t.low) / 2 for t in self.limits)
        return Barrier(name="limits", on="z", index=index, low=low, high=high, width=width, height=self.failure)

    def stage_terms(
        self,
        z: Float[Tensor, "*b nz"],
        u: Float[Tensor, "*b m"],
        du: Float[Tensor, "*b m"],
        r: Float[Tensor, "*b nz"],
    ) -> dict[str, Tensor]:
        """Each stage term by name, shape ``[...]``."""
        return _valued(self.stage, {"z": z, "e": z - r, "u": u, "du": du})

    def stage_cost(
        self,
        z: Float[Tensor, "*b nz"],
        u: Float[Tensor, "*b m"],
        du: Float[Tensor, "*b m"],
        r: Float[Tensor, "*b nz"],
    ) -> Float[Tensor, "*b"]:
        """Sum of the stage terms, shape ``[...]``."""
        return _total(self.stage_terms(z, u, du, r), z)

    def output_cost(self, z: Float[Tensor, "*b nz"], r: Float[Tensor, "*b nz"]) -> Float[Tensor, "*b"]:
        """The part of the stage cost that outputs cause, shape ``[...]``."""
        return _total(_valued(self.stage, {"z": z, "e": z - r}), z)

    def action_cost(self, u: Float[Tensor, "*b m"], du: Float[Tensor, "*b m"]) -> Float[Tensor, "*b"]:
        """The part of the stage cost that actions and their changes cause, shape ``[...]``."""
        return _total(_valued(self.stage, {"u": u, "du": du}), u)

    def terminal_cost(self, z: Float[Tensor, "*b nz"], r: Float[Tensor, "*b nz"]) -> Float[Tensor, "*b"]:
        """Sum of the terminal terms, shape ``[...]``."""
        return _total(_valued(self.terminal, {"z": z, "e": z - r}), z)


def _valued(terms: tuple[Term, ...], signals: dict[Signal, Tensor]) -> dict[str, Tensor]:
    """The terms written in the given signals, by name."""
    return {term.name: term(signals[term.on]) for term in terms if term.on in signals}


def _total(terms: dict[str, Tensor], like: Tensor) -> Tensor:
    total = like.new_zeros(like.shape[:-1])
    for value in terms.values():
        total = total + value
    return total
