"""A lid-driven cavity: follow a stored flow by the speed of the lid."""

from __future__ import annotations

import math
from functools import cache
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
from steersman.envs.plant import Plant, Trail
from steersman.envs.tree import Params, State

SIDE = 21
"""Grid points along each side, walls included."""
SPACING = 0.05
VISCOSITY = 0.1
STEP = 1e-3
SWEEPS = 2000
"""Jacobi sweeps for the pressure of one step."""
LID = 2.0
"""Speed of the lid that actions are counted from."""
START = 5.0
"""Both velocities and the pressure start at constants of at most this modulus."""


def _sweep(p: Float[Tensor, "n side side"], source: Float[Tensor, "n side side"]) -> Float[Tensor, "n side side"]:
    """One Jacobi sweep of ``laplacian p = source`` with zero normal slope at the walls."""
    inner = (p[:, 1:-1, :-2] + p[:, :-2, 1:-1] + p[:, 1:-1, 2:] + p[:, 2:, 1:-1]) / 4
    inner = inner - SPACING**2 / 4 * source[:, 1:-1, 1:-1]
    # Columns are closed before and after rows, as the peer closes them: right, top, left, bottom.
    after = torch.nn.functional.pad(inner, (1, 1, 1, 1))
    after[:, 1:-1, -1] = inner[:, :, -1]
    after[:, 0, -1] = p[:, 0, -2]
    after[:, -1, -1] = p[:, -1, -2]
    after[:, 0, 1:] = after[:, 1, 1:]
    after[:, 1:, 0] = after[:, 1:, 1]
    after[:, 0, 0] = after[:, 0, 1]
    after[:, -1, :] = after[:, -2, :]
    return after


@cache
def _pressure(sweeps: int = SWEEPS) -> tuple[Tensor, Tensor]:
    """Fixed sweeps are one affine map: matrices of the pressure before and of the source, ``[441, 441]`` each."""
    cells = SIDE * SIDE
    eye = torch.eye(cells, dtype=torch.float64).reshape(cells, SIDE, SIDE)
    zero = torch.zeros_like(eye)
    whole = torch.eye(2 * cells, dtype=torch.float64)
    whole[:cells, :cells] = _sweep(eye, zero).reshape(cells, cells).T
    whole[:cells, cells:] = _sweep(zero, eye).reshape(cells, cells).T
    power = torch.linalg.matrix_power(whole, sweeps)
    return power[:cells, :cells].T.contiguous(), power[:cells, cells:].T.contiguous()


def _slope(f: Tensor, dim: int) -> Tensor:
    """Central differences in the interior, zero at the walls."""
    inner = f[:, 1:-1, 2:] - f[:, 1:-1, :-2] if dim == 2 else f[:, 2:, 1:-1] - f[:, :-2, 1:-1]
    return torch.nn.functional.pad(inner / (2 * SPACING), (1, 1, 1, 1))


def _laplacian(f: Tensor) -> Tensor:
    inner = f[:, 1:-1, :-2] + f[:, :-2, 1:-1] - 4 * f[:, 1:-1, 1:-1] + f[:, 1:-1, 2:] + f[:, 2:, 1:-1]
    return torch.nn.functional.pad(inner / SPACING**2, (1, 1, 1, 1))


def _walls(f: Tensor, lid: Tensor | float) -> Tensor:
    """Zero at three walls, ``lid`` at the last row; the corners belong to the side walls."""
    closed = torch.nn.functional.pad(f[:, 1:-1, 1:-1], (1, 1, 1, 1))
    if isinstance(lid, Tensor):
        top = torch.nn.functional.pad(lid[:, None].expand(-1, SIDE - 2), (1, 1))
        closed = torch.cat([closed[:, :-1], top[:, None]], dim=1)
    return closed


def advance(x: dict[str, Tensor], lid: Float[Tensor, "n"]) -> dict[str, Tensor]:
    """One step of Chorin's projection: explicit Euler, central differences, the pressure by its affine map."""
    u, v, p = x["u"], x["v"], x["p"]
    u_star = _walls(u + STEP * (VISCOSITY * _laplacian(u) - u * _slope(u, 2) - v * _slope(u, 1)), lid)
    v_star = _walls(v + STEP * (VISCOSITY * _laplacian(v) - u * _slope(v, 2) - v * _slope(v, 1)), 0.0)
    source = ((_slope(u_star, 2) + _slope(v_star, 1)) / STEP).flatten(1)
    before, made = (t.to(source) for t in _pressure())
    p = (p.flatten(1) @ before + source @ made).reshape_as(p)
    return {
        "u": _walls(u_star - STEP * _slope(p, 2), lid),
        "v": _walls(v_star - STEP * _slope(p, 1), 0.0),
        "p": p,
    }  # fmt: skip


