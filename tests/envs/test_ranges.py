"""Ranges of settings, stated beside their types: what is in, what is out, and what a refusal says."""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.dynamics.windowed.neural import NeuralSettings
from steersman.dynamics.windowed.sparse import SparseSettings
from steersman.envs.settings import Count, NotNegative, Positive, Range, Settings, Share, Whole, range_of, ranges


@dataclass(frozen=True, kw_only=True)
class Example(Settings):
    count: Count = 1
    whole: Whole = 0
    rate: Positive = 1.0
    share: Share = 0.5
    weight: NotNegative = 0.0
    widths: tuple[Count, ...] = (1,)
    level: Annotated[float, Range(-2, 3)] | None = None
    free: float = math.inf
    name: str = ""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"count": True}, "count must be a number, got True"),
        ({"whole": -1}, "whole must be at least 0"),
        ({"rate": 0.0}, "rate must be positive, got 0.0"),
        ({"rate": math.inf}, "rate must be positive and finite, got inf"),
        ({"rate": math.nan}, "rate must be positive"),
        ({"share": 1.0}, "share must be between 0 and 1, got 1.0"),
        ({"share": 0.0}, "share must be between 0 and 1"),
        ({"weight": -1e-9}, "weight must be at least 0"),
        ({"widths": (2, 0)}, r"widths must be in every entry at least 1, got \(2, 0\)"),
        ({"level": 3.5}, r"level must be in -2 \.\. 3, got 3.5"),
    ],
)
def test_what_is_out_of_range_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Example(**given)


@given(
    st.fixed_dictionaries(
        {
            "count": st.integers(1, 10**9),
            "whole": st.integers(0, 10**9),
            "rate": st.floats(1e-300, 1e300),
            "share": st.floats(1e-9, 1 - 1e-9),
            "weight": st.floats(0, 1e300),
            "widths": st.lists(st.integers(1, 99)).map(tuple),
            "level": st.none() | st.floats(-2, 3),
        }
    )
)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_what_is_in_range_is_taken(given: dict[str, Any]) -> None:
    assert vars(Example(**given)).items() >= given.items()


def test_ranges_are_those_of_the_annotations_and_of_what_is_inherited() -> None:
    assert set(ranges(Example)) == {"count", "whole", "rate", "share", "weight", "widths", "level"}
    assert str(range_of(Count)) == "at least 1" and range_of(float) is None
    assert set(ranges(NeuralSettings)) == set(NeuralSettings.__dataclass_fields__)
    with pytest.raises(ValueError, match=r"relus must lie in 0\.\.4, the sum of hidden, got 5"):
        SparseSettings(hidden=(4,), relus=5)
    with pytest.raises(ValueError, match="at least one width"):
        SparseSettings(hidden=())
