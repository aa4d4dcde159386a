"""The paper's form against the package that its author publishes, step by step on the same rotations."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steersman.optimizers.polystep import polystep as ours
from steersman.optimizers.polystep.paper import paper
from steersman.optimizers.polystep.polytopes import Polytope
from steersman.optimizers.polystep.rotations import haar_rotations
from steersman.optimizers.polystep.schedules import Schedule
from steersman.optimizers.vectorise import flatten

F64 = torch.float64
STEPS = 12
peer = pytest.importorskip("polystep", reason="needs steersman[peers]")


class Net(nn.Module):
    """23 parameters: no multiple of any block, so that the last one is filled up."""

    def __init__(self) -> None:
        super().__init__()
        gen = torch.Generator().manual_seed(4)
        self.w = nn.Parameter(torch.randn(4, 5, generator=gen, dtype=F64))
        self.b = nn.Parameter(torch.randn(3, generator=gen, dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return x


def cost_of(x: Tensor) -> Tensor:
    i = torch.arange(1, x.shape[-1] + 1, dtype=F64)
    return (torch.sin(3 * x) + 0.1 * i * x.square()).sum(-1) + 5 + x[..., 0] * x[..., -1]


def rotations(d: int, particles: int) -> Iterator[Tensor]:
    gen = torch.Generator().manual_seed(9)
    while True:
        yield haar_rotations(particles, d, gen, torch.zeros((), dtype=F64))


def align(polytope: str, d: int) -> Tensor:
    """Orthogonal Q with (our template) Q = (the peer's template)."""
    from polystep.geometry import POLYTOPE_MAP

    mine, theirs = Polytope(polytope).vertices(d), POLYTOPE_MAP[polytope](d, dtype=F64)
    q = torch.linalg.lstsq(mine, theirs).solution
    torch.testing.assert_close(mine @ q, theirs, atol=1e-6, rtol=0)
    return q


def peer_path(monkeypatch: pytest.MonkeyPatch, d: int, settings: dict[str, Any]) -> Tensor:
    from polystep import _step_monolithic as module

    turns = rotations(d, -(-23 // d))
    monkeypatch.setattr(module, "get_random_rotation_matrices", lambda *args, **kwargs: next(turns))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = Net()
        optimizer = peer.PolyStepOptimizer(net, particle_dim=d, seed=0, max_iterations=STEPS, **settings)
        if hasattr(optimizer.solver, "threshold"):
            optimizer.solver.threshold = 1e-13
        path = []
        for _ in range(STEPS):
            optimizer.step(lambda batch: cost_of(torch.cat([v.flatten(1) for v in batch.values()], dim=1)))
            path.append(flatten(net))
    return torch.stack(path)


def our_path(monkeypatch: pytest.MonkeyPatch, d: int, polytope: str, settings: dict[str, Any]) -> Tensor:
    turns, q = rotations(d, -(-23 // d)), align(polytope, d)
    # Rows of ours are directions, columns of the peer's matrices are.
    monkeypatch.setattr(ours, "haar_rotations", lambda *args: q @ next(turns).mT)
    search = paper(block=d, polytope=Polytope(polytope), **settings).start(flatten(Net()))
    path = []
    for _ in range(STEPS):
        search.tell(cost_of(search.ask()))
        path.append(search.incumbent)
    return torch.stack(path)


CASES: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "softmax": (2, {"solver": "softmax"}, {"weighting": "softmax"}),
    "softmax, blocks of 5": (5, {"solver": "softmax", "epsilon": 0.5}, {"weighting": "softmax", "temperature": 0.5}),
    "softmax, mean": (
        3, {"solver": "softmax", "scale_cost": "mean", "epsilon": 0.4},
        {"weighting": "softmax", "divisor": "mean", "temperature": 0.4},
    ),
    "softmax, max": (
        3, {"solver": "softmax", "scale_cost": "max_cost"}, {"weighting": "softmax", "divisor": "max"},
    ),
    "greedy": (3, {"solver": "min_cost_greedy"}, {"weighting": "greedy"}),
    "shells": (
        2, {"solver": "softmax", "num_probe": 3, "adaptive_num_probe": False}, {"weighting": "softmax", "shells": 3},
    ),
    "momentum": (
        2, {"solver": "softmax", "use_momentum": True, "momentum_init": 0.6, "momentum_final": 0.6},
        {"weighting": "softmax", "momentum": 0.6},
    ),
    "schedules": (
        2,
        {
            "solver": "softmax", "epsilon": peer.LinearEpsilon(target=0.1, init=1.0, decay=0.09),
            "step_radius": peer.CosineEpsilon(target=0.02, init=0.5, total_steps=10),
        },
        {
            "weighting": "softmax", "temperature": Schedule(1.0, 0.1, 10, "linear"),
            "step_radius": Schedule(0.5, 0.02, 10),
        },
    ),
    "sinkhorn": (
        2, {"scale_cost": "mean", "epsilon": 0.5}, {"divisor": "mean", "temperature": 0.5},
    ),
}  # fmt: skip


@pytest.mark.parametrize("polytope", ["orthoplex", "simplex", "cube"])
@pytest.mark.parametrize("case", CASES)
def test_steps_equal_the_peers(monkeypatch: pytest.MonkeyPatch, case: str, polytope: str) -> None:
    d, theirs, mine = CASES[case]
    if case == "sinkhorn":  # both iterate; to be compared they must have converged
        from steersman.optimizers.polystep import paper as module
        from steersman.optimizers.polystep.sinkhorn import Sinkhorn

        monkeypatch.setattr(module, "Sinkhorn", lambda t, s: Sinkhorn(t, s, tolerance=1e-13))
    a = peer_path(monkeypatch, d, {"polytope_type": polytope, **theirs})
    b = our_path(monkeypatch, d, polytope, mine)
    assert all(float((x - y).norm()) > 1e-4 for x, y in itertools.pairwise(a))
    torch.testing.assert_close(b, a, atol=1e-10, rtol=0)


def test_biased_rotations_poll_along_the_velocity() -> None:
    search = paper(weighting="softmax", polytope=Polytope.ORTHOPLEX, momentum=0.5, biased=True)
    search.start(torch.linspace(-1, 1, 8, dtype=F64))
    for _ in range(3):
        search.tell(cost_of(search.ask()))
    velocity = search.memory.velocity.view(4, 2)
    first = (search.ask() - search.memory.x).view(4, 4, 8)[:, 0]
    for particle in range(4):
        moved = first[particle, 2 * particle : 2 * particle + 2]
        cosine = torch.nn.functional.cosine_similarity(moved, velocity[particle], dim=0)
        assert float(cosine) == pytest.approx(1, abs=1e-12)


def test_bad_settings_of_the_paper() -> None:
    with pytest.raises(ValueError, match="divisor must be positive"):
        paper(divisor=0.0)
    with pytest.raises(ValueError, match="probe_radius must be positive"):
        paper(probe_radius=-1.0)
