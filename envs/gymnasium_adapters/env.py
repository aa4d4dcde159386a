"""A plant as a single ``gymnasium.Env``: numpy in, numpy out."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from steersman.envs import noise
from steersman.envs.plant import Plant, Status, Trail
from steersman.envs.simulator import PlantSimulator, Simulator

_FLOAT: dict[torch.dtype, type[np.floating[Any]]] = {torch.float32: np.float32, torch.float64: np.float64}


def observation_space(simulator: Simulator) -> spaces.Box:
    """Unbounded box of the measured output in the simulator's dtype."""
    return spaces.Box(-np.inf, np.inf, (simulator.problem.ny,), _FLOAT[simulator.dtype])


def to_tensor(array: Any) -> torch.Tensor:
    """A tensor as it is, anything else as a new one: torch warns of arrays that are read-only or reversed views."""
    return array if isinstance(array, torch.Tensor) else torch.from_numpy(np.array(array))


class PlantEnv(gymnasium.Env[NDArray[Any], Any]):
    """One copy of a plant, or of any other simulator with one row.

    The observation is the measured output y, the reward is minus the stage cost (in the plant's units), and
    ``info`` carries the cost terms, the constraint violation, the status and the performance output.
    ``terminated`` means failure or the goal, ``truncated`` the end of the horizon. ``reset(seed=s)`` starts the
    scenario of ``noise.keys(s, 1)``, the one that row 0 of
    :class:`~steersman.envs.gymnasium_adapters.vector.PlantVectorEnv` gets.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012 - gymnasium's contract

    def __init__(self, plant: Plant | Simulator, render_mode: str | None = None) -> None:
        """Wrap the plant.

        Raises:
            ValueError: If the render mode is unknown, or a simulator has several rows or draws no picture.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None or one of {self.metadata['render_modes']}, got {render_mode!r}")
        sim = plant if isinstance(plant, Simulator) else PlantSimulator(plant, 1)
        if sim.n != 1:
            raise ValueError(f"a single environment has one row, got a simulator of {sim.n}; use PlantVectorEnv")
        if render_mode is not None and not isinstance(sim, PlantSimulator):
            raise ValueError(f"{type(sim).__name__} draws no picture; use render_mode=None")
        self.render_mode = render_mode
        self.observation_space = observation_space(sim)
        self.action_space = sim.actions.space(_FLOAT[sim.dtype])
        self._simulator = sim
        self._trail: Trail | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start a scenario; without a seed, the next one of the stream that the last seed began."""
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**62))
        self._simulator.reset(self._simulator.scenarios(noise.keys(seed, 1)))
        if self.render_mode is not None and isinstance(self._simulator, PlantSimulator):
            self._trail = self._simulator.record()
        return self._observe(), {"z": self._simulator.perform()[0].numpy()}

    def step(self, action: Any) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Apply an action for one control period.

        Raises:
            ValueError: If the action has the wrong shape or is not finite.
        """
        array = np.asarray(action)
        if array.shape != self.action_space.shape:
            raise ValueError(f"action must have shape {self.action_space.shape}, got {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"action must be finite, got {array}; check the policy for NaN or overflow")
        u = self._simulator.actions.decode(to_tensor(array)[None]).to(self._simulator.dtype)
        t = self._simulator.step(u)
        info = {
            "terms": {name: float(value) for name, value in t.terms.items()},
            "violation": float(t.violation),
            "status": Status(int(t.status)),
            "z": self._simulator.perform()[0].numpy(),
        }
        if self._trail is not None and isinstance(self._simulator, PlantSimulator):
            self._simulator.record(self._trail, u)
        truncated = bool(t.truncated)
        return self._observe(), -float(t.cost), bool(t.ended) and not truncated, truncated, info

    def render(self) -> NDArray[np.uint8] | None:
        """The plant's picture of the current state and how it came to it; None without a render mode."""
        plant = self._simulator.plant
        return None if self._trail is None or plant is None else plant.render(self._trail)

    def _observe(self) -> NDArray[Any]:
        y: NDArray[Any] = self._simulator.measure().y[0].numpy()
        return y
