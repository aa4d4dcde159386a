"""At rest, where nothing costs anything, LQR does nothing: on each plant that has a linearisation."""

import pytest
import torch

from steersman.controllers.classical.lqr import LQR
from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.registry import make_model
from steersman.dynamics.truth.expansion import flatten_state
from steersman.envs import noise
from steersman.envs.plant import Plant
from steersman.envs.registry import PLANTS, PlantSpec, make_plant
from steersman.envs.simulator import Measurement
from steersman.envs.tree import tree_leaves, tree_map

LARGEST = 1000
"""Numbers in a state beyond which a linearisation takes minutes."""
CONSERVED = {"TwoArea-v1", "TwoAreaBrake-v1", "TwoAreaFull-v1", "TwoAreaDamping-v1", "IEEE39-v1"}
"""Plants whose common angle costs nothing."""


def regulator(plant: Plant, model: LinearDynamics) -> LQR:
    """LQR of the plant's own objective, or, if that is not quadratic, of outputs to zero."""
    try:
        return LQR().bind(plant.problem, model)
    except ValueError:
        return LQR(effort=1.0).bind(plant.problem, model)


def at_rest(plant: Plant, at: str) -> tuple[LQR, Measurement] | None:
    """The regulator and the point of linearisation as it sees it; None if that moves or costs something."""
    key = noise.keys(0, 1)
    p = plant.params(key)
    x = plant.initial(key, p)
    x = x if at == "start" else tree_map(lambda leaf: leaf * 0, x)
    quiet = {name: leaf for name, leaf in p.items() if not name.endswith("_key")}
    k = torch.zeros(1, dtype=torch.int64)
    y, z, r = plant.measure(k, x, quiet), plant.perform(k, x, p), plant.reference(k, p)
    u = plant.actions.neutral(1, y)
    model = make_model("linearized", plant, at=at)
    assert isinstance(model, LinearDynamics)
    s = flatten_state(x)
    law = regulator(plant, model)
    kept = [i for i in range(y.shape[1]) if i not in plant.exogenous]
    cost = plant.objective.stage_cost(z, u, u * 0, r) if law.effort is None else y[:, kept].square().sum()
    if float(cost) > 1e-20 or float((s @ model.A_.T + u @ model.B_.T + model.c_ - s).abs().max()) > 1e-9:
        return None
    return law, Measurement(k, y, r[:, None], u, x, p)


@pytest.mark.parametrize("spec", PLANTS, ids=lambda spec: spec.name)
def test_at_rest_the_regulator_does_nothing(spec: PlantSpec) -> None:
    plant = make_plant(spec.id)
    key = noise.keys(0, 1)
    leaves = tree_leaves(plant.initial(key, plant.params(key)))
    if not all(leaf.is_floating_point() for leaf in leaves) or sum(leaf.numel() for leaf in leaves) > LARGEST:
        pytest.skip("no linearisation, or too large a one")
    lower, upper = (torch.tensor(bound, dtype=torch.float64) for bound in (plant.actions.lower, plant.actions.upper))
    width, tried = (upper - lower).clamp(max=1.0), False
    for at in ("zero", "start"):
        if tried:
            break
        try:
            found = at_rest(plant, at)
        except ValueError as error:
            assert "no finite derivatives" in str(error)
            continue
        if found is not None:
            law, m = found
            assert m.x is not None
            u = law._feedback(flatten_state(m.x), m)  # before it is projected on the bounds
            assert float(((u - m.u_prev).abs() / width).max()) < 1e-6, at
            tried = True
    assert tried or spec.name not in CONSERVED
    if not tried:
        pytest.skip("neither the start nor zero is a rest that costs nothing")
