"""An SBML model that libroadrunner has compiled, and which of its symbols can be measured, moved and drawn."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from steersman.envs.importing import needed, one_line
from steersman.envs.rows.base import Vector
from steersman.envs.sbml.document import Document
from steersman.envs.settings import missing

_LOGS = ("SUNLOGGER_WARNING_FILENAME", "SUNLOGGER_ERROR_FILENAME")


class SbmlModel:
    """A compiled model. It is never run: rows run on copies of it, so that it stays as the file says.

    Attributes:
        roadrunner: libroadrunner's module.
        document: Who depends on whom.
        alone: Whether each row needs an object of its own, since amounts, parameters and volumes do not tell all:
            events may wait, and stoichiometries may change.
        starts: States that scenarios begin in, by the numbers that they put in the place of the file's.
    """

    def __init__(self, path: str) -> None:
        """Compile a file.

        Raises:
            ValueError: If there is no such file, or libroadrunner does not take it.
            ImportError: If libroadrunner is not installed.
        """
        self.roadrunner = needed("roadrunner", "sbml", "an SBML model")
        if not Path(path).is_file():
            raise ValueError(f"model: there is no file {path} (looked for in {Path.cwd()})")
        self.starts: dict[tuple[tuple[str, float], ...], Vector] = {}
        self._made = self.compiled(str(Path(path).resolve()), path)
        self.document = Document(self._made.getSBML())
        ids = self._made.model
        self.parameters, self.compartments = tuple(ids.getGlobalParameterIds()), tuple(ids.getCompartmentIds())
        self.floating, self.boundary = tuple(ids.getFloatingSpeciesIds()), tuple(ids.getBoundarySpeciesIds())
        self._reactions = tuple(ids.getReactionIds())
        self._rules = {name: "an assignment rule" for name in self._made.getAssignmentRuleIds()}
        self._rules |= {name: "a rate rule" for name in self._made.getRateRuleIds()}
        self._assigned = set(self._made.getInitialAssignmentIds())
        plain = {*self.parameters, *self.compartments, *self.floating, *self.boundary}
        # Events need no name, so that they are counted.
        self.alone = ids.getNumEvents() > 0 or not {*self._made.getRateRuleIds(), *self._assigned} <= plain

    def compiled(self, text: str, name: str) -> Any:
        """What libroadrunner makes of a document, or of the file at a path.

        Raises:
            ValueError: If it is not a model, or holds what libroadrunner does not do.
        """
        try:
            with quiet(self.roadrunner), _quiet_solver():
                return self.roadrunner.RoadRunner(text)
        except RuntimeError as error:
            raise ValueError(
                f"model: libroadrunner does not take {name} ({one_line(error, bare=True):.300})"
            ) from error

    def copy(self) -> Any:
        """A libroadrunner object to run."""
        with quiet(self.roadrunner), _quiet_solver():
            return self.roadrunner.RoadRunner(self._made)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What can be measured: ``S`` is the amount of a species, ``[S]`` its concentration, a reaction its rate."""
        species = (*self.floating, *self.boundary)
        concentrations = tuple(f"[{name}]" for name in species)
        return (*species, *concentrations, *self.parameters, *self.compartments, *self._reactions, "time")

    def require_outputs(self, names: Iterable[str], where: str) -> None:
        """Refuse what cannot be measured.

        Raises:
            ValueError: Naming the key, the symbol and those that there are.
        """
        for name in names:
            if name not in self.outputs:
                raise ValueError(f"{where}: the model has no symbol {missing(name, self.outputs)}")

    def require_actions(self, names: Iterable[str]) -> None:
        """Refuse what cannot be an action.

        Raises:
            ValueError: Naming the symbol and the remedy.
        """
        names = tuple(names)
        known = (*self.parameters, *self.boundary, *(f"[{name}]" for name in self.boundary), *self.floating)
        for name in names:
            if name.strip("[]") in self._rules:
                self._refuse_ruled("actions", name)
            if name.strip("[]") in self.floating and name not in known:
                raise ValueError(f"actions: {name!r} of a reacting species: a dose is an amount, {name.strip('[]')!r}")
            if name not in known:
                raise ValueError(f"actions: the model has no parameter or species {missing(name, known)}")
        if cause := self.document.triggering(name.strip("[]") for name in names):
            raise ValueError(
                f"actions: an event waits for {cause!r}, and libroadrunner watches for events only while it "
                "integrates, not when an action is set; act on something that no trigger depends on"
            )

    def require_drawn(self, names: Iterable[str]) -> None:
        """Refuse what has no value of its own at the start.

        Raises:
            ValueError: Naming the symbol and the remedy.
        """
        species = (*self.floating, *self.boundary)
        known = (*self.parameters, *self.compartments, *species, *(f"[{name}]" for name in species))
        for name in names:
            bare = name.strip("[]")
            if name not in known:
                raise ValueError(
                    f"parameters: the model has no parameter, compartment or species {missing(name, known)}"
                )
            if self._rules.get(bare) == "an assignment rule":
                self._refuse_ruled("parameters", name)
            if bare in self._assigned:
                raise ValueError(
                    f"parameters: {name!r} is set by an initial assignment of the model; draw what it is computed from"
                )

    def _refuse_ruled(self, where: str, name: str) -> None:
        rule = self._rules[name.strip("[]")]
        raise ValueError(f"{where}: {name!r} is set by {rule} of the model; choose what that rule is computed from")

    def independent(self, names: tuple[str, ...]) -> list[int]:
        """Places of the names that no assignment rule sets."""
        return [i for i, name in enumerate(names) if self._rules.get(name) != "an assignment rule"]


def read_model(path: str) -> SbmlModel:
    """The compiled model of a file; a file that has not changed is compiled once in a process.

    Raises:
        ValueError: If there is no such file, or libroadrunner does not take it.
        ImportError: If libroadrunner is not installed.
    """
    stamp = Path(path).stat() if Path(path).is_file() else None
    return _read(path, str(Path.cwd()), None if stamp is None else (stamp.st_mtime_ns, stamp.st_size, stamp.st_ino))


@lru_cache(maxsize=8)
def _read(path: str, _beside: str, _stamp: tuple[int, int, int] | None) -> SbmlModel:
    return SbmlModel(path)


@contextmanager
def quiet(roadrunner: Any) -> Iterator[None]:
    """What fails is told by status and exception: libroadrunner prints nothing meanwhile."""
    level = roadrunner.Logger.getLevel()
    roadrunner.Logger.setLevel(roadrunner.Logger.LOG_FATAL)
    try:
        yield
    finally:
        roadrunner.Logger.setLevel(level)


@contextmanager
def _quiet_solver() -> Iterator[None]:
    """The solver of what is made meanwhile prints nothing.

    It opens its logs once, where the environment says; its warnings would go to standard output, among what a command
    prints as JSON.
    """
    unset = [name for name in _LOGS if name not in os.environ]
    os.environ.update(dict.fromkeys(unset, os.devnull))
    try:
        yield
    finally:
        for name in unset:
            del os.environ[name]
