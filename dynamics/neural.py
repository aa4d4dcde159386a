"""A residual network on windows of outputs and actions, trained on its own rollouts, as an ensemble."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.dynamics.base import Hidden, Trajectories, Window
from steersman.dynamics.ensemble import Weights, forward, new_ensemble, train
from steersman.dynamics.learned import Learned
from steersman.dynamics.windows import affine_fit, cut, ridge, spread, starts

_EDGE = 0.99
"""Quantile of the training data that is called the edge."""


@dataclass(frozen=True)
class NeuralSettings:
    """Settings of :class:`NeuralDynamics`.

    Attributes:
        context: Measurements in the window.
        hidden: Widths of the hidden layers.
        members: Networks in the ensemble.
        rollout: Steps of the rollout loss.
        steps: Largest number of gradient steps.
        batch: Windows per member and gradient step.
        rate: Initial learning rate of Adam.
        patience: Validations (every 100 steps) without improvement after which training stops.
        validation: Fraction of the windows held back for early stopping.
        seed: Seed of weights and mini-batches.
    """

    context: int = 4
    hidden: tuple[int, ...] = (64, 64)
    members: int = 4
    rollout: int = 4
    steps: int = 2000
    batch: int = 128
    rate: float = 2e-3
    patience: int = 5
    validation: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("context", "members", "rollout", "steps", "batch", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"hidden widths must be at least 1, got {self.hidden}")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation must lie between 0 and 1, got {self.validation}")
        if not self.rate > 0:
            raise ValueError(f"rate must be positive, got {self.rate}")


class NeuralDynamics(Learned):
    """``y+ = y + delta * f(y window, u window)`` and ``z = readout(window)``, both ensembles.

    f is a SiLU network beside a linear map that starts at the ridge-regression ARX model; ``delta`` is the
    one-step change of each output in the data. Members are trained on windows of their own choice, over
    ``rollout`` steps of their own predictions; a prediction is the mean over members at each step. The readout is
    affine plus a network, because z need not be a function of y alone; where the affine part is exact the
    network is switched off. Training runs in float32, the result is stored in the data's type.

    Episodes' starts are included with windows filled by repetition, as :class:`~steersman.controllers.base.Memory`
    fills them.
    """

    y_mean_: Tensor
    y_std_: Tensor
    u_mean_: Tensor
    u_std_: Tensor
    delta_: Tensor
    z_weight_: Tensor
    z_offset_: Tensor
    z_scale_: Tensor
    whiten_: Tensor
    edge_: Tensor

    def __init__(self, settings: NeuralSettings | None = None) -> None:
        """Store the settings."""
        super().__init__()
        self.settings = settings or NeuralSettings()
        self.context = self.settings.context

    # ------------------------------------------------------------------ fit

    def fit(self, data: Trajectories) -> NeuralDynamics:
        """Forget everything, then train from ``settings.seed``.

        Raises:
            ValueError: If the data are not finite, do not fit the bound problem or hold fewer than two windows.
        """
        for name in [n for n in (*self._parameters, *self._buffers) if n.endswith("_")]:
            delattr(self, name)
        self._prepare(data)
        s, length = self.settings, self.context
        padded = self._pad(data)
        self._normalise(data, padded)
        rows = starts(padded.valid[:, : padded.valid.shape[1] - s.rollout + 1], length, 1)
        if len(rows) < 2:
            raise ValueError("training needs at least two windows; collect more steps")
        held = min(max(1, round(s.validation * len(rows))), len(rows) - 1)
        gen = torch.Generator().manual_seed(s.seed)
        batches = _Batches(self, padded, rows[:-held], rows[-held:], gen)
        core = new_ensemble(s.members, batches.inputs + batches.m, s.hidden, batches.nk, gen, batches.arx())
        head = new_ensemble(
            s.members, batches.inputs, s.hidden, batches.nz, gen, torch.zeros(batches.inputs, batches.nz)
        )
        train(
            [core, head], lambda: batches.loss(core, head), lambda: batches.validate(core, head),
            steps=s.steps, rate=s.rate, patience=s.patience, every=100, progress=self.progress,
        )  # fmt: skip
        for prefix, weights in (("core", core), ("head", head)):
            for name, value in weights.items():
                self._learn(f"{prefix}_{name}_", value.to(data.y.dtype), trainable=True)
        self._edge(batches)
        return self

    def _trainable(self, name: str) -> bool:
        return name.startswith(("core_", "head_"))

    def _pad(self, data: Trajectories) -> Trajectories:
        """Repeat the first measurement before each episode and the last one after it (not valid)."""
        before, after = self.context - 1, self.settings.rollout - 1
        problem = getattr(self, "problem", None)
        n, m = len(data), data.u.shape[-1]
        neutral = data.u.new_zeros(n, m) if problem is None else problem.actions.neutral(n, data.u)

        def longer(x: Tensor) -> Tensor:
            return torch.cat([x[:, :1].expand(-1, before, -1), x, x[:, -1:].expand(-1, after, -1)], dim=1)

        u = torch.cat([neutral[:, None].expand(-1, before, -1), data.u, data.u[:, -1:].expand(-1, after, -1)], dim=1)
        valid = torch.cat(
            [data.valid[:, :1].expand(-1, before), data.valid, torch.zeros_like(data.valid[:, :1]).expand(-1, after)], 1
        )
        return Trajectories(
            longer(data.y).nan_to_num(), longer(data.z).nan_to_num(), u.nan_to_num(), valid, data.period
        )

    def _normalise(self, data: Trajectories, padded: Trajectories) -> None:
        y = data.y[..., self.kept_]
        mean, std = spread(y[:, :-1][data.valid])
        _, delta = spread(((y[:, 1:] - y[:, :-1])[data.valid]) / std)
        u_mean, u_std = spread(data.u[data.valid])
        values = {"y_mean_": mean, "y_std_": std, "delta_": delta, "u_mean_": u_mean, "u_std_": u_std}
        for name, value in values.items():
            self._learn(name, value)
        rows = starts(padded.valid, self.context, 1)
        windows = self._features(
            cut(padded.y[..., self.kept_], rows, 1 - self.context, self.context),
            cut(padded.u, rows, 1 - self.context, self.context - 1),
        )
        z = cut(padded.z, rows, 0, 1)[:, 0]
        weight, offset = affine_fit(windows, z, 1e-10)
        residual = (z - windows @ weight - offset).square().mean(dim=0).sqrt()
        # An affine map that is exact up to rounding leaves nothing for the network but noise.
        scale = torch.where(residual > 1e-6 * spread(z)[1], residual, 0.0)
        for name, value in {"z_weight_": weight, "z_offset_": offset, "z_scale_": scale}.items():
            self._learn(name, value)

    def _edge(self, batches: _Batches) -> None:
        """Covariance of the inputs, and the values of distance and spread at the edge of the training data."""
        phi = batches.inputs_at(4096)
        # The floor keeps directions in which windows hardly vary from dominating the distance.
        cov = phi.T @ phi / len(phi) + 1e-2 * torch.eye(phi.shape[1], dtype=phi.dtype)
        self._learn("whiten_", torch.linalg.inv(torch.linalg.cholesky(cov)))
        with torch.no_grad():
            found = self._distances(phi)
        self._learn("edge_", torch.quantile(found, _EDGE, dim=0).clamp(min=1e-9))

    # ------------------------------------------------------------------ prediction

    def _features(self, y: Tensor, u: Tensor) -> Tensor:
        """Normalised windows, flattened: outputs first, oldest first."""
        y, u = (y - self.y_mean_) / self.y_std_, (u - self.u_mean_) / self.u_std_
        return torch.cat([y.flatten(1), u.flatten(1)], dim=1)

    def _members(self, prefix: str, x: Tensor) -> Tensor:
        head = f"{prefix}_"
        weights: Weights = {
            name.removeprefix(head).removesuffix("_"): value
            for name, value in self._parameters.items()
            if name.startswith(head) and value is not None
        }
        return forward(weights, x.expand(self.settings.members, *x.shape))

    def _distances(self, phi: Tensor) -> Tensor:
        """Mahalanobis distance of the inputs and disagreement of the members, ``[n, 2]``."""
        far = ((phi @ self.whiten_.T).square().mean(dim=1) + 1e-12).sqrt()
        away = (self._members("core", phi).var(dim=0, correction=0).mean(dim=1) + 1e-12).sqrt()
        return torch.stack([far, away], dim=1)

    def init(self, window: Window) -> Hidden:
        """Hidden state: the window as ``y`` (kept outputs) and ``u``, and the ``exogenous`` outputs.

        Raises:
            ValueError: If the window is too short.
            RuntimeError: Before a fit.
        """
        y, u, exogenous = self._window(window)
        return {"y": y, "u": u, "exogenous": exogenous}

    def step(self, h: Hidden, u: Float[Tensor, "n m"]) -> Hidden:
        """See :class:`~steersman.dynamics.base.Dynamics`."""
        y, past, exogenous = _parts(h)
        actions = torch.cat([past, u[:, None]], dim=1)
        change = self._members("core", self._features(y, actions)).mean(dim=0)
        after = y[:, -1] + self.y_std_ * self.delta_ * change
        return {"y": torch.cat([y[:, 1:], after[:, None]], dim=1), "u": actions[:, 1:], "exogenous": exogenous}

    def output(self, h: Hidden) -> tuple[Float[Tensor, "n ny"], Float[Tensor, "n nz"]]:
        """See :class:`~steersman.dynamics.base.Dynamics`."""
        y, past, exogenous = _parts(h)
        x = self._features(y, past)
        z = x @ self.z_weight_ + self.z_offset_ + self.z_scale_ * self._members("head", x).mean(dim=0)
        return self._assemble(y[:, -1], exogenous), z

    def doubt(self, h: Hidden, u: Float[Tensor, "n m"]) -> Float[Tensor, "n"]:
        """Larger of two distances to the data, each 1 at the 99th percentile of the training windows.

        One is the Mahalanobis distance of the input (blind to holes inside the cloud), the other the standard
        deviation over the members (blind where all extrapolate alike).
        """
        y, past, _ = _parts(h)
        phi = self._features(y, torch.cat([past, u[:, None]], dim=1))
        return (self._distances(phi) / self.edge_).amax(dim=1)


class _Batches:
    """Mini-batches of normalised float32 windows, and the losses on them."""

    def __init__(
        self, model: NeuralDynamics, data: Trajectories, rows: Tensor, held: Tensor, gen: torch.Generator
    ) -> None:
        s = model.settings
        kept = data.y[..., model.kept_]
        self.y = ((kept - model.y_mean_) / model.y_std_).float()
        self.u = ((data.u - model.u_mean_) / model.u_std_).float()
        self.z, self.valid, self.delta = data.z.float(), data.valid, model.delta_.float()
        self.affine, self.offset = model.z_weight_.float(), model.z_offset_.float()
        # Readouts that are exact already get no network: their inverse scale is zero, and so is their loss.
        self.per_z = torch.where(model.z_scale_ > 0, 1 / model.z_scale_, 0.0).float()
        self.length, self.ahead, self.members, self.batch = s.context, s.rollout, s.members, s.batch
        self.rows, self.held, self.gen, self.dtype = rows, held, gen, data.y.dtype
        self.nk, self.m, self.nz = kept.shape[-1], data.u.shape[-1], data.z.shape[-1]
        self.inputs = self.length * self.nk + (self.length - 1) * self.m

    def arx(self) -> Tensor:
        """Linear map from inputs to scaled changes by ridge regression."""
        phi = self._inputs(self.rows)
        change = (cut(self.y, self.rows, 1, 1) - cut(self.y, self.rows, 0, 1))[:, 0].to(self.dtype) / self.delta
        return ridge(phi, change, 1e-6)

    def inputs_at(self, limit: int) -> Tensor:
        """Network inputs of training windows spread over the data."""
        pick = torch.linspace(0, len(self.rows) - 1, min(limit, len(self.rows))).long()
        return self._inputs(self.rows[pick])

    def loss(self, core: Weights, head: Weights) -> Tensor:
        """Loss of fresh windows, different ones for each member."""
        pick = torch.randint(len(self.rows), (self.members * self.batch,), generator=self.gen)
        return self._loss(core, head, self.rows[pick])

    def validate(self, core: Weights, head: Weights) -> float:
        """Mean loss of the members on held-back windows."""
        share = min(512, len(self.held))
        pick = torch.linspace(0, len(self.held) - 1, share).long().repeat(self.members)
        with torch.no_grad():
            return float(self._loss(core, head, self.held[pick]))

    def _inputs(self, rows: Tensor) -> Tensor:
        y, u = (cut(series, rows, 1 - self.length, self.length) for series in (self.y, self.u))
        return torch.cat([y.flatten(1), u.flatten(1)], dim=1).to(self.dtype)

    def _loss(self, core: Weights, head: Weights, rows: Tensor) -> Tensor:
        """Masked mean over the rollout of the squared error in units of one-step changes, plus the readout's."""
        first, total = 1 - self.length, self.length + self.ahead
        y, z = (self._split(cut(series, rows, first, total)) for series in (self.y, self.z))
        u = self._split(cut(self.u, rows, first, total - 1))
        happened = self.valid[rows[:, :1], rows[:, 1:] + torch.arange(self.ahead)]
        mask = happened.cumprod(dim=1).reshape(self.members, -1, self.ahead).float()
        window, error = y[:, :, : self.length], y.new_zeros(())
        for j in range(self.ahead):
            past, now = u[:, :, j : j + self.length - 1], self.length + j - 1
            x = torch.cat([window.flatten(2), past.flatten(2)], dim=2)
            alive = mask[:, :, j]
            error = error + (alive * self._readout(head, x.detach(), z[:, :, now])).sum()
            change = forward(core, torch.cat([x, u[:, :, now]], dim=2))
            after = window[:, :, -1] + self.delta * change
            error = error + (alive * ((after - y[:, :, now + 1]) / self.delta).square().mean(dim=2)).sum()
            window = torch.cat([window[:, :, 1:], after[:, :, None]], dim=2)
        return error / mask.sum()

    def _readout(self, head: Weights, x: Tensor, z: Tensor) -> Tensor:
        """Squared error of the readout in units of the affine one's; predictions are not bent to help it."""
        target = (z - x @ self.affine - self.offset) * self.per_z
        return ((forward(head, x) - target) * (self.per_z > 0)).square().mean(dim=2)

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(self.members, -1, *x.shape[1:])


def _parts(h: Hidden) -> tuple[Tensor, Tensor, Tensor]:
    parts = cast(dict[str, Tensor], h)
    return parts["y"], parts["u"], parts["exogenous"]
