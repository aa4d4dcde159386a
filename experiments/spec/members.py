"""Controllers and models as files name them: settings checked against the signature, and made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steersman.controllers.base import Controller
from steersman.controllers.registry import controller_spec
from steersman.dynamics.base import Dynamics
from steersman.dynamics.registry import make_model, model_spec
from steersman.envs.plant import ControlProblem, Plant
from steersman.experiments.spec.settings import validated


def new_model(use: str, settings: Mapping[str, Any], problem: ControlProblem, plant: Plant | None = None) -> Dynamics:
    """A model of that name, bound to a problem and not yet fitted.

    Raises:
        ValueError: If there is no such model, a setting is wrong, or it needs a plant and there is none.
    """
    given = validated(model_spec(use).make, settings, f"model {use}")
    return make_model(use, plant, **given).bind(problem)


def new_controller(use: str, settings: Mapping[str, Any]) -> Controller:
    """A controller of that name, not yet bound.

    Raises:
        ValueError: If there is no such controller, or a setting is wrong.
    """
    kind = controller_spec(use).make
    return kind(**validated(kind, settings, f"controller {use}"))
