"""Every plant that can fail says so in limits of its performance outputs, which every model can predict."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steersman.envs import noise
from steersman.envs.abm.sepsis import DEATH
from steersman.envs.objective import Limit, Objective
from steersman.envs.plant import Plant, failed
from steersman.envs.registry import PLANTS, make_plant
from steersman.envs.simulator import draw_scenarios
from steersman.envs.tree import State, rows_like, tree_map

GRIDS = ("TwoArea", "IEEE39")
"""Power grids, whose limits test_foresight judges; their first versions are published without any."""
SAFE = (
    *("Pendulum-v1", "Acrobot-v1", "MountainCarContinuous-v1", "SEIRNetwork-v1", "PreventiveRedispatch-v1"),
    *("TransportBoundaryCompat-v1", "ReactionDiffusionCompat-v1", "CavityFlow-v1", "Wave-v1"),
)
"""Plants whose status is never a failure: no state of theirs ends an episode but one that is not finite."""
AGENTS = ("WolfSheep-v1", "WolfSheepSteady-v1", "CarT-v1", "Metabolic-v1", "MetabolicSteady-v1", "Sepsis-v1")
PARTIAL = ("BurgersOpenLoopHidden-v1",)
"""Only the outer quarters of the profile are outputs."""
FIELDS = [
    spec.name
    for spec in PLANTS
    if spec.name not in (*SAFE, *AGENTS, *PARTIAL, "Smoke128-v1") and not spec.name.startswith(GRIDS)
]


def settled(plant: Plant, x: State, n: int) -> tuple[Tensor, Tensor]:
    """Failures by the status, and by the limits."""
    p = draw_scenarios(plant, noise.keys(0, 1)).p
    p = {name: leaf[:1].expand(n, *leaf.shape[1:]) for name, leaf in p.items()}
    k = torch.ones(n, dtype=torch.int64)
    lost = plant.objective.lost(plant.perform(k, x, p))
    assert lost is not None, "no limits"
    return failed(plant.status(k, x, p)), lost


@pytest.mark.parametrize("name", FIELDS)
def test_fields_fail_where_their_limits_say(name: str) -> None:
    plant, n = make_plant(name), 40
    one = draw_scenarios(plant, noise.keys(0, 1)).x0
    assert one is not None
    scale = 10 ** torch.linspace(-1, 6, n, dtype=torch.float64)
    x = tree_map(lambda t: t.expand(n, *t.shape[1:]) * rows_like(scale, t).to(t.dtype), one)
    status, lost = settled(plant, x, n)
    assert 0 < int(status.sum()) < n
    assert torch.equal(status, lost)


def test_hidden_profiles_fail_where_they_are_seen() -> None:
    plant = make_plant("BurgersOpenLoopHidden-v1", substeps=40)
    x = torch.zeros(2, 128, dtype=torch.float64)
    x[0, 5], x[1, 64] = 21.0, 21.0
    status, lost = settled(plant, x, 2)
    assert status.tolist() == [True, True] and lost.tolist() == [True, False]


def test_agents_fail_where_their_limits_say() -> None:
    wolves = make_plant("WolfSheep-v1", warmup=0)
    x = draw_scenarios(wolves, noise.keys(0, 3)).x0
    assert isinstance(x, dict)
    dead = torch.tensor([False, True, False])[:, None]
    x |= {"wolf_alive": x["wolf_alive"] & ~dead, "sheep_alive": x["sheep_alive"] & ~dead.roll(1, 0)}
    status, lost = settled(wolves, x, 3)
    assert status.tolist() == lost.tolist() == [False, True, True]
    sepsis = make_plant("Sepsis-v1")
    x = draw_scenarios(sepsis, noise.keys(0, 3)).x0
    assert isinstance(x, dict)
    damage = torch.tensor([0.0, DEATH - 1e-9, DEATH + 1e-9], dtype=torch.float64)
    x |= {"damage": damage[:, None, None].expand_as(x["damage"])}
    status, lost = settled(sepsis, x, 3)
    assert status.tolist() == lost.tolist() == [False, False, True]


@pytest.mark.parametrize(("name", "capacity"), [("WolfSheep-v1", 1024), ("CarT-v1", 256), ("Metabolic-v1", 1024)])
def test_slots_that_overflow_are_limits_of_counts(name: str, capacity: int) -> None:
    limits = make_plant(name).objective.limits
    assert any(capacity <= limit.high < capacity + 1 for limit in limits)


@pytest.mark.parametrize("name", SAFE)
def test_plants_that_never_fail_state_no_limits(name: str) -> None:
    plant, n = make_plant(name), 8
    assert not plant.objective.limits
    one = draw_scenarios(plant, noise.keys(0, 1))
    assert one.x0 is not None
    x = tree_map(lambda t: t.expand(n, *t.shape[1:]) * 1000 if t.is_floating_point() else t.expand(n, -1), one.x0)
    p = {key: leaf.expand(n, *leaf.shape[1:]) for key, leaf in one.p.items()}
    assert not failed(plant.status(torch.ones(n, dtype=torch.int64), x, p)).any()


def test_a_limit_may_have_a_margin_of_its_own() -> None:
    near = Limit(name="count", index=0, low=0.0, high=100.0, margin=0.02)
    assert near.softened(0.5, 10.0).points[1:3] == ((1.0, 0.0), (99.0, 0.0))
    z = torch.tensor([[0.5, -3.0], [0.5, 3.5], [100.5, 0.0]], dtype=torch.float64)
    objective = Objective((), limits=(near, Limit(name="other", index=1, low=-3.0, high=3.0)))
    lost = objective.lost(z.expand(2, 3, 2))
    assert lost is not None and lost.tolist() == [[False, True, True]] * 2
    with pytest.raises(ValueError, match="margin strictly between"):
        Limit(name="count", index=0, low=0.0, high=1.0, margin=1.0)


@pytest.mark.parametrize("smooth", [False, True])
def test_a_limits_own_margin_goes_before_a_planners(smooth: bool) -> None:
    """Two limits soften as if each had been softened alone, with its margin."""
    z = torch.linspace(-4, 4, 41, dtype=torch.float64)[:, None].expand(-1, 2) * torch.tensor([1.0, 2.0]).double()
    r = torch.zeros_like(z)

    def cost(*limits: Limit, margin: float) -> Tensor:
        return Objective((), failure=5.0, limits=limits).softened(margin, smooth=smooth).output_cost(z, r)

    own = Limit(name="own", index=0, low=-3.0, high=3.0, margin=0.5)
    plain, other = (Limit(name=f"plain {i}", index=i, low=-3.0, high=3.0) for i in (0, 1))
    want = cost(plain, margin=0.5) + cost(other, margin=0.1)
    torch.testing.assert_close(cost(own, other, margin=0.1), want)
    assert float(cost(own, margin=0.1)[10]) > 0 == float(cost(plain, margin=0.1)[10]), (
        "z = -2 is inside the wider margin"
    )
