"""Whether scenarios repeat: without that, paired differences between controllers mean nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from steersman.envs import noise
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import Simulator

_TOLERANCE = 1e-6
"""Plants are batched: sums may round otherwise beside other rows, which a few steps do not enlarge beyond this."""


@dataclass(frozen=True)
class _Run:
    """What rows of some scenarios did: one column for each number that is compared."""

    values: Tensor
    names: tuple[str, ...]

    def rows(self, index: Tensor) -> _Run:
        return _Run(self.values[:, index], self.names)


def repeats(make: Callable[[int], Simulator], key: Int64[Tensor, "n"], steps: int) -> str | None:
    """Run scenarios twice under the same random actions, then again in the same simulator, in another order and alone.

    Args:
        make: Makes a simulator with the given number of rows.
        key: Keys of the scenarios, at least two of them to see whether rows depend on their neighbours.
        steps: Control steps, at most the horizon.

    Returns:
        None if all of that gives the same numbers: bit by bit where the batch is the same or rows are stepped one by
        one, to six digits where plants are batched otherwise. Else the first difference in words.

    Raises:
        ValueError: If ``steps`` or the number of scenarios is below 1.
    """
    n = len(key)
    if n < 1 or steps < 1:
        raise ValueError(f"need at least one scenario and one step, got {n} and {steps}")
    first = make(n)
    try:
        near = _TOLERANCE if first.batched else 0.0
        reference = _run(first, key, steps)
        again = make(n)
        try:
            if found := _difference(reference, _run(again, key, steps), 0.0, "when it was run again"):
                return found
        finally:
            again.close()
        if found := _difference(reference, _run(first, key, steps), 0.0, "when the same simulator ran it again"):
            return found
        if n > 1:
            back = torch.arange(n - 1, -1, -1)
            turned = _run(first, key[back], steps).rows(back)
            if found := _difference(reference, turned, near, "in another order of the rows"):
                return found
    finally:
        first.close()
    alone = make(1)
    try:
        last = torch.tensor([n - 1])
        return _difference(reference.rows(last), _run(alone, key[last], steps), near, "alone", int(last))
    finally:
        alone.close()


def _run(simulator: Simulator, key: Tensor, steps: int) -> _Run:
    """Outputs, references, costs and status of every step, ``[numbers, n]``."""
    key = key.to(simulator.device)
    simulator.reset(Scenarios(key))
    problem, names, values = simulator.problem, [], []

    def note(k: int, parts: dict[str, Tensor]) -> None:
        for name, part in parts.items():
            labels = {"y": problem.measured, "z": problem.performed, "r": problem.performed}.get(name, ("",))
            for label, column in zip(labels, part.reshape(simulator.n, -1).T, strict=True):
                names.append(f"{name} {label!r} of step {k}" if label else f"{name} of step {k}")
                values.append(column.double().cpu())

    m = simulator.measure()
    note(0, {"y": m.y, "z": simulator.perform(), "r": m.r[:, 0]})
    for k in range(min(steps, problem.horizon)):
        unit = noise.uniform(noise.fold(key, k), problem.actions.m, dtype=simulator.dtype)
        t = simulator.step(problem.actions.sample(unit))
        m = simulator.measure()
        note(k + 1, {"y": m.y, "z": simulator.perform(), "r": m.r[:, 0], "cost": t.cost, "status": t.status})
    return _Run(torch.stack(values), tuple(names))


def _difference(a: _Run, b: _Run, tolerance: float, how: str, row: int | None = None) -> str | None:
    same = (a.values == b.values) | (a.values.isnan() & b.values.isnan())
    if tolerance:
        scale = 1.0 + torch.maximum(a.values.abs(), b.values.abs())
        same = same | ((a.values - b.values).abs() <= tolerance * scale)
    if bool(same.all()):
        return None
    at, column = (~same).nonzero()[0].tolist()
    one, other = float(a.values[at, column]), float(b.values[at, column])
    which = column if row is None else row
    return (
        f"scenario {which} does not repeat: {a.names[at]} was {one!r}, and {other!r} {how}; give the model a seed for "
        "everything random, and let rows share nothing that changes"
    )
