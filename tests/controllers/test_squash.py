"""The map from raw actions onto bounds, and decisions with gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steersman.controllers.neural.squash import INSIDE, decided, scored_action, spread_of, to_action
from steersman.envs.actions import ActionSet
from steersman.optimizers.policies.base import Policy
from steersman.optimizers.policies.registry import POLICIES, make_policy
from steersman.optimizers.vectorise import assign, flatten

INF = float("inf")
BOUNDS = st.sampled_from([(-2.0, 2.0), (0.0, 4.0), (-1.0, 3.0), (-4.0, 0.0), (2.0, 5.0), (-0.05, 0.05)])
OPEN = st.sampled_from([(-INF, INF), (0.0, INF), (-INF, 0.0), (1.5, INF), (-INF, -3.0), (-100.0, INF)])


def rows(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def one(low: float, high: float) -> ActionSet:
    return ActionSet((low,), (high,))


@given(bounds=st.one_of(BOUNDS, OPEN), a=st.floats(-8, 8), step=st.floats(1e-3, 8))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_raw_actions_map_one_to_one_and_upwards_into_the_bounds(
    bounds: tuple[float, float], a: float, step: float
) -> None:
    u = to_action(one(*bounds), rows(a, a + step))
    assert u[0] < u[1] and bool((u >= bounds[0]).all()) and bool((u <= bounds[1]).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_raw_action_is_without_a_gradient(dtype: torch.dtype) -> None:
    actions = ActionSet((-2.0, 0.0, -INF, 0.0, -INF), (2.0, 4.0, INF, INF, 1.0))
    far = 40.0 if dtype == torch.float32 else 300.0
    raw = torch.linspace(-far, far, 241, dtype=dtype)[:, None].repeat(1, 5).requires_grad_()
    (slope,) = torch.autograd.grad(to_action(actions, raw).sum(), raw)
    assert torch.isfinite(slope).all() and bool((slope > 0).all())


@given(bounds=BOUNDS, raw=st.floats(-5, 5))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_between_two_bounds_it_is_a_shifted_tanh(bounds: tuple[float, float], raw: float) -> None:
    low, high = bounds
    middle, half = (low + high) / 2, (high - low) / 2
    start = min(max(min(max(0.0, low), high), low + INSIDE * (high - low)), high - INSIDE * (high - low))
    want = middle + half * math.tanh(raw + math.atanh((start - middle) / half))
    assert float(to_action(one(low, high), rows(raw))) == pytest.approx(want, rel=1e-9, abs=1e-9)


def test_raw_zero_is_near_the_neutral_action_and_both_ends_are_reached() -> None:
    actions = ActionSet((0.0, -2.0, -INF, -4.0, 1.0, -100.0), (0.1, 4.0, INF, 0.0, INF, INF))
    raw = torch.tensor([[-20.0], [0.0], [20.0]], dtype=torch.float64).expand(3, 6)
    low, start, high = to_action(actions, raw)
    assert start.tolist() == pytest.approx([0.005, 0.0, 0.0, -0.2, 1.05, 0.0], abs=1e-9)
    assert low.tolist() == pytest.approx([0.0, -2.0, -20.0, -4.0, 1.0, -20.0], abs=1e-6)
    assert high.tolist()[:5] == pytest.approx(
        [
            0.1,
            4.0,
            20.0,
            0.0,
            1 + 20 - 2.97,
        ][:5],
        abs=0.01,
    )


@pytest.mark.parametrize("kind", POLICIES, ids=lambda kind: kind.name)
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 0.0), (-2.0, 2.0)])
def test_every_policy_can_take_every_decision(kind: type[Policy], bounds: tuple[float, float]) -> None:
    """A policy whose outputs are bounded must not be shut out of the actions far from the neutral one."""
    gen = torch.Generator().manual_seed(1)
    switch, taken = ActionSet((bounds[0],), (bounds[1],), (True,)), set()
    for _ in range(20):
        policy = make_policy(kind, 3, 1, (8,), gen=gen)
        assign(policy, 3 * torch.randn(len(flatten(policy)), generator=gen, dtype=torch.float64))
        obs, state = torch.randn(64, 3, generator=gen, dtype=torch.float64), policy.initial_state(64)
        for _ in range(3):
            raw, state = policy(obs, state)
            taken |= set(switch.project(scored_action(switch, raw)).flatten().tolist())
    assert set(bounds) <= taken


def test_one_hot_scores_are_left_alone() -> None:
    actions = ActionSet((0.0, 0.0, -1.0), (1.0, 1.0, 1.0), one_hot=((0, 1),))
    raw = torch.tensor([[50.0, 60.0, 0.5]], dtype=torch.float64)
    found = scored_action(actions, raw)
    assert found[0, :2].tolist() == [50.0, 60.0] and float(found[0, 2]) == pytest.approx(math.tanh(0.5))


def test_the_spread_of_an_action_is_relative_to_its_range() -> None:
    actions = ActionSet((0.0, -INF), (4.0, INF))
    assert spread_of(actions, torch.tensor([[-20.0, 0.0], [20.0, 0.1]], dtype=torch.float64)) == pytest.approx(1.0)
    assert spread_of(actions, torch.tensor([[-20.0, 0.0], [-19.0, 0.1]], dtype=torch.float64)) == pytest.approx(0.1)


# ------------------------------------------------------------------ decisions

BRAKE = ActionSet((0.0,), (1.0,), (True,))
STAIRS = ActionSet((-2.0,), (3.0,), (True,))


def test_decisions_are_drawn_with_the_probability_that_the_action_says() -> None:
    gen = torch.Generator().manual_seed(0)
    for actions, u in ((BRAKE, 0.2), (BRAKE, 0.9), (STAIRS, -1.7), (STAIRS, 2.4)):
        found = decided(actions, rows(*[u] * 20_000), gen)
        assert set(found.flatten().tolist()) == {math.floor(u), math.floor(u) + 1}
        assert float(found.mean()) == pytest.approx(u, abs=0.02)
    sure = decided(STAIRS, rows(-2.0, 1.0, 3.0).repeat(100, 1), gen)
    assert torch.equal(sure, rows(-2.0, 1.0, 3.0).repeat(100, 1)), "whole numbers stay what they are"


def test_groups_are_drawn_by_their_scores() -> None:
    actions = ActionSet((0.0,) * 3, (1.0,) * 3, one_hot=((0, 1, 2),))
    scores = torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64).log()
    found = decided(actions, scores.expand(20_000, 3), torch.Generator().manual_seed(0))
    assert actions.admissible(found).all()
    assert found.mean(dim=0).tolist() == pytest.approx([0.1, 0.3, 0.6], abs=0.02)


def test_the_gradient_of_drawn_decisions_points_where_their_mean_goes() -> None:
    """Where rounding is flat all around: the brake is off, and only a chance of it is nearer or further."""
    raw = torch.full((4000, 1), 0.5, dtype=torch.float64, requires_grad=True)
    brake = decided(BRAKE, scored_action(BRAKE, raw), torch.Generator().manual_seed(0))
    brake.mean().backward()
    assert raw.grad is not None and bool((raw.grad > 0).all())
    share = float(to_action(BRAKE, raw.detach())[0])
    assert float(raw.grad.sum()) == pytest.approx(2 * share * (1 - share), rel=0.3), "the slope of the probability"


def test_without_a_generator_decisions_are_rounded_and_the_gradient_goes_straight_through() -> None:
    u = rows(0.2, 0.7).requires_grad_()
    found = decided(BRAKE, u)
    found.sum().backward()
    assert found.flatten().tolist() == [0.0, 1.0] and u.grad is not None and u.grad.flatten().tolist() == [1.0, 1.0]
