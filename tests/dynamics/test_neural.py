import torch

from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.score import score
from steersman.dynamics.windowed.neural import NeuralDynamics
from steersman.envs import make_simulator


def test_neural_model_beats_persistence_on_new_episodes() -> None:
    sim = make_simulator("steersman/Pendulum-v1", 32)
    model = NeuralDynamics().bind(sim.problem).fit(collect(sim, HeldLevels(), episodes=32, seed=0))
    result = score(model, collect(sim, HeldLevels(), episodes=16, seed=1), 5)
    assert torch.isfinite(result.z).all()
    assert bool((result.z < 0.5 * result.z_persistence).all())
