"""Every registered plant where no GPU is: nothing lies on the CPU, nothing is waited for, and numbers are the same."""

from typing import Any

import pytest
import torch
from pretended_card import Card, OnCard, Wait
from torch import Tensor

from steersman.envs import make_plant, noise
from steersman.envs.placement import constant, placed
from steersman.envs.plant_spec import PlantSpec
from steersman.envs.registry import PLANTS
from steersman.envs.simulator import PlantSimulator

LIGHT: dict[str, dict[str, Any]] = {
    "WolfSheep": {"warmup": 2},
    "WolfSheepSteady": {"warmup": 2},
    "SEIRNetwork": {"nodes": 40},
    "BurgersOpenLoop": {"substeps": 40},
    "BurgersOpenLoopPartial": {"substeps": 40},
    "BurgersOpenLoopHidden": {"substeps": 40},
    "BurgersOpenLoopSafe": {"substeps": 40},
    "RayleighBenard": {"points": 20, "dt": 0.1},
}
"""Settings that take less time."""
LONG = (
    "TwoAreaBrakeFull-v1", "TwoAreaFull-v1", "TwoAreaFrequency-v1", "TwoAreaDamping-v1", "IEEE39-v1",
    "PreventiveRedispatch-v1", "WolfSheep-v1", "WolfSheepSteady-v1", "KuramotoSivashinsky-v1", "BurgersOpenLoopPartial-v1", "BurgersOpenLoopHidden-v1",
    "BurgersOpenLoopSafe-v1", "BurgersTracking-v1", "BurgersTracking-v2", "BurgersTrackingNoisy-v1",
    "BurgersTrackingNoisy-v2", "KolmogorovFlow-v1", "Smoke128-v1", "KuramotoSivashinskyUnbounded-v1",
    "RayleighBenard-v1",
)  # fmt: skip
WAITING = {
    "WolfSheep": "animals meet, are born and die: how many do is counted in every tick",
    "CarT": "cells divide in few ticks only, and the work of births is done in those",
    "TwoAreaFull": "a control step in which an event falls is cut there, and there is none in most",
    "TwoAreaDamping": "likewise",
    "TwoAreaFrequency": "likewise",
    "TwoAreaBrakeFull": "likewise",
    "IEEE39": "likewise",
    "PreventiveRedispatch": "a disturbance beyond the range that was simulated is refused",
}
"""Plants whose steps wait for a GPU by their nature, by the beginning of their names, and why."""


def stepped(spec: PlantSpec, device: str, card: Card | None = None) -> tuple[list[Tensor], list[Wait]]:
    """What can be seen after each of two control steps, and what the second one waited for."""
    plant = make_plant(spec.id, **LIGHT.get(spec.name.rpartition("-")[0], {}))
    sim = PlantSimulator(plant, 2, device=device, price=1.0)
    key = noise.keys(3, 2, device=device)
    sim.reset(sim.scenarios(key))
    seen: list[Tensor] = []
    for k in range(2):
        if card is not None:
            card.waits.clear()
        u = sim.actions.sample(noise.uniform(noise.fold(key, k), sim.actions.m, dtype=sim.dtype))
        t, m = sim.step(u), sim.measure(1)
        seen += [m.y, m.r, m.u_prev, sim.perform(), t.cost, t.violation, t.status, t.ended]
    return seen, [] if card is None else list(card.waits)


@pytest.mark.parametrize(
    "spec", [pytest.param(s, marks=[pytest.mark.slow] * (s.name in LONG), id=s.name) for s in PLANTS]
)
def test_plant(spec: PlantSpec) -> None:
    with Card() as card:
        there, waits = stepped(spec, "cuda", card)
        assert all(isinstance(t, OnCard) for t in there)
        found = [t.cpu() for t in there]
    for a, b in zip(found, stepped(spec, "cpu")[0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, equal_nan=True)
    if any(spec.name.startswith(name) for name in WAITING):
        assert waits, "it waits for nothing any more: strike it from WAITING"
    else:
        assert not waits, "\n".join(sorted({str(wait) for wait in waits}))


def test_constants_are_made_once_for_each_device() -> None:
    original = torch.arange(3.0)
    with Card() as card:
        x = torch.zeros(2, device="cuda")
        for _ in range(2):
            assert constant((1.0, 2.0, 41.0), x).tolist() == [1.0, 2.0, 41.0]
            assert placed(original, x).tolist() == [0.0, 1.0, 2.0]
        assert sum("copy" in wait.what for wait in card.waits) == 2 + 4  # two copies there, four lists from there
        assert placed(original, x, torch.float64).dtype == torch.float64
    assert placed(original, torch.zeros(1)) is original
