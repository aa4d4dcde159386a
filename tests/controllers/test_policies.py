"""Trained policies: through a model, through the plant, and without gradients."""

from pathlib import Path

import pytest
import torch
from dynamics_test_plants import Oscillator
from torch import Tensor, nn

from steersman.controllers.base import Controller, Training, TrainingCost
from steersman.controllers.neural.controller import NeuralPolicy
from steersman.controllers.neural.informed import PlantRollouts
from steersman.controllers.policy_search import PolicySearch
from steersman.controllers.reinforcement.budget import EvenPPO
from steersman.controllers.reinforcement.dqn import DQN
from steersman.controllers.reinforcement.ppo import PPO
from steersman.controllers.reinforcement.sac import SAC
from steersman.controllers.rollout import run_episodes
from steersman.dynamics.base import Dynamics
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.truth.plant_model import PlantModel
from steersman.envs import make_plant, noise
from steersman.envs.abm.wolf_sheep import WolfSheep
from steersman.envs.simulator import PlantSimulator, Transition
from steersman.optimizers.policies.base import Policy
from steersman.optimizers.policies.registry import POLICIES
from steersman.optimizers.vectorise import SlowPopulationWarning

VERDICT = (1 + 5) * 8 * 60


def simulate(n: int) -> PlantSimulator:
    return PlantSimulator(Oscillator(), n)


def cost(controller: Controller | None, n: int = 16) -> float:
    sim = simulate(n)
    scenarios = sim.scenarios(noise.keys(99, n))
    if controller is None:
        return float(run_episodes(sim, scenarios, lambda m: torch.zeros(n, 1, dtype=torch.float64)).cost.mean())
    controller.reset(n)
    return float(run_episodes(sim, scenarios, lambda m: controller.act(m).u).cost.mean())


def trained(controller: Controller, model: Dynamics | None = None, seed: int = 0) -> TrainingCost:
    controller.bind(Oscillator().problem, model)
    spent = controller.train(Training(simulate, seed))
    assert spent.plant_steps > 0 and spent.cpu_seconds > 0
    return spent


@pytest.mark.parametrize("policy", ["mlp", "gru"])
def test_trained_through_the_plant(policy: str) -> None:
    controller = NeuralPolicy(policy, hidden=(8,), steps=80, batch=16, rate=1e-2, horizon=12, explore=4)  # type: ignore[arg-type]
    trained(controller, PlantModel(Oscillator()))
    assert controller.track == "solver access"
    assert cost(controller) < 0.7 * cost(None)


def test_trained_through_a_learned_model() -> None:
    model = LinearDynamics(1).bind(Oscillator().problem).fit(collect(simulate(8), HeldLevels(), episodes=8, seed=0))
    controller = NeuralPolicy(hidden=(8,), steps=80, batch=16, rate=1e-2, horizon=12, explore=4)
    spent = trained(controller, model)
    # normalisation, exploration, four renewals, and the verdict over the policy and five constants
    assert controller.track == "data only" and spent.plant_steps == (1 + 1 + 4) * 4 * 60 + VERDICT
    assert controller.notes == ("the model was not fitted again under the policy: nobody knows its data",)
    steps, costs = zip(*spent.curve, strict=True)
    assert steps == tuple(i * 4 * 60 for i in (2, 3, 4, 5, 6)) and costs[-1] < 0.7 * costs[0]
    assert cost(controller) < 0.7 * cost(None)


def test_same_seed_same_policy_and_exact_count_of_plant_steps() -> None:
    def weights(seed: int) -> dict[str, Tensor]:
        controller = NeuralPolicy(hidden=(4,), steps=4, batch=4, horizon=4, curriculum=False, explore=2, renewals=1)
        # exploration, two sets of starts, four gradient steps and four validations
        spent = trained(controller, PlantModel(Oscillator()), seed)
        assert spent.plant_steps == 3 * 2 * 60 + (4 + 4) * 4 * 4 + VERDICT
        return controller.state_dict()

    a, b, c = weights(0), weights(0), weights(1)
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)
    assert not torch.allclose(a["policy.layers.0.weight"], c["policy.layers.0.weight"])


def test_a_plant_without_gradient_is_refused() -> None:
    plant = make_plant("steersman/WolfSheep-v1")
    with pytest.raises(ValueError, match="no gradient; train through a learned model"):
        NeuralPolicy().bind(plant.problem, PlantModel(plant))
    with pytest.raises(ValueError, match="trained through a model"):
        NeuralPolicy().bind(plant.problem)


@pytest.mark.parametrize(
    ("search", "policy"), [("cma_es", "mlp"), ("polystep", "spiking"), ("openai_es", "int8"), ("random", "gru")]
)
def test_search_improves_on_doing_nothing(search: str, policy: str) -> None:
    controller = PolicySearch(search, policy, hidden=(4,), plant_steps=150_000, scenarios=4, explore=4)  # type: ignore[arg-type]
    trained(controller)
    assert cost(controller) < 0.9 * cost(None)


