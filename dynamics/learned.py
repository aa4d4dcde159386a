"""What fitted models share: learned tensors that survive saving, and the split off of exogenous outputs."""

from __future__ import annotations

from abc import ABC

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.dynamics.base import REMEDY, Dynamics, Trajectories, Window
from steersman.dynamics.windowed.windows import require_finite, require_moderate
from steersman.optimizers.resumable import Resumable


class Learned(Dynamics, ABC):
    """A model whose learned tensors end in ``_``, take their shapes from the data and exist only after a fit.

    ``load_state_dict`` accepts the state of a fitted model of any shape, so a fresh instance can be restored.

    Attributes:
        kept_: Indices of the measured outputs that the model predicts.
        exogenous_: Indices of those that no action influences; they repeat their last value.
    """

    kept_: Tensor
    exogenous_: Tensor
    _single: bool = False
    """Whether a fit trains in single precision."""
    _training: Resumable | None = None

    def _prepare(self, data: Trajectories) -> None:
        """Check the data, also against the problem, and set the indices of kept and exogenous outputs."""
        require_finite(data)
        if self.uniform_only and not data.uniform:
            steps = data.dt[data.valid]
            raise ValueError(
                f"{type(self).__name__} knows steps of one control period ({data.period:g}) only, and the data have "
                f"some of {float(steps.min()):g} to {float(steps.max()):g}; {REMEDY}"
            )
        ny, m = data.y.shape[-1], data.u.shape[-1]
        problem = getattr(self, "problem", None)
        if problem is not None:
            for name, got, want in (
                ("y", ny, problem.ny),
                ("z", data.z.shape[-1], problem.nz),
                ("u", m, problem.actions.m),
            ):
                if got != want:
                    raise ValueError(
                        f"data.{name} has {got} columns but the bound problem has {want}; bind the right one"
                    )
        require_moderate(data, problem, single=self._single)
        self._set_outputs(ny, problem.exogenous if problem is not None else ())

    def _set_outputs(self, ny: int, exogenous: tuple[int, ...]) -> None:
        kept = [i for i in range(ny) if i not in exogenous]
        if not kept:
            raise ValueError("every measured output is exogenous: there is nothing to predict")
        self._learn("kept_", torch.tensor(kept, dtype=torch.int64))
        self._learn("exogenous_", torch.tensor(sorted(exogenous), dtype=torch.int64))

    def _resumable(self, data: Trajectories) -> Resumable:
        """The training of a fit, named by class, settings and data."""
        problem = getattr(self, "problem", None)
        names = [] if problem is None else [*problem.measured, *problem.performed, *problem.actions.names]
        about = type(self).__name__, repr(getattr(self, "settings", None)), names, data.period
        self._training = Resumable(self.checkpoint, *about, [data.y, data.z, data.u, data.valid, data.t, data.seen])
        return self._training

    @property
    def earlier_seconds(self) -> float:
        """See :class:`~steersman.dynamics.base.Dynamics`."""
        return 0.0 if self._training is None else self._training.seconds

    def _ready(self) -> None:
        if "kept_" not in self._buffers:
            raise RuntimeError(f"{type(self).__name__} is not fitted; call fit(data) or load_state_dict first")

    def _window(self, window: Window) -> tuple[Tensor, Tensor, Tensor]:
        """Kept outputs ``[n, L, nk]``, actions ``[n, L-1, m]`` and exogenous outputs ``[n, ne]`` of the window.

        Raises:
            ValueError: If the window is shorter than the context.
        """
        self._ready()
        length = self.context
        if window.y.shape[1] < length or window.u.shape[1] < length - 1:
            raise ValueError(
                f"{type(self).__name__} needs windows of {length} measurements, got {window.y.shape[1]} with "
                f"{window.u.shape[1]} actions; keep Windows(model.context)"
            )
        y = window.y[:, window.y.shape[1] - length :]
        u = window.u[:, window.u.shape[1] - length + 1 :]
        return y[..., self.kept_], u, y[:, -1, self.exogenous_]

    def _assemble(self, kept: Float[Tensor, "n nk"], exogenous: Float[Tensor, "n ne"]) -> Float[Tensor, "n ny"]:
        """All measured outputs in their order."""
        order = torch.argsort(torch.cat([self.kept_, self.exogenous_]))
        return torch.cat([kept, exogenous], dim=1)[:, order]
