"""The epidemic on a network: rules, its mean-field limit, final size, control."""

import numpy as np
import pytest
import torch
from torch import Tensor

from steersman.envs import noise
from steersman.envs.abm.seir_network import (
    CAPACITY,
    EXPOSED,
    INFECTIOUS,
    RECOVERED,
    SUSCEPTIBLE,
    SEIRNetwork,
    final_size,
    mean_field,
    reproduction_number,
)
from steersman.envs.checks import check_plant
from steersman.envs.simulator import PlantSimulator


def run(plant: SEIRNetwork, n: int, u: Tensor, seed: int = 0) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Shares before and after each control step, and the parameters."""
    key = noise.keys(seed, n)
    p = plant.params(key)
    x = plant.initial(key, p)
    start, found = plant.shares(x), []
    for j in range(u.shape[1]):
        k = torch.full((n,), j)
        x = plant.step(k, x, u[:, j], plant.disturbance(key, k), p)
        found.append(plant.shares(x))
    return start, torch.stack(found, dim=1), p


def test_contract_and_rows_bitwise_independent() -> None:
    check_plant(SEIRNetwork(nodes=60, hold=2, horizon=8), steps=3, tolerance=0.0)


@pytest.mark.parametrize("u", [(0.0, 0.0), (0.3, 0.01)])
def test_the_mean_field_limit(u: tuple[float, float]) -> None:
    """The distance to the SEIR equations falls as the network grows, and is small at the end."""
    gaps = []
    for nodes, degree, runs in ((100, 10, 64), (1600, 160, 8)):
        plant = SEIRNetwork(nodes=nodes, degree=degree, seeds=nodes // 20, hold=5, horizon=10)
        action = torch.tensor(u, dtype=torch.float64).expand(runs, 10, 2)
        start, found, p = run(plant, runs, action)
        limit = mean_field(start, action, p, plant.period)
        gaps.append(float((found - limit).mean(dim=0).abs().max()))
    assert gaps[1] < 0.05 and gaps[1] < 0.6 * gaps[0], gaps


def test_final_size_without_control() -> None:
    plant = SEIRNetwork(nodes=4000, degree=80, seeds=20, hold=10, horizon=40)
    _, found, p = run(plant, 4, torch.zeros(4, 40, 2, dtype=torch.float64))
    want = torch.tensor([final_size(float(r)) for r in reproduction_number(p)], dtype=torch.float64)
    assert float(found[:, -1, EXPOSED].max() + found[:, -1, INFECTIOUS].max()) < 0.01
    torch.testing.assert_close(found[:, -1, RECOVERED], want, rtol=0, atol=0.03)


def test_people_move_forward_only() -> None:
    plant = SEIRNetwork(nodes=300, hold=1, horizon=20)
    key = noise.keys(1, 3)
    p = plant.params(key)
    x = plant.initial(key, p)
    assert torch.equal((x["node"] == EXPOSED).sum(1), torch.full((3,), 10))  # type: ignore[call-overload, index]
    for j in range(20):
        k = torch.full((3,), j)
        after = plant.step(k, x, torch.full((3, 2), 0.01, dtype=torch.float64), plant.disturbance(key, k), p)
        change = after["node"].int() - x["node"].int()  # type: ignore[call-overload, index]
        assert bool((change >= 0).all())
        x = after
    assert bool((plant.shares(x).sum(1) - 1).abs().max() < 1e-12)


def test_distancing_and_vaccination_help_and_beds_are_watched() -> None:
    plant = SEIRNetwork()
    peaks = []
    for u in ((0.0, 0.0), (0.6, 0.0), (0.0, 0.02)):
        action = torch.tensor(u, dtype=torch.float64).expand(8, 30, 2)
        peaks.append(float(run(plant, 8, action)[1][:, :, INFECTIOUS].amax(dim=1).mean()))
    assert peaks[0] > CAPACITY > peaks[1] and peaks[2] < peaks[0]
    sim = PlantSimulator(plant, 8)
    sim.reset(sim.scenarios(noise.keys(0, 8)))
    violation = sum(sim.step(torch.zeros(8, 2, dtype=torch.float64)).violation for _ in range(30))
    assert float(violation.mean()) > 0.1  # type: ignore[union-attr]
    assert bool((plant.shares(sim.x)[:, SUSCEPTIBLE] < 0.6).all())


def test_render() -> None:
    sim = PlantSimulator(SEIRNetwork(nodes=100, horizon=4), 1)
    sim.reset(sim.scenarios(noise.keys(0, 1)))
    trail = sim.record()
    for _ in range(3):
        u = torch.zeros(1, 2, dtype=torch.float64)
        sim.step(u)
        sim.record(trail, u)
    image = sim.plant.render(trail)  # type: ignore[union-attr]
    assert image.shape == (520, 840, 3) and image.dtype == np.uint8 and int(image.std()) > 10


@pytest.mark.parametrize(("bad", "message"), [({"nodes": 0}, "nodes must"), ({"seeds": 2000}, "seeds must be at most")])
def test_bad_arguments(bad: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SEIRNetwork(**bad)
