"""A row that blows up ends, whatever the solver, and its neighbours do not notice."""

from collections.abc import Callable

import pytest
import torch

from steersman.envs import noise
from steersman.envs.pde.boundary import ReactionDiffusion, TransportBoundary
from steersman.envs.pde.burgers import BurgersNotebookCompat, BurgersOpenLoop, BurgersTracking
from steersman.envs.pde.cavity import CavityFlow
from steersman.envs.pde.kolmogorov import KolmogorovFlow
from steersman.envs.pde.kuramoto_sivashinsky import KuramotoSivashinsky
from steersman.envs.pde.linear import heat
from steersman.envs.pde.rayleigh_benard import RayleighBenard
from steersman.envs.plant import Plant, Status
from steersman.envs.simulator import PlantSimulator
from steersman.envs.tree import tree_leaves, tree_map

NONLINEAR: tuple[Callable[[], Plant], ...] = (
    lambda: BurgersOpenLoop(substeps=40),
    lambda: BurgersOpenLoop(scheme="limited", substeps=80),
    BurgersTracking, BurgersNotebookCompat, CavityFlow, KolmogorovFlow, KuramotoSivashinsky,
    lambda: RayleighBenard(points=10),
)  # fmt: skip
LINEAR: tuple[Callable[[], Plant], ...] = (TransportBoundary, ReactionDiffusion, heat)


@pytest.mark.parametrize("make", NONLINEAR + LINEAR)
def test_blow_up_stays_in_its_row(make: Callable[[], Plant]) -> None:
    plant, n = make(), 3
    simulator = PlantSimulator(plant, n)
    scenarios = simulator.scenarios(noise.keys(4, n))
    far = torch.ones(n, dtype=torch.float64)
    far[1] = 1e200
    ends = []
    for scale in (torch.ones_like(far), far):
        blown = tree_map(lambda leaf, s=scale: leaf * s.reshape(-1, *(1,) * (leaf.dim() - 1)), scenarios.x0)
        simulator.reset(type(scenarios)(scenarios.key, scenarios.p, blown))
        u = plant.actions.neutral(n, far)
        for _ in range(2):
            simulator.step(u)
        ends.append((simulator.x, simulator.snapshot().status))
    (calm, fine), (wild, status) = ends
    assert fine.tolist() == [Status.OK] * n
    assert status[0] == status[2] == Status.OK
    # What stays finite in a linear plant is out of its bounds; what does not, in any plant, has diverged.
    assert status[1] in ((Status.DIVERGED,) if make in NONLINEAR else (Status.DIVERGED, Status.VIOLATED))
    for left, right in zip(tree_leaves(calm), tree_leaves(wild), strict=True):
        assert torch.equal(left[::2], right[::2])
        assert bool(torch.isfinite(right).all())
