"""How well a model predicts, against the guess that nothing changes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.dynamics.base import Dynamics, Trajectories
from steersman.dynamics.windowed.windows import cut, lasting, starts, window_at


@dataclass(frozen=True)
class Score:
    """Root-mean-square errors of open-loop prediction, ``1 .. h`` steps ahead, in the outputs' own units.

    Attributes:
        y: Error of the measured outputs.
        z: Error of the performance outputs.
        y_persistence: Error of repeating the last measured output.
        z_persistence: Error of repeating the last performance output.
        windows: Number of predictions.
    """

    y: Float[Tensor, "h ny"]
    z: Float[Tensor, "h nz"]
    y_persistence: Float[Tensor, "h ny"]
    z_persistence: Float[Tensor, "h nz"]
    windows: int

    @property
    def relative_y(self) -> Float[Tensor, "ny"]:
        """Error over all steps relative to persistence; 1 is as good as repeating, 0 is perfect."""
        return _ratio(self.y, self.y_persistence)

    @property
    def relative_z(self) -> Float[Tensor, "nz"]:
        """Likewise for the performance outputs."""
        return _ratio(self.z, self.z_persistence)


def score(model: Dynamics, data: Trajectories, horizon: int, *, limit: int = 4096) -> Score:
    """Predict ``horizon`` steps from windows spread over the data and compare.

    Args:
        model: A fitted model that needs no true state.
        data: Data that the model was not fitted to.
        horizon: Steps ahead, at least 1.
        limit: Largest number of windows, taken at equal distances.

    Raises:
        ValueError: If the model needs the true state, which trajectories do not hold, or no window is long enough.
    """
    if model.needs_state:
        raise ValueError(f"{type(model).__name__} needs the true state, and trajectories hold only outputs")
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1 step, got {horizon}")
    rows = starts(data.complete, model.context, horizon)
    rows = rows[torch.linspace(0, len(rows) - 1, min(limit, len(rows))).long()]
    with torch.no_grad():
        start, U = model.init(window_at(data, rows, model.context)), cut(data.u, rows, 0, horizon)
        y, z = model.rollout(start, U, lasting(data, rows, horizon))
    true_y, true_z = (cut(series, rows, 1, horizon) for series in (data.y, data.z))
    last_y, last_z = (cut(series, rows, 0, 1) for series in (data.y, data.z))
    return Score(
        _rmse(y - true_y), _rmse(z - true_z), _rmse(last_y - true_y), _rmse(last_z - true_z), len(rows)
    )  # fmt: skip


def _rmse(error: Tensor) -> Tensor:
    return error.square().mean(dim=0).sqrt()


def _ratio(error: Tensor, reference: Tensor) -> Tensor:
    top, bottom = error.square().mean(dim=0).sqrt(), reference.square().mean(dim=0).sqrt()
    return torch.where(top == 0, 0.0, top / bottom)
