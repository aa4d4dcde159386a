"""A residual network on windows of outputs and actions, trained on its own rollouts, as an ensemble."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.dynamics.base import Hidden, Trajectories
from steersman.dynamics.windowed.base import Batches, Windowed, parts
from steersman.dynamics.windowed.ensemble import Weights, answers, forward, new_ensemble, train
from steersman.dynamics.windowed.settings import WindowSettings
from steersman.envs.settings import Count

_EDGE = 0.99
"""Quantile of the training data that is called the edge."""


@dataclass(frozen=True, kw_only=True)
class NeuralSettings(WindowSettings):
    """Settings of :class:`NeuralDynamics`.

    Attributes:
        members: Networks in the ensemble.
        steps: Largest number of gradient steps.
    """

    context: Count = 4
    hidden: tuple[Count, ...] = (64, 64)
    members: Count = 4
    rollout: Count = 4
    steps: Count = 2000


class NeuralDynamics(Windowed):
    """``y+ = y + delta * f(y window, u window)`` and ``z = readout(window)``, both ensembles.

    f is a SiLU network beside a linear map that starts at the ridge-regression ARX model; ``delta`` is the
    one-step change of each output in the data. Members are trained on windows of their own choice, over
    ``rollout`` steps of their own predictions; a prediction is the mean over members at each step. The readout is
    affine plus a network, because z need not be a function of y alone; where the affine part is exact the
    network is switched off. The networks run in float32, windows and their changes are added up in the data's type.
    """

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
        s = self.settings
        padded, gen, resumable = self._begin(data, s)
        batches = Batches(
            self, padded, ahead=s.rollout, members=s.members, batch=s.batch, validation=s.validation, gen=gen
        )
        core = new_ensemble(s.members, batches.inputs + batches.m, s.hidden, batches.nk, gen, batches.arx())
        head = new_ensemble(
            s.members, batches.inputs, s.hidden, batches.nz, gen, batches.y.new_zeros(batches.inputs, batches.nz)
        )
        loss = _Loss(self, batches, core, head)
        train(
            [core, head], loss.fresh, loss.validate,
            steps=s.steps, rate=s.rate, patience=s.patience, every=100, progress=self.progress, gen=gen,
            resumable=resumable, stage="train",
        )  # fmt: skip
        for prefix, weights in (("core", core), ("head", head)):
            for name, value in weights.items():
                self._learn(f"{prefix}_{name}_", value, trainable=True)
        self._edge(batches)
        return self

    def _trainable(self, name: str) -> bool:
        return name.startswith(("core_", "head_"))

    def _learn(self, name: str, value: Tensor, *, trainable: bool = False) -> None:
        super()._learn(name, value, trainable=trainable)
        if name == "z_scale_":  # read once: every step of every prediction asks
            self._bent = bool(value.any())

    def _edge(self, batches: Batches) -> None:
        """Covariance of the inputs, and the values of distance and spread at the edge of the training data."""
        phi = batches.spread_over(4096)
        # The floor keeps directions in which windows hardly vary from dominating the distance.
        cov = phi.T @ phi / len(phi) + 1e-2 * torch.eye(phi.shape[1], dtype=phi.dtype, device=phi.device)
        self._learn("whiten_", torch.linalg.inv(torch.linalg.cholesky(cov)))
        with torch.no_grad():
            found = self._distances(phi)
        self._learn("edge_", torch.quantile(found, _EDGE, dim=0).clamp(min=1e-9))

    # ------------------------------------------------------------------ prediction

    def _change(self, phi: Float[Tensor, "n inputs"], periods: Tensor | None) -> Float[Tensor, "n nk"]:
        return self._members("core", phi).mean(dim=0)

    def _readout(self, phi: Float[Tensor, "n inputs"]) -> Float[Tensor, "n nz"]:
        affine = super()._readout(phi)
        # Asked at every step of every prediction; where the affine part is exact everywhere, the networks add nothing.
        return affine + self.z_scale_ * self._members("head", phi).mean(dim=0) if self._bent else affine

    def _members(self, prefix: str, x: Tensor) -> Tensor:
        head = f"{prefix}_"
        weights: Weights = {
            name.removeprefix(head).removesuffix("_"): value
            for name, value in self._parameters.items()
            if name.startswith(head) and value is not None
        }
        return answers(weights, x)

    def _distances(self, phi: Tensor) -> Tensor:
        """Mahalanobis distance of the inputs and disagreement of the members, ``[n, 2]``."""
        far = ((phi @ self.whiten_.T).square().mean(dim=1) + 1e-12).sqrt()
        away = (self._members("core", phi).var(dim=0, correction=0).mean(dim=1) + 1e-12).sqrt()
        return torch.stack([far, away], dim=1)

    def doubt(self, h: Hidden, u: Float[Tensor, "n m"]) -> Float[Tensor, "n"]:
        """Larger of two distances to the data, each 1 at the 99th percentile of the training windows.

        One is the Mahalanobis distance of the input (blind to holes inside the cloud), the other the standard
        deviation over the members (blind where all extrapolate alike).
        """
        y, past, _ = parts(h)
        phi = self._features(y, torch.cat([past, u[:, None]], dim=1))
        return (self._distances(phi) / self.edge_).amax(dim=1)


class _Loss:
    """Errors of the two ensembles on windows of the batches."""

    def __init__(self, model: NeuralDynamics, batches: Batches, core: Weights, head: Weights) -> None:
        self._batches, self._core, self._head = batches, core, head
        self._affine, self._offset = model.z_weight_.float(), model.z_offset_.float()
        # Readouts that are exact already get no network: their inverse scale is zero, and so is their loss.
        self._per_z = torch.where(model.z_scale_ > 0, 1 / model.z_scale_, 0.0).float()
        self._bent = bool(self._per_z.any())

    def fresh(self) -> Tensor:
        """Loss of fresh windows."""
        return self._of(self._batches.fresh())

    def validate(self) -> float:
        """Mean loss of the members on held-back windows."""
        with torch.no_grad():
            return float(self._of(self._batches.held_back()))

    def _of(self, rows: Tensor) -> Tensor:
        readout = self._readout if self._bent else None
        return self._batches.error(lambda x, _: forward(self._core, x), rows, readout)

    def _readout(self, x: Tensor, z: Tensor) -> Tensor:
        """Squared error of the readout in units of the affine one's."""
        target = (z - x @ self._affine - self._offset) * self._per_z
        return ((forward(self._head, x) - target) * (self._per_z > 0)).square().mean(dim=2)
