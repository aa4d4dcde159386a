"""Kinetic surrogates: known rates are recovered, moments agree with simulation, bad processes are named."""

import numpy as np
import pytest
import torch
from torch import Tensor

from steersman.dynamics.base import Trajectories
from steersman.dynamics.collect import HeldLevels, collect, collect_means
from steersman.dynamics.estimation.base import Windows
from steersman.dynamics.kinetic.reactions import Process, ReactionDynamics, ReactionSettings
from steersman.dynamics.score import score
from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.plant import Plant
from steersman.envs.simulator import PlantSimulator

GROW, EAT, DIE, HARVEST = 0.5, 0.02, 0.4, 1.0
PREDATION = (
    Process(("prey",), {"prey": 1}),
    Process(("prey", "hunters"), {"prey": -1, "hunters": 1}),
    Process(("hunters",), {"hunters": -1}),
    Process(("harvest", "prey"), {"prey": -1}),
)


class Predation(Plant):
    """Lotka-Volterra with harvest, by small Euler steps; z is a sum of the two."""

    def __init__(self) -> None:
        self.dt, self.hold, self.horizon, self.gradient = 0.002, 50, 80, "exact"
        self.actions = ActionSet((0.0,), (0.5,), names=("harvest",))
        self.objective = Objective((Quadratic(name="z", on="z", weights=(1.0,)),))
        self.measured, self.performed = ("prey", "hunters"), ("all",)

    def params(self, key: Tensor) -> dict[str, Tensor]:
        return {}

    def initial(self, key: Tensor, p: dict[str, Tensor]) -> Tensor:
        return 10 + 30 * noise.uniform(key, 2)

    def step(self, k: Tensor, x: Tensor, u: Tensor, w: Tensor, p: dict[str, Tensor]) -> Tensor:
        for _ in range(self.hold):
            prey, hunters = x.unbind(1)
            eaten = EAT * prey * hunters
            x = x + self.dt * torch.stack([GROW * prey - eaten - HARVEST * u[:, 0] * prey, eaten - DIE * hunters], 1)
        return x

    def measure(self, k: Tensor, x: Tensor, p: dict[str, Tensor]) -> Tensor:
        return x

    def perform(self, k: Tensor, x: Tensor, p: dict[str, Tensor]) -> Tensor:
        return x.sum(1, keepdim=True) + 1

    def status(self, k: Tensor, x: Tensor, p: dict[str, Tensor]) -> Tensor:
        return torch.zeros(len(k), dtype=torch.uint8)


@pytest.mark.parametrize("exponents", [False, True])
def test_known_rates_are_recovered(exponents: bool) -> None:
    simulator = PlantSimulator(Predation(), 16)
    data, test = (collect(simulator, HeldLevels(), episodes=16, seed=i) for i in (0, 1))
    settings = ReactionSettings(processes=PREDATION, exponents=exponents, steps=200)
    model = ReactionDynamics(settings).bind(simulator.problem).fit(data)
    constant = torch.exp(model.log_rate_) / model.scale_.pow(model.orders_).prod(dim=1)
    if exponents:
        want = torch.tensor([[1.0, 0], [1, 1], [0, 1], [1, 0]], dtype=torch.float64)
        assert float((model.orders_.detach() - want).abs().max()) < 0.1
    else:
        np.testing.assert_allclose(constant.detach().numpy(), [GROW, EAT, DIE, HARVEST], rtol=0.02)
    with torch.no_grad():
        assert float((score(model, test, 20).z / score(model, test, 20).z_persistence).max()) < 0.06


@pytest.mark.parametrize("rollout", [1, 3])
def test_each_step_of_a_rollout_teaches(rollout: int) -> None:
    """From wrong constants, gradients through rollouts of one step and of several find their way back."""
    simulator = PlantSimulator(Predation(), 8)
    data = collect(simulator, HeldLevels(), episodes=8, seed=0, steps=30)
    settings = ReactionSettings(processes=PREDATION, rollout=rollout, steps=150, rate=0.03)
    model = ReactionDynamics(settings).bind(simulator.problem)
    honest = model._estimate

    def wrong(kept: Tensor, data: Trajectories) -> None:
        honest(kept, data)
        with torch.no_grad():
            model.log_rate_ += 0.3

    model._estimate = wrong  # type: ignore[method-assign]
    model.fit(data)
    constant = torch.exp(model.log_rate_) / model.scale_.pow(model.orders_).prod(dim=1)
    np.testing.assert_allclose(constant.detach().numpy(), [GROW, EAT, DIE, HARVEST], rtol=0.06)


