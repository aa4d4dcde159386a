"""Mixed-integer MPC sheds the cheapest blocks of load that keep the frequency above 59.5 Hz."""

import itertools

import pytest
import torch
from torch import Tensor

from steersman.controllers.mip.controller import MixedIntegerMPC
from steersman.controllers.rollout import run_episodes
from steersman.dynamics.truth.operating_point import linearized
from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.checks import check_plant
from steersman.envs.objective import Linear, Objective, PiecewiseLinear
from steersman.envs.plant import Plant
from steersman.envs.simulator import PlantSimulator

BLOCKS = (0.05, 0.08, 0.12)
PRICES = (1.0, 1.5, 2.6)
FLOOR = -0.5


class Shedding(Plant):
    """Frequency of one area after generation is lost (Anderson, Mirheydar, IEEE Trans. Power Systems 5, 1990).

    ``2 H s' = Pm - D s - lost + shed`` and a governor with a reheat turbine behind it; state: frequency deviation
    in Hz, slow and fast part of the turbine in pu, power lost, power shed. A block once shed stays shed: closing it
    costs more than it could save.
    """

    H, D, R, REHEAT, SHARE = 4.0, 1.0, 0.05, 8.0, 0.3

    def __init__(self, lost: float = 0.2) -> None:
        self.dt, self.hold, self.horizon, self.gradient = 0.05, 10, 10, "exact"
        self.lost = lost
        names = tuple(f"block {i}" for i in range(3))
        self.actions = ActionSet((0.0,) * 3, (1.0,) * 3, (True,) * 3, names=names)
        back = tuple(
            PiecewiseLinear(name=f"reclosing {i}", on="du", index=i, points=((-1.0, 1e3), (0.0, 0.0), (1.0, 0.0)))
            for i in range(3)
        )
        low = PiecewiseLinear(name="low", on="z", index=0, points=((FLOOR - 1, 1e4), (FLOOR, 0.0), (FLOOR + 1, 0.0)))
        self.objective = Objective((Linear(name="shed", on="u", weights=PRICES), low, *back))
        self.measured = self.performed = ("frequency", "slow", "fast", "lost", "shed")

    def params(self, key: Tensor) -> dict[str, Tensor]:
        return {}

    def initial(self, key: Tensor, p: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        x = torch.zeros(len(key), 5, dtype=torch.float64)
        x[:, 3] = self.lost
        return x

    def step(self, k: Tensor, x: Tensor, u: Tensor, w: Tensor, p: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        shed = u @ torch.tensor(BLOCKS, dtype=u.dtype)
        for _ in range(self.hold):
            speed = x[:, 0] / 60
            order = -speed / self.R
            power = self.SHARE * x[:, 2] + (1 - self.SHARE) * x[:, 1]
            rate = torch.stack(
                [
                    60 * (power - self.D * speed - x[:, 3] + shed) / (2 * self.H),
                    (order - x[:, 1]) / self.REHEAT,
                    (order - x[:, 2]) / 0.2,
                ],
                dim=1,
            )
            x = torch.cat([x[:, :3] + self.dt * rate, x[:, 3:4], shed[:, None]], dim=1)
        return x

    def measure(self, k: Tensor, x: Tensor, p: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return x


def enumerated(plant: Shedding) -> tuple[float, float]:
    """Least cost over all times at which each block is shed, or never, and the lowest frequency of that plan."""
    times = torch.tensor(list(itertools.product(range(plant.horizon + 1), repeat=3)))
    n = len(times)
    simulator = PlantSimulator(plant, n)
    scenarios = simulator.scenarios(noise.keys(0, 1)).repeat(n)
    step = itertools.count()
    episode = run_episodes(simulator, scenarios, lambda m: (next(step) >= times).double())
    best = int(episode.cost.argmin())
    return float(episode.cost[best]), lowest(plant, (torch.arange(plant.horizon)[:, None] >= times[best]).double())


def lowest(plant: Shedding, U: Tensor) -> float:
    x = plant.initial(noise.keys(0, 1), {})
    seen = []
    for u in U:
        x = plant.step(torch.zeros(1), x, u[None], torch.zeros(1), {})
        seen.append(float(x[0, 0]))
    return min(seen)


def test_contract() -> None:
    check_plant(Shedding(), steps=3)


@pytest.mark.parametrize("lost", [0.1, 0.2, 0.3])
def test_sheds_what_enumeration_sheds(lost: float) -> None:
    plant = Shedding(lost)
    least, floor = enumerated(plant)
    simulator = PlantSimulator(plant, 1)
    controller = MixedIntegerMPC(horizon=plant.horizon, samples=0, time_limit=60.0).bind(
        plant.problem, linearized(plant)
    )
    controller.reset(1, gen=torch.Generator().manual_seed(0))
    U: list[Tensor] = []

    def act(m: object) -> Tensor:
        U.append(controller.act(m).u)  # type: ignore[arg-type]
        return U[-1]

    episode = run_episodes(simulator, simulator.scenarios(noise.keys(0, 1)), act)
    plan = torch.cat(U)
    assert float(episode.cost) == pytest.approx(least, rel=1e-4)
    assert lowest(plant, plan) >= FLOOR - 1e-6 and floor >= FLOOR - 1e-6
    assert (plan.diff(dim=0) >= 0).all()
    assert bool(plan.any()) == (lowest(plant, torch.zeros_like(plan)) < FLOOR)
