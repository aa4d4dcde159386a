"""FMUs that the tests build by themselves: a pendulum with a torque, of FMI 2.0 or 3.0, that can fail on demand."""

import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

NEEDS = "needs steersman[fmi]"
STEP = 0.01

HEAD = {
    2: """
        from pythonfmu import DefaultExperiment, Fmi2Slave as Slave
        from pythonfmu.enums import Fmi2Causality as C, Fmi2Initial as I, Fmi2Variability as V
        from pythonfmu.variables import Boolean, Integer, Real, String
    """,
    3: """
        from pythonfmu3 import DefaultExperiment, Fmi3Slave, Fmi3StepResult
        from pythonfmu3.enums import Fmi3Causality as C, Fmi3Initial as I, Fmi3Variability as V
        from pythonfmu3.variables import Boolean, Int32 as Integer, Float64 as Real, String
    """,
}
LAW = """
import math

PULL = 9.81


def derivative(angle, speed, torque, damping):
    return speed, torque - PULL * math.sin(angle) - damping * speed


def runge_kutta(angle, speed, torque, damping, h):
    a1, s1 = derivative(angle, speed, torque, damping)
    a2, s2 = derivative(angle + h / 2 * a1, speed + h / 2 * s1, torque, damping)
    a3, s3 = derivative(angle + h / 2 * a2, speed + h / 2 * s2, torque, damping)
    a4, s4 = derivative(angle + h * a3, speed + h * s3, torque, damping)
    return angle + h / 6 * (a1 + 2 * a2 + 2 * a3 + a4), speed + h / 6 * (s1 + 2 * s2 + 2 * s3 + s4)
"""
CLASS = """

class Swing(SLAVE):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.angle, self.speed, self.torque, self.damping, self.inverse = 0.5, 0.0, 0.0, 0.1, 0.0
        self.gear, self.brake, self.fault, self.told = 1, False, 0, 0.0
        self.default_experiment = DefaultExperiment(start_time=0.0, stop_time=0.6, step_size=0.03)
        fixed, moving = {"variability": V.fixed}, {"variability": V.continuous}
        discrete = {"causality": C.input, "variability": V.discrete}
        level = {"causality": C.output, "initial": I.exact}
        more = [Real("time", causality=C.independent, **moving)] if FMI == 3 else []
        self.time = 0.0
        for variable in (
            *more, Real("torque", causality=C.input, **moving), Integer("gear", **discrete),
            Boolean("brake", **discrete), Real("damping", causality=C.parameter, **fixed),
            Integer("fault", causality=C.parameter, **fixed), Real("angle", **level, **moving),
            Real("speed", **level, **moving), Real("inverse", causality=C.output, **moving),
            Real("told", causality=C.local, **moving),
        ):
            self.register_variable(variable)

    def exit_initialization_mode(self):
        if self.fault == 4:
            raise ValueError("there is no such pendulum")

    def do_step(self, time, length):
        if self.fault == 1 and time > 0.1:
            raise ValueError("the rope is torn")
        torque = 0.0 if self.brake else self.torque * self.gear
        for _ in range(round(length / STEP)):
            self.angle, self.speed = runge_kutta(self.angle, self.speed, torque, self.damping, STEP)
        self.inverse = float("inf") if self.fault == 2 and time > 0.1 else 1.0
        self.time, self.told = time + length, self.told + 1.0
        if self.fault == 3 and time > 0.1:
            return OVER
        return True
"""


def text(version: int) -> str:
    over = "False" if version == 2 else "Fmi3StepResult(terminateSimulation=True)"
    body = LAW + CLASS.replace("OVER", over).replace("FMI ==", f"{version} ==").replace("STEP", str(STEP))
    return dedent(HEAD[version]) + body.replace("SLAVE", "Slave" if version == 2 else "Fmi3Slave")


def build(folder: Path, script: str, version: int, *, name: str = "swing", **options: Any) -> str:
    """Path of the FMU of a script; the process is left as it was."""
    module = pytest.importorskip(f"pythonfmu{3 if version == 3 else ''}.builder", reason=NEEDS)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(script)
    before = list(sys.path)
    sys.modules.pop(name, None)  # PythonFMU would take another module of that name
    try:
        return str(module.FmuBuilder.build_FMU(folder / f"{name}.py", dest=folder, **options))
    finally:
        sys.path[:] = before
        sys.modules.pop(name, None)


def swing(folder: Path, version: int, *, keeps_states: bool = True, **options: Any) -> str:
    """The pendulum."""
    state = {"canGetAndSetFMUstate" if version == 2 else "canGetAndSetFMUState": keeps_states}
    return build(folder, text(version), version, **state, **options)
