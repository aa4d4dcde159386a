"""What a Functional Mock-up Unit says of itself, as plain data that travels to worker processes."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steersman.envs.importing import needed, one_line
from steersman.envs.settings import meant

_FLOATS = ("Real", "Float64", "Float32")
_INTEGERS = ("Integer", "Enumeration", *(f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)))
_TROUBLES = ("logStatusDiscard", "logStatusError", "logStatusFatal")
_SHOWN = 20


def fmpy(part: str = "") -> Any:
    """FMPy, or a module of it.

    Raises:
        ImportError: If it is not installed.
    """
    return needed(f"fmpy.{part}" if part else "fmpy", "fmi", "running an FMU")


@dataclass(frozen=True)
class Variable:
    """A variable of the model description.

    Attributes:
        name: Its name.
        reference: Its value reference.
        type: Its type in the standard, such as ``Real`` or ``Float64``.
        causality: ``input``, ``output``, ``parameter``, ``local`` and so on.
        unit: Its unit; empty if it has none.
        low: Its minimum, minus infinity if none is stated.
        high: Its maximum, likewise.
        settable: Whether it may be set before the initialization.
        scalar: Whether it is a single value.
    """

    name: str
    reference: int
    type: str
    causality: str
    unit: str
    low: float
    high: float
    settable: bool
    scalar: bool

    @property
    def whole(self) -> bool:
        """Whether it takes whole numbers only; truth values are 0 and 1."""
        return self.type == "Boolean" or self.type in _INTEGERS

    @property
    def numeric(self) -> bool:
        """Whether it is one number."""
        return self.scalar and (self.whole or self.type in _FLOATS)


@dataclass(frozen=True)
class Description:
    """A model description.

    Attributes:
        path: The file, absolute.
        version: Major version of the standard.
        token: What instances are made with: the ``guid`` of FMI 2, the instantiation token of FMI 3.
        identifier: Name of the shared library.
        variables: All variables, in their order.
        keeps_states: Whether its state can be kept and come back to.
        only_one: Whether a process may hold one instance only.
        start: Start time of its default experiment, 0 if it states none.
        stop: Stop time of it; None if it states none.
        step: Communication step of it, likewise.
        troubles: Categories of its log that tell of errors, as far as they have the standard's names.
    """

    path: Path
    version: int
    token: str
    identifier: str
    variables: tuple[Variable, ...]
    keeps_states: bool
    only_one: bool
    start: float
    stop: float | None
    step: float | None
    troubles: tuple[str, ...]

    def find(self, name: str, where: str, *, causality: str = "") -> Variable:
        """The numeric variable of that name.

        Args:
            name: Its name.
            where: Setting that names it, for errors.
            causality: What it has to be; anything by default.

        Raises:
            ValueError: If there is none, or it is something else; the message begins with ``where``.
        """
        fitting = [v.name for v in self.variables if v.numeric and causality in ("", v.causality)]
        found = next((v for v in self.variables if v.name == name), None)
        kind = f"{causality}s" if causality else "variables"
        known = f"its {kind}: {listed(fitting)}"
        if found is None:
            raise ValueError(f"{where}: {self.path.name} has no variable {name!r}{meant(name, fitting)}; {known}")
        if not found.numeric:
            what = f"of type {found.type}" if found.scalar else "an array"
            raise ValueError(f"{where}: {name!r} is {what}, and only single numbers can be used; {known}")
        if causality not in ("", found.causality):
            raise ValueError(f"{where}: {name!r} is {found.causality}, not {causality}; {known}")
        return found


def listed(names: Iterable[str]) -> str:
    """Names for an error, the first ones of many."""
    names = list(names)
    shown = ", ".join(names[:_SHOWN])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > _SHOWN else shown or "none"


def read_fmu(file: str | Path) -> Description:
    """Read the model description of an FMU for co-simulation.

    Args:
        file: The ``.fmu``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no FMU, or one that cannot run here; the message begins with ``fmu``.
        ImportError: If FMPy is not installed.
    """
    platform = fmpy().platform
    path = Path(file).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"fmu: no file {str(file)!r} from {Path.cwd()}; give its path from the current folder")
    try:
        found = fmpy().read_model_description(path, validate=False)
        platforms = fmpy().supported_platforms(path)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(
            f"fmu: {path.name} is no FMU ({one_line(error, bare=True)}); export the model again"
        ) from error
    except Exception as error:  # FMPy raises bare exceptions
        raise ValueError(f"fmu: {path.name} has a description that cannot be read ({one_line(error)})") from error
    version = int(found.fmiVersion.partition(".")[0])
    if version not in (2, 3):
        raise ValueError(f"fmu: {path.name} is of FMI {found.fmiVersion}; export it as FMI 2.0 or 3.0")
    if found.coSimulation is None:
        raise ValueError(f"fmu: {path.name} is for model exchange, without a solver; export it for co-simulation")
    if platform not in platforms:
        raise ValueError(
            f"fmu: {path.name} holds no library for {platform}, but for {listed(platforms)}; export it for {platform}"
            + (", or compile its sources with 'fmpy compile'" if "c-code" in platforms else "")
        )
    return _described(path, version, found)


def _described(path: Path, version: int, found: Any) -> Description:
    settable = fmpy("simulation").settable_in_instantiated
    experiment = found.defaultExperiment
    start, stop, step = (
        None if experiment is None or getattr(experiment, name) is None else float(getattr(experiment, name))
        for name in ("startTime", "stopTime", "stepSize")
    )
    return Description(
        path=path,
        version=version,
        token=found.guid,
        identifier=found.coSimulation.modelIdentifier,
        variables=tuple(_variable(v, bool(settable(v))) for v in found.modelVariables),
        keeps_states=bool(found.coSimulation.canGetAndSetFMUstate),
        only_one=bool(found.coSimulation.canBeInstantiatedOnlyOncePerProcess),
        start=start or 0.0,
        stop=stop,
        step=step,
        troubles=tuple(c.name for c in found.logCategories if c.name in _TROUBLES),
    )


def _variable(found: Any, settable: bool) -> Variable:
    def stated(name: str) -> Any:
        own = getattr(found, name)
        return own if own is not None or found.declaredType is None else getattr(found.declaredType, name)

    low, high = stated("min"), stated("max")
    bounds = (0.0, 1.0) if found.type == "Boolean" else (-math.inf, math.inf)
    return Variable(
        name=found.name,
        reference=found.valueReference,
        type=found.type,
        causality=found.causality,
        unit=stated("unit") or "",
        low=bounds[0] if low is None else float(low),
        high=bounds[1] if high is None else float(high),
        settable=settable,
        scalar=not found.dimensions,
    )
