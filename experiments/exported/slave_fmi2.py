"""The module inside of an FMI 2.0 FMU that Steersman wrote; PythonFMU calls it.

Its host needs a Python in which ``import steersman`` works.
"""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element, SubElement

from pythonfmu import DefaultExperiment, Fmi2Slave
from pythonfmu.enums import Fmi2Causality, Fmi2Initial, Fmi2Variability
from pythonfmu.variables import Integer, Real

from steersman.experiments.exported.hosted import HostedPlant, load_hosted


class SteersmanUnit(Fmi2Slave):  # type: ignore[misc]
    """A plant or a controller as a slave."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hosted = load_hosted(str(self.resources))
        self.modelName, self.description = self.hosted.unit["name"], self.hosted.unit["about"]
        period, steps = self.hosted.problem.period, self.hosted.problem.horizon
        self.default_experiment = DefaultExperiment(start_time=0.0, stop_time=period * steps, step_size=period)
        self.seed, self._begun = 0, 0
        for name in self.hosted.inputs:
            self._enrol(name, "inputs", causality=Fmi2Causality.input, variability=Fmi2Variability.discrete)
        for name in self.hosted.outputs:
            self._enrol(name, "outputs", causality=Fmi2Causality.output, variability=Fmi2Variability.discrete)
        if self.hosted.seeded:
            kinds = {"causality": Fmi2Causality.parameter, "variability": Fmi2Variability.fixed}
            self.register_variable(Integer("seed", initial=Fmi2Initial.exact, **kinds))

    def _enrol(self, name: str, part: str, **kinds: Any) -> None:
        def put(value: float) -> None:
            getattr(self.hosted, part)[name] = value

        variable = Real(name, getter=lambda: getattr(self.hosted, part)[name], setter=put, **kinds)
        self.register_variable(variable, nested=False)

    def to_xml(self, model_options: dict[str, str] = {}) -> Element:  # noqa: B006 - as it is called
        """The model description; names are no paths, and what the start computes is listed, as the standard asks."""
        root: Element = super().to_xml(model_options)
        root.set("variableNamingConvention", "flat")
        structure = root.find("ModelStructure")
        assert structure is not None  # noqa: S101 - narrows the type
        unknowns = SubElement(structure, "InitialUnknowns")
        for place, variable in enumerate(self.vars.values(), start=1):
            if variable.causality == Fmi2Causality.output:
                SubElement(unknowns, "Unknown", {"index": str(place)})
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

    def do_step(self, current_time: float, step_size: float) -> bool:
        """One control period; False is PythonFMU's word for the end of the simulation.

        Raises:
            HostedError: If it is another period, or the episode is over: PythonFMU knows no other word for errors.
        """
        return not self.hosted.step(step_size)

    def _get_fmu_state(self) -> dict[str, Any]:
        assert isinstance(self.hosted, HostedPlant)  # noqa: S101 - only plants say that they can
        return {"state": self.hosted.keep()}

    def _set_fmu_state(self, state: dict[str, Any]) -> None:
        assert isinstance(self.hosted, HostedPlant)  # noqa: S101 - likewise
        self.hosted.go_back(state["state"])
