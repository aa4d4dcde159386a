"""Settings out of range are refused by the constructor of whatever is enrolled, by their name, before any work."""

import inspect
import math
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import partial
from typing import Any, get_args, get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.controllers.registry import CONTROLLERS
from steersman.dynamics.continuous.neural_ode import NeuralODESettings
from steersman.dynamics.kinetic.reactions import Process, ReactionSettings
from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.registry import MODELS
from steersman.dynamics.windowed.neural import NeuralSettings
from steersman.dynamics.windowed.sparse import SparseSettings
from steersman.envs.settings import at_least, meant, one_of, positive
from steersman.experiments.spec.settings import SpecError, validated
from steersman.optimizers.policies.registry import POLICIES
from steersman.optimizers.polystep.control import PathLength, TrustRegion
from steersman.optimizers.polystep.weighting import ExponentialRanks, SampleSize, Softmax
from steersman.optimizers.registry import SEARCHES, make_search
from steersman.optimizers.settings import flag_in

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


def signature_of(make: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Parameters by name, annotated in words; names of annotations are replaced by what they stand for."""
    found = dict(inspect.signature(make).parameters)
    if is_dataclass(make):
        hints = {name: hint for name, hint in get_type_hints(make).items() if name in found}
        told = {
            name: hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
            for name, hint in hints.items()
        }
        found = {name: parameter.replace(annotation=told[name]) for name, parameter in found.items()}
    return found


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
    return st.just("nonsense") if "Literal" in kind or kind in ("str", "RiskName", "By") else None


def cases() -> list[Any]:
    found = []
    for label, make in MAKERS.items():
        for parameter in signature_of(ReactionSettings if label == "model reactions" else make).values():
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


FROM_FILES: dict[str, Any] = {
    **{f"controller {spec.name}": spec.make for spec in CONTROLLERS},
    **{f"model {spec.name}": spec.make for spec in MODELS},
}
NUMBERS = {"int", "float", "int | None", "float | None", "float | tuple[float, ...]", "float | Schedule"}


def numbers(make: Callable[..., Any]) -> list[str]:
    """Parameters of a constructor, or fields of the dataclass that it takes as ``settings``, that are numbers."""
    found = signature_of(make)
    if "settings" in found:
        hint = get_type_hints(make.__init__)["settings"]
        found = signature_of(next(kind for kind in (hint, *get_args(hint)) if is_dataclass(kind)))
    return [name for name, parameter in found.items() if str(parameter.annotation) in NUMBERS and name != "plant"]


@pytest.mark.parametrize("label", FROM_FILES)
def test_a_boolean_is_no_number(label: str) -> None:
    """Python takes ``true`` for 1; the numbers 1 and 2 are not refused for being no numbers."""
    make = FROM_FILES[label]
    for name in numbers(make):
        for flag in (True, False):
            with pytest.raises(SpecError, match=rf"^here\.{name}: must be a number, got a boolean$"):
                validated(make, {name: flag}, "here")
        if "settings" not in signature_of(make):
            assert validated(make, {name: 2}, "here") == {name: 2}
    for name, parameter in signature_of(make).items():
        if str(parameter.annotation) == "bool":
            assert validated(make, {name: True}, "here") == {name: True}
        if str(parameter.annotation) == "tuple[int, ...]":
            with pytest.raises(SpecError, match=rf"^here\.{name}\.1: must be a number, got a boolean$"):
                validated(make, {name: [4, True]}, "here")


def test_many_numbers_are_covered() -> None:
    assert sum(len(numbers(make)) for make in FROM_FILES.values()) > 110


@pytest.mark.parametrize("kind", SEARCHES, ids=lambda kind: kind.name)
def test_a_boolean_is_no_number_of_a_search(kind: Any) -> None:
    for name in numbers(kind):
        with pytest.raises(ValueError, match=f"^search '{kind.name}': {name} must be a number, got a boolean$"):
            make_search(kind.name, **{name: True})
    assert "confirmations" in numbers(kind)


def test_booleans_inside_of_types() -> None:
    assert flag_in(dict[str, int], {"a": 1, "b": True}, "x") == "x.b"
    assert flag_in(tuple[float, ...] | dict[str, float], {"a": False}, "x") == "x.a"
    assert flag_in(tuple[tuple[float, float], ...] | None, [[0, 1], [1, True]], "x") == "x.1.1"
    assert flag_in(NeuralSettings | None, {"hidden": [True], "rate": 1}, "x") == "x.hidden.0"
    for hint, value in (
        (dict[str, Any], {"a": True}), (bool, True), (int | bool, True), (str, True), (tuple[bool, ...], [True]),
        (dict[str, int], [True]), (tuple[int, ...] | tuple[bool, ...], [True]), (int | None, None),
    ):  # fmt: skip
        assert flag_in(hint, value, "x") == ""


def test_what_an_unknown_name_is_meant_for() -> None:
    plants = ["steersman/Pendulum-v1", "steersman/Heat-v1"]
    assert meant("steersman/Pendulm-v1", plants) == meant("pendulum-v1", plants) == f" (did you mean {plants[0]!r}?)"
    assert meant("Walker2d-v5", plants) == meant("", plants) == meant("x", []) == ""


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
    for check in (partial(at_least, 0), positive):
        with pytest.raises(ValueError, match=r"^tries must be a number, got True$"):
            check(tries=True)
    for value in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"^rate must be positive and finite, got {value}$"):
            positive(good=1.0, rate=value)
    with pytest.raises(ValueError, match=r"^word must be 'a', 'b' or 'c', got 'd'$"):
        one_of("a", "b", "c", word="d")
