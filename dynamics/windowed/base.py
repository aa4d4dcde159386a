"""What networks on windows of outputs and actions share: scales, an affine readout, and mini-batches of rollouts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steersman.dynamics.base import Hidden, Trajectories, Window
from steersman.dynamics.learned import Learned
from steersman.dynamics.linear.regression import affine_fit, ridge, spread
from steersman.dynamics.windowed.settings import WindowSettings
from steersman.dynamics.windowed.windows import cut, divided, starts
from steersman.optimizers.resumable import Resumable

_RIDGE = 1e-10
"""Weight of the ridge regression of the readout."""
EXACT = 1e-4
"""Residual of an affine readout, relative to the spread of z, below which it is exact.

Ridge regression leaves up to half the root of its weight, 5e-6, of each normalised coefficient, and a difference of
outputs that move together has coefficients above 1.
"""


class Windowed(Learned, ABC):
    """A model ``y+ = y + delta * change(window)`` on normalised windows, with an affine part of the readout of z.

    Episodes' starts are included with windows filled by repetition, as in
    :class:`~steersman.dynamics.estimation.base.Windows`. ``delta`` is the one-step change of each output in the data.
    """

    _single = True
    y_mean_: Tensor
    y_std_: Tensor
    u_mean_: Tensor
    u_std_: Tensor
    delta_: Tensor
    z_weight_: Tensor
    z_offset_: Tensor
    z_scale_: Tensor

    def require_transitions(self, valid: Bool[Tensor, "N T"]) -> None:
        """See :class:`~steersman.dynamics.base.Dynamics`; every transition ends a window, since starts are filled."""
        _require_two(int(valid.sum()))

    def init(self, window: Window) -> Hidden:
        """Hidden state: the window as ``y`` (kept outputs) and ``u``, and the ``exogenous`` outputs.

        Raises:
            ValueError: If the window is too short.
            RuntimeError: Before a fit.
        """
        y, u, exogenous = self._window(window)
        return {"y": y, "u": u, "exogenous": exogenous}

    def step(
        self, h: Hidden, u: Float[Tensor, "n m"], dt: Float[Tensor, "n"] | None = None, w: Tensor | None = None
    ) -> Hidden:
        """See :class:`~steersman.dynamics.base.Dynamics`."""
        if self.uniform_only:
            self.one_period(dt)
        y, past, exogenous = parts(h)
        actions = torch.cat([past, u[:, None]], dim=1)
        periods = None if dt is None or self.uniform_only else dt[:, None] / self.problem.period
        after = y[:, -1] + self.y_std_ * self.delta_ * self._change(self._features(y, actions), periods)
        return {"y": torch.cat([y[:, 1:], after[:, None]], dim=1), "u": actions[:, 1:], "exogenous": exogenous}

    def output(self, h: Hidden) -> tuple[Float[Tensor, "n ny"], Float[Tensor, "n nz"]]:
        """See :class:`~steersman.dynamics.base.Dynamics`."""
        y, past, exogenous = parts(h)
        return self._assemble(y[:, -1], exogenous), self._readout(self._features(y, past))

    @abstractmethod
    def _change(self, phi: Float[Tensor, "n inputs"], periods: Tensor | None) -> Float[Tensor, "n nk"]:
        """Change of the kept outputs in units of ``y_std * delta``, over ``periods`` ``[n, 1]``; None is one."""

    def _readout(self, phi: Float[Tensor, "n inputs"]) -> Float[Tensor, "n nz"]:
        """Performance outputs of a window without its newest action."""
        return phi @ self.z_weight_ + self.z_offset_

    def _features(self, y: Tensor, u: Tensor) -> Tensor:
        """Normalised windows, flattened: outputs first, oldest first."""
        y, u = (y - self.y_mean_) / self.y_std_, (u - self.u_mean_) / self.u_std_
        return torch.cat([y.flatten(1), u.flatten(1)], dim=1)

    def _begin(self, data: Trajectories, settings: WindowSettings) -> tuple[Trajectories, torch.Generator, Resumable]:
        """Forget the last fit and learn the scales; the padded data, the source of chance and the training's state.

        Raises:
            ValueError: If the data are not finite or do not fit the bound problem.
        """
        self._forget()
        self._prepare(data)
        resumable = self._resumable(data)
        padded = self._pad(data, settings.rollout)
        self._normalise(data, padded)
        return padded, torch.Generator().manual_seed(settings.seed), resumable

    def _forget(self) -> None:
        """Delete what an earlier fit has learned."""
        for name in [n for n in (*self._parameters, *self._buffers) if n.endswith("_")]:
            delattr(self, name)

    def _pad(self, data: Trajectories, ahead: int) -> Trajectories:
        """Repeat the first measurement before each episode and the last one after it (not valid)."""
        before, after = self.context - 1, ahead - 1
        problem = getattr(self, "problem", None)
        n, m = len(data), data.u.shape[-1]
        neutral = data.u.new_zeros(n, m) if problem is None else problem.actions.neutral(n, data.u)

        def longer(x: Tensor) -> Tensor:
            return torch.cat([x[:, :1].expand(-1, before, -1), x, x[:, -1:].expand(-1, after, -1)], dim=1)

        ahead_of, behind = (
            data.period * torch.arange(k, dtype=data.t.dtype, device=data.t.device) for k in (before, after)
        )
        t = torch.cat(
            [data.t[:, :1] - data.period * before + ahead_of, data.t, data.t[:, -1:] + data.period + behind], dim=1
        )

        u = torch.cat([neutral[:, None].expand(-1, before, -1), data.u, data.u[:, -1:].expand(-1, after, -1)], dim=1)
        valid = torch.cat(
            [data.valid[:, :1].expand(-1, before), data.valid, torch.zeros_like(data.valid[:, :1]).expand(-1, after)], 1
        )
        return Trajectories(
            longer(data.y).nan_to_num(), longer(data.z).nan_to_num(), u.nan_to_num(), valid, data.period, t,
            longer(data.seen),
        )  # fmt: skip

    def _normalise(self, data: Trajectories, padded: Trajectories) -> None:
        """Learn the scales and the affine readout."""
        y, happened = data.y[..., self.kept_], data.complete
        mean, std = spread(y[:, :-1][happened])
        change = (y[:, 1:] - y[:, :-1])[happened] / std
        if not data.uniform:
            change = change * (data.period / data.dt[happened])[:, None]
        _, delta = spread(change)
        u_mean, u_std = spread(data.u[happened])
        values = {"y_mean_": mean, "y_std_": std, "delta_": delta, "u_mean_": u_mean, "u_std_": u_std}
        for name, value in values.items():
            self._learn(name, value)
        # Outputs are read after a step, since z may hold what the step itself brought, such as a reward.
        rows = starts(padded.complete, self.context, 1)
        windows = self._features(
            cut(padded.y[..., self.kept_], rows, 2 - self.context, self.context),
            cut(padded.u, rows, 2 - self.context, self.context - 1),
        )
        z = cut(padded.z, rows, 1, 1)[:, 0]
        weight, offset = affine_fit(windows, z, _RIDGE)
        residual = (z - windows @ weight - offset).square().mean(dim=0).sqrt()
        # What the ridge leaves of an exact map is nothing for a network to learn.
        scale = torch.where(residual > EXACT * spread(z)[1], residual, 0.0)
        for name, value in {"z_weight_": weight, "z_offset_": offset, "z_scale_": scale}.items():
            self._learn(name, value)


Change = Callable[[Tensor, Tensor | None], Tensor]
"""Scaled changes ``[members, n, nk]`` from inputs ``[members, n, inputs]`` and periods of the steps; None: one each."""
Readout = Callable[[Tensor, Tensor], Tensor]
"""Squared errors ``[members, n]`` of a readout, from inputs ``[members, n, inputs]`` and z."""


class Batches:
    """Mini-batches of normalised float32 windows, and the error of rollouts from them."""

    def __init__(
        self,
        model: Windowed,
        data: Trajectories,
        *,
        ahead: int,
        members: int,
        batch: int,
        validation: float,
        gen: torch.Generator,
    ) -> None:
        """Cut the windows of padded data.

        Args:
            model: A model with its scales.
            data: Padded trajectories.
            ahead: Steps of a rollout.
            members: Networks; each is shown windows of its own.
            batch: Windows per member.
            validation: Fraction of the episodes held back (:func:`~steersman.dynamics.windowed.windows.divided`).
            gen: Source of the choice.

        Raises:
            ValueError: If there are fewer than two windows.
        """
        begun = data.valid if data.whole else data.valid & data.seen[:, :-1].all(dim=-1)
        rows = starts(begun[:, : begun.shape[1] - ahead + 1], model.context, 1)
        _require_two(len(rows))
        self.rows, self.held = divided(rows, validation)
        kept = data.y[..., model.kept_]
        self.y = ((kept - model.y_mean_) / model.y_std_).float()
        self.u = ((data.u - model.u_mean_) / model.u_std_).float()
        self.z, self.valid, self.delta = data.z.float(), data.valid, model.delta_.float()
        self.seen = None if data.whole else data.seen[..., model.kept_].float()
        self.periods = None if data.uniform else torch.where(data.valid, data.dt / data.period, 1.0).float()[..., None]
        self._complete = data.complete
        self.length, self.ahead, self.members, self.batch = model.context, ahead, members, batch
        self.gen, self.dtype = gen, data.y.dtype
        self.nk, self.m, self.nz = kept.shape[-1], data.u.shape[-1], data.z.shape[-1]
        self.inputs = self.length * self.nk + (self.length - 1) * self.m
        """Width of a window without its newest action."""

    def arx(self) -> Float[Tensor, "inputs nk"]:
        """Linear map from windows with their newest action to scaled changes, by ridge regression."""
        rows = self.rows[self._complete[self.rows[:, 0], self.rows[:, 1]]]
        change = (cut(self.y, rows, 1, 1) - cut(self.y, rows, 0, 1))[:, 0].to(self.dtype) / self.delta
        if self.periods is not None:
            change = change / cut(self.periods, rows, 0, 1)[:, 0].to(self.dtype)
        return ridge(self._phi(rows), change, 1e-6)

    def spread_over(self, limit: int) -> Float[Tensor, "k inputs"]:
        """At most ``limit`` training windows spread over the data."""
        pick = torch.linspace(0, len(self.rows) - 1, min(limit, len(self.rows))).long()
        return self._phi(self.rows[pick])

    def fresh(self) -> Int[Tensor, "k 2"]:
        """Random windows, different ones for each member."""
        return self.rows[torch.randint(len(self.rows), (self.members * self.batch,), generator=self.gen)]

    def held_back(self) -> Int[Tensor, "k 2"]:
        """Windows for validation, the same ones for each member."""
        pick = torch.linspace(0, len(self.held) - 1, min(512, len(self.held))).long().repeat(self.members)
        return self.held[pick]

    def error(self, change: Change, rows: Int[Tensor, "k 2"], readout: Readout | None = None) -> Float[Tensor, ""]:
        """Mean over steps of rollouts of the Huber loss of errors in units of one-step changes, plus the readout's.

        Args:
            change: What the model says of a step.
            rows: Windows, a multiple of ``members``.
            readout: Error of the readout at the windows that were measured: in units of a residual that may be small,
                errors of the predicted ones would drown it and everything else.
        """
        first, total = 1 - self.length, self.length + self.ahead
        y, z = (self._split(cut(series, rows, first, total)) for series in (self.y, self.z))
        u = self._split(cut(self.u, rows, first, total - 1))
        happened = self.valid[rows[:, :1], rows[:, 1:] + torch.arange(self.ahead, device=rows.device)]
        mask = happened.cumprod(dim=1).reshape(self.members, -1, self.ahead).float()
        seen = None if self.seen is None else self._split(cut(self.seen, rows, first, total))
        periods = None if self.periods is None else self._split(cut(self.periods, rows, 0, self.ahead))
        window, error, judged = y[:, :, : self.length], y.new_zeros(()), mask
        if seen is not None:
            judged = mask * seen[:, :, self.length :].amax(dim=3)
        for j in range(self.ahead):
            past, now = u[:, :, j : j + self.length - 1], self.length + j - 1
            x = torch.cat([window.flatten(2), past.flatten(2)], dim=2)
            alive = judged[:, :, j]
            step = None if periods is None else periods[:, :, j]
            after = window[:, :, -1] + self.delta * change(torch.cat([x, u[:, :, now]], dim=2), step)
            off = huber((after - y[:, :, now + 1]) / self.delta)
            error = error + torch.where(alive > 0, _mean(off, None if seen is None else seen[:, :, now + 1]), 0.0).sum()
            window = torch.cat([window[:, :, 1:], after[:, :, None]], dim=2)
            if readout is not None:
                measured, past = y[:, :, j + 1 : now + 2], u[:, :, j + 1 : now + 1]
                x = torch.cat([measured.flatten(2), past.flatten(2)], dim=2)
                if seen is not None:  # z is known where all outputs are
                    alive = alive * seen[:, :, j + 1 : now + 2].flatten(2).amin(dim=2)
                error = error + torch.where(alive > 0, readout(x, z[:, :, now + 1]), 0.0).sum()
        return error / judged.sum().clamp(min=1)

    def _phi(self, rows: Tensor) -> Tensor:
        y, u = (cut(series, rows, 1 - self.length, self.length) for series in (self.y, self.u))
        return torch.cat([y.flatten(1), u.flatten(1)], dim=1).to(self.dtype)

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(self.members, -1, *x.shape[1:])


def huber(error: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Huber's loss (1964): the square of an error up to 1, from there on linear with the same slope.

    Disturbances that no window foretells, such as a short circuit, are rare and large. Squared, they are most of a loss
    that no model can lower, and drown what it could.
    """
    return 2 * torch.nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none")


def _mean(error: Float[Tensor, "m k d"], seen: Float[Tensor, "m k d"] | None) -> Float[Tensor, "m k"]:
    """Mean over the outputs, of those that were seen."""
    return error.mean(dim=2) if seen is None else (seen * error).sum(dim=2) / seen.sum(dim=2).clamp(min=1)


def _require_two(windows: int) -> None:
    if windows < 2:
        raise ValueError(
            f"training needs at least two windows, one of them to be held back, got {windows}; collect more steps or "
            "episodes"
        )


def parts(h: Hidden) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, actions and exogenous outputs of a hidden state."""
    found = cast(dict[str, Tensor], h)
    return found["y"], found["u"], found["exogenous"]
