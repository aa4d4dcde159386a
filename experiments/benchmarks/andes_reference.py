"""Reference trajectories of Kundur's system by ANDES, for an environment that holds ANDES (``make peers``).

``.venv-peers/bin/python experiments/benchmarks/andes_reference.py tests/envs/data/andes_kundur.npz`` writes what the
tests compare with; with a case's name and a step in s instead it prints simulated seconds per CPU-second. ANDES is
GPL-3.0 and runs in a process of its own: nothing here imports Steersman, nothing of Steersman imports ANDES.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import andes
import numpy as np

SAMPLE = 0.05
"""Spacing of the stored samples, s."""
CASES: dict[str, tuple[bool, dict[str, float] | None]] = {
    "full_trip": (True, None),
    "full_fault": (True, {"bus": 8, "tf": 1.0, "tc": 1.1}),
    "classical_trip": (False, None),
    "classical_fault": (False, {"bus": 8, "tf": 1.0, "tc": 1.1}),
}
"""Full or classical machines; a three-phase fault through 1e-4 pu, or else the trip of Line_8 at 2 s."""


def load(name: str) -> Any:
    """The case, set up, with its power flow solved."""
    full, fault = CASES[name]
    case = andes.get_case("kundur/kundur_full.xlsx" if full else "kundur/kundur.raw")
    addfile = None if full else andes.get_case("kundur/kundur_gencls.dyr")
    system = andes.load(case, addfile=addfile, setup=False, no_output=True)
    for i in range(system.Toggle.n):
        system.Toggle.u.v[i] = 0
    if fault is not None:
        system.add("Fault", {"rf": 0.0, "xf": 1e-4, **fault})
    else:
        system.add("Toggle", {"model": "Line", "dev": "Line_8", "t": 2.0})
    system.setup()
    system.PFlow.config.tol = 1e-10
    system.PFlow.run()
    return system


def run(name: str, step: float, until: float = 5.0) -> tuple[Any, float]:
    """Simulate with a fixed step; the system and the CPU seconds it took."""
    system = load(name)
    system.TDS.config.fixt, system.TDS.config.tstep, system.TDS.config.tf = 1, step, until
    system.TDS.config.no_tqdm = 1
    start = time.process_time()
    system.TDS.run()
    return system, time.process_time() - start


def samples(name: str) -> np.ndarray[Any, Any]:
    """Time, rotor angles in rad and speed deviations in pu ``[samples, 9]`` at a step of 5 ms."""
    system, _ = run(name, 0.005)
    machine = system.GENROU if CASES[name][0] else system.GENCLS
    series = np.asarray(system.dae.ts.t)
    states = np.asarray(system.dae.ts.x)
    wanted = np.arange(0.0, 5.0 + SAMPLE / 2, SAMPLE)
    # ANDES shifts its grid at events; between neighbours 5 ms apart a line is good to 1e-3 degrees.
    states = np.stack([np.interp(wanted, series, column) for column in states.T], axis=1)
    angle, speed = states[:, machine.delta.a], states[:, machine.omega.a] - 1.0
    return np.concatenate([wanted[:, None], angle, speed], axis=1)


def main(arguments: list[str]) -> None:
    """Write references to a file, or time one case."""
    andes.config_logger(stream_level=40)
    if len(arguments) == 1:
        path = Path(arguments[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        full = load("full_trip")
        full.TDS.init()
        full.EIG.run()
        arrays: dict[str, Any] = {name: samples(name) for name in CASES}
        arrays |= {"eigenvalues": np.asarray(full.EIG.mu), "voltage": np.asarray(full.Bus.v.v)}
        np.savez_compressed(path, **arrays)
        return
    name, step = arguments
    best = max(5.0 / run(name, float(step))[1] for _ in range(2))
    print(best)  # noqa: T201 - read by the benchmark


if __name__ == "__main__":
    main(sys.argv[1:])
