"""Environments by name: ids of gymnasium, classes and functions of your own modules, and wrappers around them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from steersman.envs.gymnasium_adapters.hints import beside, not_in
from steersman.envs.importing import imported, one_line
from steersman.envs.rows.isolation import Globals, lent

Env = gymnasium.Env[Any, Any]
WrapperSettings = tuple[str, dict[str, Any]]
"""Name of a wrapper, ``module:Wrapper`` or a class of ``gymnasium.wrappers``, and its arguments."""


@dataclass(frozen=True)
class EnvMaker:
    """Makes environments of one kind; picklable if its parts are, so that worker processes make their own.

    Attributes:
        name: What it is called in errors.
        target: A spec of gymnasium, or what returns an environment.
        settings: Its arguments.
        wrappers: Functions of an environment and their arguments, the innermost first.
        max_episode_steps: Control steps of an episode, where the environment states none or others are wanted.
    """

    name: str
    target: EnvSpec | Callable[..., Any]
    settings: dict[str, Any] = field(default_factory=dict)
    wrappers: tuple[tuple[Callable[..., Any], dict[str, Any]], ...] = ()
    max_episode_steps: int | None = None

    def __call__(self) -> Env:
        """A new environment; whatever it draws from global generators, all of them are made alike.

        Raises:
            ValueError: If it cannot be made; the message is one line and says what to do.
        """
        with lent(), Globals.seeded(0).inside():
            env = self._bare()
            for wrap, settings in self.wrappers:
                env = self._checked(_attempt(f"wrapper {_called(wrap)}", wrap, env, **settings))
        return env

    def _bare(self) -> Env:
        if isinstance(self.target, EnvSpec):
            # Its checks of the first step would be warnings; what is needed is checked here, with errors.
            given = {"disable_env_checker": True, "max_episode_steps": self.max_episode_steps, **self.settings}
            return self._checked(_attempt(self.name, gymnasium.make, self.target, **given))
        env = self._checked(_attempt(self.name, self.target, **self.settings))
        return env if self.max_episode_steps is None else gymnasium.wrappers.TimeLimit(env, self.max_episode_steps)

    def _checked(self, env: Any) -> Env:
        if isinstance(env, gymnasium.Env):
            return env
        kind = f"{type(env).__module__}.{type(env).__name__}"
        if isinstance(env, gymnasium.vector.VectorEnv):
            raise ValueError(f"{self.name}: {kind} is a vector environment; name the single one, rows are made of it")
        raise ValueError(f"{self.name}: {kind} is not a gymnasium.Env; derive it from that class")


def env_maker(
    id: str | Callable[..., Any],
    settings: dict[str, Any] | None = None,
    wrappers: Sequence[WrapperSettings] = (),
    max_episode_steps: int | None = None,
) -> EnvMaker:
    """What makes the environment of that name.

    Args:
        id: A registered id; ``module:Env-v0``, which imports the module first; ``module:name`` of a class or of a
            function that returns an environment; or such a class or function itself.
        settings: Arguments of the environment.
        wrappers: Put around it, the innermost first.
        max_episode_steps: Control steps of an episode.

    Raises:
        ValueError: If there is no such environment, wrapper or module, or a number is out of range.
    """
    if max_episode_steps is not None and max_episode_steps < 1:
        raise ValueError(f"max_episode_steps must be at least 1, got {max_episode_steps}")
    around = tuple((_wrapper(name), dict(arguments)) for name, arguments in wrappers)
    target = _target(id)
    name = id if isinstance(id, str) else _called(target)
    return EnvMaker(name, target, dict(settings or {}), around, max_episode_steps)


def horizon(env: Env) -> int | None:
    """Control steps of an episode, as the environment's spec or a TimeLimit around it says."""
    if env.spec is not None and env.spec.max_episode_steps is not None:
        return env.spec.max_episode_steps
    layer: Any = env
    while isinstance(layer, gymnasium.Wrapper):
        if isinstance(layer, gymnasium.wrappers.TimeLimit):
            return int(layer._max_episode_steps)
        layer = layer.env
    return None


def _target(id: str | Callable[..., Any]) -> EnvSpec | Callable[..., Any]:
    if isinstance(id, str):
        found = imported(id) if ":" in id else None
        if found is None:
            module, _, name = id.rpartition(":")
            try:
                return gymnasium.spec(name)
            except (gymnasium.error.Error, ModuleNotFoundError) as error:
                why = not_in(sys.modules[module], name) if module in sys.modules else one_line(error)
                raise ValueError(f"unknown environment {id!r} ({why}){'' if module else beside(id)}") from error
    else:
        found = id
    if not callable(found):
        remedy = "; name a class, or a function that makes an environment"
        raise ValueError(f"unknown environment {id!r}: its type is {type(found).__name__}{remedy}")
    target: Callable[..., Any] = found
    return target


def _wrapper(name: str) -> Callable[..., Any]:
    found = imported(name) if ":" in name else getattr(gymnasium.wrappers, name, None)
    if not callable(found):
        raise ValueError(
            f"unknown wrapper {name!r}; give module:Wrapper, or the name of one in gymnasium.wrappers, "
            "for example 'FlattenObservation'"
        )
    wrap: Callable[..., Any] = found
    return wrap


def _attempt(name: str, make: Callable[..., Any], *args: Any, **settings: Any) -> Any:
    try:
        return make(*args, **settings)
    except gymnasium.error.DependencyNotInstalled as error:
        raise ValueError(f"{name} needs something that is not installed: {one_line(error, bare=True)}") from error
    except ModuleNotFoundError as error:
        raise ValueError(f"{name} needs {error.name!r}, which is not installed: pip install {error.name}") from error
    except Exception as error:  # whatever its constructor does
        raise ValueError(f"{name} cannot be made with these settings ({one_line(error)})") from error


def _called(target: Any) -> str:
    return str(getattr(target, "__qualname__", None) or target)
