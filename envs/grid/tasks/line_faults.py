"""Faults on the lines of a grid, cleared by losing them: a task for any case with machine data."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.grid.events import Event, Fault, LineTrip
from steersman.envs.grid.files import matpower
from steersman.envs.grid.files.psse import read_raw
from steersman.envs.grid.files.psse_dyr import read_dyr
from steersman.envs.grid.machines.units import units
from steersman.envs.grid.network.case import Case
from steersman.envs.grid.plant import GridPlant
from steersman.envs.grid.system import GridSystem
from steersman.envs.grid.tasks.swing import begin, swing_cost, synchronism
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.placement import constant

MODULATION = 0.05
"""Largest change of a reference voltage, pu."""


class LineFaults(GridPlant, ABC):
    """Ride through faults on lines by the reference voltages of all machines with an exciter.

    A scenario is a fault at the start of a line whose loss islands nothing, at 0.2..0.4 s (version 1), or at any time
    or never, cleared after 60 to 160 ms by tripping that line, at a loading of 0.9 to 1.05. Actions are added to the
    references, within +-0.05 pu, every 0.1 s for 10 s. Cost a step: ``5 |swing|^2 + df^2 + 10 |u|^2``, in Hz and pu.
    """

    def _faults_on(self, system: GridSystem, dt: float, version: int) -> None:
        """Set up the plant on a system.

        Raises:
            ValueError: If no machine has an exciter, no line can be lost, ``dt`` does not divide 0.1 s, or there is no
                such version.
        """
        self._setup(system, dt, 0.1, 10.0, version)
        self.steered = [i for i, unit in enumerate(system.order) if unit.exciter is not None]
        if not self.steered:
            raise ValueError("no machine has an exciter, so there is nothing to steer; add an EXDC2 record")
        if not self.lines:
            raise ValueError(f"{system.case.name} has no line that can be lost without cutting off buses")
        m = len(self.steered)
        names = tuple(f"Vref {system.case.buses.id[system.bus[i]]}" for i in self.steered)
        self.actions = ActionSet((-MODULATION,) * m, (MODULATION,) * m, names=names, units=("pu",) * m)
        effort = Quadratic(name="effort", on="u", weights=(10.0,) * m)
        swings, limits = swing_cost(system.units, len(self._apart)), synchronism(self.performed, self._apart)
        self.objective = Objective((*swings, effort), failure=50.0, limits=limits)

    @cached_property
    def lines(self) -> list[int]:
        """Branches that can be lost: no transformers, and no bus depends on one alone."""
        branches = self.system.case.branches
        return [i for i in range(len(branches)) if branches.b[i] > 0 and self._spare(i)]

    def _spare(self, i: int) -> bool:
        try:
            self.system.case.without_branch(i)
        except ValueError:  # the case says which buses would be cut off
            return False
        return True

    def modulation(self, u: Float[Tensor, "n m"]) -> Float[Tensor, "n units"]:
        """The actions, at the machines with an exciter."""
        return u.new_zeros(len(u), self.system.units).index_copy(1, constant(tuple(self.steered), u, torch.int64), u)

    def draw(self, key: Int64[Tensor, "n"]) -> tuple[Float[Tensor, "n"], Sequence[Event]]:
        """See the class."""
        unit = noise.uniform(noise.fold(key, 0), 4)
        branch = constant(tuple(self.lines), key)[(unit[:, 0] * len(self.lines)).long()]
        start = begin(self.version, unit[:, 1], 0.2, 0.2, self.horizon * self.period)
        duration = 0.06 + 0.1 * unit[:, 2]
        case = self.system.case
        bus = torch.as_tensor(case.buses.id[case.branches.start], device=key.device)[branch]
        return 0.9 + 0.15 * unit[:, 3], [Fault(bus, start, duration), LineTrip(branch, start + duration)]


class GridFile(LineFaults):
    """A grid from files, after faults on its lines.

    Named ``steersman.envs.grid.tasks.line_faults:GridFile`` in a comparison file, with the paths as its settings.

    Args:
        network: A MATPOWER case (``.m``) or a PSS/E raw file.
        machines: PSS/E machine data (``.dyr``); ``network-files.md`` beside this module shows both, and the models.
        dt: Integrator step in s; must divide 0.1 s.
        version: See :mod:`~steersman.envs.grid.tasks.swing`.

    Raises:
        ValueError: From files that cannot be read; the message names the bus, branch or line. As :class:`LineFaults`.
    """

    def __init__(self, network: str, machines: str, dt: float = 0.01, version: int = 1) -> None:
        """Read the files and set up the plant."""
        read = _reader(Path(network))
        for name, path in (("network", network), ("machines", machines)):
            if not Path(path).is_file():
                raise ValueError(f"{name}: there is no file {path} (looked for in {Path.cwd()})")
        case = read(Path(network))
        self._faults_on(GridSystem(case, units(case, read_dyr(machines))), dt, version)


def _reader(path: Path) -> Callable[[Path], Case]:
    readers: dict[str, Callable[[Path], Case]] = {".raw": read_raw, ".m": matpower.read}
    if path.suffix not in readers:
        raise ValueError(f"network must be a .m or a .raw file, got {path}")
    return readers[path.suffix]