def birth_and_death(n: int, steps: int, gen: np.random.Generator) -> Trajectories:
    """Exact simulation (Gillespie 1977) of arrivals at 20 per time and deaths at 0.5 per head."""
    y = np.zeros((n, steps + 1, 1))
    for i in range(n):
        now, level, t = 0, 40.0, 0.0
        y[i, 0] = level
        while now < steps:
            total = 20 + 0.5 * level
            t += gen.exponential(1 / total)
            while now < steps and t > (now + 1) * 0.5:
                now += 1
                y[i, now] = level
            level += 1 if gen.random() < 20 / total else -1
    found = torch.from_numpy(y)
    return Trajectories(found, found, torch.zeros(n, steps, 1, dtype=torch.float64), torch.ones(n, steps).bool(), 0.5)


class Heads(Predation):
    """Names of the birth-and-death process."""

    def __init__(self) -> None:
        super().__init__()
        self.dt, self.hold, self.measured, self.performed = 0.5, 1, ("heads",), ("heads",)


def test_covariance_of_a_birth_and_death_process() -> None:
    """Started at its mean of 40, the variance at time t is 40 (1 - exp(-t))."""
    settings = ReactionSettings(processes=(Process((), {"heads": 1}), Process(("heads",), {"heads": -1})), steps=100)
    data = birth_and_death(200, 20, np.random.default_rng(0))
    model = ReactionDynamics(settings).bind(Heads().problem).fit(data)
    h = {"y": torch.full((1, 1), 40.0, dtype=torch.float64), "exogenous": torch.zeros(1, 0, dtype=torch.float64)}
    with torch.no_grad():
        mean, covariance = model.moments(h, torch.zeros(1, 8, 1, dtype=torch.float64))
    t = 0.5 * torch.arange(1, 9)
    torch.testing.assert_close(mean[0, :, 0], torch.full((8,), 40.0, dtype=torch.float64), rtol=0.03, atol=0)
    want = 40 * (1 - torch.exp(-t.double()))
    torch.testing.assert_close(covariance[0, :, 0, 0], want, rtol=0.2, atol=0)


def test_means_over_replicas_under_equal_actions() -> None:
    simulator = PlantSimulator(Predation(), 5)
    found = collect_means(simulator, HeldLevels(), groups=3, seed=0, steps=7)
    assert tuple(found.y.shape) == (3, 8, 2) and bool(found.valid.all())
    assert not torch.equal(found.u[0], found.u[1])
    again = collect_means(simulator, HeldLevels(), groups=3, seed=0, steps=7)
    assert torch.equal(found.y, again.y)


def test_outputs_never_fall_below_zero() -> None:
    simulator = PlantSimulator(Predation(), 4)
    settings = ReactionSettings(processes=(Process((), {"prey": -1}), Process(("prey",), {"hunters": 1})), steps=0)
    model = ReactionDynamics(settings).bind(simulator.problem).fit(collect(simulator, HeldLevels(), episodes=4, seed=0))
    model.log_rate_.data[0] = 10.0
    simulator.reset(simulator.scenarios(noise.keys(0, 4)))
    h = model.step(model.init(Windows(1).push(simulator.measure())), torch.zeros(4, 1, dtype=torch.float64))
    assert bool((model.output(h)[0] >= 0).all())


@pytest.mark.parametrize(
    ("process", "message"),
    [(Process(("wolves",), {"prey": 1}), "names 'wolves'; known: prey"), (Process((), {"u0": 1}), "changes 'u0'")],
)
def test_bad_processes_are_named(process: Process, message: str) -> None:
    simulator = PlantSimulator(Predation(), 2)
    model = ReactionDynamics(ReactionSettings(processes=(process,))).bind(simulator.problem)
    with pytest.raises(ValueError, match=message):
        model.fit(collect(simulator, HeldLevels(), episodes=2, seed=0))
    with pytest.raises(RuntimeError, match="bind"):
        ReactionDynamics(ReactionSettings(processes=PREDATION)).fit(
            collect(simulator, HeldLevels(), episodes=2, seed=0)
        )
    with pytest.raises(ValueError, match="at least one process"):
        ReactionSettings(processes=())
