"""Any gymnasium environment that we did not write, as a simulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs.gymnasium_adapters.episode import Environments, GymEpisode
from steersman.envs.gymnasium_adapters.make import horizon
from steersman.envs.gymnasium_adapters.outputs import Outputs, Reading
from steersman.envs.gymnasium_adapters.spaces import Actions, Space, action_set
from steersman.envs.objective import Linear, Objective, PiecewiseLinear, Term
from steersman.envs.plant import ControlProblem
from steersman.envs.rows.base import Report
from steersman.envs.rows.simulator import RowSimulator

__all__ = ["GymSimulator", "action_set"]

Goal = Objective | Callable[[tuple[str, ...], tuple[str, ...]], Objective]
"""An objective, or a function that makes one from the names of the performance outputs and of the actions."""


class GymSimulator(RowSimulator):
    """``n`` copies of a gymnasium environment, stepped one after the other, here or in worker processes.

    What is charged is minus the reward. The measured output y is the flattened observation
    (:mod:`steersman.envs.gymnasium_adapters.spaces`), the performance output z is the same and the reward, as its last
    entry.
    By default planners minimise minus the predicted reward. An objective that the caller states is what they minimise
    instead; it does not change what is charged.

    Attributes:
        draws: Whether the environment can draw pictures, if it is made for them (``render_mode="rgb_array"``).
    """

    rewards = True

    def __init__(
        self,
        make: Callable[[], gymnasium.Env[Any, Any]],
        n: int,
        *,
        objective: Goal | None = None,
        price: float | None = None,
        reading: Reading = Reading(),  # noqa: B008 - immutable
        workers: int = 0,
    ) -> None:
        """Make one environment and read its spaces; the others are made when their rows begin.

        Args:
            make: Makes an environment; picklable where there are workers.
            n: Rows.
            objective: What planners minimise. Weights of z or e may leave out what comes after the observation; one
                without terms adds its limits and its price of a failure to the default.
            price: Price of a failure, by default found when a row fails (:mod:`steersman.envs.failure`).
            reading: Names, outputs, references, and what ``terminated`` means.
            workers: Processes that share the rows; 0 runs them here.

        Raises:
            ValueError: If a space, a name or the objective does not fit, or episodes have no length.
        """
        self._make, self._goal, self._reading = make, objective, reading
        first = make()
        try:
            length = horizon(first)
            if length is None:
                raise ValueError(
                    "the environment has no max_episode_steps, so its episodes may never end: set max_episode_steps "
                    "beside its id, or put gymnasium.wrappers.TimeLimit around it"
                )
            outputs = Outputs(_space(first, "observation_space"), reading)
            actions = Actions(_space(first, "action_space"))
            goal = _objective(objective, outputs, actions.set.names)
        except ValueError:
            first.close()
            raise
        self.draws = "rgb_array" in ((first.metadata or {}).get("render_modes") or ())
        source = Environments(make, outputs, actions, reading.termination, length, first)
        problem = ControlProblem(
            actions.set, goal, 1.0, length, outputs.measured,
            outputs.performed, outputs.exogenous, time_unit="step",
        )  # fmt: skip
        super().__init__(source, problem, n, workers=workers, price=price, what="the gymnasium simulator")
        if self._rows.local is None:
            source.close()  # the workers make their own

    def unpriced(self, n: int) -> GymSimulator:
        """See :class:`~steersman.envs.simulator.Simulator`."""
        return GymSimulator(self._make, n, objective=self._goal, price=0.0, reading=self._reading, workers=self.workers)

    def render(self) -> NDArray[np.uint8]:
        """RGB picture of the first row.

        Raises:
            ValueError: If the environment was not made with ``render_mode="rgb_array"``.
            RuntimeError: If the rows run in worker processes.
        """
        first = self._local.episodes[0]
        picture: Any = first.env.render() if isinstance(first, GymEpisode) else None
        if picture is None:
            raise ValueError("this environment draws no picture; make it with render_mode='rgb_array' and reset it")
        return np.asarray(picture)

    @property
    def _charged(self) -> Objective:
        # The reward is all that is charged; terminal terms are the planners' own.
        return replace(self.problem.objective, terminal=())

    def _terms(self, before: Report, after: Report, u: Tensor, du: Tensor) -> dict[str, Tensor]:
        return {"cost": torch.from_numpy(after.cost)}


def _space(env: gymnasium.Env[Any, Any], name: str) -> Space:
    found = getattr(env, name, None)
    if isinstance(found, gymnasium.Space):
        return found
    missing = "is missing" if found is None else f"is of type {type(found).__name__}"
    raise ValueError(f"{name} {missing}; give the environment one of gymnasium.spaces, such as Box")


def _objective(stated: Goal | None, outputs: Outputs, actions: tuple[str, ...]) -> Objective:
    """What planners minimise, checked against the outputs."""
    ny, nz = outputs.shape
    found = stated(outputs.performed, actions) if callable(stated) else stated or Objective(())
    if not found.stage and not found.terminal:
        reward = Linear(name="reward", on="z", weights=(0.0,) * (nz - 1) + (-1.0,))
        # A step is charged for the outputs before it, and the reward arrives after it: the last one is terminal.
        found = replace(found, stage=(reward,), terminal=(reward,))
    found = replace(
        found,
        stage=tuple(_filled(term, ny, nz) for term in found.stage),
        terminal=tuple(_filled(term, ny, nz) for term in found.terminal),
    )
    for term in (*found.stage, *found.terminal):
        size = nz if term.on in ("z", "e") else len(actions)
        if isinstance(term, PiecewiseLinear) and not 0 <= term.index < size:
            raise ValueError(f"term {term.name!r} reads entry {term.index}, but {term.on!r} has {size}")
        term(torch.zeros(1, size, dtype=torch.float64))
    for limit in found.limits:
        if not 0 <= limit.index < nz:
            raise ValueError(f"limit {limit.name!r} reads output {limit.index}, but there are {nz}")
    return found


def _filled(term: Term, ny: int, nz: int) -> Term:
    """The term with weights 0 for what comes after the observation, if it has weights of the observation alone."""
    weights = getattr(term, "weights", ())
    if term.on not in ("z", "e") or len(weights) != ny:
        return term
    return replace(term, weights=(*weights, *(0.0,) * (nz - ny)))  # type: ignore[call-arg]
