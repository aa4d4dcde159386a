"""Preventive redispatch: storage takes up a surplus so that a short circuit would not swing the areas too far apart."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int64
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.grid.tasks.structure_preserving import LARGEST, SWING, peak_swing
from steersman.envs.objective import L1, Objective, PiecewiseLinear
from steersman.envs.picture import pixels
from steersman.envs.plant import Plant, Trail
from steersman.envs.tree import Params, State, tree_leaves

BLOCK = 0.5
"""Power of a block of storage, pu."""
BLOCKS = 12
LIMIT = 1.7
"""Largest angle between the areas that counts as secure, rad; synchronism is lost from about 2.2 rad."""
FORECAST_ERROR = 0.15
"""Standard deviation of the surplus around its forecast, pu."""
INSECURE = 30.0
"""Cost of a lost synchronism, in blocks of redispatch."""
INTERVALS = 12


class PreventiveRedispatch(Plant):
    """In each of twelve intervals, choose how many blocks of storage charge at node 5 before a contingency strikes.

    The physics is :mod:`steersman.envs.grid.tasks.structure_preserving`: what is left of a surplus at node 5, forecast
    plus
    error minus ``BLOCK * u`` and never below zero, has settled for 5 s when node 6 is short-circuited for 50 ms and a
    circuit of the tie is lost. The swing is the largest angle between the areas in the 2 s that follow. Intervals do
    not touch each other's physics; what is simulated of each are those 2 s, from a state that
    :func:`~steersman.envs.grid.tasks.structure_preserving.start` knows to 1e-6.

    A block costs 1 per interval; a swing above :data:`LIMIT` costs in proportion, up to :data:`INSECURE` at pi, where
    the swing is cut off since the areas have lost synchronism.

    State ``[n, 1]``: swing of the last interval, rad. Measured: forecast of the surplus in pu, and that swing cut off.
    Performance: the latter. The forecast is a random walk of 0.4 pu from a level of 0.5 .. 5.5 pu, inside 0.2 .. 5.8.

    Args:
        dt: Step of the Runge-Kutta method, s; must divide 2 s and stay at or below 10 ms.

    Raises:
        ValueError: If ``dt`` does not divide 2 s or is too long.
    """

    def __init__(self, dt: float = 0.008) -> None:
        """Set up the plant."""
        self.hold = round(SWING / dt) if dt > 0 else 0
        if not 0 < dt <= 0.01 or abs(self.hold * dt - SWING) > 1e-12:
            raise ValueError(f"dt must divide {SWING} s and be at most 0.01 s, got {dt}; try 0.008")
        self.dt, self.horizon = dt, INTERVALS
        self.gradient = "exact"
        self.actions = ActionSet(
            (0.0,), (float(BLOCKS),), (True,), names=("storage",), units=(f"blocks of {BLOCK} pu",)
        )
        insecure = PiecewiseLinear(
            name="insecure", on="z", index=0, points=((0.0, 0.0), (LIMIT, 0.0), (math.pi, INSECURE))
        )
        self.objective = Objective((insecure, L1(name="redispatch", on="u", weights=(1.0,))), (insecure,))
        self.measured, self.performed = ("forecast", "swing"), ("swing",)
        self.exogenous = (0,)

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """Forecasts ``[n, 13]`` of the surplus in pu, the last one for the time after the last interval."""
        first = 0.5 + 5.0 * noise.uniform(noise.fold(key, 0), 1)
        walk = 0.4 * noise.normal(noise.fold(key, 1), INTERVALS).cumsum(dim=1)
        return {"forecast": torch.cat([first, first + walk], dim=1).clamp(0.2, 5.8)}

    def known(self, k: Int64[Tensor, "n"], p: Params) -> Params:
        """Forecasts up to the coming interval; the last one stands for those that are still to be made."""
        made = torch.arange(INTERVALS + 1, device=k.device).minimum(k[:, None])
        return {"forecast": p["forecast"].gather(1, made)}

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """No swing yet."""
        return torch.zeros(len(key), 1, dtype=self.dtype, device=key.device)

    def disturbance(self, key: Int64[Tensor, "n"], k: Int64[Tensor, "n"]) -> Float[Tensor, "n 1"]:
        """Error of the forecast, pu."""
        return FORECAST_ERROR * noise.normal(noise.fold(key, k), 1)

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        return peak_swing(left_over(self._forecast(k, p) + w, u)[:, 0], self.dt)[:, None]

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n ny"]:
        """Forecast of the coming interval, and the last swing."""
        return torch.cat([self._forecast(k, p), self.perform(k, x, p)], dim=1)

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n nz"]:
        """The last swing, cut off at pi."""
        assert isinstance(x, Tensor)  # noqa: S101 - narrows the type
        return x.clamp(max=math.pi)

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """Forecast and storage by interval, and the swings beside the limit."""
        figure = Figure(figsize=(8.4, 3.6), dpi=100, layout="constrained")
        power, swing = figure.subplots(1, 2)
        power.step(range(INTERVALS + 1), trail.p["forecast"][0].cpu(), where="post", label="forecast of the surplus")
        blocks = BLOCK * np.asarray(trail.u).reshape(-1)
        power.bar(np.arange(len(blocks)) + 0.5, blocks, width=0.8, color="tab:green", alpha=0.6, label="storage")
        power.set(xlim=(0, INTERVALS), ylim=(0, LARGEST), xlabel="interval", ylabel="pu", title="power at node 5")
        power.legend(frameon=False, fontsize=8)
        angle = np.rad2deg([float(tree_leaves(x)[0][0, 0]) for x in trail.x])
        swing.plot(np.asarray(trail.k)[1:] - 0.5, np.minimum(angle, 180.0)[1:], "o", color="tab:blue")
        swing.axhline(math.degrees(LIMIT), color="tab:red", ls=":", label="limit")
        swing.set(xlim=(0, INTERVALS), ylim=(0, 190), xlabel="interval", title="largest angle between the areas (deg)")
        swing.legend(frameon=False, fontsize=8)
        return pixels(figure)

    def _forecast(self, k: Int64[Tensor, "n"], p: Params) -> Float[Tensor, "n 1"]:
        return p["forecast"].gather(1, k.clamp(max=INTERVALS)[:, None])


def left_over(surplus: Float[Tensor, "*#b"], u: Float[Tensor, "*#b"]) -> Float[Tensor, "*#b"]:
    """Surplus in pu that ``u`` blocks of storage leave, inside what the physics covers; a NaN stays one."""
    return (surplus - BLOCK * u).clamp(0.0, LARGEST)
