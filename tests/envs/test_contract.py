import math

import pytest
import torch

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.objective import L1, Limit, LInf, Objective, PiecewiseLinear, Quadratic


def test_noise_is_independent_of_the_batch() -> None:
    key = noise.keys(3, 8)
    assert torch.equal(noise.normal(key, 5)[2:4], noise.normal(key[2:4], 5))
    assert torch.equal(noise.keys(3, 4, start=4), key[4:])
    u = noise.uniform(noise.keys(0, 1), 200_000)
    assert abs(u.mean() - 0.5) < 0.003 and u.min() > 0 and u.max() < 1
    g = noise.normal(noise.keys(1, 1), 200_000)
    assert abs(g.mean()) < 0.01 and abs(g.std() - 1) < 0.01
    with pytest.raises(ValueError, match="seed"):
        noise.keys(-1, 2)


def test_actions_project_and_code() -> None:
    a = ActionSet((-1.0, 0.0, 0.0, 0.0), (1.0, 3.0, 1.0, 1.0), (False, True, False, False), ((2, 3),))
    u = a.project(torch.tensor([[2.0, 1.4, 0.2, 0.9], [float("nan"), 9.0, 1.0, 0.0]], dtype=torch.float64))
    assert u[0].tolist() == [1.0, 1.0, 0.0, 1.0]
    assert u[1].isnan().tolist() == [True, False, False, False]
    assert a.admissible(u).tolist() == [True, False]
    d = ActionSet((0.0, 2.0), (1.0, 4.0), (True, True))
    v = torch.tensor([[1.0, 3.0], [0.0, 2.0]], dtype=torch.float64)
    assert torch.equal(d.decode(d.encode(v)), v)
    with pytest.raises(ValueError, match="lower bound"):
        ActionSet((1.0,), (0.0,))


def test_objective_terms() -> None:
    z = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    u = torch.tensor([[3.0]], dtype=torch.float64)
    o = Objective(
        (
            Quadratic(name="q", on="e", weights=(1.0, 1.0)),
            L1(name="l", on="u", weights=(2.0,)),
            LInf(name="i", on="z", weights=(1.0, 1.0)),
            PiecewiseLinear(name="p", on="z", index=1, points=((-1.0, 0.0), (0.0, 0.0), (1.0, 1.0))),
        )
    )
    assert o.stage_terms(z, u, u, z)["q"].item() == 0.0
    assert o.stage_cost(z, u, u, torch.zeros_like(z)).item() == 5 + 6 + 2 + 0
    with pytest.raises(ValueError, match="weights"):
        Objective((L1(name="l", on="u", weights=(1.0, 1.0)),)).stage_cost(z, u, u, z)


def test_limits_fail_and_soften() -> None:
    z = torch.tensor([[0.0], [0.95], [1.0], [1.5], [-1.1]], dtype=torch.float64)
    o = Objective((), failure=20.0, limits=(Limit(name="angle", index=0, low=-1.0, high=1.0),))
    lost = o.lost(z)
    assert lost is not None and lost.tolist() == [False, False, False, True, True]
    soft, none = o.softened(0.1), torch.zeros(5, 1, dtype=torch.float64)
    assert soft.stage_cost(z, none, none, z).tolist() == pytest.approx([0.0, 10.0, 20.0, 120.0, 40.0])
    assert soft.lost(z) is None
    with pytest.raises(ValueError, match="angle"):
        Limit(name="angle", index=0, low=1.0, high=math.inf)
