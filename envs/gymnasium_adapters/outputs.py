"""How a gymnasium environment is read as a control problem: names, outputs, references, and what its end means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from steersman.envs.gymnasium_adapters.spaces import Observations, Space
from steersman.envs.plant import Status
from steersman.envs.rows.base import Vector
from steersman.envs.settings import meant

Termination = Literal["end", "failure", "goal"]
ENDS: dict[Termination, Status] = {"end": Status.ENDED, "failure": Status.TERMINATED, "goal": Status.REACHED}
"""What ``terminated`` of an environment may mean."""
REWARD = "reward"


@dataclass(frozen=True, kw_only=True)
class Output:
    """A performance output that is a weighted sum of observation entries, such as a difference of two.

    Attributes:
        name: Its name.
        of: Weight of each entry, by name.
    """

    name: str
    of: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Where the reference of an output comes from; exactly one of the three is given.

    Attributes:
        value: A constant.
        observation: Observation entries that hold the reference of this step and, in order, of the steps ahead.
        info: Key of ``info`` that holds it: a number, or an array ``[h]`` of this step and those ahead.
        column: Column of an array ``[h, columns]``, or entry of an array ``[columns]`` without steps ahead.
    """

    value: float | None = None
    observation: tuple[str, ...] = ()
    info: str = ""
    column: int | None = None

    def __post_init__(self) -> None:
        if (self.value is not None) + bool(self.observation) + bool(self.info) != 1:
            raise ValueError("a reference is one of value, observation and info")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"value must be a finite number, got {self.value}")
        if self.column is not None and (not self.info or self.column < 0):
            raise ValueError(f"column is the number of a column of info, from 0; got {self.column}")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a user says about an environment beside its id.

    Attributes:
        termination: What ``terminated`` means: an end that is neither good nor bad, a failure, or the goal.
        names: New names of the observation entries: of all in their order, or by their old names
            (:mod:`steersman.envs.gymnasium_adapters.spaces`).
        outputs: Performance outputs beside the observation and the reward.
        references: Source of each output's reference, by name; zero for the others.
        exogenous: Entries of the observation that no action influences; models leave them out. Those that hold
            references count as such.
    """

    termination: Termination = "end"
    names: tuple[str, ...] | Mapping[str, str] = ()
    outputs: tuple[Output, ...] = ()
    references: Mapping[str, Reference] = field(default_factory=dict)
    exogenous: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.termination not in ENDS:
            raise ValueError(f"termination must be one of {', '.join(ENDS)}, got {self.termination!r}")


class Outputs:
    """Outputs of an environment: y is its observation; z is the same, the user's own outputs, and the reward.

    The reward comes with the step, so that ``z_{k+1}`` holds what the action ``u_k`` earned; at the start it is 0.

    Attributes:
        measured: Names of y.
        performed: Names of z; the last one is the reward.
        exogenous: Indices of y that no action influences.
    """

    def __init__(self, space: Space, reading: Reading) -> None:
        """Resolve all names.

        Raises:
            ValueError: If a name is unknown or not unique; the message begins with its key.
        """
        self._observations = Observations(space)
        self.measured = _renamed(self._observations.names, reading.names)
        own = tuple(output.name for output in reading.outputs)
        self.performed = (*self.measured, *own, _free(REWARD, (*self.measured, *own)))
        if len(set(self.performed)) < len(self.performed):
            raise ValueError(f"outputs: names must differ from each other and from {_list(self.measured)}")
        self._weights = np.zeros((len(own), len(self.measured)))
        for i, output in enumerate(reading.outputs):
            for name, weight in output.of.items():
                if not math.isfinite(weight):
                    raise ValueError(f"outputs.{i}.of: weights must be finite numbers, got {weight}")
                self._weights[i, index(self.measured, name, f"outputs.{i}.of")] = weight
        self._references = {
            index(self.performed, name, "references"): (name, reference)
            for name, reference in reading.references.items()
        }
        found = [index(self.measured, name, "exogenous") for name in reading.exogenous]
        for name, reference in reading.references.items():
            found += [index(self.measured, entry, f"references.{name}") for entry in reference.observation]
        self.exogenous = tuple(sorted(set(found)))

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of measured and of performance outputs."""
        return len(self.measured), len(self.performed)

    def measure(self, observation: Any) -> Vector:
        """Measured outputs ``[ny]``; not finite where the observation is not.

        Raises:
            ValueError: If the observation is not of its space.
        """
        return self._observations.flatten(observation)

    def perform(self, y: Vector, reward: float) -> Vector:
        """Performance outputs ``[nz]``."""
        return np.concatenate([y, self._weights @ y, [reward]])

    def refer(self, y: Vector, info: Mapping[str, Any]) -> Vector | None:
        """References ``[h + 1, nz]`` as far ahead as they are known, or None if all are zero.

        Raises:
            ValueError: If ``info`` lacks one, or holds something else than numbers.
        """
        if not self._references:
            return None
        known = {at: self._known(name, r, y, info) for at, (name, r) in self._references.items()}
        out = np.zeros((max(map(len, known.values())), len(self.performed)))
        for at, values in known.items():
            out[: len(values), at] = values
            out[len(values) :, at] = values[-1]
        return out

    def _known(self, name: str, reference: Reference, y: Vector, info: Mapping[str, Any]) -> Vector:
        if reference.value is not None:
            return np.asarray([reference.value])
        if reference.observation:
            return y[[self.measured.index(entry) for entry in reference.observation]]
        if reference.info not in info:
            raise ValueError(
                f"references.{name}: info has no {reference.info!r}, which reset and step must return; "
                f"it has {_list(tuple(map(str, info)))}"
            )
        try:
            found = np.asarray(info[reference.info], dtype=np.float64)
            if reference.column is not None:
                found = found[..., reference.column]
            if found.ndim > 1 or not found.size:
                raise ValueError(f"shape {found.shape}")
        except (TypeError, ValueError, IndexError) as error:
            raise ValueError(
                f"references.{name}: info[{reference.info!r}] must be a number or an array of this step and those "
                f"ahead, with column= a column of it; got {info[reference.info]!r:.80} ({error})"
            ) from error
        return np.atleast_1d(found)


