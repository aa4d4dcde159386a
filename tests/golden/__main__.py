"""Numbers that a change of the house must keep: ``make golden`` compares them, ``--write`` stores them anew.

Per plant, whole episodes of four rows without control and under random actions; per preset, two scenarios under every
controller that is neither trained nor plans on a learned model; and, from ``small.toml``, a small training of every
family. Store them before a reorganisation, on the machine that compares: chaotic plants tell processors apart.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import tyro

from steersman.envs import make_simulator, noise
from steersman.envs.registry import PLANTS
from steersman.experiments.comparison.compare import compare
from steersman.experiments.comparison.executor import Processes
from steersman.experiments.spec.comparison import ComparisonSpec, ControllerEntry, presets, read_spec

HERE = Path(__file__).parent
ROWS, TOLERANCE = 4, 1e-9
CHEAP = ("zero", "pid", "lqr", "lqg", "backstepping", "mip-mpc", "enumeration")
GIVEN = ("", "truth", "linearized", "hindsight")
"""Models that nothing is learned for."""


def main(write: bool = False, only: tuple[str, ...] = ()) -> int:
    """Compare today's numbers with the stored ones.

    Args:
        write: Store today's numbers instead.
        only: Ids of plants, names of presets or ``small``; all by default.

    Returns:
        Exit status: 1 if a number differs by more than 1e-9 of its size.
    """
    torch.set_num_threads(1)
    parts: dict[str, Any] = {spec.id: lambda id=spec.id: episodes(id) for spec in PLANTS}
    parts |= {name: lambda name=name: table(_cheap(read_spec(name))) for name in presets()}
    parts["small"] = lambda: table(read_spec(str(HERE / "small.toml")))
    file, differing = HERE / "numbers.json", 0
    stored = json.loads(file.read_text()) if file.is_file() else {}
    for name in only or parts:
        began = time.monotonic()
        found = json.loads(json.dumps(parts[name]()))
        lines = [] if write else [*differences(found, stored.get(name, {}))]
        differing += bool(lines)
        word = "stored" if write else "differs" if lines else "the same"
        print(f"{name}: {word} ({time.monotonic() - began:.1f} s)", *lines[:8], sep="\n    ", flush=True)  # noqa: T201
        if write:
            stored[name] = found
            file.write_text(json.dumps(stored, indent=1) + "\n")
    return int(differing > 0)


def episodes(plant: str) -> dict[str, list[float]]:
    """Costs, violations, status, steps, and means of outputs of whole episodes."""
    found: dict[str, list[float]] = {}
    for word in ("neutral", "random"):
        simulator = make_simulator(plant, ROWS)
        simulator.reset(simulator.scenarios(noise.keys(11, ROWS)))
        low, high = (
            torch.tensor(edge, dtype=torch.float64) for edge in (simulator.actions.lower, simulator.actions.upper)
        )
        low, high = low.clamp(min=-1.0), high.clamp(max=1.0)
        alive = torch.ones(ROWS, dtype=torch.bool)
        sums: dict[str, Any] = dict.fromkeys(("cost", "violation", "y", "z", "steps"), 0.0)
        while bool(alive.any()):
            m = simulator.measure()
            if word == "neutral":
                u = simulator.actions.neutral(ROWS, m.u_prev)
            else:
                unit = noise.uniform(noise.fold(noise.keys(12, ROWS), m.k), simulator.actions.m)
                u = simulator.actions.project((low + (high - low) * unit).to(simulator.dtype))
            sums["y"] = sums["y"] + m.y.double().nan_to_num().abs().mean(dim=1) * alive
            sums["z"] = sums["z"] + simulator.perform().double().nan_to_num().abs().mean(dim=1) * alive
            t = simulator.step(u)
            sums["cost"], sums["violation"] = sums["cost"] + t.cost.double(), sums["violation"] + t.violation.double()
            sums["steps"] = sums["steps"] + alive.double()
            alive = alive & ~t.ended
        found |= {f"{word} {name}": value.tolist() for name, value in sums.items()}
        found[f"{word} status"] = t.status.tolist()
        simulator.close()
    return found


def table(spec: ComparisonSpec) -> dict[str, list[float]]:
    """Costs of a comparison by plant, controller and seed; failures as their text."""
    with tempfile.TemporaryDirectory(prefix="golden-") as out:
        comparison = compare(spec, Path(out), executor=Processes(1))
    found: dict[str, Any] = {}
    for r in comparison.results:
        found[f"{r.plant}, {r.controller}, {r.seed}"] = [*r.cost.tolist(), float(r.train_steps)]
    for f in comparison.failures:
        found[f"{f.plant}, {f.controller}, {f.seed}"] = [f.error]
    return found


def differences(found: dict[str, list[Any]], stored: dict[str, list[Any]]) -> list[str]:
    """What differs, a line each."""
    lines = [f"{name}: not stored" for name in found if name not in stored]
    lines += [f"{name}: gone" for name in stored if name not in found]
    for name, values in found.items():
        before = stored.get(name, values)
        same = len(before) == len(values) and all(map(_near, values, before))
        if not same:
            lines.append(f"{name}: {before} before, {values} now")
    return lines


def _near(now: Any, before: Any) -> bool:
    if isinstance(now, str) or isinstance(before, str):
        return bool(now == before)
    return bool(
        now == before or abs(now - before) <= TOLERANCE * max(1.0, abs(before)) or (now != now and before != before)
    )


def _cheap(spec: ComparisonSpec) -> ComparisonSpec:
    """Two scenarios under what is neither trained nor plans on a learned model."""

    def kept(entry: ControllerEntry) -> bool:
        return entry.use in CHEAP and entry.model in GIVEN and "tune" not in entry.settings

    plants = tuple(
        replace(
            plant,
            models=tuple(m for m in plant.models if (m.label or m.use) in GIVEN),
            controllers=tuple(filter(kept, plant.controllers)),
        )
        for plant in spec.plants
    )
    return replace(spec, plants=plants, episodes=2, seeds=1, recorded=1)


if __name__ == "__main__":
    sys.exit(tyro.cli(main, description=__doc__))
