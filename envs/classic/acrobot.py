"""Swing-up of a two-link pendulum driven at its elbow, with the physics of gymnasium's ``Acrobot-v1``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.integrators import rk4
from steersman.envs.objective import Objective, Opaque
from steersman.envs.picture import pixels
from steersman.envs.plant import Plant, Status, Trail
from steersman.envs.tree import Params, State, tree_leaves

GRAVITY = 9.8
"""In m/s^2. Both links: 1 kg, 1 m, centre of mass in the middle, moment of inertia 1 kg m^2."""
MAX_SHOULDER, MAX_ELBOW = 4 * math.pi, 9 * math.pi
"""Limits of the two angular velocities, rad/s."""
TARGET = 1.0
"""Height of the tip above the shoulder at which the episode ends, m."""


class Acrobot(Plant):
    """Two links hang from a fixed shoulder; a torque at the elbow shall bring the tip 1 m above the shoulder.

    The equations of Sutton ("Generalization in reinforcement learning: successful examples using sparse coarse
    coding", 1996) in the form of Sutton and Barto's book, by one step of the classical Runge-Kutta method of 0.2 s,
    the velocities clipped afterwards: step by step the numbers of gymnasium's ``Acrobot-v1``.

    A control step costs 1, and an episode that ends short of the target 1 more, so the cost is 1 minus gymnasium's
    return. Reaching the target is the end ``Status.REACHED``.

    State ``[n, 4]``: angle of the upper link in rad, 0 hanging; angle of the lower link relative to it; their
    velocities in rad/s. Measured: cosines, sines and velocities. Performance: height of the tip in m. The action is
    a torque of -1, 0 or 1 N m. Gradients are exact, but the cost is piecewise constant.
    """

    def __init__(self) -> None:
        """Set the constants of ``Acrobot-v1``."""
        self.dt, self.hold, self.horizon = 0.2, 1, 500
        self.gradient = "exact"
        self.actions = ActionSet((-1.0,), (1.0,), (True,), names=("torque",), units=("N m",))
        below = Opaque(name="below", on="z", function=_below)
        self.objective = Objective((below,), (below,))
        self.measured = ("cos(theta1)", "sin(theta1)", "cos(theta2)", "sin(theta2)", "speed1", "speed2")
        self.performed = ("height",)

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """No parameters."""
        return {}

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """All four numbers uniform in +-0.1."""
        return 0.2 * noise.uniform(noise.fold(key, 0), 4, dtype=self.dtype) - 0.1

    def disturbance(self, key: Int64[Tensor, "n"], k: Int64[Tensor, "n"]) -> Tensor:
        """Nothing is random; the keys as they are, because folding them would cost as much as the physics."""
        return key

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        angle1, angle2, speed1, speed2 = rk4(lambda s: _slope(s, u[:, 0]), _flat(x), self.dt).unbind(dim=1)
        return torch.stack(
            [
                _wrapped(angle1),
                _wrapped(angle2),
                speed1.clamp(-MAX_SHOULDER, MAX_SHOULDER),
                speed2.clamp(-MAX_ELBOW, MAX_ELBOW),
            ],
            dim=1,
        )

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n ny"]:
        """Cosine and sine of both angles, and the velocities in rad/s."""
        state = _flat(x)
        cosine, sine = torch.cos(state[:, :2]), torch.sin(state[:, :2])
        return torch.cat([torch.stack([cosine, sine], dim=2).flatten(1), state[:, 2:]], dim=1)

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n nz"]:
        """Height of the tip above the shoulder in m."""
        angle1, angle2 = _flat(x)[:, 0], _flat(x)[:, 1]
        return (-torch.cos(angle1) - torch.cos(angle1 + angle2))[:, None]

    def status(self, k: Int64[Tensor, "n"], x: State, p: Params) -> UInt8[Tensor, "n"]:
        """Terminated where the tip has reached the target."""
        return ((self.perform(k, x, p)[:, 0] > TARGET) * int(Status.REACHED)).to(torch.uint8)

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """The two links with the torque, and height and torque so far."""
        figure = Figure(figsize=(7.2, 3.6), dpi=100, layout="constrained")
        grid = figure.add_gridspec(2, 2, width_ratios=(1, 1.1))
        self._draw_links(figure.add_subplot(grid[:, 0]), trail)
        time = np.asarray(trail.k) * self.period
        end = max(10.0, float(time[-1]))
        height = figure.add_subplot(grid[0, 1])
        height.plot(time, [z[0] for z in trail.z], color="tab:red")
        height.axhline(TARGET, color="0.6", lw=0.8, ls="--")
        height.set(ylabel="height of the tip (m)", ylim=(-2.1, 2.1), xlim=(0, end), xticklabels=[])
        torque = figure.add_subplot(grid[1, 1])
        torque.step(time[: len(trail.u)], [u[0] for u in trail.u], where="post", color="tab:blue")
        torque.set(ylabel="torque (N m)", xlabel="time (s)", ylim=(-1.2, 1.2), xlim=(0, end))
        return pixels(figure)

    def _draw_links(self, axes: Any, trail: Trail) -> None:
        angle1, angle2 = _flat(trail.x[-1])[0, :2].tolist()
        elbow = (math.sin(angle1), -math.cos(angle1))
        tip = (elbow[0] + math.sin(angle1 + angle2), elbow[1] - math.cos(angle1 + angle2))
        axes.axhline(TARGET, color="0.6", lw=0.8, ls="--")
        axes.plot([0, elbow[0]], [0, elbow[1]], color="tab:red", lw=8, solid_capstyle="round")
        axes.plot([elbow[0], tip[0]], [elbow[1], tip[1]], color="tab:orange", lw=8, solid_capstyle="round")
        axes.plot(0, 0, "o", color="black", ms=6)
        if trail.u:
            marker = {1: "$\\circlearrowleft$", 0: "o", -1: "$\\circlearrowright$"}[int(trail.u[-1][0])]
            axes.plot(*elbow, marker=marker, color="tab:blue", ms=16 if trail.u[-1][0] else 6)
        axes.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), xticks=[], yticks=[], aspect="equal")
        axes.set_title(f"t = {trail.k[-1] * self.period:.1f} s", fontsize=10)


def _slope(s: Tensor, torque: Tensor) -> Tensor:
    """Right-hand side for links of mass, length and inertia 1 with their centres of mass at one half."""
    angle1, angle2, speed1, speed2 = s.unbind(dim=1)
    cosine, sine = torch.cos(angle2), torch.sin(angle2)
    inertia = 0.25 + (1.25 + cosine) + 2.0
    coupling = 0.25 + 0.5 * cosine + 1.0
    # cos(q - pi/2) is sin(q): angles are measured from the hanging position.
    weight2 = 0.5 * GRAVITY * torch.sin(angle1 + angle2)
    weight1 = -0.5 * speed2.square() * sine - speed2 * speed1 * sine + 1.5 * GRAVITY * torch.sin(angle1) + weight2
    drive = torque + coupling / inertia * weight1 - 0.5 * speed1.square() * sine - weight2
    turn2 = drive / (1.25 - coupling.square() / inertia)
    turn1 = -(coupling * turn2 + weight1) / inertia
    return torch.stack([speed1, speed2, turn1, turn2], dim=1)


def _wrapped(angle: Tensor) -> Tensor:
    """Angles beyond +-pi moved by whole turns; those within stay as they are, bit by bit."""
    turned = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
    return torch.where(angle.abs() <= math.pi, angle, turned)


def _below(z: Tensor) -> Tensor:
    return (z[..., 0] <= TARGET).to(z.dtype)


def _flat(x: State) -> Tensor:
    (state,) = tree_leaves(x)
    return state
