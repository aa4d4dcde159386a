"""Small plants for the tests of models."""

import torch
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.plant import Plant


class Oscillator(Plant):
    """A damped oscillator with a force, an exogenous clock in y, z = (2 position - 1, speed) and a dict state."""

    def __init__(self, noise_level: float = 0.0, limit: float = float("inf"), gradient: str = "exact") -> None:
        self.dt, self.hold, self.horizon = 0.1, 1, 60
        self.gradient = gradient  # type: ignore[assignment]
        self.actions = ActionSet((-1.0,), (1.0,))
        self.objective = Objective((Quadratic(name="q", on="z", weights=(1.0, 1.0)),))
        self.measured, self.performed, self.exogenous = ("clock", "q", "v"), ("q2", "v"), (0,)
        self.noise_level, self.limit = noise_level, limit

    def params(self, key: Tensor) -> dict[str, Tensor]:
        return {"gain": torch.full((len(key),), 1.5, dtype=self.dtype)}

    def initial(self, key: Tensor, p: dict[str, Tensor]) -> dict[str, Tensor]:
        q, v = noise.normal(key, 2, dtype=self.dtype).clamp(-1.2, 1.2).unbind(1)
        return {"q": q, "v": v}

    def step(self, k: Tensor, x, u: Tensor, w: Tensor, p: dict[str, Tensor]):  # type: ignore[no-untyped-def]
        v = x["v"] + self.dt * (-x["q"] - 0.3 * x["v"] + p["gain"] * u[:, 0] + 0.1)
        v = v + self.noise_level * noise.normal(w, dtype=self.dtype)
        return {"q": x["q"] + self.dt * v, "v": v}

    def measure(self, k: Tensor, x, p: dict[str, Tensor]) -> Tensor:  # type: ignore[no-untyped-def]
        return torch.stack([k * self.dt, x["q"], x["v"]], dim=1).to(self.dtype)

    def perform(self, k: Tensor, x, p: dict[str, Tensor]) -> Tensor:  # type: ignore[no-untyped-def]
        return torch.stack([2 * x["q"] - 1, x["v"]], dim=1)

    def status(self, k: Tensor, x, p: dict[str, Tensor]) -> Tensor:  # type: ignore[no-untyped-def]
        return (2 * (x["q"].abs() > self.limit)).to(torch.uint8)
