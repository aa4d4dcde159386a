"""One way to find the members of a kind: by name, by an installed package's entry point, or as ``module:Name``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from importlib import metadata
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from steersman.envs.importing import imported, meant_in
from steersman.envs.settings import missing


@runtime_checkable
class Entry(Protocol):
    """What a catalogue says of a member."""

    @property
    def name(self) -> str:
        """Name in comparison files."""
        ...

    @property
    def target(self) -> str:
        """``module:Name``."""
        ...

    @property
    def summary(self) -> str:
        """One line."""
        ...


E = TypeVar("E", bound=Entry)


class Catalogue(Generic[E]):
    """The members of one kind.

    Three ways lead to a member: its name among ours; its name among the entry points of the group ``steersman.kinds``
    (``steersman.controllers``, ``steersman.policies``) of an installed package; and ``module:Name`` of a class of your
    own, in a module beside you or in an installed one. What is imported is imported when it is asked for.
    """

    def __init__(self, kind: str, ours: Sequence[E], own: Callable[[str, str, Any], E]) -> None:
        """Describe a kind.

        Args:
            kind: What a member is called in messages, such as ``controller``.
            ours: Members that come with Steersman.
            own: Makes the entry of somebody else's member from its name, ``module:Name`` and what that names; it
                refuses by ``ValueError`` what is none.
        """
        self.kind, self.ours, self._own = kind, tuple(ours), own
        self.kinds = {"search": "searches", "policy": "policies"}.get(kind, f"{kind}s")
        self._by_name = {entry.name: entry for entry in ours}

    def __iter__(self) -> Iterator[E]:
        """Members that come with Steersman."""
        return iter(self.ours)

    def find(self, name: str) -> E:
        """The member of that name.

        Raises:
            ValueError: If there is none; the message lists those that exist and the one that was probably meant, or
                says what ``module:Name`` would have to name.
        """
        if name in self._by_name:
            return self._by_name[name]
        if ":" in name:
            return self._of(name, name)
        if name in self.installed:
            return self._of(name, self.installed[name])
        raise ValueError(
            f"unknown {self.kind} {missing(name, [*self._by_name, *self.installed])}; or module:Name of your own"
        )

    @cached_property
    def installed(self) -> dict[str, str]:
        """``module:Name`` by name, of the members that installed packages enrol."""
        return {point.name: point.value for point in metadata.entry_points(group=f"steersman.{self.kinds}")}

    def _of(self, name: str, target: str) -> E:
        found = imported(target)
        if found is None:
            module, _, wanted = target.partition(":")
            near = meant_in(importlib.import_module(module), wanted)
            raise ValueError(f"unknown {self.kind} {name!r}: module {module!r} has no {wanted!r}{near}")
        return self._own(name, target, found)


def first_line(of: object) -> str:
    """The first line of something's docstring, without its full stop: what a list says of it."""
    return (inspect.getdoc(of) or "").partition("\n")[0].rstrip(".")


def lacking(of: object) -> str:
    """Methods that an abstract class leaves open, as text; empty for anything else."""
    return ", ".join(sorted(getattr(of, "__abstractmethods__", ())))
