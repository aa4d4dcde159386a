"""Spaces: every observation becomes the vector that gymnasium makes, every admissible u an action of the space."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.envs.gymnasium_adapters.spaces import Actions, Observations, action_set

SHAPES = st.sampled_from([(), (1,), (3,), (2, 2), (2, 1, 2)])
FLOATS = st.sampled_from([np.float16, np.float32, np.float64])
INTEGERS = st.sampled_from([np.uint8, np.int8, np.int32, np.int64])


@st.composite
def float_boxes(draw: st.DrawFn) -> spaces.Space[Any]:
    low = draw(st.sampled_from([-np.inf, -3.0, -0.1, 0.0]))
    high = draw(st.sampled_from([0.1, 0.7, 5.0, np.inf]))
    return spaces.Box(low, high, draw(SHAPES), draw(FLOATS))


@st.composite
def integer_boxes(draw: st.DrawFn) -> spaces.Space[Any]:
    dtype = draw(INTEGERS)
    low = draw(st.integers(0 if dtype is np.uint8 else -7, 3))
    return spaces.Box(low, low + draw(st.integers(0, 9)), draw(SHAPES), dtype)


@st.composite
def multi_discretes(draw: st.DrawFn) -> spaces.Space[Any]:
    shape = draw(st.sampled_from([(1,), (3,), (2, 2)]))
    size = int(np.prod(shape))
    nvec = np.array(draw(st.lists(st.integers(1, 4), min_size=size, max_size=size))).reshape(shape)
    start = np.array(draw(st.lists(st.integers(-3, 5), min_size=size, max_size=size))).reshape(shape)
    return spaces.MultiDiscrete(nvec, start=start)


LEAVES = st.one_of(
    float_boxes(),
    integer_boxes(),
    multi_discretes(),
    st.builds(spaces.Discrete, st.integers(1, 5), start=st.integers(-4, 4)),
    st.builds(spaces.MultiBinary, st.sampled_from([1, 3, (2, 2)])),
)
SPACES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: spaces.Tuple(tuple(parts))),
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3).map(spaces.Dict),
    ),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None)
@given(space=SPACES, seed=st.integers(0, 2**31 - 1))
def test_every_admissible_action_is_one_of_the_space(space: spaces.Space[Any], seed: int) -> None:
    actions = Actions(space)
    gen = torch.Generator().manual_seed(seed)
    m = actions.set.m
    unit = torch.rand(4, m, generator=gen, dtype=torch.float64)
    wild = 1e3 * torch.randn(4, m, generator=gen, dtype=torch.float64)
    huge = torch.full((1, m), 1e300, dtype=torch.float64)
    for u in torch.cat([actions.set.sample(unit), actions.set.project(torch.cat([wild, huge, -huge]))]).numpy():
        assert space.contains(actions.decode(u)), (space, u, actions.decode(u))


@settings(max_examples=150, deadline=None)
@given(space=SPACES, seed=st.integers(0, 2**31 - 1))
def test_actions_go_both_ways(space: spaces.Space[Any], seed: int) -> None:
    space.seed(seed)
    actions, action = Actions(space), space.sample()
    u = actions.encode(action)
    assert bool(actions.set.admissible(torch.from_numpy(u)[None], 1e-6)), (space, action, u)
    np.testing.assert_equal(actions.decode(u), action)


@settings(max_examples=150, deadline=None)
@given(space=SPACES, seed=st.integers(0, 2**31 - 1))
def test_observations_are_laid_out_as_gymnasium_does(space: spaces.Space[Any], seed: int) -> None:
    space.seed(seed)
    layout, observation = Observations(space), space.sample()
    flat = layout.flatten(observation)
    np.testing.assert_array_equal(flat, np.asarray(gymnasium.spaces.utils.flatten(space, observation), np.float64))
    assert len(layout.names) == len(set(layout.names)) == len(flat)


def test_names() -> None:
    space = spaces.Dict(
        {
            "arm": spaces.Tuple((spaces.Discrete(2, start=3), spaces.Box(0, 1, (2,)))),
            "b": spaces.MultiDiscrete([2, 1], start=[0, 5]),
            "grid": spaces.Box(0, 1, (1, 2)),
            "on": spaces.MultiBinary(2),
            "x": spaces.Box(0, 1, ()),
        }
    )
    assert Observations(space).names == (
        "arm.0=3", "arm.0=4", "arm.1[0]", "arm.1[1]", "b[0]=0", "b[0]=1", "b[1]=5",
        "grid[0, 0]", "grid[0, 1]", "on[0]", "on[1]", "x",
    )  # fmt: skip
    assert action_set(space).names == (
        "arm.0=3", "arm.0=4", "arm.1[0]", "arm.1[1]", "b[0]", "b[1]", "grid[0, 0]", "grid[0, 1]", "on[0]", "on[1]", "x"
    )  # fmt: skip
    assert Observations(spaces.Box(0, 1, (2,))).names == ("y0", "y1")
    assert action_set(spaces.Box(0, 1, (2,))).names == ("u0", "u1")
    assert action_set(spaces.Discrete(2, start=-1)).names == ("u=-1", "u=0")


def test_discrete_is_a_group_and_integers_keep_their_start() -> None:
    found = action_set(spaces.Discrete(3, start=-1))
    assert (found.lower, found.upper, found.one_hot) == ((0, 0, 0), (1, 1, 1), ((0, 1, 2),))
    assert [int(Actions(spaces.Discrete(3, start=-1)).decode(u)) for u in np.eye(3)] == [-1, 0, 1]
    found = action_set(spaces.MultiDiscrete([3, 3], start=[1, 5]))
    assert (found.lower, found.upper, found.integer) == ((1, 5), (3, 7), (True, True))
    whole = action_set(spaces.Box(0, 10, (1,), np.int64))
    assert (whole.lower, whole.upper, whole.integer) == ((0,), (10,), (True,))
    free = action_set(spaces.Box(-np.inf, np.inf, (1,)))
    assert (free.lower, free.upper) == ((-np.inf,), (np.inf,))
    mixed = action_set(spaces.Tuple((spaces.Box(-1, 1, (1,)), spaces.Discrete(2), spaces.MultiBinary(1))))
    assert mixed.one_hot == ((1, 2),) and mixed.integer == (False, False, False, True)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Text(5), "Text spaces have no fixed number"),
        (spaces.Dict({"a": spaces.Sequence(spaces.Box(0, 1, (1,)))}), r"Sequence spaces \('a'\)"),
        (spaces.Graph(spaces.Box(0, 1, (1,)), None), "Graph spaces"),
        (spaces.OneOf([spaces.Discrete(2), spaces.Discrete(3)]), "OneOf spaces"),
        (spaces.Box(0, 1, (0,)), "has no entries"),
        (spaces.Dict({}), "is empty"),
    ],
)
def test_spaces_without_a_fixed_size_are_refused_by_name(space: spaces.Space[Any], message: str) -> None:
    for layout in (Observations, Actions):
        with pytest.raises(ValueError, match=message):
            layout(space)


def test_integers_without_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="'u' is an integer without bounds"):
        action_set(spaces.Box(-np.inf, np.inf, (1,), np.int32))
    with pytest.raises(ValueError, match=r"beyond 2\^53"):
        action_set(spaces.Box(0, 2**60, (1,), np.int64))


@pytest.mark.parametrize(
    ("space", "observation", "message"),
    [
        (spaces.Box(0, 1, (2,)), np.zeros(3), r"shape \(3,\), but its space"),
        (spaces.Box(0, 1, (2,)), "text", "does not hold the numbers"),
        (spaces.Discrete(3), 3, "which is not in Discrete"),
        (spaces.Discrete(3), -1, "which is not in Discrete"),
        (spaces.MultiDiscrete([2, 2]), np.array([0, 2]), "which is not in MultiDiscrete"),
        (spaces.Dict({"a": spaces.Discrete(2)}), {"b": 1}, "has no 'a'"),
        (spaces.Tuple((spaces.Discrete(2),)), (1, 1), "not a tuple of 1 parts"),
        (spaces.Dict({"a": spaces.Box(0, 1, (2, 2))}), {"a": np.zeros(4)}, "'a' has shape"),
    ],
)
def test_observations_that_are_not_of_their_space(space: spaces.Space[Any], observation: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Observations(space).flatten(observation)
