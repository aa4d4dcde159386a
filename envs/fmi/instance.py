"""One running instance of an FMU: the calls of FMI 2.0 and 3.0 under one roof, over FMPy."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from steersman.envs.fmi.description import Description, Variable, fmpy
from steersman.envs.importing import one_line
from steersman.envs.rows.base import Vector

EXTRACTED = "steersman-fmu-"
"""How folders begin that FMUs are extracted to."""
_DISCARD, _FATAL = 2, 4
_TERMINATED = 3
"""``fmi2Terminated``: whether a step was refused because the simulation is over."""
_MODULE = "slavemodule.txt"
"""Names the module of an FMU that is written in Python (PythonFMU)."""


class FmuError(Exception):
    """A call of the FMU failed; the message is its own, if it told one."""


class Instance:
    """An instance, from its making to its end."""

    def __init__(self, description: Description, folder: str, name: str) -> None:
        """Load the library and make the instance.

        Args:
            description: The model description.
            folder: Where the FMU is extracted.
            name: Name of the instance.

        Raises:
            RuntimeError: If the library cannot be loaded, or refuses.
        """
        self._description = description
        _HEARD.clear()
        self._fatal = self._failed = False
        part = fmpy(f"fmi{description.version}")
        make = part.FMU2Slave if description.version == 2 else part.FMU3Slave
        try:
            with _surroundings(Path(folder)):
                self._fmu = make(
                    guid=description.token, modelIdentifier=description.identifier, unzipDirectory=folder,
                    instanceName=name,
                )  # fmt: skip
                # PythonFMU tells of errors under no category, and of little else; other FMUs may tell of every step.
                python = (Path(folder) / "resources" / _MODULE).is_file()
                self._instantiate(python)
                if description.troubles and not python:
                    with suppress(Exception):  # it tells less then
                        self._fmu.setDebugLogging(True, description.troubles)
        except Exception as error:  # FMPy raises bare exceptions
            raise RuntimeError(
                f"{description.path.name} cannot be instantiated here ({one_line(error, bare=True)}"
                f"{_words()}); see what its export needs: licences, libraries, an execution tool"
            ) from error

    def _instantiate(self, talks: bool) -> None:
        if self._description.version == 3:
            self._fmu.instantiate(loggingOn=talks, logMessage=lambda _, status, category, text: _hear(status, text))
        else:
            self._fmu.instantiate(loggingOn=talks, callbacks=_callbacks())

    def begin(self, start: Mapping[Variable, float]) -> None:
        """Set start values and initialize.

        Raises:
            FmuError: If the FMU cannot be initialized with them.
        """
        with self._calls():
            self.set(start)
            if self._description.version == 2:
                self._fmu.setupExperiment(startTime=self._description.start)
                self._fmu.enterInitializationMode()
            else:
                self._fmu.enterInitializationMode(startTime=self._description.start)
            self._fmu.exitInitializationMode()

    def set(self, values: Mapping[Variable, float]) -> None:
        """Set variables.

        Raises:
            FmuError: If one is refused.
        """
        for accessor, members in groupby(values, key=self._accessor):
            variables = list(members)
            given = [_converted(v, values[v]) for v in variables]
            with self._calls():
                getattr(self._fmu, f"set{accessor}")([v.reference for v in variables], given)

    def get(self, variables: Sequence[Variable]) -> Vector:
        """Values of variables.

        Raises:
            FmuError: If one is refused.
        """
        found: list[float] = []
        for accessor, members in groupby(variables, key=self._accessor):
            with self._calls():
                found += getattr(self._fmu, f"get{accessor}")([v.reference for v in members])
        return np.asarray(found, dtype=np.float64)

    def step(self, time: float, length: float) -> bool:
        """A communication step; whether the FMU wants the simulation to end.

        Raises:
            FmuError: If it fails.
        """
        # The second flag is a promise never to go back, which lets an FMU forget what it needs for that.
        arguments = time, length, not self._description.keeps_states
        if self._description.version == 3:
            with self._calls():
                return bool(self._fmu.doStep(*arguments)[1])
        with self._calls():
            try:
                self._fmu.doStep(*arguments)
            except Exception as error:
                if getattr(error, "status", None) == _DISCARD and self._is_over():
                    return True
                raise
        return False

    def _is_over(self) -> bool:
        try:
            return bool(self._fmu.getBooleanStatus(_TERMINATED))
        except Exception:  # not every FMU says
            return False

    def keep(self) -> Any:
        """A handle of the present state, which dies with the instance; None if there is none to be had."""
        if not self._description.keeps_states or self._fatal:
            return None
        try:
            return self._fmu.getFMUState()
        except Exception:
            return None

    def go_back(self, state: Any) -> None:
        """Go on from a state that was kept.

        Raises:
            FmuError: If the FMU refuses.
        """
        with self._calls():
            self._fmu.setFMUState(state)
        self._failed = False

    def forget(self, state: Any) -> None:
        """Free a state that was kept."""
        if not self._fatal:
            with suppress(Exception):
                self._fmu.freeFMUState(state)

    def close(self) -> None:
        """End and free the instance; after a fatal error the standard allows neither."""
        if self._fatal:
            return
        if not self._failed:
            with suppress(Exception):
                self._fmu.terminate()
        with suppress(Exception):
            self._fmu.freeInstance()
        self._fatal = True

    def _accessor(self, variable: Variable) -> str:
        if variable.type == "Enumeration":
            return "Integer" if self._description.version == 2 else "Int64"
        return variable.type

    @contextmanager
    def _calls(self) -> Iterator[None]:
        """What FMPy raises, with what the FMU has told meanwhile."""
        _HEARD.clear()
        try:
            yield
        except FmuError:
            raise
        except Exception as error:
            self._failed = True
            self._fatal = getattr(error, "status", None) == _FATAL
            raise FmuError(f"{one_line(error, bare=True).rstrip('.')}{_words()}") from error


_HEARD: list[str] = []
"""What FMUs have complained of in the present call: FMPy knows one logger of FMI 2 for all instances of a process."""


def _hear(status: int, text: bytes | None) -> None:
    if status > 0 and text:  # 0 is no trouble
        _HEARD.append(text.decode("utf-8", "replace").strip())


def _words() -> str:
    return f": {_HEARD[-1]}" if _HEARD else ""


@cache
def _callbacks() -> Any:
    """Callbacks of FMI 2."""
    part = fmpy("fmi2")
    calls = part.fmi2CallbackFunctions()
    calls.logger = part.fmi2CallbackLoggerTYPE(lambda _, name, status, category, text: _hear(status, text))
    calls.allocateMemory = part.fmi2CallbackAllocateMemoryTYPE(fmpy().calloc)
    calls.freeMemory = part.fmi2CallbackFreeMemoryTYPE(fmpy().free)
    with suppress(ImportError, OSError):  # without it messages lack what their format leaves open
        fmpy("logging").addLoggerProxy(ctypes.byref(calls))
    return calls


def _converted(variable: Variable, value: float) -> float | int | bool:
    if variable.type == "Boolean":
        return bool(value)
    return round(value) if variable.whole else value


@contextmanager
def _surroundings(folder: Path) -> Iterator[None]:
    """What FMPy and PythonFMU change in this process is put right again.

    FMPy stays in the library's folder where loading fails. PythonFMU imports a module by its name and puts its folder
    on ``sys.path`` for every instance: two FMUs with modules of one name would be the same model.
    """
    here, resources = Path.cwd(), folder / "resources"
    if (resources / _MODULE).is_file():
        own = (resources / _MODULE).read_text(encoding="utf-8").strip()
        if not _inside(sys.modules.get(own), str(folder)):
            sys.modules.pop(own, None)
            for name in [name for name, module in sys.modules.items() if _inside(module, EXTRACTED)]:
                del sys.modules[name]
    try:
        yield
    finally:
        os.chdir(here)
        sys.path[:] = dict.fromkeys(sys.path)


def _inside(module: Any, place: str) -> bool:
    return place in str(getattr(module, "__file__", None) or "")


def leave(folder: str) -> None:
    """Forget what Python FMUs have put on ``sys.path``, before their folder is removed."""
    sys.path[:] = [place for place in sys.path if not place.startswith(folder)]