@pytest.mark.parametrize("kind", POLICIES, ids=lambda kind: kind.name)
def test_every_policy_controls_and_starts_afresh(kind: type[Policy]) -> None:
    controller = PolicySearch(policy=kind.name, hidden=(4,)).bind(Oscillator().problem)
    simulator = simulate(3)
    simulator.reset(simulator.scenarios(noise.keys(0, 3)))
    measurement = simulator.measure()
    controller.reset(3)
    first = controller.act(measurement).u
    assert first.shape == (3, 1) and torch.isfinite(first).all()
    going = controller.act(measurement).u
    controller.reset(3, torch.tensor([True, False, False]))
    assert torch.equal(controller.act(measurement).u[0], first[0])
    assert torch.equal(going, first) or kind.name in ("gru", "spiking")
    other = PolicySearch(policy=kind.name, hidden=(4,)).bind(Oscillator().problem)
    other.load_state_dict(controller.state_dict())
    other.reset(3)
    assert torch.equal(other.act(measurement).u, first)


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown policy 'forest'; known: mlp, .*; or module:Name of your own"):
        PolicySearch(policy="forest")


def test_budget_is_not_exceeded_and_covers_a_generation() -> None:
    spent = trained(PolicySearch(hidden=(2,), plant_steps=10_000, scenarios=1, explore=2))
    assert 8_000 < spent.plant_steps - VERDICT <= 10_000
    with pytest.raises(ValueError, match="does not cover one generation; it takes"):
        PolicySearch(plant_steps=500).bind(Oscillator().problem)
    with pytest.raises(ValueError, match="no setting"):
        PolicySearch(options={"sygma": 1.0})


def test_search_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    def weights(folder: Path | None, plant_steps: int) -> Tensor:
        controller = PolicySearch(hidden=(2,), plant_steps=plant_steps, scenarios=1, explore=2).bind(
            Oscillator().problem
        )
        controller.train(Training(simulate, 0, folder))
        return controller.state_dict()["policy.layers.0.weight"]

    whole = weights(None, 12_000)
    weights(tmp_path, 8_000)
    assert torch.equal(weights(tmp_path, 12_000), whole)


def test_a_module_of_the_users_own_without_memory_and_one_that_vmap_rejects() -> None:
    class Sign(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.zeros(3, 1, dtype=torch.float64))

        def forward(self, obs: Tensor) -> Tensor:
            if float(obs.abs().sum()) < 0:  # data-dependent control flow, which vmap cannot trace
                raise AssertionError
            return torch.sign(obs @ self.gain)

    controller = PolicySearch("random", plant_steps=4_000, scenarios=1, explore=2, module=Sign(), options={"size": 6})
    with pytest.warns(SlowPopulationWarning, match="Unremembering"):
        trained(controller)
    assert cost(controller) < float("inf")


@pytest.mark.parametrize(
    "controller",
    [
        PPO(plant_steps=24_000, envs=16, hidden=(16,), rate=3e-3),
        SAC(plant_steps=5_000, envs=16, hidden=(32,), rate=3e-3, updates=8, warmup=500),
    ],
    ids=lambda c: c.name,
)
def test_reinforcement_learning_improves_on_doing_nothing(controller: PPO | SAC) -> None:
    assert trained(controller).plant_steps - VERDICT == controller.plant_steps
    assert cost(controller) < 0.8 * cost(None)
    assert float((controller.state_dict()["std"] - 1).abs().max()) > 0.01, "the statistics of the training are kept"


@pytest.mark.parametrize(
    ("controller", "spent"),
    [
        (PPO(plant_steps=1_000, envs=32, hidden=(4,), rollout=16), 1_000),  # 25 copies
        (PPO(plant_steps=2, envs=32, hidden=(4,)), 2),
        (PPO(plant_steps=1_009, envs=32, hidden=(4,), rollout=16), 992),  # a prime number
        (SAC(plant_steps=250, envs=16, hidden=(4,), warmup=100), 250),  # 10 copies
    ],
    ids=lambda c: f"{c.name}-{c.plant_steps}" if isinstance(c, Controller) else "",
)
def test_reinforcement_learning_spends_its_budget_to_the_last_step(controller: PPO | SAC, spent: int) -> None:
    steps: list[int] = []

    class Counted(PlantSimulator):
        def step(self, u: Tensor) -> Transition:
            steps.append(self.n)
            return super().step(u)

    found = controller.bind(Oscillator().problem).train(Training(lambda n: Counted(Oscillator(), n), 0))
    assert found.plant_steps == sum(steps) == spent + VERDICT


