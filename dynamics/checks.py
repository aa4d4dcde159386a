"""Checks that every model must pass; run them on your own model before you enrol it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from steersman.dynamics.base import Dynamics, Trajectories, Window
from steersman.envs import noise
from steersman.envs.simulator import Simulator

ROUNDING = 1e-9
"""Equal up to the order of summation, which BLAS chooses by the layout of memory."""
REFIT = 1e-4
"""The same after a training that amplifies rounding."""


class DynamicsCheckError(AssertionError):
    """A model breaks its contract; the message says which part and what to do."""


def check_dynamics(make: Callable[[], Dynamics], data: Trajectories, simulator: Simulator, *, horizon: int = 3) -> None:
    """Check shapes, determinism, independence of rows, gradients, a second fit, and saving.

    Args:
        make: Makes an unfitted model.
        data: What to fit it to.
        simulator: Where windows are taken from, at least 2 rows; it is reset.
        horizon: Steps of the rollouts.

    Raises:
        DynamicsCheckError: At the first broken rule.
    """
    model = make().bind(simulator.problem)
    _require(model.fit(data) is model, "fit must return self")
    window = _window(simulator, model.context)
    first = _rollout(model, window, simulator, horizon)
    _check_shapes(first, simulator, horizon)
    _same(first, _rollout(model, window, simulator, horizon), ROUNDING, "two rollouts from one window differ")
    alone = _rollout(model, _row(window, 1), simulator, horizon, row=1)
    _same(tuple(part[1:2] for part in first), alone, 1e-6, "a row depends on the rest of its batch")
    _check_poison(model, window, simulator, horizon, first)
    restored = make().bind(simulator.problem)
    restored.load_state_dict(model.state_dict())
    _same(first, _rollout(restored, window, simulator, horizon), ROUNDING, "a restored model predicts something else")
    model.fit(data)
    _same(first, _rollout(model, window, simulator, horizon), REFIT, "a second fit does not forget the first")
    if simulator.problem.gradient == "exact" or not model.needs_state:
        _check_gradient(model, window, simulator, horizon)


def _window(simulator: Simulator, context: int) -> Window:
    """The window after ``context`` control steps under random actions."""
    n = simulator.n
    key = noise.keys(3, n, device=simulator.device)
    simulator.reset(simulator.scenarios(key))
    ys, us = [simulator.measure().y], []
    for k in range(context - 1):
        u = simulator.actions.sample(noise.uniform(noise.fold(key, k), simulator.actions.m, dtype=simulator.dtype))
        simulator.step(u)
        us.append(u)
        ys.append(simulator.measure().y)
    u = torch.stack(us, dim=1) if us else ys[0].new_zeros(n, 0, simulator.actions.m)
    return Window(torch.stack(ys, dim=1), u, simulator.measure())


def _row(window: Window, i: int) -> Window:
    return Window(window.y[i : i + 1], window.u[i : i + 1], window.now.rows(torch.tensor([i])))


def _actions(simulator: Simulator, n: int, horizon: int) -> Tensor:
    unit = noise.uniform(noise.keys(4, n), horizon, simulator.actions.m, dtype=simulator.dtype)
    return torch.stack([simulator.actions.sample(unit[:, j]) for j in range(horizon)], dim=1)


def _rollout(
    model: Dynamics, window: Window, simulator: Simulator, horizon: int, row: int | None = None
) -> tuple[Tensor, Tensor]:
    U = _actions(simulator, simulator.n, horizon)
    U = U if row is None else U[row : row + 1]
    with torch.no_grad():
        return model.rollout(model.init(window), U)


def _check_shapes(outputs: tuple[Tensor, Tensor], simulator: Simulator, horizon: int) -> None:
    for name, value, width in zip("yz", outputs, (simulator.problem.ny, simulator.problem.nz), strict=True):
        want = (simulator.n, horizon, width)
        _require(tuple(value.shape) == want, f"{name} of a rollout must be {want}, got {tuple(value.shape)}")
        _require(value.dtype == simulator.dtype, f"{name} must be {simulator.dtype}, got {value.dtype}")
        _require(bool(torch.isfinite(value).all()), f"{name} of a rollout inside the data is not finite")


def _check_poison(
    model: Dynamics, window: Window, simulator: Simulator, horizon: int, first: tuple[Tensor, Tensor]
) -> None:
    U = _actions(simulator, simulator.n, horizon)
    U[0] = torch.nan
    with torch.no_grad():
        poisoned = model.rollout(model.init(window), U)
    others = tuple(part[1:] for part in poisoned)
    _same(tuple(part[1:] for part in first), others, ROUNDING, "a NaN action in one row reached other rows")


def _check_gradient(model: Dynamics, window: Window, simulator: Simulator, horizon: int) -> None:
    U = _actions(simulator, simulator.n, horizon).requires_grad_()
    _, z = model.rollout(model.init(window), U)
    _require(z.requires_grad, "the rollout is cut off from its actions; do not detach inside step or output")
    (slope,) = torch.autograd.grad(z.sum(), U)
    _require(bool(torch.isfinite(slope).all()), "the gradient of a rollout is not finite")
    _require(bool((slope != 0).any()), "no action has any effect on the predicted outputs")


def _same(a: tuple[Tensor, ...], b: tuple[Tensor, ...], tolerance: float, message: str) -> None:
    for left, right in zip(a, b, strict=True):
        _require(torch.allclose(left, right, tolerance, tolerance), message)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise DynamicsCheckError(message)
