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
        return {"gain": torch.full((len(key),), 1.5, dtype=self.dtype, device=key.device)}

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


class InvertedPendulum(Plant):
    """A pole on a cart that a force balances; all four states are measured, and the episode ends at 0.2 rad.

    The cart weighs 1 kg, the pole 0.1 kg; in a control step of 0.04 s its fall grows 1.19-fold. Classical Runge-Kutta,
    four steps in a control step.
    """

    gradient = "exact"

    def __init__(self, half_length: float = 0.417) -> None:
        self.dt, self.hold, self.horizon = 0.01, 4, 100
        self.half_length = half_length
        self.actions = ActionSet((-3.0,), (3.0,))
        self.objective = Objective(
            (Quadratic(name="z", on="z", weights=(0.1, 1.0)), Quadratic(name="u", on="u", weights=(1e-3,)))
        )
        self.measured, self.performed = ("position", "angle", "speed", "rate"), ("position", "angle")

    def params(self, key: Tensor) -> dict[str, Tensor]:
        return {}

    def initial(self, key: Tensor, p: dict[str, Tensor]) -> Tensor:
        return 0.05 * noise.normal(key, 4, dtype=self.dtype).clamp(-2, 2)

    def slope(self, x: Tensor, u: Tensor) -> Tensor:
        _, angle, speed, rate = x.unbind(1)
        push = (u[:, 0] + 0.1 * self.half_length * rate.square() * angle.sin()) / 1.1
        turn = (9.81 * angle.sin() - angle.cos() * push) / (
            self.half_length * (4 / 3 - 0.1 * angle.cos().square() / 1.1)
        )
        drive = push - 0.1 * self.half_length * turn * angle.cos() / 1.1
        return torch.stack([speed, rate, drive, turn], dim=1)

    def step(self, k: Tensor, x, u: Tensor, w: Tensor, p: dict[str, Tensor]):  # type: ignore[no-untyped-def]
        for _ in range(self.hold):
            a = self.slope(x, u)
            b = self.slope(x + self.dt / 2 * a, u)
            c = self.slope(x + self.dt / 2 * b, u)
            d = self.slope(x + self.dt * c, u)
            x = x + self.dt / 6 * (a + 2 * b + 2 * c + d)
        return x

    def measure(self, k: Tensor, x, p: dict[str, Tensor]) -> Tensor:  # type: ignore[no-untyped-def]
        return x

    def perform(self, k: Tensor, x, p: dict[str, Tensor]) -> Tensor:  # type: ignore[no-untyped-def]
        return x[:, :2]

    def status(self, k: Tensor, x, p: dict[str, Tensor]) -> Tensor:  # type: ignore[no-untyped-def]
        return (2 * (x[:, 1].abs() > 0.2)).to(torch.uint8)