class CavityFlow(Plant):
    """Incompressible flow in the unit square, viscosity 0.1, driven by its lid: follow a stored flow.

    After PDEControlGym's task: collocated 21 x 21 grid, central differences, explicit Euler at 1e-3, Chorin's
    projection with 2000 Jacobi sweeps, which are one affine map, computed once: equal results, thousands of times
    faster, differentiable. Start: constant u, v and pressure, each uniform in +-5. The lid's speed is the action,
    in [-10, 10], counted from 2; 199 steps. Cost, minus the peer's reward: ``|U - U_ref|^2 / 882 + 0.05 a^2``, U the
    velocities after the step. Our ``U_ref`` is the flow from rest under a lid that slows down from 3 to 2,
    ``2 + exp(-10 t)``; the peer's stored one is not ours to ship, so its returns do not apply.

    State: ``u``, ``v`` and ``p`` ``[n, 21, 21]`` (row, column). Measured: u and v at 25 places. Performance: u and v
    divided by sqrt(882). Nothing is charged for the start.
    """

    def __init__(self) -> None:
        """Set up the task."""
        self.dt, self.hold, self.horizon, self.gradient, self.time_unit = STEP, 1, 199, "exact", "time units"
        self.actions = ActionSet((-10.0,), (10.0,), names=("lid - 2",))
        term = Quadratic(name="flow", on="e", weights=(1.0,) * (2 * SIDE * SIDE))
        lid = Quadratic(name="lid", on="u", weights=(0.05,))
        self.objective = Objective((term, lid), (term,), failure=100.0)
        self.measured = tuple(f"{name}({c},{r})" for name in "uv" for r in range(2, SIDE, 4) for c in range(2, SIDE, 4))
        self.performed = tuple(f"scaled {name} {i}" for name in "uv" for i in range(SIDE * SIDE))

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """No parameters."""
        return {}

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """Constants."""
        level = START * (2 * noise.uniform(noise.fold(key, 0), 3) - 1)
        fields = level[:, :, None, None].expand(-1, -1, SIDE, SIDE)
        return dict(zip("uvp", (t.clone() for t in fields.unbind(1)), strict=True))

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        assert isinstance(x, dict)  # noqa: S101 - narrows the type
        return advance(x, LID + u[:, 0])

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n 50"]:
        """Velocities at 25 places."""
        assert isinstance(x, dict)  # noqa: S101 - narrows the type
        return torch.cat([x[name][:, 2::4, 2::4].flatten(1) for name in "uv"], dim=1)

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n nz"]:
        """Scaled velocities; the reference itself at the start."""
        assert isinstance(x, dict)  # noqa: S101 - narrows the type
        z = torch.cat([x["u"].flatten(1), x["v"].flatten(1)], dim=1) / (2 * SIDE * SIDE) ** 0.5
        return torch.where((k == 0)[:, None], self.reference(k, p).to(z), z)

    def reference(self, k: Int64[Tensor, "n"], p: Params) -> Float[Tensor, "n nz"]:
        """Scaled velocities of the stored flow."""
        return target().to(k.device)[k.clamp(max=self.horizon)]

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """Vorticity and velocities now, and the lid over time."""
        figure = Figure(figsize=(9.6, 4.6), dpi=100, layout="constrained")
        flow, lid = figure.subplots(1, 2, width_ratios=(1, 1.1))
        x = trail.x[-1]
        assert isinstance(x, dict)  # noqa: S101 - narrows the type
        u, v = (x[name][0].cpu().numpy() for name in "uv")
        curl = np.gradient(v, SPACING, axis=1) - np.gradient(u, SPACING, axis=0)
        image = flow.imshow(curl, origin="lower", extent=(0, 1, 0, 1), cmap="RdBu_r", vmin=-40, vmax=40)
        figure.colorbar(image, ax=flow, shrink=0.8, label="vorticity")
        grid = np.linspace(0, 1, SIDE)
        flow.streamplot(grid, grid, u, v, color="0.2", linewidth=0.7, density=0.9, arrowsize=0.7)
        flow.set(title=f"t = {trail.k[-1] * self.period:.3f}", xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
        actions: NDArray[Any] = np.asarray(trail.u).reshape(-1, 1)
        lid.step(np.asarray(trail.k)[: len(actions)] * self.period, actions[:, 0], where="post")
        lid.set(xlim=(0, self.horizon * self.period), xlabel="time", ylabel="speed of the lid")
        return pixels(figure)


@cache
def target() -> Float[Tensor, "T nz"]:
    """Scaled velocities of the flow from rest under the lid ``2 + exp(-10 t)``, at steps 0..199."""
    rest = torch.zeros(1, SIDE, SIDE, dtype=torch.float64)
    x = {"u": rest, "v": rest, "p": rest}
    found = []
    for k in range(200):
        found.append(torch.cat([x["u"].flatten(1), x["v"].flatten(1)], dim=1)[0])
        x = advance(x, LID + torch.exp(torch.tensor([-10.0 * k * STEP], dtype=torch.float64)))
    return torch.stack(found) / math.sqrt(2 * SIDE * SIDE)
