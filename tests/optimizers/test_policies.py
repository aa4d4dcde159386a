"""Populations of networks, and policies without gradients that a search can still train."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from steersman.optimizers.policies.base import Policy
from steersman.optimizers.policies.gru import GRUPolicy
from steersman.optimizers.policies.int8 import Int8Policy, integer_linear, power_of_two, to_int8
from steersman.optimizers.policies.mlp import MLPPolicy
from steersman.optimizers.policies.spiking import SpikingPolicy
from steersman.optimizers.polystep.frame import FrameStep
from steersman.optimizers.polystep.polystep import PolyStep
from steersman.optimizers.search import minimise
from steersman.optimizers.vectorise import SlowPopulationWarning, assign, flatten, population_forward, unflatten

KINDS: tuple[type[Policy], ...] = (MLPPolicy, GRUPolicy, Int8Policy, SpikingPolicy)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vectors_around(policy: nn.Module, pop: int) -> Tensor:
    vector = flatten(policy)
    return vector + 0.3 * torch.randn(pop, len(vector), generator=gen(1), dtype=vector.dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_policy_contract(kind: type[Policy]) -> None:
    policy = kind(3, 2, gen=gen())
    state = policy.initial_state(5)
    obs = torch.randn(5, 3, generator=gen(1), dtype=torch.float64)
    action, after = policy(obs, state)
    assert action.shape == (5, 2) and after.shape == state.shape == (5, policy.memory)
    assert torch.isfinite(action).all()
    assert torch.equal(policy(obs, state)[0], action)
    assert torch.equal(flatten(kind(3, 2, gen=gen())), flatten(policy))
    if policy.memory:
        assert not torch.equal(policy(obs, after)[1], after)
    single, _ = policy(obs[2:3], state[2:3])
    torch.testing.assert_close(single, action[2:3])
    with pytest.raises(ValueError, match="inputs"):
        kind(0, 2, gen=gen())
    assert kind(3, 2, gen=gen(), dtype=torch.float32).initial_state(1).dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_population_equals_loop(kind: type[Policy]) -> None:
    policy = kind(3, 2, gen=gen())
    vectors = vectors_around(policy, 4)
    obs = torch.randn(4, 5, 3, generator=gen(2), dtype=torch.float64)
    state = policy.initial_state(5).expand(4, 5, policy.memory)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        together = state
        for _ in range(3):
            action, together = population_forward(policy, vectors, obs, together)
    for i, vector in enumerate(vectors):
        member = kind(3, 2, gen=gen(9))
        assign(member, vector)
        own = state[i]
        for _ in range(3):
            alone, own = member(obs[i], own)
        torch.testing.assert_close(action[i], alone)
        torch.testing.assert_close(together[i], own)


def test_flatten_and_unflatten_invert_each_other() -> None:
    policy = MLPPolicy(3, 2, (4, 5), gen=gen())
    vector = flatten(policy)
    assert vector.shape == (3 * 4 + 4 + 4 * 5 + 5 + 5 * 2 + 2,)
    for name, value in unflatten(policy, vector).items():
        assert torch.equal(value, policy.get_parameter(name))
    assert unflatten(policy, vector.expand(7, -1))["layers.0.weight"].shape == (7, 4, 3)
    with pytest.raises(ValueError, match="entries"):
        unflatten(policy, vector[:-1])
    with pytest.raises(ValueError, match="no parameters"):
        flatten(nn.ReLU())


class Branching(nn.Module):
    """Control flow on data, which vmap rejects."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale if bool(x.sum() > 0) else -x


