"""Every linearisable PDE plant can be steered and seen: what does not decay by itself is reached and shows (PBH)."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from steersman.dynamics.truth.expansion import flatten_state, linearize
from steersman.envs import noise
from steersman.envs.pde.burgers import BurgersOpenLoop
from steersman.envs.pde.rayleigh_benard import COLD, HOT, RayleighBenard
from steersman.envs.pde.spectral import SpectralPlant, boxes
from steersman.envs.plant import Plant
from steersman.envs.registry import PLANTS, make_plant
from steersman.envs.tree import State, tree_map

PDE = [spec for spec in PLANTS if ".pde." in spec.target]
COUNTERS = {"before", "spent"}
"""Leaves that only keep books for a reward; nothing depends on them."""
UNSUITED = {
    # At rest no fan moves smoke to first order, and every distribution of smoke is an equilibrium.
    "Smoke-v1",
    "Smoke128-v1",
    # Its laminar flow is 1.8 times as fast as the plant allows; within the range there is no equilibrium.
    "KolmogorovFlow-v1",
}


def at_zero(plant: Plant) -> State:
    key = noise.keys(0, 1)
    return tree_map(lambda leaf: leaf * 0, plant.initial(key, plant.params(key)))


def driven(plant: Plant) -> State:
    """The flow that the lid has driven for 1.5 time units."""
    x, k = at_zero(plant), torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        for _ in range(1500):
            x = plant.step(k, x, torch.zeros(1, 1, dtype=torch.float64), k, {})
    return x


def conducting(plant: Plant) -> State:
    assert isinstance(plant, RayleighBenard)
    height = (torch.arange(plant.points, dtype=torch.float64) + 0.5) / plant.points
    rest = tree_map(torch.zeros_like, at_zero(plant))
    assert isinstance(rest, dict)
    profile = HOT + (COLD - HOT) * height
    # The lift of the profile is held by a pressure.
    return {**rest, "T": rest["T"] + profile[:, None], "p": rest["p"] + (HOT * height - height**2 / 2)[:, None]}


# The grid of convection is coarsened: 10,000 states would make this test slow.
SMALLER: dict[str, Callable[[], Plant]] = {
    "RayleighBenard-v1": lambda: RayleighBenard(points=10),
    "BurgersOpenLoop-v1": lambda: BurgersOpenLoop(substeps=40),
    "BurgersOpenLoopPartial-v1": lambda: BurgersOpenLoop("FO-PC", substeps=40),
    "BurgersOpenLoopHidden-v1": lambda: BurgersOpenLoop("PO-PC", substeps=40),
    "BurgersOpenLoopSafe-v1": lambda: BurgersOpenLoop(substeps=40, safe=True),
}
EQUILIBRIUM: dict[str, Callable[[Plant], State]] = {"CavityFlow-v1": driven, "RayleighBenard-v1": conducting}

LASTING = {
    "RayleighBenard-v1": 2,
    "KuramotoSivashinsky-v1": 7,
    "TransportBoundary-v1": 2,
    "TransportBoundary-v2": 2,
    "Wave-v1": 2,
}
"""Modes that do not decay by themselves, of some plants, so that the check is not one of nothing."""


def matrices(plant: Plant, x: State) -> tuple[Tensor, Tensor, Tensor]:
    """A, B, C of a control step without the states that keep books, and without the level of a pressure."""
    key = noise.keys(0, 1)
    found = linearize(plant, x, plant.actions.neutral(1, torch.zeros(1, dtype=torch.float64)), plant.params(key))
    if isinstance(x, Tensor):
        return found.A, found.B, found.C
    kept = {n: torch.full_like(leaf, n not in COUNTERS) for n, leaf in x.items()}
    keep = flatten_state(kept)[0].bool()
    A, B, C = found.A[keep][:, keep], found.B[keep], found.C[:, keep]
    if "p" not in x:
        return A, B, C
    level = flatten_state({n: torch.full_like(leaf, n == "p") for n, leaf in x.items()})[0][keep]
    basis = torch.linalg.svd(level[None], full_matrices=True)[2][1:].T
    return basis.T @ A @ basis, basis.T @ B, C @ basis


def lost(A: Tensor, B: Tensor, slack: float = 1e-6) -> int:
    """Modes that neither decay nor are reached by B (Popov, Belevitch, Hautus), relative to the size of B."""
    values = torch.linalg.eigvals(A)
    count, done = 0, torch.zeros(len(values), dtype=torch.bool)
    for i in (values.abs() > 1 - slack).nonzero()[:, 0].tolist():
        if done[i]:
            continue
        near = (values - values[i]).abs() < slack
        done |= near
        gap = A.T.to(values.dtype) - values[i] * torch.eye(len(A), dtype=values.dtype)
        _, size, rows = torch.linalg.svd(gap)
        left = rows[size < 1e-5 * max(float(size[0]), 1.0)].conj()
        reach = torch.linalg.svdvals(left.conj() @ B.to(values.dtype)) if len(left) else size[:0]
        count += len(left) - int((reach > 1e-6 * torch.linalg.matrix_norm(B, 2)).sum())
    return count


@pytest.mark.parametrize("name", [spec.name for spec in PDE if spec.name not in UNSUITED])
def test_stabilisable_and_detectable(name: str) -> None:
    plant = SMALLER[name]() if name in SMALLER else make_plant(name)
    A, B, C = matrices(plant, EQUILIBRIUM.get(name, at_zero)(plant))
    if name in LASTING:
        assert int((torch.linalg.eigvals(A).abs() > 1 - 1e-6).sum()) == LASTING[name]
    assert lost(A, B) == 0, "an action is missing: some mode neither decays nor is reached"
    assert lost(A.T, C.T) == 0, "a sensor is missing: some mode neither decays nor shows"


@pytest.mark.parametrize("spec", PDE, ids=lambda spec: spec.name)
def test_sensors_and_actuators_are_named(spec) -> None:  # type: ignore[no-untyped-def]
    plant = make_plant(spec.id)
    for names in (plant.actions.names, plant.measured):
        assert len(set(names)) == len(names) > 0 and all(names)
    assert len(plant.actions.names) == plant.actions.m


def test_eight_equal_boxes_lose_three_modes_of_a_long_ring() -> None:
    """Sines of wavenumbers 4, 8 and 12 vanish on them: custom elsewhere, and the check finds it."""
    length, points = 32 * math.pi, 128
    plant = SpectralPlant(
        length=length, points=points, symbol=lambda q: q**2 - q**4, flux=lambda u: u.square() / 2,
        start=lambda x, key: torch.zeros(len(key), len(x), dtype=x.dtype), dt=0.1, hold=5, horizon=10,
        actuators=boxes(length, points, tuple(length * i / 8 for i in range(8)), length / 16), sensors=tuple(range(64)),
    )  # fmt: skip
    A, B, C = matrices(plant, at_zero(plant))
    assert lost(A, B) >= 3
    assert lost(A.T, C.T) == 0
