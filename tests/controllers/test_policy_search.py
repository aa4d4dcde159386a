"""Policy search: what a population's episodes cost, in whatever batch they run and wherever."""

import importlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from dynamics_test_plants import Oscillator
from torch import Tensor

from steersman.controllers.base import Training
from steersman.controllers.neural.policy import build_policy
from steersman.controllers.policy_search import PolicySearch
from steersman.controllers.policy_search.evaluation import (
    Episodes,
    Evaluation,
    InProcess,
    OutOfStepsError,
)
from steersman.controllers.policy_search.population import Costs, Population, roll_out
from steersman.controllers.policy_search.workers import Workers
from steersman.controllers.risk import risk_measure
from steersman.controllers.rollout import keep_rows, run_episodes
from steersman.envs import make_simulator, noise
from steersman.envs.classic.acrobot import Acrobot
from steersman.envs.classic.cart_pole import CartPole
from steersman.envs.plant import Plant
from steersman.envs.simulator import Measurement, PlantSimulator, Simulator
from steersman.optimizers.registry import make_search
from steersman.optimizers.vectorise import assign, flatten

LONG_CART = partial(make_simulator, "steersman/CartPole-v1")
GYM = partial(make_simulator, "CartPole-v1")


def shortened(kind: type[Plant], horizon: int, n: int) -> PlantSimulator:
    plant = kind()
    plant.horizon = horizon
    return PlantSimulator(plant, n)


CART = partial(shortened, CartPole, 40)
ACROBOT = partial(shortened, Acrobot, 120)


def population(simulator: Simulator, pop: int, policy: str = "mlp", spread: float = 1.0) -> Population:
    problem = simulator.problem
    network = build_policy(policy, problem.ny, problem.actions.m, (4,), 0)
    start = flatten(network)
    gen = torch.Generator().manual_seed(1)
    vectors = start + spread * torch.randn(pop, len(start), generator=gen, dtype=start.dtype)
    one = torch.ones(1, problem.ny, dtype=torch.float64)
    return Population(network, vectors, 0 * one, one, problem.actions)


def alone(members: Population, i: int, simulator: Simulator, keys: Tensor) -> tuple[Tensor, int]:
    """One member by the plain loop that every other controller uses."""
    assign(members.network, members.vectors[i])
    state = members.network.initial_state(len(keys))

    def act(m: object) -> Tensor:
        nonlocal state
        raw, state = members.network(m.y.clamp(-4, 4), state)  # type: ignore[attr-defined]
        if members.actions.one_hot:
            return raw
        return raw.clamp(-1, 1)

    episode = run_episodes(simulator, simulator.scenarios(keys), act)
    return episode.cost, episode.plant_steps


@pytest.mark.parametrize(
    ("simulate", "policy"), [(CART, "mlp"), (CART, "gru"), (GYM, "mlp"), (partial(shortened, Acrobot, 15), "spiking")]
)
@torch.no_grad()
def test_each_member_meets_what_it_would_meet_alone(simulate: partial[Simulator], policy: str) -> None:
    simulator, keys = simulate(6 * 4), noise.keys(5, 4)
    members = population(simulator, 6, policy, spread=3.0)
    found = roll_out(members, simulator, simulate(4).scenarios(keys).tile(6))
    single = simulate(4)
    for i in range(6):
        cost, steps = alone(members, i, single, keys)
        assert torch.allclose(found.cost[i], cost, rtol=1e-9)
        assert int(found.plant_steps[i]) == steps
    assert len(set(found.plant_steps.tolist())) > 1 or policy == "spiking"


def test_episodes_that_are_over_leave_the_batch() -> None:
    simulator = LONG_CART(64 * 4)
    found = roll_out(population(simulator, 64), simulator, simulator.scenarios(noise.keys(0, 4).repeat(64)))
    live, full = int(found.plant_steps.sum()), 64 * 4 * int(-found.cost.min())
    assert live <= found.simulated < 1.6 * live < 0.5 * full


