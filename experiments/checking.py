"""``steersman check``: a class of your own against the contract of its kind, with messages that teach."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import gymnasium
import tyro
from rich.console import Console
from rich.markup import escape

from steersman.controllers.base import Controller
from steersman.controllers.checks import ControllerCheckError, check_controller
from steersman.controllers.registry import controller_spec
from steersman.dynamics.base import Dynamics, Trajectories
from steersman.dynamics.checks import DynamicsCheckError, check_dynamics
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.registry import make_model, model_spec
from steersman.envs import noise
from steersman.envs.catalogue import lacking
from steersman.envs.checks import PlantCheckError, check_plant, check_simulator
from steersman.envs.failure import failure_price
from steersman.envs.importing import imported
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.plant import Plant
from steersman.envs.registry import make_simulator
from steersman.envs.repeat import repeats
from steersman.envs.simulator import Simulator
from steersman.experiments.spec.settings import SpecError, validated
from steersman.optimizers.base import Search
from steersman.optimizers.policies.base import Policy

Simulate = Callable[..., Simulator]
"""Makes a simulator with a number of rows, and a price of a failure."""
EPISODES = 8
"""Episodes that a model is fitted to, and that models of a controller are."""


class BrokenError(AssertionError):
    """Code of somebody else's raised where its contract lets nothing be raised."""


BROKEN = (BrokenError, ControllerCheckError, DynamicsCheckError, PlantCheckError)


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
    settings: str = "{}"
    """Arguments of its constructor, as JSON."""
    max_episode_steps: int | None = None
    """Control steps of an episode of an environment that does not say."""

    def run(self, console: Console) -> int:
        """Check, and say what has been; the status is 1 if the contract is broken."""
        try:
            given: dict[str, Any] = json.loads(self.settings)
        except json.JSONDecodeError as error:
            raise SpecError(f"--settings is not JSON ({error}); write for example '{{\"gain\": 2}}'") from error
        try:
            passed = check(self.target, self.on, self.model, given, self.max_episode_steps)
        except BROKEN as error:
            console.print(f"[red]broken:[/red] {escape(str(error))}", soft_wrap=True)
            return 1
        for text in passed:
            console.print(f"[green]passed[/green] {escape(text)}", soft_wrap=True)
        return 0


def check(
    target: str,
    on: str = "steersman/Pendulum-v1",
    model: str = "",
    settings: dict[str, Any] | None = None,
    max_episode_steps: int | None = None,
) -> tuple[str, ...]:
    """Check what ``module:Name`` names against the contract of its kind; what has been checked, in words.

    Args:
        target: ``module:Name``.
        on: Plant or environment for controllers and models.
        model: Model for a controller.
        settings: Arguments of its constructor.
        max_episode_steps: Control steps of an episode of an environment that does not say.

    Raises:
        ValueError: If it names nothing that can be checked, or a setting is wrong.
        AssertionError: If the contract is broken: one of :data:`BROKEN`.
    """
    if ":" not in target:
        raise ValueError(f"{target!r} is not module:Name, such as mine:Relay for the class Relay in mine.py beside you")
    settings = settings or {}
    found = imported(target)
    simulate = partial(make_simulator, on)
    if max_episode_steps is not None:
        simulate = partial(simulate, max_episode_steps=max_episode_steps)
    if not isinstance(found, type):
        if found is not None and isinstance(found, Plant | Dynamics | Controller):
            raise ValueError(f"{target!r} is an object; name its class, {type(found).__name__}")
        return _environment(target, settings, max_episode_steps)  # a function may make one
    if lacking(found):
        raise ValueError(f"{target!r} lacks {lacking(found)}")
    if issubclass(found, Search | Policy):
        raise ValueError(
            f"{target!r} is a search or a policy: a comparison with policy-search tries it when it is bound"
        )
    kind_of: Any = found
    kinds: dict[type[Any], Callable[[], tuple[str, ...]]] = {
        Plant: lambda: _plant(kind_of, settings),
        Dynamics: lambda: _model(target, simulate, on, settings),
        Controller: lambda: _controller(target, simulate, on, model, settings),
        Simulator: lambda: _simulator(target, settings),
        gymnasium.Env: lambda: _environment(target, settings, max_episode_steps),
    }
    for kind, checked in kinds.items():
        if issubclass(found, kind):
            return _told(found, checked)
    names = ", ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)
    raise ValueError(f"{target!r} is of no kind that can be checked; derive it from one of {names}")


