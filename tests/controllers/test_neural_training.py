"""A training through a model from its first weights to its verdict: deaths, renewals, the second fit, rivals."""

import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from dynamics_test_plants import Oscillator
from linear_test_plants import LinearPlant, scalar
from torch import Tensor

from steersman.controllers.base import Controller, Decision, Training
from steersman.controllers.classical.baseline import Zero
from steersman.controllers.neural import controller as neural
from steersman.controllers.neural.controller import NeuralPolicy
from steersman.controllers.neural.experience import Excited, experience
from steersman.controllers.neural.policy import build_policy
from steersman.controllers.neural.refit import paired, under_policy
from steersman.controllers.rollout import run_episodes
from steersman.controllers.verdict import judge
from steersman.dynamics.base import Dynamics, Trajectories
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.windowed.neural import NeuralDynamics, NeuralSettings
from steersman.envs import make_simulator, noise
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Quadratic
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import Measurement, PlantSimulator
from steersman.optimizers.checkpoint import digest


def simulate(n: int, limit: float = float("inf")) -> PlantSimulator:
    return PlantSimulator(Oscillator(limit=limit), n, price=10.0)


DATA = collect(simulate(4), HeldLevels(), episodes=8, seed=3)


def linear() -> Dynamics:
    return LinearDynamics(1).bind(Oscillator().problem).fit(DATA)


def small(**more: Any) -> NeuralPolicy:
    settings = {"hidden": (4,), "steps": 20, "batch": 8, "horizon": 6, "explore": 2, "refit": 0, **more}
    return NeuralPolicy(**settings).bind(Oscillator().problem, linear())


# ------------------------------------------------------------------ deaths


@pytest.fixture
def stillborn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many of the next policies see nothing; they are counted down."""
    left = [0]

    def build(*args: Any) -> Any:
        policy = build_policy(*args)
        left[0] -= 1
        if left[0] >= 0:
            with torch.no_grad():
                policy.layers[-1].weight.zero_()  # type: ignore[index, union-attr, operator]
                policy.layers[-1].weight.requires_grad_(False)  # type: ignore[index, union-attr]
                policy.layers[-1].bias.fill_(-6.0)  # type: ignore[index, union-attr, operator]
        return policy

    monkeypatch.setattr(neural, "build_policy", build)
    return left


def test_a_dead_policy_is_replaced_by_one_from_other_weights(stillborn: list[int]) -> None:
    stillborn[0] = 1
    controller = small()
    price = controller.train(Training(simulate, 0))
    assert controller.notes[0] == "1 of 2 initial weights led to an action that did not depend on y"
    assert stillborn == [-1] and controller._answers(torch.randn(50, 3, dtype=torch.float64))
    alive = small()
    usual = alive.train(Training(simulate, 0))
    assert not any("weights" in note for note in alive.notes)
    # The dead one was seen after three tenths: its exploration and the one renewal up to then are paid for.
    assert price.plant_steps == usual.plant_steps + 2 * 2 * 60


def test_a_training_says_when_no_weights_live(stillborn: list[int]) -> None:
    stillborn[0] = 99
    controller = small()
    controller.train(Training(simulate, 0))
    assert "hardly depends on what is measured, from 3 initial weights" in controller.notes[0]
    assert 99 - stillborn[0] == 3


# ------------------------------------------------------------------ the second fit


def network() -> Dynamics:
    settings = NeuralSettings(context=2, hidden=(4,), members=2, rollout=2, steps=20, batch=8)
    return NeuralDynamics(settings).bind(Oscillator().problem).fit(DATA)


def test_a_second_fit_sees_all_data_and_leaves_the_shared_model_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, fitted = network(), []

    def fit(shared: Dynamics, training: Training, data: list[Trajectories]) -> Dynamics:
        assert shared is model
        fitted.append((Trajectories.join(data), original(shared, training, data)))
        return fitted[0][1]

    original = neural.refitted
    monkeypatch.setattr(neural, "refitted", fit)
    before, heard = digest(dict(model.state_dict())), model.progress
    controller = NeuralPolicy(hidden=(4,), steps=10, batch=8, horizon=6, explore=2, refit=4, tune=5, renewals=3)
    controller.bind(Oscillator().problem, model)
    price = controller.train(Training(simulate, 0, data=DATA))
    ((data, again),) = fitted
    assert digest(dict(model.state_dict())) == before and controller.model is model
    assert model.progress is heard and model.checkpoint is None
    assert digest(dict(again.state_dict())) != before
    assert len(data) == 8 + 2 * (1 + 3) + 4 and torch.equal(data.y[:8], DATA.y)
    # The data give the normalisation; then exploration, renewals, episodes before the fit, those of the best renewal,
    # which came out better there, those after the fit, the verdict.
    assert price.plant_steps == (2 * (1 + 3) + 4 + 2 + 2 + 6 * 8) * 60
    assert [steps for steps, _ in price.curve] == [120, 240, 360, 480, 720, 840, 960]
    assert not any("fitted" in note for note in controller.notes)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_second_fit_that_makes_the_policy_worse_is_undone(sign: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model in which actions push the other way, or one that is right, after a first training that has learnt little."""
    again = linear().fit(replace(DATA, u=sign * DATA.u))
    monkeypatch.setattr(neural, "refitted", lambda *_: again)
    plain, tuned = small(steps=4), small(steps=4, refit=4, tune=60, tune_rate=2e-2)
    plain.train(Training(simulate, 0, data=DATA))
    price = tuned.train(Training(simulate, 0, data=DATA))
    undone = digest(tuned.state_dict()) == digest(plain.state_dict())
    assert undone == (sign < 0) == any("second fit made it worse" in note for note in tuned.notes)
    costs = [cost for _, cost in price.curve]
    assert (costs[-2] < costs[-3]) == (sign > 0)


