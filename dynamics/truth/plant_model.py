"""The true plant as a model: what a controller with solver access plans with, and the one that knows the future."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from steersman.dynamics.base import Dynamics, Hidden, Trajectories, Window
from steersman.envs import noise
from steersman.envs.plant import Plant, Status, failed, going
from steersman.envs.simulator import Measurement
from steersman.envs.tree import Params, State, tree_finite, tree_where

_STREAM = 0x7D0DE1
"""Separates the model's disturbances from those of any scenario."""


class PlantModel(Dynamics):
    """A plant stepped from its true state and parameters, with disturbances of its own.

    The model never sees the disturbance that the real plant will get: it draws its own from keys that depend on
    ``seed`` and on the measured output, so a row predicts the same in every batch; :meth:`branch` gives copies of a
    row disturbances of their own. Nor does it see events that have not begun: parameters are those that are known at
    the step from which it predicts (:meth:`~steersman.envs.plant.Plant.known`). Rows that fail or reach the horizon
    stay where they are, as in the simulator. Actions are taken as they come (admissible, as planners make them): a
    projection would cut their gradient.

    Hidden: the state as ``x`` or ``x.<leaf>``, parameters as ``p.<name>``, ``k``, ``status`` and ``key``.
    """

    context = 1
    needs_state = True

    def __init__(self, plant: Plant, seed: int = 0) -> None:
        """Wrap the plant; ``seed`` selects the disturbances that predictions assume."""
        super().__init__()
        self.plant, self.seed = plant, seed
        self.bind(plant.problem)

    def fit(self, data: Trajectories) -> PlantModel:
        """Nothing to learn."""
        return self

    def init(self, window: Window) -> Hidden:
        """See the class for the entries.

        Raises:
            ValueError: If the window lacks the true state or parameters.
        """
        now = window.now
        p = self._params(now)
        if now.x is None or p is None:
            raise ValueError(
                f"{type(self).__name__} needs the true state and parameters in window.now; run it in the 'solver "
                "access' track"
            )
        state = {"x": now.x} if isinstance(now.x, Tensor) else {f"x.{name}": leaf for name, leaf in now.x.items()}
        params = {f"p.{name}": value for name, value in p.items()}
        key = self._keys(now.y)
        # Whoever plans is not at an end: as in an episode, a status is that of a state that a step has led to.
        running = torch.zeros_like(now.k, dtype=torch.uint8)
        return {**state, **params, "k": now.k, "key": key, "status": running}

    def _params(self, now: Measurement) -> Params | None:
        return now.p

    def step(
        self, h: Hidden, u: Float[Tensor, "n m"], dt: Float[Tensor, "n"] | None = None, w: Tensor | None = None
    ) -> Hidden:
        """See :class:`~steersman.dynamics.base.Dynamics`."""
        self.one_period(dt)
        k, x, p, status, key = _parts(h)
        alive = going(status) & (k < self.plant.horizon)
        proposed = self.plant.step(k, x, u, self.plant.disturbance(key, k), p)
        finite = tree_finite(proposed, len(k)) & tree_finite(u, len(k))
        x = tree_where(alive & finite, proposed, x)
        k = k + alive
        after = torch.where(finite, self.plant.status(k, x, p), int(Status.DIVERGED)).to(torch.uint8)
        state = {"x": x} if isinstance(x, Tensor) else {f"x.{name}": leaf for name, leaf in x.items()}
        params = {f"p.{name}": value for name, value in p.items()}
        return {**state, **params, "k": k, "key": key, "status": torch.where(alive, after, status)}

    def output(self, h: Hidden) -> tuple[Float[Tensor, "n ny"], Float[Tensor, "n nz"]]:
        """True measured and performance outputs of the predicted state."""
        k, x, p, _, _ = _parts(h)
        return self.plant.measure(k, x, p), self.plant.perform(k, x, p)

    def violation(self, h: Hidden, u: Float[Tensor, "n m"]) -> Float[Tensor, "n"]:
        """Sum of the violated soft constraints."""
        k, x, p, _, _ = _parts(h)
        return torch.relu(self.plant.constraints(k, x, u, p)).sum(dim=1)

    def failing(self, h: Hidden) -> Bool[Tensor, "n"]:
        """Rows that have ended by failure."""
        return failed(_parts(h)[3])

    def reached(self, h: Hidden) -> Bool[Tensor, "n"]:
        """Rows that have ended at their goal, or by an end that is neither good nor bad."""
        return _parts(h)[3] >= int(Status.REACHED)

    def in_training(self) -> Dynamics:
        """With all that is still to come: what policies are to cope with must happen to them."""
        return Hindsight(self.plant, self.seed)

    def branch(self, h: Hidden, count: int) -> Hidden:
        """Copies of each row with disturbances of their own; one copy keeps those that the row has."""
        copies = super().branch(h, count)
        assert isinstance(copies, dict)  # noqa: S101 - narrows the type
        if count == 1:
            return copies
        key = copies["key"]
        index = torch.arange(count, device=key.device).repeat(len(key) // count)
        return {**copies, "key": noise.fold(key, index)}

    def _keys(self, y: Float[Tensor, "n ny"]) -> Int64[Tensor, "n"]:
        key = noise.fold(noise.keys(self.seed, 1, device=y.device), _STREAM).expand(y.shape[0])
        words = (y.detach().to(torch.float64) + 0.0).contiguous().view(torch.int64)
        for column in words.unbind(dim=1):
            key = noise.fold(key, column)
        return key


class Hindsight(PlantModel):
    """The plant with all parameters of the episode, events that are still to come included: a bound, not a rival."""

    needs_future = True

    def _params(self, now: Measurement) -> Params | None:
        return now.hindsight


def _parts(h: Hidden) -> tuple[Tensor, State, Params, Tensor, Tensor]:
    """Control step, state, parameters, status and key of a hidden state."""
    assert isinstance(h, dict)  # noqa: S101 - narrows the type
    x: State = h["x"] if "x" in h else {name[2:]: leaf for name, leaf in h.items() if name.startswith("x.")}
    p = {name[2:]: value for name, value in h.items() if name.startswith("p.")}
    return h["k"], x, p, h["status"], h["key"]
