"""One episode of one controller: what a failure costs is known before anything is planned or trained."""

from typing import Any

import torch
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.plant import Plant, Status
from steersman.envs.simulator import PlantSimulator
from steersman.experiments.simulate import simulate


class Glass(Plant):
    """A level in 1 .. 2 that costs its square in each of ten steps; an action of 1 breaks it, and empties it."""

    def __init__(self) -> None:
        self.dt, self.hold, self.horizon, self.gradient = 1.0, 1, 10, "exact"
        self.actions = ActionSet((0.0,), (1.0,), (True,))
        self.objective = Objective((Quadratic(name="level", on="z", weights=(1.0,)),))
        self.measured = self.performed = ("level",)

    def params(self, key: Tensor) -> dict[str, Tensor]:
        return {}

    def initial(self, key: Tensor, p: dict[str, Tensor]) -> Tensor:
        return 1.0 + noise.uniform(key, 1, dtype=self.dtype)

    def step(self, k: Tensor, x: Any, u: Tensor, w: Tensor, p: dict[str, Tensor]) -> Tensor:
        return torch.where(u >= 1.0, 0.0, x)

    def measure(self, k: Tensor, x: Any, p: dict[str, Tensor]) -> Tensor:
        return x

    def status(self, k: Tensor, x: Any, p: dict[str, Tensor]) -> Tensor:
        return ((x[:, 0] == 0.0) * int(Status.TERMINATED)).to(torch.uint8)


def test_planners_know_what_a_failure_costs_though_the_plant_does_not_say() -> None:
    start = PlantSimulator(Glass(), 1).scenarios(noise.keys(0, 1)).x0
    assert isinstance(start, Tensor)
    found = simulate(f"{__name__}:Glass", "enumeration", settings={"length": 3})
    assert (found.status, found.steps) == ("OK", 10), "to break it would cost more than to keep it"
    assert abs(found.cost - 10 * float(start) ** 2) < 1e-12