def test_a_descent_that_leads_away_again_goes_back_to_its_best_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a model in which actions push the other way each part of the descent is worse on the plant."""
    settings = {"steps": 60, "explore": 8, "renewals": 2, "refit": 8, "tune": 1, "tune_rate": 1e-9, "rate": 1e-2}
    wrong, right = linear().fit(replace(DATA, u=-DATA.u)), linear()
    monkeypatch.setattr(neural, "refitted", lambda *_: right)
    for model in (wrong, right):
        controller = small(**settings).bind(Oscillator().problem, model)
        training = Training(simulate, 0, data=DATA)
        last, *later = (cost for _, cost in controller.train(training).curve[2:])
        went_back = any("after 1 of 3 parts of the descent went on" in note for note in controller.notes)
        assert went_back == (model is wrong)
        reached = float(paired(controller, training, 8).cost.mean())
        assert reached == pytest.approx(later[0] if went_back else last, rel=1e-3)
        assert (reached < 0.9 * last) == went_back


def test_equal_seeds_give_equal_policies_through_both_fits() -> None:
    def weights(seed: int) -> str:
        controller = NeuralPolicy(hidden=(4,), steps=6, batch=8, horizon=6, explore=2, refit=2, tune=4)
        controller.bind(Oscillator().problem, network()).train(Training(simulate, seed, data=DATA))
        return digest(controller.state_dict())

    assert weights(0) == weights(0) != weights(1)


# ------------------------------------------------------------------ rollouts


def test_rollouts_stay_in_the_episode_and_reach_its_end_where_only_that_costs() -> None:
    controller = small(horizon=40)
    assert [controller._length(share) for share in (0.0, 0.25, 0.5, 1.0)] == [10, 25, 40, 40]
    assert small(horizon=400)._length(1.0) == 60
    plant = LinearPlant(scalar(), bound=5.0, horizon=12)
    end = (Quadratic(name="end", on="z", weights=(1.0,)),)
    plant.objective = replace(plant.objective, stage=(), terminal=end)
    last = NeuralPolicy(horizon=4, steps=60, hidden=(4,), refit=0, explore=4, rate=1e-2)
    last.bind(plant.problem, plant.model())
    assert last._length(0.0) == 12
    last.train(Training(partial(PlantSimulator, plant), 0))
    verdict = judge(last, Training(partial(PlantSimulator, plant), 0))
    assert verdict.cost < 0.5 * verdict.idle and not verdict.notes


def test_exploration_takes_the_signal_that_the_training_gives() -> None:
    made: list[HeldLevels] = []

    def excite() -> HeldLevels:
        made.append(HeldLevels(2, 3, 0.25))
        return made[-1]

    controller = small()
    source = controller._source(Training(simulate, 0, excite=excite), torch.Generator())
    assert len(made) == 1 and float(source.data[0].u.abs().max()) <= 0.25  # type: ignore[attr-defined]


# ------------------------------------------------------------------ episodes


def test_experience_is_the_data_the_starts_and_the_cost_of_the_same_episodes() -> None:
    keys, gain = noise.keys(4, 6), 0.3
    seen = experience(simulate(6, limit=1.0), keys, lambda m: -gain * m.y[:, 1:2], context=2, ahead=3)
    simulator = simulate(6, limit=1.0)
    want = run_episodes(simulator, simulator.scenarios(keys), lambda m: -gain * m.y[:, 1:2])
    assert torch.equal(seen.cost, want.cost) and seen.steps == want.plant_steps == seen.data.steps < 6 * 60
    assert len(seen.starts.y) == seen.steps and seen.starts.now.r.shape[1] == 4
    first = seen.data.valid.sum(dim=1) > 0
    assert torch.equal(seen.starts.now.y[: int(first.sum())], seen.data.y[first, 0])
    last = seen.starts.rows(torch.tensor([len(seen.starts.y) - 1]))
    row = int(seen.data.valid[:, -1].nonzero()[-1]) if seen.data.valid[:, -1].any() else 0
    assert torch.equal(last.y[0], seen.data.y[row, -3:-1])


@pytest.mark.parametrize("episodes", [4, 5])
def test_policies_are_paired_on_the_episodes_that_were_not_excited(episodes: int) -> None:
    """The same policy pays the same there, and the other episodes are excited."""
    controller, training = Fixed(0.3).bind(Oscillator().problem), Training(simulate, 0)
    seen = under_policy(controller, training, episodes, context=1, ahead=0)
    plain = (seen.data.u == 0.3).flatten(1).all(dim=1)
    assert plain.tolist() == [i % 2 == 0 for i in range(episodes)]
    assert torch.equal(paired(controller, training, episodes).cost, seen.cost[plain])


def test_excitation_moves_chosen_rows_by_a_share_of_the_signal() -> None:
    actions = ActionSet((0.0, 0.0), (4.0, 1.0), (False, True))
    keys = noise.keys(0, 400)
    rows = torch.arange(400) % 2 == 0

    def act(m: Measurement) -> Tensor:
        return torch.tensor([1.0, 1.0], dtype=torch.float64).expand(400, -1)

    m = Measurement(
        torch.zeros(400, dtype=torch.int64), torch.zeros(400, 1), torch.zeros(400, 1, 1), torch.zeros(400, 2)
    )
    u = Excited(act, HeldLevels(), actions, rows, keys, 0.2)(m)
    assert torch.equal(u[~rows], act(m)[~rows])
    assert float((u[rows, 0] - 1).abs().max()) <= 0.4 and float(u[rows, 0].std()) > 0.1
    assert 0.03 < float((u[rows, 1] == 0).double().mean()) < 0.2, "half of the draws of a fifth of the steps are zero"


def test_joined_data_are_padded_by_steps_that_never_happened() -> None:
    short = collect(simulate(2), HeldLevels(), episodes=2, seed=1, steps=20)
    both = Trajectories.join([DATA, short])
    assert len(both) == 10 and both.steps == DATA.steps + short.steps
    assert torch.equal(both.y[8:, :21], short.y) and not both.valid[8:, 20:].any()
    assert torch.equal(both.y[8:, 21:], short.y[:, -1:].expand(-1, 40, -1))
    with pytest.raises(ValueError, match="one control period"):
        Trajectories.join([DATA, Trajectories(short.y, short.z, short.u, short.valid, 7.0)])


# ------------------------------------------------------------------ the verdict


class Shifted(Oscillator):
    """Wants to be at 1, where half of the force holds it nearly."""

    def perform(self, k: Tensor, x, p: dict[str, Tensor]) -> Tensor:  # type: ignore[no-untyped-def]
        return torch.stack([2 * x["q"] - 2, x["v"]], dim=1)


class Fixed(Controller):
    """A constant action, whatever happens."""

    name = "fixed"

    def __init__(self, u: float) -> None:
        self.u = u

    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        return self.optimal(m.y.new_full((m.n, 1), self.u))


def test_a_verdict_is_given_on_scenarios_that_no_training_has_seen() -> None:
    met: set[int] = set()

    class Heard(PlantSimulator):
        def scenarios(self, key: Tensor, mask: Tensor | None = None) -> Scenarios:
            met.update(key.tolist())
            return super().scenarios(key, mask)

    training = Training(lambda n: Heard(Oscillator(), n, price=10.0), 0)
    judge(Fixed(0.1).bind(Oscillator().problem), training)
    assert len(met) == 8 and not met & set(training.keys(10_000).tolist())


def test_a_verdict_names_what_is_worse_than_nothing_or_than_a_constant() -> None:
    training, problem = Training(partial(PlantSimulator, Shifted()), 0), Shifted().problem
    found = {u: judge(Fixed(u).bind(problem), training) for u in (-1.0, 0.1, 0.5)}
    idle = judge(Zero().bind(problem), training)
    assert {v.idle for v in found.values()} == {idle.cost} and idle.constant == found[0.5].cost
    assert idle.action == (0.5,) and idle.plant_steps == 6 * 8 * 60
    assert found[-1.0].notes[0].startswith(f"worse than doing nothing: it costs {found[-1.0].cost:.4g} on 8 validation")
    assert found[0.1].notes[0].startswith("no better than a constant: ") and "(0.5)" in found[0.1].notes[0]
    assert found[0.5].notes == ()
    assert replace(found[0.5], cost=float("nan")).notes[0].startswith("worse than doing nothing")


def test_a_second_fit_may_choose_a_longer_window() -> None:
    """A linear model of a few short episodes takes a short window; with the policy's episodes it takes a longer one."""
    sim = make_simulator("steersman/Pendulum-v1", 4)
    data = collect(sim, HeldLevels(), episodes=4, steps=40, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LinearDynamics().bind(sim.problem).fit(data)
        policy = NeuralPolicy(hidden=(4,), steps=2, batch=4, horizon=3, explore=2, renewals=0, refit=4, tune=2)
        policy.bind(sim.problem, model)
        cost = policy.train(Training(lambda n: make_simulator("steersman/Pendulum-v1", n), 0, data=data))
    assert model.longest == 8 > model.context and cost.plant_steps > 0
