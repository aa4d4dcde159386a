"""The module inside of an FMI 3.0 FMU that Steersman wrote; PythonFMU3 calls it.

Its host needs a Python in which ``import steersman`` works.
"""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element

from pythonfmu3 import DefaultExperiment, Fmi3Slave
from pythonfmu3.enums import Fmi3Causality, Fmi3Initial, Fmi3Status, Fmi3Variability
from pythonfmu3.fmi3slave import Fmi3StepResult
from pythonfmu3.variables import Float64, Int32

from steersman.experiments.exported.hosted import HostedError, HostedPlant, load_hosted


class SteersmanUnit(Fmi3Slave):  # type: ignore[misc]
    """A plant or a controller as a slave."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hosted = load_hosted(str(self.resources))
        self.modelName, self.description = self.hosted.unit["name"], self.hosted.unit["about"]
        period, steps = self.hosted.problem.period, self.hosted.problem.horizon
        self.default_experiment = DefaultExperiment(start_time=0.0, stop_time=period * steps, step_size=period)
        self.seed, self._begun, self.time = 0, 0, 0.0
        clock = {"causality": Fmi3Causality.independent, "variability": Fmi3Variability.continuous}
        self.register_variable(Float64("time", **clock))
        for name in self.hosted.inputs:
            self._enrol(name, "inputs", causality=Fmi3Causality.input, variability=Fmi3Variability.discrete)
        for name in self.hosted.outputs:
            self._enrol(name, "outputs", causality=Fmi3Causality.output, variability=Fmi3Variability.discrete)
        if self.hosted.seeded:
            kinds = {"causality": Fmi3Causality.parameter, "variability": Fmi3Variability.fixed}
            self.register_variable(Int32("seed", initial=Fmi3Initial.exact, **kinds))

    def _enrol(self, name: str, part: str, **kinds: Any) -> None:
        def put(value: float) -> None:
            getattr(self.hosted, part)[name] = value

        variable = Float64(name, getter=lambda: getattr(self.hosted, part)[name], setter=put, **kinds)
        self.register_variable(variable, nested=False)

    def to_xml(self, model_options: dict[str, str] = {}) -> Element:  # noqa: B006 - as it is called
        """The model description; names are no paths."""
        root: Element = super().to_xml(model_options)
        root.set("variableNamingConvention", "flat")
        return root

    def enter_initialization_mode(self) -> None:
        """Begin the episode of the seed."""
        self._begin()

    def exit_initialization_mode(self) -> None:
        """Begin another one if the seed was set meanwhile."""
        if self.seed != self._begun:
            self._begin()

    def _begin(self) -> None:
        self.hosted.begin(self.seed)
        self._begun = self.seed

    def do_step(self, current_time: float, step_size: float) -> Any:
        """One control period; refused where it is another one, or the episode is over."""
        try:
            over = self.hosted.step(step_size)
        except HostedError as error:
            self.log(str(error), Fmi3Status.error)
            return Fmi3StepResult(status=Fmi3Status.discard)
        self.time = current_time + step_size
        return Fmi3StepResult(terminateSimulation=over)

    def _get_fmu_state(self) -> dict[str, Any]:
        assert isinstance(self.hosted, HostedPlant)  # noqa: S101 - only plants say that they can
        return {"state": (self.time, self.hosted.keep())}

    def _set_fmu_state(self, state: dict[str, Any]) -> None:
        assert isinstance(self.hosted, HostedPlant)  # noqa: S101 - likewise
        self.time, kept = state["state"]
        self.hosted.go_back(kept)
