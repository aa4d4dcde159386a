"""Surrogates of populations by mass-action kinetics: processes with rates, their mean and their covariance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import nnls
from torch import Tensor

from steersman.dynamics.base import Hidden, Trajectories, Window
from steersman.dynamics.learned import Learned
from steersman.dynamics.linear.regression import affine_fit
from steersman.dynamics.windowed.windows import cut, starts
from steersman.envs.integrators import row_steps
from steersman.envs.settings import Count, Positive, Settings, Whole
from steersman.optimizers.resumable import Descent

_FLOOR = 1e-6
"""Smallest quantity, relative to its scale, that a learned exponent is applied to."""


@dataclass(frozen=True)
class Process:
    """One process: its rate is a constant times the product of the named quantities.

    Attributes:
        rate: Names of measured outputs and actions, each as often as its order; empty for a constant rate.
        change: Change of each measured output by one event.
    """

    rate: tuple[str, ...]
    change: dict[str, int | float]


@dataclass(frozen=True)
class ReactionSettings(Settings):
    """Settings of :class:`ReactionDynamics`.

    Attributes:
        processes: The processes.
        exponents: Whether the orders of the outputs are fitted too (generalised mass action, S-systems), and not
            only the rate constants (mass action).
        substeps: Steps of the Runge-Kutta method of fourth order in a control period.
        rollout: Control steps of the rollouts that are fitted.
        steps: Gradient steps after the first estimate by linear regression.
        batch: Rollouts per gradient step.
        rate: Initial learning rate of Adam, of logarithms and exponents.
        seed: Seed of mini-batches.
    """

    processes: tuple[Process, ...]
    exponents: bool = False
    substeps: Count = 2
    rollout: Count = 10
    steps: Whole = 400
    batch: Count = 128
    rate: Positive = 0.02
    seed: Whole = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.processes:
            raise ValueError("processes must name at least one process: its rate and its change")


class ReactionDynamics(Learned):
    """``dy/dt = sum_k c_k change_k prod_j (y_j / scale_j)^g_kj prod_l u_l^h_kl`` over the measured outputs y.

    Rate constants c are positive; outputs never fall below zero. Constants are estimated by non-negative least
    squares on changes over one step and then fitted, with the exponents if asked, to rollouts. Fit it to means over
    replicas (:func:`~steersman.dynamics.collect.collect_means`) if it is to predict means: noise in single
    trajectories biases the constants. z is an affine function of y.

    The covariance follows the linear noise approximation (van Kampen), each output's noise scaled to the one-step
    residuals of the data.
    """

    change_: Tensor
    orders_: Tensor
    controls_: Tensor
    scale_: Tensor
    log_rate_: Tensor
    dispersion_: Tensor
    z_weight_: Tensor
    z_offset_: Tensor

    context = 1
    uniform_only = False

    def __init__(self, settings: ReactionSettings) -> None:
        """Store the settings."""
        super().__init__()
        self.settings = settings

    # ------------------------------------------------------------------ fit

    def fit(self, data: Trajectories) -> ReactionDynamics:
        """Forget everything, then estimate and refine.

        Raises:
            ValueError: If the data are not finite or do not fit the problem, or a process names what is not measured.
            RuntimeError: If the model is bound to no problem, whose names it needs.
        """
        self._prepare(data)
        training = self._resumable(data)
        data = replace(data, valid=data.complete)
        self._set_structure(data)
        s = self.settings
        kept = data.y[..., self.kept_]
        self._learn("scale_", kept[:, :-1][data.valid].abs().mean(dim=0).clamp(min=1e-9))
        self._estimate(kept, data)
        rows = starts(data.valid, 1, min(s.rollout, data.u.shape[1]))
        ahead = min(s.rollout, data.u.shape[1])
        dt = None if data.uniform else data.dt.to(kept)[..., None]
        weight = 1 / (kept[:, 1:] - kept[:, :-1])[data.valid].std(dim=0, correction=0).clamp(min=1e-9)
        gen = torch.Generator().manual_seed(s.seed)
        tensors = [p for p in self.parameters() if p.requires_grad]
        adam = torch.optim.Adam(tensors, s.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(1, s.steps))

        def descend(i: int) -> bool:
            pick = rows[torch.randint(len(rows), (min(s.batch, len(rows)),), generator=gen)]
            y, u = cut(kept, pick, 0, ahead + 1), cut(data.u, pick, 0, ahead)
            lasting = None if dt is None else cut(dt, pick, 0, ahead)
            now, loss = y[:, 0], y.new_zeros(())
            for j in range(ahead):
                now = self._advance(now, u[:, j], None if lasting is None else lasting[:, j])
                loss = loss + ((now - y[:, j + 1]) * weight).square().mean() / ahead
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(tensors, 1.0)
            adam.step()
            schedule.step()
            if (i + 1) % 50 == 0:
                self.progress((i + 1) / s.steps, f"error {float(loss.detach()):.3g}")
            return False

        training.run("train", Descent(tensors, adam, schedule, gen), s.steps, descend)
        self._noise(kept, data)
        mask = data.valid
        z_weight, z_offset = affine_fit(kept[:, 1:][mask], data.z[:, 1:][mask], 1e-10)
        self._learn("z_weight_", z_weight)
        self._learn("z_offset_", z_offset)
        return self

    def _set_structure(self, data: Trajectories) -> None:
        problem = getattr(self, "problem", None)
        if problem is None:
            raise RuntimeError("ReactionDynamics needs the names of outputs and actions; call bind(problem) before fit")
        outputs = [problem.measured[i] for i in self.kept_.tolist()]
        actions = list(problem.actions.names) or [f"u{i}" for i in range(problem.actions.m)]
        k = len(self.settings.processes)
        shape = {"change_": len(outputs), "orders_": len(outputs), "controls_": len(actions)}
        found = {name: data.y.new_zeros(k, width) for name, width in shape.items()}
        for i, process in enumerate(self.settings.processes):
            for name in process.rate:
                if name in outputs:
                    found["orders_"][i, outputs.index(name)] += 1
                elif name in actions:
                    found["controls_"][i, actions.index(name)] += 1
                else:
                    raise ValueError(f"process {i} names {name!r}; known: {', '.join((*outputs, *actions))}")
            for name, amount in process.change.items():
                if name not in outputs:
                    raise ValueError(f"process {i} changes {name!r}; known outputs: {', '.join(outputs)}")
                found["change_"][i, outputs.index(name)] = amount
        for name, value in found.items():
            self._learn(name, value, trainable=self._trainable(name))

    def _trainable(self, name: str) -> bool:
        return name == "log_rate_" or (name == "orders_" and self.settings.exponents)

    def _estimate(self, y: Tensor, data: Trajectories) -> None:
        """Rate constants by non-negative least squares on the changes over one step."""
        before, after, mask = y[:, :-1][data.valid], y[:, 1:][data.valid], data.valid
        self._learn("log_rate_", y.new_zeros(len(self.settings.processes)), trainable=True)
        with torch.no_grad():
            # Rates at the start only: means with the end would correlate with the noise of the change.
            rates = self._rates(before, data.u[mask]) * data.dt[mask][:, None].to(y)
        unit = (after - before).std(dim=0, correction=0).clamp(min=1e-9)
        change, effect = (after - before) / unit, self.change_ / unit
        table = (rates[:, None, :] * effect.T[None]).reshape(-1, rates.shape[1]).cpu().numpy()
        found, _ = nnls(table, change.reshape(-1).cpu().numpy())
        floor = 1e-4 * max(float(found.max()), 1e-12)
        self._learn("log_rate_", torch.from_numpy(np.log(np.maximum(found, floor))).to(y), trainable=True)

    @torch.no_grad()
    def _noise(self, y: Tensor, data: Trajectories) -> None:
        """Scale of each output's noise: residual variance over what independent events would give."""
        before, u, dt = y[:, :-1][data.valid], data.u[data.valid], data.dt[data.valid][:, None].to(y)
        residual = y[:, 1:][data.valid] - self._advance(before, u, None if data.uniform else dt)
        expected = (dt * self._rates(before, u)) @ self.change_.square()
        self._learn("dispersion_", residual.square().mean(dim=0) / expected.mean(dim=0).clamp(min=1e-12))

    # ------------------------------------------------------------------ prediction

    def _rates(self, y: Float[Tensor, "n nk"], u: Float[Tensor, "n m"]) -> Float[Tensor, "n k"]:
        """Events per time of each process."""
        level = torch.log((y / self.scale_).clamp(min=_FLOOR))
        present = torch.where(self.orders_ != 0, (y > 0).to(y.dtype)[:, None], 1.0).prod(dim=2)
        push = torch.where(self.controls_ > 0, u[:, None].clamp(min=0.0) ** self.controls_, 1.0).prod(dim=2)
        return torch.exp(self.log_rate_ + level @ self.orders_.T) * present * push

    def _slope(self, y: Tensor, u: Tensor) -> Tensor:
        return self._rates(y, u) @ self.change_

    def _advance(
        self, y: Float[Tensor, "n nk"], u: Float[Tensor, "n m"], dt: Float[Tensor, "n 1"] | None = None
    ) -> Float[Tensor, "n nk"]:
        """Outputs after u was held for ``dt``, by default one control period."""
        period, substeps = self.problem.period, self.settings.substeps
        if dt is None:
            for _ in range(substeps):
                y = self._substep(y, u, period / substeps)
            return y
        for h in row_steps(dt, period, substeps):
            y = self._substep(y, u, h)
        return y

    def _substep(self, y: Float[Tensor, "n nk"], u: Float[Tensor, "n m"], h: Tensor | float) -> Float[Tensor, "n nk"]:
        """A Runge-Kutta step of order 4."""
        a = self._slope(y, u)
        b = self._slope(y + h / 2 * a, u)
        c = self._slope(y + h / 2 * b, u)
        d = self._slope(y + h * c, u)
        return torch.relu(y + h / 6 * (a + 2 * b + 2 * c + d))

    def init(self, window: Window) -> Hidden:
        """Hidden state: the newest kept outputs ``y`` and the ``exogenous`` ones.

        Raises:
            RuntimeError: Before a fit.
        """
        y, _, exogenous = self._window(window)
        return {"y": y[:, -1], "exogenous": exogenous}

    def step(
        self, h: Hidden, u: Float[Tensor, "n m"], dt: Float[Tensor, "n"] | None = None, w: Tensor | None = None
    ) -> Hidden:
        """See :class:`~steersman.dynamics.base.Dynamics`."""
        parts = cast(dict[str, Tensor], h)
        return {"y": self._advance(parts["y"], u, None if dt is None else dt[:, None]), "exogenous": parts["exogenous"]}

    def output(self, h: Hidden) -> tuple[Float[Tensor, "n ny"], Float[Tensor, "n nz"]]:
        """See :class:`~steersman.dynamics.base.Dynamics`."""
        parts = cast(dict[str, Tensor], h)
        return self._assemble(parts["y"], parts["exogenous"]), parts["y"] @ self.z_weight_ + self.z_offset_

    def moments(
        self, h: Hidden, U: Float[Tensor, "n h m"]
    ) -> tuple[Float[Tensor, "n h nk"], Float[Tensor, "n h nk nk"]]:
        """Means and covariances of the kept outputs after each action, from a known start."""
        y = cast(dict[str, Tensor], h)["y"]
        n, nk = y.shape
        P = y.new_zeros(n, nk, nk)
        means, covariances = [], []
        jacobian = torch.func.vmap(torch.func.jacrev(lambda y, u: self._advance(y[None], u[None])[0]))
        spread = self.dispersion_.clamp(min=0).sqrt()
        for j in range(U.shape[1]):
            A = jacobian(y, U[:, j])
            events = self.problem.period * self._rates(y, U[:, j])
            Q = torch.einsum("nk,ki,kj->nij", events, self.change_, self.change_) * spread[:, None] * spread
            P = A @ P @ A.transpose(1, 2) + Q
            y = self._advance(y, U[:, j])
            means.append(y)
            covariances.append(P)
        return torch.stack(means, 1), torch.stack(covariances, 1)
