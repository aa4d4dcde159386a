"""The list of controllers. A new controller is enrolled here, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steersman.controllers.base import Controller
from steersman.envs.catalogue import Catalogue, first_line, lacking
from steersman.envs.importing import imported


@dataclass(frozen=True)
class ControllerSpec:
    """One registered controller.

    Attributes:
        name: Name in comparison files, equal to ``Class.name``.
        target: ``module:Class``, imported when it is first used; the constructor's signature is its settings.
        summary: One line for ``steersman list``.
        needs_model: Whether :meth:`~steersman.controllers.base.Controller.bind` needs a model.
        learns: Whether training depends on its seed, so that several training seeds are worth running.
    """

    name: str
    target: str
    summary: str
    needs_model: bool = False
    learns: bool = False

    @property
    def make(self) -> type[Controller]:
        """The class."""
        found: type[Controller] = imported(self.target)
        return found


CONTROLLERS: tuple[ControllerSpec, ...] = (
    ControllerSpec("zero", "steersman.controllers.classical.baseline:Zero", "the admissible action nearest to zero"),
    ControllerSpec(
        "constant",
        "steersman.controllers.classical.baseline:Constant",
        "the best constant action of a grid",
        learns=True,
    ),
    ControllerSpec(
        "pid", "steersman.controllers.classical.pid:PID", "PID loops with anti-windup, tuned if asked", learns=True
    ),
    ControllerSpec(
        "lqr", "steersman.controllers.classical.lqr:LQR", "linear-quadratic regulator on the model's state", True
    ),
    ControllerSpec("lqg", "steersman.controllers.classical.lqr:LQG", "the regulator behind a Kalman filter", True),
    ControllerSpec(
        "backstepping",
        "steersman.controllers.classical.backstepping:Backstepping",
        "kernels for control at a boundary",
        True,
    ),
    ControllerSpec(
        "adjoint", "steersman.controllers.planning.adjoint:Adjoint", "plans by gradients through the model", True
    ),
    ControllerSpec("mppi", "steersman.controllers.planning.sampling:MPPI", "sampling MPC, softmax-weighted", True),
    ControllerSpec("cem", "steersman.controllers.planning.sampling:CEM", "sampling MPC, cross-entropy method", True),
    ControllerSpec(
        "enumeration",
        "steersman.controllers.planning.enumeration:Enumeration",
        "every sequence of integer actions through the model",
        True,
    ),
    ControllerSpec(
        "mip-mpc", "steersman.controllers.mip.controller:MixedIntegerMPC", "mixed-integer MPC, globally optimal", True
    ),
    ControllerSpec(
        "neural",
        "steersman.controllers.neural.controller:NeuralPolicy",
        "network trained through a model",
        True,
        learns=True,
    ),
    ControllerSpec(
        "imitation",
        "steersman.controllers.neural.imitation:Imitation",
        "network that imitates a planner with the same model",
        True,
        learns=True,
    ),
    ControllerSpec(
        "policy-search",
        "steersman.controllers.policy_search:PolicySearch",
        "policy found without gradients",
        learns=True,
    ),
    ControllerSpec("ppo", "steersman.controllers.reinforcement.ppo:PPO", "proximal policy optimisation", learns=True),
    ControllerSpec("sac", "steersman.controllers.reinforcement.sac:SAC", "soft actor-critic", learns=True),
    ControllerSpec(
        "pinn-screening",
        "steersman.controllers.grid.screening:PinnScreening",
        "redispatch by thousands of what-ifs in a trained solution operator",
        learns=True,
    ),
    ControllerSpec(
        "dqn", "steersman.controllers.reinforcement.dqn:DQN", "deep Q-learning, for a discrete action", learns=True
    ),
)


def _own(name: str, target: str, found: Any) -> ControllerSpec:
    """The entry of a class of somebody else's."""
    if not (isinstance(found, type) and issubclass(found, Controller)):
        kind = found.__name__ if isinstance(found, type) else type(found).__name__
        raise ValueError(f"{name!r} is no controller but {kind}; derive it from steersman.controllers.base.Controller")
    if lacking(found):
        raise ValueError(f"controller {name!r} lacks {lacking(found)}")
    learns = found.learns if found.learns is not None else found.train is not Controller.train
    return ControllerSpec(name, target, first_line(found), found.needs_model, learns)


CATALOGUE = Catalogue("controller", CONTROLLERS, _own)


def controller_spec(name: str) -> ControllerSpec:
    """The controller of that name, or of ``module:Name``.

    Raises:
        ValueError: If there is none; the message lists those that exist.
    """
    return CATALOGUE.find(name)


def make_controller(name: str, **settings: Any) -> Controller:
    """Build a controller by its name, not yet bound to a problem."""
    return controller_spec(name).make(**settings)
