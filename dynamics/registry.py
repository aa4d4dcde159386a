"""The list of models. A new model is enrolled here, and nowhere else."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from steersman.dynamics.base import Dynamics
from steersman.envs.plant import Plant
from steersman.envs.settings import missing


@dataclass(frozen=True)
class ModelSpec:
    """One registered model.

    Attributes:
        name: Name in comparison files.
        target: ``module:callable`` that makes the model, imported when it is first used.
        summary: One line for ``steersman list``.
        needs_plant: Whether the callable takes the plant as first argument; such a model is not fitted to data.
    """

    name: str
    target: str
    summary: str
    needs_plant: bool = False

    @property
    def make(self) -> Callable[..., Dynamics]:
        """The callable; its signature is the model's settings."""
        module, _, attribute = self.target.partition(":")
        found: Callable[..., Dynamics] = getattr(importlib.import_module(module), attribute)
        return found


MODELS: tuple[ModelSpec, ...] = (
    ModelSpec("truth", "steersman.dynamics.plant_model:PlantModel", "the plant itself, from its true state", True),
    ModelSpec("hindsight", "steersman.dynamics.plant_model:Hindsight", "the same, told of every event to come", True),
    ModelSpec("linearized", "steersman.dynamics.linearized:linearized", "the plant's first-order expansion", True),
    ModelSpec("linear", "steersman.dynamics.linear:LinearDynamics", "linear model identified from data"),
    ModelSpec("neural", "steersman.dynamics.neural:NeuralDynamics", "ensemble of residual networks on windows"),
    ModelSpec("neural-ode", "steersman.dynamics.neural_ode:NeuralODE", "network as the right-hand side of an ODE"),
    ModelSpec("sparse", "steersman.dynamics.sparse:SparseNeuralDynamics", "network with few ReLUs, for mip-mpc"),
    ModelSpec("reactions", "steersman.dynamics.reactions:ReactionDynamics", "kinetics of processes with fitted rates"),
)


def model_spec(name: str) -> ModelSpec:
    """The registered model of that name.

    Raises:
        ValueError: If there is none; the message lists those that exist.
    """
    for spec in MODELS:
        if spec.name == name:
            return spec
    known = [spec.name for spec in MODELS]
    raise ValueError(f"unknown model {missing(name, known)}")


def make_model(name: str, plant: Plant | None, **settings: Any) -> Dynamics:
    """Build a model by its name, not yet fitted.

    Raises:
        ValueError: If there is no such model, or it needs a plant and there is none.
    """
    spec = model_spec(name)
    if not spec.needs_plant:
        return spec.make(**settings)
    if plant is None:
        raise ValueError(f"model {name!r} needs a plant, and this simulator has none; choose a learned model")
    return spec.make(plant, **settings)
