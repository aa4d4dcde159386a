"""The numbers behind every id stay what they are: a plant whose numbers must change gets a new version.

Run this file to store the numbers of plants that are new (``python tests/envs/test_frozen.py``).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from steersman.envs import noise
from steersman.envs.registry import PLANTS, make_plant
from steersman.envs.simulator import draw_scenarios
from steersman.envs.tree import tree_leaves

STORED = Path(__file__).parent / "frozen.json"
ROWS = 4


def numbers(plant_id: str) -> dict[str, float]:
    """Sums over four scenarios and three steps under actions in the middle of the upper half of their range."""
    plant = make_plant(plant_id)
    drawn = draw_scenarios(plant, noise.keys(2024, ROWS))
    p, x = drawn.p, drawn.x0
    low, high = (torch.tensor(edge, dtype=torch.float64) for edge in (plant.actions.lower, plant.actions.upper))
    low, high = low.clamp(min=-1.0), high.clamp(max=1.0)
    u = plant.actions.project((low + 0.75 * (high - low)).expand(ROWS, plant.actions.m))
    # Infinite parameters stand for times that never come.
    finite = [leaf.double().abs().nan_to_num(posinf=0.0) for leaf in tree_leaves(p) if leaf.is_floating_point()]
    found = {"parameters": sum(leaf.mean().item() for leaf in finite if leaf.numel())}
    previous = u
    for j in range(3):
        k = torch.full((ROWS,), j)
        z, r = plant.perform(k, x, p), plant.reference(k, p)
        found[f"measured {j}"] = plant.measure(k, x, p).double().abs().mean().item()
        found[f"cost {j}"] = plant.objective.stage_cost(z, u, previous, r).mean().item()
        x = plant.step(k, x, u, plant.disturbance(drawn.key, k), p)
    return found


@pytest.mark.parametrize("plant_id", [spec.id for spec in PLANTS])
def test_numbers_are_frozen(plant_id: str) -> None:
    stored = json.loads(STORED.read_text())
    assert plant_id in stored, f"{plant_id} is new: run 'python {Path(__file__).name}' in {STORED.parent}"
    # Loose enough for another processor's mathematics, tight enough for any change of a rule or a number.
    assert numbers(plant_id) == pytest.approx(stored[plant_id], rel=1e-6, abs=1e-9)


if __name__ == "__main__":
    known = json.loads(STORED.read_text()) if STORED.exists() else {}
    known |= {spec.id: numbers(spec.id) for spec in PLANTS if spec.id not in known}
    STORED.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
