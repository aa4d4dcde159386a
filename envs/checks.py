"""Checks that every plant must pass; run them on your own plant before you register it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Int64
from torch import Tensor

from steersman.envs import noise
from steersman.envs.plant import Plant, failed, going
from steersman.envs.repeat import repeats
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import PlantSimulator, Simulator, draw_scenarios
from steersman.envs.tree import State, tree_map

ULPS = 4096
"""Units in the last place by which a row may differ between batches, unless told otherwise."""
_SPOILT = 1

Run = dict[str, Tensor]
"""All that can be seen of a batch, by name, one row each."""


class PlantCheckError(AssertionError):
    """A plant breaks its contract; the message says which part and what to do."""


def check_plant(plant: Plant, *, steps: int = 3, n: int = 8, seed: int = 0, tolerance: float | None = None) -> None:
    """Check shapes, purity, determinism, what is known, independence of rows and containment of a poisoned row.

    Args:
        plant: The plant to check.
        steps: Control steps to run; from 2 on, short cuts for rows with equal actions are tried as well.
        n: Largest batch, at least 4.
        seed: Seed of scenarios and actions.
        tolerance: See :func:`check_rows`.

    Raises:
        PlantCheckError: At the first broken rule.
        ValueError: If the batch is too small.
    """
    _check_shapes(plant, noise.keys(seed, 2))
    check_known(plant, steps=steps, n=n, seed=seed)
    check_rows(plant, steps=steps, n=n, seed=seed, tolerance=tolerance)


def check_rows(plant: Plant, *, steps: int = 3, n: int = 8, seed: int = 0, tolerance: float | None = None) -> None:
    """Check that a row is the same alone, among other rows and in any order, and bit by bit beside a spoilt one.

    Compared are parameters, and after each step states, outputs, costs, violations and status: of ``n`` rows with the
    same rows in another order, with three of them and with one, each drawn anew from its keys; and of ``n`` rows with
    what they are when one row gets a NaN action.

    Args:
        plant: The plant to check.
        steps: Control steps to run; every other one has equal actions in all rows.
        n: Largest batch, at least 4.
        seed: Seed of scenarios and actions.
        tolerance: Largest difference between batches, relative to the largest entry of the row's quantity where that
            exceeds 1; by default :data:`ULPS` (9e-13 in double precision), room for matrix products, which round
            by the size of a batch. Zero asks for equal bits.

    Raises:
        PlantCheckError: At the first broken rule; the message names the quantity.
        ValueError: If the batch is too small.
    """
    if n < 4:
        raise ValueError(f"n must be at least 4, so that there are rows to compare, got {n}")
    slack = ULPS * torch.finfo(plant.dtype).eps if tolerance is None else tolerance
    key = noise.keys(seed, n)
    drawn = draw_scenarios(plant, key)
    batch = _run(plant, drawn, steps)
    alone = "a row depends on the rest of its batch: among {} rows it is not what it is among {}"
    for index in (torch.tensor([n - 1, 0, 2]), torch.tensor([n - 2])):
        part = _run(plant, draw_scenarios(plant, key[index]), steps)
        _same(part, _rows(batch, index), slack, alone.format(len(index), n))
    again = _run(plant, draw_scenarios(plant, key[index]), steps)
    _same(again, part, 0.0, "two runs of one scenario differ: draw all noise from keys")
    order = torch.arange(n).roll(n // 2).flip(0)
    moved = _run(plant, drawn.index(order), steps)
    _same(moved, _rows(batch, order), slack, "a row depends on the rest of its batch: it changes with the rows' order")
    others = torch.arange(n) != _SPOILT
    for at in range(min(steps, 2)):
        spoilt = _run(plant, drawn, steps, spoilt_at=at)
        _same(_rows(spoilt, others), _rows(batch, others), 0.0, f"a NaN action in one row at step {at} reached others")
        for name, leaf in spoilt.items():
            kept = name.startswith("state") and leaf.is_floating_point()
            _require(not kept or not bool(leaf.isnan().any()), f"NaN entered the stored state ({name})")


def check_known(plant: Plant, *, steps: int = 3, n: int = 8, seed: int = 0) -> None:
    """Check that what a controller may know after some steps explains all that it has seen.

    Args:
        plant: The plant to check.
        steps: Control steps after which it is asked.
        n: Rows.
        seed: Seed of scenarios and actions.

    Raises:
        PlantCheckError: If ``known`` changes the past, forgets on a second call, or its tensors have another shape.
    """
    drawn = draw_scenarios(plant, noise.keys(seed, n))
    k = torch.full((n,), steps)
    known = plant.known(k, drawn.p)
    if known is drawn.p:
        return
    for name, leaf in drawn.p.items():
        same = name in known and known[name].shape == leaf.shape and known[name].dtype == leaf.dtype
        _require(same and len(known) == len(drawn.p), f"known must return tensors as it was given them ({name})")
    _same(plant.known(k, known), known, 0.0, "a second call of known hides what is known")
    seen = _run(plant, drawn, steps)
    told = _run(plant, replace(drawn, p=known), steps)
    past = {name: leaf for name, leaf in seen.items() if not name.startswith("parameter")}
    _same(told, past, 0.0, f"known after {steps} steps does not explain what has happened before")


def check_simulator(make: Callable[[int], Simulator], *, steps: int = 3, n: int = 4, seed: int = 0) -> None:
    """Check a simulator that is no plant: shapes, repetition, snapshots, masked resets and what a NaN action does.

    Args:
        make: Makes a simulator with the given number of rows.
        steps: Control steps before a snapshot or a masked reset, and after it.
        n: Rows, at least 3.
        seed: Seed of scenarios and actions.

    Raises:
        PlantCheckError: At the first broken rule.
        ValueError: If the batch is too small.
    """
    if n < 3:
        raise ValueError(f"n must be at least 3, so that there are rows to compare, got {n}")
    key = noise.keys(seed, n)
    first = make(1)
    horizon = first.problem.horizon
    first.close()
    again = repeats(make, key[:2], horizon)
    _require(again is None, f"nothing can be paired on it: {again}")
    steps = max(1, min(steps, horizon // 2))
    simulator = make(n)
    try:
        _check_rows_apart(simulator, key, steps)
    finally:
        simulator.close()


def _check_rows_apart(simulator: Simulator, key: Int64[Tensor, "n"], steps: int) -> None:
    """Of a simulator: what a snapshot restores, and that masked resets and NaN actions stay in their rows."""
    others = torch.arange(simulator.n) != _SPOILT
    simulator.reset(simulator.scenarios(key))
    _check_outputs(simulator)
    before = _watched(simulator, key, range(steps))
    snapshot = simulator.snapshot()
    after = _watched(simulator, key, range(steps, 2 * steps))
    for _ in range(2):
        simulator.restore(snapshot)
        back = _watched(simulator, key, range(steps, 2 * steps))
        _same(back, after, 0.0, "it goes on otherwise after restore than before; let a snapshot hold all that changes")
    simulator.reset(simulator.scenarios(key))
    simulator.restore(snapshot)
    back = _watched(simulator, key, range(steps, 2 * steps))
    _same(back, after, 0.0, "a snapshot is lost when its episodes are reset; let it hold all that changes")
    simulator.restore(snapshot)
    fresh = torch.where(others, key, noise.fold(key, 1))
    simulator.reset(simulator.scenarios(fresh, ~others), ~others)
    _require(int(simulator.measure().k[_SPOILT]) == 0, "a masked row must begin at step 0 when it is reset")
    went = _watched(simulator, key, range(steps, 2 * steps))
    _same(_rows(went, others), _rows(after, others), 0.0, "a masked reset of one row changed others")
    simulator.reset(simulator.scenarios(key))
    spoilt = _watched(simulator, key, range(steps), spoilt=True)
    _same(_rows(spoilt, others), _rows(before, others), 0.0, "a NaN action in one row reached others")
    over = bool(failed(spoilt["status after step 0"])[_SPOILT])
    _require(over, "a NaN action must end its row by failure, with a status and no exception")


def _watched(simulator: Simulator, key: Int64[Tensor, "n"], steps: range, *, spoilt: bool = False) -> Run:
    seen: Run = {}
    for k in steps:
        unit = noise.uniform(noise.fold(noise.fold(key, 0xAC7), k), simulator.actions.m, dtype=simulator.dtype)
        u = simulator.actions.sample(unit)
        if spoilt and k == steps[0]:
            u = torch.where(torch.arange(len(u))[:, None] == _SPOILT, torch.nan, u)
        t, m = simulator.step(u), simulator.measure()
        seen |= {f"y after step {k}": m.y, f"r after step {k}": m.r, f"z after step {k}": simulator.perform()}
        seen |= {f"{name} after step {k}": getattr(t, name) for name in ("cost", "status")}
        _require(bool(torch.isfinite(t.cost).all() and torch.isfinite(m.y).all()), "costs and outputs must be finite")
    return {name: leaf.clone() for name, leaf in seen.items()}


def _check_outputs(simulator: Simulator) -> None:
    n, problem, m = simulator.n, simulator.problem, simulator.measure(2)
    wanted = {"y": (m.y, (n, problem.ny)), "r": (m.r, (n, 3, problem.nz)), "z": (simulator.perform(), (n, problem.nz))}
    for name, (value, shape) in wanted.items():
        _require(tuple(value.shape) == shape, f"{name} must be {shape}, got {tuple(value.shape)}")
    _require(all(0 <= i < problem.ny for i in problem.exogenous), f"exogenous {problem.exogenous} is out of range")


def _actions(plant: Plant, key: Int64[Tensor, "n"], k: int) -> Tensor:
    if k % 2:
        edge = (1 - 1e-6, 1e-6)[k // 2 % 2]
        return plant.actions.sample(torch.full((len(key), plant.actions.m), edge, dtype=plant.dtype))
    unit = noise.uniform(noise.fold(noise.fold(key, 0xAC7), k), plant.actions.m, dtype=plant.dtype)
    return plant.actions.sample(unit)


def _run(plant: Plant, scenarios: Scenarios, steps: int, *, spoilt_at: int | None = None) -> Run:
    # A price of failures is looked for by running the plant; what rows cost besides is enough here.
    sim = PlantSimulator(plant, len(scenarios), price=0.0)
    sim.reset(scenarios)
    before, start = tree_map(torch.clone, sim.x), sim.x
    seen = _named("parameter", scenarios.p) | _named("state at the start", sim.x)
    for k in range(steps):
        u = _actions(plant, scenarios.key, k)
        if k == spoilt_at:
            u = torch.where(torch.arange(len(u))[:, None] == _SPOILT, torch.nan, u)
        t = sim.step(u)
        after = f"after step {k}"
        seen |= _named(f"state {after}", sim.x)
        seen |= {f"y {after}": sim.measure().y, f"z {after}": sim.perform()}
        seen |= {f"{name} {after}": getattr(t, name) for name in ("cost", "violation", "status")}
        _require(bool(torch.isfinite(t.cost).all()), "the cost of a step is not finite")
        _require(t.status.dtype == torch.uint8, f"status must be uint8, got {t.status.dtype}")
    _same(_named("x", before), _named("x", start), 0.0, "step changed its input in place; return new tensors")
    return seen


def _named(what: str, tree: State) -> Run:
    return {what: tree} if isinstance(tree, Tensor) else {f"{what}: {name}": leaf for name, leaf in tree.items()}


def _rows(run: Run, rows: Tensor) -> Run:
    return {name: leaf[rows] for name, leaf in run.items()}


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


def _same(found: Run, wanted: Run, tolerance: float, message: str) -> None:
    for name, right in wanted.items():
        left = found[name]
        _require(
            left.shape == right.shape, f"{message}: {name} has shape {tuple(left.shape)}, not {tuple(right.shape)}"
        )
        if tolerance == 0.0 or not right.is_floating_point():
            # NaN stands for what is not known, in parameters: it equals itself.
            equal = torch.equal(left.isnan(), right.isnan()) and torch.equal(left.nan_to_num(), right.nan_to_num())
            _require(equal, f"{message} ({name})")
        else:
            a, b = left.flatten(1) if left.dim() > 1 else left[:, None], right.reshape(len(right), -1)
            size = b.abs().nan_to_num(0.0, 0.0).amax(dim=1, keepdim=True).clamp(min=1.0) if b.numel() else 1.0
            # Equal infinities have no difference.
            gap = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs() / size)
            worst = float(gap.nan_to_num(torch.inf).max()) if gap.numel() else 0.0
            _require(worst <= tolerance, f"{message} ({name}, by {worst:.1e})")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise PlantCheckError(message)