def test_episodes_are_broken_off_at_the_limit_and_not_before() -> None:
    simulator, bank = CART(6 * 4), CART(4).scenarios(noise.keys(5, 4)).tile(6)
    members = population(simulator, 6, spread=3.0)
    full = roll_out(members, simulator, bank)
    total = int(full.plant_steps.sum())
    exact = roll_out(members, simulator, bank, limit=total)
    assert full.whole and exact.whole and torch.equal(exact.cost, full.cost)
    for limit in (total - 1, total // 2, 23):
        part = roll_out(members, simulator, bank, limit=limit)
        assert not part.whole and limit - 24 < int(part.plant_steps.sum()) <= limit
        assert bool((part.plant_steps <= full.plant_steps).all())


def test_a_simulator_that_does_not_end_its_episodes_is_named() -> None:
    simulator = LONG_CART(2)
    simulator.problem = replace(simulator.problem, horizon=3)
    with pytest.raises(RuntimeError, match="PlantSimulator has episodes that go on after the horizon of 3"):
        roll_out(population(simulator, 2), simulator, simulator.scenarios(noise.keys(0, 2)))


def test_kept_rows_go_on_bit_by_bit() -> None:
    simulator = make_simulator("steersman/TwoArea-v1", 5)
    simulator.reset(simulator.scenarios(noise.keys(3, 5)))
    u = torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(5, 2)
    simulator.step(u)
    rows = torch.tensor([1, 4])
    smaller = keep_rows(simulator, rows)
    assert smaller is not None
    for _ in range(3):
        whole, part = simulator.step(u), smaller.step(u[rows])
    assert torch.allclose(whole.cost[rows], part.cost, rtol=1e-12)
    assert torch.equal(simulator.measure().k[rows], smaller.measure().k)
    assert keep_rows(GYM(2), rows) is None


def test_hopeless_members_end_early_and_the_best_keep_their_costs() -> None:
    simulator, keys = ACROBOT(24), noise.keys(2, 2)
    members = population(simulator, 12, spread=2.0)
    plain = Episodes(members, ACROBOT, 0)
    early = Episodes(members, ACROBOT, 0, floor=0.0, keep=1 / 12)
    full, short = plain.run(members.vectors, keys), early.run(members.vectors, keys)
    a, b = full.cost.mean(dim=1), short.cost.mean(dim=1)
    best = int(a.argmin())
    assert a[best] == b[best] < 121
    assert bool((b[a > a[best]] > a[best]).all()) and bool((b <= a).all())
    assert int(short.plant_steps.sum()) < int(full.plant_steps.sum()) - 12
    assert torch.equal(early.run(members.vectors, keys, all_ranks=True).cost, full.cost)


def test_risk() -> None:
    cost = torch.tensor([[1.0, 2.0, 3.0, 10.0], [4.0, 4.0, 4.0, 4.0]])
    assert risk_measure("mean", 1.0)(cost).tolist() == [4.0, 4.0]
    assert risk_measure("cvar", 0.5)(cost).tolist() == [6.5, 4.0]
    assert risk_measure("worst", 0.5)(cost).tolist() == [10.0, 4.0]
    with pytest.raises(ValueError, match="tail must lie"):
        PolicySearch(risk="cvar", tail=0.0)
    with pytest.raises(ValueError, match="race must lie between 0 and scenarios"):
        PolicySearch(race=9)
    with pytest.raises(ValueError, match="floor must be finite and not positive"):
        PolicySearch(floor=1.0)
    with pytest.raises(ValueError, match="workers must be at least 0"):
        PolicySearch(workers=-1)


class Table:
    """An executor with known costs that notes what it was asked for."""

    def __init__(self, cost: Tensor) -> None:
        self.cost, self.asked = cost, 0

    def __call__(self, pop: Tensor, generation: int, rows: Tensor, keys: Tensor, limit: int | None = None) -> Costs:
        first = self.asked == 0
        part = self.cost[rows, :1] if first else self.cost[rows, 1 : 1 + len(keys)]
        self.asked += part.numel()
        return Costs(part, torch.full((len(rows),), len(keys)), part.numel())

    def told(self, cost: Tensor) -> None: ...

    def close(self) -> None: ...


def test_a_race_spends_episodes_on_contenders() -> None:
    gen = torch.Generator().manual_seed(0)
    quality = torch.arange(20, dtype=torch.float64)[torch.randperm(20, generator=gen)]
    cost = quality[:, None] + 0.1 * torch.randn(20, 4, generator=gen, dtype=torch.float64)
    cost[:, 1:] += 5.0  # the later scenarios are harder for everybody
    table = Table(cost)
    episodes = Episodes(population(CART(1), 1), CART, 0)
    value = Evaluation(episodes, table, scenarios=4, race=1, keep=0.5)(torch.zeros(20, 1), 0)
    going = set(cost[:, 0].argsort()[:10].tolist()) | {16, 17, 18, 19}
    assert table.asked == 20 + 3 * len(going)
    rows = torch.tensor(sorted(going))
    assert torch.allclose(value[rows], cost[rows].mean(dim=1))
    assert torch.equal(value.argsort()[:10], cost.mean(dim=1).argsort()[:10])
    assert torch.allclose(value, cost.mean(dim=1), atol=0.5), "costs of those who drop out are moved alike"


def test_workers_give_the_numbers_of_this_process_bit_by_bit() -> None:
    members = population(CART(1), 1)
    episodes = Episodes(members, LONG_CART, 7)
    results = []
    for where in ("here", "workers"):
        search = make_search("cma_es", size=9).start(members.vectors[0], seed=3)
        executor = InProcess(episodes, shards=2) if where == "here" else Workers(episodes, search, 2)
        evaluation = Evaluation(episodes, executor, scenarios=3, race=2, keep=0.5)
        try:
            for _ in range(2):
                cost = evaluation(search.ask(), search.generation)
                search.tell(cost)
            evaluation.limit = 60
            with pytest.raises(OutOfStepsError):
                evaluation(search.ask(), search.generation)
        finally:
            executor.close()
        assert 0 < evaluation.plant_steps(search.generation + 1) - evaluation.plant_steps(search.generation) <= 60
        results.append((cost, search.incumbent, evaluation.plant_steps(search.generation + 1)))
    (a, x, n), (b, y, m) = results
    assert torch.equal(a, b) and torch.equal(x, y) and n == m > 0


TALKING = '''
from dataclasses import dataclass, field

from steersman.envs.classic.cart_pole import CartPole
from steersman.envs.simulator import PlantSimulator


class Talker(PlantSimulator):
    """Says in one remark how often it was reset."""

    resets = 0

    def reset(self, scenarios, mask=None):
        super().reset(scenarios, mask)
        self.resets += 1

    @property
    def notes(self):
        return (f"{self.n} rows were reset {self.resets} times",) if self.resets else ()


@dataclass
class Talking:
    """Makes them, keeps them, and is pickled without them."""

    made: list = field(default_factory=list)

    def __call__(self, n):
        self.made.append(Talker(CartPole(), n))
        return self.made[-1]

    def __getstate__(self):
        return {"made": []}
'''


def test_remarks_of_worker_processes_are_those_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each simulator tells its last word, also those whose place others have taken."""
    (tmp_path / "talking_carts.py").write_text(TALKING)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("talking_carts")
    heard = {}
    for where in ("here", "workers"):
        talking = module.Talking()
        members = population(CART(1), 1)
        episodes = Episodes(members, talking, 7)
        search = make_search("random", size=6).start(members.vectors[0], seed=3)
        executor = InProcess(episodes) if where == "here" else Workers(episodes, search, 1)
        try:
            pop = search.ask()
            for count in (3, 3, 1, 2, 4, 5, 6):
                executor(pop, 0, torch.arange(count), noise.keys(0, 1))
        finally:
            executor.close()
        told = (note for simulator in talking.made for note in simulator.notes)
        heard[where] = set(told if isinstance(executor, InProcess) else executor.notes)
    assert heard["here"] == heard["workers"]
    assert {"3 rows were reset 2 times", "1 rows were reset 1 times"} <= heard["here"]


def test_what_cannot_be_sent_to_workers_is_named() -> None:
    controller = PolicySearch(workers=1, hidden=(2,), explore=1).bind(CART(1).problem)
    with pytest.raises(ValueError, match=r"can be pickled.*functools.partial.*or set workers=0"):
        controller.train(Training(lambda n: CART(n), 0))


def test_a_budget_is_checked_before_anything_runs_and_need_not_hold_more_than_a_generation() -> None:
    """Episodes of the oscillator all last for 60 steps: 2 to explore, 8 members times 3 scenarios and 2 at the end."""
    need = (2 + 8 * 3 + 2) * 60

    def controller(plant_steps: int) -> PolicySearch:
        made = PolicySearch("random", hidden=(2,), plant_steps=plant_steps, scenarios=3, explore=2, options={"size": 6})
        return made.bind(Oscillator().problem)

    with pytest.raises(
        ValueError, match=rf"plant_steps={need - 1} does not cover one generation; .* up to {need:,}: 2"
    ):
        controller(need - 1)
    for budget, spent in ((need, need), (need + 119, need), (need + 120, need + 120)):
        price = controller(budget).train(Training(lambda n: PlantSimulator(Oscillator(), n), 0))
        assert price.curve[0][0] == spent < price.plant_steps


@pytest.mark.parametrize("plant_steps", [40_000, 43_000])
def test_what_stays_unspent_is_less_than_another_generation(plant_steps: int, tmp_path: Path) -> None:
    """Episodes begin with a few steps of at most 500, and become longer as the search goes on."""
    controller = PolicySearch(plant_steps=plant_steps, hidden=()).bind(LONG_CART(1).problem)
    ((spent, _),) = controller.train(Training(LONG_CART, 1, tmp_path)).curve
    generations = [json.loads(line)[1] for line in (tmp_path / "plant-steps.jsonl").read_text().splitlines()]
    assert max(generations) > 3 * generations[0]
    left = plant_steps - spent
    assert 0 <= left < max(generations) and left < plant_steps / 6


def test_only_running_episodes_count_against_the_budget(tmp_path: Path) -> None:
    def train(folder: Path | None, plant_steps: int) -> tuple[PolicySearch, int]:
        settings = {"size": 6, "sigma": 0.1}
        controller = PolicySearch(
            "cma_es", hidden=(2,), plant_steps=plant_steps, scenarios=1, explore=2, options=settings
        )
        controller.bind(CART(1).problem)
        return controller, controller.train(Training(CART, 1, folder)).curve[0][0]

    whole, spent = train(None, 2_000)
    assert 1_200 < spent <= 2_000
    train(tmp_path, 1_100)
    resumed, again = train(tmp_path, 2_000)
    assert again == spent
    weights = (c.state_dict()["policy.layers.0.weight"] for c in (whole, resumed))
    assert torch.equal(*weights)


@pytest.mark.parametrize("policy", ["mlp", "int8", "gru"])
def test_a_search_begins_by_doing_nothing(policy: str) -> None:
    """With next to no steps it ends there: what is found is not worse than its start because of random weights."""
    simulate = partial(make_simulator, "steersman/Pendulum-v1")
    law = PolicySearch(
        search="cma_es", policy=policy, hidden=(4,), plant_steps=3_000, scenarios=1, explore=2,
        options={"sigma": 1e-9, "size": 6},
    ).bind(simulate(1).problem)  # fmt: skip
    law.train(Training(simulate, seed=0))
    y = torch.randn(64, law.problem.ny, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    law.reset(64)
    m = Measurement(
        torch.zeros(64).long(), y, torch.zeros(64, 1, law.problem.nz).double(), torch.zeros(64, law.problem.actions.m).double()
    )  # fmt: skip
    torch.testing.assert_close(law.act(m).u, law.problem.actions.neutral(64, y), rtol=0, atol=1e-6)
