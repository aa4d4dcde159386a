"""Rows never see each other: every registered plant, and plants that break the rule on purpose."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.checks import PlantCheckError, check_plant, check_rows, check_simulator
from steersman.envs.classic.pendulum import Pendulum
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.plant import Plant
from steersman.envs.registry import PLANTS, PlantSpec, make_plant
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import PlantSimulator, PlantSnapshot, Transition, draw_scenarios
from steersman.envs.tree import State, rows_like, tree_leaves, tree_map

each_plant = pytest.mark.parametrize("spec", PLANTS, ids=lambda s: s.name)
HEAVY = (
    *("KolmogorovFlow-v1", "Smoke128-v1", "RayleighBenard-v1", "PreventiveRedispatch-v1"),
    *("BurgersOpenLoopPartial-v1", "BurgersOpenLoopHidden-v1", "BurgersOpenLoopSafe-v1"),
)
LOST = 1


@each_plant
def test_every_plant_keeps_the_contract(spec: PlantSpec) -> None:
    # Alone, three, eight, in another order, beside a NaN action; equal to 9e-13.
    plant = make_plant(spec.id)
    size = {"steps": 1, "n": 4} if spec.name in HEAVY else {"steps": 2, "n": 8}
    check_plant(plant, **size)
    assert plant.horizon == spec.control_steps


@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVY)
def test_heavy_plants_keep_the_contract_in_larger_batches(name: str) -> None:
    check_plant(make_plant(name), steps=4)


@each_plant
def test_a_row_that_diverges_leaves_its_neighbours_alone(spec: PlantSpec) -> None:
    plant, n = make_plant(spec.id), 4
    drawn = draw_scenarios(plant, noise.keys(3, n))
    k = torch.zeros(n, dtype=torch.int64)
    u = plant.actions.sample(noise.uniform(noise.keys(4, n), plant.actions.m, dtype=plant.dtype))
    w = plant.disturbance(drawn.key, k)
    lost = torch.arange(n) == LOST
    assert drawn.x0 is not None

    def after(start: State) -> list[Tensor]:
        x = plant.step(k, start, u, w, drawn.p)
        outputs = (f(k + 1, x, drawn.p) for f in (plant.measure, plant.perform, plant.status))
        return [leaf[~lost] for leaf in (*tree_leaves(x), *outputs)]

    wanted = after(drawn.x0)
    for value in (torch.nan, -1e30, 1e4):
        spoilt = tree_map(
            lambda t: torch.where(rows_like(lost, t), value, t) if t.is_floating_point() else t,  # noqa: B023
            drawn.x0,
        )
        for found, right in zip(after(spoilt), wanted, strict=True):
            assert torch.equal(found.nan_to_num(), right.nan_to_num())


Step = Callable[[Plant, Tensor, Tensor, Tensor], Tensor]


def _batch_mean(plant: Plant, k: Tensor, x: Tensor, u: Tensor) -> Tensor:
    return x + 1e-9 * x.mean()


def _steps_of_the_batch(plant: Plant, k: Tensor, x: Tensor, u: Tensor) -> Tensor:
    # Heun's method on x' = u - x, with a step for the largest state of all rows.
    steps = int(20 + 10 * x.abs().max())
    for _ in range(steps):
        ahead = x + (u - x) / steps
        x = x + 0.5 * ((u - x) + (u - ahead)) / steps
    return x


def _newton_for_all(plant: Plant, k: Tensor, x: Tensor, u: Tensor) -> Tensor:
    # A square root that stops once all rows have converged, or one is lost.
    wanted, root = 1 + x.square() + u, torch.ones_like(x)
    for _ in range(30):
        root = 0.5 * (root + wanted / root)
        gap = (root.square() - wanted).abs()
        if bool((gap < 1e-3).all()) or not bool(gap.isfinite().all()):
            break
    return root


def _short_cut_for_equal_rows(plant: Plant, k: Tensor, x: Tensor, u: Tensor) -> Tensor:
    # Both are x / 3 + u, to the last bit but one.
    return x / 3 + u if bool((u == u[:1]).all()) else x * (1 / 3) + u


def _order_of_the_rows(plant: Plant, k: Tensor, x: Tensor, u: Tensor) -> Tensor:
    return x + 1e-6 * torch.arange(len(x), dtype=x.dtype)[:, None]


WRONG = (_batch_mean, _steps_of_the_batch, _newton_for_all, _short_cut_for_equal_rows, _order_of_the_rows)


@pytest.mark.parametrize("wrong", WRONG)
def test_check_plant_catches_rows_that_see_each_other(wrong: Step) -> None:
    plant = Pendulum()
    plant.step = lambda k, x, u, w, p: wrong(plant, k, x, u)  # type: ignore[method-assign,assignment,arg-type]
    with pytest.raises(PlantCheckError, match=r"rest of its batch|reached others"):
        check_plant(plant)


def test_check_plant_catches_scenarios_of_the_batch() -> None:
    plant = Pendulum()
    plant.params = lambda key: {"events": torch.zeros(len(key), int(key.remainder(3).max()))}  # type: ignore[method-assign]
    with pytest.raises(PlantCheckError, match=r"batch.*events has shape"):
        check_plant(plant)
    plant = Pendulum()
    honest = plant.initial
    plant.initial = lambda key, p: honest(key, p) + 1e-3 * (key == key.max())[:, None]  # type: ignore[method-assign,operator]
    with pytest.raises(PlantCheckError, match=r"batch.*state at the start"):
        check_plant(plant)


def test_check_plant_catches_noise_of_its_own_and_work_in_place() -> None:
    plant = Pendulum()
    honest, gen = plant.step, torch.Generator().manual_seed(0)
    plant.step = lambda k, x, u, w, p: honest(k, x, u, w, p) + 1e-15 * torch.randn(1, generator=gen)  # type: ignore[method-assign,operator]
    with pytest.raises(PlantCheckError, match="two runs of one scenario"):
        check_plant(plant)
    plant.step = lambda k, x, u, w, p: x.add_(1.0)  # type: ignore[method-assign,union-attr]
    with pytest.raises(PlantCheckError, match="in place"):
        check_plant(plant)
    with pytest.raises(ValueError, match=r"at least 4, .* got 2"):
        check_rows(Pendulum(), n=2)


# ------------------------------------------------------------------ simulators


class Leak(Plant):
    """A level that leaks and is filled."""

    dt, horizon = 1.0, 6
    measured = performed = ("level", "half")

    def __init__(self) -> None:
        self.actions = ActionSet((-1.0,), (1.0,))
        self.objective = Objective((Quadratic(name="level", on="z", weights=(1.0, 1.0)),))

    def initial(self, key: Tensor, p: dict[str, Tensor]) -> Tensor:
        return noise.uniform(key, 1)

    def step(self, k: Tensor, x: State, u: Tensor, w: Tensor, p: dict[str, Tensor]) -> Tensor:
        assert isinstance(x, Tensor)
        return 0.9 * x + u

    def measure(self, k: Tensor, x: State, p: dict[str, Tensor]) -> Tensor:
        assert isinstance(x, Tensor)
        return torch.cat([x, x / 2], dim=1)


class Careless(PlantSimulator):
    """Breaks what the checker looks for, one rule at a time."""

    rule = ""

    def __init__(self, n: int, rule: str) -> None:
        super().__init__(Leak(), n, price=0.0)
        self.rule, self.resets = rule, 0

    def restore(self, snapshot: PlantSnapshot) -> None:
        if self.rule != "restore":
            super().restore(snapshot)

    def reset(self, scenarios: Scenarios, mask: Tensor | None = None) -> None:
        self.resets += 1
        if self.rule == "key":
            scenarios = Scenarios(noise.fold(scenarios.key, self.resets))
        if self.rule == "stays" and mask is not None:
            return
        super().reset(scenarios, None if self.rule == "reset" else mask)

    def step(self, u: Tensor) -> Transition:
        if self.rule == "nan":
            u = u.nan_to_num(0.0)
        if self.rule == "spread" and bool(u.isnan().any()):
            u = u + 0.1
        return super().step(u)

    def perform(self) -> Tensor:
        return super().perform()[:, :1] if self.rule == "shape" and self.n > 2 else super().perform()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("key", "nothing can be paired on it: scenario 0 does not repeat"),
        ("restore", "it goes on otherwise after restore than before"),
        ("reset", "a masked reset of one row changed others"),
        ("stays", "a masked row must begin at step 0 when it is reset"),
        ("nan", "a NaN action must end its row by failure"),
        ("spread", "a NaN action in one row reached others"),
        ("shape", r"z must be \(4, 2\), got \(4, 1\)"),
    ],
)
def test_the_check_of_simulators_finds_what_is_broken(rule: str, message: str) -> None:
    with pytest.raises(PlantCheckError, match=message):
        check_simulator(lambda n: Careless(n, rule))


def test_a_simulator_that_keeps_the_contract_passes() -> None:
    check_simulator(lambda n: Careless(n, ""))
    with pytest.raises(ValueError, match="n must be at least 3"):
        check_simulator(lambda n: Careless(n, ""), n=2)
