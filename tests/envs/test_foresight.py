"""Events that nobody can foresee: when they come, what is known of them, and limits that say what the status says."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import binomtest, kstest
from torch import Tensor

from steersman.envs import noise
from steersman.envs.checks import PlantCheckError, check_known
from steersman.envs.grid.events import Fault, LineTrip, LoadStep
from steersman.envs.grid.plant import GridPlant
from steersman.envs.grid.tasks.redispatch import PreventiveRedispatch
from steersman.envs.grid.tasks.swing import NEVER, begin
from steersman.envs.grid.tasks.two_area import TwoArea, TwoAreaGrid
from steersman.envs.grid.tasks.two_area_full import TIE_LINE, TwoAreaDamping, TwoAreaFull
from steersman.envs.plant import Plant, Status
from steersman.envs.registry import PLANTS, make_plant
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import PlantSimulator
from steersman.envs.tree import Params, tree_map

TASKS = ("TwoArea", "TwoAreaBrake", "TwoAreaFull", "TwoAreaDamping", "TwoAreaFrequency", "IEEE39")
each_task = pytest.mark.parametrize("task", TASKS)
F64 = torch.float64


def begins(plant: Plant, p: Params) -> Tensor:
    """Time of the first event of each row."""
    return p["start"] if isinstance(plant, TwoAreaGrid) else p["on"].amin(dim=1)


def alike(plant: Plant, n: int) -> Params:
    """Scenarios that differ in their events alone."""
    key, one = noise.keys(11, n), torch.full((n,), 0.95, dtype=F64)
    if isinstance(plant, TwoAreaGrid):
        p = plant.params(key)
        return plant.faulted(p["bus"], p["start"], (p["clear"] - p["start"]).nan_to_num(0.3), one)
    assert isinstance(plant, GridPlant)
    return plant.scenario(one, plant.draw(key)[1])


def test_times_are_uniform_and_a_share_of_episodes_is_calm() -> None:
    unit = noise.uniform(noise.keys(0, 20_000))
    time = begin(2, unit, 0.5, 0.5, 10.0)
    calm = int(time.isinf().sum())
    assert binomtest(calm, len(time), NEVER).pvalue > 1e-4
    assert kstest(time[time.isfinite()].numpy() / 10.0, "uniform").pvalue > 1e-4
    published = begin(1, unit, 0.5, 0.5, 10.0)
    assert torch.equal(published, 0.5 + 0.5 * unit)


@each_task
def test_scenarios_of_the_second_version(task: str) -> None:
    plant, n = make_plant(f"{task}-v2"), 300
    time = begins(plant, plant.params(noise.keys(2026, n)))
    assert binomtest(int(time.isinf().sum()), n, NEVER).pvalue > 1e-3
    assert kstest(time[time.isfinite()].numpy() / (plant.horizon * plant.period), "uniform").pvalue > 1e-3


@each_task
def test_versions_differ_in_times_and_stated_limits_alone(task: str) -> None:
    first, second = (make_plant(f"{task}-v{i}") for i in (1, 2))
    key = noise.keys(3, 6)
    p, q = first.params(key), second.params(key)
    assert p.keys() == q.keys() and torch.equal(p["loading"], q["loading"])
    early = begins(first, p)
    assert float(early.max()) <= 1.0, "published: in the first second"
    assert not torch.equal(early, begins(second, q))
    k = torch.zeros(6, dtype=torch.int64)
    x, nz = first.initial(key, p), len(first.performed)
    assert second.performed[: first.performed.index("centre frequency") + 1] == first.performed[:5] or task == "IEEE39"
    z, more = first.perform(k, x, p), second.perform(k, x, q)
    named = [second.performed.index(name) for name in first.performed]
    assert torch.equal(more[:, named], z) and more.shape[1] > nz
    u, none = first.actions.sample(noise.uniform(key, first.actions.m)), torch.zeros(6, nz, dtype=F64)
    wide = torch.zeros_like(more)
    costs = first.objective.stage_cost(z, u, u, none), second.objective.stage_cost(more, u, u, wide)
    torch.testing.assert_close(*costs, rtol=1e-12, atol=1e-12)
    label = {spec.name: spec.summary for spec in PLANTS}
    assert "foreseeable" in label[f"{task}-v1"] and "never" in label[f"{task}-v2"]


@each_task
def test_nothing_is_known_before_an_event_and_all_of_it_after(task: str) -> None:
    plant, n = make_plant(f"{task}-v2"), 24
    p = alike(plant, n)
    k = torch.full((n,), plant.horizon // 2)
    known, begun = plant.known(k, p), begins(plant, p) <= k * plant.period
    assert 4 < int(begun.sum()) < n - 4
    comes = ~torch.isinf(p["on"]) if "on" in p else None
    for name, leaf in known.items():
        ahead, past, true = leaf[~begun], leaf[begun], p[name][begun]
        # Solvers round by a row's place in its batch.
        torch.testing.assert_close(ahead, ahead[:1].expand_as(ahead), rtol=1e-11, atol=1e-11, msg=f"{name} tells it")
        if comes is not None and name in ("nodes", "delta"):  # the place of what never comes means nothing
            past, true = past[comes[begun]], true[comes[begun]]
        assert torch.equal(past, true), f"{name} of a past event is hidden"
    calm = plant.known(k, tree_map(lambda t: t[~begun][:1].expand(n, *t.shape[1:]), p))
    assert torch.isinf(begins(plant, calm)).all()
    again = plant.known(k, known)
    assert all(torch.equal(again[name], leaf) for name, leaf in known.items())


@each_task
def test_what_is_known_explains_the_past(task: str) -> None:
    plant = make_plant(f"{task}-v2")
    check_known(plant, steps=plant.horizon // 2, n=4)


def test_known_grows_with_time_and_a_later_event_stays_unknown() -> None:
    plant, one = TwoAreaDamping(version=2), torch.ones(1, dtype=F64)
    both = [Fault(5, 1.01, 0.1), LineTrip(TIE_LINE, 1.01 + 0.1), LoadStep(7, 5.0, 1.0)]
    p = plant.scenario(one, both)
    first = plant.scenario(one, [*both[:2], LoadStep(7, math.inf, 1.0)])

    def run(p: Params, steps: int) -> Tensor:
        simulator = PlantSimulator(plant, 1)
        simulator.reset(Scenarios(noise.keys(0, 1), p, plant.initial(noise.keys(0, 1), p)))
        for _ in range(steps):
            simulator.step(torch.zeros(1, 4, dtype=F64))
        assert isinstance(simulator.x, Tensor)
        return simulator.x

    known = {k: plant.known(torch.tensor([k]), p) for k in (20, 21, 99, 100)}  # at 1, 1.05, 4.95 and 5 s
    assert torch.isinf(known[20]["on"]).all()
    calm = run(first, 110)
    for k in (21, 99):
        assert known[k]["on"].isfinite().tolist() == [[True, True, False]]
        assert torch.equal(run(known[k], 110), calm)
    assert all(torch.equal(known[100][name], p[name]) for name in p)
    assert not torch.equal(run(p, 110), calm)


def test_forecasts_that_are_still_to_be_made_are_not_known() -> None:
    plant = PreventiveRedispatch()
    p = plant.params(noise.keys(0, 3))
    k = torch.tensor([0, 4, 12])
    known = plant.known(k, p)["forecast"]
    for row, now in enumerate(k.tolist()):
        assert torch.equal(known[row, : now + 1], p["forecast"][row, : now + 1])
        assert (known[row, now:] == p["forecast"][row, now]).all()


@each_task
def test_limits_say_what_the_status_says(task: str) -> None:
    plant, n = make_plant(f"{task}-v2"), 400
    key = noise.keys(5, 2)
    p = plant.params(key)
    rows = torch.zeros(n, dtype=torch.int64)
    p = {name: leaf[rows] for name, leaf in p.items()}
    x = tree_map(lambda t: t[rows] + 1.5 * noise.normal(noise.keys(6, n), *t.shape[1:]), plant.initial(key, p))
    found = plant.objective.lost(plant.perform(rows, x, p))
    lost = plant.status(rows, x, p) == Status.TERMINATED
    assert found is not None and 20 < int(lost.sum()) < n - 20
    assert torch.equal(found, lost)


def test_pictures_of_episodes_without_an_event() -> None:
    for plant in (TwoArea(version=2), TwoAreaFull(version=2)):
        simulator = PlantSimulator(plant, 1)
        key = noise.keys(2026, 40)
        calm = torch.isinf(begins(plant, plant.params(key))).nonzero()[0]
        simulator.reset(simulator.scenarios(key[calm]))
        trail = simulator.record()
        u = torch.zeros(1, plant.actions.m, dtype=F64)
        simulator.step(u)
        assert plant.render(simulator.record(trail, u)).ndim == 3


def test_unknown_versions() -> None:
    for make in (TwoArea, TwoAreaFull):
        with pytest.raises(ValueError, match="version must be 1"):
            make(version=3)


class Forgetful(TwoArea):
    """Hides faults for a second after they have begun."""

    def known(self, k: Tensor, p: Params) -> Params:
        return super().known(k - 10, p)


class Growing(TwoArea):
    """Returns other tensors than it was given."""

    def known(self, k: Tensor, p: Params) -> Params:
        return super().known(k, p) | {"step": k}


def test_the_check_finds_plants_that_hide_the_past_or_return_something_else() -> None:
    with pytest.raises(PlantCheckError, match="does not explain what has happened"):
        check_known(Forgetful(), steps=10)
    with pytest.raises(PlantCheckError, match="as it was given them"):
        check_known(Growing())
