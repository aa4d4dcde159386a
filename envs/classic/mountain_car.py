"""A weak car that must swing out of a valley, with the physics of gymnasium's ``MountainCarContinuous-v0``."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective, Opaque, Quadratic
from steersman.envs.picture import pixels
from steersman.envs.plant import Plant, Status, Trail
from steersman.envs.tree import Params, State, tree_leaves

LEFT, RIGHT, GOAL, MAX_SPEED = -1.2, 0.6, 0.45, 0.07
"""Ends of the track, position of the flag and speed limit, in the task's own unit per step."""
POWER, GRAVITY = 0.0015, 0.0025
"""Greatest acceleration by the engine and by the slope, per step squared."""
PRIZE = 100.0
"""What an episode costs that never reaches the flag."""


class MountainCarContinuous(Plant):
    """A car in a valley ``sin(3 x)`` whose engine is too weak for the slope: it has to swing up.

    Moore ("Efficient memory-based learning for robot control", 1990) with a continuous force, step by step the
    numbers of gymnasium's ``MountainCarContinuous-v0``; only the precision differs (float64 states, where gymnasium
    rounds to float32 in every step).

    A control step costs ``0.1 u^2`` and an episode that ends short of the flag 100, so the cost is 100 minus
    gymnasium's return. Reaching the flag is the end ``Status.REACHED``. Doing nothing costs
    100, and every small force costs more: the task is one of exploration.

    State ``[n, 2]``: position and velocity, both measured and performance. Gradients are exact; they vanish where
    the speed is clipped.
    """

    def __init__(self) -> None:
        """Set the constants of ``MountainCarContinuous-v0``."""
        self.dt, self.hold, self.horizon = 1.0, 1, 999
        self.gradient = "exact"
        self.actions = ActionSet((-1.0,), (1.0,), names=("force",))
        self.objective = Objective(
            (Quadratic(name="effort", on="u", weights=(0.1,)),),
            (Opaque(name="missed", on="z", function=_missed),),
        )
        self.measured = self.performed = ("position", "velocity")
        self.time_unit = "step"

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """No parameters."""
        return {}

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """At rest, position uniform in [-0.6, -0.4]."""
        position = 0.2 * noise.uniform(noise.fold(key, 0), dtype=self.dtype) - 0.6
        return torch.stack([position, torch.zeros_like(position)], dim=1)

    def disturbance(self, key: Int64[Tensor, "n"], k: Int64[Tensor, "n"]) -> Tensor:
        """Nothing is random; the keys as they are, because folding them would cost as much as the physics."""
        return key

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        position, velocity = _flat(x).unbind(dim=1)
        velocity = velocity + (u[:, 0] * POWER - GRAVITY * torch.cos(3 * position))
        velocity = velocity.clamp(-MAX_SPEED, MAX_SPEED)
        position = (position + velocity).clamp(LEFT, RIGHT)
        velocity = torch.where((position == LEFT) & (velocity < 0), 0.0, velocity)
        return torch.stack([position, velocity], dim=1)

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n ny"]:
        """The state."""
        return _flat(x)

    def status(self, k: Int64[Tensor, "n"], x: State, p: Params) -> UInt8[Tensor, "n"]:
        """Terminated where the car has reached the flag."""
        return (_reached(_flat(x)) * int(Status.REACHED)).to(torch.uint8)

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """The car in the valley, and position and force so far."""
        figure = Figure(figsize=(7.2, 3.6), dpi=100, layout="constrained")
        grid = figure.add_gridspec(2, 2, width_ratios=(1.1, 1))
        valley = figure.add_subplot(grid[:, 0])
        ground = np.linspace(LEFT, RIGHT, 200)
        valley.fill_between(ground, _height(ground), color="0.9")
        valley.plot(ground, _height(ground), color="0.5")
        valley.plot([GOAL, GOAL], [_height(GOAL), _height(GOAL) + 0.25], color="tab:green", lw=3)
        position = float(trail.z[-1][0])
        valley.plot(position, _height(position) + 0.04, "o", ms=11, color="tab:red")
        if trail.u:
            ahead = 0.3 * float(trail.u[-1][0])
            valley.plot([position, position + ahead], [_height(position) + 0.12] * 2, color="tab:blue", lw=3)
        valley.set(xticks=[], yticks=[], ylim=(0, 1.4), title=f"step {trail.k[-1]}")
        end = max(100, trail.k[-1])
        place = figure.add_subplot(grid[0, 1])
        place.plot(trail.k, [z[0] for z in trail.z], color="tab:red")
        place.axhline(GOAL, color="tab:green", lw=0.8, ls="--")
        place.set(ylabel="position", ylim=(LEFT - 0.05, RIGHT + 0.05), xlim=(0, end), xticklabels=[])
        force = figure.add_subplot(grid[1, 1])
        force.step(trail.k[: len(trail.u)], [u[0] for u in trail.u], where="post", color="tab:blue")
        force.set(ylabel="force", xlabel="step", ylim=(-1.1, 1.1), xlim=(0, end))
        return pixels(figure)


def _height(position: float | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.45 * np.sin(3 * np.asarray(position)) + 0.55)


def _reached(z: Tensor) -> Tensor:
    return (z[..., 0] >= GOAL) & (z[..., 1] >= 0)


def _missed(z: Tensor) -> Tensor:
    return PRIZE * (~_reached(z)).to(z.dtype)


def _flat(x: State) -> Tensor:
    (state,) = tree_leaves(x)
    return state
