"""A control problem as plain data and back: actions, objective, names and times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from steersman.envs.actions import ActionSet
from steersman.envs.importing import imported
from steersman.envs.objective import (
    L1,
    Barrier,
    Limit,
    Linear,
    LInf,
    Objective,
    Opaque,
    PiecewiseLinear,
    Quadratic,
    Term,
)
from steersman.envs.plant import ControlProblem

TERMS: dict[str, type[Term]] = {
    kind.__name__: kind for kind in (Quadratic, L1, LInf, Linear, PiecewiseLinear, Barrier, Opaque)
}
"""Kinds of terms by their names."""


def to_plain(problem: ControlProblem) -> dict[str, Any]:
    """Everything about a problem, for JSON.

    Raises:
        ValueError: If a term of the objective is code that cannot be named.
    """
    found = {field.name: getattr(problem, field.name) for field in fields(problem)}
    a, objective = problem.actions, problem.objective
    found["actions"] = {name: getattr(a, name) for name in ("integer", "one_hot", "names", "units")}
    # JSON has no infinity.
    found["actions"] |= {name: [str(bound) for bound in getattr(a, name)] for name in ("lower", "upper")}
    found["objective"] = {
        "stage": [_term(term) for term in objective.stage],
        "terminal": [_term(term) for term in objective.terminal],
        "failure": objective.failure,
        "limits": [asdict(limit) for limit in objective.limits],
    }
    return found


def from_plain(plain: Mapping[str, Any]) -> ControlProblem:
    """The problem that :func:`to_plain` described.

    Raises:
        ValueError: If it describes none.
    """
    try:
        return _problem(plain)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"problem: no control problem is described there ({error!r})") from error


def _problem(plain: Mapping[str, Any]) -> ControlProblem:
    found: dict[str, Any] = {name: _tuples(value) for name, value in plain.items()}
    goal = plain["objective"]
    actions = {name: _tuples(value) for name, value in plain["actions"].items()}
    found["actions"] = ActionSet(**actions | {name: tuple(map(float, actions[name])) for name in ("lower", "upper")})
    found["objective"] = Objective(
        tuple(_made(term) for term in goal["stage"]),
        tuple(_made(term) for term in goal["terminal"]),
        goal["failure"],
        tuple(Limit(**limit) for limit in goal["limits"]),
    )
    return ControlProblem(**found)


def _term(term: Term) -> dict[str, Any]:
    plain = {field.name: getattr(term, field.name) for field in fields(term)}
    if isinstance(term, Opaque):
        name = f"{term.function.__module__}:{term.function.__qualname__}"
        if "<" in name or imported(name) is not term.function:
            raise ValueError(
                f"term {term.name!r} of the objective is code without a name of its own ({name}), which cannot be "
                "written down; define its function in a module"
            )
        plain["function"] = name
    if type(term).__name__ not in TERMS:
        raise ValueError(f"term {term.name!r} of the objective is a {type(term).__name__}, which has no written form")
    return {"kind": type(term).__name__, **plain}


def _made(plain: Mapping[str, Any]) -> Term:
    given = {name: _tuples(value) for name, value in plain.items() if name != "kind"}
    if plain["kind"] == "Opaque":
        given["function"] = imported(plain["function"])
    return TERMS[plain["kind"]](**given)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