def test_rejected_module_runs_in_a_loop_with_one_notice() -> None:
    module = Branching()
    vectors = torch.tensor([[2.0], [3.0]])
    inputs = torch.tensor([[[1.0]], [[-1.0]]])
    with pytest.warns(SlowPopulationWarning, match="Branching"):
        out = population_forward(module, vectors, inputs)
    assert out.flatten().tolist() == [2.0, 1.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(population_forward(module, vectors, inputs), out)


def test_population_and_inputs_must_match() -> None:
    policy = MLPPolicy(3, 2, gen=gen())
    with pytest.raises(ValueError, match="expand"):
        population_forward(policy, vectors_around(policy, 4), torch.zeros(3, 1, 3, dtype=torch.float64))


def test_int8_is_integer_arithmetic() -> None:
    """The same numbers from int64 tensors, and scales that are powers of two."""
    for dtype, fan_in in ((torch.float32, 900), (torch.float32, 2000), (torch.float64, 2000)):
        draw = 60 * torch.randn(10, fan_in, generator=gen(), dtype=dtype)
        x, w = to_int8(draw), to_int8(draw.flip(0) * 1.7)
        bias = torch.round(1e6 * draw[:, 0])
        exact = x.long() @ w.long().T + bias.long()
        assert torch.equal(integer_linear(x, w, bias).long(), exact)
    scale = power_of_two(torch.tensor([0.3, 0.5, 5.0]))
    assert scale.tolist() == [0.5, 0.5, 8.0]


def test_int8_weights_have_at_most_255_values() -> None:
    policy = Int8Policy(3, 1, (), gen=gen())
    assign(policy, torch.tensor([0.5, -0.251, 0.1, 0.0], dtype=torch.float64))
    unit = torch.eye(3, dtype=torch.float64)
    # max |w| / 127 = 0.0039.., so the grid of weights is 2^-7, and that of inputs 2^-4 (4 / 127 = 0.031..).
    grid = 2.0**-7
    assert policy.grid == 2.0**-4
    expected = torch.round(torch.tensor([0.5, -0.251, 0.1], dtype=torch.float64) / grid) * grid
    torch.testing.assert_close(policy(unit, policy.initial_state(3))[0].flatten(), expected)


def test_gradients_vanish() -> None:
    obs = torch.randn(5, 3, generator=gen(1), dtype=torch.float64)
    policy = Int8Policy(3, 2, gen=gen())
    grads = torch.autograd.grad(policy(obs, policy.initial_state(5))[0].sum(), list(policy.parameters()))
    assert all((g == 0).all() for g in grads)
    spiking = SpikingPolicy(3, 2, gen=gen())
    assert not spiking(obs, spiking.initial_state(5))[0].requires_grad


def test_spiking_neuron_fires_at_its_rate() -> None:
    """Without leak a neuron driven by current c fires at rate c."""
    policy = SpikingPolicy(1, 1, (1,), ticks=100, pool=1, leak=1.0, gen=gen())
    # A drive of 0.3 to the hidden neuron; the pushing output copies it, the pulling one stays silent.
    assign(policy, torch.tensor([0.3, 0.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64))
    action, state = policy(torch.ones(1, 1, dtype=torch.float64), policy.initial_state(1))
    assert float(action) == pytest.approx(0.3, abs=0.011)
    assert state.shape == (1, 3) and (state[:, 0] < 1).all()


def ring(n: int) -> tuple[Tensor, Tensor]:
    """Inside or outside of a ring: not linearly separable."""
    x = 3 * torch.rand(n, 2, generator=gen(3), dtype=torch.float64) - 1.5
    return x, torch.where(x.square().sum(1) < 1, 1.0, -1.0)


@pytest.mark.parametrize("make_search", [PolyStep, FrameStep])
@pytest.mark.parametrize("kind", [Int8Policy, SpikingPolicy])
def test_polystep_trains_what_has_no_gradient(kind: type[Policy], make_search: Callable[[], PolyStep]) -> None:
    policy = kind(2, 1, (12,), gen=gen(), dtype=torch.float32)
    x, label = ring(128)
    x, label = x.float(), label.float()

    def evaluate(vectors: Tensor, generation: int) -> Tensor:
        pop = len(vectors)
        state = policy.initial_state(len(x)).expand(pop, -1, -1)
        action, _ = population_forward(policy, vectors, x.expand(pop, -1, -1), state)
        return (action[..., 0].clamp(-1, 1) - label).square().mean(1).double()

    first = float(evaluate(flatten(policy)[None], 0))
    search = make_search().start(flatten(policy), seed=0)
    result = minimise(search, evaluate, budget_evaluations=20_000, target=0.3)
    assert result.best is not None
    assert result.best.cost < 0.6 * min(first, 1.0)
