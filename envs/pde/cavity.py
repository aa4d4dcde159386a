"""A lid-driven cavity: follow a stored flow by the speed of the lid."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
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
from steersman.envs.placement import placed
from steersman.envs.plant import Plant, Trail
from steersman.envs.tree import Params, State

SIDE = 21
"""Grid points along each side, walls included."""
INSIDE = SIDE - 2
SPACING = 0.05
VISCOSITY = 0.1
STEP = 1e-3
SWEEPS = 2000
"""Jacobi sweeps for the pressure of one step."""
LID = 2.0
"""Speed of the lid that actions are counted from."""
START = 5.0
"""Both velocities and the pressure start at constants of at most this modulus."""


@cache
def _pressure(sweeps: int = SWEEPS) -> tuple[Tensor, Tensor, Tensor]:
    """Fixed Jacobi sweeps of ``laplacian p = source`` with zero normal slope at the walls are one affine map.

    Inside, walls that copy their neighbour make the sweep that of a cell-centred grid, whose eigenvectors are cosines:
    a mode of eigenvalue e ends at ``e^m`` of itself and ``(1 - e^m) / (1 - e)`` of its source. After many sweeps only
    a few modes of the pressure before are left. Matrices for inner points: onto those modes ``[361, r]``, back from
    them ``[r, 361]``, and of the source ``[361, 361]``.
    """
    mode = torch.arange(INSIDE, dtype=torch.float64)
    cosines = torch.cos(math.pi * mode[:, None] * (mode[None] + 0.5) / INSIDE) * math.sqrt(2 / INSIDE)
    cosines[0] /= math.sqrt(2)
    vectors = torch.einsum("ki,lj->klij", cosines, cosines).reshape(INSIDE**2, INSIDE**2)
    wave = torch.cos(math.pi * mode / INSIDE)
    factor = (wave[:, None] + wave[None]).flatten() / 2
    kept = factor**sweeps
    flat = factor == 1
    made = torch.where(flat, float(sweeps), (1 - kept) / torch.where(flat, 1.0, 1 - factor))
    left = kept.abs() > 1e-18
    return (
        (vectors[left] * kept[left, None]).T.contiguous(),
        vectors[left].contiguous(),
        (-(SPACING**2) / 4 * (vectors.T * made) @ vectors).contiguous(),
    )


def _closed(inner: Float[Tensor, "n inside inside"], lid: Float[Tensor, "n"] | None = None) -> Tensor:
    """With zero at the walls, or ``lid`` at the last row; the corners belong to the side walls."""
    whole = torch.nn.functional.pad(inner, (1, 1, 1, 1))
    if lid is not None:
        whole[:, -1, 1:-1] = lid[:, None]
    return whole


def _moved(f: Tensor, u: Tensor, v: Tensor) -> Float[Tensor, "n inside inside"]:
    """Inner values of f after explicit diffusion and advection by ``u, v``, central differences throughout."""
    here, east, west = f[:, 1:-1, 1:-1], f[:, 1:-1, 2:], f[:, 1:-1, :-2]
    north, south = f[:, 2:, 1:-1], f[:, :-2, 1:-1]
    spread = STEP * VISCOSITY / SPACING**2
    carried = torch.addcmul(u * (east - west), v, north - south)
    around = (east + west).add_(north).add_(south)
    after = torch.add((1 - 4 * spread) * here, around, alpha=spread)
    return after.sub(carried, alpha=STEP / (2 * SPACING))


def advance(x: dict[str, Tensor], lid: Float[Tensor, "n"]) -> dict[str, Tensor]:
    """One step of Chorin's projection: explicit Euler, central differences, the pressure by its affine map.

    The pressure at the walls must copy its neighbours inside, as it does after every step.
    """
    u, v, p = x["u"], x["v"], x["p"]
    across, along = u[:, 1:-1, 1:-1], v[:, 1:-1, 1:-1]
    u_star, v_star = _moved(u, across, along), _moved(v, across, along)
    wide, tall = (torch.nn.functional.pad(f, margin) for f, margin in ((u_star, (1, 1)), (v_star, (0, 0, 1, 1))))
    outflow = wide[:, :, 2:] - wide[:, :, :-2] + tall[:, 2:] - tall[:, :-2]
    onto, back, made = (placed(t, outflow, outflow.dtype) for t in _pressure())
    inner = p[:, 1:-1, 1:-1].flatten(1) @ onto @ back
    inner = torch.addmm(inner, outflow.flatten(1), made, alpha=1 / (2 * SPACING * STEP)).reshape_as(outflow)
    p = torch.nn.functional.pad(inner[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    push = STEP / (2 * SPACING)
    u_new = u_star.sub(p[:, 1:-1, 2:] - p[:, 1:-1, :-2], alpha=push)
    v_new = v_star.sub(p[:, 2:, 1:-1] - p[:, :-2, 1:-1], alpha=push)
    return {"u": _closed(u_new, lid), "v": _closed(v_new), "p": p}


class CavityFlow(Plant):
    """Incompressible flow in the unit square, viscosity 0.1, driven by its lid: follow a stored flow.

    After PDEControlGym's task: collocated 21 x 21 grid, central differences, explicit Euler at 1e-3, Chorin's
    projection with 2000 Jacobi sweeps, which are one affine map, computed once: equal results, thousands of times
    faster, differentiable. Start: constant u, v and pressure, each uniform in +-5. The lid's speed is the action,
    in [-10, 10], counted from 2; 199 steps. Cost, minus the peer's reward: ``|U - U_ref|^2 / 882 + 0.05 a^2``, U the
    velocities after the step. Our ``U_ref`` is the flow from rest under a lid that slows down from 3 to 2,
    ``2 + exp(-10 t)``. The peer's stored one is not ours to ship and no rule for it is stated; with your copy of its
    file ``target.npz`` as ``reference`` this is its task, and only then do returns published for it apply.

    State: ``u``, ``v`` and ``p`` ``[n, 21, 21]`` (row, column). Measured: u and v at 25 places. Performance: u and v
    divided by sqrt(882). Nothing is charged for the start.
    """

    def __init__(self, reference: str | Path | None = None) -> None:
        """Set up the task.

        Args:
            reference: A file of arrays ``u`` and ``v`` ``[T, 21, 21]`` (row, column; T at least 200), the flow to
                follow from step 0 on; None takes our own.

        Raises:
            ValueError: If the file is missing, or its arrays are not as they should be.
        """
        self.flow = target() if reference is None else stored(Path(reference))
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
        return placed(self.flow, k)[k.clamp(max=self.horizon)]

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


def stored(path: Path) -> Float[Tensor, "T nz"]:
    """Scaled velocities of a flow in a file, at steps 0..199; see :class:`CavityFlow` for format and errors."""
    if not path.is_file():
        raise ValueError(
            f"reference={str(path)!r} is no file; give a copy of PDEControlGym's examples/NavierStokes/target.npz, "
            "or None for a flow of our own"
        )
    with np.load(path) as arrays:
        missing = [name for name in "uv" if name not in arrays]
        if missing:
            raise ValueError(f"reference={str(path)!r} lacks the arrays {missing}; it has {sorted(arrays)}")
        fields = [torch.as_tensor(np.asarray(arrays[name], dtype=np.float64)) for name in "uv"]
    for name, field in zip("uv", fields, strict=True):
        if field.dim() != 3 or field.shape[0] < 200 or tuple(field.shape[1:]) != (SIDE, SIDE):
            raise ValueError(
                f"reference={str(path)!r}: {name} must be [at least 200, 21, 21], got {tuple(field.shape)}"
            )
        if not bool(torch.isfinite(field).all()):
            raise ValueError(f"reference={str(path)!r}: {name} holds numbers that are not finite")
    flat = torch.cat([field[:200].flatten(1) for field in fields], dim=1)
    return flat / math.sqrt(2 * SIDE * SIDE)


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
