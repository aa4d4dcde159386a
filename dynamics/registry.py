"""The list of models. A new model is enrolled here, and nowhere else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from steersman.dynamics.base import Dynamics
from steersman.envs.catalogue import Catalogue, first_line, lacking
from steersman.envs.importing import imported
from steersman.envs.plant import Plant


@dataclass(frozen=True)
class ModelSpec:
    """One registered model.

    Attributes:
        name: Name in comparison files.
        target: ``module:callable`` that makes the model, imported when it is first used.
        summary: One line for ``steersman list``.
        needs_plant: Whether the callable takes the plant as first argument; such a model is not fitted to data.
        hasty: Settings under which a fit takes a moment, for a model that only stands in for the fitted one; None
            where nobody knows any (a class of your own may have them as its attribute ``hasty``).
    """

    name: str
    target: str
    summary: str
    needs_plant: bool = False
    hasty: Mapping[str, Any] | None = field(default_factory=dict)

    @property
    def make(self) -> Callable[..., Dynamics]:
        """The callable; its signature is the model's settings."""
        found: Callable[..., Dynamics] = imported(self.target)
        return found


_TINY: Mapping[str, Any] = {"context": 1, "hidden": (2,), "rollout": 1, "batch": 8}

MODELS: tuple[ModelSpec, ...] = (
    ModelSpec(
        "truth", "steersman.dynamics.truth.plant_model:PlantModel", "the plant itself, from its true state", True
    ),
    ModelSpec(
        "hindsight", "steersman.dynamics.truth.plant_model:Hindsight", "the same, told of every event to come", True
    ),
    ModelSpec(
        "linearized", "steersman.dynamics.truth.operating_point:linearized", "the plant's first-order expansion", True
    ),
    ModelSpec(
        "linear",
        "steersman.dynamics.linear.models:LinearDynamics",
        "linear model identified from data",
        hasty={"context": 1, "choose": False},
    ),
    ModelSpec(
        "neural",
        "steersman.dynamics.windowed.neural:NeuralDynamics",
        "ensemble of residual networks on windows",
        hasty={"members": 1, **_TINY, "steps": 1},
    ),
    ModelSpec(
        "neural-ode",
        "steersman.dynamics.continuous.neural_ode:NeuralODE",
        "network as the right-hand side of an ODE",
        hasty={**_TINY, "steps": 1},
    ),
    ModelSpec(
        "sparse",
        "steersman.dynamics.windowed.sparse:SparseNeuralDynamics",
        "network with few ReLUs, for mip-mpc",
        hasty={"relus": 1, **_TINY, "dense_steps": 1, "rounds": 1, "round_steps": 1, "tune_steps": 1},
    ),
    ModelSpec(
        "reactions",
        "steersman.dynamics.kinetic.reactions:ReactionDynamics",
        "kinetics of processes with fitted rates",
        hasty={"rollout": 1, "steps": 0, "batch": 8},
    ),
)


def _own(name: str, target: str, found: Any) -> ModelSpec:
    """The entry of a class of somebody else's, or of a function that makes a model."""
    if isinstance(found, type) and not issubclass(found, Dynamics):
        raise ValueError(f"{name!r} is no model but {found.__name__}; derive it from steersman.dynamics.base.Dynamics")
    if not callable(found):
        raise ValueError(f"{name!r} is no model but {type(found).__name__}; name a class, or a function that makes one")
    if lacking(found):
        raise ValueError(f"model {name!r} lacks {lacking(found)}")
    needs_plant = next(iter(inspect.signature(found).parameters), "") == "plant"
    return ModelSpec(name, target, first_line(found), needs_plant, getattr(found, "hasty", None))


CATALOGUE = Catalogue("model", MODELS, _own)


def model_spec(name: str) -> ModelSpec:
    """The model of that name, or of ``module:Name``.

    Raises:
        ValueError: If there is none; the message lists those that exist.
    """
    return CATALOGUE.find(name)


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
