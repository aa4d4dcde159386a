"""The searches there are."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from steersman.optimizers.ars import ARS
from steersman.optimizers.base import Search
from steersman.optimizers.cma_es import CMAES
from steersman.optimizers.evolution import OpenAIES
from steersman.optimizers.peer import PeerPolyStep
from steersman.optimizers.polystep.frame import FrameStep
from steersman.optimizers.polystep.polystep import PolyStep
from steersman.optimizers.random_search import RandomSearch
from steersman.optimizers.settings import flag_in
from steersman.optimizers.spsa import SPSA

SEARCHES: tuple[type[Search[Any]], ...] = (PolyStep, FrameStep, OpenAIES, CMAES, ARS, SPSA, RandomSearch, PeerPolyStep)
"""Enrolled once; the conformance tests run over it."""


def make_search(search: str | type[Search[Any]], **settings: Any) -> Search[Any]:
    """A search by name or class, with its fields as settings.

    Raises:
        ValueError: If no search has that name, it has no such setting, or a setting is out of range.
    """
    by_name = {kind.name: kind for kind in SEARCHES}
    if isinstance(search, str) and search not in by_name:
        raise ValueError(f"unknown search {search!r}; choose one of {', '.join(sorted(by_name))}")
    kind = by_name[search] if isinstance(search, str) else search
    name = kind.name
    known = [field.name for field in fields(kind)]
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(f"search {name!r} has no setting {', '.join(unknown)}; it has {', '.join(known)}")
    if flag := flag_in(kind, settings, name):
        raise ValueError(f"search {name!r}: {flag.removeprefix(f'{name}.')} must be a number, got a boolean")
    return kind(**settings)
