"""Swing-up of a torque-limited pendulum, with the physics of gymnasium's ``Pendulum-v1``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.picture import pixels
from steersman.envs.placement import constant
from steersman.envs.plant import Plant, Trail
from steersman.envs.tree import Params, State, tree_leaves

MAX_SPEED = 8.0
"""Speed limit, rad/s."""
MAX_TORQUE = 2.0
"""Torque limit, N m."""
GRAVITY, MASS, LENGTH = 10.0, 1.0, 1.0
"""In m/s^2, kg and m."""


class Pendulum(Plant):
    """A rod of 1 kg and 1 m on a pivot; upright is angle 0, and the torque is too weak to lift it directly.

    ``theta'' = 3 g / (2 l) sin(theta) + 3 / (m l^2) u``, by the semi-implicit Euler method at 0.05 s, the speed
    clipped to +-8 rad/s: step by step the numbers of gymnasium's ``Pendulum-v1``, whose reward is minus our
    stage cost ``theta^2 + 0.1 thetadot^2 + 0.001 u^2``. Only the precision differs (float64 observations).

    State ``[n, 2]``: angle in rad (not wrapped) and speed in rad/s. Measured: cosine, sine, speed. Performance:
    angle wrapped to [-pi, pi) and speed. Gradients are exact; they vanish where the speed is clipped and jump
    where the angle wraps.
    """

    def __init__(self) -> None:
        """Set the constants of ``Pendulum-v1``."""
        self.dt, self.hold, self.horizon = 0.05, 1, 200
        self.gradient = "exact"
        self.actions = ActionSet((-MAX_TORQUE,), (MAX_TORQUE,), names=("torque",), units=("N m",))
        self.objective = Objective(
            (
                Quadratic(name="tracking", on="e", weights=(1.0, 0.1)),
                Quadratic(name="effort", on="u", weights=(0.001,)),
            )
        )
        self.measured = ("cos(theta)", "sin(theta)", "speed")
        self.performed = ("theta", "speed")

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """No parameters."""
        return {}

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """Angle uniform in +-pi, speed uniform in +-1 rad/s."""
        unit = 2 * noise.uniform(noise.fold(key, 0), 2, dtype=self.dtype) - 1
        return unit * constant((math.pi, 1.0), unit)

    def disturbance(self, key: Int64[Tensor, "n"], k: Int64[Tensor, "n"]) -> Tensor:
        """Nothing is random; the keys as they are, because folding them would cost as much as the physics."""
        return key

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        theta, speed = _flat(x).unbind(dim=1)
        pull = 3 * GRAVITY / (2 * LENGTH) * torch.sin(theta) + 3.0 / (MASS * LENGTH**2) * u[:, 0]
        speed = (speed + pull * self.dt).clamp(-MAX_SPEED, MAX_SPEED)
        return torch.stack([theta + speed * self.dt, speed], dim=1)

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n ny"]:
        """Cosine and sine of the angle, and the speed in rad/s."""
        theta, speed = _flat(x).unbind(dim=1)
        return torch.stack([torch.cos(theta), torch.sin(theta), speed], dim=1)

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n nz"]:
        """Wrapped angle in rad and speed in rad/s."""
        theta, speed = _flat(x).unbind(dim=1)
        return torch.stack([torch.remainder(theta + math.pi, 2 * math.pi) - math.pi, speed], dim=1)

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """The rod with its torque, and the wrapped angle and the torque so far."""
        figure = Figure(figsize=(7.2, 3.6), dpi=100, layout="constrained")
        grid = figure.add_gridspec(2, 2, width_ratios=(1, 1.1))
        self._draw_rod(figure.add_subplot(grid[:, 0]), trail)
        time = np.asarray(trail.k) * self.period
        angle = figure.add_subplot(grid[0, 1])
        angle.plot(time, [z[0] for z in trail.z], ".", ms=3, color="tab:red")
        angle.axhline(0, color="0.6", lw=0.8)
        angle.set(ylabel="angle (rad)", ylim=(-3.4, 3.4), xlim=(0, self.horizon * self.period), xticklabels=[])
        torque = figure.add_subplot(grid[1, 1])
        torque.step(time[: len(trail.u)], [u[0] for u in trail.u], where="post", color="tab:blue")
        torque.set(ylabel="torque (N m)", xlabel="time (s)", ylim=(-2.2, 2.2), xlim=(0, self.horizon * self.period))
        return pixels(figure)

    def _draw_rod(self, axes: Any, trail: Trail) -> None:
        theta = float(_flat(trail.x[-1])[0, 0])
        axes.plot([0, -math.sin(theta)], [0, math.cos(theta)], color="tab:red", lw=9, solid_capstyle="round")
        axes.plot(0, 0, "o", color="black", ms=6)
        axes.plot(0, 1, "x", color="0.6", ms=8)
        if trail.u:
            axes.bar(0, float(trail.u[-1][0]) / MAX_TORQUE * 0.5, width=0.06, bottom=-1.35, color="tab:blue")
        axes.axhline(-1.35, color="0.8", lw=0.8)
        axes.text(-1.25, -1.3, "torque", fontsize=8, color="tab:blue")
        axes.set(xlim=(-1.3, 1.3), ylim=(-1.9, 1.3), xticks=[], yticks=[], aspect="equal")
        axes.set_title(f"t = {trail.k[-1] * self.period:.2f} s", fontsize=10)


def _flat(x: State) -> Tensor:
    (state,) = tree_leaves(x)
    return state
