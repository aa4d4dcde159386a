"""Linear models and linearised plants as systems of python-control (extra ``control``): for poles, margins, plots."""

from __future__ import annotations

from typing import Any, Literal

from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.truth.operating_point import linearized
from steersman.envs.importing import needed
from steersman.envs.plant import Plant
from steersman.envs.settings import one_of


def to_control(
    of: Plant | LinearDynamics,
    outputs: Literal["measured", "performed"] = "measured",
    at: Literal["start", "zero"] = "start",
    seed: int = 0,
) -> Any:
    """A discrete ``control.StateSpace`` of the deviations from a point: ``x+ = A x + B u``, ``y = C x``.

    The offsets of an affine model are left out: they are what stays the same. Its state is that of
    :meth:`~steersman.dynamics.linear.models.LinearDynamics.state_space`, its ``dt`` the control period, and its inputs
    and outputs have their names (with ``_`` for the dots that python-control does not allow); exogenous outputs have no
    row among the measured ones.

    Args:
        of: A plant with an exact gradient or a smooth step, or a linear model that is bound and fitted.
        outputs: Which outputs it has.
        at: Where a plant is linearised (:func:`~steersman.dynamics.truth.operating_point.linearized`).
        seed: Scenario that a plant is linearised in.

    Raises:
        ValueError: If the plant cannot be linearised.
        RuntimeError: If the model is not fitted.
        ImportError: If python-control is not installed.
    """
    one_of("measured", "performed", outputs=outputs)
    one_of("start", "zero", at=at)
    control = needed("control", "control", "a StateSpace")
    model = linearized(of, at, seed) if isinstance(of, Plant) else of
    problem, found = model.problem, model.state_space()
    if outputs == "measured":
        read, names = found.C, [name for i, name in enumerate(problem.measured) if i not in problem.exogenous]
    else:
        read, names = found.Cz, list(problem.performed)
    inputs, names = ([name.replace(".", "_") for name in part] for part in (problem.actions.names, names))
    A, B, C = (part.detach().cpu().double().numpy() for part in (found.A, found.B, read))
    return control.StateSpace(A, B, C, 0, problem.period, inputs=inputs, outputs=names, remove_useless_states=False)
