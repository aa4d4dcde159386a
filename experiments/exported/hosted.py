"""What runs inside of an FMU that Steersman wrote: a plant or a controller behind numbers with names.

The host of such an FMU needs Python with Steersman: the FMU holds a description, not the code.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from steersman.envs import noise
from steersman.envs.plant import ControlProblem, Status
from steersman.envs.registry import make_simulator
from steersman.experiments.exported.controller import load_controller

UNIT, CONTROLLER = "unit.json", "controller"
"""The description among the resources, and the folder of a controller."""
ACTION, MEASURED, PERFORMED, REFERENCE = "u.", "y.", "z.", "r."
"""How names of variables begin."""
_SLACK = 1e-9


class HostedError(Exception):
    """A step cannot be done; the message is for the host's log."""


class Hosted(ABC):
    """A plant or a controller.

    Attributes:
        unit: The description.
        problem: Outputs and actions with their names, the period and the horizon.
        inputs: Present inputs, by name.
        outputs: Present outputs, by name.
        seeded: Whether a seed matters.
    """

    problem: ControlProblem
    inputs: dict[str, float]
    outputs: dict[str, float]
    seeded: bool = True

    def __init__(self, unit: Mapping[str, Any]) -> None:
        """Store the description."""
        self.unit = unit

    @abstractmethod
    def begin(self, seed: int) -> None:
        """Begin an episode: set the outputs."""

    def step(self, length: float) -> bool:
        """A step of one control period: set the outputs; whether the episode is over before its time.

        Raises:
            HostedError: If the step is of another length, or there is none left.
        """
        period = self.problem.period
        if abs(length - period) > _SLACK * period:
            raise HostedError(f"it works in steps of {period:g}, which is its step size; got {length:g}")
        return self.advance()

    @abstractmethod
    def advance(self) -> bool:
        """See :meth:`step`."""


class HostedPlant(Hosted):
    """A plant: actions in, measured and performance outputs and references out; a seed chooses its scenario."""

    def __init__(self, unit: Mapping[str, Any]) -> None:
        """Build the plant."""
        super().__init__(unit)
        # What an episode costs is the host's business, and so is the price of a failure.
        self._simulator = make_simulator(unit["id"], 1, price=0.0, **unit["settings"])
        self.problem = self._simulator.problem
        rest = self.problem.actions.neutral(1, torch.zeros(1, dtype=torch.float64))[0].tolist()
        self.inputs = _named(ACTION, self.problem.actions.names, rest)
        self.begin(0)

    def begin(self, seed: int) -> None:
        """See :class:`Hosted`."""
        self._simulator.reset(self._simulator.scenarios(noise.keys(seed, 1)))
        self._show()

    def advance(self) -> bool:
        """See :class:`Hosted`."""
        k = int(self._simulator.measure().k[0])
        if k >= self.problem.horizon:
            raise HostedError(f"the episode of {self.problem.horizon} steps is over")
        t = self._simulator.step(torch.tensor([list(self.inputs.values())], dtype=torch.float64))
        status = Status(int(t.status[0]))
        if status in (Status.DIVERGED, Status.VIOLATED):
            raise HostedError(f"the plant has {status.name.lower()}")
        self._show()
        return status != Status.OK

    def keep(self) -> Any:
        """The present state."""
        return self._simulator.snapshot(), dict(self.inputs), dict(self.outputs)

    def go_back(self, state: Any) -> None:
        """Go on from a state."""
        snapshot, inputs, outputs = state
        self._simulator.restore(snapshot)
        self.inputs, self.outputs = dict(inputs), dict(outputs)

    def _show(self) -> None:
        m, problem = self._simulator.measure(), self.problem
        z = self._simulator.perform()[0].tolist()
        self.outputs = _named(MEASURED, problem.measured, m.y[0].tolist()) | _named(PERFORMED, problem.performed, z)
        self.outputs |= _named(REFERENCE, problem.performed, m.r[0, 0].tolist())


class HostedController(Hosted):
    """A controller: measured outputs and references in, actions out."""

    seeded = False

    def __init__(self, unit: Mapping[str, Any], folder: Path) -> None:
        """Load the controller."""
        super().__init__(unit)
        self._controller = load_controller(folder)
        self.problem = self._controller.problem
        followed = unit["reference"] or [0.0] * self.problem.nz
        self.inputs = _named(MEASURED, self.problem.measured, [0.0] * self.problem.ny)
        self.inputs |= _named(REFERENCE, self.problem.performed, followed)
        self.begin(0)

    def begin(self, seed: int) -> None:
        """See :class:`Hosted`; before the first step actions are neutral."""
        self._controller.reset(seed)
        rest = self.problem.actions.neutral(1, torch.zeros(1, dtype=torch.float64))[0].tolist()
        self.outputs = _named(ACTION, self.problem.actions.names, rest)

    def advance(self) -> bool:
        """See :class:`Hosted`."""
        given = list(self.inputs.values())
        u = self._controller(given[: self.problem.ny], given[self.problem.ny :])
        self.outputs = _named(ACTION, self.problem.actions.names, u.tolist())
        return False


def load_hosted(resources: str) -> HostedPlant | HostedController:
    """What an FMU holds.

    Args:
        resources: Folder of its resources.

    Raises:
        ValueError: If the description is of another kind.
    """
    folder = Path(resources)
    unit = json.loads((folder / UNIT).read_text(encoding="utf-8"))
    if unit["kind"] == "plant":
        return HostedPlant(unit)
    if unit["kind"] == "controller":
        return HostedController(unit, folder / CONTROLLER)
    raise ValueError(f"{UNIT} describes a {unit['kind']!r}, which this version of Steersman does not know; update it")


def _named(prefix: str, names: tuple[str, ...], values: list[float]) -> dict[str, float]:
    return {f"{prefix}{name}": value for name, value in zip(names, values, strict=True)}
