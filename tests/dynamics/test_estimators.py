"""Estimators: what controllers believe, and that another one can take the window's place."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from steersman.controllers.base import Controller
from steersman.controllers.classical.lqr import LQG, LQR
from steersman.controllers.planning.sampling import MPPI
from steersman.controllers.rollout import run_episodes
from steersman.dynamics.base import Dynamics
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.estimation.base import Belief, Estimator, WindowEstimator, Windows
from steersman.dynamics.estimation.kalman import KalmanEstimator, KalmanFilter
from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.registry import make_model
from steersman.envs import make_plant, make_simulator, noise
from steersman.envs.simulator import Measurement

HEAT = "steersman/Heat-v1"


def linear(context: int = 2) -> LinearDynamics:
    sim = make_simulator(HEAT, 8)
    return (
        LinearDynamics(context=context, choose=False)
        .bind(sim.problem)
        .fit(collect(sim, HeldLevels(), episodes=8, seed=0, steps=30))
    )


def costs(law: Controller) -> Tensor:
    sim = make_simulator(HEAT, 4)
    law.reset(4)
    return run_episodes(sim, sim.scenarios(noise.keys(1, 4)), lambda m: law.act(m).u).cost


def kalman(model: LinearDynamics, process: float = 1e-2, measurement: float = 1e-2) -> KalmanEstimator:
    system = model.state_space()
    eye = torch.eye(len(system.A), dtype=torch.float64)
    V = measurement**2 * torch.eye(len(system.C), dtype=torch.float64)
    return KalmanEstimator(KalmanFilter(system, system.W + process**2 * eye, V), list(range(len(system.C))))


def test_lqr_behind_a_kalman_filter_is_lqg() -> None:
    problem, model = make_plant(HEAT).problem, make_model("linearized", make_plant(HEAT))
    law, lqg = LQR().bind(problem, model), LQG().bind(problem, model)
    alone = costs(law)
    law.estimator = kalman(model)  # type: ignore[arg-type]
    torch.testing.assert_close(costs(law), costs(lqg), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(costs(law), alone)


def test_a_window_believes_what_the_model_makes_of_the_last_measurements() -> None:
    model, sim = linear(3), make_simulator(HEAT, 4)
    sim.reset(sim.scenarios(noise.keys(0, 4)))
    estimator, windows = WindowEstimator(model), Windows(3)
    for k in range(5):
        m = sim.measure()
        belief = estimator.update(m)
        want = model.init(windows.push(m))
        assert isinstance(belief.hidden, dict) and isinstance(want, dict)
        assert torch.equal(belief.hidden["s"], want["s"]) and belief.now is m
        sim.step(torch.full((4, sim.actions.m), 0.1 * k, dtype=torch.float64))
    some = belief.rows(torch.tensor([2, 0]))
    assert isinstance(some.hidden, dict)
    assert torch.equal(some.hidden["s"], belief.hidden["s"][[2, 0]]) and torch.equal(some.now.y, m.y[[2, 0]])


@pytest.mark.parametrize("kind", ["window", "kalman"])
def test_rows_restart_alone_and_missing_outputs_do_not_correct(kind: str) -> None:
    model, sim = linear(), make_simulator(HEAT, 2)
    make = {"window": lambda: WindowEstimator(model), "kalman": lambda: kalman(model)}[kind]
    sim.reset(sim.scenarios(noise.keys(0, 2)))
    estimator, fresh = make(), make()
    estimator.update(sim.measure())
    sim.step(torch.ones(2, sim.actions.m, dtype=torch.float64))
    m = sim.measure()
    estimator.reset(torch.tensor([True, False]))
    found, alone = estimator.update(m).hidden, fresh.update(m).hidden
    assert isinstance(found, dict) and isinstance(alone, dict)
    assert torch.equal(found["s"][0], alone["s"][0]) and not torch.equal(found["s"][1], alone["s"][1])
    if kind == "kalman":
        seen = torch.zeros(2, sim.problem.ny, dtype=torch.bool)
        blind = estimator.update(replace(m, y=m.y + 1e3, seen=seen)).hidden
        assert isinstance(blind, dict) and float(blind["s"].abs().max()) < 100


class Shifted(Estimator):
    """Believes in another state than there is."""

    def __init__(self, model: Dynamics, by: float) -> None:
        self.window, self.by, self.calls = WindowEstimator(model), by, 0

    def reset(self, mask: Tensor | None = None) -> None:
        self.window.reset(mask)

    def update(self, m: Measurement) -> Belief:
        self.calls += 1
        belief = self.window.update(m)
        assert isinstance(belief.hidden, dict)
        return replace(belief, hidden={**belief.hidden, "s": belief.hidden["s"] + self.by})


def test_planners_plan_from_what_is_believed() -> None:
    model, sim = linear(), make_simulator(HEAT, 3)
    sim.reset(sim.scenarios(noise.keys(4, 3)))
    laws = [MPPI(horizon=4, samples=16).bind(sim.problem, model) for _ in range(3)]
    same, other = Shifted(model, 0.0), Shifted(model, 5.0)
    laws[1].estimator, laws[2].estimator = same, other
    found = []
    for law in laws:
        law.reset(3, gen=torch.Generator().manual_seed(0))
        found.append(law.act(sim.measure(4)).u)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert same.calls == other.calls == 1


def test_without_a_model_there_is_no_belief() -> None:
    law = LQR().bind(make_plant(HEAT).problem, make_model("linearized", make_plant(HEAT)))
    law.estimator = None
    sim = make_simulator(HEAT, 1)
    sim.reset(sim.scenarios(noise.keys(0, 1)))
    with pytest.raises(RuntimeError, match="lqr has no model, and so no belief"):
        law.believe(sim.measure())


def test_a_window_goes_on_with_what_the_model_foretold_of_what_was_not_seen() -> None:
    """With an exact model of a plant without noise, missed outputs make no difference to what is believed."""
    model, sim = linear(2), make_simulator(HEAT, 3)
    sim.reset(sim.scenarios(noise.keys(2, 3)))
    informed, missing, held = WindowEstimator(model), WindowEstimator(model), Windows(2)
    last = sim.measure().y
    for k in range(8):
        m = sim.measure()
        seen = torch.ones(3, sim.problem.ny, dtype=torch.bool)
        if k in (4, 5):
            seen[1] = False
        if k == 6:
            seen[2, ::2] = False
        stale = replace(m, y=torch.where(seen, m.y, last), seen=seen if k > 3 else None)
        want, found, old = informed.update(m).hidden, missing.update(stale).hidden, model.init(held.push(stale))
        assert isinstance(want, dict) and isinstance(found, dict) and isinstance(old, dict)
        tolerance = 2e-3 * float(want["s"].abs().max())
        torch.testing.assert_close(found["s"], want["s"], rtol=0, atol=tolerance)
        if k == 5:
            assert float((old["s"] - want["s"])[1].abs().max()) > 5 * tolerance
        last = stale.y
        sim.step(torch.full((3, sim.actions.m), 1.0 if k % 2 else -1.0, dtype=torch.float64))


def test_nothing_is_foretold_of_a_row_that_begins() -> None:
    model, sim = linear(2), make_simulator(HEAT, 2)
    sim.reset(sim.scenarios(noise.keys(0, 2)))
    estimator = WindowEstimator(model)
    estimator.update(sim.measure())
    estimator.reset(torch.tensor([True, False]))
    m = replace(sim.measure(), seen=torch.zeros(2, sim.problem.ny, dtype=torch.bool))
    assert torch.equal(estimator.update(m).now.y[0], m.y[0])
    assert not torch.equal(estimator.update(m).now.y[1], m.y[1])
