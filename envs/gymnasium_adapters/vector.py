"""A plant as a batched ``gymnasium.vector.VectorEnv``: torch in, torch out, on any device; or numpy, for wrappers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool
from torch import Tensor

from steersman.envs import noise
from steersman.envs.gymnasium_adapters.env import _FLOAT, observation_space, to_tensor
from steersman.envs.plant import Plant
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import PlantSimulator, Simulator, Transition


class PlantVectorEnv(VectorEnv[Any, Any, Any]):
    """``num_envs`` copies of a plant stepped as one batch.

    Any other :class:`~steersman.envs.simulator.Simulator` serves in the plant's place, with its own number of rows.

    Observations, rewards and flags are torch tensors on ``device``, or numpy arrays as gymnasium's vector wrappers
    want them; actions may be either. ``terminated`` means that the episode ended by itself: by failure, at the goal,
    or because a foreign environment said so. Row i of ``reset(seed=s)`` runs the scenario that a single env gets from
    ``reset(seed=s + i)``.

    With SAME_STEP autoreset a row that ends begins anew in the same step, and ``info["final_obs"]`` holds the
    observations before that (tensors: of all rows, ``info["_final_obs"]`` is the mask; numpy: gymnasium's own form,
    an array of objects that is only there when a row has ended). With NEXT_STEP it begins anew in the step after,
    which ignores its action and costs it nothing; many of gymnasium's wrappers ask for that. With DISABLED it stays
    where it is until ``reset(options={"reset_mask": mask})``.

    Args:
        plant: The plant, or a simulator.
        num_envs: Number of copies; a simulator has its own.
        device: Where the batch lives.
        bank: Scenarios to draw restarts from. Without a bank every restart is a fresh scenario, computed for the
            ended rows only; with one it is a gather, which suits plants with a costly start and keeps a GPU busy.
        numpy: Whether arrays are numpy's, copies that wrappers may write into.
        autoreset_mode: When rows that have ended begin anew.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        plant: Plant | Simulator,
        num_envs: int = 1,
        *,
        device: torch.device | str = "cpu",
        bank: Scenarios | None = None,
        render_mode: str | None = None,
        numpy: bool = False,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
    ) -> None:
        """Wrap the plant; see the class for the arguments."""
        if render_mode is not None:
            raise ValueError("a vector env has no render; use the single env with render_mode='rgb_array'")
        if torch.device(device).type == "cuda" and not torch.cuda.is_available():
            raise RuntimeError(f"device {str(device)!r} was asked for but CUDA is not available; use device='cpu'")
        self.metadata = {**self.metadata, "autoreset_mode": _mode(autoreset_mode)}
        self._numpy, self._mode = numpy, _mode(autoreset_mode)
        self.simulator = plant if isinstance(plant, Simulator) else PlantSimulator(plant, num_envs, device=device)
        self.num_envs = num_envs = self.simulator.n
        self.device = self.simulator.device
        self.single_observation_space = observation_space(self.simulator)
        self.single_action_space = self.simulator.actions.space(_FLOAT[self.simulator.dtype])
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._bank = None if bank is None else bank.to(self.device)
        self._key: Tensor | None = None
        self._episode = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._over = torch.zeros(num_envs, dtype=torch.bool, device=self.device)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start all rows, or with ``options={"reset_mask": mask}`` only the masked ones.

        Args:
            seed: One seed (row i takes ``seed + i``) or one per row. Without a seed, running streams go on.
            options: ``reset_mask``, a boolean array ``[num_envs]``.
        """
        n = self.num_envs
        mask = (options or {}).get("reset_mask")
        rows = None if mask is None else to_tensor(mask).to(self.device, torch.bool)
        if rows is not None and tuple(rows.shape) != (n,):
            raise ValueError(f"reset_mask must have shape ({n},), got {tuple(rows.shape)}")
        if seed is None and self._key is None:
            seed = int(np.random.default_rng().integers(2**62))
        if seed is not None:
            seeds = [int(seed) + i for i in range(n)] if isinstance(seed, int | np.integer) else seed
            if len(seeds) != n:
                raise ValueError(f"seed must be one integer or {n} of them, got {len(seeds)}")
            fresh = torch.cat([noise.keys(s if s is not None else i, 1) for i, s in enumerate(seeds)]).to(self.device)
            self._key = fresh if rows is None or self._key is None else torch.where(rows, fresh, self._key)
            self._episode = torch.zeros_like(self._episode) if rows is None else torch.where(rows, 0, self._episode)
        elif rows is None:
            self._episode = self._episode + 1
        else:
            self._episode = self._episode + rows
        self._over = torch.zeros_like(self._over) if rows is None else self._over & ~rows
        self._start(rows)
        return self._given(self._observe()), {"z": self._given(self.simulator.perform())}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Advance every row by one control period; ended rows begin anew as ``autoreset_mode`` says.

        Raises:
            ValueError: If the actions have the wrong shape.
        """
        array = to_tensor(actions).to(self.device)
        if tuple(array.shape) != self.action_space.shape:
            raise ValueError(f"actions must have shape {self.action_space.shape}, got {tuple(array.shape)}")
        t = self.simulator.step(self.simulator.actions.decode(array).to(self.simulator.dtype))
        z = self.simulator.perform()
        final = self._observe()
        # A row that had ended before has stayed put and cost nothing.
        anew = t.ended if self._mode is AutoresetMode.SAME_STEP else self._over
        obs = final if self._mode is AutoresetMode.DISABLED else self._restarted(anew, final)
        self._over = t.ended
        flags = t.ended & ~t.truncated, t.truncated
        return (
            self._given(obs), self._given(-t.cost), self._given(flags[0]), self._given(flags[1]),
            self._info(t, z, final),
        )  # fmt: skip

    def close_extras(self, **kwargs: Any) -> None:
        """Release what the simulator holds."""
        self.simulator.close()

    def _restarted(self, rows: Bool[Tensor, "n"], before: Tensor) -> Tensor:
        """Observations after the rows have begun anew."""
        # Asking whether any row ended would stall a GPU; with a bank the restart is a gather for all rows.
        if self._bank is None and not bool(rows.any()):
            return before
        self._episode = self._episode + rows
        self._start(rows)
        return self._observe()

    def _info(self, t: Transition, z: Tensor, final: Tensor) -> dict[str, Any]:
        info: dict[str, Any] = {
            "terms": {name: self._given(value) for name, value in t.terms.items()},
            "violation": self._given(t.violation),
            "status": self._given(t.status),
            "z": self._given(z),
        }
        if self._mode is not AutoresetMode.SAME_STEP:
            return info
        if not self._numpy:
            return {**info, "final_obs": final, "_final_obs": t.ended}
        if bool(t.ended.any()):
            ended, objects = self._given(t.ended), np.full(self.num_envs, None, dtype=object)
            for row in np.flatnonzero(ended):
                objects[row] = self._given(final[row])
            info |= {"final_obs": objects, "_final_obs": ended}
        return info

    def _given(self, x: Tensor) -> Any:
        """What the caller gets: the tensor, or a copy as an array."""
        return np.array(x.cpu().numpy()) if self._numpy else x

    def _start(self, rows: Bool[Tensor, "n"] | None) -> None:
        assert self._key is not None  # noqa: S101 - narrows the type
        again = torch.where(self._episode > 0, noise.fold(self._key, self._episode), self._key)
        if self._bank is None:
            self.simulator.reset(self.simulator.scenarios(again, rows), rows)
        else:
            choice = noise.bits(again).remainder(len(self._bank))
            self.simulator.reset(self._bank.index(choice), rows)

    def _observe(self) -> Tensor:
        return self.simulator.measure().y


def _mode(given: AutoresetMode | str) -> AutoresetMode:
    for mode in AutoresetMode:
        if given in (mode, mode.value, mode.name, mode.name.lower()):
            return mode
    raise ValueError(f"autoreset_mode must be one of {', '.join(mode.name for mode in AutoresetMode)}, got {given!r}")