def test_rollouts_and_mini_batches_are_equal_in_size() -> None:
    controller = PPO(plant_steps=1_300, envs=10, hidden=(4,), rollout=64, batch=100).bind(Oscillator().problem)
    sizes: list[tuple[int, int]] = []
    train = EvenPPO.train

    def noted(self: EvenPPO) -> None:
        sizes.append((self.rollout_buffer.buffer_size, self.batch_size))
        train(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EvenPPO, "train", noted)
        controller.train(Training(simulate, 0))
    assert sizes == [(44, 110), (43, 108), (43, 108)]  # 130 steps of 10 copies, four mini-batches each


def test_a_budget_without_a_gradient_step_is_refused() -> None:
    for kind in (SAC, DQN):
        with pytest.raises(ValueError, match="plant_steps=500 are over before anything is learnt from: warmup=500"):
            kind(plant_steps=500, warmup=500)


def test_reinforcement_learning_logs_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    controller = PPO(plant_steps=2_048, envs=8, hidden=(8,), rollout=32).bind(Oscillator().problem)
    controller.train(Training(simulate, 0, tmp_path))
    assert (tmp_path / "progress.csv").is_file() and list(tmp_path.glob("events.*"))
    longer = PPO(plant_steps=4_096, envs=8, hidden=(8,), rollout=32).bind(Oscillator().problem)
    heard: list[str] = []
    longer.train(Training(simulate, 0, tmp_path, lambda fraction, text: heard.append(text)))
    assert int(heard[0].split()[0].replace(",", "")) > 1_800, "it must not begin again"


def test_algorithms_name_the_plants_they_cannot_serve() -> None:
    brake, chaos = make_plant("steersman/TwoAreaBrake-v1"), make_plant("steersman/KuramotoSivashinskyUnbounded-v1")
    with pytest.raises(ValueError, match="use ppo or dqn"):
        SAC().bind(brake.problem)
    with pytest.raises(ValueError, match="use ppo or sac"):
        DQN().bind(Oscillator().problem)
    with pytest.raises(ValueError, match="finite action bounds"):
        PPO().bind(chaos.problem)


def test_a_policy_learns_on_the_plant_with_the_models_jacobians() -> None:
    """Stochastic value gradients: values of the plant, derivatives of a model fitted to data."""
    simulator = simulate(8)
    model = LinearDynamics(context=2).bind(simulator.problem)
    data = collect(simulator, HeldLevels(), episodes=16, seed=3)
    controller = NeuralPolicy(hidden=(8,), steps=60, batch=16, horizon=10, explore=4, rollouts="plant", rate=1e-2)
    price = trained(controller, model.fit(data))
    assert cost(controller) < 0.5 * cost(None)
    assert controller.track == "data only" and price.plant_steps > 60 * 16 * 5
    with pytest.raises(ValueError, match="needs a learned model"):
        NeuralPolicy(rollouts="plant").bind(Oscillator().problem, PlantModel(Oscillator()))


def test_gradient_through_agents_agrees_with_finite_differences() -> None:
    """The estimator along real herds against central differences with common random numbers.

    A removal law with six parameters on 256 herds, four control steps of ten ticks. Measured cosine 0.99; the length is about half.
    """
    plant = WolfSheep(horizon=20, warmup=60, rounding="binomial")
    simulator = PlantSimulator(plant, 48)
    data = collect(simulator, HeldLevels(shortest=2, longest=8), episodes=96, seed=0)
    controller = NeuralPolicy(hidden=(), rollouts="plant")
    controller.bind(plant.problem, LinearDynamics(context=3).bind(plant.problem).fit(data))
    theta = torch.tensor([0.02, 0.03, 0.01, 0.01, 0.01, 0.01], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([200.0, 60.0], dtype=torch.float64)

    def law(y: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        return theta[:2] + (y[:, :2] / scale - 1) @ theta[2:].reshape(2, 2), memory

    source = PlantRollouts(
        controller, law, lambda n: torch.zeros(n, 0), Training(lambda n: PlantSimulator(plant, n), 5), 256
    )
    scenarios = source.simulator.scenarios(noise.keys(17, 256))

    def segment() -> Tensor:
        source.begin(scenarios)
        return source.segment(4)

    (gradient,) = torch.autograd.grad(segment(), theta)
    differences = torch.zeros(6, dtype=torch.float64)
    with torch.no_grad():
        for i in range(6):
            ends = []
            for sign in (1, -1):
                theta[i] += sign * 0.01
                ends.append(float(segment()))
                theta[i] -= sign * 0.01
            differences[i] = (ends[0] - ends[1]) / 0.02
    cosine = float(torch.nn.functional.cosine_similarity(gradient, differences, dim=0))
    assert cosine > 0.9
    assert bool((gradient.abs() < differences.abs() * 1.5 + 0.1).all()), "shorter than the true gradient, not longer"