def _told(kind: type[Any], checked: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    """What has been checked; what the class itself raises, with its place in its file."""
    try:
        return checked()
    except BROKEN:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if f.filename == getattr(sys.modules[kind.__module__], "__file__", None)]
        if not own:
            if isinstance(error, ValueError):  # ours, about what was asked for
                raise
            raise BrokenError(f"{kind.__name__}: {type(error).__name__}: {error}") from error
        place = f"{Path(own[-1].filename).name}:{own[-1].lineno}, in {own[-1].name}"
        raise BrokenError(f"{kind.__name__} raised {type(error).__name__}: {error} ({place})") from error


def _plant(kind: type[Plant], settings: dict[str, Any]) -> tuple[str, ...]:
    check_plant(kind(**validated(kind, settings, "--settings")))
    return (
        "shapes of states, outputs, constraints and status",
        "pure functions: equal inputs give equal results, in every batch and order of rows",
        "no row sees another, however spoilt",
        "what is told of an episode is what is known by then",
    )


def _model(name: str, simulate: Simulate, on: str, settings: dict[str, Any]) -> tuple[str, ...]:
    simulator = simulate(4)
    given = validated(model_spec(name).make, settings, "--settings")
    check_dynamics(lambda: make_model(name, simulator.plant, **given), _data(simulator), simulator)
    return (
        f"fits {EPISODES} episodes of {on}, again to the same predictions",
        "shapes of predicted outputs; rows independent, however spoilt",
        "gradients with respect to the actions",
        "saved and loaded, it predicts the same",
    )


def _controller(name: str, simulate: Simulate, on: str, model: str, settings: dict[str, Any]) -> tuple[str, ...]:
    spec = controller_spec(name)
    if spec.needs_model and not model:
        raise ValueError(f"{name!r} plans with a model; name one, for example --model truth")
    priced = partial(simulate, price=failure_price(partial(simulate, price=0.0)))
    given = validated(spec.make, settings, "--settings")

    def make() -> Controller:
        return spec.make(**given).bind(priced(1).problem, _fitted(model, priced) if model else None)

    check_controller(make, priced)
    return (
        f"acts on {on}: admissible, finite, the right shapes",
        "equal generators give equal episodes",
        "a row that restarts acts as new, and the others go on",
        "spoilt observations give neutral actions in their rows alone",
        "saved and loaded, it acts the same",
    )


def _environment(target: str, settings: dict[str, Any], max_episode_steps: int | None) -> tuple[str, ...]:
    given: dict[str, Any] = {"price": 0.0, "max_episode_steps": max_episode_steps, **settings}
    simulate: Simulate = partial(make_simulator, target, **given)
    again = repeats(simulate, noise.keys(0, 2), simulate(1).problem.horizon)
    if again is not None:
        raise PlantCheckError(f"nothing can be paired on it: {again}")
    return ("made, with outputs and actions that are understood", "a seed repeats its episode")


def _simulator(target: str, settings: dict[str, Any]) -> tuple[str, ...]:
    given = {"objective": _efforts, **settings} if "objective" in signature(imported(target)).parameters else settings
    check_simulator(lambda n: make_simulator(target, n, price=0.0, **given))
    return (
        "shapes of outputs and references",
        "a seed repeats its episode, in every batch and order of rows",
        "snapshots lead back, bit by bit",
        "masked resets and NaN actions stay in their rows",
    )


def _efforts(outputs: tuple[str, ...], actions: tuple[str, ...]) -> Objective:
    """Something to charge, for what has no costs of its own."""
    return Objective((Quadratic(name="efforts", on="u", weights=(1.0,) * len(actions)),))


def _fitted(model: str, simulate: Simulate) -> Dynamics:
    simulator = simulate(4)
    made = make_model(model, simulator.plant).bind(simulator.problem)
    return made if model_spec(model).needs_plant else made.fit(_data(simulator))


def _data(simulator: Simulator) -> Trajectories:
    return collect(simulator, HeldLevels(), episodes=EPISODES, seed=0)
