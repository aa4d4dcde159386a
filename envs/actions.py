"""Action sets: what a plant accepts, as data that environments, optimisers and MIP encoders all read."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float
from torch import Tensor

from steersman.envs.placement import constant


@dataclass(frozen=True)
class ActionSet:
    """Admissible actions ``u`` of shape ``[n, m]``: a box, with some entries integer or one-hot.

    Attributes:
        lower: Smallest value of each action, length m; ``-inf`` where unbounded.
        upper: Largest value of each action, length m; ``inf`` where unbounded.
        integer: Which actions take integer values only; all False by default.
        one_hot: Groups of action indices of which exactly one is 1 and the others 0.
        names: A name for each action, used in tables and plots.
        units: Physical unit of each action, used in tables and plots.

    Raises:
        ValueError: On bounds of unequal length, NaN or crossed bounds, an unbounded integer action, or
            one-hot groups that overlap or are not 0..1.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    integer: tuple[bool, ...] = ()
    one_hot: tuple[tuple[int, ...], ...] = ()
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    _grouped: frozenset[int] = field(init=False, repr=False, compare=False, default=frozenset())

    def __post_init__(self) -> None:
        m = len(self.lower)
        set_ = object.__setattr__
        set_(self, "lower", tuple(self.lower))
        set_(self, "upper", tuple(self.upper))
        set_(self, "integer", tuple(self.integer) or (False,) * m)
        set_(self, "names", tuple(self.names) or tuple(f"u{i}" for i in range(m)))
        set_(self, "units", tuple(self.units) or ("",) * m)
        set_(self, "_grouped", frozenset(i for group in self.one_hot for i in group))
        for name in ("upper", "integer", "names", "units"):
            if len(getattr(self, name)) != m:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries but lower has {m}")
        for i, (lo, hi) in enumerate(zip(self.lower, self.upper, strict=True)):
            if not lo <= hi:
                raise ValueError(f"action {self.names[i]!r}: lower bound {lo} is not below upper bound {hi}")
            if self.integer[i] and not (np.isfinite(lo) and np.isfinite(hi) and lo == int(lo) and hi == int(hi)):
                raise ValueError(f"integer action {self.names[i]!r} needs finite whole bounds, got [{lo}, {hi}]")
        if sum(len(g) for g in self.one_hot) != len(self._grouped):
            raise ValueError(f"one_hot groups overlap: {self.one_hot}")
        for i in self._grouped:
            if not 0 <= i < m or (self.lower[i], self.upper[i]) != (0, 1):
                raise ValueError(f"one-hot action {i} must exist and have bounds 0 and 1")

    @property
    def m(self) -> int:
        """Number of actions."""
        return len(self.lower)

    @property
    def bounded(self) -> bool:
        """Whether every action has finite bounds."""
        return bool(np.isfinite(self.lower).all() and np.isfinite(self.upper).all())

    @property
    def continuous(self) -> bool:
        """Whether no action is integer or one-hot."""
        return not any(self.integer) and not self.one_hot

    @property
    def discrete(self) -> bool:
        """Whether every action is integer or one-hot."""
        return all(self.integer[i] or i in self._grouped for i in range(self.m))

    def bounds(self, like: Tensor) -> tuple[Float[Tensor, "m"], Float[Tensor, "m"]]:
        """Lower and upper bounds as tensors of the dtype and device of ``like``, made once for each."""
        return _bounds(self.lower, self.upper, like.dtype, like.device)

    def neutral(self, n: int, like: Tensor) -> Float[Tensor, "n m"]:
        """The admissible action nearest to zero (first member of each one-hot group)."""
        return self.project(like.new_zeros(n, self.m))

    def project(self, u: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        """Nearest admissible action: clip, round, one-hot by argmax. NaN stays NaN in its own entry."""
        if self.one_hot == (tuple(range(self.m)),):
            return _largest(u)
        lower, upper = self.bounds(u)
        out = torch.minimum(torch.maximum(u, lower), upper)
        if any(self.integer):
            whole = constant(self.integer, u, torch.bool)
            out = torch.where(whole, torch.round(out), out)
        for group in self.one_hot:
            index = list(group)
            out = out.clone()
            out[:, index] = _largest(u[:, index])
        return out

    def admissible(self, u: Float[Tensor, "n m"], tolerance: float = 1e-9) -> Bool[Tensor, "n"]:
        """Rows that are finite and admissible up to ``tolerance`` (relative to the size of the bounds)."""
        slack = tolerance * (1.0 + u.abs())
        return torch.isfinite(u).all(1) & ((u - self.project(u)).abs() <= slack).all(1)

    def sample(self, unit: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        """Admissible actions from uniform numbers in (0, 1); unbounded actions are drawn from [-1, 1]."""
        lower, upper = (torch.nan_to_num(b, neginf=-1.0, posinf=1.0) for b in self.bounds(unit))
        if any(self.integer):
            whole = constant(self.integer, unit, torch.bool)
            drawn = torch.where(whole, lower + (unit * (upper - lower + 1)).floor(), lower + unit * (upper - lower))
        else:
            drawn = lower + unit * (upper - lower)
        return self.project(drawn)

    # ---------------------------------------------------------------- gymnasium

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of choices of each discrete decision: one per one-hot group, then one per integer action."""
        alone = [i for i in range(self.m) if self.integer[i] and i not in self._grouped]
        return tuple(len(g) for g in self.one_hot) + tuple(int(self.upper[i] - self.lower[i]) + 1 for i in alone)

    def space(self, dtype: type[np.floating] = np.float32) -> spaces.Space:  # type: ignore[type-arg]
        """The gymnasium space: Box, Discrete or MultiDiscrete; a mixed set is a Box whose entries are rounded."""
        if self.discrete:
            levels = self.levels
            return spaces.Discrete(levels[0]) if len(levels) == 1 else spaces.MultiDiscrete(list(levels))
        return spaces.Box(np.asarray(self.lower, dtype), np.asarray(self.upper, dtype), dtype=dtype)

    def decode(self, action: Tensor) -> Float[Tensor, "n m"]:
        """Actions of the gymnasium space, batched, as ``u`` of shape ``[n, m]``."""
        if not self.discrete:
            return action.reshape(-1, self.m)
        choice = action.reshape(-1, len(self.levels)).to(torch.int64)
        u = torch.zeros(choice.shape[0], self.m, dtype=torch.float64, device=action.device)
        for column, group in enumerate(self.one_hot):
            u[:, list(group)] = torch.nn.functional.one_hot(choice[:, column], len(group)).to(u.dtype)
        alone = [i for i in range(self.m) if self.integer[i] and i not in self._grouped]
        for column, i in enumerate(alone, start=len(self.one_hot)):
            u[:, i] = choice[:, column].to(u.dtype) + self.lower[i]
        return u

    def encode(self, u: Float[Tensor, "n m"]) -> Tensor:
        """Inverse of :meth:`decode`: ``[n]`` for Discrete, ``[n, d]`` for MultiDiscrete, ``u`` itself for Box."""
        if not self.discrete:
            return u
        columns = [u[:, list(group)].argmax(dim=1) for group in self.one_hot]
        alone = [i for i in range(self.m) if self.integer[i] and i not in self._grouped]
        columns += [torch.round(u[:, i] - self.lower[i]).to(torch.int64) for i in alone]
        return columns[0] if len(columns) == 1 else torch.stack(columns, dim=1)


@lru_cache(maxsize=256)
def _bounds(
    lower: tuple[float, ...], upper: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    return torch.tensor(lower, dtype=dtype, device=device), torch.tensor(upper, dtype=dtype, device=device)


def _largest(scores: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """One at the (first) largest score of each row, zero elsewhere; NaN where a score is."""
    top, index = scores.max(dim=1, keepdim=True)
    one = (index == torch.arange(scores.shape[1], device=scores.device)).to(scores.dtype)
    return torch.where(top.isnan(), torch.nan, one)
