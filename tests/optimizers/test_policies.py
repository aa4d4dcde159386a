"""Populations of networks, and policies without gradients that a search can still train."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call, vmap

from steersman.optimizers.policies.attention import AttentionPolicy
from steersman.optimizers.policies.base import Policy
from steersman.optimizers.policies.binary import BinaryPolicy, quantisation_error
from steersman.optimizers.policies.binary_activation import BinaryActivationPolicy
from steersman.optimizers.policies.experts import ExpertsPolicy
from steersman.optimizers.policies.int8 import Int8Policy, integer_linear, power_of_two, to_int8
from steersman.optimizers.policies.mlp import MLPPolicy
from steersman.optimizers.policies.registry import POLICIES, make_policy, policy_kind
from steersman.optimizers.policies.rules import RuleListPolicy
from steersman.optimizers.policies.spiking import SpikingPolicy
from steersman.optimizers.policies.staircase import StaircasePolicy
from steersman.optimizers.policies.table import TablePolicy
from steersman.optimizers.policies.ternary import TernaryPolicy
from steersman.optimizers.policies.tree import TreePolicy
from steersman.optimizers.polystep.frame import FrameStep
from steersman.optimizers.polystep.polystep import PolyStep
from steersman.optimizers.search import minimise
from steersman.optimizers.vectorise import (
    SlowPopulationWarning,
    assign,
    bind_population,
    flatten,
    population_forward,
    unflatten,
)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vectors_around(policy: nn.Module, pop: int) -> Tensor:
    vector = flatten(policy)
    return vector + 0.3 * torch.randn(pop, len(vector), generator=gen(1), dtype=vector.dtype)


ALL = pytest.mark.parametrize("kind", POLICIES, ids=lambda kind: kind.name)


def policy_of(kind: type[Policy], seed: int = 0, dtype: torch.dtype = torch.float64) -> Policy:
    return make_policy(kind.name, 3, 2, (8,), gen=gen(seed), dtype=dtype)


def dyadic(*shape: int, seed: int = 1) -> Tensor:
    """Multiples of 1/64, whose sums and products are exact in any order."""
    return torch.round(64 * torch.randn(*shape, generator=gen(seed), dtype=torch.float64)) / 64


@ALL
def test_policy_contract(kind: type[Policy]) -> None:
    policy = policy_of(kind)
    state = policy.initial_state(5)
    obs = torch.randn(5, 3, generator=gen(1), dtype=torch.float64)
    action, after = policy(obs, state)
    assert action.shape == (5, 2) and after.shape == state.shape == (5, policy.memory)
    assert torch.isfinite(action).all() and torch.isfinite(after).all()
    assert torch.equal(policy(obs, state)[0], action)
    assert torch.equal(flatten(policy_of(kind)), flatten(policy))
    assert not torch.equal(flatten(policy_of(kind, 1)), flatten(policy))
    single, _ = policy(obs[2:3], state[2:3])
    torch.testing.assert_close(single, action[2:3])
    with pytest.raises(ValueError, match="inputs"):
        make_policy(kind.name, 0, 2, (8,), gen=gen())
    half = policy_of(kind, dtype=torch.float32)
    assert half.initial_state(1).dtype == torch.float32
    assert half(obs.float(), half.initial_state(5))[0].dtype == torch.float32


@ALL
def test_a_policy_at_rest_does_nothing_and_wakes(kind: type[Policy]) -> None:
    """Where there is an affine end; bits, spikes and rules have none and stay as they are."""
    policy, obs = policy_of(kind), torch.randn(32, 3, generator=gen(5), dtype=torch.float64)
    before = flatten(policy)
    policy.rest()
    assert bool(policy.readout_parameters()) is (kind.name not in ("binary", "ternary", "spiking", "rules"))
    if not policy.readout_parameters():
        assert torch.equal(flatten(policy), before)
        return
    raw, _ = policy(obs, policy.initial_state(32))
    assert torch.equal(raw.detach(), torch.zeros(32, 2, dtype=torch.float64))
    assign(policy, flatten(policy) + 0.3 * torch.randn(len(before), generator=gen(6), dtype=torch.float64))
    raw, _ = policy(obs, policy.initial_state(32))
    assert float(raw.detach().std(dim=0).min()) > 1e-3


@ALL
def test_every_policy_reacts_to_the_observation(kind: type[Policy]) -> None:
    policy = policy_of(kind)
    obs = 2 * torch.randn(64, 3, generator=gen(1), dtype=torch.float64)
    action, _ = policy(obs, policy.initial_state(64))
    assert (action.std(dim=0) > 0).any()


@ALL
def test_memory_starts_afresh(kind: type[Policy]) -> None:
    """Rows that are reset act like new ones, the others go on; without memory nothing is carried over."""
    policy = policy_of(kind)
    obs = torch.randn(4, 3, generator=gen(1), dtype=torch.float64)
    fresh = policy.initial_state(4)
    first, after = policy(obs, fresh)
    assert torch.equal(after, fresh) == (policy.memory == 0)
    done = torch.tensor([True, False, True, False])
    again, _ = policy(obs, torch.where(done[:, None], fresh, after))
    going, _ = policy(obs, after)
    torch.testing.assert_close(again[done], first[done])
    torch.testing.assert_close(again[~done], going[~done])


@ALL
@pytest.mark.parametrize("shared", [True, False])
def test_population_equals_one_by_one(kind: type[Policy], shared: bool) -> None:
    """Exactly, on numbers whose sums do not round; also through ``vmap``, and with common observations."""
    policy = policy_of(kind)
    vectors = torch.round(64 * vectors_around(policy, 4)) / 64
    obs = dyadic(1, 5, 3).expand(4, -1, -1) if shared else dyadic(4, 5, 3)
    together = mapped = policy.initial_state(5).expand(4, 5, policy.memory)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            action, together = population_forward(policy, vectors, obs, together)
            with torch.no_grad():
                other, mapped = vmap(lambda p, x, m: functional_call(policy, p, (x, m)))(
                    unflatten(policy, vectors), obs, mapped
                )
    assert action.shape == (4, 5, 2) and together.shape == (4, 5, policy.memory)
    torch.testing.assert_close(other, action)
    if not shared:
        bound, remembered = bind_population(policy, vectors), policy.initial_state(5).expand(4, 5, policy.memory)
        for _ in range(3):
            kept, remembered = bound(obs, remembered)
        assert torch.equal(kept, action) and torch.equal(remembered, together)
    for i, vector in enumerate(vectors):
        member = policy_of(kind, 9)
        assign(member, vector)
        own = member.initial_state(5)
        for _ in range(3):
            alone, own = member(obs[i], own)
        # tanh and the logistic function may differ in the last bit with the length of a vector.
        exact = kind.name not in ("mlp", "gru", "attention", "staircase")
        tolerance = {"rtol": 0.0, "atol": 0.0 if exact else 1e-14}
        torch.testing.assert_close(action[i], alone, **tolerance)
        torch.testing.assert_close(together[i], own, **tolerance)


@ALL
def test_saved_and_loaded(kind: type[Policy], tmp_path: Path) -> None:
    policy, other = policy_of(kind), policy_of(kind, 5)
    save_file(dict(policy.state_dict()), tmp_path / "policy.safetensors")
    other.load_state_dict(load_file(tmp_path / "policy.safetensors"))
    obs = torch.randn(5, 3, generator=gen(1), dtype=torch.float64)
    for a, b in zip(policy(obs, policy.initial_state(5)), other(obs, other.initial_state(5)), strict=True):
        assert torch.equal(a, b)


@ALL
def test_surrogates_change_gradients_and_nothing_else(kind: type[Policy]) -> None:
    policy = policy_of(kind)
    obs = torch.randn(64, 3, generator=gen(1), dtype=torch.float64)

    def look() -> tuple[Tensor, list[bool]]:
        action, _ = policy(obs, policy.initial_state(64))
        if not action.requires_grad:
            return action, [False] * len(list(policy.parameters()))
        grads = torch.autograd.grad(action.square().sum(), list(policy.parameters()), allow_unused=True)
        return action.detach(), [g is not None and bool((g != 0).any()) for g in grads]

    hard, moved = look()
    policy.use_surrogate = True
    soft, moved_by_surrogate = look()
    assert torch.equal(hard, soft)
    assert all(moved_by_surrogate)
    assert all(moved) == (kind.surrogate == "")


def test_policies_by_name() -> None:
    assert policy_kind("tree") is TreePolicy
    with pytest.raises(ValueError, match="unknown policy 'forest'; choose one of"):
        policy_kind("forest")
    for name, hidden in (("gru", (4, 4)), ("tree", (6,)), ("table", ()), ("rules", (1, 2)), ("experts", (2, 2))):
        with pytest.raises(ValueError, match="hidden"):
            make_policy(name, 3, 2, hidden, gen=gen())


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Int8Policy(3, 1, reach=0.0, gen=gen()), "reach"),
        (lambda: SpikingPolicy(3, 1, leak=1.5, gen=gen()), "leak"),
        (lambda: SpikingPolicy(3, 1, slope=-1.0, gen=gen()), "slope"),
        (lambda: BinaryPolicy(3, 1, frequency=-1.0, gen=gen()), "frequency"),
        (lambda: BinaryActivationPolicy(3, 1, bit="both", gen=gen()), "bit must be 'sign' or 'step', got 'both'"),
        (lambda: BinaryActivationPolicy(3, 1, (), gen=gen()), "hidden"),
        (lambda: StaircasePolicy(3, 1, levels=1, gen=gen()), "levels"),
        (lambda: StaircasePolicy(3, 1, (), gen=gen()), "hidden"),
        (lambda: AttentionPolicy(3, 1, 5, heads=2, gen=gen()), "heads must divide width=5"),
        (lambda: AttentionPolicy(3, 1, 4, tokens=2, gen=gen()), "tokens must divide inputs=3"),
        (lambda: ExpertsPolicy(3, 1, experts=1, gen=gen()), "experts"),
        (lambda: TreePolicy(3, 1, 13, gen=gen()), "depth"),
        (lambda: TablePolicy(3, 1, 1, gen=gen()), "bins"),
        (lambda: TablePolicy(30, 1, 9, arity=9, gen=gen()), "lower bins or arity"),
        (lambda: RuleListPolicy(3, 1, 0, gen=gen()), "rules"),
    ],
)
def test_bad_settings_are_named(make: Callable[[], Policy], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()


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


def test_weights_and_activations_take_few_values() -> None:
    obs = torch.randn(50, 3, generator=gen(1), dtype=torch.float64)
    for kind, values in ((BinaryPolicy, {-1, 1}), (TernaryPolicy, {-1, 0, 1})):
        policy = kind(3, 1, (9,), gen=gen())
        unit = kind(9, 1, (), gen=gen())
        assign(unit, torch.cat([flatten(policy)[-10:-1], torch.zeros(1, dtype=torch.float64)]))
        weights = 3 * unit(torch.eye(9, dtype=torch.float64), unit.initial_state(9))[0]
        assert set(weights.flatten().round(decimals=12).tolist()) == values
        # Nine products of two such numbers, over three: multiples of a third.
        sums = 3 * policy(obs, policy.initial_state(50))[0]
        torch.testing.assert_close(sums, sums.round())
        assert len(sums.unique()) > 2


def test_hidden_units_say_one_bit_and_weights_are_real() -> None:
    """By hand: bits of a dense layer, zero counting as positive, into a dense layer; steps are signs, shifted."""
    sums = torch.tensor([[-0.5, 0.0, 2.0]], dtype=torch.float64)
    weights = torch.tensor([[0.3, -0.7, 0.11]], dtype=torch.float64)
    hidden = torch.cat([torch.diag(sums[0]).flatten(), torch.zeros(3, dtype=torch.float64)])
    rest = torch.cat([weights.flatten(), torch.tensor([0.05], dtype=torch.float64)])
    one = torch.ones(1, 3, dtype=torch.float64)
    for bit, bits in (("sign", [-1.0, 1.0, 1.0]), ("step", [0.0, 1.0, 1.0])):
        policy = BinaryActivationPolicy(3, 1, (3,), bit=bit, gen=gen())
        assign(policy, torch.cat([hidden, rest]))
        out, _ = policy(one, policy.initial_state(1))
        wanted = float(weights[0] @ torch.tensor(bits, dtype=torch.float64)) + 0.05
        assert float(out.detach()) == pytest.approx(wanted, rel=1e-12)
        policy.use_surrogate = True
        out, _ = policy(one, policy.initial_state(1))
        (slope,) = torch.autograd.grad(out.sum(), [policy.get_parameter("layers.0.bias")])
        # The third unit's sum lies beyond 1, where the estimator stops.
        scale = 1.0 if bit == "sign" else 0.5
        torch.testing.assert_close(slope, scale * torch.tensor([0.3, -0.7, 0.0], dtype=torch.float64))


def test_periodic_bits_follow_the_square_wave_and_its_sine() -> None:
    policy = BinaryPolicy(1, 1, (), frequency=2.0, gen=gen())
    policy.use_surrogate = True
    latent = torch.linspace(-4, 4, 41, dtype=torch.float64)
    one = torch.ones(1, 1, dtype=torch.float64)
    for value in latent.tolist():
        assign(policy, torch.tensor([value, 0.0], dtype=torch.float64))
        out, _ = policy(one, policy.initial_state(1))
        assert float(out.detach()) == (1.0 if torch.sin(torch.tensor(2.0 * value, dtype=torch.float64)) >= 0 else -1.0)
        (slope,) = torch.autograd.grad(out.sum(), [policy.layers[0].weight])
        assert float(slope) == pytest.approx(2 * float(torch.cos(torch.tensor(2 * value, dtype=torch.float64))))


def test_quantisation_error_of_a_sine() -> None:
    """Uniform phases: 1/2 - (2/pi)^2, which is the limit of high frequencies; and bits have none."""
    phase = torch.linspace(0, 2 * torch.pi, 100_001, dtype=torch.float64)[:-1]
    error, relative = quantisation_error(torch.sin(phase))
    assert error == pytest.approx(0.5 - (2 / torch.pi) ** 2, abs=1e-6)
    assert relative == pytest.approx(1 - 8 / torch.pi**2, abs=1e-6)
    assert quantisation_error(torch.tensor([0.3, -0.3])) == pytest.approx((0.0, 0.0), abs=1e-7)


def test_stairs_have_equal_steps() -> None:
    policy = StaircasePolicy(1, 1, (1,), levels=4, gen=gen())
    assign(policy, torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64))
    x = torch.linspace(-40, 40, 4001, dtype=torch.float64)[:, None]
    out, _ = policy(x, policy.initial_state(len(x)))
    assert sorted(set(out.flatten().tolist())) == [-0.75, -0.25, 0.25, 0.75]
    assert (out - torch.tanh(x)).abs().max() <= 0.25 + 1e-12


def test_attention_passes_on_one_token() -> None:
    """Changing a token that is not looked at changes nothing, unless the query turns to it."""
    policy = AttentionPolicy(6, 2, 4, heads=1, tokens=3, gen=gen())
    with torch.no_grad():
        policy.query.weight.zero_()
        policy.query.bias.copy_(policy.key_place[1] * 10)
        policy.key.weight.zero_()
    obs = torch.randn(1, 6, generator=gen(1), dtype=torch.float64)
    action, state = policy(obs, policy.initial_state(1))
    bump = torch.eye(6, dtype=torch.float64)
    moved = [bool((policy(obs + bump[i], state)[0] != action).any()) for i in range(6)]
    assert moved == [False, False, True, True, False, False]


def test_one_expert_acts() -> None:
    policy = ExpertsPolicy(2, 1, 3, experts=2, gen=gen())
    with torch.no_grad():
        policy.router.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    obs = torch.randn(40, 2, generator=gen(1), dtype=torch.float64)
    before, state = policy(obs, policy.initial_state(40))
    with torch.no_grad():
        policy.hidden.bias[3:] += 1.0
    changed = (policy(obs, state)[0] != before).flatten()
    assert not changed[obs[:, 0] > 0].any() and changed[obs[:, 0] < 0].any()


def test_tree_follows_its_splits() -> None:
    """Against a walk from the root, node by node."""
    for leaves in ("constant", "linear"):
        policy = TreePolicy(2, 1, 3, leaves=leaves, gen=gen())  # type: ignore[arg-type]
        obs = torch.randn(30, 2, generator=gen(1), dtype=torch.float64)
        action, _ = policy(obs, policy.initial_state(30))
        scores = policy.splits(obs)
        for i in range(30):
            node = 0
            for _ in range(3):
                node = 2 * node + 1 + int(scores[i, node] > 0)
            leaf = node - 7
            want = policy.leaves.weight[0, leaf]
            if leaves == "linear":
                want = want + policy.leaves.weight[0, 8 + 2 * leaf : 10 + 2 * leaf] @ obs[i]
            assert float(action[i].detach()) == pytest.approx(float(want.detach()))


def test_table_looks_cells_up() -> None:
    whole = TablePolicy(2, 1, 4, reach=1.0, gen=gen())
    assert whole.tables == 1 and whole.cells.shape == (16, 1)
    obs = torch.tensor([[-9.0, -0.9], [-0.4, 0.1], [0.99, 9.0]], dtype=torch.float64)
    assert whole.addresses(obs).flatten().tolist() == [0, 1 + 4 * 2, 15]
    action, _ = whole(obs, whole.initial_state(3))
    assert torch.equal(action[:, 0], whole.cells[[0, 9, 15], 0])
    windows = TablePolicy(3, 1, 4, reach=1.0, gen=gen())
    assert windows.tables == 3
    assert windows.addresses(torch.tensor([[-0.9, 0.1, 0.9]], dtype=torch.float64)).tolist() == [[8, 16 + 14, 32 + 3]]


def test_the_first_rule_that_holds_acts_and_can_be_read() -> None:
    policy = RuleListPolicy(2, 1, 2, terms=1, gen=gen())
    with torch.no_grad():
        policy.entry.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        policy.threshold.copy_(torch.tensor([0.5, 0.25]))
        policy.side.copy_(torch.tensor([1.0, -1.0]))
        policy.action.weight.copy_(torch.tensor([[3.0, -1.0, 0.125]]))
    assert policy.describe(("angle", "speed")) == [
        "if angle > 0.5 then 3",
        "if speed <= 0.25 then -1",
        "otherwise 0.125",
    ]
    obs = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert policy(obs, policy.initial_state(3))[0].flatten().tolist() == [3.0, -1.0, 0.125]
    with pytest.raises(ValueError, match="names must be 2"):
        policy.describe(("angle",))


def test_any_module_and_a_recurrent_one_of_the_users_own() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.Linear(5, 3)

        def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            after = torch.tanh(self.cell(torch.cat([x, h], dim=-1)))
            return after.sum(dim=-1, keepdim=True), after

    module = Own()
    vectors = vectors_around(module, 6)
    obs, state = torch.randn(6, 4, 2, generator=gen(2)), torch.zeros(6, 4, 3)
    for _ in range(2):
        out, state = population_forward(module, vectors, obs, state)
    for i, vector in enumerate(vectors):
        params, own = unflatten(module, vector), torch.zeros(4, 3)
        for _ in range(2):
            alone, own = functional_call(module, params, (obs[i], own))
        torch.testing.assert_close(out[i], alone)
        torch.testing.assert_close(state[i], own)


def test_spiking_neuron_fires_at_its_rate() -> None:
    """Without leak a neuron driven by current c fires at rate c."""
    policy = SpikingPolicy(1, 1, (1,), ticks=100, pool=1, leak=1.0, span=1.0, gen=gen())
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
