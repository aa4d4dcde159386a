"""A neural ordinary differential equation with control input, trained on its own rollouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.dynamics.base import Trajectories
from steersman.dynamics.windowed.base import Batches, Windowed
from steersman.dynamics.windowed.ensemble import Weights, answers, forward, new_ensemble, train
from steersman.dynamics.windowed.settings import WindowSettings
from steersman.envs.integrators import rk4, row_steps
from steersman.envs.settings import Count


@dataclass(frozen=True, kw_only=True)
class NeuralODESettings(WindowSettings):
    """Settings of :class:`NeuralODE`.

    Attributes:
        substeps: Runge-Kutta steps of a control step.
        steps: Largest number of gradient steps.
    """

    substeps: Count = 2
    rollout: Count = 10
    steps: Count = 2000


class NeuralODE(Windowed):
    """``dy/dt = delta * f(y, window, u)`` for as long as u is held, by Runge-Kutta steps of order 4 (Chen et al. 2018).

    With one measurement in the window, times may be irregular; older ones are taken to be one control period apart.
    Time is counted in control periods and ``delta`` is the one-step change of each output in the data. The action is
    held, and so are the older measurements of the window, where there are any. f is a SiLU network beside a linear
    map that starts at the ridge-regression ARX model; z is affine in the window. Gradients pass through the
    integrator. The network runs in float32, windows and their changes are added up in the data's type.
    """

    def __init__(self, settings: NeuralODESettings | None = None) -> None:
        """Store the settings."""
        super().__init__()
        self.settings = settings or NeuralODESettings()
        self.context = self.settings.context

    def fit(self, data: Trajectories) -> NeuralODE:
        """Forget everything, then train from ``settings.seed``.

        Raises:
            ValueError: If the data are not finite, do not fit the bound problem or hold fewer than two windows.
        """
        s = self.settings
        padded, gen, resumable = self._begin(data, s)
        batches = Batches(self, padded, ahead=s.rollout, members=1, batch=s.batch, validation=s.validation, gen=gen)
        core = new_ensemble(1, batches.inputs + batches.m, s.hidden, batches.nk, gen, batches.arx())
        delta = self.delta_.float()

        def change(x: Tensor, periods: Tensor | None) -> Tensor:
            return self._flow(lambda v: forward(core, v), x, delta, periods)

        @torch.no_grad()
        def validate() -> float:
            return float(batches.error(change, batches.held_back()))

        train(
            [core], lambda: batches.error(change, batches.fresh()), validate,
            steps=s.steps, rate=s.rate, patience=s.patience, every=100, progress=self.progress, gen=gen,
            resumable=resumable, stage="train",
        )  # fmt: skip
        for name, value in core.items():
            self._learn(f"core_{name}_", value, trainable=True)
        return self

    @property
    def uniform_only(self) -> bool:  # type: ignore[override]
        """Whether the window holds older measurements, whose times it does not know."""
        return self.context > 1

    def _trainable(self, name: str) -> bool:
        return name.startswith("core_")

    def _flow(
        self, field: Callable[[Tensor], Tensor], x: Float[Tensor, "*b inputs"], delta: Tensor, periods: Tensor | None
    ) -> Float[Tensor, "*b nk"]:
        """Change of the newest outputs over so many periods (None: one) in units of ``delta``.

        ``x`` is the window with its action.
        """
        nk = len(delta)
        first, last = (self.context - 1) * nk, self.context * nk
        older, start, rest = x[..., :first], x[..., first:last], x[..., last:]

        def slope(y: Tensor) -> Tensor:
            return delta * field(torch.cat([older, y, rest], dim=-1))

        def passed(y: Tensor, h: Tensor) -> Tensor:
            return h * slope(y)

        y, substeps = start, self.settings.substeps
        if periods is None:
            for _ in range(substeps):
                y = rk4(slope, y, 1 / substeps)
        else:
            for h in row_steps(periods, 1.0, substeps):
                y = rk4(partial(passed, h=h), y, 1.0)
        return (y - start) / delta

    def _change(self, phi: Float[Tensor, "n inputs"], periods: Tensor | None) -> Float[Tensor, "n nk"]:
        weights: Weights = {
            name.removeprefix("core_").removesuffix("_"): value
            for name, value in self._parameters.items()
            if value is not None
        }
        return self._flow(lambda v: answers(weights, v)[0], phi, self.delta_, periods)
