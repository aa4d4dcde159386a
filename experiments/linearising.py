"""``steersman linearise``: poles, margins and Bode plot of a plant near a point."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from steersman.dynamics.linear.exchange import to_control
from steersman.envs.importing import needed
from steersman.envs.registry import make_simulator
from steersman.experiments.spec.settings import SpecError

_MOST = 4
"""Outputs and actions, at most, between which margins are looked for and drawn."""
_POINTS = 400


@dataclass(frozen=True)
class Mode:
    """A pole of the sampled system.

    Attributes:
        pole: Its value ``[real, imaginary]``.
        magnitude: Its distance from 0: below 1 it decays.
        frequency: Natural frequency of ``log(pole) / period``, in radians per unit of time.
        damping: Damping ratio of the same.
    """

    pole: tuple[float, float]
    magnitude: float
    frequency: float
    damping: float


@dataclass(frozen=True)
class Margins:
    """Of a loop closed from one output to one action by minus 1; infinite where no gain or phase closes it badly.

    Attributes:
        output: Name of the output.
        action: Name of the action.
        gain: Factor of the gain.
        phase: In degrees.
    """

    output: str
    action: str
    gain: float
    phase: float


def modes(system: Any) -> list[Mode]:
    """Poles of a discrete ``control.StateSpace``, the slowest to decay first."""
    found = []
    for pole in sorted(system.poles(), key=abs, reverse=True):
        rate = np.log(complex(pole)) / system.dt if pole != 0 else complex(-math.inf, 0)
        size = abs(rate)
        damping = 1.0 if math.isinf(size) else -rate.real / size if size else 0.0
        found.append(Mode((float(pole.real), float(pole.imag)), float(abs(pole)), float(size), float(damping)))
    return found


def margins(system: Any) -> list[Margins]:
    """Margins of a ``control.StateSpace`` from each of the first outputs to each of the first actions."""
    control = needed("control", "control", "a margin")
    found = []
    for i, output in enumerate(system.output_labels[:_MOST]):
        for j, action in enumerate(system.input_labels[:_MOST]):
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")  # of polynomials of high order; control then takes frequencies
                gain, phase, *_ = control.stability_margins(system[i, j])
            found.append(Margins(output, action, float(gain), float(phase)))
    return found


@dataclass(frozen=True)
class Linearise:
    """Linearise a plant: its poles, the margins of its loops, and a Bode plot (extra ``control``)."""

    plant: Annotated[str, tyro.conf.Positional]
    """Id of a plant, or ``module:Name`` of your own."""
    settings: str = "{}"
    """Arguments of its constructor, as JSON."""
    outputs: Literal["measured", "performed"] = "measured"
    """Which outputs are looked at."""
    at: Literal["start", "zero"] = "start"
    """Linearised where an episode starts, or at the state of all zeros."""
    seed: int = 0
    """Scenario."""
    out: Path | None = None
    """Folder of bode.png and linear.json; without it the poles and margins are printed alone."""

    def run(self, console: Console) -> int:
        """Linearise, print, and write what is asked for."""
        try:
            settings: dict[str, Any] = json.loads(self.settings)
        except json.JSONDecodeError as error:
            raise SpecError(f"--settings is not JSON ({error}); write for example '{{\"period\": 0.1}}'") from error
        plant = make_simulator(self.plant, 1, **settings).plant
        if plant is None:
            raise ValueError(f"{self.plant!r} is a simulator without a plant behind it: there is nothing to linearise")
        system = to_control(plant, self.outputs, self.at, self.seed)
        found, loops = modes(system), margins(system)
        console.print(_pole_table(found, plant.time_unit), _margin_table(loops))
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            draw(system, self.out / "bode.png", plant.time_unit)
            (self.out / "linear.json").write_text(_plain(system, found, loops), encoding="utf-8")
            console.print(f"Bode plot: [bold]{escape(str(self.out / 'bode.png'))}[/bold]", soft_wrap=True)
        return 0


def draw(system: Any, path: Path, time_unit: str) -> None:
    """Bode plot from each of the first actions to the first outputs, up to half the sampling rate."""
    omega = np.pi / system.dt * np.logspace(-4, 0, _POINTS)
    with np.errstate(all="ignore"):
        response = np.asarray(system(np.exp(1j * omega * system.dt), squeeze=False))
    actions, outputs = system.input_labels[:_MOST], system.output_labels[:_MOST]
    figure, axes = plt.subplots(2, len(actions), figsize=(1 + 4 * len(actions), 5), squeeze=False, layout="constrained")
    for j, action in enumerate(actions):
        gain, phase = axes[:, j]
        for i, output in enumerate(outputs):
            h = response[i, j]
            gain.semilogx(omega, 20 * np.log10(np.maximum(np.abs(h), 1e-300)), label=output)
            phase.semilogx(omega, np.rad2deg(np.unwrap(np.angle(h))))
        gain.set(title=f"from {action}", ylabel="gain (dB)")
        phase.set(xlabel=f"frequency (rad per {time_unit})", ylabel="phase (degrees)")
        gain.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _pole_table(found: list[Mode], time_unit: str) -> Table:
    table = Table(title="poles of the sampled system", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("pole", "magnitude", f"frequency, rad per {time_unit}", "damping"):
        table.add_column(name, justify="right")
    for mode in found:
        real, imaginary = mode.pole
        pole = f"{real:.5g}" + (f" {imaginary:+.5g}j" if imaginary else "")
        table.add_row(pole, f"{mode.magnitude:.5g}", f"{mode.frequency:.4g}", f"{mode.damping:.3g}")
    return table


def _margin_table(found: list[Margins]) -> Table:
    table = Table(title="margins of single loops with gain -1", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("output", "action", "gain", "phase, degrees"):
        table.add_column(name, justify="right" if name not in ("output", "action") else "left")
    for loop in found:
        table.add_row(loop.output, loop.action, f"{loop.gain:.4g}", f"{loop.phase:.4g}")
    return table


def _plain(system: Any, found: list[Mode], loops: list[Margins]) -> str:
    """Matrices, poles and margins as JSON; infinite margins are null."""
    whole = {
        "period": system.dt, "actions": system.input_labels, "outputs": system.output_labels,
        **{name: np.asarray(getattr(system, name)).tolist() for name in "ABC"},
        "poles": [mode.pole for mode in found],
        "margins": [
            {"output": loop.output, "action": loop.action, "gain": _finite(loop.gain), "phase": _finite(loop.phase)}
            for loop in loops
        ],
    }  # fmt: skip
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
