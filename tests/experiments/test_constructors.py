"""Settings out of range are refused by the constructor of whatever is enrolled, by their name, before any work."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.controllers.registry import CONTROLLERS
from steersman.dynamics.linear import LinearDynamics
from steersman.dynamics.neural import NeuralSettings
from steersman.dynamics.neural_ode import NeuralODESettings
from steersman.dynamics.reactions import Process, ReactionSettings
from steersman.dynamics.registry import MODELS
from steersman.dynamics.sparse import SparseSettings
from steersman.envs.settings import at_least, one_of, positive
from steersman.optimizers.policies.registry import POLICIES
from steersman.optimizers.polystep.control import PathLength, TrustRegion
from steersman.optimizers.polystep.weighting import ExponentialRanks, SampleSize, Softmax
from steersman.optimizers.registry import SEARCHES

SETTINGS = {
    "linear": LinearDynamics,
    "neural": NeuralSettings,
    "neural-ode": NeuralODESettings,
    "sparse": SparseSettings,
    "reactions": lambda **more: ReactionSettings(processes=(Process(("q",), {"v": 1.0}),), **more),
}
MAKERS: dict[str, Callable[..., Any]] = {
    **{f"controller {spec.name}": spec.make for spec in CONTROLLERS},
    **{f"model {name}": make for name, make in SETTINGS.items()},
    **{f"search {kind.name}": kind for kind in SEARCHES},
    **{f"part {kind.__name__}": kind for kind in (PathLength, TrustRegion, Softmax, SampleSize, ExponentialRanks)},
}
SIGNED = {"kp", "ki", "kd", "error", "floor"}
"""Numbers that may be negative."""
WRONG_FLOATS = st.sampled_from([math.nan, math.inf, -math.inf]) | st.floats(max_value=-1e-9, allow_nan=False)


def wrong(parameter: inspect.Parameter) -> st.SearchStrategy[Any] | None:
    """Values that a parameter of this name and type can never have; None where there are none."""
    kind = str(parameter.annotation)
    if parameter.name == "hidden":
        return st.lists(st.integers(-5, 3), min_size=1, max_size=3).filter(lambda w: min(w) < 1).map(tuple)
    if "bool" in kind or "dict" in kind or "Path" in kind or parameter.name == "module":
        return None
    if "float" in kind:
        numbers = st.sampled_from([math.nan, math.inf]) if parameter.name in SIGNED else WRONG_FLOATS
        return numbers.map(lambda x: ((x, 1.0),)) if parameter.name == "error" else numbers
    if "int" in kind and "tuple" not in kind:
        return st.integers(-(10**12), -1)
    return st.just("nonsense") if "Literal" in kind or kind in ("str", "RiskName", "By", "PolicyName") else None


def cases() -> list[Any]:
    found = []
    for label, make in MAKERS.items():
        signature = inspect.signature(ReactionSettings if label == "model reactions" else make)
        for parameter in signature.parameters.values():
            if parameter.default is not inspect.Parameter.empty and (values := wrong(parameter)) is not None:
                found.append(pytest.param(make, parameter.name, values, id=f"{label}, {parameter.name}"))
    return found


@pytest.mark.parametrize(("make", "name", "values"), cases())
@given(data=st.data())
@settings(max_examples=8, deadline=None, derandomize=True)
def test_a_setting_out_of_range_is_refused_by_name(
    make: Callable[..., Any], name: str, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    value = data.draw(values)
    try:
        make(**{name: value})
    except Exception as error:
        # Under the type checks of tests a word outside a Literal does not reach the constructor.
        assert isinstance(error, ValueError) or "Literal" in str(error), error
        assert name in str(error)
    else:
        raise AssertionError(f"{name}={value!r} was accepted")


def test_everything_enrolled_is_covered_and_has_defaults_that_pass() -> None:
    assert set(SETTINGS) == {spec.name for spec in MODELS if not spec.needs_plant}
    for label, make in MAKERS.items():
        made = make()
        assert made is not None, label
    assert len(cases()) > 120


@pytest.mark.parametrize("kind", POLICIES, ids=lambda kind: kind.name)
@given(width=st.integers(-20, 0), inputs=st.integers(1, 4))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_policies_refuse_sizes_below_one(kind: Any, width: int, inputs: int) -> None:
    gen = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match=rf"(?<!\d){width}(?!\d)"):
        kind.sized(inputs, 1, (width,), gen, torch.float64)
    for sizes, name in (((width, 1), "inputs"), ((inputs, width), "outputs")):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got {width}"):
            kind.sized(*sizes, (4,), gen, torch.float64)


def test_what_the_checks_of_settings_let_pass() -> None:
    at_least(1, horizon=1, other=None, share=1.5)
    positive(rate=1e-300, none=None)
    one_of("a", "b", word="b")
    for value, message in (
        (0, "horizon must be at least 1, got 0"),
        (math.inf, "horizon must be a finite number of at least 1, got inf"),
        (math.nan, "horizon must be a finite number of at least 1, got nan"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            at_least(1, horizon=value)
    for value in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"^rate must be positive and finite, got {value}$"):
            positive(good=1.0, rate=value)
    with pytest.raises(ValueError, match=r"^word must be 'a', 'b' or 'c', got 'd'$"):
        one_of("a", "b", "c", word="d")
