"""Searches and policies by name, or as ``module:Name`` of your own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from steersman.envs.catalogue import Catalogue, first_line, lacking
from steersman.envs.importing import imported
from steersman.optimizers.base import Search
from steersman.optimizers.policies.base import Policy
from steersman.optimizers.policies.registry import POLICIES as OUR_POLICIES
from steersman.optimizers.registry import SEARCHES as OUR_SEARCHES

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class KindSpec(Generic[Kind]):
    """A class and what it is called.

    Attributes:
        name: Name in comparison files.
        target: ``module:Class``.
        summary: One line.
    """

    name: str
    target: str
    summary: str

    @property
    def kind(self) -> type[Kind]:
        """The class."""
        found: type[Kind] = imported(self.target)
        return found


def search_kind(name: str) -> type[Search[Any]]:
    """The search of that name, or of ``module:Name``.

    Raises:
        ValueError: If there is none; the message lists those that exist.
    """
    return SEARCHES.find(name).kind


def policy_kind(name: str) -> type[Policy]:
    """The policy of that name, or of ``module:Name``.

    Raises:
        ValueError: If there is none; the message lists those that exist.
    """
    return POLICIES.find(name).kind


def _spec(name: str, kind: type[Any]) -> KindSpec[Any]:
    return KindSpec(name, f"{kind.__module__}:{kind.__qualname__}", first_line(kind))


def _own(base: type[Any], what: str, name: str, target: str, found: Any) -> KindSpec[Any]:
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{name!r} is no {what}; derive a class from {base.__module__}.{base.__qualname__}")
    if lacking(found):
        raise ValueError(f"{what} {name!r} lacks {lacking(found)}")
    return KindSpec(name, target, first_line(found))


SEARCHES: Catalogue[KindSpec[Search[Any]]] = Catalogue(
    "search", [_spec(k.name, k) for k in OUR_SEARCHES], partial(_own, Search, "search")
)
POLICIES: Catalogue[KindSpec[Policy]] = Catalogue(
    "policy", [_spec(k.name, k) for k in OUR_POLICIES], partial(_own, Policy, "policy")
)
