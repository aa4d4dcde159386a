"""What is believed of a plant: estimators turn measurements into the hidden state that a model goes on from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from steersman.dynamics.base import Dynamics, Hidden, Window
from steersman.envs.simulator import Measurement
from steersman.envs.tree import tree_index


@dataclass(frozen=True)
class Belief:
    """What an estimator makes of all measurements so far.

    Attributes:
        now: The newest measurement.
        hidden: Hidden state of the model at it.
        covariance: Of the hidden state, where the estimator knows one.
    """

    now: Measurement
    hidden: Hidden
    covariance: Float[Tensor, "n ns ns"] | None = None

    def rows(self, index: Int64[Tensor, "k"]) -> Belief:
        """The beliefs of some rows."""
        covariance = None if self.covariance is None else self.covariance[index]
        return Belief(self.now.rows(index), tree_index(self.hidden, index), covariance)


class Estimator(ABC):
    """Called once a control step, row by row restartable. Missing measurements are its business (``m.seen``)."""

    @abstractmethod
    def reset(self, mask: Bool[Tensor, "n"] | None = None) -> None:
        """Forget everything, or what is known of the masked rows."""

    @abstractmethod
    def update(self, m: Measurement) -> Belief:
        """The belief after a measurement; ``m.u_prev`` is the action since the last one."""


class WindowEstimator(Estimator):
    """The hidden state that the model itself makes of the last measurements (:meth:`Dynamics.init`).

    In the place of outputs that were not seen stands what the model foretold of them at the measurement before.
    """

    def __init__(self, model: Dynamics) -> None:
        """Keep as many measurements as the model asks for."""
        self._model, self._windows = model, Windows(model.context)
        self._last: Belief | None = None
        self._fresh: Tensor | None = None
        self._ever: Tensor | None = None

    def reset(self, mask: Bool[Tensor, "n"] | None = None) -> None:
        """See :class:`Estimator`."""
        self._windows.clear(mask)
        if mask is None:
            self._last = None
        elif self._fresh is not None:
            self._fresh = self._fresh | mask

    def update(self, m: Measurement) -> Belief:
        """See :class:`Estimator`."""
        seen = m.seen
        if seen is not None and self._last is not None and not self._model.needs_state:
            m = self._completed(m, seen, self._last)
        belief = Belief(m, self._model.init(self._windows.push(m)))
        now = torch.ones_like(m.y, dtype=torch.bool) if m.seen is None else m.seen
        if self._ever is not None and self._fresh is not None and self._last is not None:
            now = now | (self._ever & ~self._fresh[:, None])
        self._ever = now
        self._last, self._fresh = belief, torch.zeros_like(m.k, dtype=torch.bool)
        return belief

    @torch.no_grad()
    def _completed(self, m: Measurement, seen: Bool[Tensor, "n ny"], last: Belief) -> Measurement:
        """The measurement with what was foretold of it where nothing was seen, in rows that go on.

        What is filled in counts as known from then on: windows keep it.
        """
        model, t, before = self._model, m.t, last.now.t
        timed = not model.uniform_only and t is not None and before is not None
        lasting = {"dt": (t - before).to(m.y)} if timed else {}  # type: ignore[operator]
        y, _ = model.output(model.step(last.hidden, m.u_prev.to(m.y), **lasting))
        assert self._fresh is not None and self._ever is not None  # noqa: S101 - narrows the type
        known = self._ever & ~self._fresh[:, None] & torch.isfinite(y)
        filled = torch.where(seen | ~known, m.y, y)
        return replace(m, y=filled, seen=seen | known)


class Windows:
    """The window of past measurements and actions that a model starts from, row by row restartable."""

    def __init__(self, context: int) -> None:
        """Keep the last ``context`` measurements."""
        if context < 1:
            raise ValueError(f"context must be at least 1, got {context}")
        self.context = context
        self._y: Tensor | None = None
        self._u: Tensor | None = None

    def clear(self, mask: Bool[Tensor, "n"] | None = None) -> None:
        """Forget everything, or the masked rows (their next measurement fills the window)."""
        if mask is None or self._y is None:
            self._y = self._u = None
        else:
            self._y = torch.where(mask[:, None, None], torch.nan, self._y)

    def push(self, m: Measurement) -> Window:
        """Append a measurement (and the action before it) and return the window that ends in it.

        While outputs of a row have not been seen, what stands in for them does not stay in its window.
        """
        if self._y is None or self._u is None or self._y.shape[0] != m.n:
            fresh = torch.ones_like(m.k, dtype=torch.bool)
            self._y = m.y[:, None].expand(-1, self.context, -1).clone()
            self._u = m.u_prev[:, None].expand(-1, self.context - 1, -1).clone()
        else:
            fresh = self._y[:, -1].isnan().any(dim=1)
            y = torch.cat([self._y[:, 1:], m.y[:, None]], dim=1)
            u = torch.cat([self._u, m.u_prev[:, None]], dim=1)[:, 1:] if self.context > 1 else self._u
            self._y = torch.where(fresh[:, None, None], m.y[:, None].expand_as(y), y)
            self._u = torch.where(fresh[:, None, None], m.u_prev[:, None].expand_as(u), u)
        window = Window(self._y, self._u, m)
        if m.seen is not None:
            self.clear(fresh & ~m.seen.all(dim=1))
        return window
