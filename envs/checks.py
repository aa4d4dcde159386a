"""Checks that every plant must pass; run them on your own plant before you register it."""

from __future__ import annotations

import torch
from torch import Tensor

from steersman.envs import noise
from steersman.envs.plant import Plant, going
from steersman.envs.simulator import PlantSimulator
from steersman.envs.tree import State, tree_index, tree_leaves, tree_map


class PlantCheckError(AssertionError):
    """A plant breaks its contract; the message says which part and what to do."""


def check_plant(plant: Plant, *, steps: int = 3, n: int = 4, seed: int = 0, tolerance: float = 1e-6) -> None:
    """Check shapes, purity, determinism, independence of rows and containment of a poisoned row.

    Args:
        plant: The plant to check.
        steps: Control steps to run.
        n: Batch size; at least 2.
        seed: Seed of scenarios and actions.
        tolerance: Largest relative difference between a row run alone and in the batch.

    Raises:
        PlantCheckError: At the first broken rule.
    """
    key = noise.keys(seed, n)
    _check_shapes(plant, key)
    batch = _run(plant, key, steps, seed)
    _same(batch, _run(plant, key, steps, seed), 0.0, "two runs of one scenario differ: draw all noise from keys")
    row = _run(plant, key[1:2], steps, seed, row=1)
    _same(tree_index(batch, slice(1, 2)), row, tolerance, "a row depends on the rest of its batch")
    _check_poison(plant, key, steps, seed, batch)


def _actions(plant: Plant, k: int, n: int, seed: int) -> Tensor:
    unit = noise.uniform(noise.fold(noise.keys(seed, n), k), plant.actions.m, dtype=plant.dtype)
    return plant.actions.sample(unit)


def _run(plant: Plant, key: Tensor, steps: int, seed: int, *, row: int | None = None, poison: bool = False) -> State:
    sim = PlantSimulator(plant, len(key))
    sim.reset(sim.scenarios(key))
    before = tree_map(torch.clone, sim.x)
    for k in range(steps):
        u = _actions(plant, k, len(key) if row is None else row + 1, seed)
        u = u if row is None else u[row : row + 1]
        if poison and k == 0:
            u = torch.cat([torch.full_like(u[:1], torch.nan), u[1:]])
        held = sim.x
        t = sim.step(u)
        _require(bool(torch.isfinite(t.cost).all()), "the cost of a step is not finite")
        _require(t.status.dtype == torch.uint8, f"status must be uint8, got {t.status.dtype}")
        if k == 0:
            _same(before, held, 0.0, "step changed its input in place; return new tensors")
    return sim.x


def _check_shapes(plant: Plant, key: Tensor) -> None:
    n = len(key)
    p = plant.params(key)
    x = plant.initial(key, p)
    k = torch.zeros(n, dtype=torch.int64)
    for name, leaf in {**p, **({"x": x} if isinstance(x, Tensor) else x)}.items():
        _require(leaf.shape[:1] == (n,), f"{name} must have the batch as leading axis {n}, got {tuple(leaf.shape)}")
    u = plant.actions.neutral(n, torch.zeros(1, dtype=plant.dtype))
    outputs = {
        "measure": (plant.measure(k, x, p), len(plant.measured)),
        "perform": (plant.perform(k, x, p), len(plant.performed)),
        "reference": (plant.reference(k, p), len(plant.performed)),
        "constraints": (plant.constraints(k, x, u, p), len(plant.constrained)),
    }
    for name, (value, width) in outputs.items():
        _require(tuple(value.shape) == (n, width), f"{name} must be {(n, width)}, got {tuple(value.shape)}")
        _require(value.dtype == plant.dtype, f"{name} must be {plant.dtype}, got {value.dtype}")
    _require(all(0 <= i < len(plant.measured) for i in plant.exogenous), f"exogenous {plant.exogenous} is out of range")
    _require(bool(going(plant.status(k, x, p)).all()), "a fresh scenario must have status OK")


def _check_poison(plant: Plant, key: Tensor, steps: int, seed: int, batch: State) -> None:
    poisoned = _run(plant, key, steps, seed, poison=True)
    others = slice(1, None)
    _same(tree_index(batch, others), tree_index(poisoned, others), 0.0, "a NaN action in one row reached other rows")
    for leaf in tree_leaves(poisoned):
        _require(not leaf.is_floating_point() or not bool(leaf.isnan().any()), "NaN entered the stored state")


def _same(a: State, b: State, tolerance: float, message: str) -> None:
    for left, right in zip(tree_leaves(a), tree_leaves(b), strict=True):
        if tolerance == 0.0:
            _require(torch.equal(left.nan_to_num(), right.nan_to_num()), message)
        else:
            close = torch.allclose(left.double(), right.double(), rtol=tolerance, atol=tolerance, equal_nan=True)
            _require(close, message)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise PlantCheckError(message)
