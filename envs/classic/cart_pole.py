"""A pole balanced on a cart by pushes to the left and to the right, with the physics of gymnasium's ``CartPole-v1``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective, Opaque, within
from steersman.envs.picture import pixels
from steersman.envs.placement import constant
from steersman.envs.plant import Plant, Status, Trail
from steersman.envs.tree import Params, State, tree_leaves

GRAVITY, CART, POLE, HALF_LENGTH, FORCE = 9.8, 1.0, 0.1, 0.5, 10.0
"""In m/s^2, kg, kg, m and N."""
MASS = CART + POLE
TRACK, TILT = 2.4, math.radians(12)
"""Where the episode ends: distance from the middle in m and angle of the pole in rad."""


class CartPole(Plant):
    """A cart of 1 kg on a track, a pole of 0.1 kg and 1 m hinged on it; the angle is 0 upright.

    The equations of Barto, Sutton and Anderson ("Neuronlike adaptive elements that can solve difficult learning
    control problems", 1983) without friction, by the explicit Euler method at 0.02 s: step by step the numbers of
    gymnasium's ``CartPole-v1``. A control step costs -1 until the cart leaves the track or the pole tilts by more
    than 12 degrees, so the return is gymnasium's. A state beyond these limits costs 0, which tells planners where
    the episode would end.

    State ``[n, 4]``: position in m, velocity in m/s, angle in rad, angular velocity in rad/s; all are measured.
    Performance: position and angle. The action is one-hot: push to the left or to the right with 10 N. Gradients are
    exact, but the cost is piecewise constant.
    """

    def __init__(self) -> None:
        """Set the constants of ``CartPole-v1``."""
        self.dt, self.hold, self.horizon = 0.02, 1, 500
        self.gradient = "exact"
        self.actions = ActionSet((0.0, 0.0), (1.0, 1.0), one_hot=((0, 1),), names=("left", "right"))
        self.measured = ("position", "velocity", "angle", "angular velocity")
        self.performed = ("position", "angle")
        balanced = Opaque(name="balanced", on="z", function=_balanced)
        self.objective = Objective((balanced,), limits=within((TRACK, TILT), self.performed))

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """No parameters."""
        return {}

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """All four numbers uniform in +-0.05."""
        return 0.1 * noise.uniform(noise.fold(key, 0), 4, dtype=self.dtype) - 0.05

    def disturbance(self, key: Int64[Tensor, "n"], k: Int64[Tensor, "n"]) -> Tensor:
        """Nothing is random; the keys as they are, because folding them would cost as much as the physics."""
        return key

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        state = _flat(x)
        _, velocity, theta, speed = state.unbind(1)
        cosine, sine, left_right = torch.cos(theta), torch.sin(theta), u[:, 1] - u[:, 0]
        push = torch.add(FORCE / MASS * left_right, speed.square() * sine, alpha=POLE * HALF_LENGTH / MASS)
        load = HALF_LENGTH * 4 / 3 - HALF_LENGTH * POLE / MASS * cosine.square()
        turn = torch.sub(GRAVITY * sine, cosine * push) / load
        drive = torch.sub(push, turn * cosine, alpha=POLE * HALF_LENGTH / MASS)
        return torch.add(state, torch.stack([velocity, drive, speed, turn], dim=1), alpha=self.dt)

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n ny"]:
        """The state."""
        return _flat(x)

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n nz"]:
        """Position in m and angle in rad."""
        return _flat(x)[:, ::2]

    def status(self, k: Int64[Tensor, "n"], x: State, p: Params) -> UInt8[Tensor, "n"]:
        """Terminated where the cart has left the track or the pole has tilted too far."""
        return (~_inside(_flat(x)[:, ::2])).to(torch.uint8).mul_(int(Status.TERMINATED))

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """Cart and pole, and position and angle so far within their limits."""
        figure = Figure(figsize=(7.2, 3.6), dpi=100, layout="constrained")
        grid = figure.add_gridspec(2, 2, width_ratios=(1.2, 1))
        self._draw_cart(figure.add_subplot(grid[:, 0]), trail)
        time, z = np.asarray(trail.k) * self.period, np.asarray(trail.z)
        # The whole episode is 10 s, most are over after half a second: the axis grows with them.
        end = max(1.0, float(time[-1]))
        for row, (name, limit) in enumerate((("position (m)", TRACK), ("angle (rad)", TILT))):
            axes = figure.add_subplot(grid[row, 1])
            axes.plot(time, z[:, row], ".-", ms=3, lw=1, color="tab:red")
            for edge in (-limit, limit):
                axes.axhline(edge, color="0.6", lw=0.8, ls="--")
            axes.set(ylabel=name, ylim=(-1.15 * limit, 1.15 * limit), xlim=(0, end))
        axes.set_xlabel("time (s)")
        return pixels(figure)

    def _draw_cart(self, axes: Any, trail: Trail) -> None:
        position, _, theta, _ = _flat(trail.x[-1])[0].tolist()
        axes.axhline(0, color="0.8", lw=0.8)
        axes.add_patch(Rectangle((position - 0.3, -0.15), 0.6, 0.3, facecolor="0.3"))
        top = (position + 2 * HALF_LENGTH * math.sin(theta), 0.15 + 2 * HALF_LENGTH * math.cos(theta))
        axes.plot([position, top[0]], [0.15, top[1]], color="tab:red", lw=6, solid_capstyle="round")
        if trail.u:
            way = 1.0 if trail.u[-1][1] > trail.u[-1][0] else -1.0
            axes.annotate("", (position + 0.9 * way, 0), (position + 0.3 * way, 0), arrowprops={"color": "tab:blue"})
        for edge in (-TRACK, TRACK):
            axes.axvline(edge, color="0.6", lw=0.8, ls="--")
        axes.set(xlim=(-2.7, 2.7), ylim=(-0.6, 1.5), xticks=[], yticks=[], aspect="equal")
        axes.set_title(f"t = {trail.k[-1] * self.period:.2f} s", fontsize=10)


def _inside(z: Tensor) -> Tensor:
    return (z.abs() <= constant((TRACK, TILT), z)).all(dim=-1)


def _balanced(z: Tensor) -> Tensor:
    return -_inside(z).to(z.dtype)


def _flat(x: State) -> Tensor:
    (state,) = tree_leaves(x)
    return state
