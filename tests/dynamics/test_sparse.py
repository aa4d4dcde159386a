"""Sparse networks: the budget of ReLUs is kept, the encoder's form is the same model, accuracy beats a linear model."""

import pytest
import torch
from dynamics_test_plants import Oscillator

from steersman.dynamics.base import Trajectories
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.score import score
from steersman.dynamics.windowed.relu import Kind
from steersman.dynamics.windowed.sparse import SparseNeuralDynamics, SparseSettings
from steersman.dynamics.windowed.windows import starts, window_at
from steersman.envs import make_simulator
from steersman.envs.simulator import PlantSimulator

QUICK = {"dense_steps": 60, "round_steps": 30, "tune_steps": 60, "hidden": (12, 12)}


@pytest.fixture(scope="module")
def data() -> Trajectories:
    return collect(PlantSimulator(Oscillator(), 6), HeldLevels(), episodes=12, seed=1)


@pytest.mark.parametrize("relus", [0, 1, 7, 24])
def test_the_budget_of_relus_is_kept(data: Trajectories, relus: int) -> None:
    model = SparseNeuralDynamics(SparseSettings(relus=relus, **QUICK)).fit(data)  # type: ignore[arg-type]
    kinds = torch.cat([model.kind_0_, model.kind_1_])
    assert int((kinds == Kind.RELU).sum()) == relus
    assert model.relu_system().relus <= relus


@pytest.mark.parametrize(("relus", "context"), [(0, 1), (3, 2), (7, 3)])
def test_the_encoders_form_is_the_same_model(data: Trajectories, relus: int, context: int) -> None:
    settings = SparseSettings(relus=relus, context=context, **QUICK)  # type: ignore[arg-type]
    model = SparseNeuralDynamics(settings).bind(Oscillator().problem).fit(data)
    system = model.relu_system()
    window = window_at(data, starts(data.valid, context, 1)[:20], context)
    h, gen = model.init(window), torch.Generator().manual_seed(0)
    s = torch.cat([window.y[..., model.kept_].flatten(1), window.u.flatten(1)], dim=1)
    for _ in range(4):
        u = torch.randn(20, 1, generator=gen, dtype=torch.float64)
        h, s = model.step(h, u), system.step(s, u)
        y, z = model.output(h)
        now = s[:, (context - 1) * system.nk : context * system.nk]
        torch.testing.assert_close(now, y[:, model.kept_], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(system.perform(s), z, rtol=1e-9, atol=1e-9)


def test_severed_layers_leave_a_linear_model(data: Trajectories) -> None:
    model = SparseNeuralDynamics(SparseSettings(relus=3, **QUICK)).fit(data)  # type: ignore[arg-type]
    model.kind_0_.fill_(int(Kind.ZERO))
    model.kind_1_.fill_(int(Kind.IDENTITY))
    system = model.relu_system()
    window = window_at(data, starts(data.valid, 2, 1)[:5], 2)
    s = torch.cat([window.y.flatten(1), window.u.flatten(1)], dim=1)
    u = torch.ones(5, 1, dtype=torch.float64)
    assert not system.layers
    after = model.output(model.step(model.init(window), u))[0]
    torch.testing.assert_close(system.next_output(s, u), after[:, model.kept_], rtol=1e-9, atol=1e-9)


def test_sixteen_relus_beat_a_linear_model() -> None:
    sim = make_simulator("steersman/Pendulum-v1", 32)
    train, test = (collect(sim, HeldLevels(), episodes=64, seed=i) for i in (0, 1))
    sparse = SparseNeuralDynamics(SparseSettings(relus=16)).bind(sim.problem).fit(train)
    linear = LinearDynamics(context=2).bind(sim.problem).fit(train)
    few, none = (score(model, test, 10).z.square().mean() for model in (sparse, linear))
    assert float(few) < 0.6 * float(none), "mean squared errors of ten steps"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"relus": 65}, "0..64"),
        ({"hidden": ()}, "at least one"),
        ({"rate": 0.0}, "rate"),
        ({"sparsity": -1.0}, "at least 0"),
    ],
)
def test_bad_settings(bad: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseSettings(**bad)  # type: ignore[arg-type]