def index(names: tuple[str, ...], name: str, where: str) -> int:
    """Place of a name.

    Raises:
        ValueError: If it is not there; the message begins with ``where``.
    """
    if name not in names:
        raise ValueError(f"{where}: no output {name!r}{meant(name, names)}; known: {_list(names)}")
    return names.index(name)


def constant_references(reading: Reading | None, names: tuple[str, ...], what: str) -> tuple[float, ...]:
    """References of performance outputs that never change, for what states everything else by itself.

    Args:
        reading: What the user says.
        names: Names of the performance outputs.
        what: Name of the thing, as the beginning of a sentence.

    Raises:
        ValueError: If a name is unknown, or something else than a constant reference is given.
    """
    reading = reading or Reading()
    if reading != replace(Reading(), references=reading.references):
        raise ValueError(f"{what} says by itself what its outputs are; only references can be stated beside them")
    found = [0.0] * len(names)
    for name, reference in reading.references.items():
        at = index(names, name, "references")
        if reference.value is None:
            raise ValueError(f"references.{name}: {what} knows constant references only; give value")
        found[at] = reference.value
    return tuple(found)


def _renamed(names: tuple[str, ...], new: tuple[str, ...] | Mapping[str, str]) -> tuple[str, ...]:
    if not new:
        return names
    if isinstance(new, Mapping):
        for old in new:
            index(names, old, "names")
        found = tuple(new.get(name, name) for name in names)
    elif len(new) == len(names):
        found = tuple(new)
    else:
        raise ValueError(f"names: the observation has {len(names)} entries ({_list(names)}), got {len(new)} names")
    if len(set(found)) < len(found):
        raise ValueError(f"names: they must differ, got {_list(found)}")
    return found


def _free(name: str, taken: tuple[str, ...]) -> str:
    while name in taken:
        name += "_"
    return name


def _list(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:20])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 20 else shown or "nothing"
