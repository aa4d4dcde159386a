"""``steersman check``: a class of your own against the contract of its kind, with messages that teach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape

from steersman.controllers.base import Controller
from steersman.controllers.checks import ControllerCheckError, check_controller
from steersman.controllers.registry import make_controller
from steersman.dynamics.base import Dynamics
from steersman.dynamics.checks import DynamicsCheckError, check_dynamics
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.registry import make_model, model_spec
from steersman.envs import noise
from steersman.envs.catalogue import lacking
from steersman.envs.checks import PlantCheckError, check_plant
from steersman.envs.failure import failure_price
from steersman.envs.importing import imported
from steersman.envs.plant import Plant
from steersman.envs.registry import make_simulator
from steersman.envs.repeat import repeats
from steersman.envs.simulator import Simulator

EPISODES = 8
"""Episodes that a model is fitted to, and that models of a controller are."""


@dataclass(frozen=True)
class Check:
    """Check a plant, model, controller or environment of your own: what a comparison relies on, told part by part.

    A controller or a model is checked on a small plant; name the one that it is meant for with --on.
    """

    target: Annotated[str, tyro.conf.Positional]
    """``module:Name`` in a file beside you or in an installed package."""
    on: str = "steersman/Pendulum-v1"
    """Plant or environment that a controller or a model is checked on."""
    model: str = ""
    """Model of a controller that plans: 'truth', or one that is fitted to a few episodes."""
    max_episode_steps: int | None = None
    """Control steps of an episode of an environment that does not say."""

    def run(self, console: Console) -> int:
        """Check, and say what has been; the status is 1 if the contract is broken."""
        try:
            passed = check(self.target, self.on, self.model, self.max_episode_steps)
        except (ControllerCheckError, DynamicsCheckError, PlantCheckError) as error:
            console.print(f"[red]broken:[/red] {escape(str(error))}", soft_wrap=True)
            return 1
        for text in passed:
            console.print(f"[green]passed[/green] {escape(text)}", soft_wrap=True)
        return 0


def check(
    target: str, on: str = "steersman/Pendulum-v1", model: str = "", max_episode_steps: int | None = None
) -> tuple[str, ...]:
    """Check what ``module:Name`` names against the contract of its kind; what has been checked, in words.

    Args:
        target: ``module:Name``.
        on: Plant or environment for controllers and models.
        model: Model for a controller.
        max_episode_steps: Control steps of an episode of an environment that does not say.

    Raises:
        ValueError: If it names nothing that can be checked.
        AssertionError: If the contract is broken: one of ``PlantCheckError``, ``DynamicsCheckError`` and
            ``ControllerCheckError``.
    """
    if ":" not in target:
        raise ValueError(f"{target!r} is not module:Name, such as mine:Relay for the class Relay in mine.py beside you")
    found = imported(target)
    kinds: dict[type[Any], Callable[[], tuple[str, ...]]] = {
        Plant: lambda: _plant(found),
        Dynamics: lambda: _model(target, on),
        Controller: lambda: _controller(target, on, model),
    }
    for kind, checked in kinds.items():
        if isinstance(found, type) and issubclass(found, kind):
            if lacking(found):
                raise ValueError(f"{target!r} lacks {lacking(found)}")
            return checked()
    return _environment(target, max_episode_steps)  # says what is wrong with a name that names nothing


def _plant(kind: type[Plant]) -> tuple[str, ...]:
    check_plant(kind())
    return (
        "shapes of states, outputs, constraints and status",
        "pure functions: equal inputs give equal results, in every batch and order of rows",
        "no row sees another, however spoilt",
        "what is told of an episode is what is known by then",
    )


def _model(name: str, on: str) -> tuple[str, ...]:
    simulator = make_simulator(on, 4)
    check_dynamics(lambda: make_model(name, simulator.plant), _data(simulator), simulator)
    return (
        f"fits {EPISODES} episodes of {on}, again to the same predictions",
        "shapes of predicted outputs; rows independent, however spoilt",
        "gradients with respect to the actions",
        "saved and loaded, it predicts the same",
    )


def _controller(name: str, on: str, model: str) -> tuple[str, ...]:
    simulate = partial(make_simulator, on, price=failure_price(partial(make_simulator, on, price=0.0)))

    def make() -> Controller:
        simulator = simulate(1)
        return make_controller(name).bind(simulator.problem, _fitted(model, simulate) if model else None)

    check_controller(make, simulate)
    return (
        f"acts on {on}: admissible, finite, the right shapes",
        "equal generators give equal episodes",
        "a row that restarts acts as new, and the others go on",
        "spoilt observations give neutral actions in their rows alone",
        "saved and loaded, it acts the same",
    )


def _environment(target: str, max_episode_steps: int | None) -> tuple[str, ...]:
    simulate = partial(make_simulator, target, price=0.0, max_episode_steps=max_episode_steps)
    again = repeats(simulate, noise.keys(0, 2), simulate(1).problem.horizon)
    if again is not None:
        raise PlantCheckError(f"nothing can be paired on it: {again}")
    return ("made, with outputs and actions that are understood", "a seed repeats its episode")


def _fitted(model: str, simulate: Callable[[int], Simulator]) -> Dynamics:
    simulator = simulate(4)
    made = make_model(model, simulator.plant).bind(simulator.problem)
    return made if model_spec(model).needs_plant else made.fit(_data(simulator))


def _data(simulator: Simulator) -> Any:
    return collect(simulator, HeldLevels(), episodes=EPISODES, seed=0)
